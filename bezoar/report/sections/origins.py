"""The origins of the data and of the models."""

from typing import Any

from bezoar.params import Further, FurtherHub, FurtherServed
from bezoar.report import words
from bezoar.report.run import Run
from bezoar.report.seen import Source

MOST_REASONS = 10
ABOUT = {
    "base": "the model that training starts from",
    "dolly": "the seeds: instructions with answers, from which the teacher makes new ones",
    "flan": "questions with known answers, for Orca",
    "topics": "subjects that guide some of LaMini’s requests",
    "hh_rlhf": "pairs of answers, one chosen and one rejected",
    "mt_bench": "questions of two turns, answers of other models, and votes on them",
    "benchmarks": "multiple-choice tasks of the harness, and questions for the skills",
}
MOST_FILES = 20
FILES = {
    "train.jsonl": "to learn from",
    "test.jsonl": "held out",
    "probes.jsonl": "for the skills",
}


def base(run: Run) -> str:
    """Return the base model in words: its repository, or the place that it comes from."""
    base = run.sources["base"]
    if base.parts:
        return base.parts[0].repository
    return {
        "grown": "a tiny Llama, grown here from nothing",
        "local": "the model in local/base",
    }[base.source]


def sources(run: Run) -> list[dict[str, Any]]:
    """Return a row for each set, the base and each further model: its origin and its rows."""
    entries = []
    for key, source in run.sources.items():
        places_by_kind = {
            "world": ["the project’s own world"],
            "grown": ["grown here"],
            "local": [f"local/{key}"],
            "hub": [part.repository for part in source.parts],
            "wikipedia": [source.url],
            "harness": ["what lm_eval fetches"],
        }
        notes = [f"{part.revision[:12]} · {part.licence}" for part in source.parts]
        if source.stands_in_for:
            notes = [f"{source.stands_in_for} is empty"]
        elif source.licence:
            notes = [source.licence]
        places = places_by_kind.get(source.source, [source.url or source.source])
        entries.append(
            {
                "name": key,
                "about": ABOUT[key],
                "files": _files(source),
                "places": [
                    (place, notes[index] if index < len(notes) else "")
                    for index, place in enumerate(places)
                ],
                "rows": sum(source.rows.values()) if source.rows else None,
                "left_out": sum(source.left_out.values()),
                "reasons": [
                    f"{words.excerpt(reason)[0]}: {n:,}"
                    for reason, n in sorted(source.left_out.items())
                ][:MOST_REASONS],
            }
        )
    for key, model in run.further.items():
        place = [_place(key, model)]
        entries.append(
            {
                "name": key,
                "about": "a further model",
                "files": [],
                "places": place,
                "rows": None,
                "left_out": 0,
                "reasons": [],
            }
        )
    return entries


def _files(source: Source) -> list[str]:
    """Return the number of rows of each kind of file, if there are several files: to learn from,
    held out, votes and so on."""
    if len(source.rows) < 2:
        return []
    kinds: dict[str, int] = {}
    for file, rows in source.rows.items():
        kind = FILES.get(file, file.removesuffix(".jsonl").rpartition("/")[2].replace("_", " "))
        kinds[kind] = kinds.get(kind, 0) + rows
    return [f"{kind} {rows:,}" for kind, rows in kinds.items()][:MOST_FILES]


def _place(key: str, model: Further) -> tuple[str, str]:
    """Return the place that a further model comes from, and a note."""
    if isinstance(model, FurtherHub):
        return model.repository, f"{model.revision[:12]} · {model.licence}"
    if isinstance(model, FurtherServed):
        return model.endpoint.model, "behind an endpoint"
    return f"local/models/{key}", ""
