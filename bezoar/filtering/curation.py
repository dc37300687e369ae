"""Which samples become training data, and the count of what became of the others."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bezoar.filtering import contamination, dedup, gates
from bezoar.filtering.contamination import Text
from bezoar.filtering.gates import Fault
from bezoar.params import OWN, Action, Filter, Params
from bezoar.rows import chat
from bezoar.rows.files import BadInput, read_json, read_jsonl, write_json, write_jsonl
from bezoar.rows.records import (
    Contamination,
    Generated,
    Rejected,
    Sample,
    Seed,
    SeedContamination,
    Verdict,
)

# Details of a sample whose distribution the paper shows (figures 7-9) or the recipe draws.
SHOWN = (
    *("strategy", "operation", "iteration", "epoch"),
    *("mixture", "system_id", "topic_guided"),
)
CROSSED = "strategy"  # also counted by category (figure 8)

APART = "two are needed that were made from different seeds, to train on and to hold out"

S = TypeVar("S", bound=Sample)


class Given(NamedTuple):
    """What a set is made from: its samples with their verdicts (None: no judge was asked), the
    seeds, the source that has them, what was counted before, and what was lost before."""

    samples: list[Sample]
    verdicts: list[Verdict] | None
    seeds: list[Seed]
    source: str
    counted: dict[str, Any]
    lost: list[Rejected]


class Curated(NamedTuple):
    """What became of the samples, each list in their order: those that stay, the others with the
    reason, what was found and drops no row (`action: report`), every item of a benchmark that was
    found, and what was `compared` for it."""

    kept: list[Sample]
    dropped: list[Rejected]
    reported: list[Rejected]
    contaminations: list[Contamination]
    compared: dict[str, Any]


def keep(
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict] | None,
    seeds: Sequence[Seed],
    params: Filter,
    *,
    benchmarks: Sequence[Text] = (),
    earlier: Sequence[Sample] = (),
    allowed: Collection[str] | None = None,
) -> Curated:
    """Decide on every sample. `verdicts` are None where no judge was asked. `benchmarks` are the
    texts of evaluation, `earlier` the rows that schemes before this one contribute, `allowed` the
    languages that rows may be in (None: any).

    Reasons, the first that applies: copy (of one of `seeds`: paper 3.1.1), undecided, rejected,
    low_rating, template_marker (text that would break the chat template), the gates of
    filtering/gates.py, contaminated (holds an item of `benchmarks`), duplicate (of a sample that
    stays), near_duplicate (of one that stays and has the same system message, or of an earlier
    row). BadInput where the verdicts are not those of the samples."""
    faults = list(_faults(samples, verdicts, seeds, params, allowed))
    passing = [s for s, found in zip(samples, faults, strict=True) if not _drops(found)]
    held = contamination.find(passing, benchmarks, params.contamination)
    holds = {sample.id: items for sample, items in zip(passing, held, strict=True) if items}
    compared = contamination.compared(passing, benchmarks, params.contamination)
    result = Curated([], [], [], [items for row in held for items in row], compared)
    like = params.near_duplicates
    before = dedup.Neighbours(like.ngram, like.threshold)
    for row in earlier:
        before.add(row.id, row.instruction, row.context)
    # the same query under another system message is another row
    same: dict[str, dedup.Neighbours] = defaultdict(
        lambda: dedup.Neighbours(like.ngram, like.threshold)
    )
    seen: set[tuple[str, ...]] = set()
    for sample, found in zip(samples, faults, strict=True):
        asked = (sample.instruction, sample.context)
        content = tuple(" ".join(text.split()) for text in (sample.system, *asked))
        if items := holds.get(sample.id):
            found.append((params.contamination.action, _contaminated(items)))
        if not _drops(found) and content in seen:
            found.append((params.duplicates.action, Fault("duplicate", {})))
        if not _drops(found):
            near = before.nearest(*asked) or same[sample.system].nearest(*asked)
            if near:
                found.append((like.action, _near(near)))
        if not _drops(found):
            seen.add(content)
            same[sample.system].add(sample.id, *asked)
            result.kept.append(sample)
        for action, fault in found:
            rows = result.dropped if action == "drop" else result.reported
            rows.append(_rejected(sample, fault))
    return result


def accepted(
    samples: Sequence[Sample], verdicts: Sequence[Verdict], params: Filter
) -> list[Sample]:
    """The samples that the judge accepted and that have no fault of their own: what a scheme
    contributes before it is compared with anything, in whatever language, for a row that is like
    one of another language is dropped for its own. BadInput: as keep."""
    faults = _faults(samples, verdicts, [], params)
    return [s for s, found in zip(samples, faults, strict=True) if not _drops(found)]


def earlier(name: str, p: Params) -> list[Sample]:
    """What the schemes that params.yaml names before this one contribute, where they were
    made (data/generate, data/judge)."""
    rows: list[Sample] = []
    for other in takewhile(lambda each: each != name, p.schemes.by_name):
        generated, judged = Path("data/generate", other), Path("data/judge", other)
        if generated.exists() and judged.exists():
            samples = list(read_jsonl(generated / "samples.jsonl", Sample))
            verdicts = list(read_jsonl(judged / "verdicts.jsonl", Verdict))
            rows += accepted(samples, verdicts, p.filter)
    return rows


def own(seeds: Sequence[Seed]) -> list[Sample]:
    """Return the user's own rows as samples that no teacher wrote, each made from itself."""
    return [
        Sample(
            id=seed.id,
            scheme=OWN,
            system="",
            instruction=seed.instruction,
            context=seed.context,
            response=seed.response,
            expected="",
            category=seed.category,
            details={},
            seeds=[seed.id],
            licence=seed.licence,
            teacher="",
            simulated=False,
        )
        for seed in seeds
    ]


