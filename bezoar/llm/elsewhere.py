"""Calls whose request another process has under way: they wait for its answer.

Example: two experiments with the same seeds run at once. Both want the same 1,000 replies. Each
request is sent by the process that claims it first, and the other process gets the reply here.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bezoar.llm import claims
from bezoar.rows.files import BadInput

if TYPE_CHECKING:
    from bezoar.llm.client import Call

LOOK = 0.2  # seconds between two looks at what the others have done


class Elsewhere:
    """The calls that wait for other processes.

    `back` gets the calls whose request is answered, or is nobody's any more. `late` gets those that
    waited longer than `bound` seconds for one owner, and that owner. Waiting for a batch has no
    bound. `broken` gets the error when the ledger cannot be read.
    """

    def __init__(
        self,
        holds: claims.Claims,
        loop: asyncio.AbstractEventLoop,
        *,
        bound: float,
        back: Callable[["list[Call]"], None],
        late: Callable[["Call", str], None],
        broken: Callable[[OSError | BadInput], None],
    ) -> None:
        self._claims, self._loop, self.bound = holds, loop, bound
        self._back, self._late, self._broken = back, late, broken
        self._calls: dict[Call, tuple[str, float]] = {}  # the owner, since when it is waited for
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def wait(self, call: "Call") -> None:
        """Keep `call` until its request is answered or nobody's."""
        self._calls[call] = ("", time.monotonic())
        self.arm()

    def arm(self) -> None:
        """Look again soon. `back` is called after each look, even with no calls.

        Another process may have spent less than it had set aside, which leaves room for a dear
        request.
        """
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK, self._look)

    def clear(self) -> "list[Call]":
        """Give up all waiting, and return the calls that waited."""
        calls = list(self._calls)
        self._calls.clear()
        return calls

    def words(self) -> str:
        """Say for the user what is waited for, "" where nothing is."""
        if not self._calls:
            return "the budget's rest is set aside by other processes" if self._timer else ""
        numbers = sorted({claims.process(owner) for owner, _ in self._calls.values() if owner})
        whose = f"process {', '.join(numbers)}" if numbers else "another process"
        return f"{len(self._calls)} requests are under way in {whose}"

    def _look(self) -> None:
        self._timer = None
        try:
            with self._claims.locked():
                self._claims.refresh()
                owners = {call: self._claims.holder(call.key) for call in self._calls}
        except (OSError, BadInput) as error:
            self._broken(error)
            return
        now = time.monotonic()
        free = [call for call, owner in owners.items() if owner is None]
        for call, owner in owners.items():
            before, since = self._calls[call]
            # another owner may have taken the request over: the wait for that one begins anew
            self._calls[call] = (owner or "", since if before in ("", owner) else now)
        for call in free:
            del self._calls[call]
        for call, (owner, since) in list(self._calls.items()):
            if now - since > self.bound and not self._claims.in_batch(call.key):
                del self._calls[call]
                self._late(call, owner)
        if self._calls:
            self.arm()
        self._back(free)
