"""Audits of folders: of `generate`, or of anybody's pictures, beside training pictures, controls and baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.common.errors import InputError, reading
from mindvis.common.texts import read_table
from mindvis.data.images import LazyImages, PictureFiles
from mindvis.evaluation.audit import Audit, audit_pictures
from mindvis.evaluation.audit_features import Pictures, Space
from mindvis.evaluation.audit_verdict import Finding
from mindvis.evaluation.checks import kept_rows, leakage_statements
from mindvis.evaluation.pictures import DecodedSet, check_pictures, check_same_stimuli, list_pictures
from mindvis.evaluation.statistics import paired_difference

IMAGE_ARRAYS = ("train_images", "images")  # in an .npz of pictures
COMPARED = ("own_against_other", "within_class")  # figures that a table of baselines and ceilings shows


@dataclass(frozen=True)
class Training:
    """Training pictures uint8 [t h w 3], their classes [t], why there are none, and the names of their files [t]."""

    images: Pictures | None = None
    class_ids: list[int] | None = None
    note: str | None = None
    names: list[str] | None = None


@dataclass(frozen=True)
class Audited:
    """The audit of a folder, those of its baselines and ceilings, and its differences from these, paired."""

    main: Audit
    others: dict[str, Audit] = field(default_factory=dict)
    differences: dict[str, Finding] = field(default_factory=dict)  # minus/<figure>/<space>/<name>

    def as_dict(self) -> dict:
        """The content of audit.json."""
        keys = ("verdict", "steps", "placement", "evidence", "caveats")
        contents = {name: audit.as_dict() for name, audit in self.others.items()}
        others = {name: {key: content[key] for key in keys} for name, content in contents.items()}
        differences = {name: vars(finding) for name, finding in self.differences.items()}
        return self.main.as_dict() | {"others": others, "differences": differences}


def audit_sets(
    pictures: DecodedSet,
    controls: Mapping[str, DecodedSet],
    others: Mapping[str, DecodedSet],
    *,
    training: Training,
    spaces: list[Space],
    exposure: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Audited:
    """Audit decoded pictures with their controls, and every other set of the same stimuli by itself.

    Raises InputError where a control or another set has other stimuli.
    """
    check_same_stimuli(pictures, {**controls, **others})
    options: dict[str, Any] = {
        "training": training.images,
        "class_ids": pictures.class_ids,
        "training_class_ids": training.class_ids,
        "subjects": pictures.subjects,
        "features": spaces,
        "seed": seed,
    }
    given = {name: control.decoded for name, control in controls.items()}
    stage_a = leakage_statements(pictures.settings)[0]
    recorded = {} if stage_a["touched"] is None else {"stage_a": stage_a["text"]}
    declared = recorded | dict(exposure or {})
    main = audit_pictures(pictures.decoded, pictures.stimuli, controls=given, exposure=declared, **options)
    main.caveats += [line for line in map(kept_rows, [pictures, *controls.values()]) if line]
    main.caveats += [] if training.note is None else [training.note]
    subjects = pictures.settings.get("data", {}).get("subjects") or []
    if pictures.subjects is None and len(subjects) > 1:
        line = f"whose each row is of {len(subjects)} subjects is not recorded: intervals are over stimuli"
        main.caveats.append(line)
    found = {name: audit_pictures(other.decoded, other.stimuli, **options) for name, other in others.items()}
    differences = [f for name, other in found.items() for f in _differences(main, other, name, seed)]
    return Audited(main, found, {finding.name: finding for finding in differences})


def pooled(sets: Sequence[DecodedSet]) -> DecodedSet:
    """Pictures decoded from several subjects, a folder each, as one set; settings and path are those of the first.

    A subject is called as its folder says, or else by its folder. Raises InputError for pictures of another size or
    number a stimulus, and for two folders of one subject.
    """
    first = sets[0]
    known: set[str] = set()
    names = [each.subjects or [str(each.path)] * len(each.stimuli) for each in sets]
    for each, of_set in zip(sets, names, strict=True):
        if each.decoded.shape[1:] != first.decoded.shape[1:]:
            found, needed = (f"samples and sides {list(one.decoded.shape[1:4])}" for one in (each, first))
            raise InputError(f"{each.path}: {found}; needed: {needed}, as in {first.path}")
        if known & set(of_set):
            raise InputError(f"{each.path}: of subject {of_set[0]!r}, as an earlier folder; needed: a folder a subject")
        known |= set(of_set)
    classes = [each.class_ids for each in sets]
    return replace(
        first,
        decoded=np.concatenate([each.decoded for each in sets]),
        stimuli=np.concatenate([each.stimuli for each in sets]),
        stimulus_ids=[name for each in sets for name in each.stimulus_ids],
        class_ids=None if None in classes else [number for of_set in classes for number in of_set or ()],
        subjects=[name for of_set in names for name in of_set],
    )


def _differences(main: Audit, other: Audit, name: str, seed: int) -> list[Finding]:
    """Decoded minus another set, over the stimuli that both score."""
    found = []
    for figure in COMPARED:
        for key in [key for key in main.per_stimulus if key.startswith(f"{figure}/") and key in other.per_stimulus]:
            first, second = main.per_stimulus[key], other.per_stimulus[key]
            used = np.isfinite(first) & np.isfinite(second)
            if used.sum() > 1:
                value, low, high, p = paired_difference(first[used], second[used], seed)
                found.append(Finding(f"minus/{key}/{name}", value, low, high, 0.0, p, n=int(used.sum())))
    return found


def read_training(path: str | Path, side: int) -> Training:
    """Training pictures of a folder (read when needed, at `side` pixels), of a .npy (mapped), or of an .npz.

    Raises InputError for what holds no pictures.
    """
    path = Path(path)
    if path.is_dir():
        files = list_pictures(path)
        return Training(LazyImages(PictureFiles(list(files.values())), size=side), names=list(files))
    return Training(read_images(path))


@dataclass(frozen=True)
class MappedPictures:
    """Pictures [n h w 3] of a .npy that are read when a slice is asked for, and not kept."""

    path: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        return np.array(np.load(self.path, mmap_mode="r", allow_pickle=False)[rows])


def read_images(path: str | Path) -> "np.ndarray | MappedPictures":
    """Pictures uint8 [n h w 3] of a .npy, mapped, or of `train_images` or `images` of an .npz. Raises InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; needed: pictures uint8 [n h w 3] in a .npy or .npz")
    with reading(path):
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            check_pictures(found, str(path), "[n h w 3]")
            return MappedPictures(path, len(found))
        with found:
            name = next((name for name in IMAGE_ARRAYS if name in found), None)
            if name is None:
                raise InputError(f"{path}: found {', '.join(found.files)}, need one of {', '.join(IMAGE_ARRAYS)}")
            check_pictures(found[name], f"{path}: {name}", "[n h w 3]")
            return found[name]


