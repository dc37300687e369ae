"""Jobs of each scheme, and the parameters and seeds that they are planned from."""

import random
from typing import Any

from bezoar import schemes
from bezoar.params import Lamini, Orca
from bezoar.rows.records import Job, Seed, Seeds, Topic
from tests.builders import parameters
from tests.builders.rows import dolly, flan

RECIPE: dict[str, Any] = parameters.read()["schemes"]


def one(scheme: str, seeds: Seeds, params: Any) -> Job:
    return schemes.load(scheme).plan(seeds, params, random.Random(1))[0]


CATEGORIES = ("open_qa", "closed_qa", "summarization")
TOPICS = [
    Topic(name="Rivers", subcategories=11),
    Topic(name="Birds of prey", subcategories=12),
    Topic(name="Old trees", subcategories=None),  # not told
    Topic(name="Clouds", subcategories=10),  # too few sub-categories
    Topic(name="Towns on small islands", subcategories=99),  # too many words
]


def lamini_params(**changes: Any) -> Lamini:
    return Lamini.model_validate(
        {**RECIPE["lamini"], "categories": list(CATEGORIES), "calls": 40, **changes}
    )


def lamini_seeds(count: int = 6) -> Seeds:
    rows = [seed for category in CATEGORIES for seed in dolly(category, count)]
    return Seeds(dolly=[*rows, *dolly("general_qa", 9)], topics=TOPICS)


def lamini_job(**changes: Any) -> Job:
    return one("lamini", lamini_seeds(), lamini_params(**changes))


IN_DEPTH = {"strategy": "in_depth", "operation": "deepen"}
IN_BREADTH = {"strategy": "in_breadth", "operation": ""}


def evol_job(*steps: dict[str, str], seed: Seed | None = None) -> Job:
    inputs = {
        "seed": (seed or dolly()[0]).model_dump(),
        "iteration": 2,
        "steps": list(steps or (IN_DEPTH,)),
        "sample": 0,
        "refusal": RECIPE["evol_instruct"]["refusal_words"],
        "answers": [],
    }
    return Job(id="job", asked=len(inputs["steps"]), inputs=inputs)


def orca_params(**changes: Any) -> Orca:
    return Orca.model_validate({**RECIPE["orca"], "per_task": 3, "flan2021": 20, **changes})


def orca_job(query: str = "Why?", target: str = "because") -> Job:
    row = flan("cot", "task", 1)[0].model_copy(update={"query": query, "target": target})
    return one("orca", Seeds(flan=[row]), orca_params())
