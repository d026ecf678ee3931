"""Loading of settings: dataclass defaults <- YAML file <- command line, each key and type checked."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mindvis.common.errors import KINDRED, InputError, beside, nearest

Settings = TypeVar("Settings")
LEAST = {"seed": 0, "batch_size": 1, "num_samples": 1, "num_masks": 1}  # wherever a setting of this name is


def load_config(schema: type[Settings], yaml: str | Path | None, dotlist: Sequence[str] = ()) -> Settings:
    """Settings as an instance of `schema`: its defaults <- the YAML file <- `key=value` items.

    Raises `InputError` naming the file, the key and the nearest known ones, or the value and the type that is needed.
    """
    config = OmegaConf.structured(schema)
    if yaml is not None:
        config = _merge(schema, config, read_yaml(Path(yaml)), str(yaml))
    for item in dotlist:
        if "=" not in item:
            raise InputError(f"command line: {item!r} is no setting; needed: key=value")
        config = _merge(schema, config, _parse_item(item), "command line")
    _refuse_missing(config)
    _check_numbers(plain(config))
    return cast(Settings, OmegaConf.to_object(config))


def plain(settings: Any) -> dict:
    """Settings as nested plain dicts and lists, ready for YAML or a checkpoint."""
    return cast(dict, OmegaConf.to_container(OmegaConf.structured(settings), resolve=True))


def from_plain(schema: type[Settings], content: dict, source: str = "saved settings") -> Settings:
    """Settings from nested dicts, those that `plain` made of them for instance; what is not in them is the default.

    Raises `InputError` beginning with `source`, the place they come from, for settings of another schema.
    """
    merged = _merge(schema, OmegaConf.structured(schema), OmegaConf.create(content), source)
    _refuse_missing(merged, f"{source}: ")
    return cast(Settings, OmegaConf.to_object(merged))


def flatten(settings: dict, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, name + ".") if isinstance(value, dict) else {name: value}
    return flat


def read_yaml(path: Path) -> DictConfig:
    """Settings of a YAML file as they stand there. Raises `InputError` where there are none."""
    if not path.is_file():
        where = beside(path, "*.y*ml") or "needed: a YAML file such as those in configs/"
        raise InputError(f"{path}: no such config file; {where}")
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
        return cast(DictConfig, OmegaConf.merge(config, other))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        raise InputError(f"{source}: setting {key}: {str(error).splitlines()[0]}") from error


def _check_keys(schema: type, given: Any, source: str) -> None:
    """Every key is one of the schema, and under it stands a list, pairs or nested settings where the schema does."""
    for prefix, part, content in _parts(schema, given):
        if not isinstance(content, dict):
            raise InputError(f"{source}: setting {prefix.rstrip('.')} is {content!r}; needed: nested settings")
        hints = get_type_hints(part)
        for key, value in content.items():
            if key not in hints:
                raise InputError(
                    f"{source}: unknown setting {prefix}{key}; {_known_keys(schema, part, prefix, str(key))}"
                )
            _check_shape(hints[key], value, f"{source}: setting {prefix}{key}")


def _parts(schema: type, given: Any, prefix: str = "") -> Iterator[tuple[str, type, Any]]:
    """The prefix, the dataclass and the content of the settings given, and of those nested in them."""
    yield prefix, schema, given
    for key, hint_of_key in get_type_hints(schema).items():
        nested = dataclass_of(hint_of_key)
        if nested is not None and given.get(key) is not None:
            yield from _parts(nested, given[key], f"{prefix}{key}.")


def _check_shape(hint_of_key: Any, value: Any, where: str) -> None:
    kinds = {get_origin(option) or option for option in (hint_of_key, *get_args(hint_of_key))}
    if isinstance(value, dict | list | None) or str(value).startswith("${"):  # an interpolation has no kind yet
        return
    if list in kinds:
        raise InputError(f"{where} is {value!r}; needed: a list, such as [{value}]")
    if dict in kinds:
        raise InputError(f"{where} is {value!r}; needed: pairs of name: value")


def _known_keys(schema: type, part: type, prefix: str, key: str) -> str:
    """The setting that was meant: in this group, else in any, else all that the group has."""
    group = {item.name: f"{prefix}{item.name}" for item in fields(part)}
    near = nearest(key, group) or nearest(key, _dotted(schema), count=3, cutoff=KINDRED)
    if near:
        return f"nearest: {', '.join(group.get(name, name) for name in near)}"
    groups = {name for name, hint_of_key in get_type_hints(part).items() if dataclass_of(hint_of_key)}
    where = f" in {prefix.rstrip('.')}" if prefix else ""
    return f"known{where}: {', '.join(name + '.*' * (name in groups) for name in group)}"


def _dotted(schema: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings that are no groups."""
    for name, hint_of_key in get_type_hints(schema).items():
        nested = dataclass_of(hint_of_key)
        yield from _dotted(nested, f"{prefix}{name}.") if nested else [prefix + name]


def _check_numbers(content: dict) -> None:
    for key, value in flatten(content).items():
        least = LEAST.get(key.rpartition(".")[2])
        if least is not None and isinstance(value, int) and value < least:
            raise InputError(f"setting {key} is {value}; needed: at least {least}")


def dataclass_of(hint: Any) -> type | None:
    """The dataclass behind `X` or `X | None`, or None for a plain type."""
    options = [hint, *getattr(hint, "__args__", ())]
    return next((option for option in options if isinstance(option, type) and is_dataclass(option)), None)


def _refuse_missing(config: DictConfig, prefix: str = "") -> None:
    for key in sorted(OmegaConf.missing_keys(config)):
        raise InputError(
            f"{prefix}setting {key} is not given; needed: {key}=... on the command line or in the YAML file"
        )
