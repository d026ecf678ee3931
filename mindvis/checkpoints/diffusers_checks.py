"""Checks of the settings in a diffusers folder: a refusal names the file, the setting, its value and what would do."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mindvis.common.errors import InputError, hint
from mindvis.dc_ldm.unet import per_level

Config = Mapping[str, Any]

MOST_CHANNELS = 2**24
MOST_LAYERS = 100  # of a level
MOST_SIDE = 2**14  # of a picture or latent


def refused(where: str, name: str, found: Any, needed: Any) -> InputError:
    """For a setting that our networks do not have; `needed` is the nearest value that they have."""
    return InputError(f"{where}: {name} is {shown(found)}, which is not supported; nearest: {needed!r}")


def wrong(where: str, name: str, found: Any, needed: str) -> InputError:
    """For a setting that nothing could have."""
    return InputError(f"{where}: {name} is {shown(found)}; needed: {needed}")


def check_fixed(given: Config, fixed: Config, where: str, defaults: Config | None = None) -> None:
    """Settings that have one value here; `defaults` are the library's own, where they are others."""
    for name, needed in fixed.items():
        found = given.get(name, (defaults or {}).get(name, needed))
        if found != needed:
            raise refused(where, name, found, needed)


def one_of(found: Any, name: str, known: Iterable[str], where: str) -> str:
    """A name that is among the known ones."""
    if not isinstance(found, str) or found not in known:
        raise InputError(f"{where}: {name} is {shown(found)}; {hint(str(found), known)}")
    return found


def names(found: Any, name: str, known: Iterable[str], where: str) -> list[str]:
    """A list of such names, which is not empty."""
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise wrong(where, name, found, f"a list of {' or '.join(known)}")
    for each in found:
        if not isinstance(each, str) or each not in known:
            raise InputError(f"{where}: {name} has {shown(each)}; {hint(str(each), known)}")
    return list(found)


def flag(found: Any, name: str, where: str) -> bool:
    """True or false."""
    if not isinstance(found, bool):
        raise wrong(where, name, found, "true or false")
    return found


def is_size(value: Any, most: int = MOST_CHANNELS) -> bool:
    """Whether a value is a whole number from 1 to `most`."""
    return type(value) is int and 0 < value <= most


def size(found: Any, name: str, where: str, most: int = MOST_CHANNELS) -> int:
    """Such a number."""
    if not is_size(found, most):
        raise wrong(where, name, found, f"a positive number, at most {most}")
    return found


def sizes(found: Any, name: str, count: int, where: str, most: int = MOST_CHANNELS) -> list[int]:
    """A setting that is one such number, or one for each of the `count` levels."""
    values = per_level(found, count)
    if len(values) != count or not all(is_size(each, most) for each in values):
        needed = f"a positive number, or one for each of the {count} blocks, at most {most}"
        raise wrong(where, name, found, needed)
    return values


def side(found: Any, where: str) -> int | None:
    """`sample_size`, which may be a list of two equal sides, or null."""
    value = found[0] if isinstance(found, list | tuple) and found and found == [found[0]] * len(found) else found
    if value is not None and not is_size(value, MOST_SIDE):
        raise wrong(where, "sample_size", found, f"one positive number, the side of a square, at most {MOST_SIDE}")
    return value


def check_multiples(widths: list[int], divisors: list[int], meaning: str, where: str) -> None:
    """Each width must be a multiple of its divisor, which has a meaning (groups, heads)."""
    for width, divisor in zip(widths, divisors, strict=True):
        if width % divisor:
            needed = f"multiples of {divisor}, {meaning}"
            raise wrong(where, "block_out_channels", widths, f"{needed}; found {width} channels")


def shown(value: Any) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
