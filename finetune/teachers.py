"""Teachers of a distillation: fine-tuned models whose outputs are computed once, and kept on the disk.

The outputs of a teacher for a list of samples are one file, `outputs.npy`, in a folder whose name is a digest of the
teacher's files and of the samples. So a changed teacher or text never gets the outputs of the old one, and runs with
other seeds or students find the file. It is mapped into memory, and the teacher is not loaded for it.

Shapes: n outputs (one for each word, or each text), L labels.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import finetune
from finetune import data, models, prediction, tasks, training
from finetune.files import remove, sync, write_text

_AT_ONCE = 20_000  # samples whose outputs are in memory together
_FILES = ("*.safetensors", "config.json", "run.yaml", "tokenizer*", "vocab*", "merges.txt", "*.model")


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned model that is not loaded yet."""

    folder: Path
    head: Any  # as in `finetune.tasks.of_head`
    labels: list[str]
    problem_type: str
    digest: str  # SHA-256 of its files


def find_teachers(told: str | None) -> list[Teacher]:
    """The teachers that `--teacher` names: folders, with commas between several of them.

    Raises:
        ValueError: for what is no folder of a fine-tuned model, for tasks that cannot be distilled, and for teachers
            that do not do the same.
    """
    if not told:
        raise ValueError("--teacher is missing: give the folder of a fine-tuned model")
    found = []
    for name in filter(None, (part.strip() for part in told.split(","))):
        if not Path(name).is_dir():
            raise ValueError(f"--teacher {name}: no such folder; give the folder of a fine-tuned model")
        if (Path(name) / "export.json").is_file():
            raise ValueError(f"--teacher {name}: an exported model; give the folder of the run that it was made from")
        head, labels, config = models.described(name, flag="--teacher")
        if tasks.taught(head) is None:
            raise ValueError(f"--teacher {name}: a model for {head}; only taggers and classifiers are distilled")
        if (context := getattr(config, "context", "none")) != "none":
            raise ValueError(
                f"--teacher {name}: trained with --context {context}, but here a teacher sees each sentence alone; "
                "give one that was trained without"
            )
        problem = getattr(config, "problem_type", None) or "single_label_classification"
        found.append(Teacher(Path(name), head, labels, problem, _digest(Path(name))))
    if not found:
        raise ValueError(f"--teacher {told!r}: give the folder of a fine-tuned model")
    first = found[0]
    for other in found[1:]:
        if (first.head, first.problem_type) != (other.head, other.problem_type):
            raise ValueError(
                f"--teacher: {first.folder} is for {first.head} ({first.problem_type}), and {other.folder} for "
                f"{other.head} ({other.problem_type}); give teachers of one kind"
            )
    return found


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted({path for pattern in _FILES for path in folder.glob(pattern) if path.is_file()}):
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def outputs(
    teacher: Teacher, samples: Sequence[Any], run: training.Run, cache: str | None, *, batch_size: int
) -> np.ndarray:
    """The outputs of a teacher, float32 (n, L), mapped from a file; they are computed if there is no such file.

    All processes must call this together. They share the work.

    Args:
        samples: as `finetune.predict` takes them.
        cache: the folder for the files [`finetune-teachers` in the cache of `datasets`].

    Raises:
        ValueError: for samples that the teacher cannot label.
    """
    from accelerate.utils import gather_object

    folder = _cache(cache) / _name(teacher, samples, run.accelerator.mixed_precision)
    size = tasks.taught(teacher.head).size(samples)
    shape = (size, len(teacher.labels))
    if any(gather_object([_kept(folder, shape) is None])):
        began = time.perf_counter()
        _write(folder, shape, _computed(teacher, samples, run, batch_size), run, teacher)
        run.print(
            f"teacher {teacher.folder}: {size:,} outputs computed in {time.perf_counter() - began:.1f} s, kept in "
            f"{folder}"
        )
    else:
        run.print(f"teacher {teacher.folder}: its {size:,} outputs are read from {folder}")
    found = _kept(folder, shape)
    if found is None:
        raise OSError(f"{folder}: the outputs were written, but the file differs from what was written")
    return found


