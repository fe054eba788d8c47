"""Checks whether two commits compute the same: starts short runs of each kind at both, and compares their files.

    python benchmarks/same_bytes.py HEAD~5 HEAD
    python benchmarks/same_bytes.py main .               # . is the working tree as it stands
    python benchmarks/same_bytes.py main . --only crf    # the runs whose name holds this word

Each run is a separate process with one thread on a CPU, with the same tiny checkpoints and files at both commits. The
SHA-256 is compared for `model.safetensors`, for `history.jsonl` without its times, and for each `predictions_*`. The
exit status is 1 if anything differs. Use this for a change that moves code and should not change a number.
"""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = "--max_steps=6 --logging_steps=2 --eval_strategy=steps --save_strategy=steps --eval_steps=3 --save_steps=3"
SAMPLES = "--dataset_name=samples"
NEW = "--tokenizer_name=FOLDER/wordpiece --hidden_size=64 --num_hidden_layers=2"


@dataclass(frozen=True)
class Case:
    """A run: its recipe and flags. `FOLDER` stands for the folder of checkpoints and files."""

    name: str
    recipe: str
    flags: str
    processes: int = 1
    precision: str = "no"


CASES = [
    Case("ner bert", "ner", f"{SAMPLES} --model_name_or_path=FOLDER/wordpiece"),
    Case("ner bert, windows, every subword", "ner", f"{SAMPLES} --model_name_or_path=FOLDER/wordpiece "
         "--max_seq_length=16 --doc_stride=4 --label_all_tokens=true --gradient_accumulation_steps=2"),
    Case("ner roberta, padded", "ner", f"{SAMPLES} --model_name_or_path=FOLDER/byte-bpe --padding_free=false"),
    Case("ner xlm-r, whole vocabulary", "ner", f"{SAMPLES} --model_name_or_path=FOLDER/unigram "
         "--compact_vocabulary=false"),
    Case("ner bert crf", "ner", f"{SAMPLES} --model_name_or_path=FOLDER/wordpiece --head=crf"),
    Case("ner bert, bf16", "ner", f"{SAMPLES} --model_name_or_path=FOLDER/wordpiece", precision="bf16"),
    Case("ner bert, two processes", "ner", f"{SAMPLES} --model_name_or_path=FOLDER/wordpiece", processes=2),
    Case("ner rnn", "ner", f"{SAMPLES} --model_name_or_path=rnn --char_features=none"),
    Case("ner lstm", "ner", f"{SAMPLES} --model_name_or_path=lstm --char_features=bilstm"),
    Case("ner gru", "ner", f"{SAMPLES} --model_name_or_path=gru --tokens_per_batch=200"),
    Case("ner bilstm", "ner", f"{SAMPLES} --model_name_or_path=bilstm"),
    Case("ner bilstm-crf", "ner", f"{SAMPLES} --model_name_or_path=bilstm-crf --layerwise_lr_decay=0.9"),
    Case("sentiment xlm-r", "sentiment", f"{SAMPLES} --model_name_or_path=FOLDER/unigram"),
    Case("sentiment bilstm", "sentiment", f"{SAMPLES} --model_name_or_path=bilstm --pooling=max"),
    Case("pairs roberta", "sentiment", "--train_file=FOLDER/pairs.csv --validation_file=FOLDER/pairs.csv "
         "--test_file=FOLDER/pairs.csv --text_pair_column_name=text_pair --model_name_or_path=FOLDER/byte-bpe"),
    Case("pretrain bert, next sentences", "pretrain", f"{SAMPLES} --config_name=bert {NEW} --max_seq_length=64"),
    Case("pretrain roberta, whole words", "pretrain", f"{SAMPLES} --objective=roberta --masking=whole_word "
         "--model_name_or_path=FOLDER/byte-bpe --max_seq_length=64"),
]  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit, or . for the working tree")
    parser.add_argument("after", help="the same")
    parser.add_argument("--only", default="", help="only runs with this word in their name")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only in case.name]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        with checkout(arguments.before, folder) as before, checkout(arguments.after, folder) as after:
            differing = sum(not compare(case, before, after, folder) for case in cases)
    print(f"{len(cases) - differing} of {len(cases)} runs wrote the same bytes")
    sys.exit(int(differing > 0))


def write_inputs(folder: Path) -> None:
    """Makes tiny checkpoints of the three kinds, and pairs of texts."""
    from random_checkpoint import KINDS, build

    from finetune import data
    from finetune.arguments import DataArguments

    sentences = [
        " ".join(words) for words in data.read_tagged(DataArguments(dataset_name="samples"))["train"]["tokens"]
    ]
    for kind in KINDS:
        build(kind, sentences, folder / kind, vocab_size=800, hidden_size=64, layers=2, positions=130)
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "text_pair", "label"])
        for i, text in enumerate(sentences[:120]):
            other = text if i % 2 else sentences[-i - 1]
            writer.writerow([text, other, "same" if i % 2 else "other"])


@contextmanager
def checkout(revision: str, folder: Path) -> Iterator[Path]:
    """A folder with the project at a commit."""
    if revision == ".":
        yield ROOT
        return
    tree = folder / f"tree-{len(list(folder.glob('tree-*')))}"
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, revision], check=True)
    try:
        yield tree
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)


def compare(case: Case, before: Path, after: Path, folder: Path) -> bool:
    """Prints a line about a run. Returns whether both sides wrote the same."""
    sides = [digests(case, tree, folder) for tree in (before, after)]
    different = sorted(name for name in sides[0] | sides[1] if sides[0].get(name) != sides[1].get(name))
    model = sides[1].get("model.safetensors", "none")
    print(f"{case.name:36s} {f'DIFFERS: {different}' if different else f'same, model {model[:16]}'}", flush=True)
    return not different


def digests(case: Case, tree: Path, folder: Path) -> dict[str, str]:
    """Starts a run with the project in `tree`. Returns the SHA-256 of its files."""
    with tempfile.TemporaryDirectory() as output:
        launcher = [sys.executable]
        if case.processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={case.processes}"]
        flags = f"{case.flags} {STEPS} --output_dir={output}/run".replace("FOLDER", str(folder)).split()
        done = subprocess.run(
            [*launcher, str(tree / f"recipes/{case.recipe}.py"), *flags],
            env=os.environ
            | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": case.precision},
            cwd=tree,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            return {"exit": f"{tree}: {said[-1]}"}
        run = Path(output) / "run"
        contents = {path.name: path.read_bytes() for path in run.glob("predictions_*")}
        contents["model.safetensors"] = (run / "model.safetensors").read_bytes()
        lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        timeless = [{key: value for key, value in line.items() if "runtime" not in key} for line in lines]
        contents["history.jsonl"] = json.dumps(timeless, sort_keys=True).encode()
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


if __name__ == "__main__":
    main()
