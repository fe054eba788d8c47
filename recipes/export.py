"""Export a trained model to ONNX, in int8 if it is proved to answer alike; it then runs without torch.

python recipes/export.py --model_name_or_path runs/ner --output_dir runs/ner-onnx
python recipes/export.py --model_name_or_path runs/ner --output_dir runs/ner-onnx --precision float32
python recipes/predict.py --model_name_or_path runs/ner-onnx --runtime onnx --input_file test.conll

import finetune
finetune.load_predictor("runs/ner-onnx", runtime="onnx")(["Grace Hopper was born in New York."])

The model in torch and the export both label the development split of the model's run. The export is refused if the
95 % interval of the difference of their scores allows a loss of more than --max_loss.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import finetune
from finetune import cli, config_files
from finetune.arguments import flag


@dataclass
class ExportConfig:
    """All flags of this recipe."""

    model_name_or_path: str | None = flag(None, "The folder of a run, or a fine-tuned model of the Hub.")
    model_revision: str = flag("main", "Branch, tag or commit of a Hub model.")
    output_dir: str | None = flag(None, "The folder of the export, which must not exist or be empty.")
    precision: Literal["int8", "float32"] = flag("int8", "int8 needs a development split for the proof.")
    max_loss: float = flag(0.005, "The greatest loss of the score that the 95 % interval may allow.")
    train_file: str | None = flag(None, "Training data, where it is now [the run's].")
    validation_file: str | None = flag(None, "The development split [the run's].")
    per_device_eval_batch_size: int = flag(32, "Windows, or texts, in one batch.")


def export_model(config: ExportConfig) -> dict[str, Any]:
    """Exports a model, and returns what the proof found. Raises ValueError for what a user can mend."""
    # 1. What is refused before a model is loaded.
    folder = check(config)
    from finetune.export import folder as exports
    from finetune.export import proof

    # 2. The model in torch, and the development split.
    model_dir = str(config.model_name_or_path)
    batch_size = config.per_device_eval_batch_size
    predictor = finetune.load_predictor(model_dir, batch_size=batch_size, revision=config.model_revision)
    flags = flags_of_run(config, predictor)
    split = None
    if flags is not None and (config.precision == "int8" or flags.validation_file or flags.dataset_name):
        split = proof.development(predictor, flags)

    # 3. The graph in float32, which must answer as the model does.
    exported = exports.float32(model_dir, config.model_revision, predictor)
    print(f"float32: {len(exported.onnx) / 1e6:.1f} MB, answers as in torch")

    # 4. The proof; in int8 for one candidate after the other.
    told: dict[str, Any] = {}
    if split is not None:
        in_torch = proof.labelled(split, predictor.run)

        def proved(candidate: exports.Exported) -> bool:
            run = partial(candidate.model().collect, batch_size=batch_size)
            told.update(proof.compared(split, in_torch, proof.labelled(split, run)))
            few = config.precision == "int8" and told["samples"] < proof.LEAST
            good: bool = told["low"] >= -config.max_loss and not few
            print(f"{candidate.described.precision}: {described(told)}: {'proved' if good else 'not proved'}")
            return good

        if config.precision == "int8":
            found = exports.in_int8(exported, split.encoded.rows, proved)
        else:
            found = exported if proved(exported) else None
        if found is None:
            raise ValueError(
                f"--max_loss {config.max_loss}: no export is proved to lose less {told['metric']} on the "
                f"{told['samples']:,} samples of the development split; allow a greater loss, give more samples (at "
                f"least {proof.LEAST}), or --precision float32"
            )
        exported = found

    # 5. The folder, whole or not at all.
    exported = replace(exported, described=replace(exported.described, proof=told))
    saved = Path(model_dir)
    size = sum(file.stat().st_size for file in saved.glob("*.safetensors")) if saved.is_dir() else 0
    exports.write(exported, folder, exports.card(folder.resolve().name, exported, told, size))
    use = cli.command("predict") or "python recipes/predict.py"
    print(f"{folder}: {use} --model_name_or_path {folder} --runtime onnx")
    return told | {"precision": exported.described.precision, "bytes": len(exported.onnx)}


def check(config: ExportConfig) -> Path:
    """Refuses flags that cannot be meant, and returns the folder of the export."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed; the extra `export` brings it") from error
    if config.model_name_or_path is None:
        raise ValueError("--model_name_or_path is missing: give the folder of a run, or a model of the Hub")
    if config.output_dir is None:
        raise ValueError("--output_dir is missing: give the folder of the export")
    if not 0 <= config.max_loss <= 1:
        raise ValueError(f"--max_loss {config.max_loss}: must be from 0 to 1")
    if config.per_device_eval_batch_size < 1:
        raise ValueError(f"--per_device_eval_batch_size {config.per_device_eval_batch_size}: must be at least 1")
    folder = Path(config.output_dir)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output_dir {folder}: exists already; give another folder")
    return folder


