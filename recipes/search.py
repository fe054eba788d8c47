"""Good values for flags: many short trainings, of which each learns from the others, and the best flags as a file.

python recipes/search.py --task ner --dataset_name samples --model_name_or_path bilstm --trials 20
python recipes/search.py --config recipes/configs/search/samples.yaml --output_dir runs/search
python recipes/ner.py --config runs/search/best.yaml --output_dir runs/best

You may add all flags of the task's recipe; they hold for every trial. A YAML file says which flags are searched,
under `search:`. Without it, these are the learning rate, the epochs and the batch. Give the same command again to
continue a search that was stopped. Give it several times, also on several machines, to run several trials at a time.

from recipes.ner import NerConfig
from recipes.search import SearchConfig, search
rates = {"low": 1e-5, "high": 1e-3, "log": True}
found = search(SearchConfig(NerConfig(dataset_name="samples"), {"learning_rate": rates}))
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from finetune import cli, config_files, data, training
from finetune.comparison.finished import DATA_FLAGS, IDLE_FLAGS, digest_of
from finetune.files import printable
from finetune.from_python import names_of_python
from finetune.spelling import did_you_mean
from recipes.__main__ import COMMANDS, module_of
from recipes.compare import RECIPES, Recipe, recipe_of

# Flags that a search cannot try values for: they change what is measured, or nothing that is measured.
_FIXED = {
    *DATA_FLAGS,
    *IDLE_FLAGS,
    "metric_for_best_model",
    "seed",
    "eval_strategy",
    "max_eval_samples",
    "hub_model_id",
}
# Flags that may differ between two commands that share a search.
_FREE = {*IDLE_FLAGS, "test_file", "test_target_file", "hub_model_id", "dataloader_num_workers"}


@dataclass
class SearchConfig:
    """The flags of a recipe, and which of them are searched."""

    config: Any  # of the recipe; its output_dir is not used
    search: Mapping[str, Any] | None = None  # flag -> range [learning rate, epochs and batch]
    trials: int = 20  # in all, also those of other processes and of earlier commands
    output_dir: str = "runs/search"
    prune: bool = True  # whether a trial that is worse than half of the others is ended early
    recipe: Recipe | None = None  # [the recipe that the config belongs to]


@dataclass
class SearchResult:
    """What a search found."""

    output_dir: Path
    config: Any  # the best flags, with test data again
    score: float  # of the best trial on the validation data
    trials: list[dict[str, Any]]  # as finetune.trials.tell_results gives them


@names_of_python
def search(config: SearchConfig, data: Mapping[str, Any] | None = None) -> SearchResult:
    """Runs the missing trials, and writes `best.yaml`, `trials.md`, `trials.csv` and `trials.png`.

    Args:
        data: rows from Python instead of files, as the recipes take them. A test split is not used.

    Raises:
        ValueError: for a mistake that the user can correct, before the first trial; and if every trial failed.
    """
    # 1. Check the flags and the ranges. Test data is left out.
    recipe = config.recipe or recipe_of(config.config)
    given = {} if data is None else {"data": {split: rows for split, rows in data.items() if split != "test"}}
    trials = _trials_part()
    base, ranges = _checked(config, recipe)
    if told := [f"--{name} {getattr(config.config, name)}" for name in _test_flags(base) if _has(config, name)]:
        print(f"test data is not read: {', '.join(told)} stays for best.yaml", flush=True)

    # 2. Read the data. Its digest says later whether a search is continued with the same data.
    base, digest = _with_metric(base, recipe, given)
    metric = base.metric_for_best_model

    # 3. Open the search, or begin it. A mistake in the flags shows now, in a training that is ended before its start.
    folder = Path(config.output_dir)
    train = partial(recipe.run, **given)
    defaults = asdict(recipe.resolved(base))
    first = {name: defaults[name] for name, one in ranges.items() if one.holds(defaults[name])}
    found = trials.open_search(
        *(folder, ranges, _settings(base, ranges, digest), first),
        seed=base.seed,
        most=config.trials,
        minimize=training.is_better_lower(metric),
        check=lambda: trials.check_run(train, replace(base, **first, output_dir=str(folder / "trials" / "000"))),
    )
    for name, one in ranges.items():
        print(f"{name}: {one}", flush=True)
    if found.choices is not None and found.choices < config.trials:
        print(f"there are only {found.choices} combinations of these; each is tried once", flush=True)

    # 4. Run trials until there are enough. If one fails, the search goes on.
    with trials.sigterm_leaves():
        while (trial := found.next_trial()) is not None:
            values = ", ".join(f"{name} {trials.shown(value)}" for name, value in trial.params.items())
            print(f"\n=== trial {trial.number} ({trial.number + 1} of {found.most}): {values}", flush=True)
            place = found.folder_of(trial.number)
            own = replace(base, **trial.params, output_dir=str(place))
            own = replace(own, resume_from_checkpoint="true" if Path(place).is_dir() else None)
            run = partial(trials.run_trial, train, folder, trial.number, metric, config.prune)
            trials.run_in_own_process(found, trial, run, own)
            trials.write_results(found, _for_user(base, config), metric, _recipe_command(recipe))

    # 5. Tell what was found.
    rows, best = trials.tell_results(found, metric), found.best()
    if best is None:
        reason = next((row["reason"] for row in rows if row["reason"]), "they are still running")
        raise ValueError(f"no trial has a score; the first one said: {reason}")
    trials.write_results(found, _for_user(base, config), metric, _recipe_command(recipe))
    print(f"\n{trials.trials_table(rows, metric, list(ranges))}\n", flush=True)
    if running := sum(row["state"] == "running" for row in rows):
        print(f"{running} of these still run in other processes, which write the files again at their end")
    print(
        f"trial {best.number} is the best; {found.folder_of(best.number)} holds its model; to train with its flags:"
    )
    print(f"{_recipe_command(recipe)} --config {folder / 'best.yaml'} --output_dir FOLDER", flush=True)
    return SearchResult(folder, replace(_for_user(base, config), **best.params), best.values[0], rows)


def _trials_part() -> Any:
    """`finetune.trials`. Raises ValueError if optuna is not installed."""
    from finetune import trials

    try:
        _ = trials.open_search
    except ModuleNotFoundError as error:
        raise ValueError(
            f'{error.name} is not installed; the extra `search` brings it: pip install "finetune-recipes[search]"'
        ) from error
    return trials


def _checked(config: SearchConfig, recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The flags of a trial, without test data, and the ranges. Raises ValueError for what makes no sense."""
    from finetune import trials

    own = config.config
    if config.trials < 1:
        raise ValueError(f"--trials {config.trials}: must be at least 1")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError(
            "a trial trains in one process; start the search without `accelerate launch` for several processes, and "
            "give the command several times to run several trials at a time"
        )
    if own.model_name_or_path in recipe.others:
        raise ValueError(f"--model_name_or_path {own.model_name_or_path}: it has no flags to search")
    for name in ("overwrite_output_dir", "resume_from_checkpoint"):
        if str(getattr(own, name) or "false").lower() != "false":
            raise ValueError(
                f"--{name}: a search goes on with the trials in its folder; to begin a new one, give another "
                "--output_dir"
            )
    if own.eval_strategy == "no":
        raise ValueError("--eval_strategy no: a search needs evaluations; give epoch or steps")
    base = replace(own, push_to_hub=False, **dict.fromkeys(_test_flags(own)))
    defaults = {field.name: field.default for field in fields(own)}
    if config.search is None:  # a flag that has another value than its default is left out
        usual = trials.default_ranges(recipe.resolved(base))
        ranges = {name: one for name, one in usual.items() if getattr(own, name) == defaults[name]}
    else:
        ranges = trials.ranges_of(config.search)
    if not ranges:
        raise ValueError("search: no flag to search; give at least one range")
    for name in ranges:
        if name not in defaults or name in _FIXED:
            problem = "no flag of this recipe" if name not in defaults else "a search cannot change this flag"
            raise ValueError(f"search, {name}: {problem}{did_you_mean(name, defaults.keys() - _FIXED - {name})}")
        if config.search is not None and getattr(own, name) != defaults[name]:
            raise ValueError(f"--{name} {getattr(own, name)}: search has a range for it, too; leave one of them out")
    lowest = {name: one.ends()[0] for name, one in ranges.items()}
    for name, one in ranges.items():
        for value in one.ends():
            training.check_flags(recipe.resolved(replace(base, **{**lowest, name: value})))
    return base, ranges


