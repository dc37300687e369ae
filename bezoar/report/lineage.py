"""`python -m bezoar.lineage ROW_ID [--json]`: where a row of the sets comes from and where it went.

Seeds -> the exchange that wrote its instruction -> the exchange that wrote its response -> verdict
-> side of the split, or why it was dropped -> links that trained on it -> checkpoints that hold it.
All of it is read from what the stages wrote; a row that was never finished has a lineage too.
"""

import argparse
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bezoar import params
from bezoar.filtering import curation
from bezoar.params import PAIRS, Params
from bezoar.rows.files import BadInput, numbered, read_jsonl
from bezoar.rows.records import Example, Exchange, Kept, Query, Rejected, Sample, Seed, Verdict

WIDTH = 2_000  # characters of a text that are printed; --json has all


class Step(NamedTuple):
    """A stage that changed weights, and the sets (folders of data/) that it learnt from: its own (a
    merge has none), and earlier ones, some of whose rows it saw again."""

    stage: str
    made: str
    data: tuple[str, ...] = ()
    replayed: tuple[str, ...] = ()


def steps(settings: Params, weights: str) -> list[Step]:
    """Every step by which `weights` (a folder of models/) came about, first to last."""
    if weights.startswith("sft/"):
        name = weights.removeprefix("sft/")
        link = settings.chain[name]
        before, last = [link.base, link.start], Step(f"sft@{name}", weights, (*link.sets,))
    elif weights.startswith("merge/"):
        name = weights.removeprefix("merge/")
        merged = settings.merges[name]
        before, last = [merged.base, *merged.adapters], Step(f"merge@{name}", weights)
    elif weights.startswith("dpo/"):
        start = settings.aligned[weights.removeprefix("dpo/")].start
        before, last = [start], Step("dpo", weights, (PAIRS,))
    else:
        return []
    found = list(dict.fromkeys(step for each in before for step in steps(settings, each)))
    if settings.mix.replay and last.stage.startswith("sft@"):
        taught = dict.fromkeys(name for step in found for name in step.data)
        last = last._replace(replayed=tuple(name for name in taught if name not in last.data))
    return [*found, last]


def trace(id: str, settings: Params) -> dict[str, Any]:
    """The lineage of one row as plain JSON. BadInput: no row has that id (near ones are named), or
    a file that a finished run has is missing."""
    scheme = _scheme(id, settings)
    if scheme in settings.own:
        return _own(id, scheme, settings)
    generated = f"data/generate/{scheme}"
    sample = _one(f"{generated}/samples.jsonl", Sample, id)
    lost = None if sample else _one(f"{generated}/rejected.jsonl", Rejected, id)
    if sample is None and lost is None:
        raise BadInput(f"{id}: no row has this id; {_near(id, settings)}")
    # a scheme numbers a job's rows after the job's id, or has one row a job under it
    exchanges = [
        e
        for e in _rows(
            f"{generated}/replies.jsonl", Exchange, f'"{id.rpartition("-")[0]}"', f'"{id}"'
        )
        if id == e.job or id.startswith(f"{e.job}-")
    ]
    found: dict[str, Any] = {"id": id, "scheme": scheme}
    if lost is not None:
        # a reply holds the text that was read from it; without one any of the job's may be at fault
        spoilt = [e for e in exchanges if lost.text and lost.text in e.reply.text] or exchanges
        found |= {"row": lost.model_dump(), "seeds": [], "exchanges": [*map(_said, spoilt)]}
        return found | {"dropped": {"stage": f"generate@{scheme}", "reason": lost.reason}}
    assert sample is not None
    found["row"] = sample.model_dump()
    found["seeds"] = _seeds(getattr(settings.schemes, scheme).seeds, sample.seeds)
    if examples := str(sample.details.get("answers_shown", "")):
        found["answers_shown"] = _seeds("dolly", examples.split(", "))
    found["exchanges"] = [
        {"wrote": wrote, **_said(e)} for wrote, e in _wrote(sample, exchanges) if e is not None
    ]
    said = _one(f"data/judge/{scheme}/verdicts.jsonl", Verdict, id)
    found["verdict"] = said.model_dump() if said else None
    return found | _fate(id, scheme, settings)


def _own(id: str, source: str, settings: Params) -> dict[str, Any]:
    """The lineage of one of the user's own rows: no model wrote it or judged it."""
    seeds = list(read_jsonl(f"data/fetch/{source}/seeds.jsonl", Seed))
    seed = next((each for each in seeds if each.id == id), None)
    if seed is None:
        near = ", ".join(difflib.get_close_matches(id, [each.id for each in seeds], 3, cutoff=0))
        raise BadInput(f"{id}: no row has this id; the nearest of {len(seeds):,} are {near}")
    found = {"id": id, "scheme": source, "row": curation.own([seed])[0].model_dump()}
    told = {"seeds": [seed.model_dump()], "exchanges": [], "verdict": None}
    return found | told | _fate(id, source, settings)


