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
from mindvis.common.safe_pickle import load_object_npy
from mindvis.data.arrays import load_npy
from mindvis.data.bold5000 import PRESENTATIONS, REGIONS, REPEATED, RESPONSE_FILE, RESPONSES
from mindvis.prepare.files import need_folder, one_line
from mindvis.prepare.pictures import check_side, is_picture, read_square

IMAGE_FILE, NAME_FILE, PICKLE_FILE = "img_dict_images.npy", "img_dict_names.json", "img_dict.npy"
FOLDERS = ("COCO", "ImageNet", "Scene")


@dataclass(frozen=True)
class Presentations:
    """What one subject saw: session -> names of the images, in the order of the trials."""

    subject: str
    sessions: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """Names of all trials, in their order."""
        return [name for shown in self.sessions.values() for name in shown]


def find_pictures(folder: Path) -> dict[str, Path]:
    """File name -> picture of the folders COCO, ImageNet and Scene, sorted by name."""
    pictures: dict[str, Path] = {}
    for part in FOLDERS:
        paths = [path for path in need_folder(folder / part, "the stimulus pictures").rglob("*") if is_picture(path)]
        if not paths:
            raise InputError(f"{folder / part}: no pictures in it; needs those of the BOLD5000 stimuli")
        for path in sorted(paths):
            if path.name in pictures:
                raise InputError(f"{path}: the same name as {pictures[path.name]}; needs each name once")
            pictures[path.name] = path
    return dict(sorted(pictures.items()))


@dataclass(frozen=True)
class Images:
    """Named images of one shape [h w 3], brought one at a time."""

    names: list[str]
    shape: tuple[int, ...]
    bring: Callable[[], Iterator[np.ndarray]]

    def write(self, folder: Path) -> None:
        """Write uint8 [n h w 3] and the list of names, one image in memory at a time."""

        def write(file: BinaryIO) -> None:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(self.names), *self.shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for image in Progress(self.bring(), total=len(self.names), unit="image"):
                file.write(np.ascontiguousarray(image).data)
            # Without its names an array is not read: a stop between the two leaves it incomplete, never mismatched.
            (folder / NAME_FILE).unlink(missing_ok=True)

        write_atomic(folder / IMAGE_FILE, write)
        write_text(folder / NAME_FILE, json.dumps(self.names, indent=0) + "\n")


def open_images(folder: Path, size: int = 256, pickle: Path | None = None) -> Images:
    """The pictures below `folder`, cut to squares, or those of a pickled `img_dict.npy`, read without running it."""
    if pickle is not None:
        return _open_pickle(pickle)
    check_side(size)
    pictures = find_pictures(folder)
    return Images(list(pictures), (size, size, 3), lambda: (read_square(path, size) for path in pictures.values()))


def _open_pickle(path: Path) -> Images:
    images = load_object_npy(path)
    if not isinstance(images, dict) or not images:
        raise InputError(f"{path}: holds a {type(images).__name__}; needs a dict of name -> uint8 image")
    shape = np.shape(next(iter(images.values())))
    for name, image in images.items():
        if not isinstance(name, str) or not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            raise InputError(f"{path}: entry {name!r} is no uint8 image; needs name -> uint8 [h w 3]")
        if image.shape != shape or len(shape) != 3 or shape[-1] != 3:
            raise InputError(f"{path}: image {name!r} has shape {list(image.shape)}; needs one common [h w 3]")
    return Images(list(images), shape, lambda: iter(images.values()))


def read_names(folder: Path) -> list[str]:
    """Names of the images that were written, in the order of the array; checks that both files agree."""
    path = folder / NAME_FILE
    try:
        names = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; needs scripts/prepare_bold5000.py to be run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({one_line(error)})") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: needs a list of image names")
    images = load_npy(folder / IMAGE_FILE, mmap=True)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(names):
        found = f"{images.dtype} {list(images.shape)}"
        raise InputError(f"{folder / IMAGE_FILE}: {found}; needs uint8 [n h w 3] with n = {len(names)} of {NAME_FILE}")
    return names


