"""The allowed range of every numeric setting: declared once, at its field, and checked whenever settings are loaded."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from mindvis.common.errors import InputError

KEY = "range"  # in the metadata of a field
LARGE = 10**9


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, and `words`; `open_low` and `open_high` leave out the ends."""

    least: float
    most: float
    open_low: bool = False
    open_high: bool = False
    words: tuple[str, ...] = ()

    def __contains__(self, value: float | str) -> bool:
        if isinstance(value, str):
            return value in self.words
        above = value > self.least if self.open_low else value >= self.least
        return above and (value < self.most if self.open_high else value <= self.most)  # never true of NaN

    def __str__(self) -> str:
        low, high = "more than" if self.open_low else "at least", "less than" if self.open_high else "at most"
        return ", or ".join([f"{low} {self.least} and {high} {self.most}", *self.words])


def number(
    default: Any,
    least: float | None = None,
    most: float = LARGE,
    *,
    above: float | None = None,
    below: float | None = None,
    words: tuple[str, ...] = (),
) -> Any:
    """A field for a number, or for a list or dict of numbers, from `least` (or above `above`) to `most` (or below).

    None is allowed where the type of the field allows it; `words` in the place of a number where that is `float | str`.
    """
    low = above if least is None else least
    if low is None:
        raise TypeError("a number needs least or above")
    allowed = Range(
        low, most if below is None else below, open_low=least is None, open_high=below is not None, words=words
    )
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata={KEY: allowed})
    return field(default=default, metadata={KEY: allowed})


def seed_field(default: int | list[int] | None) -> Any:
    """A field for a seed: what torch and numpy both take."""
    return number(default, 0, 2**63 - 1)


def check_numbers(settings: Any, source: str = "") -> None:
    """Raise `InputError` naming the first setting whose value is outside its range, NaN included."""
    for name, value, allowed in _numbers(settings):
        if value not in allowed:
            raise InputError(f"{source}setting {name} is {value}; needed: {allowed}")


def _numbers(settings: Any, prefix: str = "") -> Iterator[tuple[str, float | str, Range]]:
    """Dotted name, value and range of every number in nested settings."""
    for item in fields(settings):
        name, value = prefix + item.name, getattr(settings, item.name)
        if is_dataclass(value):
            yield from _numbers(value, name + ".")
        elif KEY in item.metadata:
            yield from ((part, one, item.metadata[KEY]) for part, one in _parts(name, value))


def _parts(name: str, value: Any) -> list[tuple[str, float | str]]:
    if isinstance(value, dict):
        return [(f"{name}.{key}", one) for key, one in value.items()]
    if isinstance(value, list):
        return [(f"{name}[{index}]", one) for index, one in enumerate(value)]
    return [] if value is None else [(name, value)]
