"""Settings as they were written in YAML or on the command line: text, until a schema says what it is.

YAML 1.1 would read `010` as 8, `NO` as false and `12:30` as 750; here every value but null stays text.
"""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from mindvis.common.errors import InputError, beside

NULL = ("", "~", "null", "Null", "NULL")


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
        where = beside(path, "*.y*ml") or "needed: a YAML file such as those in configs/"
        raise InputError(f"{path}: no such config file; {where}")
    try:
        loaded = OmegaConf.create(yaml.load(path.read_bytes(), _TextLoader)) if as_text else OmegaConf.load(path)
        content = OmegaConf.to_container(loaded, resolve=not as_text)
    except Exception as error:  # yaml and OmegaConf raise unrelated classes for a malformed file
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; needed: settings as key: value")
    return content


def parse_item(item: str) -> dict:
    """Nested settings of one `key=value` of the command line. Raises `InputError` where it is none.

    A value in brackets or quotes is YAML; any other is the text itself, whatever YAML would make of it.
    """
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise InputError(f"command line: {item!r} is no setting; needed: key=value")
    content = _parse_value(item, value.strip())
    for name in reversed(key.strip().split(".")):
        content = {name: content}
    return content


def _parse_value(item: str, value: str) -> Any:
    if value in NULL:
        return None
    if value[0] not in "[{\"'":
        return value
    try:
        return yaml.load(value, _TextLoader)
    except yaml.YAMLError as error:
        raise InputError(f"command line: {item!r} cannot be read: {' '.join(str(error).split())}") from error
