"""Stimuli of Generic Object Decoding: pictures -> `images_256.npz`, the two label tables and the class index."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import write_npz, write_text
from mindvis.common.progress import Progress
from mindvis.prepare.files import need_folder, one_line
from mindvis.prepare.god import TEST_LABELS, TRAIN_LABELS, read_labels
from mindvis.prepare.pictures import is_picture, read_square

IMAGE_FILE, INDEX_FILE = "images_256.npz", "imagenet_class_index.json"
NUM_CLASSES = 1000
ClassIndex = dict[str, list[str]]


def prepare_stimuli(stimuli: Path, out: Path, size: int = 256, labels: Path | None = None) -> dict[str, list[str]]:
    """Write the pictures and label tables; returns the stimulus ids of "train" and "test" in the order of the arrays.

    `stimuli` holds the folders `training` and `test`. `labels`: a folder with label tables to take the order from;
    without it the order is that of the ids.
    """
    tables = {"train": ("training", TRAIN_LABELS), "test": ("test", TEST_LABELS)}
    names, arrays = {}, {}
    for kind, (folder, table) in tables.items():
        pictures = find_pictures(stimuli / folder)
        names[kind] = _ordered(pictures, labels / table if labels else None, stimuli / folder)
        paths = [pictures[name] for name in names[kind]]
        arrays[f"{kind}_images"] = np.stack(
            [read_square(path, size) for path in Progress(paths, desc=f"{kind} images")]
        )
    write_npz(out / IMAGE_FILE, arrays)
    for kind, (_, table) in tables.items():
        write_text(out / table, _table(names[kind]))
    return names


def find_pictures(folder: Path) -> dict[str, Path]:
    """Stimulus id -> picture, sorted by id, of a folder of pictures called `n01518878_5958.JPEG`."""
    pictures: dict[str, Path] = {}
    for path in sorted(p for p in need_folder(folder, "the stimulus pictures").rglob("*") if is_picture(p)):
        found = re.fullmatch(r"n(\d{8})_(\d+)", path.stem)
        if not found:
            raise InputError(f"{path}: needs a name n<wnid>_<image>, e.g. n01518878_5958{path.suffix}")
        name = f"{int(found[1])}.{int(found[2]):06d}"
        if name in pictures:
            raise InputError(f"{path}: the same stimulus as {pictures[name]}; needs each once")
        pictures[name] = path
    if not pictures:
        raise InputError(f"{folder}: no pictures in it; needs n01518878_5958.JPEG ...")
    return dict(sorted(pictures.items(), key=lambda item: tuple(map(int, item[0].split(".")))))


def wnid_of(stimulus: str) -> str:
    """ImageNet class of a stimulus id: "1518878.005958" -> "n01518878"."""
    return f"n{int(stimulus.split('.')[0]):08d}"


def prepare_class_index(source: Path, out: Path, wnids: list[str], same_as: Mapping[str, int]) -> int:
    """Write the class index with every one of `wnids` in it; returns how many got a number of their own.

    `source` is the usual index of ImageNet (number -> [wnid, name]). A class that is not one of its 1000 joins the
    entry that `same_as` names for it, or gets the next number from 1000 on, which no classifier of 1000 classes gives.
    """
    index = read_class_index(source)
    known = {wnid for entry in index.values() for wnid in entry[:-1]}
    new = sorted(set(wnids) - known)
    own = [wnid for wnid in new if wnid not in same_as]
    for wnid in sorted(set(new) - set(own)):
        entry = index.get(str(same_as[wnid]))
        if entry is None:
            raise InputError(f"{source}: no class {same_as[wnid]}, which was named for {wnid}")
        entry.insert(-1, wnid)
    first = max(NUM_CLASSES, 1 + max(map(int, index)))
    index |= {str(first + i): [wnid, wnid] for i, wnid in enumerate(own)}
    write_text(out / INDEX_FILE, json.dumps(index) + "\n")
    return len(own)


def read_class_index(path: Path) -> ClassIndex:
    """A class index, number -> [wnid, ..., name]."""
    try:
        index = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; needs the class index of ImageNet (number -> [wnid, name])") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({one_line(error)})") from None
    if not isinstance(index, dict) or not index or not all(_is_entry(*item) for item in index.items()):
        raise InputError(f"{path}: no class index; needs an object of number -> [wnid, name]")
    return index


def read_same_as(path: Path | None) -> dict[str, int]:
    """Lines of `<wnid>,<class number>`: which of the 1000 classes a stimulus class counts as. None: no lines."""
    if path is None:
        return {}
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: unreadable ({one_line(error)})") from None
    pairs = [re.fullmatch(r"\s*(n\d{8})\s*,\s*(\d+)\s*", line) for line in lines]
    if None in pairs:
        raise InputError(f"{path}: line {lines[pairs.index(None)]!r}; needs `<wnid>,<class number>`")
    return {pair[1]: int(pair[2]) for pair in pairs}


def _is_entry(number: str, entry: object) -> bool:
    is_list = isinstance(entry, list) and len(entry) >= 2
    return number.isdigit() and is_list and all(isinstance(word, str) for word in entry)


def _ordered(pictures: Mapping[str, Path], table: Path | None, folder: Path) -> list[str]:
    if table is None:
        return list(pictures)
    names = read_labels(table)
    missing = [name for name in names if name not in pictures]
    if missing or len(names) != len(pictures):
        example = f", {missing[0]} is missing" if missing else ""
        raise InputError(f"{folder}: {len(pictures)} pictures{example}; needs the {len(names)} of {table}")
    return names


def _table(names: list[str]) -> str:
    wnids = sorted({wnid_of(name) for name in names})
    return "".join(f"{name},{1 + wnids.index(wnid_of(name))}\n" for name in names)
