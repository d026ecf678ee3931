"""What is there, what is missing and what is broken: the findings that make up the report of one data set."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import sha256
from mindvis.prepare.origins import Origin
from mindvis.prepare.scaling import bad_voxels

Level = Literal["ok", "differs", "missing", "broken"]
COMPLETE, INCOMPLETE, BROKEN = 0, 1, 2
STATUS: dict[Level, int] = {"ok": COMPLETE, "differs": INCOMPLETE, "missing": INCOMPLETE, "broken": BROKEN}
WORDS = ("complete", "incomplete", "broken")


@dataclass(frozen=True)
class Settings:
    """What is checked: published sizes (off for simulated or own data), values and hashes (off: headers only)."""

    published_sizes: bool = True
    read_values: bool = True


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    text: str


@dataclass
class Report:
    """Findings on one data set; its status is that of the worst."""

    name: str
    root: Path
    origins: Sequence[Origin]
    findings: list[Finding] = field(default_factory=list)

    def add(self, level: Level, text: str) -> None:
        """Add one line."""
        self.findings.append(Finding(level, text))

    def attempt(self, check: Callable[..., None], *args: object) -> None:
        """Run one check; an InputError of it is a finding "broken" and does not stop the others."""
        try:
            check(self, *args)
        except InputError as error:
            self.add("broken", str(error))

    def expect(self, what: str, found: object, published: object) -> None:
        """A finding "differs" when a size is not the published one."""
        if found != published:
            self.add("differs", f"{what}: {found}, published {published}")

    @property
    def status(self) -> int:
        """0 complete, 1 incomplete, 2 broken."""
        return max((STATUS[finding.level] for finding in self.findings), default=INCOMPLETE)

    def lines(self) -> Iterator[str]:
        """The report as text: findings, where to obtain what is missing, the verdict."""
        yield f"{self.name}  {self.root}"
        yield from (f"  {finding.level:8} {finding.text}" for finding in self.findings)
        if any(finding.level == "missing" for finding in self.findings):
            yield from (f"           {line}" for origin in self.origins for line in origin.lines())
        yield f"{self.name}: {WORDS[self.status]}"


def count_constant(rows: np.ndarray, where: str) -> int:
    """Number of constant voxels, rows [n v]; raises InputError for NaN or infinity."""
    broken = int((~np.isfinite(rows)).sum())
    if broken:
        raise InputError(f"{where}: {broken} of {rows.size} values are NaN or infinite; needs finite values")
    return int(bad_voxels(rows).sum())


def short_hash(path: Path, settings: Settings) -> str:
    """The first 16 digits of the SHA-256, as an ending of a line."""
    return f", sha256 {sha256(path)[:16]}" if settings.read_values else ""
