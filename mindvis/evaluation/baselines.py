"""Baselines of the same test pictures, for the report: each is a column beside the decoded pictures.

`baseline_ridge` writes a folder a target (`latent`, `class`). Those that lie beside the run are found by themselves.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.evaluation.pictures import ARRAYS, DecodedSet, read_decoded

FOLDER = "baseline_ridge"
RIDGE = {"latent": "ridge_latent", "class": "ridge_class"}  # folder -> name of the column


def read_baselines(pictures: DecodedSet, folders: Iterable[str | Path]) -> dict[str, DecodedSet]:
    """The named folders of decoded pictures, or all in a named folder of such, by the names of their columns.

    Raises InputError for a folder without decoded pictures, and for other test pictures than those of `pictures`.
    """
    found = {}
    for folder in map(Path, folders):
        inside = sorted(path.parent for path in folder.glob(f"[!.]*/{ARRAYS}"))  # not what is being written
        inside = [folder] if (folder / ARRAYS).is_file() else inside
        if not inside:
            raise InputError(f"{folder}: no {ARRAYS} in it or in a folder of it; needed: what baseline_ridge wrote")
        found |= {RIDGE.get(path.name, path.name): same_stimuli(read_decoded(path), pictures) for path in inside}
    return found


def find_baselines(pictures: DecodedSet) -> tuple[dict[str, DecodedSet], list[str]]:
    """The ridge baselines of the same data beside decoded pictures, their run or its folder; a line for each unfit one.

    Pictures that do not say which data they were decoded from have none.
    """
    found, notes = {}, []
    for beside in (pictures.path, *pictures.path.resolve().parents[:2]):
        for target, name in RIDGE.items():
            folder = beside / FOLDER / target
            if name in found or not (folder / ARRAYS).is_file():
                continue
            baseline = read_decoded(folder)
            if data_of(baseline) is None or data_of(baseline) != data_of(pictures):
                continue  # of another subject or data set
            try:
                found[name] = same_stimuli(baseline, pictures)
            except InputError as error:
                notes.append(f"{name} skipped: {error}")
    return found, notes


def same_stimuli(baseline: DecodedSet, pictures: DecodedSet) -> DecodedSet:
    """The baseline's pictures of the stimuli of `pictures`, in their order. Raises InputError where it lacks one."""
    places = {name: place for place, name in enumerate(baseline.stimulus_ids)}
    order = [places[name] for name in pictures.stimulus_ids if name in places]
    if len(order) < len(pictures.stimuli) or not np.array_equal(baseline.stimuli[order], pictures.stimuli):
        size, own_size = (f"{each.stimuli.shape[1]} x {each.stimuli.shape[2]}" for each in (baseline, pictures))
        found = f"{len(baseline.stimuli)} true pictures of {size} pixels"
        raise InputError(f"{baseline.path}: {found}; needed: those of {pictures.path}, of {own_size} pixels")
    own = {"stimuli": pictures.stimuli, "stimulus_ids": pictures.stimulus_ids, "class_ids": pictures.class_ids}
    return replace(baseline, decoded=baseline.decoded[order], **own)


def data_of(pictures: DecodedSet) -> tuple | None:
    """Name, place and subjects of the data that pictures were decoded from, None where that is not recorded."""
    settings = pictures.settings.get("data", {}).get("settings")
    if settings is None:
        return None
    return settings.get("name"), Path(settings.get("root", "")).resolve(), settings.get("subjects")
