"""What is timed: a piece of work in one precision, done our way or the plain way."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """Which work, in which precision, and whether as the published recipe does it."""

    work: str
    precision: str = "32-true"
    plain: bool = False


@dataclass(frozen=True)
class Work:
    """A call that can be timed again and again, and the items it processes.

    `scale` multiplies time and operations where a call does only that part of the work.
    """

    name: str
    call: Callable[[], object]
    items: float
    unit: str
    scale: float = 1.0
    close: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Usage:
    """What a work takes besides time: peak bytes of its process (None: not known) and operations of a call."""

    peak_bytes: int | None
    flops: float