def _fate(id: str, scheme: str, settings: Params) -> dict[str, Any]:
    """What the filter did with a sample, and what it taught."""
    filtered = f"data/filter/{scheme}"
    stage = f"{'filter_own' if scheme in settings.own else 'filter'}@{scheme}"
    for side in ("train", "eval"):
        if row := _one(f"{filtered}/{side}.jsonl", Kept, id):
            terms = row.model_dump(include={"licence", "sources", "teacher_terms", "judge_terms"})
            return {"split": side, "licences": terms, **_learnt(id, scheme, side, settings)}
    dropped = _one(f"{filtered}/rejected.jsonl", Rejected, id)
    if dropped is None:
        raise BadInput(
            f"{filtered}: holds neither this row ({id}) nor its rejection; it is older than "
            f"the rows that it was made from: `dvc repro {stage}` makes it anew"
        )
    why = {"stage": stage, "reason": dropped.reason, "details": dropped.details}
    return {"dropped": why}


def _learnt(id: str, scheme: str, side: str, settings: Params) -> dict[str, Any]:
    """The links that have the row's set for their data, those that saw the row again, and the
    weights that came of them."""
    data = f"filter/{scheme}"
    links = [f"sft@{name}" for name, link in settings.chain.items() if data in link.sets]
    weights = {name: each.model for name, each in settings.evaluated.items()} | settings.unmeasured
    checkpoints = {
        name: {"weights": f"models/{path}", "there": Path("models", path).exists()}
        for name, path in weights.items()
        if any(data in step.data for step in steps(settings, path))
    }
    if side == "eval":
        return {"chose_the_epoch_of": links, "trained_by": [], "replayed_by": [], "held_by": {}}
    again = [
        f"sft@{name}"
        for name in settings.chain
        if data in steps(settings, f"sft/{name}")[-1].replayed
        and Path("data/mix", name).exists()  # else the run has not come to this link yet
        and _one(f"data/mix/{name}/train.jsonl", Example, id)
    ]
    return {"trained_by": links, "replayed_by": again, "held_by": checkpoints}


def _scheme(id: str, settings: Params) -> str:
    for scheme in [*settings.schemes.by_name, *settings.own]:
        if re.fullmatch(rf"{re.escape(scheme)}-\d+(-\d+)?", id):
            return scheme
    for source in settings.own:  # whose rows are called as their source calls them
        if _one(f"data/fetch/{source}/seeds.jsonl", Seed, id):
            return source
    raise BadInput(f"{id}: no row has this id; {_near(id, settings)}")


def _near(id: str, settings: Params) -> str:
    """What to say beside an id that is not there."""
    known: list[str] = []
    for scheme in [*settings.schemes.by_name, *settings.own]:
        for table in ("samples", "rejected"):
            path = Path(f"data/generate/{scheme}/{table}.jsonl")
            if path.exists():
                known += [str(json.loads(line)["id"]) for _, line in numbered(path)]
    if not known:
        return "data/generate holds no rows: run `dvc repro` (or `dvc pull`) first"
    near = difflib.get_close_matches(id, known, 3, cutoff=0)
    return f"the nearest of {len(known):,} are {', '.join(near)}"


def _rows(path: str, record: type[Any], *marks: str) -> Iterator[Any]:
    """The records of `path` whose line holds one of `marks`: the others are not worth parsing."""
    for number, line in numbered(path):
        if any(mark in line for mark in marks):
            try:
                yield record.model_validate_json(line)
            except ValueError:
                raise BadInput(
                    f"{path}:{number}: is no {record.__name__} of this version of the project; "
                    "`dvc repro` makes it anew"
                ) from None


def _one(path: str, record: type[Any], id: str) -> Any:
    return next((row for row in _rows(path, record, json.dumps(id)) if row.id == id), None)


def _seeds(source: str, ids: Sequence[str]) -> list[dict[str, Any]]:
    rows: Iterator[Seed | Query]
    if source == "dolly":
        rows = read_jsonl("data/fetch/dolly/seeds.jsonl", Seed)
    else:
        rows = read_jsonl("data/fetch/flan/queries.jsonl", Query)
    wanted = set(ids)
    return [row.model_dump() for row in rows if row.id in wanted]


