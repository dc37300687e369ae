"""A stage's way to the models that it asks: connects, shows the bar, runs the jobs, and writes what
was bought."""

from collections.abc import Callable, Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any, TypeVar

from bezoar import llm
from bezoar.llm import Run, budget
from bezoar.params import Endpoint, Params
from bezoar.rows.files import write_json, write_jsonl
from bezoar.rows.records import Ask, Failure, Spending
from bezoar.work import progress

T = TypeVar("T")
R = TypeVar("R")


class Asker:
    """Asks the models behind `endpoints` for one instance of a stage, such as judge@lamini.

    `label` opens its messages. `schema` is the JSON schema of every reply, for endpoints that are
    `structured`."""

    def __init__(
        self,
        p: Params,
        stage: str,
        instance: str,
        *endpoints: Endpoint,
        schema: dict[str, Any] | None = None,
    ) -> None:
        self.p, self.stage, self.instance = p, stage, instance
        self.endpoints, self.schema = endpoints, schema
        self.label = f"{stage}@{instance}" if instance else stage
        self._asks: list[Ask] = []

    def run(
        self, work: Callable[[T, Ask], R], jobs: Sequence[T], name: Callable[[T], str]
    ) -> Run[T, R]:
        """Do `work(job, ask)` for every job with the one model. `name(job)` is what a failure is
        filed under. BadInput: as `llm.run_jobs`, and the key's variable is not set."""
        (run,) = self.run_all(work, jobs, name).values()
        return run

    def run_all(
        self, work: Callable[[T, Ask], R], jobs: Sequence[T], name: Callable[[T], str]
    ) -> dict[str, Run[T, R]]:
        """Do the jobs with every model, and return the runs by model. BadInput: as `run`."""
        if not jobs:
            # Nothing is asked, so that no key is needed.
            return {endpoint.model: Run([], [], []) for endpoint in self.endpoints}
        self._asks = self._asks or [
            llm.connect(endpoint, self.p, self.stage, self.instance, self.schema)
            for endpoint in self.endpoints
        ]
        several = len(self.endpoints) > 1
        total = len(jobs) * len(self.endpoints)
        with progress.bar(f"{self.stage} {self.instance}".strip(), total) as advance:
            # One after the other: side by side they would pass a cap by the requests under way.
            return {
                endpoint.model: llm.run_jobs(
                    work,
                    jobs,
                    ask,
                    endpoint,
                    prefix=self.label + f", {endpoint.model}" * several,
                    name=name,
                    advance=advance,
                )
                for endpoint, ask in zip(self.endpoints, self._asks, strict=True)
            }

    def write(self, run: Run[T, R], spending: Path | None = None) -> Spending:
        """Write what `run` came to, as `write_all` does, and return its spending."""
        (spent,) = self.write_all({self.endpoints[0].model: run}, spending)
        return spent

    def write_all(
        self, runs: Mapping[str, Run[T, R]], spending: Path | None = None
    ) -> list[Spending]:
        """Write replies.jsonl and failures.jsonl into the stage's folder of data/, and what all
        models were paid into `spending`, or into metrics/. Return the spending of each model."""
        out = Path("data", self.stage, self.instance)
        write_jsonl(out / "replies.jsonl", (e for run in runs.values() for e in run.exchanges))
        write_jsonl(out / "failures.jsonl", _failures(runs))
        spent = [budget.spending(e, runs[e.model].exchanges) for e in self.endpoints]
        file = f"{self.instance}_spending.json" if self.instance else "spending.json"
        place = spending or Path("metrics", self.stage, file)
        write_json(place, _total(spent).model_dump())
        return spent


def _failures(runs: Mapping[str, Run[T, R]]) -> list[Failure]:
    """Return the failures of all models. Where there are several, each names its model."""
    if len(runs) == 1:
        return [failure for run in runs.values() for failure in run.failures]
    return [
        failure.model_copy(update={"reason": f"{model}: {failure.reason}"})
        for model, run in runs.items()
        for failure in run.failures
    ]


def _total(spent: Sequence[Spending]) -> Spending:
    return Spending(
        model=", ".join(paid.model for paid in spent),
        calls=sum(paid.calls for paid in spent),
        tokens_in=sum(paid.tokens_in for paid in spent),
        tokens_out=sum(paid.tokens_out for paid in spent),
        usd=round(fsum(paid.usd for paid in spent), 9),
    )
