"""Several models, several seeds, one report: which is better, by how much, is it more than chance, what does it cost.

python recipes/compare.py --task ner --dataset_name samples --models bilstm,dictionary --seeds 0,1,2
python recipes/compare.py --config recipes/configs/compare/wnut17.yaml --output_dir runs/wnut17
python recipes/compare.py --task sentiment --train_file train.csv --validation_file dev.csv --test_file test.csv \\
    --models svm,bilstm,sentence-transformers/all-MiniLM-L6-v2 --seeds 0,1,2 --output_dir runs/compared

`--jobs 2` trains two runs at a time, each in a process of its own with its share of the cores. `--part 2/8` trains
only the second of eight parts of the runs, for an array job of a cluster (docs/clusters.md).

You may add all flags of the task's recipe; they hold for every model. A YAML file may give each model its own flags,
under `models:`. A finished run is not run again. A run that was killed continues from its newest checkpoint.

from recipes.compare import CompareConfig, compare
from recipes.ner import NerConfig
report = compare(CompareConfig({name: NerConfig(model_name_or_path=name) for name in ("bilstm", "dictionary")}))
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import argparse
import hashlib
import importlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from finetune import cli, models, reporting
from finetune.arguments import DataArguments, TextFileArguments, WordFileArguments
from finetune.comparison import processes
from finetune.files import printable, write_text
from finetune.from_python import names_of_python
from recipes import language_model, ner, question_answering, sentiment, seq2seq, simple_baselines


@dataclass(frozen=True)
class Recipe:
    """A recipe whose runs can be compared, and the simple baselines for its task."""

    config: Any  # the class of its flags
    run: Callable[[Any], Any]
    resolved: Callable[[Any], Any]  # gives a config the defaults of its model
    task: str  # a module with the names that finetune/stages.py lists
    others: Mapping[str, Callable[[Any], Any]]  # name -> function that trains a model that is not a network

    @property
    def module(self) -> Any:
        """The task."""
        return importlib.import_module(self.task)


RECIPES = {
    "ner": Recipe(
        ner.NerConfig,
        ner.finetune_ner,
        ner.resolved,
        "finetune.tasks.tagging",
        {"dictionary": simple_baselines.tag_by_dictionary},
    ),
    "sentiment": Recipe(
        sentiment.SentimentConfig,
        sentiment.finetune_sentiment,
        sentiment.resolved,
        "finetune.tasks.classification",
        {"svm": simple_baselines.train_svm},
    ),
    "question_answering": Recipe(
        question_answering.QuestionConfig,
        question_answering.finetune_questions,
        question_answering.resolved,
        "finetune.tasks.questions",
        {},
    ),
    "language_model": Recipe(
        language_model.LanguageModelConfig,
        language_model.train_language_model,
        language_model.resolved,
        "finetune.tasks.next_word",
        dict.fromkeys(("unigram", "5-gram"), simple_baselines.count_ngrams),
    ),
    "seq2seq": Recipe(
        seq2seq.Seq2SeqConfig,
        seq2seq.train_seq2seq,
        seq2seq.resolved,
        "finetune.tasks.seq2seq",
        {},
    ),
}
# Flags that do not change a run's weights and scores.
IDLE_FLAGS = (
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "disable_tqdm",
    "report_to",
    "push_to_hub",
)
# Flags that say which data a run reads.
_COLUMNS = (
    *("text_column_name", "text_pair_column_name", "label_column_name", "problem_type", "label_separator"),
    *("question_column_name", "context_column_name", "answer_column_name"),
    *("source_column_name", "target_column_name"),
    *("train_target_file", "validation_target_file", "test_target_file"),
    *("sentences", "validation_split_percentage"),
)
_FILES = (field.name for kind in (DataArguments, TextFileArguments, WordFileArguments) for field in fields(kind))
DATA_FLAGS = (*(name for name in _FILES if name != "max_seq_length"), *_COLUMNS)
_METRIC = "metric_for_best_model"
_DIGEST = "data.sha256"  # a file in a run's folder: the digest of the data that the run saw
_TAKEN = ("", ".", "..", "plots", "tables", "comparison.json", "comparison.md", "report.html")


@dataclass
class CompareConfig:
    """The models to compare, and with which seeds."""

    models: Mapping[str, Any]  # name in the report -> config; all configs are of one recipe
    seeds: Sequence[int] = (0, 1, 2)
    output_dir: str = "runs/comparison"
    recipe: Recipe | None = None  # [the recipe that the configs belong to]
    jobs: int = 1  # runs that train at a time
    part: tuple[int, int] | None = None  # (2, 8): train only the second of eight parts of the runs, write no report


@names_of_python
def compare(config: CompareConfig, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Trains the missing runs, and writes `comparison.json`, `comparison.md`, `report.html` and `plots/`.

    Args:
        data: rows from Python instead of files, as the recipes take them.

    Returns:
        The content of `comparison.json`. With `part`, nothing.

    Raises:
        ValueError: if there is nothing to compare, if the models have different data, if the data changed after a
            run, for less than one job, for a part that does not exist, or if every run failed; with `part`, if one
            of its runs failed.
    """
    # 1. One run for each model and seed. Each run has its own folder.
    if not config.models or not config.seeds or len(set(map(type, config.models.values()))) > 1:
        raise ValueError("--models, --seeds: give at least one model and one seed; all models need the same task")
    if config.jobs < 1:
        raise ValueError(f"--jobs {config.jobs}: give a number of runs that train at a time, at least 1")
    if config.jobs > 1 and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError(
            f"--jobs {config.jobs}: `accelerate launch` with several processes trains one run after the other; leave "
            "--jobs out, or start without several processes"
        )
    recipe = config.recipe or recipe_of(next(iter(config.models.values())))
    folder = Path(config.output_dir)
    chosen = {name: _without_idle_flags(name, own) for name, own in config.models.items()}
    names = {name: name.rstrip("/").rpartition("/")[2] for name in config.models}
    if len(set(names.values())) < len(names):
        raise ValueError(f"--models {','.join(names)}: the last parts of these names must differ")
    for name in names.values():
        if name in _TAKEN:
            raise ValueError(f"--models: the report has a file or folder named {name!r}; give the model another name")
    runs = {
        (names[name], seed): run_of(
            recipe, replace(own, seed=seed, output_dir=str(folder / names[name] / f"seed-{seed}"))
        )
        for name, own in chosen.items()
        for seed in (config.seeds[:1] if own.model_name_or_path in recipe.others else config.seeds)
    }

    if config.part is not None:
        runs = _part_of(runs, *config.part)

    # 2. Read the data, which is the same for all models. Train the missing runs. If one fails, the others still run.
    given = {} if data is None else {"data": data}
    splits = _read_data([own for _, own in runs.values()], recipe.module, data)
    split = "test" if "test" in splits else "eval"
    digest = digest_of(splits)
    states = {key: _state(own, digest, recipe.module.headline(splits["train"])) for key, (_, own) in runs.items()}
    reasons: dict[tuple[str, int], str] = {}
    todo = {
        (name, seed): (partial(train, **given), own if new else replace(own, resume_from_checkpoint="true"))
        for (name, seed), (train, own) in runs.items()
        if (new := states[name, seed] == "new") or states[name, seed] == "begun"
    }

    def tell(name: str, seed: int) -> None:
        number, state = list(runs).index((name, seed)) + 1, states[name, seed]
        print(
            f"\n=== {name}, seed {seed} ({number} of {len(runs)}{'' if state == 'new' else ', ' + state})", flush=True
        )

    def ended(key: tuple[str, int], reason: str | None) -> None:
        if reason is not None:
            print(printable(f"failed: {reason}"), flush=True)
            reasons[key] = reason
        elif os.environ.get("RANK", "0") == "0":
            write_text(Path(runs[key][1].output_dir) / _DIGEST, digest)

    if config.jobs == 1:
        for key in runs:
            tell(*key)
            if key in todo:
                ended(key, processes.train(*todo[key]))
    else:
        for key in runs.keys() - todo.keys():
            tell(*key)
        processes.train_side_by_side(todo, config.jobs, tell, ended)
    failed = [key for key in runs if key in reasons]
    failures = [{"model": name, "seed": seed, "reason": reasons[name, seed]} for name, seed in failed]
    finished = {key: own for key, (_, own) in runs.items() if key not in failed}
    if not finished:
        raise ValueError(f"every run failed; the first one said: {failures[0]['reason']}")
    if config.part is not None:
        if failures:
            first = failures[0]["reason"]
            raise ValueError(f"{len(failures)} of {len(runs)} runs failed; the first one said: {first}")
        print("\nthe runs of this part are finished; without --part, the same command writes the report", flush=True)
        return {}

    # 3. Compute statistics, breakdowns and costs from the predictions of the runs.
    from finetune import comparison

    report = comparison.comparison_of(finished, splits, split, recipe.module)
    report |= {"failures": failures, "command": _command(), "machine": reporting.machine()}
    report |= {"jobs": config.jobs} if config.jobs > 1 else {}

    # 4. Write the report, and add the results to each model's card.
    if os.environ.get("RANK", "0") == "0":
        reporting.write_comparison(folder, report)
        for (name, _), own in finished.items():
            reporting.add_comparison_to_card(Path(own.output_dir), report, name)
        print(f"\n{reporting.comparison_table(report)}\n\nreport: {folder / 'report.html'}", flush=True)
    return report