def _wrote(sample: Sample, exchanges: Sequence[Exchange]) -> Iterator[tuple[str, Exchange | None]]:
    """The exchange that wrote the instruction, if the teacher did, and the one that wrote the
    response. Two rows of a job may have one and the same response: the one that was asked with this
    row's instruction is meant."""

    def asked(exchange: Exchange) -> bool:
        return any(sample.instruction in message.content for message in exchange.messages)

    told = next((e for e in exchanges if sample.instruction in e.reply.text and not asked(e)), None)
    if told is not None:
        yield "instruction", told
    answers = [e for e in exchanges if e.reply.text.strip().startswith(sample.response)]
    yield "response", next(filter(asked, answers), next(iter(answers), None))


def _said(exchange: Exchange) -> dict[str, Any]:
    reply = exchange.reply
    return {
        "prompt": "\n\n".join(message.content for message in exchange.messages),
        "reply": reply.text,
        "model": reply.model,
        "simulated": reply.simulated,
        "bought_as": reply.key,
        "usd": reply.usd,
    }


# --- as text -------------------------------------------------------------------------------------


def text(found: dict[str, Any]) -> str:
    """A lineage to read: one paragraph a step, long texts cut."""
    row = found["row"]
    parts = []
    for seed in found["seeds"]:
        asked = seed.get("instruction", seed.get("query", ""))
        parts.append((_cited(seed), asked))
    for seed in found.get("answers_shown", []):
        parts.append((f"shown with its own answer: {_cited(seed)}", seed["response"]))
    for each in found["exchanges"]:
        who = f"{each['model']}{', simulated' if each['simulated'] else ''}"
        bought = (
            f", bought as {each['bought_as'][:12]} for ${each['usd']}" if each["bought_as"] else ""
        )
        what = f" for the {each['wrote']}" if "wrote" in each else ""
        parts.append((f"prompt{what}", each["prompt"]))
        parts.append((f"reply of {who}{bought}", each["reply"]))
    if "instruction" in row:
        context = f"\n\nInput: {row['context']}" if row["context"] else ""
        parts.append((f"row {found['id']}", f"{row['instruction']}{context}\n\n{row['response']}"))
    else:
        parts.append((f"row {found['id']}", row["text"]))
    if said := found.get("verdict"):
        stars = f", {said['rating']}" if said["rating"] is not None else ""
        who = f"{said['judge']}{', simulated' if said['simulated'] else ''}"
        parts.append((f"verdict of {who}: {said['status']}{stars}", said["reason"]))
    if dropped := found.get("dropped"):
        details = ", ".join(f"{key} {value}" for key, value in dropped.get("details", {}).items())
        parts.append((f"dropped by {dropped['stage']}: {dropped['reason']}", details))
    else:
        parts += _kept(found)
    return "\n\n".join(f"{head}\n{_indented(body)}".rstrip() for head, body in parts)


def _cited(seed: dict[str, Any]) -> str:
    own = f" ({seed['own_id']})" if seed.get("own_id") else ""
    return f"seed {seed['id']}{own}, {seed['source']}, {seed['licence']}"


def _kept(found: dict[str, Any]) -> list[tuple[str, str]]:
    terms = found["licences"]
    under = f"seeds {terms['licence']}"
    if terms["teacher_terms"]:
        under += f"; teacher {terms['teacher_terms']}; judge {terms['judge_terms']}"
    side = f"kept, in {found['split']}.jsonl of data/filter/{found['scheme']}"
    if found["split"] == "eval":
        links = ", ".join(found["chose_the_epoch_of"]) or "no link"
        return [
            (side, under),
            ("trained on by no link", f"held out: {links} chose its epoch by it"),
        ]
    again = f"replayed by {', '.join(found['replayed_by'])}" if found["replayed_by"] else ""
    held = [
        f"{name}: {each['weights']}{'' if each['there'] else ' (not there)'}"
        for name, each in found["held_by"].items()
    ]
    return [
        (side, under),
        (f"trained on by {', '.join(found['trained_by']) or 'no link'}", again),
        ("held by the checkpoints", "\n".join(held) or "none"),
    ]


def _indented(body: str) -> str:
    cut = (
        f"{body[:WIDTH]} [... {len(body) - WIDTH:,} more characters]" if len(body) > WIDTH else body
    )
    return "\n".join(f"  {line}".rstrip() for line in cut.splitlines())


def main() -> None:
    """Print the lineage of the row named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m bezoar.lineage", description=trace.__doc__)
    parser.add_argument("row", metavar="ROW_ID", help="such as lamini-00001-3")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    asked = parser.parse_args()
    found = trace(asked.row, params.load())
    print(json.dumps(found, indent=2, ensure_ascii=False) if asked.json else text(found))
