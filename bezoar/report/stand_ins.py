"""The things that this project invented or simulated in a run, a sentence for each.

The report and the cards show them.
"""

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
    """Return a sentence for every stand-in of a run, in the order of the recipe. A part that the
    recipe leaves out has none."""
    grown = [GROWN] if _source("models/fetch/base") == "grown" else []
    invented = [INVENTED[name] for name in p.sources if _source(f"data/fetch/{name}") == "world"]
    instances_by_speaker = {
        "teacher": p.schemes.by_name,
        "judge": p.schemes.by_name,
        "grader": p.checkpoints,
    }
    # a judge without schemes, or a grader without checkpoints, is asked nothing in this run
    simulated = [
        PLAYED[speaker]
        for speaker, instances in instances_by_speaker.items()
        if instances and any(isinstance(e, Embedded) for e in p.llm.by_name(speaker).values())
    ]
    return [*grown, *invented, *simulated]


def _source(folder: str) -> str:
    """Return the kind of source that a fetch took its rows from, such as "hub" or "world"."""
    account: Any = read_json(Path(folder, "source.json"))
    return str(account["source"])
