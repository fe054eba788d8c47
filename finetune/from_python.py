"""Configs and calls from Python get what the command line has: types that are checked, flags that are explained, and
messages with the names that were used.
"""

import dataclasses
import functools
import inspect
import numbers
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from finetune.cli import command

Config = TypeVar("Config")
Kind = TypeVar("Kind", bound=type)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def documented(config: Kind) -> Kind:
    """A decorator for the class of a config: `help()` tells what each field means, as `--help` does for the flags."""
    fields = "".join(f"\n    {field.name}: {field.metadata['help']}" for field in dataclasses.fields(config))
    config.__doc__ = f"{(config.__doc__ or '').strip()}\n\nFields:{fields.replace('--', '')}\n"
    return config


def names_of_python(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A decorator for what users call: a ValueError about `--seed` is one about `seed` in a call from Python.

    A flag keeps its dashes where it is none of the function or of its config, and in a recipe's command, since
    `finetune.cli.run` calls the function without this decorator.
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            if len(error.args) == 1 and command("ner") is None:
                known = {name for value in args if dataclasses.is_dataclass(value) for name in vars(value)}
                known |= inspect.signature(function).parameters.keys()
                said = re.sub(r"--(\w+)", lambda flag: flag[flag[1] in known], str(error.args[0]))
                error.args = (said,)
            raise

    return call


def typed(config: Config) -> Config:
    """The config with values of the types that its flags have: what the command line does, for configs from Python.

    Paths become strings, whole numbers become floats where a float is meant, and numbers of numpy those of Python, so
    that `run.yaml` holds plain values.

    Raises:
        ValueError: naming the field, for a value of another type, or outside the choices.
    """
    hints = get_type_hints(type(config))
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    values = {name: _typed(name, getattr(config, name), hints[name]) for name in names}
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def _typed(name: str, value: Any, hint: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if get_origin(kind) is Literal:
            if isinstance(value, str) and value in get_args(kind):
                return value
        elif kind is str and isinstance(value, (str, Path)):
            return str(value)
        elif kind is bool and isinstance(value, bool):
            return value
        elif kind in _NUMBERS and isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool):
            return kind(value)
    told = [
        "one of " + ", ".join(map(repr, get_args(kind))) if get_origin(kind) is Literal else _KINDS[kind]
        for kind in kinds
    ]
    raise ValueError(f"{name}={value!r:.100}: must be {' or '.join(told)}")


_NUMBERS: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real}
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a string",
    type(None): "None",
}
