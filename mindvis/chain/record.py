"""What a folder of runs has done: chain.json, with settings, and digests of what each step reads and leaves.

Also what a step reads that nobody has put there.
"""

import fcntl
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindvis
from mindvis.chain.plan import TRAININGS, Step, binding
from mindvis.checkpoints import find_ldm, is_diffusers
from mindvis.checkpoints.published import published_source
from mindvis.common.errors import InputError
from mindvis.common.files import digest, sha256, write_json
from mindvis.config.loading import flatten
from mindvis.data.hcp import FILE_NAME as HCP_FILE
from mindvis.evaluation.classifiers import check_classifier_weights
from mindvis.inspection.hidden_voxels import SCORE_FILE
from mindvis.training.runs import FREE_SETTINGS, changed_settings

RECORD, FILES, LOCK = "chain.json", "files.json", ".chain.lock"
SCHEMA = "mindvis.chain/1"
# Where things lie or how fast they run: no part of a result. Files count by what is in them.
FREE: tuple[str, ...] = (
    *(*FREE_SETTINGS, "out", "output", "overwrite", "device", "num_threads", "batch_size"),
    *("data.root", "data.cache_dir", "extra_data.root", "extra_data.cache_dir"),
)
FILE_SETTINGS = (
    *("pretrained", "encoder", "start", "ldm", "run", "decoded", "images", "fmri_encoder", "training_images"),
    *("classifier_weights", "lpips_weights", "fid_weights", "features", "controls", "baselines"),
)
RESULTS = {"score_mbm": SCORE_FILE, "generate": "decoded.npz", "baseline_ridge": "decoded.npz"}
RESULTS |= {"evaluate": "report.json", "demo_summary": "summary.txt"}


@dataclass(frozen=True)
class Verdict:
    """Whether a step is done and may be skipped, and if not, why it has to run."""

    done: bool
    reason: str


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
        return describe_output(step.stage, step.folder, self.hashes)

    def judge(self, step: Step) -> Verdict:
        """Compare a step with what was recorded of it and with what lies in its folder."""
        known = self.steps.get(step.name)
        if known is None:
            return Verdict(False, "not run yet")
        change = _difference(known["identity"], self.identity(step))
        if change:
            return Verdict(False, change)
        if known["state"] != "done":
            return Verdict(False, "cut off before" if known["state"] == "running" else f"{known['state']} before")
        output = self.output(step)
        if output != known["output"]:
            return Verdict(False, f"{step.folder} {'is gone' if output is None else 'holds something else'}")
        return Verdict(True, "done")


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
        self.known: dict[str, list] = json.loads(cache.read_text()) if cache.is_file() else {}

    def of_file(self, path: Path) -> str:
        """Digest of a file."""
        status = path.stat()
        state = [status.st_size, status.st_mtime_ns]
        with self.lock:
            entry = self.known.get(str(path.resolve()))
        if entry is None or entry[:2] != state:
            entry = [*state, sha256(path)]
            with self.lock:
                self.known[str(path.resolve())] = entry
        return entry[2]

    def of_files(self, paths: Iterable[Path], base: Path) -> str:
        """Digest of several files and their names below `base`, hidden ones left out; `absent` where there is none."""
        entries = [
            [str(path.relative_to(base)), self.of_file(path)]
            for path in sorted(paths)
            if path.is_file() and path.name[0] != "."
        ]
        return digest([json.dumps(entries)]) if entries else "absent"

    def save(self) -> None:
        """Write the cache, where its folder is there."""
        if self.cache.parent.is_dir():
            with self.lock:
                write_json(self.cache, self.known)


def describe_inputs(stage: str, settings: dict, hashes: FileHashes) -> dict[str, str]:
    """Digest of everything a stage reads, by the setting that names it."""
    found = {}
    for key, value in flatten({name: settings.get(name) for name in FILE_SETTINGS}).items():
        paths = value if isinstance(value, list) else [value]
        digests = [_digest(key, Path(path), hashes) for path in paths if path]
        if digests:
            found[key] = " ".join(digests)
    for key in ("data", "extra_data"):
        if settings.get(key):
            root = Path(settings[key]["root"])
            found[key] = hashes.of_files(data_files(settings[key]), root if root.is_dir() else root.parent)
    if stage == "demo_summary":
        folder = Path(settings["output"] or settings["decoded"])
        found["report"] = hashes.of_files([folder / RESULTS["evaluate"]], folder)
    return found


def describe_output(stage: str, folder: Path, hashes: FileHashes) -> str | None:
    """Digest of what a step left in its folder, or None where it has not ended."""
    if stage in TRAININGS:
        manifest = folder / "manifest.json"
        if not manifest.is_file() or not json.loads(manifest.read_text()).get("finished"):
            return None
        digest = hashes.of_files(_run_files(folder), folder)
    elif stage == "simulate":
        digest = hashes.of_files([*folder.glob("*/npz/*"), *folder.glob(f"HCP/npz/*/{HCP_FILE}")], folder)
    else:
        digest = hashes.of_files([folder / RESULTS[stage]], folder)
    return None if digest == "absent" else digest


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
        if step.stage == "evaluate":
            lines += _absent_classifier(step.settings)
        if step.stage == "pretrain_mbm":
            lines += _absent_resnet(step.settings)
    return list(dict.fromkeys(lines))


def _read(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error}); needed: the file a chain wrote, or none") from error
    if content.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {content.get('schema')!r}; needed: {SCHEMA}, or another root")
    return content["steps"]


def _difference(before: dict, now: dict) -> str | None:
    """What changed, in a few words, or None."""
    if before["version"] != now["version"]:
        return f"mindvis {before['version']} -> {now['version']}"
    changes = changed_settings(before["settings"], now["settings"])
    if changes:
        return "changed: " + ", ".join(changes)
    names = before["inputs"].keys() | now["inputs"].keys()
    inputs = sorted(name for name in names if before["inputs"].get(name) != now["inputs"].get(name))
    return f"input changed: {', '.join(inputs)}" if inputs else None


def _digest(key: str, path: Path, hashes: FileHashes) -> str:
    path = find_ldm(str(path)) if key == "ldm" else path
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
    for key, value in flatten({name: settings.get(name) for name in FILE_SETTINGS}).items():
        for path in value if isinstance(value, list) else [value]:
            if not path or path == "auto":
                continue
            path = find_ldm(path) if key == "ldm" else Path(path)
            if not path.exists():
                yield key, path, str(path)
    for key in ("data", "extra_data"):
        if settings.get(key) and not any(path.exists() for path in data_files(settings[key])):
            root, whose = settings[key]["root"], ", ".join(settings[key]["subjects"] or [])
            yield f"{key}.root", Path(root), f"{settings[key]['name']} data{' of ' * bool(whose)}{whose} in {root}"


def _absent_classifier(settings: dict) -> Iterator[str]:
    try:
        check_classifier_weights(settings["classifier"], settings["classifier_weights"])
    except InputError as error:
        yield f"{error} (classifier_weights of evaluate)"


def _absent_resnet(settings: dict) -> Iterator[str]:
    """The weights behind the image-feature pretext, where it is on."""
    from mindvis.sc_mbm.pretext import find_resnet  # with it come the networks

    try:
        if settings["pretext"]["weight"]:
            find_resnet(settings["pretext"]["resnet"])
    except InputError as error:
        yield f"{error} (pretext.resnet of pretrain_mbm)"


def _run_files(folder: Path) -> list[Path]:
    return [folder / "checkpoints" / "last.ckpt", *(folder / "checkpoints").glob("best*")]
