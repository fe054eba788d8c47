"""What `--help` shows: flags in groups, those that matter first."""

import argparse
from typing import Any

_FIRST = (
    *("dataset_name", "train_file", "validation_file", "test_file", "text_column_name", "label_column_name"),
    *(
        "question_column_name",
        "context_column_name",
        "answer_column_name",
        "source_column_name",
        "target_column_name",
    ),
    *("model_name_or_path", "input_file", "output_file", "output_dir", "num_train_epochs", "learning_rate", "seed"),
    *("config", "help"),
)


def group_flags(parser: argparse.ArgumentParser, config_class: type) -> None:
    """Puts the flags into groups for `--help`: those that matter first, then by the dataclass that has them."""
    bases = [kind for kind in reversed(config_class.__mro__) if kind is not object]
    owners = {name: kind for kind in bases for name in vars(kind).get("__annotations__", ())}
    titles = {kind: (kind.__doc__ or "").partition(".")[0].lower() for kind in bases} | {config_class: "this recipe"}
    groups: dict[str, list[argparse.Action]] = {"first of all": []}
    groups |= {titles[kind]: [] for kind in (config_class, *bases[:-1])}
    for action in parser._actions:
        if any(option.startswith("--no_") for option in action.option_strings):
            continue  # `--x false` says the same
        if action.help:  # plain words; argparse would read `95 % interval` as a format
            action.help = action.help.replace("%", "%%")
        first = action.dest in _FIRST
        groups["first of all" if first else titles[owners[action.dest]]].append(action)
    groups["first of all"].sort(key=lambda action: _FIRST.index(action.dest))
    parser._action_groups.clear()
    for title, actions in groups.items():
        parser.add_argument_group(title)._group_actions.extend(actions)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The recipe's docstring as it is written; each flag once, with what it takes and its default."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        kinds: dict[Any, str] = {int: " N", float: " X", str: " TEXT"}
        kind = kinds.get(action.type, " true|false" if action.nargs == "?" else "")
        kind = f" {action.metavar}" if action.metavar else f" {'|'.join(action.choices)}" if action.choices else kind
        return action.option_strings[-1 if action.dest == "help" else 0] + kind

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)
