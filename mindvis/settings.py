"""Loading of settings: dataclass defaults <- YAML file <- command line, each key and type checked."""

import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mindvis.errors import InputError

Settings = TypeVar("Settings")


def load_config(schema: type[Settings], yaml: str | Path | None, dotlist: Sequence[str] = ()) -> Settings:
    """Settings as an instance of `schema`: its defaults <- the YAML file <- `key=value` items.

    Raises `InputError` naming the file, the key and the nearest known key, or the value and the type that is needed.
    """
    config = OmegaConf.structured(schema)
    if yaml is not None:
        config = _merge(schema, config, read_yaml(Path(yaml)), str(yaml))
    for item in dotlist:
        if "=" not in item:
            raise InputError(f"command line: {item!r} is no setting; needed: key=value")
        config = _merge(schema, config, _parse_item(item), "command line")
    _refuse_missing(config)
    return OmegaConf.to_object(config)


def plain(settings: Any) -> dict:
    """Settings as nested plain dicts and lists, ready for YAML or a checkpoint."""
    return OmegaConf.to_container(OmegaConf.structured(settings), resolve=True)


def from_plain(schema: type[Settings], content: dict, source: str = "saved settings") -> Settings:
    """Settings from nested dicts, those that `plain` made of them for instance; what is not in them is the default.

    Raises `InputError` beginning with `source`, the place they come from, for settings of another schema.
    """
    merged = _merge(schema, OmegaConf.structured(schema), OmegaConf.create(content), source)
    _refuse_missing(merged, f"{source}: ")
    return OmegaConf.to_object(merged)


def flatten(settings: dict, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys."""
    flat = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, name + ".") if isinstance(value, dict) else {name: value}
    return flat


def read_yaml(path: Path) -> DictConfig:
    """Settings of a YAML file as they stand there. Raises `InputError` where there are none."""
    if not path.is_file():
        raise InputError(f"{path}: no such config file; needed: a YAML file such as those in configs/")
    try:
        loaded = OmegaConf.load(path)
    except Exception as error:  # yaml and OmegaConf raise unrelated classes for a malformed file
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, DictConfig):
        raise InputError(f"{path}: holds a {type(loaded).__name__}; needed: settings as key: value")
    return loaded


def _parse_item(item: str) -> DictConfig:
    try:
        return OmegaConf.from_dotlist([item])
    except Exception as error:
        raise InputError(f"command line: {item!r} cannot be read: {' '.join(str(error).split())}") from error


def _merge(schema: type, config: DictConfig, other: DictConfig, source: str) -> DictConfig:
    _check_keys(schema, OmegaConf.to_container(other), source)
    try:
        return OmegaConf.merge(config, other)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        raise InputError(f"{source}: setting {key}: {str(error).splitlines()[0]}") from error


def _check_keys(schema: type, given: Any, source: str, prefix: str = "") -> None:
    if not isinstance(given, dict):
        raise InputError(f"{source}: setting {prefix.rstrip('.')} is {given!r}; needed: nested settings")
    types = {item.name: dataclass_of(get_type_hints(schema)[item.name]) for item in fields(schema)}
    for key, value in given.items():
        if key not in types:
            nearest = difflib.get_close_matches(str(key), list(types), n=1, cutoff=0.0)[0]
            raise InputError(f"{source}: unknown setting {prefix}{key}; nearest: {prefix}{nearest}")
        if types[key] is not None and value is not None:
            _check_keys(types[key], value, source, f"{prefix}{key}.")


def dataclass_of(hint: Any) -> type | None:
    """The dataclass behind `X` or `X | None`, or None for a plain type."""
    options = [hint, *getattr(hint, "__args__", ())]
    return next((option for option in options if is_dataclass(option)), None)


def _refuse_missing(config: DictConfig, prefix: str = "") -> None:
    for key in sorted(OmegaConf.missing_keys(config)):
        raise InputError(
            f"{prefix}setting {key} is not given; needed: {key}=... on the command line or in the YAML file"
        )
