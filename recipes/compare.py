"""Several models, several seeds, one report: which is better, by how much, is it more than chance, what does it cost.

python recipes/compare.py --task ner --dataset_name samples --models bilstm,dictionary --seeds 0,1,2
python recipes/compare.py --config recipes/configs/compare/wnut17.yaml --output_dir runs/wnut17
python recipes/compare.py --task sentiment --train_file train.csv --validation_file dev.csv --test_file test.csv \\
    --models svm,bilstm,sentence-transformers/all-MiniLM-L6-v2 --seeds 0,1,2 --output_dir runs/compared

`--folds 5` is a cross-validation of the training data. `--jobs 2` trains two runs at a time, each in a process of its
own with its share of the cores. `--part 2/8` trains only the second of eight parts of the runs, for an array job of a
cluster (docs/clusters.md).

You may add all flags of the task's recipe; they hold for every model. A YAML file may give each model its own flags,
under `models:`. A finished run is not run again. A run that was killed continues from its newest checkpoint.

from recipes.compare import CompareConfig, compare
from recipes.ner import NerConfig
report = compare(CompareConfig({name: NerConfig(model_name_or_path=name) for name in ("bilstm", "dictionary")}))
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import argparse
import importlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from finetune import cli, config_files, models, reporting
from finetune.comparison.finished import check_same_data
from finetune.comparison.missing import train_missing
from finetune.comparison.runs import RunName
from finetune.from_python import names_of_python
from recipes import language_model, ner, question_answering, sentiment, seq2seq, simple_baselines
from recipes.__main__ import module_of


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
_TAKEN = ("", ".", "..", "plots", "tables", "comparison.json", "comparison.md", "report.html")


@dataclass
class CompareConfig:
    """The models to compare, and with which seeds."""

    models: Mapping[str, Any]  # name in the report -> config; all configs are of one recipe
    seeds: Sequence[int] = (0, 1, 2)
    output_dir: str = "runs/comparison"
    recipe: Recipe | None = None  # [the recipe that the configs belong to]
    jobs: int = 1  # runs that train at a time
    folds: int | None = None  # cross-validation of the training data with so many folds; other splits are not read
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
            run, for less than one job, for a part that does not exist, for folds that the data does not have, or if
            every run failed; with `part`, if one of its runs failed.
    """
    # 1. One run for each model and seed; of a cross-validation, for each fold, too. Each run has its own folder.
    _check(config)
    recipe = config.recipe or recipe_of(next(iter(config.models.values())))
    folder = Path(config.output_dir)
    runs = _planned(config, recipe)
    if config.part is not None:
        runs = _part_of(runs, *config.part)

    # 2. Read the data, which is the same for all models. Train the missing runs. If one fails, the others still run.
    splits = _read_data(recipe, runs, data)
    reasons = train_missing(runs, splits, recipe.module, config.jobs, {} if data is None else {"data": data})
    failures = [
        {"model": name.model, "seed": name.seed, "reason": reasons[name]} | ({"fold": name.fold} if name.fold else {})
        for name in runs
        if name in reasons
    ]
    if len(failures) == len(runs):
        raise ValueError(f"every run failed; the first one said: {failures[0]['reason']}")
    if config.part is not None:
        if failures:
            first = failures[0]["reason"]
            raise ValueError(f"{len(failures)} of {len(runs)} runs failed; the first one said: {first}")
        print("\nthe runs of this part are finished; without --part, the same command writes the report", flush=True)
        return {}

    # 3. Compute statistics, breakdowns and costs from the predictions of the runs.
    from finetune import comparison

    whole = {(name.model, name.seed) for name in runs} - {(name.model, name.seed) for name in reasons}
    if not whole:
        raise ValueError(f"no model has all folds; the first run that failed said: {failures[0]['reason']}")
    finished = {name: own for name, (_, own) in runs.items() if (name.model, name.seed) in whole}
    if config.folds is None:
        split = "test" if "test" in splits[None] else "eval"
        configs: Any = {(name.model, name.seed): own for name, own in finished.items()}
        report = comparison.comparison_of(configs, splits[None], split, recipe.module)
    else:
        configs = {}
        for name, own in finished.items():
            configs.setdefault((name.model, name.seed), []).append(own)
        report = comparison.comparison_of(configs, list(splits.values()), "test", recipe.module)
    report |= {"failures": failures, "command": _command(), "machine": reporting.machine()}
    report |= {"jobs": config.jobs} if config.jobs > 1 else {}

    # 4. Write the report, and add the results to each model's card.
    if os.environ.get("RANK", "0") == "0":
        reporting.write_comparison(folder, report)
        for name, own in finished.items():
            reporting.add_comparison_to_card(Path(own.output_dir), report, name.model)
        print(f"\n{reporting.comparison_table(report)}\n\nreport: {folder / 'report.html'}", flush=True)
    return report