def _part_of(runs: Mapping[Any, Any], number: int, parts: int) -> dict[Any, Any]:
    """Every so many of the runs, so that each part has runs of each model."""
    if not 1 <= number <= parts:
        raise ValueError(f"--part {number}/{parts}: give a number from 1 to {parts}")
    if number > len(runs):
        raise ValueError(f"--part {number}/{parts}: there are only {len(runs)} runs; give fewer parts")
    return dict(list(runs.items())[number - 1 :: parts])


def _without_idle_flags(name: str, config: Any) -> Any:
    """The config with the default for each flag that this model does not use. Prints which flags it left out."""
    defaults = models.flags_without_use(config)
    given = [flag for flag, default in defaults.items() if getattr(config, flag) != default]
    if given:
        print(f"{name} does not use {', '.join(f'--{flag}' for flag in given)}: left out", flush=True)
    return replace(config, **defaults)


def recipe_of(config: Any) -> Recipe:
    """The recipe that a config belongs to."""
    found = [recipe for recipe in RECIPES.values() if type(config) is recipe.config]
    if not found:
        raise ValueError(f"no recipe here has the config {type(config).__name__}; give CompareConfig a recipe")
    return found[0]


def run_of(recipe: Recipe, config: Any) -> tuple[Callable[[Any], Any], Any]:
    """The function that trains a model, and the model's config with all defaults filled in."""
    return recipe.others.get(config.model_name_or_path, recipe.run), recipe.resolved(config)


