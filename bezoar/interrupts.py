"""Has Ctrl-C and SIGTERM end a stage with one line, without a traceback of what it was doing.

The process ends at once. All that a stage must not lose is on the disk by then, because a kill
gives no notice either. An exception would have to find its way through torch and TRL, which print
it.

A stage imports this first. It imports little itself (no typing, no threading), because a signal
that comes earlier prints Python's own traceback.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

AGAIN = "run the same command again: it goes on from what is whole"
WORDS = {
    signal.SIGINT: f"error: interrupted; {AGAIN}",
    signal.SIGTERM: f"error: ended by SIGTERM; {AGAIN}",
}
_LAST: list[Callable[[], None]] = []


def say_in_a_line() -> None:
    """Have Ctrl-C and SIGTERM, from here on, end this process with a line, exit code 130 or 143.

    One of several processes of a training says nothing, because the one that started them does. A
    process in which SIGINT was set aside before (nohup, a worker process) keeps that.
    """
    if "LOCAL_RANK" in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:
        return
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)


def before_the_end(do: Callable[[], None]) -> None:
    """Have `do` called before a signal ends this process."""
    _LAST.append(do)


@contextmanager
def as_exception() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt within, for a caller that has more to say about it."""
    import threading

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not _end
    ):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        # `end_with` may have set what a further Ctrl-C does. That stays.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def end(number: int) -> None:
    """End this process as the signal `number` does."""
    end_with(WORDS.get(signal.Signals(number), f"error: {signal.strsignal(number)}; {AGAIN}"))
    for do in _LAST:
        do()
    os._exit(128 + number)


def end_with(message: str) -> None:
    """Print what a signal came to.

    A further Ctrl-C does nothing while that is printed. Afterwards it ends the process at once and
    without a word. Call this in the main thread, which Ctrl-C reaches.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # This fails where the signal came in the middle of a write to stdout.
    with suppress(OSError, RuntimeError, ValueError):
        sys.stdout.flush()
    # A bar on a terminal has hidden the cursor, and its line has no end yet.
    opening = "\n\x1b[?25h" if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{opening}{message}\n".encode(errors="backslashreplace"))
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(number: int, frame: object) -> None:
    end(number)
