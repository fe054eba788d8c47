"""A task of its own, with no line changed in finetune/: how many stars, scored by how far off the answers are."""

import json
import sys
from dataclasses import dataclass

import numpy as np
from processes import run_script

import finetune
from finetune import cli, data, models, stages, training
from finetune.arguments import DataArguments, ModelArguments, TrainingArguments
from finetune.data import labels_counted as targets  # noqa: F401
from finetune.tasks.classification import encode, inputs  # noqa: F401
from recipes.compare import CompareConfig, Recipe, compare

METRICS, SHOWN, PIPELINE = ("closeness", "loss"), ("closeness",), "text-classification"
STARS = ["negative", "neutral", "positive"]
labels, decode = lambda splits: STARS, lambda encoded, found: found["stars"]
TASK, read, gold = sys.modules[__name__], data.read_labelled, data.label_targets
resolved, headline = stages.with_defaults, lambda dataset: "closeness"


@dataclass
class StarsConfig(TrainingArguments, ModelArguments, DataArguments):
    """The flags that every recipe has."""


def collect(output, batch, settings):
    return {"stars": output.logits.argmax(-1)}


def counts(gold, said, labels, settings):
    return np.stack([np.abs(gold - said), np.ones_like(gold)], axis=1)


def closeness(sums):
    return 1.0 - sums[..., 0] / (2.0 * sums[..., 1])


def score(sums, labels, settings):
    return {"closeness": float(closeness(sums))}


def write(file, name, dataset, said, labels, settings):
    rows = zip(dataset["text"], dataset["label"], (STARS[i] for i in said), strict=True)
    file(f"predictions_{name}.json").write_text(json.dumps(list(rows)))


def answer(samples, predictor):
    rows = data.encode_strings(samples, None, predictor.tokenizer, max_seq_length=predictor.max_seq_length).rows
    return [STARS[i] for i in predictor.collect(rows)["stars"]]


def reread(folder, name):
    texts, right, said = zip(*json.loads((folder / f"predictions_{name}.json").read_text()), strict=True)
    return [text.split() for text in texts], list(right), list(said), []


def compared(runs, splits):
    def table(run):
        return counts(*(np.array([STARS.index(x) for x in side]) for side in (run.gold, run.predicted)), STARS, {})

    tables = {name: np.stack([table(run) for run in seeds.values()]) for name, seeds in runs.items()}
    return {"metric": "closeness", "score": closeness, "counts": tables}


def train(config):
    job = stages.begin(resolved(config), TASK)
    words = job.splits["train"]["text"]
    model, tokenizer = models.load("sequence-classification", job.config, STARS, words=words, max_seq_length=32)
    stages.encode(job, model, tokenizer)
    return stages.report(job, stages.fit(job, model))


FLAGS = {"dataset_name": "samples", "model_name_or_path": "bilstm", "max_train_samples": 60, "max_eval_samples": 20}
FLAGS |= {"max_seq_length": 32, "num_train_epochs": 2, "hidden_size": 8, "dropout": 0.0, "word_dropout": 0.0}


def test_the_toy_trains_resumes_predicts_and_is_compared_on_one_process_and_two(tmp_path):
    one = train(StarsConfig(**FLAGS, output_dir=str(tmp_path / "one")))
    texts, _, said, _ = reread(tmp_path / "one", "test")
    assert finetune.load_predictor(tmp_path / "one", task=TASK)([" ".join(words) for words in texts]) == said
    half = {"resume_from_checkpoint": str(training.checkpoints(tmp_path / "one")[0])}
    train(StarsConfig(**FLAGS | half, output_dir=str(tmp_path / "resumed")))
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "resumed")}) == 1
    flags = [f"--{key}={value}" for key, value in (FLAGS | {"per_device_train_batch_size": 8}).items()]
    done = run_script(__file__, *flags, f"--output_dir={tmp_path / 'two'}", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert reread(tmp_path / "two", "test")[2] == said
    configs = {name: StarsConfig(**FLAGS | {"model_name_or_path": name}) for name in ("bilstm", "rnn")}
    own = Recipe(StarsConfig, train, resolved, __name__, {})
    report = compare(CompareConfig(configs, (42, 43), str(tmp_path / "compared"), own))
    assert report["models"]["bilstm"]["scores"]["test_closeness"]["values"][0] == one.results["test_closeness"]


if __name__ == "__main__":
    cli.run(train, cli.parse(StarsConfig))