def _with_metric(base: Any, recipe: Recipe, given: Mapping[str, Any]) -> tuple[Any, str]:
    """The flags with the metric of the data, and a digest of the data."""
    task = recipe.module
    if base.metric_for_best_model not in (None, *task.METRICS):
        raise ValueError(
            f"--metric_for_best_model {base.metric_for_best_model}: choose from {', '.join(task.METRICS)}"
        )
    with data.without_test_data():
        splits = task.read(base, *given.values())
    if "validation" not in splits:
        raise ValueError(
            "a search needs validation data; give --validation_file or a --validation_split_percentage above 0"
        )
    metric = base.metric_for_best_model or task.headline(splits["train"])
    return replace(base, metric_for_best_model=metric), digest_of(splits)


def _settings(base: Any, ranges: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """What must stay the same if a search is continued."""
    flags = {f"--{name}": value for name, value in asdict(base).items() if name not in _FREE and name not in ranges}
    return {**flags, **{f"the range of {name}": str(one) for name, one in ranges.items()}, "the data": digest[:16]}


def _test_flags(config: Any) -> list[str]:
    return [name for name in ("test_file", "test_target_file") if hasattr(config, name)]


def _has(config: SearchConfig, name: str) -> bool:
    return getattr(config.config, name) is not None


def _for_user(base: Any, config: SearchConfig) -> Any:
    """The flags of a trial with the test data that the user named, and what happens to the final model."""
    own = config.config
    return replace(base, push_to_hub=own.push_to_hub, **{name: getattr(own, name) for name in _test_flags(base)})


def _recipe_command(recipe: Recipe) -> str:
    """What trains one model, as this search was started, such as `finetune ner`."""
    module = recipe.config.__module__.removeprefix("recipes.")
    name = next(name for name, (its, _) in COMMANDS.items() if its == module)
    command = cli.command(module)
    if command is not None and command.endswith(".py"):
        return command
    return cli.command(name) or f"finetune {name}"


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
        "--trials", type=int, default=20, help="The number of trials, also of other processes and earlier commands."
    )
    parser.add_argument("--output_dir", default="runs/search", help="The folder for all trials and the results.")
    parser.add_argument(
        "--prune",
        choices=["true", "false"],
        default="true",
        help="End a trial early if its score is worse than the median of the finished trials.",
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE.yaml", help="A file with flags; others override it."
    )
    return parser


