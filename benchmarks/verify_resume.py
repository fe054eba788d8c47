"""Kills real runs at random moments, resumes them, and compares the results with those of runs that were not killed.

    python benchmarks/verify_resume.py                # 27 signals, 21 of them SIGKILL
    python benchmarks/verify_resume.py --kills 6 --seed 7 --only ner

Each run is a separate process, and is started as a user starts it. Most runs are killed with SIGKILL, which a program
cannot catch. Half of them are killed about when the folder of a half-written checkpoint appears, the others at a
random moment of the training. Every fourth run gets SIGTERM instead, and must exit with 143. Then the run is started
again with `--resume_from_checkpoint true` until it ends. All files of the folder are compared byte for byte: the
weights, the predictions, the model card and all others. In `history.jsonl` and `all_results.json`, times and memory
are left out. The exit status is 1 if anything differs.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
_TIMES = ("runtime", "per_second", "memory")


@dataclass
class Case:
    """A command, and the results of its runs."""

    name: str
    recipe: str
    flags: dict[str, Any]
    processes: int = 1
    precision: str = "no"
    kills: int = 0
    in_a_write: int = 0
    terms: int = 0
    missed: int = 0  # the run was done before its signal came
    wrong: list[str] = field(default_factory=list)

    def command(self, output_dir: Path) -> list[str]:
        launcher = [sys.executable]
        if self.processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}"]
        flags = [f"--{key}={value}" for key, value in (self.flags | {"output_dir": output_dir}).items()]
        return [*launcher, str(ROOT / f"recipes/{self.recipe}.py"), *flags, "--resume_from_checkpoint=true"]


def cases(folder: Path) -> list[Case]:
    """All tasks, with 1 and 4 micro-batches in a step, on one process and two, in float32 and bfloat16."""
    from finetune import data
    from finetune.arguments import DataArguments

    sys.path.insert(0, str(ROOT / "benchmarks"))
    from random_checkpoint import build

    sentences = data.read_tagged(DataArguments(dataset_name="samples"))["train"]["tokens"]
    for kind in ("wordpiece", "byte-bpe"):
        texts = [" ".join(words) for words in sentences]
        build(kind, texts, folder / kind, vocab_size=800, hidden_size=64, layers=2, positions=64)
    bert, roberta = (str(folder / kind) for kind in ("wordpiece", "byte-bpe"))

    steps = {"eval_strategy": "steps", "eval_steps": 6, "save_strategy": "steps", "save_steps": 3, "logging_steps": 2}
    epochs = {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 5}
    common = {"dataset_name": "samples", "max_seq_length": 48, "learning_rate": 1e-3, "disable_tqdm": True}
    last = {"load_best_model_at_end": False}

    def tagging(when: dict[str, Any], batch: int, accumulation: int, **more: Any) -> dict[str, Any]:
        few = {"max_train_samples": 150, "max_eval_samples": 40, "num_train_epochs": 3}
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        return common | few | when | cut | {"model_name_or_path": bert} | more

    def pretraining(when: dict[str, Any], batch: int, accumulation: int, **more: Any) -> dict[str, Any]:
        few = {"max_train_samples": 4, "num_train_epochs": 3, "validation_split_percentage": 20}
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        return common | few | when | cut | more

    masked = {"objective": "roberta", "model_name_or_path": roberta}
    pairs = {"objective": "bert", "model_name_or_path": bert}
    bilstm = {"model_name_or_path": "bilstm", "hidden_size": 32, "dataloader_num_workers": 2}
    return [
        Case("ner", "ner", tagging(steps, 8, 1)),
        Case("sentiment", "sentiment", tagging(steps, 2, 4, model_name_or_path=roberta), precision="bf16"),
        Case("mlm", "pretrain", pretraining(steps, 2, 4, **masked, **last)),
        Case("mlm + nsp", "pretrain", pretraining(steps, 8, 1, **pairs), precision="bf16"),
        Case("ner", "ner", tagging(steps, 1, 4), processes=2, precision="bf16"),
        Case("sentiment", "sentiment", tagging(steps, 2, 2, model_name_or_path=roberta), processes=2),
        Case("mlm", "pretrain", pretraining(steps, 1, 4, **masked, **last), processes=2, precision="bf16"),
        Case("mlm + nsp", "pretrain", pretraining(steps, 4, 1, **pairs), processes=2),
        Case("bilstm", "sentiment", tagging(epochs, 8, 1, **bilstm, **last)),
    ]


def run_whole(case: Case, folder: Path) -> float:
    """Runs a case to its end. Returns the seconds from its first files on."""
    process = start(case, folder)
    began = wait_for_training(process, folder)
    code = process.wait()
    if code:
        raise SystemExit(f"{' '.join(case.command(folder))}\nexit status {code}; see {folder}.log")
    return time.monotonic() - began


def start(case: Case, folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_MIXED_PRECISION": case.precision,
        "TOKENIZERS_PARALLELISM": "false",
    }
    with folder.with_name(f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(case.command(folder), stdout=log, stderr=log, env=environment)


def wait_for_training(process: subprocess.Popen[bytes], folder: Path) -> float:
    """Waits until this process has written its history again, which it does just before its first step."""
    history, since = folder / "history.jsonl", time.time_ns()
    while process.poll() is None and not (history.exists() and history.stat().st_mtime_ns > since):
        time.sleep(0.002)
    return time.monotonic()


def kill(case: Case, folder: Path, seconds: float, number: int, draw: random.Random) -> None:
    """Starts or resumes a run, and sends it a signal: within `seconds` after its first step, or during a write."""
    process = start(case, folder)
    wait_for_training(process, folder)
    term, in_a_write = number % 4 == 3, number % 2 == 0
    if in_a_write:  # at its first checkpoint, or at one of the next ones
        for _ in range(draw.choice((1, 1, 2, 3))):
            while process.poll() is None and not writing(folder):
                time.sleep(0.0005)
            time.sleep(draw.uniform(0, 0.02))
    else:
        time.sleep(draw.uniform(0, 0.8 * seconds))
    if process.poll() is not None:
        case.missed += 1
        return
    workers = workers_of(process, case.processes)
    if term:  # one of the processes gets it, and all must leave after the same step
        draw.choice(workers).send_signal(signal.SIGTERM)
        code = process.wait()
        said = folder.with_name(f"{folder.name}.log").read_text()
        if "SIGTERM: stopped after step" not in said.rpartition("resumed from")[2]:
            case.missed += 1
            return
        case.terms += 1
        if code != (143 if case.processes == 1 else 1):  # the launcher of several has a code of its own
            case.wrong.append(f"SIGTERM: exit status {code}")
        return
    for victim in [*workers, psutil.Process(process.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    process.wait()
    psutil.wait_procs(workers, timeout=30)
    case.kills += 1
    case.in_a_write += writing(folder)


def writing(folder: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(folder.glob(".checkpoint-*.writing"))


def workers_of(process: subprocess.Popen[bytes], processes: int) -> list[psutil.Process]:
    """The processes that train. The processes that build their batches end together with them."""
    here = psutil.Process(process.pid)
    return [here] if processes == 1 else here.children()


def contents(folder: Path) -> dict[str, Any]:
    """What must be equal: the SHA-256 of each file, and all numbers except times and memory."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.name == "history.jsonl":
            found[path.name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name == "all_results.json":
            found[path.name] = timeless(json.loads(path.read_text()))
        elif path.name == "run.yaml":
            lines = path.read_text().splitlines()
            found[path.name] = [line for line in lines if not line.startswith("output_dir")]
        elif path.name == "README.md":
            found[path.name] = path.read_text().replace(folder.name, "RUN")
        elif path.is_file():
            found[path.name] = sha256(path)
    # Where the best weights are not the last ones, only the last checkpoint has these.
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in last.glob("*.safetensors"):
        found[f"{last.name}/{path.name}"] = sha256(path)
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def timeless(numbers: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in numbers.items() if not any(word in key for word in _TIMES)}


def check(case: Case, kills: range, folder: Path, draw: random.Random) -> None:
    """Runs the case once without a signal, and once for each number in `kills` with one. Notes what differs."""
    whole, killed = folder / "whole", folder / "killed"
    seconds = run_whole(case, whole)
    for number in kills:
        kill(case, killed, seconds / len(kills), number, draw)
    run_whole(case, killed)
    expected, found = contents(whole), contents(killed)
    names = expected.keys() | found.keys()
    case.wrong += sorted(name for name in names if expected.get(name) != found.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=27, help="signals over all cases, every fourth a SIGTERM")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--keep", type=Path, help="a folder for runs and logs, which are removed otherwise")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = [case for case in cases(folder) if arguments.only in case.name]
        head = f"{'task':<12}{'processes':>10}{'micro-batches':>15}{'precision':>11}{'SIGKILL':>9}{'in a write':>12}"
        print(f"{head}{'SIGTERM':>9}{'missed':>8}  result", flush=True)
        for i, case in enumerate(chosen):
            share = range(*(arguments.kills * j // len(chosen) for j in (i, i + 1)))
            place = folder / f"{i}"
            place.mkdir(exist_ok=True)
            check(case, share, place, draw)
            if share and not case.kills + case.terms:
                case.wrong.append("every signal came too late")
            precision = "float32" if case.precision == "no" else case.precision
            accumulation = case.flags["gradient_accumulation_steps"]
            print(
                f"{case.name:<12}{case.processes:>10}{accumulation:>15}{precision:>11}{case.kills:>9}"
                f"{case.in_a_write:>12}{case.terms:>9}{case.missed:>8}  "
                + (f"differs: {', '.join(case.wrong)}" if case.wrong else "the same bytes"),
                flush=True,
            )
    kills, writes, terms = (sum(getattr(c, name) for c in chosen) for name in ("kills", "in_a_write", "terms"))
    wrong = sum(bool(case.wrong) for case in chosen)
    print(f"{kills} SIGKILL, {writes} of them in a write; {terms} SIGTERM; {wrong} of {len(chosen)} cases differ")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
