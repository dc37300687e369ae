"""One event loop in a thread of its own, and jobs that wait in it without a thread each.

A job is a plain function that calls `ask`; it runs as a greenlet in the loop's thread and hands the
loop back while it waits. Four hundred of them cost two switches a request; four hundred threads
cost the interpreter lock, and with it two thirds of the throughput.
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
    """The loop of this process, started when first wanted; it ends with the process."""
    running = asyncio.new_event_loop()
    threading.Thread(target=running.run_forever, name="llm", daemon=True).start()
    return running


# the thread does not come along into a child that is forked off
os.register_at_fork(after_in_child=loop.cache_clear)


class Worker(greenlet):  # type: ignore[misc]
    """A job in the loop's thread; its parent is the loop."""

    def wake(self, answer: Any) -> None:
        """Go on with `answer` as what the job waited for."""
        loop().call_soon(self.switch, answer)


def wait(start: Callable[[Callable[[Any], None]], None]) -> Any:
    """Run `start(done)` in the loop's thread, wait until it calls `done(answer)`, return the
    answer. For workers and for threads; never for the loop itself."""
    worker = getcurrent()
    if isinstance(worker, Worker):
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
