"""The Natural Scenes Dataset as `scripts/prepare_nsd.py` leaves it -> paired data; its 73 000 pictures stay mapped.

In a folder `subj01`: `subject.npz` (arrays below) and `betas_session01.npy` ... float32 [750 v], z-scored a voxel and
session; beside the folders `nsd_stimuli.hdf5`, the pictures as their authors distribute them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import IMAGES, Array, NpzReader, check_array, load_npy
from mindvis.data.datasets import PairedDataset
from mindvis.data.hdf5 import open_hdf5, require_member, rows_of
from mindvis.data.images import LazyImages
from mindvis.data.reading import PassedOver, list_folder, require_folder
from mindvis.data.regions import EVERY, named_masks, region_columns, region_names
from mindvis.data.rows import MappedArray
from mindvis.data.subjects import Recorded, TrialOptions, chosen_files, join_trials, open_trials

TRIALS = 750  # of a session
SUBJECT_FILE, STIMULI, BRICK = "subject.npz", "nsd_stimuli.hdf5", "imgBrick"
GENERAL = "nsdgeneral"
# n trials, k shared pictures, r regions, v voxels; sessions and pictures as numbers, the latter from 0
LAYOUT = [
    Array("image", "index", "n"),
    Array("session", "index", "n"),
    Array("shared", "index", "k"),
    Array("roi_names", "label", "r"),
    Array("roi_masks", "mask", "r v"),
    Array("bad", "mask", "v", optional=True),
    Array("noise_ceiling", "real", "v", optional=True),
]


def load_nsd(
    root: str | Path,
    subjects: Sequence[str] | str = (),
    roi: str | Sequence[str] = GENERAL,
    patch_size: int = 16,
    average: bool = True,
    *,
    include_single_trials: bool = False,
    stimuli: str | Path | None = None,
    min_noise_ceiling: float | None = None,
    pad_mode: str = "wrap",
    fraction: float = 1.0,
    fraction_seed: int = 0,
) -> tuple[PairedDataset, PairedDataset]:
    """Training and test pairs of NSD subjects ("subj01"; all that are there, unless given), prepared in `root`.

    fmri float32 [n v]: the voxels of `roi` (nsdgeneral, which "VC" stands for too, V1 V2 V3 hV4 or what else was
    prepared; one, several, or "all"), z-scored a session, wrap-padded to patches and, among subjects, to the longest,
    scaled by the one mean and deviation of the subject's training rows. The pictures shared by all subjects are the
    test set: means over their repeats, then (`include_single_trials`) the trials picture by picture. Training rows are
    means, or (`average=False`) single trials in time. `stimuli`: the file of the pictures, which stay in it; default
    `<root>/nsd_stimuli.hdf5`. `min_noise_ceiling`: voxels that explain less of their variance, 0 to 1, in the repeats
    of training pictures (of all, as prepare_nsd has measured it), are left out. A `fraction` of the training pictures
    can be drawn: scaling is then by these. Raises InputError.
    """
    folder = require_folder(root, f"folders <subject>/{SUBJECT_FILE}, made by scripts/prepare_nsd.py")
    folders = chosen_files(find_subjects, folder, subjects).values()
    images = open_stimuli(Path(stimuli) if stimuli else folder / STIMULI)
    options = TrialOptions(
        patch_size, average, include_single_trials, min_noise_ceiling, pad_mode, fraction, fraction_seed
    )
    parts = open_trials([read_subject(one, roi, len(images)) for one in folders], options)

    def open_images(shown: Sequence[str]) -> LazyImages:
        return LazyImages(images.source, np.array([number_of(name) for name in shown]))

    train, test = (join_trials(parts, split, open_images, pad_mode) for split in ("train", "test"))
    return train, test


def find_subjects(root: Path, passed: PassedOver) -> dict[str, Path]:
    """Subject -> its folder, sorted."""
    folders = [path for path in list_folder(root, passed) if path.is_dir()]
    return {path.name: path for path in folders if (path / SUBJECT_FILE).is_file()}


def read_subject(folder: Path, roi: str | Sequence[str], num_images: int | None = None) -> Recorded:
    """One prepared subject; its sessions are mapped. Raises InputError."""
    path = folder / SUBJECT_FILE
    with NpzReader(path) as npz:
        arrays = npz.read(LAYOUT)
    masks = named_masks(arrays, path)
    image, shared = arrays["image"], set(arrays["shared"].tolist())
    if num_images is not None and image.max() >= num_images:
        raise InputError(f"{path}: shows picture {image.max()} (from 0), the file of the pictures has {num_images}")
    chosen = GENERAL if roi == "VC" else roi
    columns = None if region_names(chosen) == (EVERY,) else region_columns(chosen, masks, path)
    used = np.zeros(arrays["roi_masks"].shape[1], bool)
    used[slice(None) if columns is None else columns] = True
    sources = [_session(folder, int(number), len(used)) for number in np.unique(arrays["session"])]
    if len(image) != len(arrays["session"]) or len(image) != sum(map(len, sources)):
        raise InputError(f"{path}: {len(image)} trials, the files of its sessions have {sum(map(len, sources))}")
    return Recorded(
        subject=folder.name,
        where=str(folder),
        sources=sources,
        stimuli=[stimulus_name(number) for number in image.tolist()],
        splits=["test" if number in shared else "train" for number in image.tolist()],
        bad=~used | arrays.get("bad", np.zeros(len(used), bool)),
        masks=masks,
        columns=np.arange(len(used)),
        num_recorded=len(used),
        noise_ceiling=arrays.get("noise_ceiling"),
    )


def session_file(folder: Path, number: int) -> Path:
    """Where the z-scored trials of a session are, float32 [750 v]."""
    return folder / f"betas_session{number:02d}.npy"


def _session(folder: Path, number: int, num_voxels: int) -> MappedArray:
    path = session_file(folder, number)
    rows = load_npy(path, mmap=True)
    if rows.dtype != np.float32 or rows.shape != (TRIALS, num_voxels):
        found = f"{rows.dtype} {list(rows.shape)}"
        raise InputError(f"{path}: is {found}, needs float32 [{TRIALS} {num_voxels}]: prepare it again")
    return MappedArray.of(rows)


def stimulus_name(number: int) -> str:
    """How a picture is called, by its number from 0 to 72999."""
    return f"nsd{number:05d}"


def number_of(name: str) -> int:
    """The number of a picture, from 0."""
    return int(name.removeprefix("nsd"))


def open_stimuli(path: Path) -> LazyImages:
    """All pictures of NSD, uint8 [73000 425 425 3], none of them read. Raises InputError."""
    with open_hdf5(path, f"the pictures of NSD, {STIMULI}") as file:
        brick = require_member(path, file, BRICK)
        check_array(brick, IMAGES, f"{path}: {BRICK}")
        return LazyImages(rows_of(path, brick))
