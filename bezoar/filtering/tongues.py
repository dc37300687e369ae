"""In which languages the rows of a set may be, in which they are, and which checks know none."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bezoar.filtering import gates
from bezoar.params import Gates
from bezoar.rows import languages
from bezoar.rows.files import read_jsonl, write_json
from bezoar.rows.records import Query, Sample, Seed

FETCHED = Path("data/fetch")


class Speech(NamedTuple):
    """What params.yaml asks for (`wanted`), the seeds counted by language, and what rows may be in
    after that (None: any)."""

    wanted: str | list[str]
    seeds: dict[str, int]
    allowed: list[str] | None


def of_seeds(source: str, params: Gates) -> Speech:
    """Read the languages of a scheme's seeds."""
    if source == "flan":
        queries = read_jsonl(FETCHED / "flan/queries.jsonl", Query)
        texts = [f"{each.query}\n{each.target}" for each in queries]
    else:
        seeds = read_jsonl(FETCHED / source / "seeds.jsonl", Seed)
        texts = [f"{each.instruction}\n{each.response}" for each in seeds]
    counts = languages.of_texts(texts)
    allowed = gates.allowed(params, languages.of_seeds(counts))
    return Speech(params.language, counts, allowed)


def account(speech: Speech, samples: Sequence[Sample], kept: Sequence[Sample]) -> dict[str, Any]:
    """Tell the languages of a set, as languages.json holds them."""
    rows = {
        which: languages.of_texts([f"{row.instruction}\n{row.response}" for row in listed])
        for which, listed in (("generated", samples), ("kept", kept))
    }
    spoken = languages.of_seeds(rows["kept"]) or speech.allowed or []
    return {
        "asked": speech.wanted,
        "allowed": "any" if speech.allowed is None else speech.allowed,
        "seeds": speech.seeds,
        "rows": rows,
        "spoken": spoken,
        "unknown": gates.unknown(spoken),
    }


def write(
    name: str, speech: Speech, samples: Sequence[Sample], kept: Sequence[Sample]
) -> dict[str, Any]:
    """Write languages.json of a scheme's set, and return what it holds."""
    told = account(speech, samples, kept)
    write_json(f"data/filter/{name}/languages.json", told)
    return told


def tell(name: str, speech: Speech, samples: Sequence[Sample], kept: Sequence[Sample]) -> None:
    """Write languages.json, and print it in one line."""
    told = write(name, speech, samples, kept)
    print(f"filter {name}: {summed(told, len(kept), len(samples))}")


def summed(told: Mapping[str, Any], kept: int, generated: int) -> str:
    """Tell the languages of a set in one line."""
    allowed = "any" if told["allowed"] == "any" else languages.listed(told["allowed"])
    of_kept = {languages.name(s) or "not told": n for s, n in told["rows"]["kept"].items()}
    line: str = f"languages allowed: {allowed}" + " (as the seeds)" * (told["asked"] == "seeds")
    line += f"; passed {kept} of {generated} rows"
    line += f" ({', '.join(f'{who} {rows}' for who, rows in of_kept.items())})" * bool(of_kept)
    for gate, codes in told["unknown"].items():
        line += f"; the check `{gate}` knows no {languages.listed(codes)} and is off there"
    return line
