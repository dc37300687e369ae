"""Under which licences and terms a set stands: those of its seeds, of the teacher that wrote it and
of the judge that chose from it. What is said here are facts for a reader, not legal advice.

filtering/spdx.py knows licences by their names. What it does not know, or what is not stated, is
unknown, which never counts as a yes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from bezoar.filtering.spdx import STRICTNESS, Answer, Licence, known, split, strictest, unjoinable
from bezoar.params import Endpoints
from bezoar.rows.files import BadInput, read_jsonl
from bezoar.rows.records import Kept, Query, Sample, Seed

ROLES = ("seed", "teacher", "judge")
NOBODY = "nobody"  # wrote or chose a row of the user's own
SHOWN = 8  # sources that a refusal names

# --- sets ----------------------------------------------------------------------------------------


def origins(seeds: str) -> dict[str, str]:
    """Seed id -> where the seed comes from, of the rows below data/fetch/`seeds`."""
    if seeds == "dolly":
        return {seed.id: seed.source for seed in read_jsonl("data/fetch/dolly/seeds.jsonl", Seed)}
    return {query.id: query.source for query in read_jsonl("data/fetch/flan/queries.jsonl", Query)}


def trace(
    samples: Sequence[Sample], sources: Mapping[str, str], llm: Endpoints | None
) -> list[Kept]:
    """Samples with where their seeds come from (`sources`, as `origins` has it) and under whose
    terms they were written and chosen; `llm` is None where no model was asked. BadInput: a sample
    of a seed that is not there."""
    judges = [judge.terms for judge in llm.judges] if llm else []
    terms = {
        "teacher_terms": llm.teacher.terms if llm else "",
        "judge_terms": ", ".join(dict.fromkeys(judges)),
    }
    kept = []
    for sample in samples:
        lost = [seed for seed in sample.seeds if seed not in sources]
        if lost:
            raise BadInput(
                f"data/generate/{sample.scheme}: {sample.id} was made from {lost[0]}, which "
                "data/fetch does not hold; run the generate stage again"
            )
        where = sorted({sources[seed] for seed in sample.seeds})
        kept.append(Kept.model_validate({**sample.model_dump(), "sources": where, **terms}))
    return kept


def sheet(scheme: str, rows: Sequence[Kept]) -> dict[str, Any]:
    """What licences.json says of a set: its rows by combination of licences, and what they ask for.

    `strictest` is of all, `text` of the seeds and the teacher alone, for the judge wrote no text.
    `texts` counts the rows under each of those, `unknown` the rows under one that nobody knows, and
    `unjoinable` the rows under both of two of which no one work can be made. `commercial` and
    `sharing` say whether commercial use and passing on are allowed, and why."""
    stated = Counter(
        tuple(_plain(each) if each else NOBODY for each in _stated(row)) for row in rows
    )
    combinations = [
        {**dict(zip(ROLES, names, strict=True)), "rows": number}
        for names, number in sorted(stated.items(), key=lambda each: (-each[1], each[0]))
    ]
    used = _used(rows)
    everything = {licence for licence, _ in used}
    of_row = [_texts(row) for row in rows]
    texts = Counter(licence for stated in of_row for licence in stated)
    return {
        "scheme": scheme,
        "rows": len(rows),
        "combinations": combinations,
        "sources": dict(sorted(Counter(s for row in rows for s in row.sources).items())),
        "strictest": strictest([*everything]).name,
        "text": strictest([*texts]).name,
        "unknown": sum(not all(each.known for each in licences) for licences in of_row),
        "texts": {each.name: number for each, number in sorted(texts.items())},
        "unjoinable": [
            {"licences": [*pair], "rows": sum(_holds(pair, each) for each in of_row)}
            for pair in unjoinable(texts)
        ],
        "share_alike": sorted(each.name for each in everything if each.share_alike),
        "attribution": sorted(each.name for each in everything if each.attribution),
        "commercial": _answer(used, "commercial"),
        "sharing": _answer(used, "sharing"),
    }


def check(scheme: str, rows: Sequence[Kept], allow: Sequence[str] | None) -> None:
    """BadInput, naming licences, sources and numbers of rows, where a row stands under anything
    that `allow` does not name (any usual spelling); None allows everything."""
    if allow is None:
        return
    allowed = {licence.name for name in allow for licence in split(name)}
    refused: set[str] = set()
    found: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for role, stated in _by_role(row):
            for licence in split(stated):
                if licence.name not in allowed:
                    refused.add(row.id)
                    found[licence.name, role, ", ".join(row.sources)] += 1
    if not refused:
        return
    named = [
        f"  {name} ({role}): {_rows(number)} from {source}"
        for (name, role, source), number in found.most_common(SHOWN)
    ]
    if len(found) > SHOWN:
        named.append(f"  and {len(found) - SHOWN} more")
    raise BadInput(
        f"filter@{scheme}: {len(refused):,} of {len(rows):,} rows stand under what "
        "filter.licences.allow does not name; name it there too, leave its source out of "
        "profiles.*.fetch, or choose another teacher or judge:\n" + "\n".join(named)
    )


def _stated(row: Kept) -> tuple[str, str, str]:
    return row.licence, row.teacher_terms, row.judge_terms


def _by_role(row: Kept) -> list[tuple[str, str]]:
    """What a row stands under, by who brings it. No teacher wrote the user's own rows, and no judge
    chose them."""
    named = zip(ROLES, _stated(row), strict=True)
    return [(role, stated) for role, stated in named if stated or role == "seed"]


def _plain(stated: str) -> str:
    """A list of licences in one spelling."""
    return ", ".join(licence.name for licence in split(stated))


def _texts(row: Kept) -> set[Licence]:
    """The licences of a row's text: its seeds' and its teacher's."""
    return {lic for role, stated in _by_role(row) if role != "judge" for lic in split(stated)}