def generated_set(name: str, p: Params) -> Given:
    """What the teacher wrote by a scheme, and the judge said of it."""
    folder, source = f"data/generate/{name}", getattr(p.schemes, name).seeds
    summary = Generated.model_validate(read_json(f"{folder}/summary.json"))
    counted = summary.model_dump(exclude={"jobs", "simulated"})
    return Given(
        samples=list(read_jsonl(f"{folder}/samples.jsonl", Sample)),
        verdicts=list(read_jsonl(f"data/judge/{name}/verdicts.jsonl", Verdict)),
        seeds=list(read_jsonl("data/fetch/dolly/seeds.jsonl", Seed)) if source == "dolly" else [],
        source=source,
        counted={**counted, "simulated_teacher": summary.simulated},
        lost=list(read_jsonl(f"{folder}/rejected.jsonl", Rejected)),
    )


def own_set(source: str) -> Given:
    """The user's own rows as they were fetched: no model wrote them, and none judges them."""
    seeds = list(read_jsonl(f"data/fetch/{source}/seeds.jsonl", Seed))
    rows = own(seeds)
    return Given(rows, None, seeds, source, {"own": len(rows)}, [])


Found = list[tuple[Action, Fault]]


def _drops(found: Found) -> bool:
    return any(action == "drop" for action, _ in found)


def _faults(
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict] | None,
    seeds: Sequence[Seed],
    params: Filter,
    allowed: Collection[str] | None = None,
) -> Iterator[Found]:
    """Of each sample what speaks against it alone: at most one fault that drops it, and nothing
    after that."""
    if verdicts is not None and [s.id for s in samples] != [v.id for v in verdicts]:
        raise BadInput(
            f"data/judge: {len(verdicts)} verdicts do not belong to the {len(samples)} samples of "
            "data/generate, one to one in their order; run the judge stage again"
        )
    copies = dedup.copies(
        [sample.instruction for sample in samples],
        [seed.instruction for seed in seeds],
        params.copy_ratio,
        params.copy_distance,
    )
    of_judge: Sequence[Verdict | None] = [None] * len(samples) if verdicts is None else verdicts
    for sample, verdict, copy in zip(samples, of_judge, copies, strict=True):
        if copy:
            seed = seeds[copy.seed]
            details: dict[str, str | int | bool] = {"seed": seed.id, "seed_text": seed.instruction}
            details |= {"distance": copy.distance, "ratio": f"{copy.ratio:.3f}"}
            yield [("drop", Fault("copy", details))]
        elif verdict and verdict.status != "accepted":
            yield [("drop", Fault(verdict.status, {"judge": verdict.reason}))]
        elif verdict and (verdict.rating is None or verdict.rating < params.min_rating):
            yield [("drop", Fault("low_rating", {"rating": verdict.rating or 0}))]
        else:
            faults: Found = []
            if marker := _marker(sample):
                held = Fault("template_marker", {"marker": marker})
                faults.append((params.markers.action, held))
            if not _drops(faults) and (fault := gates.fault(sample, params.gates, allowed)):
                faults.append((params.gates.action, fault))
            yield faults


