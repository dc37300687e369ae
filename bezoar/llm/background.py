"""One event loop in a thread of its own, and jobs that wait in it without a thread each.

A job is a plain function that calls `ask`. It runs as a greenlet in the loop's thread and gives
control back to the loop while it waits. Four hundred greenlets cost two switches a request. Four
hundred threads fight for the interpreter lock, which cost two thirds of the throughput.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any

from greenlet import getcurrent, greenlet


@cache
def loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this process. The first call starts it, and it ends with the process."""
    running = asyncio.new_event_loop()
    threading.Thread(target=running.run_forever, name="llm", daemon=True).start()
    return running


# A forked child has no copy of the loop's thread, so it must start a loop of its own.
os.register_at_fork(after_in_child=loop.cache_clear)


class Worker(greenlet):  # type: ignore[misc]
    """A job in the loop's thread. Its parent greenlet is the loop."""

    def wake(self, answer: Any) -> None:
        """Have the job go on, with `answer` as the result of its wait."""
        loop().call_soon(self.switch, answer)


def wait(start: Callable[[Callable[[Any], None]], None]) -> Any:
    """Run `start(done)` in the loop's thread, wait until it calls `done(answer)`, return the
    answer. Call it in a worker or in another thread, never in the loop itself."""
    worker = getcurrent()
    if isinstance(worker, Worker):
        # A worker is in the loop's thread already. It switches to the loop and is switched back to
        # by `wake`, with the answer as the value of `switch`.
        start(worker.wake)
        assert worker.parent is not None
        return worker.parent.switch()
    future: Future[Any] = Future()

    def begin() -> None:
        try:
            start(future.set_result)
        except BaseException as error:
            future.set_exception(error)

    loop().call_soon_threadsafe(begin)
    return future.result()
