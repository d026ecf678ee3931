"""What a folder of runs has done: chain.json, with settings, and digests of what each step reads and leaves.

Also what a step reads that nobody has put there.
"""

import fcntl
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mindvis
from mindvis.chain.plan import TRAININGS, Step, binding
from mindvis.checkpoints import find_ldm, is_diffusers
from mindvis.checkpoints.published import published_source
from mindvis.common.errors import InputError
from mindvis.common.files import digest, sha256, write_json
from mindvis.common.texts import read_record
from mindvis.config.loading import flatten
from mindvis.data.hcp import FILE_NAME as HCP_FILE
from mindvis.evaluation.classifiers import check_classifier_weights
from mindvis.inspection.hidden_voxels import SCORE_FILE
from mindvis.training.runs import FREE_SETTINGS, changed_settings

RECORD, FILES, LOCK = "chain.json", "files.json", ".chain.lock"
SCHEMA = "mindvis.chain/1"
# Where things lie or how fast they run: no part of a result. Files count by what is in them.
FREE: tuple[str, ...] = (*FREE_SETTINGS, "out", "output", "overwrite", "device", "num_threads", "batch_size")
FREE += ("data.root", "data.cache_dir", "extra_data.root", "extra_data.cache_dir")
FILE_SETTINGS: tuple[str, ...] = ("pretrained", "encoder", "start", "ldm", "run", "decoded", "images", "fmri_encoder")
FILE_SETTINGS += ("training_images", "classifier_weights", "lpips_weights", "fid_weights")
FILE_SETTINGS += ("features", "controls", "baselines")
RESULTS = {"score_mbm": SCORE_FILE, "generate": "decoded.npz", "baseline_ridge": "decoded.npz"}
RESULTS |= {"evaluate": "report.json", "demo_summary": "summary.txt"}


class Record:
    """The record of one root folder; every change is written at once, whole or not at all."""

    def __init__(self, root: Path):
        self.path, self.lock = root / RECORD, threading.Lock()
        self.hashes = FileHashes(root / FILES)
        self.steps: dict[str, dict[str, Any]] = _read(self.path)

    def update(self, step: Step, **facts: Any) -> None:
        """Add facts to what is known of a step."""
        with self.lock:
            self.steps[step.name] = self.steps.get(step.name, {}) | facts
            content = {"schema": SCHEMA, "version": mindvis.__version__, "steps": self.steps}
            write_json(self.path, content)

    def identity(self, step: Step) -> dict:
        """All that the result of a step follows from: version, binding settings, digests of its inputs."""
        return {
            "version": mindvis.__version__,
            "settings": binding(step.settings, FREE + FILE_SETTINGS),
            "inputs": describe_inputs(step.stage, step.settings, self.hashes),
        }

    def output(self, step: Step) -> str | None:
        """Digest of what the step left, None where it has not ended."""
        folder = step.folder
        if step.stage in TRAININGS:
            manifest = folder / "manifest.json"
            if not manifest.is_file() or not read_record(manifest).get("finished"):
                return None
            files = _run_files(folder)
        elif step.stage == "simulate":
            files = [*folder.glob("*/npz/*"), *folder.glob(f"HCP/npz/*/{HCP_FILE}")]
        else:
            files = [folder / RESULTS[step.stage]]
        found = self.hashes.of_files(files, folder)
        return None if found == "absent" else found

    def why(self, step: Step) -> str | None:
        """Why a step has to run, from what was recorded of it and what lies in its folder; None where it is done."""
        known = self.steps.get(step.name)
        if known is None:
            return "not run yet"
        change = _change(known["identity"], self.identity(step))
        if change:
            return change
        if known["state"] != "done":
            return "cut off before" if known["state"] == "running" else f"{known['state']} before"
        output = self.output(step)
        if output == known["output"]:
            return None
        return f"{step.folder} {'is gone' if output is None else 'holds something else'}"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other chains out of a root folder. Raises `InputError` while one is at work there."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{root}: another chain is at work there; needed: another root, or wait for it") from error
        yield


class FileHashes:
    """SHA-256 of files, kept in a JSON file beside size and time of change, so that each is read once."""

    def __init__(self, cache: Path):
        self.cache, self.lock = cache, threading.Lock()
        self.known: dict[str, list] = read_record(cache) if cache.is_file() else {}

    def of_file(self, path: Path) -> str:
        """Digest of a file."""
        status, name = path.stat(), str(path.resolve())
        state = [status.st_size, status.st_mtime_ns]
        entry = self.known.get(name, [])
        if entry[:2] != state:
            entry = [*state, sha256(path)]
            with self.lock:
                self.known[name] = entry
        return entry[2]

    def of_files(self, paths: Iterable[Path], base: Path) -> str:
        """Digest of several files and their names below `base`, hidden ones left out; `absent` where there is none."""
        files = [path for path in sorted(paths) if path.is_file() and path.name[0] != "."]
        entries = [[str(path.relative_to(base)), self.of_file(path)] for path in files]
        return digest([json.dumps(entries)]) if entries else "absent"

    def save(self) -> None:
        """Write the cache, where its folder is there."""
        if self.cache.parent.is_dir():
            with self.lock:
                write_json(self.cache, self.known)


def describe_inputs(stage: str, settings: dict, hashes: FileHashes) -> dict[str, str]:
    """Digest of everything a stage reads, by the setting that names it."""
    digests: dict[str, list[str]] = {}
    for key, path in _named_files(settings):
        digests.setdefault(key, []).append(_digest(key, path, hashes))
    found = {key: " ".join(of_key) for key, of_key in digests.items()}
    for key in ("data", "extra_data"):
        if settings.get(key):
            root = Path(settings[key]["root"])
            found[key] = hashes.of_files(data_files(settings[key]), root if root.is_dir() else root.parent)
    if stage == "demo_summary":
        folder = Path(settings["output"] or settings["decoded"])
        found["report"] = hashes.of_files([folder / RESULTS["evaluate"]], folder)
    return found


