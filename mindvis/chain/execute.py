"""Running the steps of a chain: what is done is skipped, a failure ends one subject, the rest goes on."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from queue import SimpleQueue

from mindvis.chain.plan import TRAININGS, Step
from mindvis.chain.processes import HEADER, SAVED_AND_STOPPED, Launch, last_line, visible_devices, write_settings
from mindvis.chain.record import Record, absent_inputs
from mindvis.common.errors import InputError
from mindvis.config.invocation import step_command

Say = Callable[[str], None]


@dataclass
class Runner:
    """Runs steps below a root folder and keeps its record; `say` gets one line for every event."""

    root: Path
    record: Record
    launch: Launch
    say: Say
    done: set[str] = field(default_factory=set)  # names of the steps that are up to date
    stopped: bool = False  # a stage was asked to save and stop
    begun: dict[str, threading.Lock] = field(default_factory=dict)  # by step: chains side by side may share it

    def run(self, steps: Sequence[Step], device: str | None = None) -> bool:
        """Run steps in their order until one fails; returns whether all are done."""
        for step in steps:
            # whoever comes second waits, and then finds it done
            with self.begun.setdefault(step.name, threading.Lock()):
                if self.stopped:
                    return False
                reason = self.record.why(step)
                if reason is None:
                    self.say(f"{step.name}: done before")
                elif not self._run(step, reason, device):
                    return False
            self.done.add(step.name)
        return True

    def _run(self, step: Step, reason: str, device: str | None) -> bool:
        settings = self.root / "steps" / f"{step.file_name}.yaml"
        log = self.root / "logs" / f"{step.file_name}.log"
        self._make_room(step)
        identity = self.record.identity(step)
        self.record.hashes.save()
        write_settings(step, settings)
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(f"{HEADER}{started} {step.stage} --config {settings}\n")
        self.say(f"{step.name}: running ({reason}), log {log}")
        facts = {"stage": step.stage, "subject": step.subject, "folder": str(step.folder), "log": str(log)}
        self.record.update(step, state="running", identity=identity, started=started, **facts)
        begun = time.monotonic()
        status = self.launch(step, settings, log, device)
        return self._conclude(step, status, time.monotonic() - begun, log)

    def _conclude(self, step: Step, status: int, seconds: float, log: Path) -> bool:
        output = self.record.output(step) if status == 0 else None
        self.record.hashes.save()
        done = output is not None
        self.stopped |= status == SAVED_AND_STOPPED
        state = "done" if done else "stopped" if status == SAVED_AND_STOPPED else "failed"
        self.record.update(step, state=state, status=status, seconds=round(seconds, 1), output=output)
        self.say(f"{step.name}: done in {seconds:.0f} s" if done else _trouble(step, status, log))
        return done

    def _make_room(self, step: Step) -> None:
        """Move a training aside that was begun with other settings or inputs: days of work are not deleted."""
        known = self.record.steps.get(step.name)
        if step.stage not in TRAININGS or known is None or not any(step.folder.glob("checkpoints/*.ckpt")):
            return
        same = known["identity"] == self.record.identity(step)
        if same and (known["state"] != "done" or self.record.output(step) == known["output"]):
            return
        names = (step.folder.with_name(f"{step.folder.name}.old-{n}") for n in count(1))
        target = next(name for name in names if not name.exists())
        step.folder.rename(target)
        self.say(f"{step.name}: what was there is kept as {target}")


def run_subjects(runner: Runner, steps: Sequence[Step], num_devices: int) -> list[Step]:
    """Run the shared steps, then every subject's, `num_devices` subjects at a time; returns the steps not done.

    With one device a subject sees all that are visible; with more, each one of them.
    """
    if runner.run([step for step in steps if step.subject is None]):
        subjects = dict.fromkeys(step.subject for step in steps if step.subject is not None)
        own = [[step for step in steps if step.subject == subject] for subject in subjects]
        if num_devices == 1:
            for group in own:
                runner.run(group)
        else:
            _run_side_by_side(runner, own, num_devices)
    return [step for step in steps if step.name not in runner.done]


def _run_side_by_side(runner: Runner, groups: Sequence[Sequence[Step]], num_devices: int) -> None:
    devices: SimpleQueue = SimpleQueue()
    for name in visible_devices(num_devices):
        devices.put(name)

    def run_one(group: Sequence[Step]) -> None:
        device = devices.get()
        try:
            runner.run(group, device)
        finally:
            devices.put(device)

    with ThreadPoolExecutor(num_devices) as pool:
        list(pool.map(run_one, groups))


def ready(steps: Sequence[Step], record: Record, *, dry_run: bool, say: Say) -> bool:
    """Whether to begin: not in a dry run, which shows the plan and what is absent.

    Raises `InputError` where a step that is not done reads what is absent and no other step makes.
    """
    absent = absent_inputs(steps, [step for step in steps if record.why(step)])
    for line in [*describe_plan(steps, record), *(f"absent {what}" for what in absent)] if dry_run else []:
        say(line)
    if absent:
        more = f", and {len(absent) - 1} more (dry_run=true lists them)" if len(absent) > 1 else ""
        raise InputError(f"an input is absent: {absent[0]}{more}; needed before the first step of the chain")
    return not dry_run


def to_go_on(script: str, argv: Sequence[str] | None) -> str:
    """The command that goes on, as a line."""
    return "to go on: " + step_command(script, list(sys.argv[1:] if argv is None else argv))


def describe_plan(steps: Sequence[Step], record: Record) -> list[str]:
    """What a run would do: one line a step, with the reason."""
    lines, pending = [], set()
    for step in steps:
        waits = [name for name in step.needs if name in pending]
        reason = record.why(step)
        if reason is None and not waits:
            lines.append(f"skip  {step.name}: done")
            continue
        pending.add(step.name)
        if waits and "changed" not in (reason or ""):
            reason = f"after {waits[-1]}"
        lines.append(f"run   {step.name}: {reason}; {step.stage} -> {step.folder}")
    return lines


def _trouble(step: Step, status: int, log: Path) -> str:
    """What became of a step that is not done, and what to do about it: one line."""
    what = f"{step.name}: {step.stage}" + (f" of {step.subject}" if step.subject else "")
    if status == SAVED_AND_STOPPED:
        then = "goes on from what it has saved" if step.stage in TRAININGS else "begins anew"
        return f"{what} stopped on a signal; given the same command again, it {then}; log {log}"
    said, how = last_line(log) or "it has said nothing", f"status {status}"
    if status < 0:
        how = f"ended by {signal.Signals(-status).name}" + ", often for lack of memory" * (status == -signal.SIGKILL)
    if status == 0:
        said = f"left nothing in {step.folder}"
    return f"{what} failed ({how}): {said}; log {log}; to go on, mend the cause and give the same command again"
