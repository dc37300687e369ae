"""The outcome of a check, and a way to run several checks at once."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from bezoar.rows.files import BadInput

K = TypeVar("K")
T = TypeVar("T")

SECONDS = 5.0  # that a server has for an answer


@dataclass(frozen=True)
class Finding:
    """The `message` of a check on `where`, and the thing to `do` about it ("" where all is well). A
    run would end at one of level stop."""

    level: Literal["ok", "warning", "stop"]
    where: str
    message: str
    do: str = ""

    @property
    def text(self) -> str:
        """Return it as an error reads: where, what is wrong, what would be right."""
        return f"{self.where}: {self.message}" + (f"; {self.do}" if self.do else "")

    @classmethod
    def from_error(cls, where: str, error: BadInput) -> "Finding":
        """Return a stop, out of the error that would stop the run."""
        message, _, do = str(error).removeprefix("error: ").partition("; ")
        return cls("stop", where, message, do)


def together(
    checks: Mapping[K, Callable[[], T]], late: Callable[[K], T], seconds: float = 2 * SECONDS
) -> dict[K, T]:
    """Run all checks at once, and return the result of each by name. One that takes more than
    `seconds` has the result `late(name)` (looking up a host's name minds no timeout). An error of a
    check is raised."""
    results: dict[K, T] = {}
    broken: list[BaseException] = []

    def run(name: K, check: Callable[[], T]) -> None:
        try:
            results[name] = check()
        except BaseException as error:
            broken.append(error)

    # Daemons, because one that hangs must not keep the process alive.
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in checks.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    for error in broken:
        raise error
    return {name: results[name] if name in results else late(name) for name in checks}
