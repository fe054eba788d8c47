"""What prediction labels, one answer each."""

from dataclasses import dataclass, field
from typing import Any

from finetune.data.conll import Sentence


@dataclass(frozen=True)
class Record:
    """A text, a question, or a sentence of words, that gets one answer."""

    line: int  # the number of its first line
    sample: str | tuple[str, str] | list[str]  # a text, a pair of texts, or words
    row: dict[str, Any] = field(default_factory=dict)  # keys that the answer keeps
    sentence: Sentence | None = None  # for a column file: its lines; the lines after the last sentence have no word
    rows: list[dict[str, Any]] | None = None  # of a table with a word in each row: the cells of each word
    document: int = 0  # the number of its document, from 1 on; 0: none is known
    delimiter: str = ","  # of a row of CSV: what stands between its cells, also in the output
    head: bool = False  # whether it has the names of the columns; its sample is empty, but of the right kind

    @property
    def asks(self) -> bool:
        """Whether there is something to label. The lines after the last sentence of a column file are not."""
        return not self.head and (self.sentence is None or bool(self.sample))
