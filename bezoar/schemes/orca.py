"""Orca (OpenBezoar 3.1.3, explanation tuning): the teacher answers queries of the FLAN collection.
A system message asks for an explanation, and the right answer is a guide."""

from collections.abc import Iterator
from random import Random

from bezoar.params import Orca
from bezoar.rows.prompts import MARKUP, Prompt, fence
from bezoar.rows.records import Ask, Job, Mixture, Query, Reject, Rejected, Sample, Seeds
from bezoar.schemes import fault, say

NAME = "orca"
RESPONSE = Prompt(f"{NAME}/response")
MARKERS = MARKUP[NAME]
MIXTURES: tuple[Mixture, ...] = ("cot", "niv2", "t0", "flan2021")


def plan(seeds: Seeds, params: Orca, rng: Random) -> list[Job]:
    """Plan at most `per_task` queries a task of cot, niv2 and t0, and `flan2021` queries by
    Algorithm 1.

    The system message is drawn uniformly among those that the sub-mixture allows."""
    jobs: list[Job] = []
    for mixture in MIXTURES:
        tasks: dict[str, list[Query]] = {}
        for query in seeds.flan:
            if query.mixture == mixture:
                tasks.setdefault(query.task, []).append(query)
        if mixture == "flan2021":
            queries = spread(tasks, params.flan2021, rng)
        else:
            queries = [
                query
                for rows in tasks.values()
                for query in rng.sample(rows, min(params.per_task, len(rows)))
            ]
        for query in queries:
            system_id = rng.choice(getattr(params.system_ids, mixture))
            system = Prompt(f"{NAME}/system/{system_id}").fill()
            inputs = {"query": query.model_dump(), "system_id": system_id, "system": system}
            jobs.append(Job(id=f"{NAME}-{len(jobs) + 1:05d}", asked=1, inputs=inputs))
    return jobs


def spread(tasks: dict[str, list[Query]], count: int, rng: Random) -> list[Query]:
    """Draw `count` queries by Orca's Algorithm 1, or fewer if no task is left.

    Each round draws a task, then one of its queries without replacement. A task that is empty is
    retired."""
    remaining = {task: list(rows) for task, rows in tasks.items() if rows}
    queries: list[Query] = []
    while remaining and len(queries) < count:
        task = rng.choice(list(remaining))
        rows = remaining[task]
        queries.append(rows.pop(rng.randrange(len(rows))))
        if not rows:
            del remaining[task]
    return queries


def run(job: Job, ask: Ask) -> Iterator[Sample | Rejected]:
    """Ask for an answer that explains itself. Reject: the reply is no whole answer, or repeats the
    prompt's marks."""
    query = Query.model_validate(job.inputs["query"])
    system = job.inputs["system"]
    reply = say(
        ask,
        RESPONSE.fill(
            system=system,
            query=fence(query.query, *MARKERS),
            target=fence(query.target, *MARKERS),
        ),
    )
    if reason := fault(reply, "response"):
        raise Reject(reason)
    if any(marker in reply.text for marker in MARKERS):
        raise Reject("leaked_prompt")
    yield Sample(
        id=job.id,
        scheme=NAME,
        system=system,
        instruction=query.query,
        context="",
        response=reply.text.strip(),
        expected=query.target,
        category="",
        details={
            "mixture": query.mixture,
            "task": query.task,
            "system_id": job.inputs["system_id"],
        },
        seeds=[query.id],
        licence=query.licence,
        teacher=reply.model,
        simulated=reply.simulated,
    )
