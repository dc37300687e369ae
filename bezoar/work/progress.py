"""Shows a bar with rate and time left on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Without a terminal a line is printed at every twentieth of the work, or after five minutes where
# that takes longer. Work that is over in seconds prints nothing, as a log is read by people.
SHARE = 0.05
# Least and most seconds between two lines
SOONEST, LATEST = 5.0, 300.0
# Fractions that are added up may miss the total by so much.
ROUNDING = 1e-6


@contextmanager
def bar(label: str, total: float, done: float = 0) -> Iterator[Callable[[float], None]]:
    """Yield `advance(n)`. The bar shows done/total, units a second and the time left. `done`: the
    part that an earlier run did before this one goes on."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(label, total, done).advance
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:.1f}/s", style="cyan")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, completed=int(done))
        yield lambda more: progress.advance(task, more)


class Lines:
    """The progress of `label`, as lines on standard error: the share done and the time left, and at
    the end the time that it took."""

    def __init__(
        self,
        label: str,
        total: float,
        done: float = 0,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        self.label, self.total, self.clock, self.write = label, total, clock, write
        self.before = self.done = self.shown = done
        self.began = self.spoke = clock()

    def advance(self, more: float) -> None:
        """Count `more` as done. Print a line if it is time for one."""
        # Processes that share the rows among them repeat some, so that each has the same number.
        self.done = min(self.done + more, self.total)
        now = self.clock()
        silent = now - self.spoke
        due = self.done - self.shown >= SHARE * self.total and silent >= SOONEST
        ended = self.done >= self.total - ROUNDING > self.shown and now - self.began >= SOONEST
        if due or ended or silent >= LATEST:
            self.shown, self.spoke = self.done, now
            self.write(self._line(now - self.began))

    def _line(self, seconds: float) -> str:
        amount = f"{self.label}: {self.done:,.0f} of {self.total:,.0f}"
        if self.done >= self.total - ROUNDING:
            return f"{amount}, {duration(seconds)}"
        advanced = self.done - self.before
        left = (
            duration(seconds / advanced * (self.total - self.done)) if advanced else "unknown time"
        )
        share = f"{100 * self.done / self.total:.0f} %"
        return f"{amount} ({share}), {duration(seconds)} so far, {left} left"


def duration(seconds: float) -> str:
    """Write seconds as people say them: 4 s, 3 min 20 s, 2 h 5 min."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min" + (f" {rounded % 60} s" if rounded % 60 else "")
    minutes = round(rounded / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
