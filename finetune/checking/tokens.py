"""What the tokenizer of a checkpoint makes of the words: which are cut, and which characters it does not know."""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import unicodedata
from typing import Any

from finetune import data, models
from finetune.checking.samples import ENTITIES, QUESTIONS, TAGS, Samples
from finetune.checking.sections import Section

_SHOWN = 20  # unknown characters


def of_tokenizer(samples: Samples, config: Any) -> Section | None:
    """The alignment report of each split, as a table; None for a baseline, which learns its own vocabulary.

    If the tokenizer does not load, for example without a connection to the Hub, the section says why.

    Args:
        config: its `model_name_or_path`, `model_revision`, `tokenizer_name` and limits of length are used.
    """
    import datasets
    import pyarrow as pa

    name = getattr(config, "tokenizer_name", None) or config.model_name_or_path
    title = f"What the tokenizer of {name} does"
    if models.is_baseline(name) or models.is_new_seq2seq(name):
        return None
    try:
        tokenizer = models.load_tokenizer(name, getattr(config, "model_revision", "main"))
    except ValueError as error:
        return Section("tokenizer", title, f"Not checked: {error}", [], [])
    rows: list[list[Any]] = []
    unknown, cut, characters = 0, dict[str, int](), dict[str, int]()
    every = [(split, *part) for split in samples.splits for part in samples.parts_of(split).items()]
    for split, name, own in every:
        words = pa.array(own, type=pa.list_(pa.string()))
        limit = getattr(config, _limit_of(name))
        report = data.alignment_report(datasets.Dataset(pa.table({"tokens": words})), tokenizer, limit)
        rows.append(
            [
                split if len(every) == len(samples.splits) else f"{split}, {name}",
                report.words,
                report.subwords,
                round(report.fertility, 2),
                report.words_cut,
                report.sentences_cut,
                report.words_unknown,
                report.words_without_subword,
            ]
        )
        cut[name] = cut.get(name, 0) + report.words_cut
        unknown += report.words_unknown
        for character, times in report.unknown_characters.items():
            characters[character] = characters.get(character, 0) + times
    lost = ""
    for name, count in cut.items():
        which = "words" if len(cut) == 1 else f"words of {name}"
        windows = samples.kind in (ENTITIES, TAGS) or (samples.kind == QUESTIONS and name == "passages")
        windows = windows or getattr(config, "long_texts", "cut") == "window"
        fate = "go into overlapping windows" if windows else "are cut"
        lost += f"{count:,} {which} past --{_limit_of(name)} {getattr(config, _limit_of(name))} {fate}; "
    says = f"{lost}{unknown:,} words have unknown parts."
    if characters:
        most = sorted(characters, key=lambda character: (-characters[character], character))
        told = ", ".join(f"U+{ord(c):04X} {_named(c)} ({characters[c]:,})" for c in most[:_SHOWN])
        says += f" Unknown characters: {told}{f' and {len(most) - _SHOWN:,} more' * (len(most) > _SHOWN)}."
    columns = [
        *("split", "words", "subwords", "subwords a word", "words past the limit", "samples with such words"),
        *("words with unknown parts", "words without a subword"),
    ]
    past = sum(cut.values())
    numbers: dict[str, float] = {"words_cut": past, "words_unknown": unknown, "unknown_characters": len(characters)}
    return Section("tokenizer", title, says, columns, rows, look=bool(past or unknown), numbers=numbers)


def _limit_of(part: str) -> str:
    """The flag that limits the length of a part of the samples."""
    return "max_target_length" if part == "targets" else "max_seq_length"


def _named(character: str) -> str:
    return unicodedata.name(character, "without a name").lower()
