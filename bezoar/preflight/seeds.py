"""The free checks of rows, tried on the seeds. Rows are like the seeds that they are made from, and
are paid for."""

from collections import Counter
from pathlib import Path
from typing import Any

from bezoar.filtering import gates
from bezoar.params import Params
from bezoar.preflight.findings import Finding
from bezoar.rows import chat, languages
from bezoar.rows.files import read_json, read_jsonl
from bezoar.rows.records import Query, Sample, Seed

FETCHED = Path("data/fetch")
FILES = {"dolly": "seeds.jsonl", "flan": "queries.jsonl"}
# Ours: share of the seeds. A loss of fewer is the price of any check.
LEAST = 0.1
WAYS = {
    "wrong_language": "name their languages in filter.gates.language, or set it to any",
    "overlong": "raise filter.gates.characters, or shorten them",
    "template_marker": "take the marks of the chat template out of them",
}


def findings(p: Params) -> list[Finding]:
    """Look at the seeds of every scheme and at own rows, as far as they are fetched."""
    sources = dict.fromkeys([*(scheme.seeds for scheme in p.schemes.by_name.values()), *p.own])
    return [finding for source in sources if (finding := look(p, source))]


def look(p: Params, source: str) -> Finding | None:
    """Say what the free checks would do to the seeds of one source. None where they are not
    fetched, or are the project's own."""
    folder = FETCHED / source
    account_file, path = folder / "source.json", folder / FILES.get(source, "")
    if not account_file.exists() or not path.is_file():
        return None
    account: Any = read_json(account_file)
    if account["source"] == "world":
        return None
    rows = _rows(path, source)
    spoken = languages.of_texts([f"{row.instruction}\n{row.response}" for row in rows])
    seed_languages = languages.of_seeds(spoken)
    allowed = gates.allowed_languages(p.filter.gates, seed_languages)
    reasons = Counter(reason for row in rows if (reason := _reason(row, p, allowed)))
    summary = f"{len(rows)} seeds in {languages.listed(seed_languages)}"
    off = "".join(
        f"; the check `{gate}` knows no {languages.listed(codes)} and is off there"
        for gate, codes in gates.gates_off(seed_languages).items()
    )
    if sum(reasons.values()) < max(1, LEAST * len(rows)):
        return Finding("ok", str(folder), summary + off)
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    verb = "drops" if p.filter.gates.action == "drop" else "reports"
    message = f"of {summary}, filter {verb} such as {sum(reasons.values())} of them ({counts}){off}"
    ways = [WAYS.get(reason, f"see {reason} in docs/rows.md") for reason in reasons]
    return Finding("warning", str(folder), message, "; ".join(dict.fromkeys(ways)))


def _rows(path: Path, source: str) -> list[Sample]:
    if source == "flan":
        queries = read_jsonl(path, Query)
        return [_sample(query.id, query.query, "", query.target) for query in queries]
    seeds = read_jsonl(path, Seed)
    return [_sample(seed.id, seed.instruction, seed.context, seed.response) for seed in seeds]


def _sample(id: str, instruction: str, context: str, response: str) -> Sample:
    return Sample(
        id=id,
        scheme="",
        system="",
        instruction=instruction,
        context=context,
        response=response,
        expected="",
        category="",
        details={},
        seeds=[],
        licence="",
        teacher="",
        simulated=False,
    )


def _reason(row: Sample, p: Params, allowed: list[str] | None) -> str:
    if any(map(chat.marker, (row.instruction, row.context, row.response))):
        return "template_marker"
    fault = gates.fault(row, p.filter.gates, allowed)
    return fault.reason if fault else ""
