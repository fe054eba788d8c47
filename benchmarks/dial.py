"""What `--min_precision` promises, and what it keeps.

python benchmarks/dial.py --run runs/ner --output dial.json
python benchmarks/dial.py --run runs/ner --run runs/sst2 --precisions 0.90 0.95 0.99

Reads the predictions of a run on its development and its test split; for entities it labels these words once more,
since their scores are in no file. Nothing is trained. For each precision it tells:

  promised      whether the development split promises it, and the threshold
  found         precision and recall on the test split above that threshold; and recall without one
  broken        how often a promise was broken over 200 draws: as many sentences or texts as the development split
                has, drawn with replacement from both splits, make a promise; both splits together are the truth that
                it is about. This is what delta (0.1) bounds.
  below         how often the precision on the other samples was below the promise, over 200 random re-splits into
                parts of the sizes of the two splits. It may be more often than delta: the other part varies, too.
"""

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import finetune
from finetune import data, metrics

RESPLITS = 200


@dataclass(frozen=True)
class Answers:
    """The answers of a split. Shapes: N answers, S samples."""

    scores: np.ndarray  # float64 (N,)
    right: np.ndarray  # bool (N,)
    sample: np.ndarray  # int64 (N,): the sentence or text of each
    findable: np.ndarray  # int64 (S,): how many right answers each sample could have

    def take(self, samples: np.ndarray) -> "Answers":
        """The answers of some samples, which may occur more than once."""
        counts = np.bincount(self.sample, minlength=len(self.findable))
        first = np.concatenate([[0], np.cumsum(counts)])
        at = np.concatenate([np.arange(first[i], first[i + 1]) for i in samples]) if len(samples) else samples
        own = np.repeat(np.arange(len(samples)), counts[samples])
        return Answers(self.scores[at], self.right[at], own, self.findable[samples])


def joined(one: Answers, other: Answers) -> Answers:
    """The answers of two splits."""
    sample = np.concatenate([one.sample, other.sample + len(one.findable)])
    parts = ((getattr(own, name) for own in (one, other)) for name in ("scores", "right", "findable"))
    scores, right, findable = map(np.concatenate, map(list, parts))
    return Answers(scores, right, sample, findable)


def of_texts(folder: Path, split: str) -> Answers:
    """The answers of a run of texts with one label."""
    csv.field_size_limit(2**31 - 1)
    with (folder / f"predictions_{split}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    scores = np.array([float(row["score"]) for row in rows])
    right = np.array([row["label"] == row["predicted"] for row in rows])
    return Answers(scores, right, np.arange(len(rows)), np.ones(len(rows), np.int64))


def of_entities(folder: Path, split: str, predictor: finetune.prediction.Predictor) -> Answers:
    """The entities that a run's model finds."""
    gold = data.read_conll(folder / f"predictions_{split}.conll", tag_column=1, written_here=True)
    scores, right, sample, findable = [], [], [], []
    for number, (tags, answer) in enumerate(zip(gold.tags, predictor(gold.words), strict=True)):
        wanted = set(metrics.entity_spans(tags))
        findable.append(len(wanted))
        for entity in answer["entities"]:
            scores.append(entity["score"])
            right.append((*entity["words"], entity["label"]) in wanted)
            sample.append(number)
    return Answers(np.array(scores), np.array(right, bool), np.array(sample, np.int64), np.array(findable))


def promise(answers: Answers, precision: float) -> metrics.Promise | None:
    """What a split promises."""
    total = int(answers.findable.sum())
    found = metrics.promised_thresholds(answers.scores, answers.right, total, [precision], groups=answers.sample)
    return found[0] if found else None


def kept(answers: Answers, threshold: float) -> tuple[float, float]:
    """Precision and recall of the answers above a threshold. The precision of no answer is 1."""
    above = answers.scores >= threshold
    right = float(answers.right[above].sum())
    return right / above.sum() if above.any() else 1.0, right / max(answers.findable.sum(), 1)


def measured(eval_split: Answers, test_split: Answers, precision: float, seed: int = 0) -> dict:
    """The numbers of one precision, as the top of this file explains them."""
    rng = np.random.default_rng(seed)
    both = joined(eval_split, test_split)
    n, S = len(eval_split.findable), len(both.findable)
    made, broken, below = 0, 0, 0
    for _ in range(RESPLITS):
        own = promise(both.take(rng.integers(0, S, n)), precision)
        if own is not None:
            made += 1
            broken += kept(both, own.threshold)[0] < precision
        order = rng.permutation(S)
        own = promise(both.take(order[:n]), precision)
        if own is not None:
            below += kept(both.take(order[n:]), own.threshold)[0] < precision
    found = {"precision": precision, "draws": RESPLITS, "made": made, "broken": broken, "below": below}
    own = promise(eval_split, precision)
    found |= {
        "recall_without": round(kept(test_split, 0.0)[1], 4),
        "precision_without": round(kept(test_split, 0.0)[0], 4),
    }
    if own is None:
        return found | {"promised": False}
    test = kept(test_split, own.threshold)
    return found | {
        "promised": True,
        "threshold": own.threshold,
        "eval_precision": round(own.found, 4),
        "eval_recall": round(own.recall, 4),
        "test_precision": round(test[0], 4),
        "test_recall": round(test[1], 4),
    }


def table(name: str, rows: list[dict]) -> str:
    """The results of a run as Markdown."""
    lines = [
        f"### {name}",
        "",
        "| promised | score from | dev precision | dev recall | test precision | test recall | test recall without "
        "| broken of 200 | below of 200 |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        keys = ("threshold", "eval_precision", "eval_recall", "test_precision", "test_recall")
        cells = [f"{row[key]:.3f}" if key in row else "not promised" if key == "threshold" else "" for key in keys]
        cells += [f"{row['recall_without']:.3f}", str(row["broken"]), str(row["below"])]
        lines.append(f"| {row['precision']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", required=True, help="the folder of a run; may be given again")
    parser.add_argument("--precisions", type=float, nargs="+", default=[0.90, 0.95, 0.99])
    parser.add_argument("--output", help="a JSON file for the numbers")
    flags = parser.parse_args()
    told = {}
    for name in flags.run:
        folder = Path(name)
        if (folder / "predictions_eval.conll").is_file():
            predictor = finetune.load_predictor(folder)
            splits = [of_entities(folder, split, predictor) for split in ("eval", "test")]
        else:
            splits = [of_texts(folder, split) for split in ("eval", "test")]
        told[folder.name] = [measured(*splits, precision) for precision in flags.precisions]
        print(table(folder.name, told[folder.name]), flush=True)
    if flags.output:
        Path(flags.output).write_text(json.dumps(told, indent=1, default=int) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
