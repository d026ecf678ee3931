"""Settings held against their schema: every key is known, every value of the kind and in the range of its field.

The range of a number is declared once, at its field: `number(default, least, most)`; so are the words that a text may
be: `choice(*words)`. Of settings that do not go together a schema says so in its method `conflict(prefix)`.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from mindvis.common.errors import KINDRED, InputError, nearest

KEY, WORDS = "range", "words"  # in the metadata of a field
LARGE = 10**9
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?\.?(inf|nan)", re.IGNORECASE)
_TRUTH = re.compile("true|false|yes|no|on|off|y|n|1|0", re.IGNORECASE)
_FORMS = {int: _WHOLE, float: _DECIMAL, bool: _TRUTH}
_NEEDED = {int: "a whole number in plain decimal", float: "a number", str: "text", bool: "true or false"}
_NEEDED |= {list: "a list, such as [a, b]", dict: "pairs of name: value"}


@dataclass(frozen=True)
class Conform:
    """The settings given in one place (`source`) against the schema of all settings.

    Text of a number has to be one in plain decimal; a text that begins with `~` has the home folder in its place.
    References (`${...}`) are left as they are.
    """

    schema: type
    source: str

    def settings(self, given: Any) -> dict:
        """The settings, ready to be merged. Raises `InputError` naming the first one that does not fit, and why."""
        return self._group(self.schema, given, "")

    def _group(self, part: type, given: Any, prefix: str) -> dict:
        if not isinstance(given, dict):
            raise self._unfit(prefix.rstrip("."), given, "nested settings")
        hints = get_type_hints(part)
        for key in given:
            if "." in str(key):
                group, _, name = str(key).partition(".")
                needed = f"needed in a file: nested, {group}: {{{name}: ...}}"
                raise InputError(f"{self.source}: setting {prefix}{key} is written with a dot; {needed}")
            if key not in hints:
                known = known_keys(self.schema, part, prefix, str(key))
                raise InputError(f"{self.source}: unknown setting {prefix}{key}; {known}")
        return {key: self._value(hints[key], value, prefix + key) for key, value in given.items()}

    def _value(self, hint: Any, value: Any, name: str) -> Any:
        kind, entry = kind_of(hint)
        if kind is Any or (isinstance(value, str) and ("${" in value or value == "???")):
            return value
        if value is None and type(None) in get_args(hint):
            return value
        if isinstance(kind, type) and is_dataclass(kind) and value is not None:
            return self._group(kind, value, name + ".")
        if kind is list and isinstance(value, list):
            return [self._value(entry, one, f"{name}[{index}]") for index, one in enumerate(value)]
        if kind is dict and isinstance(value, dict):
            return {key: self._value(entry, one, f"{name}.{key}") for key, one in value.items()}
        return self._scalar(hint, value, name)

    def _scalar(self, hint: Any, value: Any, name: str) -> Any:
        kind, _ = kind_of(hint)
        if kind is list and value is not None:
            raise self._unfit(name, value, f"a list, such as [{value}]")
        if value is None or kind is dict or isinstance(value, dict | list):
            raise self._unfit(name, value, _NEEDED.get(kind, "nested settings"))
        if kind is float and str in get_args(hint):  # a number, or a word that its range knows
            return float(value) if not isinstance(value, str) or _DECIMAL.fullmatch(value) else value
        return self._text(kind, value, name) if isinstance(value, str) else value

    def _text(self, kind: type, text: str, name: str) -> str:
        if kind in _FORMS and not _FORMS[kind].fullmatch(text):
            raise self._unfit(name, text, _NEEDED[kind])
        if kind is str and not text.strip():
            raise self._unfit(name, text, "a text that is not empty")
        if kind is not str or not text.startswith("~"):
            return text
        try:
            return str(Path(text).expanduser())
        except RuntimeError as error:
            raise self._unfit(name, text, "a path without ~, or HOME: no such home folder is known") from error

    def _unfit(self, name: str, value: Any, needed: str) -> InputError:
        return InputError(f"{self.source}: setting {name} is {value!r}; needed: {needed}")


def kind_of(hint: Any) -> tuple[Any, Any]:
    """The type behind `X` or `X | None`, and for a list or dict the type of its entries."""
    if get_origin(hint) in (list, dict):
        return get_origin(hint), get_args(hint)[-1]
    options = [option for option in get_args(hint) if option is not type(None)]
    return kind_of(options[0]) if options else (hint, Any)


def dataclass_of(hint: Any) -> type | None:
    """The dataclass behind `X` or `X | None`, or None for a plain type."""
    kind, _ = kind_of(hint)
    return kind if isinstance(kind, type) and is_dataclass(kind) else None


def own_first(schema: type) -> list[Field]:
    """Fields of a dataclass: those it declares itself, then those of the classes it is derived from."""
    items = {item.name: item for item in fields(schema)}
    own = [items.pop(name) for name in schema.__annotations__]
    return [*own, *items.values()]


def known_keys(schema: type, part: type, prefix: str, key: str) -> str:
    """The setting that was meant: in this group, else in any, else all that the group has."""
    group = {item.name: f"{prefix}{item.name}" for item in own_first(part)}
    groups = {name for name, hint in get_type_hints(part).items() if dataclass_of(hint)}
    near = nearest(key, [name for name in group if name not in groups])
    near = near or nearest(key, _dotted(schema), count=3, cutoff=KINDRED) or nearest(key, group)
    if near:
        return f"nearest: {', '.join(group.get(name, name) for name in near)}"
    where = f" in {prefix.rstrip('.')}" if prefix else ""
    return f"known{where}: {', '.join(name + '.*' * (name in groups) for name in group)}"


def _dotted(schema: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings that are no groups."""
    for name, hint in get_type_hints(schema).items():
        nested = dataclass_of(hint)
        yield from _dotted(nested, f"{prefix}{name}.") if nested else [prefix + name]


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, and `words`; `open_low` and `open_high` leave out the ends."""

    least: float
    most: float
    open_low: bool = False
    open_high: bool = False
    words: tuple[str, ...] = ()
    length: int | None = None  # of a list; None: one number at least

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
    length: int | None = None,
) -> Any:
    """A field for a number, or for a list or dict of numbers, from `least` (or above `above`) to `most` (or below).

    None is allowed where the type of the field allows it; a list has `length` numbers, or one at least; `words` in the
    place of a number where that is `float | str`.
    """
    low = above if least is None else least
    if low is None:
        raise TypeError("a number needs least or above")
    high = most if below is None else below
    allowed = Range(low, high, open_low=least is None, open_high=below is not None, words=words, length=length)
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata={KEY: allowed})
    return field(default=default, metadata={KEY: allowed})


def seed_field(default: int | list[int] | None) -> Any:
    """A field for a seed: what torch and numpy both take."""
    return number(default, 0, 2**63 - 1)


_FIRST = object()


def choice(*words: str, default: Any = _FIRST) -> Any:
    """A field for one of these words, by default the first; for a list of them where `default` is a list.

    None is allowed where the type of the field allows it.
    """
    if isinstance(default, list):
        return field(default_factory=lambda: copy.copy(default), metadata={WORDS: words})
    return field(default=words[0] if default is _FIRST else default, metadata={WORDS: words})


def words_of(schema: type, name: str) -> tuple[str, ...]:
    """The words that a field made by `choice` may be."""
    return next(item.metadata[WORDS] for item in fields(schema) if item.name == name)


def check_values(settings: Any, source: str = "", prefix: str = "") -> None:
    """Raise `InputError` naming the first setting of nested ones whose value it cannot have.

    That is one outside its range, NaN included, a word that is none of its words, and settings that are in conflict.
    """
    for item in fields(settings):
        name, value = prefix + item.name, getattr(settings, item.name)
        if is_dataclass(value):
            check_values(value, source, name + ".")
        elif KEY in item.metadata:
            _check_range(name, value, item.metadata[KEY], source)
        elif WORDS in item.metadata:
            _check_words(name, value, item.metadata[WORDS], source)
    conflict = settings.conflict(prefix) if hasattr(settings, "conflict") else None
    if conflict:
        raise InputError(source + conflict)


def _check_range(name: str, value: Any, allowed: Range, source: str) -> None:
    if isinstance(value, list) and len(value) != (allowed.length or max(len(value), 1)):
        needed = "one number at least" if allowed.length is None else f"{allowed.length} numbers"
        raise InputError(f"{source}setting {name} is {value}; needed: {needed}")
    for part, one in _parts(name, value):
        if one not in allowed:
            raise InputError(f"{source}setting {part} is {one}; needed: {allowed}")


def _check_words(name: str, value: Any, words: Sequence[str], source: str) -> None:
    given = value if isinstance(value, list) else []
    for word in given:
        if given.count(word) > 1:
            raise InputError(f"{source}setting {name} names {word!r} twice; needed: each once")
        if word not in words:
            raise InputError(f"{source}setting {name} names {word!r}; needed: some of {', '.join(words)}")
    if isinstance(value, str) and value not in words:
        raise InputError(f"{source}setting {name} is {value!r}; needed: one of {', '.join(words)}")


def _parts(name: str, value: Any) -> list[tuple[str, float | str]]:
    if isinstance(value, dict):
        return [(f"{name}.{key}", one) for key, one in value.items()]
    if isinstance(value, list):
        return [(f"{name}[{index}]", one) for index, one in enumerate(value)]
    return [] if value is None else [(name, value)]
