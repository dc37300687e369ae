"""The card of a set of instructions: data/filter/SCHEME/README.md."""

import hashlib
import json
from pathlib import Path
from typing import Any

from bezoar.filtering import cards
from bezoar.params import Embedded, Endpoint, Params
from bezoar.rows import languages, prompts
from bezoar.rows.files import read_json, read_jsonl
from bezoar.rows.records import SeedContamination

NAMES = {"lamini": "LaMini", "evol_instruct": "Evol-Instruct", "orca": "Orca"}
# The splits are named, so that the Hub's viewer takes no other file of the set for rows.
SPLITS = [
    {
        "config_name": "default",
        "data_files": [
            {"split": "train", "path": "train.jsonl"},
            {"split": "validation", "path": "eval.jsonl"},
        ],
    }
]
STEPS = {
    "asked": "instructions asked of the teacher",
    "parsed": "read from its replies",
    "repaired": "of which out of a malformed reply",
    "copies": "copies of a seed",
    "equal": "evolutions equal to their original",
    "accepted": "accepted by the judge",
    "rejected": "rejected by the judge",
    "undecided": "undecided: the judge's reply was no verdict",
    "kept": "kept after all filters",
    "train": "of which to train on",
    "eval": "of which held out",
}


def card(name: str, params: Params, folder: Path) -> str:
    """Return the card of the scheme `name`. It is made from the files of its filter stage in
    `folder`, the sources of its seeds and its prompts."""
    from huggingface_hub import DatasetCardData

    funnel: Any = read_json(folder / "funnel.json")
    sheet: Any = read_json(folder / "licences.json")
    seeds = params.schemes.by_name[name].seeds
    source: Any = read_json(f"data/fetch/{seeds}/source.json")
    spoken: Any = read_json(folder / "languages.json")
    judges = params.llm.judges
    simulated = {
        role: funnel[f"simulated_{role}"]
        for role in ("teacher", "judge")
        if funnel[f"simulated_{role}"]
    }
    front = DatasetCardData(
        **cards.licence_of_set(sheet),
        language=spoken["spoken"] or None,
        pretty_name=f"{cards.PROJECT} {NAMES.get(name, name)}",
        size_categories=[cards.size(funnel["kept"])],
        task_categories=["text-generation"],
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        multilinguality=["multilingual" if len(spoken["spoken"]) > 1 else "monolingual"],
        source_datasets=cards.repositories(source) or ["original"],
        tags=[
            "synthetic",
            "instruction-tuning",
            cards.PROJECT,
            name.replace("_", "-"),
            *(["simulated"] if simulated else []),
        ],
        configs=SPLITS,
    )
    return cards.render(
        Path(__file__).with_name("dataset.md"),
        front,
        title=NAMES.get(name, name),
        simulated=simulated,
        funnel=funnel,
        steps={text: funnel[step] for step, text in STEPS.items()},
        sheet=sheet,
        unjoinable=cards.unjoinable(sheet["unjoinable"]),
        spoken=spoken,
        listed=languages.listed,
        row_languages=[(languages.name(s), n) for s, n in spoken["rows"]["kept"].items() if s],
        unknown_languages=spoken["rows"]["kept"].get("", 0),
        judged=sum(funnel[status] for status in ("accepted", "rejected", "undecided")),
        seeds=seeds,
        world=source["source"] == "world",
        parts=source.get("parts", []),
        speakers={
            "teacher": [(funnel["teacher"], params.llm.teacher)],
            "judge": [
                # A single judge has the name that its replies state. A panel's names stand together
                # there, so each member has the name that was asked for.
                (funnel["judge"] if len(judges) == 1 else member.model, member)
                for member in judges
            ],
        },
        asked_with=_asked_with,
        prompts=_prompts(name),
        trust=_trust(name),
        contamination=cards.findings(folder / "contamination.jsonl"),
        compared=_compared(folder),
        tainted=list(read_jsonl(folder / "contaminated_seeds.jsonl", SeedContamination)),
        others=[
            path
            for path in (
                "distributions.json",
                "contamination.jsonl",
                "contaminated_seeds.jsonl",
                "compared.json",
                "languages.json",
                "reported.jsonl",
            )
            if (folder / path).exists()
        ],
    )


def own_card(name: str, folder: Path) -> str:
    """Return the card of the user's own rows: the rows that were dropped, and the licences."""
    from huggingface_hub import DatasetCardData

    funnel: Any = read_json(folder / "funnel.json")
    sheet: Any = read_json(folder / "licences.json")
    spoken: Any = read_json(folder / "languages.json")
    source: Any = read_json(f"data/fetch/{name}/source.json")
    front = DatasetCardData(
        **cards.licence_of_set(sheet),
        language=spoken["spoken"] or None,
        pretty_name=f"{cards.PROJECT} {name}",
        size_categories=[cards.size(funnel["kept"])],
        task_categories=["text-generation"],
        source_datasets=cards.repositories(source) or ["original"],
        tags=["instruction-tuning", cards.PROJECT],
        configs=SPLITS,
    )
    return cards.render(
        Path(__file__).with_name("own.md"),
        front,
        name=name,
        funnel=funnel,
        sheet=sheet,
        world=source["source"] == "world",
        parts=source.get("parts", []),
        contamination=cards.findings(folder / "contamination.jsonl"),
        unjoinable=cards.unjoinable(sheet["unjoinable"]),
    )


def _compared(folder: Path) -> dict[str, Any]:
    """Return compared.json with the `foreign` scripts, those of texts but of no row. A text in a
    foreign script can be in the rows only in translation."""
    counts: Any = read_json(folder / "compared.json")
    foreign = counts["scripts_of_texts"].keys() - counts["scripts_of_rows"].keys() - {""}
    return {
        **counts,
        "foreign": {name: counts["scripts_of_texts"][name] for name in sorted(foreign)},
    }


def _trust(name: str) -> dict[str, Any]:
    """Return each judge's results on rows with known answers. Judges that were not asked are left
    out."""
    path = Path("data/judge", name, "known.json")
    by_judge: Any = read_json(path) if path.exists() else {}
    return {judge: trust for judge, trust in by_judge.items() if trust["known_rows"] is not None}


def _asked_with(endpoint: Endpoint) -> str:
    """Describe a model's provider and parameters, without its address."""
    if isinstance(endpoint, Embedded):
        return "rules in this project's code"
    settings = ", ".join(
        f"{key} {json.dumps(value)}" for key, value in sorted(endpoint.params.items())
    )
    return f"provider {endpoint.provider}, {settings or 'the default parameters'}"


def _prompts(name: str) -> dict[str, str]:
    """Return the SHA-256 of every prompt that the teacher and the judge were sent, by its file."""
    return {
        path.relative_to(prompts.ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in (name, "judge")
        for path in sorted((prompts.ROOT / folder).rglob("*.txt"))
    }
