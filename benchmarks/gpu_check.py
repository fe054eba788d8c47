"""Checks on a GPU what the tests on a CPU cannot check: `make gpu-check`. Without a GPU, it says so and ends.

    python benchmarks/gpu_check.py                 every part; writes benchmarks/gpu_check.txt
    python benchmarks/gpu_check.py --part resume   one part

`--device cpu` runs the parts that a CPU can run, to test this script. It writes no file.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from random_checkpoint import build

ROOT = Path(__file__).resolve().parents[1]
STEPS = 20
lines: list[str] = []


def say(line: str) -> None:
    print(line, flush=True)
    lines.append(line)


def sh(*command: object, precision: str = "no", processes: int = 1, launch: tuple[str, ...] = ()) -> str:
    """Runs a script of the project, under `accelerate launch` if it is a recipe, and returns what it printed."""
    program = [sys.executable, "-m", "accelerate.commands.launch", "--mixed_precision", precision]
    program += ["--num_processes", str(processes), *([] if torch.cuda.is_available() else ["--cpu"]), *launch]
    recipe = str(command[0]).startswith("recipes/") and "predict" not in str(command[0])
    whole = [*(program if recipe else [sys.executable]), *map(str, command)]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))[:200]}: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout


def flags(folder: Path, model: object, **more: object) -> list[str]:
    chosen = {
        "dataset_name": "samples", "model_name_or_path": model, "output_dir": folder, "max_seq_length": 64,
        "max_steps": STEPS, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 1,
        "eval_strategy": "no", "save_strategy": "no", "disable_tqdm": True,
    } | more  # fmt: skip
    return [f"--{name}={value}" for name, value in chosen.items()]


def losses(folder: Path) -> list[float]:
    found = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [line["loss"] for line in found if "loss" in line]


def attention(at: Path, bert: Path) -> None:
    say(sh("-m", "pytest", "-q", "tests/models/test_attention.py").strip().splitlines()[-1])


def ner(at: Path, bert: Path, precision: str = "bf16", model: object = None, **more: object) -> None:
    """Trains and evaluates, and checks that predict gives the same answers as the evaluation."""
    folder = at / "run"
    more = {"learning_rate": 1e-2 if model else 1e-3, "max_steps": 5 * STEPS} | more
    sh("recipes/ner.py", *flags(folder, model or bert, **more), precision=precision)
    evaluated = folder / "predictions_test.conll"
    out = at / "out.conll"
    sh("recipes/predict.py", f"--model_name_or_path={folder}", f"--input_file={evaluated}", f"--output_file={out}")
    rows = [line.split("\t") for line in out.read_text().splitlines() if line.strip()]
    different = sum(row[2] != row[3] for row in rows)
    results = json.loads((folder / "all_results.json").read_text())
    say(f"{precision}: loss {losses(folder)[-1]:.4f}, test_f1 {results['test_f1']:.4f}, {len(rows)} words, ")
    say(f"    predict differs from the evaluation in {different} of them")


def float16(at: Path, bert: Path) -> None:
    if not torch.cuda.is_available():
        return say("skipped: a CPU has none")
    ner(at, bert, "fp16")


def recurrent(at: Path, bert: Path) -> None:
    from finetune.models.recurrent import run_recurrent

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cell, features = torch.nn.LSTM(8, 8, batch_first=True).to(device), torch.randn(4, 5, 8, device=device)
    with torch.autocast(device, torch.bfloat16):
        output = run_recurrent([cell], features, torch.tensor([5, 3, 2, 1], device=device))
    say(f"under bf16 the cell's output is {output.dtype}")
    for name in ("bilstm", "bilstm-crf"):
        (at / name).mkdir()
        say(f"{name}, two layers")
        ner(at / name, bert, "bf16", name, num_hidden_layers=2, hidden_size=64)


def pretraining(at: Path, bert: Path) -> None:
    sh("recipes/pretrain.py", *flags(at / "run", bert), precision="bf16")
    found = losses(at / "run")
    say(f"masked tokens in bf16: loss {found[0]:.4f} -> {found[-1]:.4f}")


def resume(at: Path, bert: Path) -> None:
    """Compares the bytes of a resumed run with those of a run that was never stopped."""
    for exact in ("true", "false"):
        for model in (bert, "bilstm"):
            whole, resumed = (
                at / f"whole-{exact}-{Path(str(model)).name}",
                at / f"resumed-{exact}-{Path(str(model)).name}",
            )
            more = {"save_strategy": "steps", "save_steps": STEPS // 2, "full_determinism": exact}
            sh("recipes/ner.py", *flags(whole, model, **more))
            shutil.copytree(whole, resumed)
            shutil.rmtree(resumed / f"checkpoint-{STEPS}")
            sh("recipes/ner.py", *flags(resumed, model, **more), "--resume_from_checkpoint=true")
            sums = [hashlib.sha256((f / "model.safetensors").read_bytes()).hexdigest()[:16] for f in (whole, resumed)]
            same = "the same bytes" if sums[0] == sums[1] else "OTHER BYTES"
            say(f"--full_determinism {exact}, {Path(str(model)).name}: {same} ({', '.join(sums)})")


def looks(at: Path, bert: Path) -> None:
    """Measures the memory of the device, and the parts of the time of a step."""
    from torch.profiler import ProfilerActivity, profile

    from finetune import cli
    from recipes.ner import NerConfig, finetune_ner

    gpu = torch.cuda.is_available()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    for free in ("true", "false"):
        if gpu:
            torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as told, profile(activities=kinds) as profiled:
            warnings.simplefilter("always")
            finetune_ner(cli.parse(NerConfig, flags(at / f"run-{free}", bert, padding_free=free)))
        if gpu:
            torch.cuda.set_sync_debug_mode("default")
        places: dict[str, int] = {}
        for one in told:
            if "synchroniz" in str(one.message):
                place = f"{Path(one.filename).name}:{one.lineno}"
                places[place] = places.get(place, 0) + 1
        say(f"--padding_free {free}: {sum(places.values())} looks in {STEPS} steps and an evaluation: {places}")
        order = "cuda_time_total" if gpu else "cpu_time_total"
        say(profiled.key_averages().table(sort_by=order, row_limit=12, max_name_column_width=40))


def memory(at: Path, bert: Path) -> None:
    if not torch.cuda.is_available():
        return say("skipped: a CPU's memory has no such end")
    from finetune import cli
    from recipes.ner import NerConfig, finetune_ner

    torch.cuda.set_per_process_memory_fraction(0.01)
    more = {"per_device_train_batch_size": 450, "auto_find_batch_size": True, "max_steps": 2, "max_seq_length": 512}
    finetune_ner(cli.parse(NerConfig, flags(at / "run", bert, **more)))
    torch.cuda.set_per_process_memory_fraction(1.0)
    say(f"two steps of 450 rows in a hundredth of the memory: losses {losses(at / 'run')}")


def processes(at: Path, bert: Path) -> None:
    """Compares two processes with one, and FSDP. Dropout differs between them, so the losses are only similar."""
    gpus = torch.cuda.device_count()
    if torch.cuda.is_available() and gpus < 2:
        return say("skipped: there is one GPU")
    sh("recipes/ner.py", *flags(at / "one", bert, per_device_train_batch_size=8))
    multi = ("--multi_gpu",) if gpus else ()
    sh("recipes/ner.py", *flags(at / "two", bert, per_device_train_batch_size=4), processes=2, launch=multi)
    told = [f"{losses(at / name)[0]:.4f} -> {losses(at / name)[-1]:.4f}" for name in ("one", "two")]
    say(f"losses on one process {told[0]}, on two {told[1]}")
    if gpus:
        fsdp = ("--config_file", "recipes/configs/accelerate/fsdp.yaml")
        sh("recipes/ner.py", *flags(at / "fsdp", bert, per_device_train_batch_size=4), precision="bf16", processes=2,
           launch=fsdp)  # fmt: skip
        say(f"FSDP in bf16: {losses(at / 'fsdp')[0]:.4f} -> {losses(at / 'fsdp')[-1]:.4f}")


def speed(at: Path, bert: Path) -> None:
    """Tokens per second, beside the loop of the tutorials, and as a share of the GPU's peak."""
    rows = ("ner-bert-32", "peak") if torch.cuda.is_available() else ("alignment",)
    for row in rows:
        say(sh("benchmarks/speed.py", "--row", row, "--write", "false").strip())


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "attention": attention, "ner": ner, "float16": float16, "recurrent": recurrent, "pretraining": pretraining,
    "resume": resume, "looks": looks, "memory": memory, "processes": processes, "speed": speed,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="may be given more than once [all]")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check: skipped, there is no CUDA GPU here")
        return
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    say(f"{name}, torch {torch.__version__}, {torch.cuda.device_count()} GPUs")
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        from finetune import data
        from finetune.arguments import DataArguments

        bert = Path(place) / "bert"
        words = data.read_tagged(DataArguments(dataset_name="samples"))["train"]["tokens"]
        texts = [" ".join(sentence) for sentence in words]
        build("wordpiece", texts, bert, vocab_size=2000, hidden_size=128, layers=4, positions=512)
        for part in arguments.part or PARTS:
            say(f"\n== {part}")
            began = time.perf_counter()
            (at := Path(place) / part).mkdir()
            try:
                PARTS[part](at, bert)
            except Exception as error:  # the other parts are asked all the same
                failed += 1
                say(f"FAILED: {type(error).__name__}: {error}")
            say(f"({time.perf_counter() - began:.0f} s)")
    if torch.cuda.is_available():
        (ROOT / "benchmarks/gpu_check.txt").write_text("\n".join(lines) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
