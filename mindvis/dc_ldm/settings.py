"""Options of the published YAML files: each is honoured, known to have no effect here, or refused."""

from collections.abc import Collection, Mapping
from typing import Any

from mindvis.common.errors import InputError


def read_options(
    options: Mapping[str, Any],
    where: str,
    *,
    used: Collection[str],
    required: Collection[str] = (),
    fixed: Mapping[str, Any] | None = None,
    without_effect: Collection[str] = (),
) -> dict[str, Any]:
    """The `used` ones among the options of one section of a published config.

    `fixed` are options that can have one value only (None counts as absent); `without_effect` change nothing here.
    Raises InputError for any other option, for another value of a fixed one, and for a missing required one.
    """
    for name, value in options.items():
        _check_option(f"{where}.{name}", name, value, {*used, *without_effect}, fixed or {})
    for name in required:
        if name not in options:
            raise InputError(f"{where}.{name}: missing from the latent diffusion config")
    return {name: options[name] for name in used if name in options}


def section(options: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, Any]:
    """The sub-dictionary `name` of a config. Raises InputError where it is absent or no dictionary."""
    found = options.get(name) if isinstance(options, Mapping) else None
    if not isinstance(found, Mapping):
        raise InputError(f"{where}{name}: section missing from the latent diffusion config")
    return found


def _check_option(path: str, name: str, value: Any, known: Collection[str], fixed: Mapping[str, Any]) -> None:
    if name in known:
        return
    if name not in fixed:
        raise InputError(f"{path}: unknown option of the latent diffusion config (value {value!r})")
    if value is not None and value != fixed[name]:
        raise InputError(f"{path}: found {value!r}, only {fixed[name]!r} is supported")
