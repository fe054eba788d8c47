"""Runs an exported model with numpy, tokenizers and onnxruntime. Neither torch nor transformers is imported.

| file of an exported folder | holds |
|---|---|
| `model.onnx` | the graph: the model, and what its task keeps of the model's output |
| `tokenizer.json` | the tokenizer |
| `export.json` | `Described`: the labels, and how inputs are cut |
| `README.md` | how far the answers agree with those of the model in torch, speed, size |

Shapes: N rows, T tokens of all rows, B rows of a batch.
"""

from __future__ import annotations  # the types of the fields are read as texts

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from finetune.data.rows import Rows, padded, ranges
from finetune.data.word_rows import WordColumns
from finetune.export import viterbi
from finetune.metrics import tempered
from finetune.models.word_bytes import word_bytes

MODEL, TOKENIZER, DESCRIPTION = "model.onnx", "tokenizer.json", "export.json"
ON_REQUEST = ("logs",)  # outputs that are large, and needed for --top_k and --decoding viterbi alone
_LARGEST = 2**24  # bytes of an export.json
_IGNORE = -100


@dataclass(frozen=True)
class Described:
    """`export.json`: what a runner must know beside the graph and the tokenizer."""

    head: str  # what the model was trained for, as `finetune.tasks.of_head` takes it
    model_type: str
    labels: list[str]
    settings: dict[str, Any]  # of the task
    per_token: list[str]  # the outputs of the graph with a value for each token; others have one for each row
    tokenizer: dict[str, Any]  # the fields of `Tokenizer` beside the backend
    precision: str
    pairs: bool | None = None
    max_seq_length: int = 128
    doc_stride: int | None = None
    position_limit: int | None = None
    word_column: int | str | None = None
    text_columns: list[str | None] = field(default_factory=lambda: [None, None])  # of texts and of second texts
    document_column: str | None = None
    word_columns: dict[str, str | None] | None = None  # the fields of `finetune.data.WordColumns`
    label_separator: str | None = None
    crf: dict[str, Any] | None = None  # as `viterbi.decode` takes it
    proof: dict[str, Any] = field(default_factory=dict)  # as the card tells it


def read_description(folder: Path) -> Described:
    """Reads `export.json`. Raises ValueError, naming the file, for one that no export has written."""
    file = folder / DESCRIPTION
    if not file.is_file():
        raise ValueError(f"--runtime onnx: {folder} holds no exported model; recipes/export.py makes one")
    if file.stat().st_size > _LARGEST:
        raise ValueError(f"{file}: larger than any that an export writes")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        found = Described(**told)
        whole = all(
            isinstance(told[own.name], _TYPES[str(own.type)]) for own in fields(Described) if own.name in told
        )
        columns = [*found.text_columns, *vars(WordColumns(**found.word_columns or {})).values()]
        whole &= len(found.text_columns) == 2 and all(isinstance(name, str | None) for name in columns)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{file}: no export has written this: {' '.join(str(error).split())[:200]}") from error
    if not whole:
        raise ValueError(f"{file}: no export has written this: a value is of another type")
    return found


_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "list[str]": list,
    "list[str | None]": list,
    "dict[str, Any]": dict,
    "bool | None": bool | None,
    "str | None": str | None,
    "int | None": int | None,
    "int | str | None": int | str | None,
    "dict[str, Any] | None": dict | None,
    "dict[str, str | None] | None": dict | None,
}


@dataclass(frozen=True)
class Encoded:
    """What a tokenizer made of one text, or of several: `["input_ids"]` and so on."""

    columns: dict[str, list[Any]]
    encodings: list[Any]

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def items(self) -> Any:
        """Names and values."""
        return self.columns.items()


@dataclass(frozen=True)
class Tokenizer:
    """Called as a fast tokenizer of transformers is, as far as `finetune.data` calls one."""

    backend: Any
    pad_token_id: int
    unk_token_id: int | None
    sep_token_id: int | None
    padding_side: str
    truncation_side: str
    token_types: bool  # whether it gives token_type_ids
    word_bytes: int | None  # of `char_ids`; None: it gives none

    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        is_split_into_words: bool = False,
        add_special_tokens: bool = True,
        truncation: str | None = None,
        max_length: int | None = None,
        return_token_type_ids: bool = True,
        return_offsets_mapping: bool = False,
        **_: Any,
    ) -> Encoded:
        """Ids of one text or of several, without padding."""
        several = isinstance(text[0] if is_split_into_words and text else text, (list, tuple))
        texts = list(text) if several else [text]
        pairs = None if text_pair is None else list(text_pair) if several else [text_pair]
        if truncation is not None:
            self.backend.enable_truncation(max_length, strategy=truncation, direction=self.truncation_side)
        try:
            encodings = self.backend.encode_batch(
                texts if pairs is None else list(zip(texts, pairs, strict=True)),
                is_pretokenized=is_split_into_words,
                add_special_tokens=add_special_tokens,
            )
        finally:
            self.backend.no_truncation()
        columns: dict[str, list[Any]] = {"input_ids": [own.ids for own in encodings]}
        if self.token_types and return_token_type_ids:
            columns["token_type_ids"] = [own.type_ids for own in encodings]
        if return_offsets_mapping:
            columns["offset_mapping"] = [own.offsets for own in encodings]
        if self.word_bytes is not None:
            sides = [(one,) for one in texts] if pairs is None else list(zip(texts, pairs, strict=True))
            columns["char_ids"] = [
                word_bytes(own, side, is_split_into_words, self.word_bytes)
                for own, side in zip(encodings, sides, strict=True)
            ]
        return Encoded(columns if several else {key: values[0] for key, values in columns.items()}, encodings)


