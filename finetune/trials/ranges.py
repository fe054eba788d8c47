"""Which values a search may try for a flag: from a YAML file, from Python, or the usual ones.

    learning_rate: {low: 1e-5, high: 5e-4, log: true}     # any number; log: each power of ten is as likely
    num_train_epochs: {low: 2, high: 6, step: 2}          # 2, 4 or 6
    per_device_train_batch_size: [8, 16, 32]              # one of these

If both ends are whole numbers, only whole numbers are tried. To try any number from 0 to 1, write `low: 0.0`.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import yaml

from finetune.spelling import did_you_mean

Value = Any  # of a flag: a number, a string, True, False or None
_KEYS = ("low", "high", "step", "log")
_FORMS = "give low and high, such as {low: 1e-5, high: 1e-3, log: true}, or a list, such as [8, 16, 32]"


@dataclass(frozen=True)
class Range:
    """The values of a flag that a search may try: `choices`, or the numbers from `low` to `high`."""

    low: float | None = None
    high: float | None = None
    step: float | None = None  # between two values; None: any number, or any whole number if both ends are whole
    log: bool = False  # each power of ten is as likely as another
    choices: tuple[Value, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are tried."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def ends(self) -> tuple[Value, ...]:
        """All choices, or the lowest number and the highest one."""
        return self.choices or (self.low, self.high)

    def values(self) -> Sequence[Value] | None:
        """All values, or None if there is no end of them."""
        if self.choices:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        if self.is_whole:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        return None if self.step is None else self.steps()

    def steps(self) -> list[float]:
        """The numbers from `low` on, a `step` apart: 0.3, and not 0.30000000000000004."""
        assert self.low is not None
        assert self.high is not None
        assert self.step is not None
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        return [float(low + i * step) for i in range(math.floor((self.high - self.low) / self.step + 1e-9) + 1)]

    def holds(self, value: Value) -> bool:
        """Whether the value may be tried."""
        if (values := self.values()) is not None:
            return any(value == one and (value is one or type(value) is not bool) for one in values)
        assert self.low is not None
        assert self.high is not None
        return isinstance(value, (int, float)) and bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        """In words, for the terminal."""
        if self.choices:
            return "one of " + ", ".join("none" if value is None else str(value) for value in self.choices)
        kind = "whole numbers" if self.is_whole else "numbers"
        more = f" in steps of {self.step:g}" if self.step else ", by powers of ten" if self.log else ""
        return f"{kind} from {self.low:g} to {self.high:g}{more}"

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"choices": list(self.choices)}


def ranges_of(given: Mapping[str, Any]) -> dict[str, Range]:
    """Ranges from Python, in the form of the YAML file: for each flag a mapping with `low` and `high`, or a list.

    Raises:
        ValueError: for another form, and for a range that holds nothing.
    """
    found = {}
    for name, value in given.items():
        if isinstance(value, Range):
            found[name] = value
        elif isinstance(value, Mapping):
            found[name] = _between(dict(value), f"search, {name}")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found[name] = _among(list(value), f"search, {name}")
        else:
            raise ValueError(f"search, {name}: {value!r:.100} is no range; {_FORMS}")
    return found


def ranges_of_yaml(
    file: str, root: yaml.Node, known: set[str], read: Callable[[str, str], Value]
) -> dict[str, Range]:
    """The ranges under `search:` of a YAML file.

    Args:
        root: the node of `search`.
        known: the names of the recipe's flags.
        read: takes the name of a flag and a value as it is written, and returns the value as the flag has it.

    Raises:
        ValueError: naming file and line.
    """
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{file}:{root.start_mark.line + 1}: search takes a mapping of flags to ranges")
    found: dict[str, Range] = {}
    for key, node in root.value:
        where = f"{file}:{key.start_mark.line + 1}"
        name = str(key.value)
        if name not in known:
            hint = did_you_mean(name.lstrip("-").replace("-", "_"), known) or "; --help lists the flags"
            raise ValueError(f"{where}: unknown flag {name!r}{hint}")
        if name in found:
            raise ValueError(f"{where}: {name} is given a second time")
        if isinstance(node, yaml.SequenceNode):
            found[name] = _among([_choice(name, item, where, read) for item in node.value], f"{where}: {name}")
        elif isinstance(node, yaml.MappingNode):
            found[name] = _between(_limits(node, f"{where}: {name}"), f"{where}: {name}")
        else:
            raise ValueError(f"{where}: {name}: {node.value!r:.100} is no range; {_FORMS}")
    return found


def default_ranges(config: Any) -> dict[str, Range]:
    """What is searched if nothing else is asked for: the learning rate, the epochs and the batch.

    Args:
        config: of a recipe, with the defaults of its model filled in. The ranges lie around these.
    """
    rate, epochs = config.learning_rate, config.num_train_epochs
    found = {"learning_rate": Range(rate / 10, rate * 10, log=True)}
    if config.max_steps <= 0:
        found["num_train_epochs"] = Range(max(1, math.ceil(epochs / 2)), max(2, math.ceil(epochs * 2)))
    if not config.tokens_per_batch:
        found["per_device_train_batch_size"] = Range(choices=(8, 16, 32))
    return found


def combinations(ranges: Mapping[str, Range], most: int) -> list[dict[str, Value]] | None:
    """All combinations of values, or None if there are more than `most`."""
    values = [own.values() for own in ranges.values()]
    if any(own is None for own in values) or math.prod(len(own or ()) for own in values) > most:
        return None
    products: Iterator[tuple[Value, ...]] = itertools.product(*(own or () for own in values))
    return [dict(zip(ranges, one, strict=True)) for one in products]


def _choice(name: str, node: yaml.Node, where: str, read: Callable[[str, str], Value]) -> Value:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{where}: {name} takes plain values")
    return None if node.tag == "tag:yaml.org,2002:null" else read(name, node.value)


def _limits(node: yaml.MappingNode, where: str) -> dict[str, Any]:
    """The keys of a range with their values as numbers. YAML itself reads 1e-5 as a text."""
    found: dict[str, Any] = {}
    for key, value in node.value:
        text = str(value.value)
        if key.value == "log":
            if text.lower() not in ("true", "false"):
                raise ValueError(f"{where}: log is {text!r:.50}; give true or false")
            found["log"] = text.lower() == "true"
        elif key.value not in _KEYS:
            found[str(key.value)] = text  # refused below
        elif re.fullmatch(r"[+-]?\d+", text):
            found[key.value] = int(text)
        else:
            try:
                found[key.value] = float(text)
            except ValueError as error:
                raise ValueError(f"{where}: {key.value} is {text!r:.50}, which is no number") from error
    return found


def _between(limits: dict[str, Any], where: str) -> Range:
    unknown = [key for key in limits if key not in _KEYS]
    if unknown or not {"low", "high"} <= limits.keys():
        problem = f"{unknown[0]!r} is no key of a range" if unknown else "a range needs low and high"
        raise ValueError(f"{where}: {problem}; {_FORMS}")
    for key in ("low", "high", "step"):
        value = limits.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{where}: {key} is {value!r:.50}; give a number")
    found = Range(**limits)
    assert found.low is not None
    assert found.high is not None
    if found.low >= found.high:
        raise ValueError(f"{where}: low {found.low:g} is not below high {found.high:g}")
    if found.log and (found.low <= 0 or found.step is not None):
        raise ValueError(f"{where}: log needs a low above 0, and takes no step")
    if found.step is not None and not 0 < found.step <= found.high - found.low:
        raise ValueError(f"{where}: step {found.step:g} must be above 0 and fit between low and high")
    return found


def _among(choices: list[Value], where: str) -> Range:
    if not choices or len({repr(value) for value in choices}) < len(choices):
        raise ValueError(f"{where}: give different values, such as [8, 16, 32]")
    if not all(value is None or isinstance(value, (bool, int, float, str)) for value in choices):
        raise ValueError(f"{where}: give numbers, strings, true, false or null")
    return Range(choices=tuple(choices))
