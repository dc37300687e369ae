"""Ctrl-C ends a process with a line instead of a traceback."""

import sys
from types import TracebackType


def say_in_a_line() -> None:
    """Have Ctrl-C, from here on, end this process with a line."""
    sys.excepthook = _without_traceback


def _without_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error as Python does, and Ctrl-C as a line."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    message = "error: interrupted; run the same command again: it goes on from what is whole"
    print(message, file=sys.stderr, flush=True)