def find_subjects(root: Path) -> list[str]:
    """Subjects that have presentation lists, sorted."""
    folder = need_folder(root / PRESENTATIONS, "presentation lists (CSI1/CSI1_sess01/CSI1_sess01_run01.txt ...)")
    subjects = sorted(path.name for path in folder.iterdir() if any(path.glob("*/*.txt")))
    if not subjects:
        raise InputError(f"{folder}: no <subject>/<session>/*.txt in it")
    return subjects


def read_presentations(root: Path, subject: str) -> Presentations:
    """Names of the presented images by session, sessions and runs sorted, a leading `rep_` dropped."""
    sessions: dict[str, list[str]] = {}
    for path in sorted((root / PRESENTATIONS / subject).glob("*/*.txt"), key=lambda p: (p.parent.name, p.name)):
        names = [name.removeprefix("rep_") for name in read_lines(path)]
        if not names:
            raise InputError(f"{path}: an empty run; needs one image name a line")
        sessions.setdefault(path.parent.name, []).extend(names)
    if not sessions:
        raise InputError(f"{root / PRESENTATIONS / subject}: no <session>/*.txt in it")
    return Presentations(subject, sessions)


def check_names(root: Path, presentations: Presentations, names: set[str]) -> None:
    """Raise InputError when a presented or repeated image is not among `names`."""
    for session, shown in presentations.sessions.items():
        missing = sorted(set(shown) - names)
        if missing:
            where = root / PRESENTATIONS / presentations.subject / session
            raise InputError(f"{where}: {len(missing)} presented images have no picture, the first is {missing[0]}")
    missing = [name for name in read_lines(root / REPEATED) if name not in names]
    if missing:
        raise InputError(f"{root / REPEATED}: {len(missing)} images have no picture, the first is {missing[0]}")


def response_files(root: Path, subject: str) -> Iterator[tuple[str, Path]]:
    """Region with its hemisphere, and the file of its responses."""
    for region in REGIONS:
        for hemisphere in ("LH", "RH"):
            file = RESPONSE_FILE.format(subject=subject, region=hemisphere + region)
            yield hemisphere + region, root / RESPONSES / file


def check_responses(root: Path, presentations: Presentations) -> tuple[dict[str, int], list[Path]]:
    """Voxels of each region, and the files that are absent; raises InputError for a file of other trials."""
    voxels, absent = {}, []
    trials = [len(shown) for shown in presentations.sessions.values()]
    for region, path in response_files(root, presentations.subject):
        if not path.is_file():
            absent.append(path)
            continue
        response = load_npy(path, mmap=True)  # [trials v]
        if response.ndim != 2 or response.dtype.kind not in "fiu" or len(response) != sum(trials):
            raise InputError(
                f"{path}: {response.dtype} {list(response.shape)}; needs [{sum(trials)} voxels], the trials of the "
                f"{len(trials)} sessions of {presentations.subject} ({' + '.join(map(str, trials))})"
            )
        voxels[region] = response.shape[1]
    return voxels, absent


def count(root: Path, presentations: Presentations) -> tuple[int, int, int, int]:
    """Sessions, trials, trials of images shown once (training), different repeated images (test)."""
    shown, repeated = presentations.names, set(read_lines(root / REPEATED))
    train = sum(name not in repeated for name in shown)
    return len(presentations.sessions), len(shown), train, len(repeated & set(shown))


def describe(root: Path, presentations: Presentations) -> str:
    """The same as one line."""
    sessions, trials, train, test = count(root, presentations)
    start = f"{presentations.subject}: {sessions} sessions, {trials} trials"
    return f"{start}, {train} training trials, {test} test images"


def read_lines(path: Path) -> list[str]:
    """Lines of a list of names that are not empty."""
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: unreadable list of names ({one_line(error)})") from None
