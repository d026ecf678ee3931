"""Run folders: what a training writes, how it is begun, continued, and handed to the next stage.

config.yaml     the resolved settings          metrics.csv    curves, a function of settings and seed alone
manifest.json   command, versions, data ...    speed.csv      throughput and memory, which depend on the machine
checkpoints/    last, previous, best-<step>    figures/       pictures made on the way
"""

import atexit
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mindvis.common.errors import InputError, beside, joined
from mindvis.common.files import remove_temporaries, write_json, write_text
from mindvis.common.launched import global_rank
from mindvis.common.tensor_files import find_fault
from mindvis.common.texts import read_record
from mindvis.config.invocation import git_revision, now, this_command
from mindvis.config.loading import flatten, read_yaml

log = logging.getLogger(__name__)

STAGES = ("pretrain_mbm", "finetune_mbm", "finetune_ldm")
# Settings that change neither weights nor curves nor pictures: a run may go on with others.
FREE_SETTINGS = (
    "run_dir",
    "resume",
    "resume_override",
    "logging",
    "trainer.num_workers",
    "trainer.stall_seconds",
    "data.cache_dir",  # the same rows, kept elsewhere
    "extra_data.cache_dir",
    "trainer.checkpoint_every_steps",
    "trainer.checkpoint_every_minutes",
    "trainer.keep_best",
)
# Values that settings added later had before, so that a run of an earlier version goes on as it is.
LATER_SETTINGS = {"trainer.matmul_precision": "high", "trainer.deterministic": False}
LATER_SETTINGS |= {"data.adapter_steps": 0, "extra_data.adapter_steps": 0}
_PACKAGES = ("mindvis", "torch", "pytorch-lightning", "timm", "numpy")


@dataclass(frozen=True)
class Run:
    """A run folder; `resume_from` is the checkpoint its training goes on from, or None for the beginning."""

    path: Path
    stage: str
    settings: dict
    resume_from: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def continues(self) -> bool:
        """Whether the checkpoint it goes on from is its own; a new run may also begin with that of another."""
        return self.resume_from is not None and self.resume_from.resolve().parent == self.checkpoints.resolve()

    @property
    def manifest(self) -> dict:
        """Contents of manifest.json, empty before it is written."""
        path = self.path / "manifest.json"
        return read_record(path) if path.is_file() else {}

    def record(self, **facts: Any) -> None:
        """Add facts (data hashes, seeds, what fMRI was seen ...) to manifest.json; only the first process writes."""
        if global_rank() == 0:
            write_json(self.path / "manifest.json", self.manifest | facts)

    def checkpoint(self, which: str = "best") -> Path:
        """The undamaged checkpoint to use: `best` (of Stage A by val/loss, of Stage B by decoding), `last`, `selected`.

        Without validation the best is the last. `selected` is what the setting `selection` of the run says, the last
        one in a run without it. Raises `InputError` when there is no undamaged one.
        """
        selects = self.settings.get("selection", "last") != "last"
        if which == "best" or (which == "selected" and selects):
            scores = self.checkpoints / "best.json"
            ranked = read_record(scores) if scores.is_file() else {}  # the best first
            for name in ranked:
                if find_fault(self.checkpoints / name) is None:
                    return self.checkpoints / name
            if selects:
                log.warning("%s: its selection has chosen no checkpoint yet; the last one is taken", self.path)
        found = newest_checkpoint(self.checkpoints)
        if found is None:
            raise InputError(f"{self.path}: no checkpoint yet; needed: a run that has saved one")
        return found


