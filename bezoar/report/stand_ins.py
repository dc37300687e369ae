"""What this project invented or played in a run, a sentence each, for the report and the cards."""

from pathlib import Path
from typing import Any

from bezoar.params import Embedded, Params
from bezoar.rows.files import read_json

INVENTED = {
    "dolly": "The seeds (dolly) are invented by this project: facts of a small world of animals.",
    "flan": "The queries and their answers (flan) are invented by this project.",
    "topics": "The topics that guide a teacher (topics) are invented by this project.",
    "hh_rlhf": "The preference pairs (hh_rlhf) are invented by this project, about animals.",
    "mt_bench": "The MT-Bench questions and votes (mt_bench) are invented by this project.",
    "benchmarks": "The benchmarks and probes (benchmarks) are invented by this project.",
}
GROWN = "The base (base) is a tiny model that this project grew from nothing on invented text."
PLAYED = {
    "teacher": "The teacher (llm.teacher) is a simulation: rules of this project wrote for it.",
    "judge": "The judge (llm.judge) is a simulation: rules of this project gave its verdicts.",
    "grader": "The grader (llm.grader) is a simulation: rules of this project gave its grades.",
}


def sentences(p: Params) -> list[str]:
    """Name every stand-in of a run, in the order of the recipe. What the recipe leaves out is not
    named."""
    grown = [GROWN] if _source("models/fetch/base") == "grown" else []
    invented = [INVENTED[name] for name in p.sources if _source(f"data/fetch/{name}") == "world"]
    asked = {"teacher": p.schemes.by_name, "judge": p.schemes.by_name, "grader": p.checkpoints}
    played = [
        PLAYED[who]
        for who, instances in asked.items()
        if instances and any(isinstance(e, Embedded) for e in p.llm.by_name(who).values())
    ]
    return [*grown, *invented, *played]


def _source(folder: str) -> str:
    """Return what a fetch says of where its rows come from."""
    account: Any = read_json(Path(folder, "source.json"))
    return str(account["source"])
