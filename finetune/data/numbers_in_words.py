"""A small language game, to try models of text to text on: numbers, times and dates in figures, said in words.

    on 14 March, 340 screws, at 16:45
    at sixteen forty-five, three hundred and forty screws, on the fourteenth of March

What is named last is said first, so that a model must remember the whole line, or look back at it.
"""

import random

_ONES, _TENS, _MONTHS, _GOODS = map(
    str.split,
    (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen",
        "ten twenty thirty forty fifty sixty seventy eighty ninety",
        "January February March April May June July August September October November December",
        "apples bolts books boxes candles chairs coins cups eggs hammers lamps nails pears ropes screws spoons",
    ),
)
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
_ORDINALS |= {"twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth"}
_MOST_PARTS = 4  # of a line


def number_game(size: int, seed: int = 0) -> list[tuple[str, str]]:
    """`size` different pairs of a line in figures and the same in words."""
    draw = random.Random(seed)
    pairs: dict[str, str] = {}
    while len(pairs) < size:
        parts = [_part(draw) for _ in range(draw.randint(1, _MOST_PARTS))]
        pairs[", ".join(figures for figures, _ in parts)] = ", ".join(words for _, words in reversed(parts))
    return list(pairs.items())


def _part(draw: random.Random) -> tuple[str, str]:
    kind = draw.random()
    if kind < 0.5:
        number, what = draw.randint(2, 999), draw.choice(_GOODS)
        return f"{number} {what}", f"{in_words(number)} {what}"
    if kind < 0.75:
        hour, minute = draw.randint(1, 23), draw.randint(10, 59)
        return f"at {hour}:{minute}", f"at {in_words(hour)} {in_words(minute)}"
    day, month = draw.randint(1, 28), draw.choice(_MONTHS)
    return f"on {day} {month}", f"on the {ordinal(day)} of {month}"


def in_words(number: int) -> str:
    """A number from 0 to 999 in English words."""
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{_ONES[number // 100]} hundred{rest}"
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10 - 1] + (f"-{_ONES[number % 10]}" if number % 10 else "")


def ordinal(number: int) -> str:
    """`first`, `second` ... for a number from 1 to 99."""
    before, hyphen, last = in_words(number).rpartition("-")
    return before + hyphen + _ORDINALS.get(last, f"{last}th")