def flags_of_run(config: ExportConfig, predictor: Any) -> Any:
    """The config of the recipe that trained the model, with the flags of its run; None if its data is not here, and
    not needed.

    Raises:
        ValueError: if data that is needed is not here, and for a model of a task that is not exported.
    """
    from recipes.ner import NerConfig
    from recipes.question_answering import QuestionConfig
    from recipes.sentiment import SentimentConfig

    configs: dict[str, Any] = {
        "token-classification": NerConfig,
        "text-classification": SentimentConfig,
        "question-answering": QuestionConfig,
    }
    if predictor.task.PIPELINE not in configs:
        raise ValueError(
            f"--model_name_or_path {config.model_name_or_path}: a model for {predictor.task.PIPELINE}; only taggers, "
            "classifiers and readers are exported"
        )
    recipe = configs[predictor.task.PIPELINE]
    file = Path(str(config.model_name_or_path)) / "run.yaml"
    written = config_files.read_settings(file) if file.is_file() else {}
    known = {own.name for own in fields(recipe)}
    found = replace(recipe(), **{key: value for key, value in written.items() if key in known})
    for name in ("train_file", "validation_file"):
        if getattr(config, name) is not None:
            found = replace(found, **{name: getattr(config, name), "dataset_name": None, "dataset_config_name": None})
    if not data_is_here(config, found, file):
        return None
    if found.train_file is None and found.dataset_name is None:
        found = replace(found, train_file=found.validation_file)  # of which nothing is read but its kind
    cut = {"max_seq_length": predictor.max_seq_length, "doc_stride": predictor.doc_stride}
    own = {key: value for key, value in cut.items() if key in known}
    return replace(found, model_name_or_path=str(config.model_name_or_path), test_file=None, **own)


def data_is_here(config: ExportConfig, flags: Any, file: Path) -> bool:
    """Whether the files of the development split and of the training split are there.

    Raises:
        ValueError: if one is not there that is needed, or that a flag names.
    """
    for name in ("train_file", "validation_file"):
        path = getattr(flags, name)
        if path is None or Path(path).exists():
            continue
        if getattr(config, name) is not None:
            raise ValueError(f"--{name} {path}: no such file")
        told = f"--{name} {path}: no such file; {file} names it as seen from the folder where the run was started"
        if config.precision == "float32":
            print(f"{told}, so the answers on the development split are not compared")
            return False
        raise ValueError(f"{told}: export there, or give --train_file and --validation_file")
    return True


def described(told: dict[str, Any]) -> str:
    """The proof in one line."""
    return (
        f"{told['same_answers']:.2%} of {told['samples']:,} answers the same, {told['metric']} {told['onnx']:.4f} "
        f"({told['torch']:.4f} in torch), difference {told['low']:+.4f} to {told['high']:+.4f}, "
        f"{told['onnx_per_second']:,.0f} samples a second ({told['torch_per_second']:,.0f})"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(ExportConfig, argv)
    cli.run(export_model, config)


if __name__ == "__main__":
    main()
