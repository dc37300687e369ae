"""Ctrl-C ends a process with a line instead of a traceback."""

import signal
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
    end_with("error: interrupted; run the same command again: it goes on from what is whole")


def end_with(message: str) -> None:
    """Print what Ctrl-C came to. A further one while that is printed does nothing, and afterwards
    ends the process at once and without a word. For the main thread, which Ctrl-C reaches."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(message, file=sys.stderr, flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
