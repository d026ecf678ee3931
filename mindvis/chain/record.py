"""chain.json: what has been done in a folder of runs, with which settings and inputs."""

import fcntl
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindvis
from mindvis.chain.inputs import FILE_SETTINGS, FREE, FileHashes, describe_inputs, describe_output
from mindvis.chain.plan import Step
from mindvis.chain.settings import binding
from mindvis.common.errors import InputError
from mindvis.common.files import write_json
from mindvis.training.runs import changed_settings

RECORD, FILES, LOCK = "chain.json", "files.json", ".chain.lock"
SCHEMA = "mindvis.chain/1"


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
