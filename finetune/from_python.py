"""For calls from Python, as for the command line: checked types, explained fields, and names in messages."""

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
    """A decorator for the class of a config: its docstring explains each field, as `--help` explains each flag."""
    fields = "".join(f"\n    {field.name}: {field.metadata['help']}" for field in dataclasses.fields(config))
    config.__doc__ = f"{(config.__doc__ or '').strip()}\n\nFields:{fields.replace('--', '')}\n"
    return config


def names_of_python(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A decorator for public functions: in a call from Python, a ValueError says `seed` instead of `--seed`.

    A name keeps its dashes if it is no parameter of the function and no field of its config. In the command of a
    recipe all names keep them, because `finetune.cli.run` calls the function without this decorator.
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            if len(error.args) == 1 and command("ner") is None:
                known = _names(args) | inspect.signature(function).parameters.keys()
                said = re.sub(r"--(\w+)", lambda flag: flag[flag[1] in known], str(error.args[0]))
                error.args = (said,)
            raise

    return call


def _names(value: Any) -> set[str]:
    """The fields of all configs in a call's arguments."""
    if dataclasses.is_dataclass(value):
        return set(vars(value)).union(*map(_names, vars(value).values()))
    inner = value if isinstance(value, tuple) else value.values() if isinstance(value, dict) else ()
    return set().union(*map(_names, inner))


def typed(config: Config) -> Config:
    """A config from Python, with values of the types of its flags. For the command line, the parser does this.

    Paths become strings, whole numbers become floats if the flag is a float, and numbers of numpy become numbers of
    Python. So `run.yaml` has plain values.

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