# Patterns of a layout's files below its root: those of a subject, in whose place {} stands, and those of all subjects.
SUBJECT_FILES = {
    "god": ["{}.npz"],
    "hcp": [f"{{}}/{HCP_FILE}"],
    "bold5000": ["*_ROI_betas/py/{}_*.npy", "BOLD5000_Stimuli/Stimuli_Presentation_Lists/{}/*/*.txt"],
    "mosaic": ["{}.hdf5"],
    "nsd": ["{}/*"],
}
SHARED_FILES = {
    "god": ["images_256.npz", "imagenet_*"],
    "bold5000": ["BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli/img_dict*", "BOLD5000_Stimuli/*/*.txt"],
}


def data_files(data: dict) -> list[Path]:
    """Files that hold the fMRI and the pictures of a data set (nested settings of `DataConfig`).

    The pictures of MOSAIC and NSD, tens of gigabytes that their authors distribute, are left out.
    """
    root, name, subjects = Path(data["root"]), data["name"], data["subjects"] or ["*"]
    if data.get("reference") not in (None, *subjects) and data["subjects"]:
        subjects = [*subjects, data["reference"]]
    if name == "npz":
        if not root.is_dir():
            return [root]
        return [root / f"{subject}.npz" for subject in subjects] if data["subjects"] else sorted(root.glob("*.npz"))
    patterns = [pattern.format(subject) for pattern in SUBJECT_FILES.get(name, []) for subject in subjects]
    patterns += SHARED_FILES.get(name, [])
    return sorted({path for pattern in patterns for path in root.glob(pattern)})


def absent_inputs(steps: Sequence[Step], pending: Sequence[Step]) -> list[str]:
    """One line for every input of a `pending` step that is not there and that none of `steps` makes."""
    made = [step.folder.resolve() for step in steps]
    lines = []
    for step in pending:
        for key, path, what in _absent(step.settings):
            if not any(path.resolve().is_relative_to(folder) for folder in made):
                lines.append("; ".join(filter(None, (f"{what} ({key} of {step.stage})", published_source(path)))))
        try:
            _check_networks(step)
        except InputError as error:
            setting = "classifier_weights" if step.stage == "evaluate" else "pretext.resnet"
            lines.append(f"{error} ({setting} of {step.stage})")
    return list(dict.fromkeys(lines))


def _check_networks(step: Step) -> None:
    """Raise InputError where the weights of a network beside the models are absent."""
    settings = step.settings
    if step.stage == "evaluate":
        check_classifier_weights(settings["classifier"], settings["classifier_weights"])
    if step.stage == "pretrain_mbm" and settings["pretext"]["weight"]:
        from mindvis.sc_mbm.pretext import find_resnet  # with it come the networks

        find_resnet(settings["pretext"]["resnet"])


def _read(path: Path) -> dict:
    if not path.is_file():
        return {}
    content = read_record(path)
    if content.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {content.get('schema')!r}; needed: {SCHEMA}, or another root")
    return content["steps"]


def _change(before: dict, now: dict) -> str | None:
    """What changed, in a few words, or None."""
    if before["version"] != now["version"]:
        return f"mindvis {before['version']} -> {now['version']}"
    changes = changed_settings(before["settings"], now["settings"])
    if changes:
        return "changed: " + ", ".join(changes)
    names = before["inputs"].keys() | now["inputs"].keys()
    inputs = sorted(name for name in names if before["inputs"].get(name) != now["inputs"].get(name))
    return f"input changed: {', '.join(inputs)}" if inputs else None


def _named_files(settings: dict) -> Iterator[tuple[str, Path]]:
    """What the settings of a stage name by a path: the setting and the file or folder."""
    for key, value in flatten({name: settings.get(name) for name in FILE_SETTINGS}).items():
        for path in value if isinstance(value, list) else [value]:
            if path:
                yield key, find_ldm(path) if key == "ldm" else Path(path)


def _digest(key: str, path: Path, hashes: FileHashes) -> str:
    if path.is_file():
        beside = [path.with_name("config.yaml")] if key == "ldm" else []
        return hashes.of_files([path, *beside], path.parent)
    if key == "ldm" and is_diffusers(path):
        return hashes.of_files(path.rglob("*"), path)
    if (path / "checkpoints").is_dir():
        return hashes.of_files(_run_files(path), path)
    if (path / "decoded.npz").is_file():
        return hashes.of_files([path / "decoded.npz", *path.glob("*/decoded.npz")], path)
    return hashes.of_files(path.glob("*"), path)


def _absent(settings: dict) -> Iterator[tuple[str, Path, str]]:
    """Settings of a stage that name files or folders, with the path that is not there and what to call it."""
    for key, path in _named_files(settings):
        if path != Path("auto") and not path.exists():
            yield key, path, str(path)
    for key in ("data", "extra_data"):
        if settings.get(key) and not any(path.exists() for path in data_files(settings[key])):
            root, whose = settings[key]["root"], ", ".join(settings[key]["subjects"] or [])
            yield f"{key}.root", Path(root), f"{settings[key]['name']} data{' of ' * bool(whose)}{whose} in {root}"


def _run_files(folder: Path) -> list[Path]:
    return [folder / "checkpoints" / "last.ckpt", *(folder / "checkpoints").glob("best*")]
