"""Pictures that enter the evaluation: arrays, the output folder of `generate`, or any folders of pictures.

Everything is checked where it enters, with one line about what is wrong.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mindvis.common.errors import InputError
from mindvis.common.texts import read_record, require_groups
from mindvis.data.images import SUFFIXES, is_picture, read_picture
from mindvis.data.reading import PassedOver, list_folder

Array = np.ndarray | Tensor

ARRAYS, SETTINGS, PICTURES = "decoded.npz", "generate.json", "pictures"
CONTROLS = ("shuffled", "mean_fmri")
STIMULUS = "stimulus"
OUTPUT_FILES, OUTPUT_FOLDERS = (STIMULUS, "grid", "grid_sorted"), ("figures", "wandb", *CONTROLS)
MODES = {"L": "grey", "LA": "grey with transparency", "RGBA": "with transparency", "1": "black and white"}


def to_numpy(array: Array) -> np.ndarray:
    """The same values as a numpy array, from any device."""
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)


def as_images(images: Array, name: str) -> Tensor:
    """Checked pictures: uint8 [n h w 3], numpy or torch, -> the same as a tensor where they were.

    Raises InputError unless they are uint8 with three colours and at least one picture.
    """
    images = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8 or len(images) == 0:
        found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        raise InputError(f"{name}: found {found}, need uint8 [n h w 3] with at least one picture")
    return images


def check_same_size(predictions: Tensor, targets: Tensor) -> None:
    """Raises InputError unless both sets [n h w 3], [m h w 3] have pictures of one size."""
    if predictions.shape[1:] != targets.shape[1:]:
        sizes = [f"{images.shape[1]} x {images.shape[2]}" for images in (predictions, targets)]
        raise InputError(f"predictions are {sizes[0]} pixels and targets {sizes[1]}, need one size")


def as_finite_matrix(values: Array, name: str = "probabilities") -> np.ndarray:
    """Checked logits, probabilities or features: [n c] -> numpy; raises InputError on NaN, infinity, other shapes."""
    values = to_numpy(values)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"{name}: found shape {list(values.shape)}, need two axes with at least one row and column")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise InputError(f"{name}: row {int(np.argmin(finite))} holds NaN or infinity, need finite numbers")
    return values


def shrink(images: Array, side: int) -> np.ndarray:
    """Pictures at `side` x `side` pixels, anti-aliased: uint8 [n h w 3] -> uint8 [n side side 3]."""
    parts = []
    for part in as_images(images, "images").split(256):
        smaller = interpolate(part.permute(0, 3, 1, 2).float(), (side, side), mode="bilinear", antialias=True)
        parts.append(smaller.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


@dataclass
class DecodedSet:
    """k decoded pictures of each of n stimuli: decoded uint8 [n k h w 3], stimuli uint8 [n h w 3], ids [n].

    `subjects` [n]: whose fMRI each row is, where that is recorded.
    """

    path: Path
    decoded: np.ndarray
    stimuli: np.ndarray
    stimulus_ids: list[str]
    class_ids: list[int] | None = None
    settings: dict = field(default_factory=dict)
    subjects: list[str] | None = None

    @property
    def flat(self) -> np.ndarray:
        """Sample set after sample set: uint8 [kn h w 3]; row s * n + i is sample s of stimulus i."""
        return self.decoded.swapaxes(0, 1).reshape(-1, *self.decoded.shape[2:])


def read_decoded(path: str | Path, stimuli: str | Path | None = None) -> DecodedSet:
    """Read a folder with `decoded.npz`, or a folder of pictures beside one of true pictures. Raises InputError.

    Without `decoded.npz`, a decoded picture is NAME.png, NAME-SAMPLE.png or NAME/SAMPLE.png for a true picture
    NAME.png in the folder `stimuli`, or NAME/stimulus.png where that is not given. All are RGB and of one size.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; need the output of generate, or a folder of decoded pictures")
    without = "fmri" in read_generated(path)  # decoded from rows that came without pictures
    if without and stimuli is None:
        needed = "needed: images= a folder with the picture of each row, 0000.png, 0001.png ..."
        raise InputError(f"{path}: decoded from fMRI without pictures, so there is nothing to compare with; {needed}")
    found = _from_arrays(path) if (path / ARRAYS).is_file() and not without else _from_pictures(path, stimuli)
    if len(found.stimuli) < 2:
        raise InputError(f"{path}: found {len(found.stimuli)} stimulus, an evaluation needs at least two")
    return found