def _rejected(sample: Sample, fault: Fault) -> Rejected:
    return Rejected(
        id=sample.id,
        scheme=sample.scheme,
        reason=fault.reason,
        text=sample.instruction,
        details=fault.details,
    )


def _contaminated(items: Sequence[Contamination]) -> Fault:
    """The worst of what a row holds; contamination.jsonl has the others."""
    worst = max(items, key=lambda each: (each.kind != "fuzzy", each.score))
    details = {"benchmark": worst.benchmark, "item": worst.item, "kind": worst.kind}
    return Fault("contaminated", {**details, "score": f"{worst.score:.3f}"})


def _near(near: dedup.Near) -> Fault:
    return Fault("near_duplicate", {"of": near.name, "similarity": f"{near.similarity:.3f}"})


def _marker(sample: Sample) -> str | None:
    texts = (sample.system, sample.instruction, sample.context, sample.response)
    return next((found for text in texts if (found := chat.marker(text))), None)


def split(
    samples: Sequence[S], seeds: Sequence[Seed], eval_share: float
) -> tuple[list[S], list[S]]:
    """(train, eval), about `eval_share` of the rows held out, by a hash of content.

    Seeds are held out, and with them every row that was made from one of them: no row of train was
    made from a held-out seed, every row of eval from at least one. A row's side depends on its own
    seeds alone, so it stays there when others are added. Rows without a known seed (Orca, whose
    instruction is the seed) are held out by instruction. Where the hash leaves one side empty, it
    gets the rows nearest to it; BadInput where all rows hang together."""
    texts = {seed.id: seed.instruction for seed in seeds}
    places = [_place(sample, texts) for sample in samples]
    if len(set(places)) < 2:
        raise BadInput(f"filter: keeps {few(samples, seeds)}; {APART}")
    held_out = {place for place in places if place < eval_share} or {min(places)}
    if held_out == set(places):
        held_out.remove(max(places))
    train = [s for s, place in zip(samples, places, strict=True) if place not in held_out]
    return train, [s for s, place in zip(samples, places, strict=True) if place in held_out]


def few(samples: Sequence[Sample], seeds: Sequence[Seed]) -> str:
    """Say what rows are too few to be split, "" where they are enough."""
    texts = {seed.id: seed.instruction for seed in seeds}
    parts = len({_place(sample, texts) for sample in samples})
    if parts > 1:
        return ""
    rows = f"{len(samples)} row" + "s" * (len(samples) != 1)
    return rows + (", all made from the same seeds" if len(samples) > 1 else "")


def enough(name: str, given: Given, curated: Curated) -> None:
    """Check that the rows kept can be split. BadInput: they cannot; what was rejected, and the
    counts, are then written to data/filter."""
    short = few(curated.kept, given.seeds)
    if not short:
        return
    out = f"data/filter/{name}"
    for side in ("train", "eval"):  # empty, for a lineage looks there first
        write_jsonl(f"{out}/{side}.jsonl", [])
    write_jsonl(f"{out}/rejected.jsonl", curated.dropped)
    write_jsonl(f"{out}/reported.jsonl", curated.reported)
    dropped = [*given.lost, *curated.dropped]
    counts = funnel(given.samples, given.verdicts or [], curated.kept, dropped, curated.reported)
    write_json(f"{out}/funnel.json", {"scheme": name, **counts})
    raise BadInput(
        f"filter@{name}: keeps {short}, of {len(given.samples)} samples "
        f"({by_reason(curated.dropped)}); {APART}: {out}/rejected.jsonl has each row with its "
        "reason"
    )


def by_reason(rejected: Sequence[Rejected]) -> str:
    """Count rejected rows by reason in one line, the most frequent first."""
    counts = Counter(row.reason for row in rejected)
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "none"


