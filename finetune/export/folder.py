"""Makes an exported folder: the graph, int8 if it is proved to answer alike, the tokenizer, the card.

The folder appears whole or not at all.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from finetune import models, stages
from finetune.arguments import ModelArguments
from finetune.export import graph, int8, runner
from finetune.files import remove, sync

logger = logging.getLogger(__name__)

FLOAT32 = "float32"
_TEXTS = (
    "Grace Hopper was born in New York in 1906 , and she liked clocks .",
    "I would see it again .",
    "",
    "No",
    "Ada Lovelace met Charles Babbage at a party in London",
)
_FILES = (runner.MODEL, runner.TOKENIZER, "README.md", runner.DESCRIPTION)
_SENSITIVITY_ROWS = 64  # rows that say which products suffer most from int8


@dataclass(frozen=True)
class Exported:
    """An exported model, not yet written."""

    onnx: bytes
    described: runner.Described
    tokenizer: str  # as tokenizer.json has it

    def model(self) -> runner.OnnxModel:
        """The model, ready to run."""
        return runner.OnnxModel(runner.open_session(self.onnx), self.described)


def float32(model_dir: str, revision: str, predictor: Any) -> Exported:
    """The model as a graph in float32, which was seen to answer as the model does in torch.

    Args:
        predictor: `load_predictor(model_dir)`.

    Raises:
        ValueError: for a model that torch does not export.
        RuntimeError: if the graph gives other answers.
    """
    from accelerate import Accelerator

    rows = _sample(predictor)
    arguments = ModelArguments(model_name_or_path=model_dir, model_revision=revision, padding_free=False)
    head, labels, model, tokenizer = models.load_finetuned(arguments, max_seq_length=predictor.max_seq_length)
    task, settings = predictor.task, predictor.settings
    nothing: dict[str, float] = {}
    batches = (rows, task, settings, 32, lambda inputs: nothing)
    wanted = stages.collect(Accelerator(cpu=True), model, tokenizer, *batches).arrays
    crf = _crf(model)
    limit = models.position_limit(model)
    left = tokenizer.padding_side == "left"
    # The graph gives each word its own best tag. The tags that fit together are found outside of it, from `logs`.
    asked = settings | {"also": runner.ON_REQUEST, "decoding": "argmax"}
    made = graph.export(model, task, asked, rows, tokenizer.pad_token_id, pad_left=left)
    described = runner.Described(
        head=head,
        model_type=predictor.model.config.model_type,
        labels=labels,
        settings=settings,
        per_token=made.per_token,
        tokenizer=_described_tokenizer(tokenizer),
        precision=FLOAT32,
        pairs=predictor.pairs,
        max_seq_length=predictor.max_seq_length,
        doc_stride=predictor.doc_stride,
        position_limit=limit,
        word_column=predictor.word_column,
        text_columns=list(predictor.text_columns),
        document_column=predictor.document_column,
        word_columns=None if predictor.word_columns is None else asdict(predictor.word_columns),
        label_separator=predictor.label_separator,
        crf=crf,
    )
    exported = Exported(made.onnx, described, tokenizer.backend_tokenizer.to_str())
    for batch_size in (len(rows), 1):
        other = graph.disagreement(wanted, exported.model().collect(rows, batch_size))
        if other is not None:
            raise RuntimeError(f"the graph does not answer as the model does ({other}); this is a bug of the export")
    return exported


def in_int8(exported: Exported, rows: Any, proved: Callable[[Exported], bool]) -> Exported | None:
    """The model in int8: first all of it, then with the most sensitive products left in float.

    Args:
        rows: some of the development split, which say what is sensitive.
        proved: whether the answers are good enough.

    Returns:
        The first one that is proved; None if none is.
    """
    for name, onnx in _candidates(exported, rows):
        candidate = replace(exported, onnx=onnx, described=replace(exported.described, precision=name))
        if proved(candidate):
            return candidate
    return None


def _candidates(exported: Exported, rows: Any) -> Iterator[tuple[str, bytes]]:
    yield "int8", int8.quantized(exported.onnx)
    ranked = _by_sensitivity(exported, rows)
    for number in dict.fromkeys(-(-len(ranked) // share) for share in (4, 2)):
        kept = ranked[:number]
        if kept and len(kept) < len(ranked):
            name = f"int8, {len(kept)} of {len(ranked)} products in float32"
            yield name, int8.quantized(exported.onnx, kept)


def _by_sensitivity(exported: Exported, rows: Any) -> list[str]:
    """The names of the products, first the one that changes the answers most when it alone is in int8."""
    names = int8.products(exported.onnx)
    some = rows.take(np.unique(np.linspace(0, len(rows) - 1, _SENSITIVITY_ROWS).astype(np.int64)))
    wanted = exported.model().collect(some, 32)
    changes = {}
    for name in names:
        alone = int8.quantized(exported.onnx, [other for other in names if other != name])
        found = replace(exported, onnx=alone).model().collect(some, 32)
        floats = [key for key, values in wanted.items() if values.dtype.kind == "f"]
        changes[name] = sum(float(np.nan_to_num(np.abs(found[key] - wanted[key])).mean()) for key in floats)
    return sorted(names, key=lambda name: -changes[name])


def write(exported: Exported, folder: Path, card: str) -> None:
    """Writes the folder, in another place first. A folder that is there is empty; it may be a link, or mounted, so
    it stays, and gets the file that makes it an export last.
    """
    there = folder.is_dir()
    beside = folder / ".writing" if there else folder.with_name(f".{folder.name}.writing")
    remove(beside)
    beside.mkdir(parents=True)
    told = json.dumps(asdict(exported.described), ensure_ascii=False, indent=1)
    try:
        (beside / runner.MODEL).write_bytes(exported.onnx)
        for name, text in ((runner.TOKENIZER, exported.tokenizer), ("README.md", card), (runner.DESCRIPTION, told)):
            (beside / name).write_text(text, encoding="utf-8")
        for name in _FILES:
            sync(beside / name)
        if there:
            for name in _FILES:
                (beside / name).rename(folder / name)
        else:
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sample(predictor: Any) -> Any:
    """Rows of different lengths, as the task makes them of texts."""
    kept: list[Any] = []

    def keep(rows: Any) -> Any:
        kept.append(rows)
        return predictor.run(rows)

    paired = predictor.pairs or predictor.task.PIPELINE == "question-answering"
    replace(predictor, run=keep)([(_TEXTS[i - 1], _TEXTS[i]) if paired else _TEXTS[i] for i in range(len(_TEXTS))])
    return kept[0]


def _described_tokenizer(tokenizer: Any) -> dict[str, Any]:
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "unk_token_id": tokenizer.unk_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "token_types": "token_type_ids" in tokenizer.model_input_names,
        "word_bytes": getattr(tokenizer, "word_bytes", None),
    }


def _crf(model: Any) -> dict[str, Any] | None:
    if not hasattr(model, "crf"):
        return None
    weights = {name: getattr(model.crf, name).detach().tolist() for name in ("start", "transitions", "end")}
    return weights | {"labels": model.crf.labels, "prefix_tokens": getattr(model.config, "prefix_tokens", 0)}


def card(name: str, exported: Exported, told: dict[str, Any], bytes_of_torch: int) -> str:
    """The card of an exported model."""
    found = told or {}
    rows = [
        ("precision", exported.described.precision, "as its run"),
        ("size", f"{len(exported.onnx) / 1e6:.1f} MB", f"{bytes_of_torch / 1e6:.1f} MB"),
    ]
    if found:
        rows += [
            (found["metric"], f"{found['onnx']:.4f}", f"{found['torch']:.4f}"),
            ("samples a second", f"{found['onnx_per_second']:,.0f}", f"{found['torch_per_second']:,.0f}"),
        ]
    lines = [
        f"# {name}",
        "",
        "A model exported to ONNX by finetune. It runs with numpy, tokenizers and onnxruntime, without torch.",
        "",
        "| | this export | the model in torch |",
        "|---|---:|---:|",
        *(f"| {key} | {own} | {other} |" for key, own, other in rows),
        "",
    ]
    if found:
        lines += [
            f"Measured on the {found['samples']:,} samples of the development split. {found['same_answers']:.2%} of "
            f"them get the same answer. {found['metric']} differs by {found['difference']:+.4f}, with a 95 % "
            f"interval from {found['low']:+.4f} to {found['high']:+.4f} (paired bootstrap over the samples). "
            "Seconds are those of the processor, from one pass.",
            "",
        ]
    use = json.dumps(name, ensure_ascii=False)
    lines += [
        "## Use",
        "",
        "```python",
        "import finetune",
        "",
        f'predictor = finetune.load_predictor({use}, runtime="onnx")',
        "```",
        "",
    ]
    return "\n".join(lines)