def load_tokenizer(folder: Path, described: Described) -> Tokenizer:
    """The tokenizer of an exported folder."""
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_file(str(folder / TOKENIZER))
        tokenizer = Tokenizer(backend, **described.tokenizer)
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ValueError(f"{folder / TOKENIZER}: does not load: {' '.join(str(error).split())[:200]}") from error
    backend.no_padding()
    backend.no_truncation()
    return tokenizer


@dataclass(frozen=True)
class OnnxModel:
    """A graph in onnxruntime."""

    session: Any
    described: Described

    @property
    def config(self) -> Any:
        """What a task asks of a model's config."""
        return SimpleNamespace(model_type=self.described.model_type)

    def collect(self, rows: Rows, batch_size: int, also: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """What the task keeps of each row, (N, ...), or of each token, (T, ...). Rows of a length run together.

        Args:
            also: outputs that the task keeps on request alone (`ON_REQUEST`).
        """
        fits_tags = self.described.settings.get("decoding") == "viterbi"
        if fits_tags:
            also = ("logs", *also)
        found: dict[str, np.ndarray] = {}
        order = np.argsort(-rows.lengths, kind="stable")
        for i in range(0, len(order), batch_size):
            ids = order[i : i + batch_size]
            inputs = self.inputs(rows, ids)
            outputs = self.run(inputs, also)
            real = inputs["attention_mask"].astype(bool)
            for name, values in outputs.items():
                of_tokens = name in self.described.per_token
                values, at = (
                    (values[real], ranges(rows.offsets[ids], rows.lengths[ids])) if of_tokens else (values, ids)
                )
                if name not in found:
                    total = int(rows.offsets[-1]) if of_tokens else len(rows)
                    found[name] = np.zeros((total, *values.shape[1:]), values.dtype)
                found[name][at] = values
        if fits_tags and found:
            found["shares"] = tempered(found["logs"], self.described.settings.get("score_temperature") or 1.0)
        return found

    def inputs(self, rows: Rows, ids: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Some rows as one padded batch, at least one token long."""
        settings = self.described.tokenizer
        left = settings["padding_side"] == "left"
        inputs = padded(rows.take(ids), settings["pad_token_id"], pad_left=left, least=1)
        if "char_ids" in inputs and inputs["char_ids"].ndim == 2:  # of empty texts alone, whose bytes have no shape
            inputs["char_ids"] = np.zeros((*inputs["char_ids"].shape, settings["word_bytes"]), np.int64)
        return inputs

    def run(self, inputs: dict[str, np.ndarray], also: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The outputs of a batch by their names. Those of a CRF are `labels` and `scores`, and `logs` on request."""
        left = {name for name in ON_REQUEST if name not in also}
        names = [output.name for output in self.session.get_outputs() if output.name not in left]
        given = {own.name: inputs[own.name] for own in self.session.get_inputs()}
        found = dict(zip(names, self.session.run(names, given), strict=True))
        if self.described.crf is None:
            return found
        mask = inputs["labels"] != _IGNORE
        labels, logs = viterbi.decode(found["logits"], mask, self.described.crf)
        temperature = self.described.settings.get("score_temperature") or 1.0
        scores = viterbi.best_share(logs / np.float32(temperature))
        return {"labels": labels, "scores": scores} | ({"logs": logs} if "logs" in also else {})


def open_session(model: str | Path | bytes) -> Any:
    """A session on the processor.

    `OMP_NUM_THREADS` says how many threads it has, as it does for torch. Its threads do not spin while they wait,
    since that would slow down other programs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def load_model(folder: Path, described: Described) -> OnnxModel:
    """The graph of an exported folder."""
    try:
        session = open_session(folder / MODEL)
    except ImportError as error:
        raise ValueError("--runtime onnx: onnxruntime is not installed: pip install onnxruntime") from error
    except Exception as error:  # onnxruntime has a class for each kind of error
        raise ValueError(f"{folder / MODEL}: does not load: {' '.join(str(error).split())[:200]}") from error
    return OnnxModel(session, described)