def read_scored(path: str | Path, stimuli: str | None) -> DecodedSet:
    """The pictures to score, as `read_decoded`. Raises InputError also for `stimuli` that would be passed over."""
    found = read_decoded(path, stimuli)
    arrays = found.path / ARRAYS
    if stimuli is not None and arrays.is_file() and "fmri" not in read_generated(found.path):
        raise InputError(f"setting images is {stimuli}, but {arrays} holds the true pictures; needed: none")
    return found


def read_controls(path: str | Path) -> dict[str, DecodedSet]:
    """The control sets in the folder of decoded pictures (`shuffled/`, `mean_fmri/`), where they exist."""
    folders = {name: Path(path) / name for name in CONTROLS}
    return {name: read_decoded(folder) for name, folder in folders.items() if (folder / ARRAYS).is_file()}


def _from_arrays(path: Path) -> DecodedSet:
    file = path / ARRAYS
    arrays = _read_npz(file)
    decoded, stimuli, settings = arrays["decoded"], arrays["stimuli"], read_generated(path)
    check_decoded(decoded, stimuli, f"{file}: decoded", f"{file}: stimuli")
    names = ("stimulus_ids", "class_ids", "subjects")
    ids, classes, subjects = (_ids(file, name, arrays.get(name), len(stimuli)) for name in names)
    recorded = settings.get("data", {}).get("subjects") or []
    if subjects is None and len(recorded) == 1:
        subjects = recorded * len(stimuli)
    return DecodedSet(path, decoded, stimuli, list(map(str, ids or range(len(stimuli)))), classes, settings, subjects)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # zipfile, zlib and numpy raise unrelated classes for a damaged file
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    missing = {"decoded", "stimuli"} - arrays.keys()
    if missing:
        raise InputError(f"{path}: no array {sorted(missing)[0]!r}, found {', '.join(arrays) or 'none'}")
    return arrays


def check_decoded(
    decoded: np.ndarray, stimuli: np.ndarray, name: str = "decoded", name_of_stimuli: str = "stimuli"
) -> None:
    """Raises InputError unless decoded is uint8 [n k h w 3] and stimuli uint8 [n h w 3] of the same size."""
    check_pictures(decoded, name, "[n k h w 3]")
    check_pictures(stimuli, name_of_stimuli, "[n h w 3]")
    if decoded.shape[:1] + decoded.shape[2:] != stimuli.shape:
        found = f"found {list(decoded.shape)} for stimuli {list(stimuli.shape)}, which do not belong together"
        raise InputError(f"{name}: {found}; need [n k h w 3] for [n h w 3]")


