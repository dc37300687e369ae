"""`python -m bezoar.lineage ROW_ID [--json]`: where a row of the sets comes from and where it went.

Seeds -> the exchange that wrote its instruction -> the exchange that wrote its response -> verdict
-> side of the split, or why it was dropped -> links that trained on it -> checkpoints that hold it.
All of it is read from the files of the stages. A row that was never finished has a lineage too.
"""

import argparse
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bezoar import params
from bezoar.filtering import curation
from bezoar.params import Params
from bezoar.rows.files import BadInput, numbered, read_jsonl
from bezoar.rows.records import Example, Exchange, Kept, Query, Rejected, Sample, Seed, Verdict
from bezoar.training import chain

# The characters of a text that are printed; --json has all of them.
WIDTH = 2_000


def trace(id: str, settings: Params) -> dict[str, Any]:
    """Trace one row: the seeds, exchanges and verdict behind it, the links and checkpoints after
    it, as plain JSON. BadInput: no row has that id (near ones are named), or a file that a finished
    run has is missing."""
    scheme = _scheme(id, settings)
    if scheme in settings.own:
        return _trace_own(id, scheme, settings)
    folder = f"data/generate/{scheme}"
    sample = _find_row(f"{folder}/samples.jsonl", Sample, id)
    rejected = None if sample else _find_row(f"{folder}/rejected.jsonl", Rejected, id)
    if sample is None and rejected is None:
        raise BadInput(f"{id}: no row has this id; {_nearest_ids(id, settings)}")
    # a scheme numbers a job's rows (job lamini-00001 has lamini-00001-3), or gives its one row the
    # job's own id; the marks only choose lines to parse, so the ids are compared again
    exchanges = [
        e
        for e in _rows(f"{folder}/replies.jsonl", Exchange, f'"{id.rpartition("-")[0]}"', f'"{id}"')
        if id == e.job or id.startswith(f"{e.job}-")
    ]
    lineage: dict[str, Any] = {"id": id, "scheme": scheme}
    if rejected is not None:
        # the reply at fault holds the text that was read from it; where none does, all are shown
        suspects = [
            e for e in exchanges if rejected.text and rejected.text in e.reply.text
        ] or exchanges
        lineage |= {
            "row": rejected.model_dump(),
            "seeds": [],
            "exchanges": [*map(_exchange_fields, suspects)],
        }
        return lineage | {"dropped": {"stage": f"generate@{scheme}", "reason": rejected.reason}}
    assert sample is not None
    lineage["row"] = sample.model_dump()
    lineage["seeds"] = _seeds(settings.schemes.by_name[scheme].seeds, sample.seeds)
    if examples := str(sample.details.get("answers_shown", "")):
        lineage["answers_shown"] = _seeds("dolly", examples.split(", "))
    lineage["exchanges"] = [
        {"wrote": wrote, **_exchange_fields(e)}
        for wrote, e in _authors(sample, exchanges)
        if e is not None
    ]
    verdict = _find_row(f"data/judge/{scheme}/verdicts.jsonl", Verdict, id)
    lineage["verdict"] = verdict.model_dump() if verdict else None
    return lineage | _fate(id, scheme, settings)


def _trace_own(id: str, source: str, settings: Params) -> dict[str, Any]:
    """Trace one of the user's own rows, which no model wrote or judged."""
    seeds = list(read_jsonl(f"data/fetch/{source}/seeds.jsonl", Seed))
    seed = next((candidate for candidate in seeds if candidate.id == id), None)
    if seed is None:
        near = ", ".join(
            difflib.get_close_matches(id, [candidate.id for candidate in seeds], 3, cutoff=0)
        )
        raise BadInput(f"{id}: no row has this id; the nearest of {len(seeds):,} are {near}")
    identity = {"id": id, "scheme": source, "row": curation.own_rows([seed])[0].model_dump()}
    origin = {"seeds": [seed.model_dump()], "exchanges": [], "verdict": None}
    return identity | origin | _fate(id, source, settings)


def _fate(id: str, scheme: str, settings: Params) -> dict[str, Any]:
    """Return the filter's decision on a sample, and the links and weights that learnt from it.
    BadInput: the filter's files are older than the row."""
    filtered = f"data/filter/{scheme}"
    stage = f"{'filter_own' if scheme in settings.own else 'filter'}@{scheme}"
    for side in ("train", "eval"):
        if row := _find_row(f"{filtered}/{side}.jsonl", Kept, id):
            terms = row.model_dump(include={"licence", "sources", "teacher_terms", "judge_terms"})
            return {"split": side, "licences": terms, **_learners(id, scheme, side, settings)}
    dropped = _find_row(f"{filtered}/rejected.jsonl", Rejected, id)
    if dropped is None:
        raise BadInput(
            f"{filtered}: holds neither this row ({id}) nor its rejection; it is older than "
            f"the rows that it was made from: `dvc repro {stage}` makes it anew"
        )
    cause = {"stage": stage, "reason": dropped.reason, "details": dropped.details}
    return {"dropped": cause}