def _holds(pair: Sequence[str], licences: Iterable[Licence]) -> bool:
    return {*pair} <= {licence.name for licence in licences}


def _used(rows: Sequence[Kept]) -> Counter[tuple[Licence, str]]:
    """How many rows stand under each licence, by the role that brings it."""
    used: Counter[tuple[Licence, str]] = Counter()
    for row in rows:
        for role, stated in _by_role(row):
            used.update({(licence, role) for licence in split(stated)})
    return used


def _answer(
    used: Mapping[tuple[Licence, str], int], of: Literal["commercial", "sharing"]
) -> dict[str, Any]:
    """The strictest answer, the licences that give it, and why."""
    worst = _worst(getattr(licence, of) for licence, _ in used)
    if worst == "yes":
        return {"answer": "yes", "by": [], "reason": "every licence and every term in it allows it"}
    because = [
        (licence, role, rows)
        for (licence, role), rows in sorted(used.items())
        if getattr(licence, of) == worst
    ]
    return {
        "answer": worst,
        "by": list(dict.fromkeys(licence.name for licence, _, _ in because)),
        "reason": "; ".join(f"{x.name} ({who}, {_rows(n)}): {x.reason}" for x, who, n in because),
    }


def _worst(answers: Iterable[Answer]) -> Answer:
    return max(answers, key=lambda answer: STRICTNESS[answer])


def _rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"


# --- weights -------------------------------------------------------------------------------------


def of_source(account: Mapping[str, Any]) -> dict[str, Any]:
    """What `joined` wants to know of a source by its source.json: repositories state their licence,
    the invented world is CC0-1.0, what is grown here the project's own; a user's files state
    nothing."""
    own = {"world": "CC0-1.0", "grown": "Apache-2.0"}.get(account["source"], "")
    stated = [part["licence"] for part in account.get("parts", [])]
    found = [each for name in stated or [account.get("licence") or own] for each in split(name)]
    used = Counter((licence, "source") for licence in found)
    return {
        "text": strictest(found).name,
        "texts": sorted({licence.name for licence in found}),
        "commercial": _answer(used, "commercial"),
        "sharing": _answer(used, "sharing"),
    }


def joined(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What weights stand under that were made from `parts` (name -> licences.json, or
    `of_source`): the strictest `text` of them, and the strictest answers with their reasons.
    Whether weights are a work derived from their data is open; this takes it that they are."""
    texts = [known(name) for part in parts.values() for name in part["texts"]]
    whole: dict[str, Any] = {
        "text": strictest([known(part["text"]) for part in parts.values()]).name,
        "unjoinable": [{"licences": [*pair]} for pair in unjoinable(texts)],
    }
    for of in ("commercial", "sharing"):
        worst = _worst(part[of]["answer"] for part in parts.values())
        by = [
            f"{name} ({', '.join(part[of]['by'])})"
            for name, part in parts.items()
            if worst != "yes" and part[of]["answer"] == worst
        ]
        reason = f"because of {'; '.join(by)}" if by else "all that went into it allows it"
        whole[of] = {"answer": worst, "by": by, "reason": reason}
    return whole