def unshared(
    samples: Sequence[S], seeds: Sequence[Seed], eval_share: float
) -> tuple[list[S], list[Rejected]]:
    """(samples that can be split so that no seed stands on both sides, the others as
    `shared_seed`).

    Only rows of several seeds (LaMini shows three in a call) are concerned: those that `split`
    would hold out for one seed while training looks at another. They go, for their side must not
    hang on other rows: were calls that share a seed to stand together, all would, once there are
    many. Where no held-out row were left, all stay."""
    train, held_out = split(samples, seeds, eval_share)
    trained = {seed for row in train for seed in row.seeds}
    shared = {row.id: sorted(trained & {*row.seeds}) for row in held_out}
    if all(shared.values()):
        return list(samples), []
    dropped = [
        _rejected(row, Fault("shared_seed", {"seeds": ", ".join(shared[row.id])}))
        for row in held_out
        if shared[row.id]
    ]
    return [row for row in samples if not shared.get(row.id)], dropped


def _place(sample: Sample, seeds: dict[str, str]) -> float:
    """A number from 0 to 1, uniform, that depends on what the sample is made from alone: the lowest
    of its seeds' numbers, stretched, for the lowest of three is below 0.1 three times as often."""
    made_from = [seeds[seed] for seed in sample.seeds if seed in seeds] or [sample.instruction]
    numbers = {_number(text) for text in made_from}
    return 1 - (1 - min(numbers)) ** len(numbers)


def _number(text: str) -> float:
    digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def funnel(
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict],
    kept: Sequence[Sample],
    rejected: Sequence[Rejected],
    reported: Sequence[Rejected] = (),
) -> dict[str, Any]:
    """Count from the judge's word on to the rows kept (the paper's Table 4).

    `samples` are the rows generated, all of them judged. `rejected` are those of generation and of
    `keep`: `copies` are copies of a seed, found in either, and `equal` are evolutions equal to
    their original. `reported` were found and stay. `distributions` and `by_category` count the rows
    generated beside the rows kept (figures 7-9)."""
    said = Counter(verdict.status for verdict in verdicts)
    reasons = Counter(row.reason for row in rejected)
    return {
        "copies": reasons["copy"] + reasons["echo"],
        "equal": reasons["equal"],
        **{status: said[status] for status in ("accepted", "rejected", "undecided")},
        "kept": len(kept),
        "reasons": dict(reasons),
        "reported": dict(Counter(row.reason for row in reported)),
        "distributions": {"generated": distributed(samples), "kept": distributed(kept)},
        "by_category": {"generated": by_category(samples), "kept": by_category(kept)},
        "judge": ", ".join(sorted({verdict.judge for verdict in verdicts})),
        "simulated_judge": any(verdict.simulated for verdict in verdicts),
    }


def distributed(rows: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Count `rows` by category and by each of SHOWN; what none of them has is left out."""
    values = {name: [row.details[name] for row in rows if name in row.details] for name in SHOWN}
    values["category"] = [row.category for row in rows]
    counted = {name: _counts(found) for name, found in values.items()}
    return {name: counts for name, counts in counted.items() if counts}


def by_category(rows: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Count the strategies of each category; {} where rows were not made by one."""
    drawn = [row for row in rows if row.category and CROSSED in row.details]
    return {
        category: _counts([row.details[CROSSED] for row in drawn if row.category == category])
        for category in sorted({row.category for row in drawn})
    }


def _counts(values: Sequence[str | int | bool]) -> dict[str, int]:
    named = (str(v).lower() if isinstance(v, bool) else str(v) for v in values)
    return dict(Counter(name for name in named if name))


def shares(
    counts: Mapping[str, Any], samples: int, described: Mapping[str, Any]
) -> dict[str, float]:
    """The judge's decisions as shares of all samples, none where no judge was asked, and how far
    the kinds of task are from the target."""
    decided = {
        f"{status}_share": counts[status] / samples
        for status in ("accepted", "rejected", "undecided")
        if status in counts
    }
    sets = described["sets"].items()
    return decided | {f"target_distance_{which}": found["distance"] for which, found in sets}


def taint(kept: Sequence[Sample], seeds: Sequence[SeedContamination]) -> dict[str, int]:
    """How many seeds of the rows that stay hold an item of a benchmark, and those rows."""
    ids = {seed.id for seed in seeds}
    return {
        "contaminated_seeds": len(ids),
        "rows_of_contaminated_seeds": sum(not ids.isdisjoint(row.seeds) for row in kept),
    }