def _learners(id: str, scheme: str, side: str, settings: Params) -> dict[str, Any]:
    """Return the links that have the row's set for their data, those that saw the row again, and
    the weights that came of them. A held-out row trained none of these: a link chose its epoch by
    it."""
    data = f"filter/{scheme}"
    links = [f"sft@{name}" for name, link in settings.chain.items() if data in link.sets]
    weights = {
        name: checkpoint.model for name, checkpoint in settings.evaluated.items()
    } | settings.unmeasured
    checkpoints = {
        name: {"weights": f"models/{path}", "there": Path("models", path).exists()}
        for name, path in weights.items()
        if any(data in step.data for step in chain.steps(settings, path))
    }
    if side == "eval":
        return {"chose_the_epoch_of": links, "trained_by": [], "replayed_by": [], "held_by": {}}
    again = [
        f"sft@{name}"
        for name in settings.chain
        if data in chain.steps(settings, f"sft/{name}")[-1].replayed
        # a run that has not come to this link yet has no such folder
        and Path("data/mix", name).exists()
        and _find_row(f"data/mix/{name}/train.jsonl", Example, id)
    ]
    return {"trained_by": links, "replayed_by": again, "held_by": checkpoints}


def _scheme(id: str, settings: Params) -> str:
    for scheme in [*settings.schemes.by_name, *settings.own]:
        if re.fullmatch(rf"{re.escape(scheme)}-\d+(-\d+)?", id):
            return scheme
    # the user's rows may have ids of their own, of any form
    for source in settings.own:
        if _find_row(f"data/fetch/{source}/seeds.jsonl", Seed, id):
            return source
    raise BadInput(f"{id}: no row has this id; {_nearest_ids(id, settings)}")


def _nearest_ids(id: str, settings: Params) -> str:
    """Return what to say beside an id that is not there: the nearest ids, or that there are
    none."""
    ids: list[str] = []
    for scheme in [*settings.schemes.by_name, *settings.own]:
        for table in ("samples", "rejected"):
            path = Path(f"data/generate/{scheme}/{table}.jsonl")
            if path.exists():
                ids += [str(json.loads(line)["id"]) for _, line in numbered(path)]
    if not ids:
        return "data/generate holds no rows: run `dvc repro` (or `dvc pull`) first"
    nearest = difflib.get_close_matches(id, ids, 3, cutoff=0)
    return f"the nearest of {len(ids):,} are {', '.join(nearest)}"


def _rows(path: str, record: type[Any], *marks: str) -> Iterator[Any]:
    """Yield the records of `path` whose line holds one of `marks`: the others are not worth
    parsing. BadInput: a line is no such record."""
    for number, line in numbered(path):
        if any(mark in line for mark in marks):
            try:
                yield record.model_validate_json(line)
            except ValueError:
                raise BadInput(
                    f"{path}:{number}: is no {record.__name__} of this version of the project; "
                    "`dvc repro` makes it anew"
                ) from None


def _find_row(path: str, record: type[Any], id: str) -> Any:
    return next((row for row in _rows(path, record, json.dumps(id)) if row.id == id), None)


def _seeds(source: str, ids: Sequence[str]) -> list[dict[str, Any]]:
    rows: Iterator[Seed | Query]
    if source == "dolly":
        rows = read_jsonl("data/fetch/dolly/seeds.jsonl", Seed)
    else:
        rows = read_jsonl("data/fetch/flan/queries.jsonl", Query)
    id_set = set(ids)
    return [row.model_dump() for row in rows if row.id in id_set]


def _authors(
    sample: Sample, exchanges: Sequence[Exchange]
) -> Iterator[tuple[str, Exchange | None]]:
    """Yield the exchange that wrote the instruction, if the teacher did, and the one that wrote the
    response. Two rows of a job may have the same response: then it is the exchange that was asked
    with this row's instruction."""

    def was_asked(exchange: Exchange) -> bool:
        return any(sample.instruction in message.content for message in exchange.messages)

    instruction = next(
        (e for e in exchanges if sample.instruction in e.reply.text and not was_asked(e)), None
    )
    if instruction is not None:
        yield "instruction", instruction
    answers = [e for e in exchanges if e.reply.text.strip().startswith(sample.response)]
    yield "response", next(filter(was_asked, answers), next(iter(answers), None))


