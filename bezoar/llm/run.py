"""Many jobs over one model, their results in the order of the jobs, whatever came first."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from bezoar.files import BadInput
from bezoar.llm import background
from bezoar.llm.client import Failed, Stopped
from bezoar.params import Anthropic, Embedded, Endpoint, InProcess, OpenAI
from bezoar.records import Ask, Exchange, Failure, Message, Reply

T = TypeVar("T")
R = TypeVar("R")

BATCH_JOBS = 20_000  # jobs under way in batch mode: a batch is as large as the jobs that wait


@dataclass
class Run(Generic[T, R]):
    """What a stage's jobs came to, in their order: `done` pairs each job with its result,
    `exchanges` holds every request and reply, `failures` the jobs whose request failed for good."""

    done: list[tuple[T, R]]
    exchanges: list[Exchange]
    failures: list[Failure]


def each(
    work: Callable[[T, Ask], R],
    jobs: Sequence[T],
    ask: Ask,
    endpoint: Endpoint,
    *,
    where: str,
    name: Callable[[T], str],
    advance: Callable[[float], None] = lambda done: None,
) -> Run[T, R]:
    """Do `work(job, ask)` for every job, as many at once as `endpoint` says; `where` opens an
    error, `name(job)` is what a failure is filed under. Jobs share one thread
    (llm/background.py): a long computation in one holds up the others.

    A request that fails for good ends its job, not the run. BadInput when more than `max_failed` of
    the jobs fail, as soon as that is certain, and when nothing more may be bought; what was bought
    is in the ledger by then. Another exception out of `work` ends the run and is raised here.
    """
    return _Runner(work, jobs, ask, endpoint, where=where, name=name, advance=advance).run()


class _Runner(Generic[T, R]):
    def __init__(
        self,
        work: Callable[[T, Ask], R],
        jobs: Sequence[T],
        ask: Ask,
        endpoint: Endpoint,
        *,
        where: str,
        name: Callable[[T], str],
        advance: Callable[[float], None],
    ) -> None:
        self.work, self.jobs, self.ask, self.name, self.advance = work, jobs, ask, name, advance
        self.where = where
        self.results: list[R | None] = [None] * len(jobs)
        self.exchanges: list[list[Exchange]] = [[] for _ in jobs]
        self.failures: dict[int, Failure] = {}
        self.error: BaseException | None = None
        self.next = self.alive = self.finished = 0
        self.width = width(endpoint)
        self.bearable = max_failed(endpoint) * len(jobs)

    def run(self) -> Run[T, R]:
        if self.jobs:
            asyncio.run_coroutine_threadsafe(self._all(), background.loop()).result()
        if isinstance(self.error, Stopped):
            raise BadInput(self._stopped())
        if self.error:
            raise self.error
        if len(self.failures) > self.bearable:
            raise BadInput(self._too_many())
        order = range(len(self.jobs))
        return Run(
            done=[(self.jobs[i], self.results[i]) for i in order if i not in self.failures],  # type: ignore[misc]
            exchanges=[exchange for i in order for exchange in self.exchanges[i]],
            failures=[self.failures[i] for i in sorted(self.failures)],
        )

    def _stopped(self) -> str:
        missing = len(self.jobs) - self.finished
        usd = sum(exchange.reply.usd for kept in self.exchanges for exchange in kept)
        about = f" (about ${missing * usd / self.finished:.2f})" if usd and self.finished else ""
        return (
            f"{self.where}: {self.error}; {missing} of {len(self.jobs)} jobs{about} are not done; "
            "run the same command again to go on: everything bought is kept and not paid again"
        )

    def _too_many(self) -> str:
        first = self.failures[min(self.failures)]
        return (
            f"{self.where}: {len(self.failures)} of {self.finished} jobs failed, more than the "
            f"share max_failed allows; the first, {first.job}: {first.reason}, {first.attempts} "
            "attempts; mend that or raise max_failed, then run the same command again: everything "
            "bought is kept"
        )

    async def _all(self) -> None:
        self.over = asyncio.Event()
        for _ in range(min(self.width, len(self.jobs))):
            self.alive += 1
            # one after the other through the loop: the first requests leave while the last
            # prompts are still being written
            asyncio.get_running_loop().call_soon(background.Worker(self._worker).switch)
        await self.over.wait()

    def _worker(self) -> None:
        try:
            while self.next < len(self.jobs) and not self._ended():
                at = self.next
                self.next += 1
                self._one(at)
                self.finished += 1
                self.advance(1)
        except BaseException as error:
            # the budget's word comes before what it made of other jobs
            self.error = self.error or error
        finally:
            self.alive -= 1
            if self.alive == 0:
                self.over.set()

    def _ended(self) -> bool:
        return self.error is not None or len(self.failures) > self.bearable

    def _one(self, at: int) -> None:
        job = self.jobs[at]
        kept = self.exchanges[at]

        def ask(messages: Sequence[Message], sample: int = 0) -> Reply:
            reply = self.ask(messages, sample)
            kept.append(
                Exchange(job=self.name(job), step=len(kept), messages=list(messages), reply=reply)
            )
            return reply

        try:
            self.results[at] = self.work(job, ask)
        except Failed as failed:
            self.failures[at] = failed.failure.model_copy(
                update={"job": self.name(job), "step": len(kept)}
            )


def width(endpoint: Endpoint) -> int:
    """How many jobs are under way at once."""
    match endpoint:
        case OpenAI(mode="batch") | Anthropic(mode="batch"):
            return BATCH_JOBS
        case _:
            return endpoint.concurrency


def max_failed(endpoint: Endpoint) -> float:
    """The share of jobs that may fail; a model in this process has no reason to fail at all."""
    match endpoint:
        case Embedded() | InProcess():
            return 0.0
        case _:
            return endpoint.max_failed
