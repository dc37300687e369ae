"""The languages of a set: those allowed, those of its rows, and the gates that are off."""

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
    """The languages of a set's seeds. `setting` is that of params.yaml, `seeds` counts the seeds by
    language, and `allowed` are the languages that rows may be in (None: any)."""

    setting: str | list[str]
    seeds: dict[str, int]
    allowed: list[str] | None


def seed_languages(source: str, params: Gates) -> Speech:
    """Read the seeds of data/fetch/`source` and return their languages."""
    if source == "flan":
        queries = read_jsonl(FETCHED / "flan/queries.jsonl", Query)
        texts = [f"{query.query}\n{query.target}" for query in queries]
    else:
        seeds = read_jsonl(FETCHED / source / "seeds.jsonl", Seed)
        texts = [f"{seed.instruction}\n{seed.response}" for seed in seeds]
    counts = languages.of_texts(texts)
    # A language counts only where enough of the seeds are in it (languages.of_seeds).
    allowed = gates.allowed_languages(params, languages.of_seeds(counts))
    return Speech(params.language, counts, allowed)


def describe(
    speech: Speech, samples: Sequence[Sample], kept_rows: Sequence[Sample]
) -> dict[str, Any]:
    """Return languages.json of a set: languages allowed, of its seeds and of its rows."""
    rows = {
        name: languages.of_texts([f"{row.instruction}\n{row.response}" for row in listed])
        for name, listed in (("generated", samples), ("kept", kept_rows))
    }
    # Rows that do not show a language are taken to be in those allowed.
    spoken = languages.of_seeds(rows["kept"]) or speech.allowed or []
    return {
        "asked": speech.setting,
        "allowed": "any" if speech.allowed is None else speech.allowed,
        "seeds": speech.seeds,
        "rows": rows,
        "spoken": spoken,
        "unknown": gates.gates_off(spoken),
    }


def write(
    name: str, speech: Speech, samples: Sequence[Sample], kept_rows: Sequence[Sample]
) -> dict[str, Any]:
    """Write languages.json of a scheme's set, and return it."""
    description = describe(speech, samples, kept_rows)
    write_json(f"data/filter/{name}/languages.json", description)
    return description


def tell(name: str, speech: Speech, samples: Sequence[Sample], kept_rows: Sequence[Sample]) -> None:
    """Write languages.json, and print it in one line."""
    description = write(name, speech, samples, kept_rows)
    print(f"filter {name}: {summary_line(description, len(kept_rows), len(samples))}")


def summary_line(description: Mapping[str, Any], kept_count: int, generated: int) -> str:
    """Return languages.json in one line for a reader."""
    allowed = "any" if description["allowed"] == "any" else languages.listed(description["allowed"])
    kept_languages = {
        languages.name(s) or "not told": n for s, n in description["rows"]["kept"].items()
    }
    line: str = f"languages allowed: {allowed}" + " (as the seeds)" * (
        description["asked"] == "seeds"
    )
    line += f"; passed {kept_count} of {generated} rows"
    line += (
        f" ({', '.join(f'{language} {rows}' for language, rows in kept_languages.items())})"
        * bool(kept_languages)
    )
    for gate, codes in description["unknown"].items():
        line += f"; the check `{gate}` knows no {languages.listed(codes)} and is off there"
    return line