def with_classes(pictures: DecodedSet, training: Training, path: str | Path) -> tuple[DecodedSet, Training]:
    """Classes by file name from a CSV of lines name,class. Raises InputError for a stimulus or picture without one."""
    class_of = _read_classes(Path(path))
    number = {name: place for place, name in enumerate(sorted(set(class_of.values())))}

    def numbers(names: list[str], what: str) -> list[int]:
        missing = next((name for name in names if name not in class_of), None)
        if missing is not None:
            raise InputError(f"{path}: no class of {what} {missing!r}, need a line name,class for each")
        return [number[class_of[name]] for name in names]

    named = replace(pictures, class_ids=numbers(pictures.stimulus_ids, "stimulus"))
    if training.names is not None:
        training = replace(training, class_ids=numbers(training.names, "training picture"))
    return named, training


def _read_classes(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; need a CSV with a header and lines name,class")
    rows = read_table(path)[1:]
    wrong = next((row for row in rows if len(row) < 2), None)
    if wrong is not None or not rows:
        raise InputError(f"{path}: found {wrong or 'no line'}, need a header and lines name,class")
    class_of: dict[str, str] = {}
    for row in rows:
        name = Path(row[0]).stem if Path(row[0]).suffix else row[0]
        if class_of.setdefault(name, row[1]) != row[1]:
            raise InputError(f"{path}: {name!r} is of class {class_of[name]!r} and of {row[1]!r}, need one")
    return class_of
