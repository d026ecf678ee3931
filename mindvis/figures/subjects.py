"""Decoded pictures and reports behind the figures: found, named, and brought to the same stimuli."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.evaluation.compare import REPORT, read_report
from mindvis.evaluation.pictures import ARRAYS, DecodedSet, read_decoded, read_generated, shrink


@dataclass(frozen=True)
class Subject:
    """What was decoded from one subject: `folder` of the pictures, `source` of the report (its file or folder)."""

    folder: Path
    source: Path
    label: str

    @cached_property
    def pictures(self) -> DecodedSet:
        """The decoded pictures. Raises InputError where there are none."""
        return read_decoded(self.folder)

    @cached_property
    def report(self) -> dict:
        """The content of report.json. Raises InputError before evaluate has written it."""
        return read_report(self.source)

    @property
    def has_report(self) -> bool:
        """Whether evaluate has been here."""
        return self.source.is_file() or (self.source / REPORT).is_file()

    def row_of(self, stimulus_id: str) -> int:
        """Position of a stimulus. Raises InputError for an unknown one."""
        if stimulus_id not in self.pictures.stimulus_ids:
            raise InputError(f"{self.folder}: no stimulus {stimulus_id!r}; needed: one of the ids in {ARRAYS}")
        return self.pictures.stimulus_ids.index(stimulus_id)

    def per_stimulus(self, score: str) -> dict[str, float]:
        """Score of each stimulus by id, where it has one. Raises InputError for a score the report lacks."""
        rows = self.report["per_stimulus"]
        if not rows or score not in rows[0]["scores"]:
            have = ", ".join(rows[0]["scores"]) if rows else "none"
            raise InputError(f"{self.source}: no score {score!r} a stimulus; needed: one of {have}")
        return {row["stimulus_id"]: row["scores"][score] for row in rows if row["scores"][score] is not None}


def find_subjects(entries: Sequence[str], labels: Sequence[str] | None = None) -> list[Subject]:
    """A subject for each decoded folder, run folder or report.json, in the order given. Raises InputError."""
    if labels is not None and len(labels) != len(entries):
        raise InputError(f"setting labels has {len(labels)} names; needed: {len(entries)}, one for each of decoded")
    places = [_places(Path(entry)) for entry in entries]
    names = list(labels) if labels is not None else _subject_names([folder for folder, _ in places])
    if len(set(names)) < len(names):
        raise InputError(f"decoded: two are named {max(names, key=names.count)!r}; needed: labels=[...], one for each")
    return [Subject(folder, source, name) for (folder, source), name in zip(places, names, strict=True)]


def shared_stimuli(subjects: Sequence[Subject], chosen: Sequence[str] | None, count: int) -> list[str]:
    """Ids of the stimuli to show: those chosen, or `count` spread over all that every subject has.

    Raises InputError where subjects have no stimulus in common, or another picture under the same id.
    """
    first, *others = subjects
    ids = [i for i in first.pictures.stimulus_ids if all(i in other.pictures.stimulus_ids for other in others)]
    if not ids:
        raise InputError(f"{others[0].folder}: no stimulus in common with {first.folder}; needed: the same test set")
    ids = list(chosen) if chosen is not None else spread(ids, count)
    for other in others:
        for i in ids:
            pair = [subject.pictures.stimuli[subject.row_of(i)] for subject in (first, other)]
            if not np.array_equal(*pair):
                found = f"{other.folder}: stimulus {i!r} is another picture than in {first.folder}"
                raise InputError(f"{found}; needed: the same test set")
    return ids


def spread(items: Sequence[str], count: int) -> list[str]:
    """`count` of the items at even distances, the first and the last among them; all where there are fewer."""
    if count < 1:
        raise InputError(f"setting num_stimuli is {count}; needed: at least 1")
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[round(place)] for place in places]


def at_most(pictures: np.ndarray, pixels: int) -> np.ndarray:
    """Pictures whose larger side has at most `pixels`: uint8 [.. h w 3]; larger ones become square."""
    if max(pictures.shape[-3:-1]) <= pixels:
        return pictures
    small = shrink(pictures.reshape(-1, *pictures.shape[-3:]), pixels)
    return np.asarray(small).reshape(*pictures.shape[:-3], pixels, pixels, 3)


def _places(path: Path) -> tuple[Path, Path]:
    """Folder of the pictures, and where the report is looked for."""
    if path.is_file():
        named = read_report(path)["provenance"].get("decoded")
        return path.parent if (path.parent / ARRAYS).is_file() or not named else Path(named), path
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; needed: a decoded folder, a run with one, or a report.json")
    inner = path / "decoded"
    folder = inner if (inner / ARRAYS).is_file() else path
    return folder, folder


def _subject_names(folders: Sequence[Path]) -> list[str]:
    """Subjects that the pictures were decoded from; names of the runs of own data, and where several are alike."""
    names = []
    for folder in folders:
        data = read_generated(folder).get("data", {}).get("settings", {})
        subjects = [] if data.get("name") == "npz" else data.get("subjects")
        names.append(" ".join(subjects or [_run_name(folder)]))
    return [_run_name(folder) if names.count(name) > 1 else name for folder, name in zip(folders, names, strict=True)]


def _run_name(folder: Path) -> str:
    folder = folder.resolve()
    return folder.parent.name if folder.name == "decoded" else folder.name