def create_run(path: str | Path, *, stage: str, settings: dict, resume: str, resume_override: bool) -> Run:
    """Begin a run in `path`, or continue the one that is there.

    `resume`: `auto` continues it, `never` refuses a used folder, anything else is the path of a checkpoint to go on
    from; the same command given again, by a queue for instance, continues the run that came of it. Raises `InputError`
    for a folder that cannot be written, a run of another stage, settings that differ from those the run was begun with
    (naming them, unless `resume_override`), or no whole checkpoint where some are.
    """
    if settings.get("trainer", {}).get("fast_dev_run"):
        folder = tempfile.mkdtemp(prefix="mindvis-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Run(Path(folder), stage, settings)
    run = Run(Path(path), stage, settings)
    start = _start(run, resume)
    if global_rank() == 0:
        _check_unchanged(run, start, resume_override)
        _make_folders(run)
        _write_settings(run, resume, resumed=start is not None)
    return Run(run.path, stage, settings, start)


def open_run(path: str | Path, *, stages: Sequence[str]) -> Run:
    """The run folder of an earlier stage. Raises `InputError` if it is none, of another stage, or has no checkpoint."""
    path = Path(path)
    if not (path / "config.yaml").is_file():
        needed = f"needed: a folder that {' or '.join(stages)} wrote"
        raise InputError(joined(f"{path}: no run folder (config.yaml is missing)", needed, beside(path)))
    stage = _stage(path)
    if stage not in stages:
        raise InputError(f"{path}: a run of {stage}; needed: one of {' or '.join(stages)}")
    run = Run(path, stage, read_run_settings(path))
    run.checkpoint("last")
    return run


def newest_checkpoint(folder: Path) -> Path | None:
    """`last`, or the newest whole one before it, with a warning. Raises `InputError` when all are damaged."""
    saved = [folder / "last.ckpt", folder / "previous.ckpt", *sorted(folder.glob("best-*.ckpt"), reverse=True)]
    faults: list[str] = []
    for path in filter(Path.is_file, saved):
        fault = find_fault(path)
        if fault is None:
            if faults:
                log.warning("%s; using %s", "; ".join(faults), path)
            return path
        faults.append(f"{path} is {fault}")
    if faults:
        raise InputError(f"{'; '.join(faults)}; needed: one whole checkpoint, or a new run_dir")
    return None


def _make_folders(run: Run) -> None:
    for folder in (run.path, run.checkpoints, run.figures):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); needed: a writable run_dir") from error
        remove_temporaries(folder)


def _start(run: Run, resume: str) -> Path | None:
    if resume == "auto":
        return newest_checkpoint(run.checkpoints)
    if resume == "never":
        if global_rank() == 0 and (run.path / "config.yaml").exists():
            raise InputError(f"{run.path}: holds a run already; needed: resume=auto, or another run_dir")
        return None
    own = newest_checkpoint(run.checkpoints)
    if own is not None and run.manifest.get("resume_path") == resume:
        log.warning("%s began from %s; going on with %s", run.path, resume, own)
        return own
    path = Path(resume)
    fault = find_fault(path)
    if fault:
        raise InputError(f"resume={resume}: {fault}; needed: auto, never, or the path of a checkpoint")
    if global_rank() == 0 and path.resolve().parent != run.checkpoints.resolve() and own is not None:
        raise InputError(f"{run.path}: holds another run than {resume}; needed: another run_dir")
    return path


def _check_unchanged(run: Run, start: Path | None, override: bool) -> None:
    """Compare with the folder that is continued: this one, or the one the given checkpoint lies in."""
    begun = run.path if start is None else start.resolve().parent.parent
    if not (begun / "config.yaml").is_file():
        return
    if _stage(begun) != run.stage:
        raise InputError(f"{begun}: a run of {_stage(begun)}; needed: another run_dir for {run.stage}")
    changes = changed_settings(read_run_settings(begun), run.settings)
    if changes and not override and start is not None:
        raise InputError(
            f"{begun}: begun with other settings: {', '.join(changes)}; "
            "needed: the same ones, another run_dir, or resume_override=true"
        )


def changed_settings(old: dict, new: dict) -> list[str]:
    """`key (old -> new)` for every setting that differs and could change results."""
    before, after = LATER_SETTINGS | flatten(old), LATER_SETTINGS | flatten(new)
    keys = [key for key in before | after if before.get(key, "absent") != after.get(key, "absent")]
    bound = [key for key in keys if not any(key == free or key.startswith(free + ".") for free in FREE_SETTINGS)]
    return [f"{key} ({before.get(key, 'absent')} -> {after.get(key, 'absent')})" for key in bound]


def _write_settings(run: Run, resume: str, resumed: bool) -> None:
    write_text(run.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(run.settings)))
    started = now()
    old = run.manifest if resumed else {}
    run.record(
        stage=run.stage,
        command=this_command(),
        started=old.get("started", started),
        resumed=[*old.get("resumed", []), started] if resumed else [],
        resume_path=old.get("resume_path") if resume == "auto" else resume,
        finished=None,
        wall_seconds=old.get("wall_seconds", 0.0),
        versions={"python": sys.version.split()[0]} | {name: _version(name) for name in _PACKAGES},
        git_revision=git_revision(),
    )


def read_run_settings(path: Path) -> dict:
    """The settings a run was begun with. Raises `InputError` for a damaged file."""
    return read_yaml(path / "config.yaml")


def _stage(path: Path) -> str:
    try:
        return str(read_record(path / "manifest.json")["stage"])
    except (InputError, KeyError) as error:
        raise InputError(f"{path / 'manifest.json'}: missing or unreadable; needed: a folder of a training") from error


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