def _state(config: Any, digest: str, metric: str) -> str:
    """`finished` or `begun` if the folder holds a run of this config, else `new`.

    If the folder holds a run of another config, `start_run` refuses the new run later.

    Raises:
        ValueError: if a finished run saw other data.
    """
    folder = Path(config.output_dir)
    try:
        there = cli.read_settings(folder / "run.yaml")
    except (OSError, ValueError):
        return "new"
    # A flag that is missing in run.yaml did not exist at that time. The run behaved as its default does.
    did = {field.name: there.get(field.name, field.default) for field in fields(config)}
    passed_over = {*IDLE_FLAGS, *models.flags_without_use(config)}
    # If no flag names a metric, a run takes the metric of its task and writes its name to run.yaml.
    did, asked = ({**own, _METRIC: own.get(_METRIC) or metric} for own in (did, asdict(config)))
    if any(did[name] != value for name, value in asked.items() if name not in passed_over):
        return "new"
    if config.overwrite_output_dir:
        return "new"
    if not (folder / "all_results.json").exists():
        return "begun"
    seen = folder / _DIGEST
    if not seen.exists():  # the run was not started by a comparison
        return "finished, on training data that is not checked"
    if seen.read_text() != digest:
        raise ValueError(
            f"{folder}: the data files have changed since this run; remove its folder, or give --overwrite_output_dir"
        )
    return "finished"


