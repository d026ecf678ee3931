"""Loading of settings: dataclass defaults <- YAML file <- command line, each key and type checked.

YAML 1.1 would read `010` as 8, `NO` as false and `12:30` as 750: every value but null stays text until a schema says
what it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mindvis.common import errors
from mindvis.common.errors import InputError, one_line
from mindvis.config.conform import Conform, check_values, dataclass_of

Settings = TypeVar("Settings")
CONFIG_FILE = {"config_file": True}  # metadata of a field that names another file of settings
Beneath = Callable[[dict], dict]
NULL = ("", "~", "null", "Null", "NULL")
PACKAGE = Path(__file__).resolve().parents[1]  # has configs/, in a checkout by a link


def load_config(
    schema: type[Settings], yaml: str | Path | None, dotlist: Sequence[str] = (), beneath: Beneath | None = None
) -> Settings:
    """Settings as an instance of `schema`: its defaults <- the YAML file <- `key=value` items.

    `beneath` gives settings that lie between the defaults and those, from what these are. Raises
    `InputError` naming the file, the key and the nearest known ones, or the value and what is needed.
    """
    layers: list[tuple[dict, str]] = []
    if yaml is not None:
        path = find_config(yaml)
        given = read_yaml(path, as_text=True)
        _place_named_files(schema, given, path)
        layers.append((given, str(yaml)))
    layers += [(_parse_item(item), "command line") for item in dotlist]
    config = _stacked(schema, layers)
    if beneath is None:
        return _finish(config)
    merged = OmegaConf.merge(*(OmegaConf.create(layer) for layer, _ in layers), {})  # without any default
    below = beneath(cast(dict, OmegaConf.to_container(merged)))
    return _finish(_stacked(schema, [(below, "settings of the run"), *layers]))


def _stacked(schema: type, layers: Sequence[tuple[dict, str]]) -> DictConfig:
    """The defaults of a schema with settings laid over them; each comes with the place it is from."""
    config = OmegaConf.structured(schema)
    for given, source in layers:
        config = _merge(schema, config, given, source)
    return config


def from_plain(schema: type[Settings], content: dict, source: str = "saved settings") -> Settings:
    """Settings from nested dicts, those that `plain` made of them for instance; what is not in them is the default.

    Raises `InputError` beginning with `source`, the place they come from, for settings of another schema.
    """
    return _finish(_merge(schema, OmegaConf.structured(schema), content, source), f"{source}: ")


def plain(settings: Any) -> dict:
    """Settings as nested plain dicts and lists, ready for YAML or a checkpoint."""
    return cast(dict, OmegaConf.to_container(OmegaConf.structured(settings), resolve=True))


def part(schema: type[Settings], settings: Any) -> Settings:
    """The settings that `schema` declares, out of those of a class derived from it."""
    names = [item.name for item in fields(cast(Any, schema))]
    return schema(**{name: getattr(settings, name) for name in names})


def flatten(settings: dict, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, name + ".") if isinstance(value, dict) else {name: value}
    return flat


def find_config(name: str | Path, beside: str | Path | None = None) -> Path:
    """A settings file that another one names: beside that one, else from here, else in the package.

    `beside` is the file that names it. Where it is nowhere, the path as it was given is returned.
    """
    path = Path(name).expanduser()
    folders = [Path(), PACKAGE]
    if beside is not None:  # its folder, and the one above: `configs/god.yaml` names `configs/pretrain_hcp.yaml`
        folders = [Path(beside).parent, Path(beside).parent.parent, *folders]
    return next((folder / path for folder in folders if (folder / path).is_file()), path)


def _place_named_files(schema: type, given: dict, file: Path) -> None:
    """Replace the names of other settings files in `given` by the paths where they are found; `file` holds them."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        value, nested = given.get(item.name), dataclass_of(hints[item.name])
        if nested is not None and isinstance(value, dict):
            _place_named_files(nested, value, file)
        elif isinstance(value, str) and item.metadata.get("config_file"):
            given[item.name] = str(find_config(value, file))


def _merge(schema: type, config: DictConfig, given: dict, source: str) -> DictConfig:
    try:
        return cast(DictConfig, OmegaConf.merge(config, Conform(schema, source).settings(given)))
    except OmegaConfBaseException as error:
        raise InputError(f"{source}: {_said(error)}") from error


def _finish(config: DictConfig, source: str = "") -> Any:
    """The settings as a dataclass, with every reference followed and every value one it can have."""
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        settings = None if missing else OmegaConf.to_object(config)
    except (OmegaConfBaseException, RecursionError) as error:
        raise InputError(f"{source}{_said(error)}") from error
    if missing:
        needed = f"needed: {missing[0]}=... on the command line or in the YAML file"
        raise InputError(f"{source}setting {missing[0]} is not given; {needed}")
    check_values(settings, source)
    return settings


def _said(error: Exception) -> str:
    key = getattr(error, "full_key", None) or "?"
    reason = str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ")
    return f"setting {key}: {reason}"


class _TextLoader(yaml.SafeLoader):
    """YAML whose values are text, null, lists and pairs."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None and twice != "<<":
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, *, as_text: bool = False) -> dict:
    """Settings of a YAML file. Raises `InputError` where there are none.

    `as_text` leaves every value as the text that stands there, references too, for a schema to give it its type.
    """
    if not path.is_file():
        where = errors.beside(path, "*.y*ml") or "needed: a YAML file such as those in configs/"
        raise InputError(f"{path}: no such config file; {where}")
    try:
        text = yaml.load(path.read_bytes(), _TextLoader) if as_text else None
        loaded = OmegaConf.create({} if text is None else text) if as_text else OmegaConf.load(path)
        content = OmegaConf.to_container(loaded, resolve=not as_text)
    except Exception as error:  # yaml and OmegaConf raise unrelated classes for a malformed file
        raise InputError(f"{path}: not readable as YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; needed: settings as key: value")
    return content


def _parse_item(item: str) -> dict:
    """Nested settings of one `key=value` of the command line. Raises `InputError` where it is none.

    A value in brackets or quotes is YAML; any other is the text itself, whatever YAML would make of it.
    """
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise InputError(f"command line: {item!r} is no setting; needed: key=value")
    content: Any = value.strip()
    if content in NULL:
        content = None
    elif content[0] in "[{\"'":
        try:
            content = yaml.load(content, _TextLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"command line: {item!r} cannot be read: {one_line(error)}") from error
    for name in reversed(key.strip().split(".")):
        content = {name: content}
    return content
