"""BOLD5000: stimulus pictures to one mapped array, and a check of presentation lists against responses."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import write_atomic, write_text
from mindvis.common.progress import Progress
from mindvis.data.arrays import load_npy
from mindvis.data.bold5000 import (
    IMAGE_FILE,
    NAME_FILE,
    PRESENTATIONS,
    Sessions,
    match_presented,
    read_picture_dict,
    read_presentations,
    read_repeated,
    response_files,
)
from mindvis.data.images import check_side, is_picture, read_square
from mindvis.data.reading import Names, PassedOver, files_below, list_folder, require_folder

FOLDERS = ("COCO", "ImageNet", "Scene")


@dataclass(frozen=True)
class Subject:
    """One subject, checked: what was shown, voxels of each region, response files that are absent.

    `counts`: sessions, trials, trials of images shown once (training), different repeated images (test).
    """

    name: str
    counts: tuple[int, int, int, int]
    voxels: dict[str, int]
    absent: list[Path]

    def describe(self) -> str:
        """The counts as one line."""
        sessions, trials, train, test = self.counts
        return f"{self.name}: {sessions} sessions, {trials} trials, {train} training trials, {test} test images"


def check_subject(root: Path, name: str, names: list[str], passed: PassedOver) -> Subject:
    """One subject's lists against the pictures `names` and against the responses; raises InputError where they differ.

    Response files that are absent are named, not refused.
    """
    known, sessions = Names(names), read_presentations(root, name, passed)
    voxels, absent = check_responses(root, name, sessions)
    shown = match_presented(root, name, sessions, known)
    repeated = set(read_repeated(root, known))
    num_train = sum(image not in repeated for image in shown)
    counts = (len(sessions), len(shown), num_train, len(repeated.intersection(shown)))
    return Subject(name, counts, voxels, absent)


def find_subjects(root: Path, passed: PassedOver) -> list[str]:
    """Subjects that have presentation lists, sorted."""
    folder = require_folder(root / PRESENTATIONS, "presentation lists (CSI1/CSI1_sess01/CSI1_sess01_run01.txt ...)")
    subjects = []
    for path in filter(Path.is_dir, list_folder(folder, passed)):
        if any(session.is_dir() for session in list_folder(path, PassedOver())):
            subjects.append(path.name)
        else:
            passed.add(path, "no session in it")
    if not subjects:
        raise InputError(f"{folder}: no <subject>/<session>/*.txt in it")
    return subjects


def find_pictures(folder: Path, passed: PassedOver) -> dict[str, Path]:
    """File name -> picture of the folders COCO, ImageNet and Scene, sorted by name."""
    pictures: dict[str, Path] = {}
    for part in FOLDERS:
        before = len(pictures)
        for path in files_below(require_folder(folder / part, "the stimulus pictures"), passed):
            if not is_picture(path):
                passed.add(path, "no picture")
            elif path.name in pictures:
                raise InputError(f"{path}: the same name as {pictures[path.name]}; needs each name once")
            else:
                pictures[path.name] = path
        if len(pictures) == before:
            raise InputError(f"{folder / part}: no pictures in it; needs those of the BOLD5000 stimuli")
    return dict(sorted(pictures.items()))


@dataclass(frozen=True)
class Images:
    """Named images of one shape [h w 3], which `read` gives one at a time."""

    names: list[str]
    shape: tuple[int, ...]
    read: Callable[[], Iterator[np.ndarray]]

    def write(self, folder: Path) -> None:
        """Write uint8 [n h w 3] and the list of names, one image in memory at a time."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self.names), *self.shape)}

        def write(file: BinaryIO) -> None:
            np.lib.format.write_array_header_1_0(file, header)
            for image in Progress(self.read(), total=len(self.names), unit="image"):
                file.write(np.ascontiguousarray(image).data)
            # Without its names an array is not read: a stop between the two leaves it incomplete, never mismatched.
            (folder / NAME_FILE).unlink(missing_ok=True)

        write_atomic(folder / IMAGE_FILE, write)
        write_text(folder / NAME_FILE, json.dumps(self.names, indent=0) + "\n")


def open_images(folder: Path, passed: PassedOver, size: int = 256, pickle: Path | None = None) -> Images:
    """The pictures below `folder`, cut to squares, or those of a pickled `img_dict.npy`, read without running it."""
    if pickle is not None:
        images = read_picture_dict(pickle)
        return Images(list(images), next(iter(images.values())).shape, lambda: iter(images.values()))
    check_side(size)
    pictures = find_pictures(folder, passed)
    return Images(list(pictures), (size, size, 3), lambda: (read_square(path, size) for path in pictures.values()))


def check_responses(root: Path, subject: str, sessions: Sessions) -> tuple[dict[str, int], list[Path]]:
    """Voxels of each region, and the files that are absent; raises InputError for a file of other trials."""
    voxels, absent = {}, []
    trials = [len(shown) for shown in sessions.values()]
    for region, path in response_files(root, subject):
        if not path.is_file():
            absent.append(path)
            continue
        response = load_npy(path, mmap=True)  # [trials v]
        if response.ndim != 2 or response.dtype.kind not in "fiu" or len(response) != sum(trials):
            needed = f"[{sum(trials)} voxels], the trials of the {len(trials)} sessions of {subject}"
            found = f"{response.dtype} {list(response.shape)}"
            raise InputError(f"{path}: {found}; needs {needed} ({' + '.join(map(str, trials))})")
        voxels[region] = response.shape[1]
    return voxels, absent