def check_pictures(array: np.ndarray, name: str, layout: str) -> None:
    """Raises InputError unless an array is uint8 of that layout, which ends in 3, with nothing of length 0."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != len(layout.split()) or array.shape[-1] != 3 or 0 in array.shape:
        raise InputError(f"{name}: found {array.dtype} {list(array.shape)}, need uint8 {layout}, none of them 0")


def check_same_stimuli(pictures: DecodedSet, others: Mapping[str, DecodedSet]) -> None:
    """Raises InputError unless the other sets are of the same true pictures, in the same order."""
    for name, other in others.items():
        if not np.array_equal(other.stimuli, pictures.stimuli):
            raise InputError(f"{other.path}: the true pictures of {name!r} are not those of {pictures.path}")


def _ids(path: Path, name: str, array: np.ndarray | None, n: int) -> list | None:
    """An array of ids as a list, None where it is absent or empty."""
    if array is None or array.size == 0:
        return None
    if array.shape != (n,):
        raise InputError(f"{path}: {name} has shape {list(array.shape)}, need [{n}], one a stimulus")
    return array.tolist()


def read_generated(folder: Path) -> dict:
    """Content of the generate.json of a folder, {} without one. Raises InputError for a damaged one."""
    said = read_record(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    require_groups(said, ("settings", "data", "test_set_use"), f"{folder / SETTINGS}: ")
    require_groups(said.get("data", {}), ("settings",), f"{folder / SETTINGS}: data.")
    return said


def _from_pictures(path: Path, stimuli: str | Path | None) -> DecodedSet:
    true = list_pictures(Path(stimuli)) if stimuli else _own_stimuli(path)
    samples = _assign(path, true)
    counts = {name: len(files) for name, files in samples.items()}
    k = max(counts.values())
    short = next((name for name in true if counts[name] != k), None)
    if short is not None:
        found = f"{counts[short]} decoded pictures of stimulus {short!r}, others have {k}"
        raise InputError(f"{path}: {found}; need as many")
    names = sorted(true, key=_natural)
    size = read_pixels(true[names[0]]).shape
    pictures = np.stack([read_pixels(true[name], size) for name in names])
    decoded = [[read_pixels(file, size) for file in sorted(samples[name], key=_natural)] for name in names]
    return DecodedSet(path, np.asarray(decoded), pictures, names)


def _own_stimuli(path: Path) -> dict[str, Path]:
    """NAME/stimulus.png below a folder of decoded pictures, or below its `pictures`."""
    root = path / PICTURES if (path / PICTURES).is_dir() else path
    true = {file.parent.name: file for file in _files_of(root) if file.parent != root and file.stem == STIMULUS}
    if not true:
        needed = "needed: <run>/decoded, or images= the folder of true pictures"
        raise InputError(f"{path}: no {ARRAYS} and no */{STIMULUS}.png; {needed}")
    return true


def list_pictures(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by their names without the ending. Raises InputError for none, or two of one name.

    What is no picture, or a file of the system, is passed over with a line in the log.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; need a folder of pictures")
    pictures: dict[str, Path] = {}
    passed = PassedOver()
    for file in list_folder(folder, passed, copies=True):
        if not is_picture(file):
            passed.add(file, "no picture")
            continue
        if pictures.setdefault(file.stem, file) != file:
            raise InputError(f"{folder}: {file.name} and {pictures[file.stem].name} name the same stimulus")
    passed.log(folder)
    if not pictures:
        raise InputError(f"{folder}: no pictures ({', '.join(sorted(SUFFIXES))}), need one a stimulus")
    return pictures


def _files_of(root: Path) -> list[Path]:
    """Pictures in a folder and in the folders in it, links followed; one that cannot be read is an error."""
    passed = PassedOver()
    found = list_folder(root, passed, copies=True)
    folders = [path for path in found if path.is_dir()]
    nested = [path for folder in folders for path in list_folder(folder, passed, copies=True)]
    passed.log(root)
    return [path for path in found + nested if is_picture(path)]


def _assign(path: Path, true: dict[str, Path]) -> dict[str, list[Path]]:
    """Decoded pictures of each stimulus, by name; one that belongs to no stimulus, or none for one, is an error."""
    root = path / PICTURES if (path / PICTURES).is_dir() else path
    samples: dict[str, list[Path]] = {name: [] for name in true}
    for file in _files_of(root):
        if file in true.values() or _is_output(file, root, true):
            continue
        name = _stimulus_of(file, root, true)
        if name is None:
            raise InputError(f"{file}: belongs to no true picture (have {len(true)}, such as {next(iter(true))!r})")
        samples[name].append(file)
    missing = next((name for name, found in samples.items() if not found), None)
    if missing is not None:
        raise InputError(f"{path}: no decoded picture of stimulus {missing!r} ({true[missing].name})")
    return samples


def _is_output(file: Path, root: Path, true: dict[str, Path]) -> bool:
    """Whether generate or evaluate left this picture beside the decoded ones: no stimulus is called so."""
    if file.parent != root and file.parent.name in OUTPUT_FOLDERS and file.parent.name not in true:
        return True
    return file.stem in OUTPUT_FILES and not (file.parent == root and file.stem in true)


def _stimulus_of(file: Path, root: Path, true: dict[str, Path]) -> str | None:
    if file.parent != root:
        return file.parent.name if file.parent.name in true else None
    if file.stem in true:
        return file.stem
    name = re.sub(r"[-_]\d+$", "", file.stem)
    return name if name in true else None


def _natural(name: str | Path) -> list:
    """Sort key by which 10 comes after 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(name)) if part]


def read_pixels(path: Path, size: tuple[int, ...] | None = None) -> np.ndarray:
    """Pixels uint8 [h w 3]. Raises InputError for a file that is no RGB picture, or of another `size` (h, w, 3)."""
    picture = read_picture(path)
    if picture.mode != "RGB":
        raise InputError(f"{path}: a picture of mode {picture.mode} ({MODES.get(picture.mode, 'not RGB')}), need RGB")
    pixels = np.asarray(picture)
    if size is not None and pixels.shape != size:
        found = f"{pixels.shape[0]} x {pixels.shape[1]} pixels, others {size[0]} x {size[1]}"
        raise InputError(f"{path}: {found}; need one size")
    return pixels
