"""Which voxels of padded fMRI belong to which region, and which are only copies made to fill the last patch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data import FMRIDataset
from mindvis.data.regions import padded_mask


@dataclass(frozen=True)
class Regions:
    """Regions to look at: `masks` name -> boolean [v] without padding; `padding` boolean [v]; `alike` int [v].

    `alike` is the first voxel with the same values in every row: the original of a wrap-padded one.
    """

    masks: dict[str, np.ndarray]
    padding: np.ndarray
    alike: np.ndarray

    def with_copies(self, name: str) -> np.ndarray:
        """A region and the padding copied from it, boolean [v]: what must be hidden for the region to be hidden."""
        mask = self.masks[name]
        return mask | (self.padding & mask[self.alike])


def find_regions(dataset: FMRIDataset, fmri: np.ndarray, rois: Sequence[str] | None, source: str) -> Regions:
    """Regions of a data set over its rows fmri [n v], at the length of the model; None: those that contain no other.

    Raises InputError where regions are unknown or differ among subjects, and for a region that is not there.
    """
    if not dataset.roi_masks:
        raise InputError(f"{source}: {_why_unknown(dataset)}")
    num_voxels = fmri.shape[1]
    masks = {name: padded_mask(mask, num_voxels) for name, mask in dataset.roi_masks.items()}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    for name in rois or ():
        if name not in masks:
            raise InputError(f"setting rois names {name!r}; needed: some of {', '.join(masks)}")
    alike = _first_alike(fmri)
    covered = np.any(list(masks.values()), axis=0)
    repeated = (alike != np.arange(num_voxels)) | (np.ptp(fmri, axis=0) == 0)  # wrapped, or filled with a constant
    return Regions({name: masks[name] for name in rois or _innermost(masks)}, ~covered & repeated, alike)


def _why_unknown(dataset: FMRIDataset) -> str:
    subjects = [] if dataset.subject is None else list(dict.fromkeys(dataset.subject.tolist()))
    if len(subjects) > 1:
        few = ", ".join(subjects[:3]) + (", ..." if len(subjects) > 3 else "")
        return f"no voxel is in one region for all of {len(subjects)} subjects; needed: subject=, one of {few}"
    return "its regions are not known; needed: GOD or HCP files, or own data with roi_names and roi_masks"


def _innermost(masks: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the regions that contain no other: V1 and LOC rather than VC."""
    return [name for name, mask in masks.items() if not any(_within(other, mask) for other in masks.values())]


def _within(part: np.ndarray, whole: np.ndarray) -> bool:
    return bool((part <= whole).all() and (part != whole).any())


def _first_alike(fmri: np.ndarray) -> np.ndarray:
    """For every voxel of fmri [n v], the first one with the same values: int [v]."""
    seen: dict[bytes, int] = {}
    columns = np.ascontiguousarray(fmri.T)  # [v n]
    return np.array([seen.setdefault(column.tobytes(), i) for i, column in enumerate(columns)])