def parse(argv: Sequence[str] | None = None) -> SearchConfig:
    """Builds the config from the command line and the YAML files that it names."""
    from finetune import trials

    parser = options()
    known = {field.name for recipe in RECIPES.values() for field in fields(recipe.config)}
    known |= {"task", "trials", "prune"}

    def read(file: Path) -> tuple[list[str], tuple[str, Any]]:
        flags, section = config_files.yaml_to_argv_and(file, "search", known)
        return flags, (str(file), section)

    arguments, general, words, sections = cli.parse_with_section(
        parser, argv, Path(__file__).with_name("configs"), read
    )
    if arguments.task is None:
        parser.error(f"--task: give one of {', '.join(RECIPES)}")
    kind = RECIPES[arguments.task].config
    config = cli.parse(kind, [*general, *words])
    names = {field.name for field in fields(kind)}
    given = {word.partition("=")[0].removeprefix("--") for word in (*general, *words) if word.startswith("--")}
    ranges: dict[str, Any] | None = None
    try:
        for file, section in sections:
            if section is None:
                continue
            some = trials.ranges_of_yaml(
                file, section, names, lambda name, text: getattr(cli.parse(kind, [f"--{name}={text}"]), name)
            )
            ranges = {**(ranges or {}), **some}
        if both := sorted(given & (ranges or {}).keys()):
            raise ValueError(f"--{both[0]}: search has a range for it, too; leave one of them out")
        if ranges is None:
            usual = trials.default_ranges(RECIPES[arguments.task].resolved(config))
            ranges = {name: one for name, one in usual.items() if name not in given}
    except ValueError as error:
        parser.error(printable(str(error)))
    return SearchConfig(config, ranges, arguments.trials, arguments.output_dir, arguments.prune == "true")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    cli.run(search, parse(argv))


if __name__ == "__main__":
    main()
