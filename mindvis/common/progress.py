"""Progress of long work: a bar on a terminal, and now and then a line where the output goes to a file or a pipe."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_SECONDS = 30.0  # before the first line, and least between two of them
GROWTH = 0.03  # share of the time so far between two lines: about 100 lines a day, 30 in the first half hour


class Pace:
    """Says when a line is due: none for short work, and fewer and fewer while it goes on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.begun = clock, clock()
        self._next = self.begun + LINE_SECONDS

    @property
    def seconds(self) -> float:
        return self.clock() - self.begun

    def due(self) -> bool:
        """Whether to write a line now; the next one is then put off."""
        now = self.clock()
        if now < self._next:
            return False
        self._next = now + max(LINE_SECONDS, GROWTH * (now - self.begun))
        return True


class Progress(tqdm):
    """tqdm, whose arguments it takes; where that would be silent because there is no terminal, lines in the log."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **{"disable": None} | options)
        self.label = options.get("desc") or options.get("unit", "step") + "s"
        self.pace = Pace()

    def __iter__(self) -> Iterator[Any]:
        if not self.disable:
            yield from super().__iter__()
            return
        for item in self.iterable:
            yield item
            self.update()

    def update(self, n: float | None = 1) -> bool | None:
        if not self.disable:
            return super().update(n)
        self.n += n or 0
        if self.pace.due():
            log.info("%s: %s", self.label, done(self.n, self.total, self.pace.seconds))
        return None


def done(count: float, total: float | None, seconds: float) -> str:
    """`30 of 120 (25 %), 1.0 min, 3.0 min left`, from the `seconds` that `count` have taken."""
    if not total:
        return f"{count:g}, {minutes(seconds)}"
    left = seconds / count * (total - count)
    return f"{count:g} of {total:g} ({count / total:.0%}), {minutes(seconds)}, {minutes(left)} left"


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