def _read_data(configs: Sequence[Any], task: Any, given: Mapping[str, Any] | None) -> Any:
    """The splits of all runs.

    Raises:
        ValueError: if the runs have different data, or no split to compare on. Nothing is trained before this check.
    """
    first, *others = configs
    for own in others:
        for name in DATA_FLAGS:
            values = [getattr(config, name, None) for config in (first, own)]
            if values[0] != values[1]:
                raise ValueError(
                    f"--{name} is {values[0]} for one model and {values[1]} for another; compare on one data set"
                )
    splits = task.read(first) if given is None else task.read(first, given)
    if not splits.keys() & {"test", "validation"}:
        raise ValueError("a comparison needs test data or validation data; give --test_file or --validation_file")
    return splits


def digest_of(splits: Mapping[str, Any]) -> str:
    """SHA-256 of all rows. With it, a later comparison checks that a finished run saw the same data."""
    whole = hashlib.sha256()
    for name, rows in sorted(splits.items()):
        # A row may move to another line or file; that is not a change of the data.
        whole.update(json.dumps([name, rows.remove_columns(["source", "line"]).to_dict()]).encode())
    return whole.hexdigest()


def _command() -> str:
    """The command that started this comparison. It shows no folders of this machine, except those in the flags."""
    if Path(sys.argv[0]).name == Path(__file__).name:
        return f"python recipes/compare.py {shlex.join(sys.argv[1:])}"
    if cli.program() == "finetune compare":
        return f"finetune {shlex.join(sys.argv[1:])}"
    return "recipes.compare.compare(...)"


def parse(argv: Sequence[str] | None = None) -> CompareConfig:
    """Builds the config from the command line and the YAML files that it names."""
    parser = argparse.ArgumentParser(
        prog=cli.program(),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--task", choices=list(RECIPES), help="The recipe that trains the models.")
    parser.add_argument(
        "--models",
        default="",
        help="Comma-separated models: Hub ids, folders, names of baselines, svm (texts), dictionary (words).",
    )
    parser.add_argument(
        "--seeds", default="0,1,2", help="Comma-separated seeds; each model is trained once for each."
    )
    parser.add_argument("--output_dir", default="runs/comparison", help="The folder for all runs and the report.")
    parser.add_argument("--jobs", type=int, default=1, help="The number of runs that train at a time.")
    parser.add_argument(
        "--part", metavar="I/N", help="Train only the I-th of N parts of the runs, and write no report."
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE.yaml", help="A file with flags; others override it."
    )
    words = list(sys.argv[1:] if argv is None else argv)
    known = {field.name for recipe in RECIPES.values() for field in fields(recipe.config)} | {"task", "seeds", "jobs"}
    general: list[str] = []
    models: dict[str, list[str]] = {}
    try:
        for file in parser.parse_known_args(words)[0].config:
            named = cli.config_file(file, Path(__file__).with_name("configs"))
            more, own = cli.yaml_to_argvs(named, "models", known)
            general, models = general + more, models | own
    except ValueError as error:
        parser.error(str(error))
    # The command line comes last: if a flag is given twice, the last one counts.
    arguments, _ = parser.parse_known_args(general + words)
    (_, general), (_, words) = (parser.parse_known_args(some) for some in (general, words))
    if arguments.task is None:
        parser.error(f"--task: give one of {', '.join(RECIPES)}")
    if any(word.partition("=")[0] == "--model_name_or_path" for word in (*general, *words)):
        parser.error("--model_name_or_path: a comparison has several models; name them with --models")
    chosen = [name.strip() for name in arguments.models.split(",") if name.strip()] or list(models)
    seeds = [seed.strip() for seed in arguments.seeds.split(",")]
    if not all(map(str.isdecimal, seeds)):
        parser.error(f"--seeds {arguments.seeds}: give whole numbers with commas between them, such as 0,1,2")
    configs = {
        name: cli.parse(
            RECIPES[arguments.task].config, [*general, f"--model_name_or_path={name}", *models.get(name, []), *words]
        )
        for name in chosen
    }
    part = re.fullmatch(r"(\d+)/(\d+)", arguments.part or "1/1")
    if part is None:
        parser.error(f"--part {arguments.part}: give a part and the number of parts, such as 2/8")
    return CompareConfig(
        *(configs, tuple(map(int, seeds)), arguments.output_dir),
        jobs=arguments.jobs,
        part=(int(part[1]), int(part[2])) if arguments.part else None,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    cli.run(compare, parse(argv))


if __name__ == "__main__":
    main()
