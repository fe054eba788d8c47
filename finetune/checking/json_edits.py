"""Changes values in a text of JSON, and leaves every other character as it is.

The package `json` would write the whole text again, in its own form: spaces, line breaks, escapes, decimals.
"""

import difflib
import json
import operator
import re
from dataclasses import dataclass, field
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


@dataclass
class _Place:
    """Where a value stands: `text[begin:end]`; and where its items or members stand."""

    begin: int
    end: int
    items: list["_Place"] = field(default_factory=list)
    members: dict[str, "_Place"] = field(default_factory=dict)


def with_value(text: str, new: Any) -> str:
    """The text of a JSON value, changed as little as possible, so that it has another value.

    Args:
        text: valid JSON; no object has a name twice.
    """
    at = _SPACE.match(text)
    assert at is not None
    place = _place(text, at.end())
    return text[: place.begin] + _edited(text, place, json.loads(text), new) + text[place.end :]


def _place(text: str, begin: int) -> _Place:
    if text[begin] not in "{[":
        return _Place(begin, _DECODER.raw_decode(text, begin)[1])
    found = _Place(begin, begin)
    at = _after_space(text, begin + 1)
    while text[at] not in "}]":
        if text[at] == ",":
            at = _after_space(text, at + 1)
        if text[begin] == "{":
            name, at = _DECODER.raw_decode(text, at)
            at = _after_space(text, _after_space(text, at) + 1)  # the colon
            inner = found.members[name] = _place(text, at)
        else:
            inner = _place(text, at)
            found.items.append(inner)
        at = _after_space(text, inner.end)
    found.end = at + 1
    return found


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _same(old: Any, new: Any) -> bool:
    return type(old) is type(new) and json.dumps(old) == json.dumps(new)


def _edited(text: str, place: _Place, old: Any, new: Any) -> str:
    """The text of the value at a place with its new value."""
    if _same(old, new):
        return text[place.begin : place.end]
    if isinstance(old, dict) and isinstance(new, dict) and list(old) == list(new):
        inner = [(place.members[name], old[name], new[name]) for name in old]
        return _in_place(text, place, inner)
    if isinstance(old, list) and isinstance(new, list):
        return _edited_list(text, place, old, new)
    return _written(text, new)


def _in_place(text: str, place: _Place, inner: list[tuple[_Place, Any, Any]]) -> str:
    parts, at = [], place.begin
    for own, before, after in inner:
        parts += [text[at : own.begin], _edited(text, own, before, after)]
        at = own.end
    return "".join([*parts, text[at : place.end]])


def _edited_list(text: str, place: _Place, old: list[Any], new: list[Any]) -> str:
    before, after = ([json.dumps(item) for item in items] for items in (old, new))
    steps = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    # An item that becomes equal to its neighbour is changed where it stands, not removed and put beside it.
    changed = sum(max(b - a, d - c) for name, a, b, c, d in steps if name != "equal")
    if len(old) == len(new) and sum(map(operator.ne, before, after)) <= changed:
        return _in_place(text, place, list(zip(place.items, old, new, strict=True)))
    items = []
    for _, a, b, c, d in steps:
        both = min(b - a, d - c)
        items += [_edited(text, place.items[a + i], old[a + i], new[c + i]) for i in range(both)]
        items += [_written(text, item) for item in new[c + both : d]]
    if not old or not new:
        return f"[{_separators(text)[0].join(items)}]"
    opening = text[place.begin : place.items[0].begin]
    closing = text[place.items[-1].end : place.end]
    between = text[place.items[0].end : place.items[1].begin] if len(old) > 1 else _separators(text)[0]
    if len(old) == 1 and "\n" in opening:
        between = "," + opening[1:]
    return opening + between.join(items) + closing


def _written(text: str, value: Any) -> str:
    """A value in the style of a text."""
    return json.dumps(value, ensure_ascii=text.isascii() and "\\u" in text, separators=_separators(text))


def _separators(text: str) -> tuple[str, str]:
    compact = re.search(r'"\s*:(?=[^\s])', text) and not re.search(r'"\s*:\s', text)
    compact = compact or (":" not in text and re.search(r",(?=\S)", text) and not re.search(r",\s", text))
    return (",", ":") if compact else (", ", ": ")