def _check(config: CompareConfig) -> None:
    """Raises ValueError for what can be known to be wrong before any data is read."""
    if not config.models or not config.seeds or len(set(map(type, config.models.values()))) > 1:
        raise ValueError("--models, --seeds: give at least one model and one seed; all models need the same task")
    if len(set(config.seeds)) < len(config.seeds):
        raise ValueError(f"--seeds {','.join(map(str, config.seeds))}: give each seed once")
    if config.jobs < 1:
        raise ValueError(f"--jobs {config.jobs}: give a number of runs that train at a time, at least 1")
    if config.jobs > 1 and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError(
            f"--jobs {config.jobs}: `accelerate launch` with several processes trains one run after the other; leave "
            "--jobs out, or start without several processes"
        )
    if config.folds is None:
        return
    if config.folds < 2:
        raise ValueError(f"--folds {config.folds}: must be at least 2")
    for own in config.models.values():
        if not hasattr(own, "fold"):
            raise ValueError(
                f"--folds {config.folds}: not for this task; tags of words, labels of texts, questions and text to "
                "text have it"
            )
        if own.fold is not None:
            raise ValueError(
                f"--fold {own.fold}: --folds {config.folds} gives each run its fold; leave one of them out"
            )


def _planned(config: CompareConfig, recipe: Recipe) -> dict[RunName, tuple[Callable[[Any], Any], Any]]:
    """What trains each run, and its config."""
    for own in config.models.values():
        name = own.model_name_or_path
        if name in models.COMPARED and name not in recipe.others:
            known = f"; this task has {', '.join(recipe.others)}" if recipe.others else ""
            raise ValueError(f"--models {name}: no model of this task{known}")
    chosen = {name: _without_idle_flags(name, own) for name, own in config.models.items()}
    names = {name: name.rstrip("/").rpartition("/")[2] for name in config.models}
    if len(set(names.values())) < len(names):
        raise ValueError(f"--models {','.join(names)}: the last parts of these names must differ")
    for name in names.values():
        if name in _TAKEN:
            raise ValueError(f"--models: the report has a file or folder named {name!r}; give the model another name")
    runs = {}
    for given, own in chosen.items():
        for seed in config.seeds[:1] if own.model_name_or_path in recipe.others else config.seeds:
            for fold in (None,) if config.folds is None else range(1, config.folds + 1):
                run = RunName(names[given], seed, fold)
                more: dict[str, Any] = {} if fold is None else {"fold": f"{fold}/{config.folds}"}
                more |= {"seed": seed, "output_dir": str(Path(config.output_dir) / run.folder)}
                runs[run] = run_of(recipe, replace(own, **more))
    return runs


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


def _read_data(
    recipe: Recipe, runs: Mapping[RunName, Any], given: Mapping[str, Any] | None
) -> dict[int | None, Mapping[str, Any]]:
    """The splits of each fold; of runs without folds, those of None.

    Raises:
        ValueError: if the runs have different data, or no split to compare on. Nothing is trained before this check.
    """
    task = recipe.module
    found: dict[int | None, Mapping[str, Any]] = {}
    for fold in dict.fromkeys(name.fold for name in runs):
        configs = [own for name, (_, own) in runs.items() if name.fold == fold]
        check_same_data(configs)
        found[fold] = task.read(configs[0]) if given is None else task.read(configs[0], given)
        if not found[fold].keys() & {"test", "validation"}:
            raise ValueError("a comparison needs test data or validation data; give --test_file or --validation_file")
    return found


def _command() -> str:
    """The command that started this comparison. It shows no folders of this machine, except those in the flags."""
    if Path(sys.argv[0]).name == Path(__file__).name:
        return f"python recipes/compare.py {shlex.join(sys.argv[1:])}"
    if cli.program() == "finetune compare":
        return f"finetune {shlex.join(sys.argv[1:])}"
    return "recipes.compare.compare(...)"


def options() -> argparse.ArgumentParser:
    """The parser of the flags that this command has beside those of the recipe."""
    parser = argparse.ArgumentParser(
        prog=cli.program(),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--task", type=module_of, choices=list(RECIPES), help="The recipe that trains the models.")
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
        "--folds",
        type=int,
        help="Cross-validation: the training data in so many parts, each of which is the test split of one run.",
    )
    parser.add_argument(
        "--part", metavar="I/N", help="Train only the I-th of N parts of the runs, and write no report."
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE.yaml", help="A file with flags; others override it."
    )
    return parser


def parse(argv: Sequence[str] | None = None) -> CompareConfig:
    """Builds the config from the command line and the YAML files that it names."""
    parser = options()
    known = {field.name for recipe in RECIPES.values() for field in fields(recipe.config)}
    known |= {"task", "seeds", "jobs", "folds"}
    arguments, general, words, sections = cli.parse_with_section(
        *(parser, argv, Path(__file__).with_name("configs")),
        lambda file: config_files.yaml_to_argvs(file, "models", known),
    )
    models = {name: flags for section in sections for name, flags in section.items()}
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
        folds=arguments.folds,
        part=(int(part[1]), int(part[2])) if arguments.part else None,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    cli.run(compare, parse(argv))


if __name__ == "__main__":
    main()
