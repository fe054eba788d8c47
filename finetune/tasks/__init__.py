"""Tasks: a module of plain functions each, of the same names (`finetune/stages.py` lists them)."""

import importlib
from typing import Any

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "classification",
        "masked",
        "next_word",
        "questions",
        "seq2seq",
        "tagging",
        "taught_texts",
        "taught_words",
    ],
)

_OF_HEAD = {
    "token-classification": "tagging",
    "sequence-classification": "classification",
    "question-answering": "questions",
    "text-to-text": "seq2seq",
}


def of_head(head: str) -> Any:
    """The task that a model with such a head is for."""
    return importlib.import_module(f"{__name__}.{_OF_HEAD[head]}")


_TAUGHT = {"token-classification": "taught_words", "sequence-classification": "taught_texts"}


def taught(head: str) -> Any:
    """What distillation needs of the task that a model with such a head is for; None if it cannot be distilled."""
    return importlib.import_module(f"{__name__}.{_TAUGHT[head]}") if head in _TAUGHT else None
