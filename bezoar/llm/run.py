"""Many jobs over one model. Results have the order of the jobs, whichever ends first."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Generic, TypeVar

from bezoar import interrupts
from bezoar.llm import background, budget
from bezoar.llm.client import Client, Failed, Stopped, empty_reply
from bezoar.params import Anthropic, Embedded, Endpoint, InProcess, OpenAI
from bezoar.rows.files import BadInput
from bezoar.rows.records import Ask, Exchange, Failure, Message, Reply

T = TypeVar("T")
R = TypeVar("R")

AGAIN = "run the same command again to go on: everything bought is kept and not paid again"
# Jobs under way at once in batch mode. A batch gets no larger than the number of jobs that wait.
BATCH_JOBS = 20_000


@dataclass
class Run(Generic[T, R]):
    """The outcome of a stage's jobs, in their order.

    `done` pairs each job with its result. `exchanges` holds every answered request with its reply.
    `failures` holds the requests that failed for good, each with the name of its job.
    """

    done: list[tuple[T, R]]
    exchanges: list[Exchange]
    failures: list[Failure]


def run_jobs(
    work: Callable[[T, Ask], R],
    jobs: Sequence[T],
    ask: Ask,
    endpoint: Endpoint,
    *,
    prefix: str,
    name: Callable[[T], str],
    advance: Callable[[float], None] = lambda done: None,
) -> Run[T, R]:
    """Do `work(job, ask)` for every job, as many at once as `endpoint` says.

    Errors begin with `prefix`. A failure is filed under `name(job)`. `advance(1)` is called after
    each job. Jobs share one thread (llm/background.py), so a long computation in one holds up the
    others.

    A request that fails for good ends neither the run nor its job: the job gets a reply with
    finish_reason "failed". BadInput: more than `max_failed` of the jobs had such a request (raised
    as soon as that is certain), or nothing more may be bought. All that was bought is in the ledger
    by then. Another exception out of `work` ends the run and is raised here. Ctrl-C ends it with
    one line and exit code 130.
    """
    return _Runner(work, jobs, ask, endpoint, prefix=prefix, name=name, advance=advance).run()


class _Runner(Generic[T, R]):
    def __init__(
        self,
        work: Callable[[T, Ask], R],
        jobs: Sequence[T],
        ask: Ask,
        endpoint: Endpoint,
        *,
        prefix: str,
        name: Callable[[T], str],
        advance: Callable[[float], None],
    ) -> None:
        self.work, self.jobs, self.ask, self.name, self.advance = work, jobs, ask, name, advance
        self.prefix = prefix
        self.results: list[R | None] = [None] * len(jobs)
        self.exchanges: list[list[Exchange]] = [[] for _ in jobs]
        self.failures: dict[int, list[Failure]] = {}
        self.error: BaseException | None = None
        self.completed: list[int] = []  # jobs that came to their end
        self.ending = False
        self.model = endpoint.model
        self.next = self.alive = self.finished = 0
        self.width = width(endpoint)
        self.bearable = max_failed(endpoint) * len(jobs)

    def run(self) -> Run[T, R]:
        if self.jobs:
            try:
                with interrupts.as_exception():
                    asyncio.run_coroutine_threadsafe(self._all(), background.loop()).result()
            except KeyboardInterrupt:
                interrupts.end_with(f"error: {self._interrupted()}")
                sys.exit(130)
            finally:
                if isinstance(self.ask, Client):
                    self.ask.rest()
        if len(self.failures) > self.bearable:
            raise BadInput(self._too_many())
        if isinstance(self.error, Stopped):
            raise BadInput(self._stopped())
        if self.error:
            raise self.error
        order = range(len(self.jobs))
        return Run(
            done=[(self.jobs[i], self.results[i]) for i in order],  # type: ignore[misc]
            exchanges=[exchange for i in order for exchange in self.exchanges[i]],
            failures=[failure for i in sorted(self.failures) for failure in self.failures[i]],
        )

    def _left(self) -> str:
        return f"{len(self.jobs) - self.finished} of {len(self.jobs)} jobs"

    def _interrupted(self) -> str:
        return (
            f"{self.prefix}: interrupted; {self._left()} are not done; {AGAIN}, except for "
            "the replies that were under way"
        )

    def _stopped(self) -> str:
        # the price of a job is taken from those that are done: one that began has not cost all yet
        usd = fsum(e.reply.usd for i in self.completed for e in self.exchanges[i])
        missing = len(self.jobs) - self.finished
        per_job = usd / len(self.completed) if self.completed else 0.0
        about = f" (about {budget.about(missing * per_job)})" if per_job else ""
        return f"{self.prefix}: {self.error}; {self._left()}{about} are not done; {AGAIN}"

    def _too_many(self) -> str:
        first = self.failures[min(self.failures)][0]
        return (
            f"{self.prefix}: {len(self.failures)} of {len(self.jobs)} jobs failed so far, more "
            f"than the share max_failed allows; the first, {first.job}: {first.reason}, "
            f"{first.attempts} attempts; mend that or raise max_failed, then run the same command "
            "again: everything bought is kept"
        )

    async def _all(self) -> None:
        self.over = asyncio.Event()
        for _ in range(min(self.width, len(self.jobs))):
            self.alive += 1
            # Each worker is started by the loop, and not here in a row: so the first requests
            # leave while the last prompts are still being written.
            asyncio.get_running_loop().call_soon(background.Worker(self._worker).switch)
        await self.over.wait()

    def _worker(self) -> None:
        try:
            while self.next < len(self.jobs) and not self._ended():
                index = self.next
                self.next += 1
                self._do_job(index)
                self.finished += 1
                self.completed.append(index)
                self.advance(1)
        except BaseException as error:
            # The first error counts. When the budget stops the client, the other jobs fail too, and
            # those errors say less.
            self.error = self.error or error
        finally:
            self._end_early()
            self.alive -= 1
            if self.alive == 0:
                self.over.set()

    def _ended(self) -> bool:
        return self.error is not None or len(self.failures) > self.bearable

    def _do_job(self, index: int) -> None:
        job = self.jobs[index]
        exchanges = self.exchanges[index]

        def ask(messages: Sequence[Message], sample: int = 0) -> Reply:
            try:
                reply = self.ask(messages, sample)
            except Failed as failed:
                origin = {"job": self.name(job), "step": len(exchanges)}
                failure = failed.failure.model_copy(update=origin)
                self.failures.setdefault(index, []).append(failure)
                self._end_early()
                return empty_reply("failed", self.model)
            # a request that is too long was not sent, so there was no exchange
            if reply.finish_reason != "too_long":
                exchange = Exchange(
                    job=self.name(job), step=len(exchanges), messages=list(messages), reply=reply
                )
                exchanges.append(exchange)
            return reply

        self.results[index] = self.work(job, ask)

    def _end_early(self) -> None:
        """Have the client give up the requests that wait, once the run cannot end well."""
        if self._ended() and not self.ending and isinstance(self.ask, Client):
            self.ending = True
            self.ask.stop("the stage has failed")


def width(endpoint: Endpoint) -> int:
    """Return the number of jobs that are under way at once."""
    match endpoint:
        case OpenAI(mode="batch") | Anthropic(mode="batch"):
            return BATCH_JOBS
        case _:
            return endpoint.concurrency


def max_failed(endpoint: Endpoint) -> float:
    """Return the share of jobs that may fail. It is 0 for a model in this process, which has no
    reason to fail."""
    match endpoint:
        case Embedded() | InProcess():
            return 0.0
        case _:
            return endpoint.max_failed