def _cache(told: str | None) -> Path:
    if told is None:
        import datasets

        return Path(datasets.config.HF_DATASETS_CACHE) / "finetune-teachers"
    existing = next(parent for parent in (Path(told), *Path(told).absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"--teacher_cache {told}: {existing} is no folder that can be written to; give another")
    return Path(told)


def _name(teacher: Teacher, samples: Sequence[Any], precision: str) -> str:
    """The name of the folder: it is another one if anything changes that the outputs depend on."""
    whole = hashlib.sha256(f"{finetune.__version__} {teacher.digest} {precision}\n".encode())
    for sample in samples:
        whole.update(json.dumps(sample).encode() + b"\n")
    return whole.hexdigest()[:24]


def _kept(folder: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The array in a folder; None if it is missing, or damaged."""
    try:
        told = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        with (folder / "outputs.npy").open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != told["sha256"]:
                return None
        found = np.load(folder / "outputs.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


def _computed(teacher: Teacher, samples: Sequence[Any], run: training.Run, batch_size: int) -> Iterator[np.ndarray]:
    """The outputs, some samples at a time. The generators of random numbers stay as they are."""
    import torch

    taught = tasks.taught(teacher.head)
    with torch.random.fork_rng():
        predictor = prediction.load_predictor(teacher.folder, batch_size=batch_size)
    for number, sample in enumerate(samples):
        try:
            predictor.check(sample)
        except ValueError as error:
            raise ValueError(f"--teacher {teacher.folder}: text {number}: {error}") from error
    cut = SimpleNamespace(
        max_seq_length=predictor.max_seq_length,
        doc_stride=predictor.doc_stride,
        long_texts=predictor.settings.get("long_texts", "cut"),
    )

    def kept(output: Any, batch: Any) -> dict[str, Any]:
        found: dict[str, Any] = taught.collect(output, batch, teacher.problem_type)
        return found

    nothing: dict[str, float] = {}
    for begin in range(0, len(samples), _AT_ONCE):
        encoded = taught.encode(samples[begin : begin + _AT_ONCE], predictor.tokenizer, cut)
        batches = data.eval_batches(encoded.rows, predictor.tokenizer, batch_size, lambda inputs: nothing)
        found = training.collect(run.accelerator, predictor.model, batches, kept).arrays
        if not found:  # no word of these has a subword
            found = {"outputs": np.zeros((0, len(teacher.labels)), np.float32)}
        yield taught.outputs(encoded, found, teacher.problem_type)


def _write(
    folder: Path, shape: tuple[int, int], parts: Iterator[np.ndarray], run: training.Run, teacher: Teacher
) -> None:
    """Writes the array, whole or not at all. One process of each machine writes."""
    writes = run.accelerator.is_local_main_process
    beside = folder.with_name(f".{folder.name}.{platform.node()}.{os.getpid()}.writing")
    try:
        with contextlib.ExitStack() as stack:
            file: Any = None
            if writes:
                remove(beside)  # of a process with the same number, before a container was started again
                beside.mkdir(parents=True)
                file = stack.enter_context((beside / "outputs.npy").open("wb"))
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            for part in parts:  # all processes compute
                if writes:
                    file.write(np.ascontiguousarray(part, dtype="<f4").tobytes())
        if writes:
            with (beside / "outputs.npy").open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            sync(beside / "outputs.npy")
            about = {"teacher": teacher.folder.name, "labels": teacher.labels, "outputs": shape[0], "sha256": digest}
            write_text(beside / "about.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")
            if _kept(folder, shape) is None:  # no other process was faster
                shutil.rmtree(folder, ignore_errors=True)  # if there is a folder, it is damaged
                with contextlib.suppress(OSError):  # another process is faster now
                    beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    run.accelerator.wait_for_everyone()
