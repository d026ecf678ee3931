"""HCP resting-state runs as `HCP/npz/<subject>/HCP_visual_voxel.npz` -> windows of fMRI, mapped from a cache."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.progress import Progress
from mindvis.data.arrays import Array, NpzReader, check_shapes
from mindvis.data.cache import RowCache
from mindvis.data.datasets import FMRIDataset
from mindvis.data.reading import PassedOver, list_folder, require_folder
from mindvis.data.regions import EVERY, VISUAL_CORTEX, padded_mask, region_names
from mindvis.data.subjects import chosen_files
from mindvis.data.voxels import (
    common_length,
    moments,
    normalise,
    pad_to,
    pad_to_patches,
    patched_length,
    window_average,
)

FILE_NAME = "HCP_visual_voxel.npz"
VOLUMETRIC = "of_volumes"  # an empty file beside those that were made of volumes: their voxels are no vertices


def load_hcp(
    root: str | Path,
    roi: str | Sequence[str] = "VC",
    patch_size: int = 16,
    num_subjects: int | None = None,
    *,
    subjects: Sequence[str] | str = (),
    frames_per_window: int = 10,
    pad_mode: str = "wrap",
    cache_dir: str | Path | None = None,
    num_workers: int = 4,
) -> FMRIDataset:
    """Windows of `subjects` (all, sorted, unless given), or the first `num_subjects` of them, from `HCP/npz`.

    fmri float32 [n v]: the regions side by side ("VC": V1 V2 V3 V4; one name, several, or "all" that the first file
    has), frames averaged over windows of `frames_per_window` (10 are 7.2 s), wrap-padded to patches and scaled by the
    subject's one mean and deviation; subjects of differing length are brought to the longest. Computed once, by
    `num_workers` threads, into a file that is mapped from then on: in `cache_dir`, else `<root>/../.cache`, else the
    user's cache folder. Raises InputError.
    """
    runs = chosen_files(find_runs, Path(root), subjects)
    if num_subjects is not None and not 1 <= num_subjects <= len(runs):
        needed = f"1 .. {len(runs)}, the subjects that are there"
        raise InputError(f"{root}: num_subjects is {num_subjects}, needs {needed}")
    names, paths = list(runs)[:num_subjects], list(runs.values())[:num_subjects]
    regions = VISUAL_CORTEX if roi == "VC" else region_names(roi)
    if regions == (EVERY,):
        regions = regions_of(paths[0])
    settings = {"regions": regions, "patch_size": patch_size, "frames": frames_per_window, "pad_mode": pad_mode}
    cache = RowCache(paths, settings, cache_dir, Path(root).resolve().parent / ".cache")
    recipe = _Recipe(regions, patch_size, frames_per_window, pad_mode)
    [rows], facts = cache.open() or cache.build(*_build(recipe, paths, num_workers))
    masks = None
    if facts["widths"] is not None:  # every subject has the same voxels in the same columns
        region_of = np.repeat(facts["regions"], facts["widths"])
        masks = {name: padded_mask(region_of == name, rows.shape[1]) for name in facts["regions"]}
    return FMRIDataset(rows, subject=np.repeat(names, facts["num_windows"]), roi_masks=masks)


def find_runs(root: Path, passed: PassedOver) -> dict[str, Path]:
    """Subject -> its file, sorted; folders without the file are passed over. Raises InputError."""
    found = {}
    for folder in filter(Path.is_dir, list_folder(require_folder(root, f"folders <subject>/{FILE_NAME}"), passed)):
        if any(path.name == FILE_NAME for path in list_folder(folder, PassedOver())):
            found[folder.name] = folder / FILE_NAME
        else:
            passed.add(folder, f"no {FILE_NAME} in it")
    return found


def regions_of(path: Path) -> tuple[str, ...]:
    """Names of the regions in one file, in its order."""
    with NpzReader(path) as npz:
        return tuple(npz)


def region_arrays(regions: Sequence[str]) -> list[Array]:
    """What a file has to hold: f frames of every region, each with voxels of its own."""
    return [Array(name, "real", f"f {name}") for name in regions]


@dataclass(frozen=True)
class _Recipe:
    regions: tuple[str, ...]
    patch_size: int
    frames_per_window: int
    pad_mode: str

    def sizes(self, path: Path) -> tuple[int, list[int]]:
        """Windows of a run and voxels of its regions, from the headers alone."""
        with NpzReader(path) as npz:
            missing = [name for name in self.regions if name not in npz]
            if missing:
                hint = f"the setting data.roi takes some of them, [{', '.join(npz)}], or {EVERY}"
                raise InputError(f"{path}: no array {missing[0]!r}, has {', '.join(npz) or 'none'}; {hint}")
            sizes = check_shapes(npz, region_arrays(self.regions), path)
        num_frames = sizes["f"][0]
        if num_frames < self.frames_per_window:
            raise InputError(f"{path}: {num_frames} frames, needs at least one window of {self.frames_per_window}")
        return num_frames // self.frames_per_window, [sizes[name][0] for name in self.regions]

    def windows(self, path: Path) -> np.ndarray:
        """One subject's windows [w v], padded to patches and scaled."""
        with NpzReader(path) as npz:
            arrays = npz.read(region_arrays(self.regions))
        averages = [window_average(arrays[name], self.frames_per_window) for name in self.regions]
        padded = pad_to_patches(np.concatenate(averages, axis=1), self.patch_size, self.pad_mode)
        return normalise(padded, *moments(padded, f"{path}: fMRI"))


def _build(recipe: _Recipe, paths: list[Path], num_workers: int) -> tuple[tuple[int, int], Iterator[np.ndarray], dict]:
    """Shape of all windows, their rows subject by subject, and the facts that are kept beside them."""
    sizes = [recipe.sizes(path) for path in paths]
    lengths = [patched_length(sum(widths), recipe.patch_size, recipe.pad_mode) for _, widths in sizes]
    num_voxels = common_length(lengths, recipe.pad_mode)
    num_windows = [count for count, _ in sizes]
    same = all(widths == sizes[0][1] for _, widths in sizes)
    facts = {"num_windows": num_windows, "regions": recipe.regions, "widths": sizes[0][1] if same else None}
    blocks = (pad_to(block, num_voxels, recipe.pad_mode) for block in _in_parallel(recipe, paths, num_workers))
    return (sum(num_windows), num_voxels), blocks, facts


def _in_parallel(recipe: _Recipe, paths: list[Path], num_workers: int) -> Iterator[np.ndarray]:
    """Windows of every subject in order, a few subjects in memory at a time (reading and inflating leave the GIL)."""
    with ThreadPoolExecutor(max(1, num_workers)) as pool, Progress(total=len(paths), desc="HCP") as bar:
        step = 4 * max(1, num_workers)
        for start in range(0, len(paths), step):
            for block in pool.map(recipe.windows, paths[start : start + step]):
                yield block
                bar.update()
