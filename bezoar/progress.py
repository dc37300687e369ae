"""A bar with rate and time left on a terminal; nothing where there is none."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def bar(label: str, total: float) -> Iterator[Callable[[float], None]]:
    """Yield `advance(n)`; the bar shows done/total, units a second and the time left."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done: None
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
        task = progress.add_task(label, total=total)
        yield lambda done: progress.advance(task, done)


def track(rows: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield rows while a bar counts them."""
    with bar(label, total) as advance:
        for row in rows:
            yield row
            advance(1)
