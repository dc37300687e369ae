"""Collects the licences and terms of a set: those of its seeds, of its teacher and of its judge.
They are facts for a reader, not legal advice.

filtering/spdx.py knows licences by their names. A licence that it does not know, or that is not
stated, is unknown. Unknown never counts as a yes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from bezoar.filtering.spdx import (
    STRICTNESS,
    Answer,
    Licence,
    find_licence,
    split,
    strictest,
    unjoinable,
)
from bezoar.params import Endpoints
from bezoar.rows.files import BadInput, read_jsonl
from bezoar.rows.records import Kept, Query, Sample, Seed

ROLES = ("seed", "teacher", "judge")
# NOBODY stands for the teacher and the judge of a row of the user's own.
NOBODY = "nobody"
# A refusal names this many sources.
SHOWN = 8

# --- sets ----------------------------------------------------------------------------------------


def origins(seeds: str) -> dict[str, str]:
    """Return the source of each seed, by its id, from the rows below data/fetch/`seeds`."""
    if seeds == "dolly":
        return {seed.id: seed.source for seed in read_jsonl("data/fetch/dolly/seeds.jsonl", Seed)}
    return {query.id: query.source for query in read_jsonl("data/fetch/flan/queries.jsonl", Query)}


def trace(
    samples: Sequence[Sample], sources: Mapping[str, str], llm: Endpoints | None
) -> list[Kept]:
    """Return the samples with the sources of their seeds and the terms of their teacher and judge.

    `sources` is as from `origins`. `llm` is None where no model was asked. BadInput: a seed of a
    sample is missing from `sources`."""
    judges = [judge.terms for judge in llm.judges] if llm else []
    terms = {
        "teacher_terms": llm.teacher.terms if llm else "",
        "judge_terms": ", ".join(dict.fromkeys(judges)),
    }
    rows = []
    for sample in samples:
        missing = [seed for seed in sample.seeds if seed not in sources]
        if missing:
            raise BadInput(
                f"data/generate/{sample.scheme}: {sample.id} was made from {missing[0]}, which "
                "data/fetch does not hold; run the generate stage again"
            )
        seed_sources = sorted({sources[seed] for seed in sample.seeds})
        rows.append(Kept.model_validate({**sample.model_dump(), "sources": seed_sources, **terms}))
    return rows


def sheet(scheme: str, rows: Sequence[Kept]) -> dict[str, Any]:
    """Return licences.json of a set: its rows by combination of licences, and what these licences
    ask for.

    `strictest` is the strictest of all licences. `text` leaves out the judge's, for the judge wrote
    no text. `texts` counts the rows under each licence of the text. `unknown` counts the rows with
    an unknown one. `unjoinable` counts the rows under each two licences that no one work can
    satisfy. `commercial` and `sharing` say whether commercial use and passing on are allowed, and
    why."""
    stated = Counter(
        tuple(_normalise(terms) if terms else NOBODY for terms in _terms_of(row)) for row in rows
    )
    combinations = [
        {**dict(zip(ROLES, names, strict=True)), "rows": number}
        for names, number in sorted(
            stated.items(), key=lambda combination: (-combination[1], combination[0])
        )
    ]
    role_counts = _count_roles(rows)
    everything = {licence for licence, _ in role_counts}
    by_row = [_text_licences(row) for row in rows]
    text_counts = Counter(licence for stated in by_row for licence in stated)
    return {
        "scheme": scheme,
        "rows": len(rows),
        "combinations": combinations,
        "sources": dict(sorted(Counter(s for row in rows for s in row.sources).items())),
        "strictest": strictest([*everything]).name,
        "text": strictest([*text_counts]).name,
        "unknown": sum(not all(licence.is_known for licence in licences) for licences in by_row),
        "texts": {licence.name: number for licence, number in sorted(text_counts.items())},
        "unjoinable": [
            {
                "licences": [*pair],
                "rows": sum(_has_both(pair, licences) for licences in by_row),
            }
            for pair in unjoinable(text_counts)
        ],
        "share_alike": sorted(licence.name for licence in everything if licence.share_alike),
        "attribution": sorted(licence.name for licence in everything if licence.attribution),
        "commercial": _answer(role_counts, "commercial"),
        "sharing": _answer(role_counts, "sharing"),
    }


def check(scheme: str, rows: Sequence[Kept], allow: Sequence[str] | None) -> None:
    """Check that `allow` names every licence of every row, in any usual spelling. None allows
    everything. BadInput names the others with their sources and numbers of rows."""
    if allow is None:
        return
    allowed = {licence.name for name in allow for licence in split(name)}
    refused_ids: set[str] = set()
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for role, stated in _by_role(row):
            for licence in split(stated):
                if licence.name not in allowed:
                    refused_ids.add(row.id)
                    counts[licence.name, role, ", ".join(row.sources)] += 1
    if not refused_ids:
        return
    lines = [
        f"  {name} ({role}): {_rows(number)} from {source}"
        for (name, role, source), number in counts.most_common(SHOWN)
    ]
    if len(counts) > SHOWN:
        lines.append(f"  and {len(counts) - SHOWN} more")
    raise BadInput(
        f"filter@{scheme}: {len(refused_ids):,} of {len(rows):,} rows stand under what "
        "filter.licences.allow does not name; name it there too, leave its source out of "
        "fetch in profiles/, or choose another teacher or judge:\n" + "\n".join(lines)
    )


def _terms_of(row: Kept) -> tuple[str, str, str]:
    return row.licence, row.teacher_terms, row.judge_terms


def _by_role(row: Kept) -> list[tuple[str, str]]:
    """Return (role, terms) for everyone who brings terms to a row. No teacher wrote the user's own
    rows, and no judge chose them."""
    terms_by_role = zip(ROLES, _terms_of(row), strict=True)
    return [(role, stated) for role, stated in terms_by_role if stated or role == "seed"]


def _normalise(stated: str) -> str:
    """Write a list of licences in one spelling."""
    return ", ".join(licence.name for licence in split(stated))


def _text_licences(row: Kept) -> set[Licence]:
    """Return the licences of a row's text: its seeds' and its teacher's."""
    return {lic for role, stated in _by_role(row) if role != "judge" for lic in split(stated)}