def _exchange_fields(exchange: Exchange) -> dict[str, Any]:
    reply = exchange.reply
    return {
        "prompt": "\n\n".join(message.content for message in exchange.messages),
        "reply": reply.text,
        "model": reply.model,
        "simulated": reply.simulated,
        "bought_as": reply.key,
        "usd": reply.usd,
    }


# The lineage as text.


def text(lineage: dict[str, Any]) -> str:
    """Return a lineage to read: one paragraph for each step, long texts cut."""
    row = lineage["row"]
    # (head, body) of each paragraph
    parts = []
    for seed in lineage["seeds"]:
        question = seed.get("instruction", seed.get("query", ""))
        parts.append((_citation(seed), question))
    for seed in lineage.get("answers_shown", []):
        parts.append((f"shown with its own answer: {_citation(seed)}", seed["response"]))
    for exchange in lineage["exchanges"]:
        model = f"{exchange['model']}{', simulated' if exchange['simulated'] else ''}"
        purchase = (
            f", bought as {exchange['bought_as'][:12]} for ${exchange['usd']}"
            if exchange["bought_as"]
            else ""
        )
        purpose = f" for the {exchange['wrote']}" if "wrote" in exchange else ""
        parts.append((f"prompt{purpose}", exchange["prompt"]))
        parts.append((f"reply of {model}{purchase}", exchange["reply"]))
    # a rejected row may be no more than the text that was read from a reply
    if "instruction" in row:
        context = f"\n\nInput: {row['context']}" if row["context"] else ""
        parts.append(
            (f"row {lineage['id']}", f"{row['instruction']}{context}\n\n{row['response']}")
        )
    else:
        parts.append((f"row {lineage['id']}", row["text"]))
    if verdict := lineage.get("verdict"):
        stars = f", {verdict['rating']}" if verdict["rating"] is not None else ""
        judge = f"{verdict['judge']}{', simulated' if verdict['simulated'] else ''}"
        parts.append((f"verdict of {judge}: {verdict['status']}{stars}", verdict["reason"]))
    if dropped := lineage.get("dropped"):
        details = ", ".join(f"{key} {value}" for key, value in dropped.get("details", {}).items())
        parts.append((f"dropped by {dropped['stage']}: {dropped['reason']}", details))
    else:
        parts += _kept_paragraphs(lineage)
    return "\n\n".join(f"{head}\n{_indent(body)}".rstrip() for head, body in parts)


def _citation(seed: dict[str, Any]) -> str:
    own_id = f" ({seed['own_id']})" if seed.get("own_id") else ""
    return f"seed {seed['id']}{own_id}, {seed['source']}, {seed['licence']}"


def _kept_paragraphs(lineage: dict[str, Any]) -> list[tuple[str, str]]:
    terms = lineage["licences"]
    terms_text = f"seeds {terms['licence']}"
    if terms["teacher_terms"]:
        terms_text += f"; teacher {terms['teacher_terms']}; judge {terms['judge_terms']}"
    kept_in = f"kept, in {lineage['split']}.jsonl of data/filter/{lineage['scheme']}"
    if lineage["split"] == "eval":
        links = ", ".join(lineage["chose_the_epoch_of"]) or "no link"
        return [
            (kept_in, terms_text),
            ("trained on by no link", f"held out: {links} chose its epoch by it"),
        ]
    again = f"replayed by {', '.join(lineage['replayed_by'])}" if lineage["replayed_by"] else ""
    holders = [
        f"{name}: {holder['weights']}{'' if holder['there'] else ' (not there)'}"
        for name, holder in lineage["held_by"].items()
    ]
    return [
        (kept_in, terms_text),
        (f"trained on by {', '.join(lineage['trained_by']) or 'no link'}", again),
        ("held by the checkpoints", "\n".join(holders) or "none"),
    ]


def _indent(body: str) -> str:
    cut = (
        f"{body[:WIDTH]} [... {len(body) - WIDTH:,} more characters]" if len(body) > WIDTH else body
    )
    return "\n".join(f"  {line}".rstrip() for line in cut.splitlines())


def main() -> None:
    """Print the lineage of the row named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m bezoar.lineage", description=trace.__doc__)
    parser.add_argument("row", metavar="ROW_ID", help="such as lamini-00001-3")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    args = parser.parse_args()
    lineage = trace(args.row, params.load())
    print(json.dumps(lineage, indent=2, ensure_ascii=False) if args.json else text(lineage))
