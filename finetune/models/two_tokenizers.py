"""The tokenizers of source and target: one for both sides, or one a side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers.utils import cached_file

from finetune.models.pretrained import load_tokenizer, resolve
from finetune.models.tokenizers import subword_tokenizer, train_tokenizer

TRAINED = ("byte-bpe", "unigram")  # a target's text comes back from these as it was
_FOLDER = "target_tokenizer"


@dataclass(frozen=True)
class TwoTokenizers:
    """The tokenizers of source and target, which may be the same object."""

    source: Any
    target: Any

    @property
    def pad_token_id(self) -> int:
        """The source's. The targets of a batch are padded with -100."""
        found: int = self.source.pad_token_id
        return found

    @property
    def padding_side(self) -> str:
        """The source's."""
        found: str = self.source.padding_side
        return found

    def save_pretrained(self, folder: str | Path) -> None:
        """The source's goes into the folder, where `AutoTokenizer` looks. A target's own goes into a folder in it."""
        self.source.save_pretrained(folder)
        if self.target is not self.source:
            self.target.save_pretrained(Path(folder) / _FOLDER)


def new_tokenizers(
    kind: str,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    vocab_size: int,
    joint: bool,
    on_one_process: Callable[[Callable[[], str]], str],
) -> TwoTokenizers:
    """Trains a tokenizer on the texts of both sides, or one on each side.

    Args:
        kind: `byte-bpe` or `unigram`.
        vocab_size: pieces of each tokenizer, special tokens included.
        joint: one tokenizer for both sides.
        on_one_process: calls a function on one process and returns its result on all processes.

    Raises:
        ValueError: as `train_tokenizer`.
    """

    def trained(texts: Sequence[str]) -> Any:
        pieces = on_one_process(lambda: train_tokenizer(kind, lambda: texts, vocab_size=vocab_size).to_str())
        return subword_tokenizer(kind, Tokenizer.from_str(pieces))

    if joint:
        one = trained([*sources, *targets])
        return TwoTokenizers(one, one)
    return TwoTokenizers(trained(sources), trained(targets))


def load_tokenizers(name: str, revision: str = "main", flag: str = "--model_name_or_path") -> TwoTokenizers:
    """The tokenizers that `TwoTokenizers.save_pretrained` saved, or those of any checkpoint: one for both sides."""
    source = load_tokenizer(name, revision, for_words=False, flag=flag)
    folder = Path(resolve(name)) / _FOLDER
    if not Path(resolve(name)).is_dir():
        try:
            found = cached_file(name, f"{_FOLDER}/tokenizer.json", revision=revision)
        except OSError:  # the Hub has none
            found = None
        folder = Path(found).parent if found else folder
    if not folder.is_dir():
        return TwoTokenizers(source, source)
    return TwoTokenizers(source, load_tokenizer(str(folder), for_words=False, flag=flag))