def _has_both(pair: Sequence[str], licences: Iterable[Licence]) -> bool:
    """Say whether both licences of a pair are among `licences`."""
    return {*pair} <= {licence.name for licence in licences}


def _count_roles(rows: Sequence[Kept]) -> Counter[tuple[Licence, str]]:
    """Count the rows under each licence, by the role that brings it."""
    role_counts: Counter[tuple[Licence, str]] = Counter()
    for row in rows:
        for role, stated in _by_role(row):
            role_counts.update({(licence, role) for licence in split(stated)})
    return role_counts


def _answer(
    role_counts: Mapping[tuple[Licence, str], int], use: Literal["commercial", "sharing"]
) -> dict[str, Any]:
    """Return the strictest answer on one use, the licences that give it, and the reason."""
    worst = _worst(getattr(licence, use) for licence, _ in role_counts)
    if worst == "yes":
        return {"answer": "yes", "by": [], "reason": "every licence and every term in it allows it"}
    because = [
        (licence, role, rows)
        for (licence, role), rows in sorted(role_counts.items())
        if getattr(licence, use) == worst
    ]
    return {
        "answer": worst,
        "by": list(dict.fromkeys(licence.name for licence, _, _ in because)),
        "reason": "; ".join(
            f"{licence.name} ({role}, {_rows(n)}): {licence.reason}" for licence, role, n in because
        ),
    }


def _worst(answers: Iterable[Answer]) -> Answer:
    return max(answers, key=lambda answer: STRICTNESS[answer])


def _rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"


# --- weights -------------------------------------------------------------------------------------


def of_source(account: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `combine` needs to know of a source, by its source.json.

    A repository states its licence. The invented world is CC0-1.0, and a base grown here has the
    project's licence. A user's files state none."""
    default = {"world": "CC0-1.0", "grown": "Apache-2.0"}.get(account["source"], "")
    stated = [part["licence"] for part in account.get("parts", [])]
    licences = [
        licence for name in stated or [account.get("licence") or default] for licence in split(name)
    ]
    role_counts = Counter((licence, "source") for licence in licences)
    return {
        "text": strictest(licences).name,
        "texts": sorted({licence.name for licence in licences}),
        "commercial": _answer(role_counts, "commercial"),
        "sharing": _answer(role_counts, "sharing"),
    }


def combine(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the terms of weights that were made from `parts` (name -> licences.json, or
    `of_source`).

    These are the strictest `text` of the parts, and the strictest answers with their reasons. It is
    an open question whether weights are a work derived from their data. Here they are taken to be
    one."""
    texts = [find_licence(name) for part in parts.values() for name in part["texts"]]
    combined: dict[str, Any] = {
        "text": strictest([find_licence(part["text"]) for part in parts.values()]).name,
        "unjoinable": [{"licences": [*pair]} for pair in unjoinable(texts)],
    }
    for use in ("commercial", "sharing"):
        worst = _worst(part[use]["answer"] for part in parts.values())
        by = [
            f"{name} ({', '.join(part[use]['by'])})"
            for name, part in parts.items()
            if worst != "yes" and part[use]["answer"] == worst
        ]
        reason = f"because of {'; '.join(by)}" if by else "all that went into it allows it"
        combined[use] = {"answer": worst, "by": by, "reason": reason}
    return combined
