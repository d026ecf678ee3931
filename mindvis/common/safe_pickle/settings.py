"""Settings out of a pickle as dicts, lists and scalars."""

import pickle

import numpy as np

from mindvis.common.safe_pickle.rules import Unknown
from mindvis.common.safe_pickle.unpickler import Admitted, Bag

MAX_NESTING = 32  # of settings; theirs are two or three deep
MAX_ENTRIES = 100_000  # lists of the same lists, 32 deep, would unfold to thousands of millions


def plain(value: object) -> object:
    """Settings as dicts, lists and scalars: bags become dicts, OmegaConf nodes what they hold, classes their names.

    Back references (an OmegaConf node knows its parent) end as None at MAX_NESTING. Raises UnpicklingError where
    they unfold to more than MAX_ENTRIES.
    """
    return _Plain().convert(value, 0)


class _Plain:
    """One conversion, with the number of entries met so far."""

    def __init__(self) -> None:
        self.num_entries = 0

    def convert(self, value: object, depth: int) -> object:
        self.num_entries += 1
        if self.num_entries > MAX_ENTRIES:
            raise pickle.UnpicklingError(f"settings of more than {MAX_ENTRIES} entries")
        if depth > MAX_NESTING:
            return None
        if isinstance(value, Bag):
            return self.convert(_content(value), depth + 1)
        if isinstance(value, dict):
            return {_key(key): self.convert(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.convert(entry, depth + 1) for entry in value]
        return _scalar(value)


def _scalar(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value.name if isinstance(value, Unknown | Admitted) else value


def _key(key: object) -> object:
    return key.name if isinstance(key, Unknown) else key


def _content(bag: Bag) -> object:
    if bag.class_name.startswith("omegaconf."):
        return next((bag.attributes[name] for name in ("_content", "_val") if name in bag.attributes), None)
    return bag.elements if bag.elements and not bag.items else {**bag.attributes, **bag.items}
