"""Selects the samples that become training data, and counts the reasons for dropping the others."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bezoar.filtering import contamination, dedup, distributions, gates
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
# This detail is also counted by category (figure 8).
CROSSED = "strategy"

APART = "two are needed that were made from different seeds, to train on and to hold out"

S = TypeVar("S", bound=Sample)


class Given(NamedTuple):
    """The input of a set: its samples with their verdicts (None: no judge was asked), the seeds,
    and the name of their source. `counted` are the counts of earlier steps, `lost` the rows they
    rejected."""

    samples: list[Sample]
    verdicts: list[Verdict] | None
    seeds: list[Seed]
    source: str
    counted: dict[str, Any]
    lost: list[Rejected]


class Curated(NamedTuple):
    """The samples sorted into lists, each in their order. `kept` stay, `dropped` go, each with its
    reason, and `reported` are findings that drop no row (`action: report`). `contaminations` has
    every item of a benchmark found, `compared` the numbers of what was searched."""

    kept: list[Sample]
    dropped: list[Rejected]
    reported: list[Rejected]
    contaminations: list[Contamination]
    compared: dict[str, Any]


def curate(
    name: str, p: Params, pool: Given, benchmarks: Sequence[Text], allowed: Collection[str] | None
) -> Curated:
    """Decide on every sample of a set, as `keep` does. Copies of seeds are looked for where
    filter.copies names the set. Rows of the user's own are compared with no scheme's."""
    return keep(
        pool.samples,
        pool.verdicts,
        pool.seeds if name in p.filter.copies else [],
        p.filter,
        benchmarks=benchmarks,
        earlier=[] if name in p.own else earlier_rows(name, p),
        allowed=allowed,
    )


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
    texts of evaluation, `earlier` the rows of the schemes before this one. `allowed` are the
    languages that rows may be in (None: any).

    The first reason that applies counts: copy (of one of `seeds`, paper 3.1.1), undecided,
    rejected, low_rating, template_marker (text that would break the chat template), a gate of
    filtering/gates.py, contaminated (holds an item of `benchmarks`), duplicate (of a sample that
    stays), near_duplicate (of one that stays and has the same system message, or of an earlier
    row). BadInput: the verdicts are not those of the samples."""
    sample_findings = list(_sample_findings(samples, verdicts, seeds, params, allowed))
    passing = [
        s for s, findings in zip(samples, sample_findings, strict=True) if not _drops(findings)
    ]
    contaminations = contamination.find(passing, benchmarks, params.contamination)
    items_of = {
        sample.id: items for sample, items in zip(passing, contaminations, strict=True) if items
    }
    compared = contamination.count_compared(passing, benchmarks, params.contamination)
    result = Curated([], [], [], [item for items in contaminations for item in items], compared)
    settings = params.near_duplicates
    earlier_index = dedup.Neighbours(settings.ngram, settings.threshold)
    for row in earlier:
        earlier_index.add(row.id, row.instruction, row.context)
    # The same query under another system message is another row.
    index_of: dict[str, dedup.Neighbours] = defaultdict(
        lambda: dedup.Neighbours(settings.ngram, settings.threshold)
    )
    seen_contents: set[tuple[str, ...]] = set()
    for sample, findings in zip(samples, sample_findings, strict=True):
        prompt = (sample.instruction, sample.context)
        content = tuple(" ".join(text.split()) for text in (sample.system, *prompt))
        if items := items_of.get(sample.id):
            findings.append((params.contamination.action, _contamination_fault(items)))
        if not _drops(findings) and content in seen_contents:
            findings.append((params.duplicates.action, Fault("duplicate", {})))
        if not _drops(findings):
            near = earlier_index.nearest(*prompt) or index_of[sample.system].nearest(*prompt)
            if near:
                findings.append((settings.action, _near_fault(near)))
        if not _drops(findings):
            seen_contents.add(content)
            index_of[sample.system].add(sample.id, *prompt)
            result.kept.append(sample)
        for action, fault in findings:
            # A finding with the action `report` drops no row, and the later checks go on.
            rows = result.dropped if action == "drop" else result.reported
            rows.append(_rejected(sample, fault))
    return result


def choose(curated: Curated, seeds: Sequence[Seed], params: Filter) -> Curated:
    """Narrow the rows that passed to those of the set. A row goes where its seeds stand on both
    sides of the split (`drop_shared_seeds`), or beyond the target (distributions.balance)."""
    rows, shared = drop_shared_seeds(curated.kept, seeds, params.eval_share)
    rows, spare = distributions.balance(rows, params.tasks, params.balance)
    stay = {row.id for row in rows}
    return curated._replace(
        kept=rows,
        dropped=[*curated.dropped, *shared, *spare],
        reported=[row for row in curated.reported if row.id in stay],
    )


def accepted_rows(
    samples: Sequence[Sample], verdicts: Sequence[Verdict], params: Filter
) -> list[Sample]:
    """Return the samples that the judge accepted and that have no fault of their own, in any
    language.

    They are what a scheme contributes before its rows are compared with others. BadInput: as for
    keep."""
    # No language is excluded here: a row that resembles one in an excluded language is in that
    # language too, and is dropped for it.
    faults = _sample_findings(samples, verdicts, [], params)
    return [s for s, findings in zip(samples, faults, strict=True) if not _drops(findings)]


def earlier_rows(name: str, p: Params) -> list[Sample]:
    """Read the rows of the schemes before `name`, as far as data/generate and data/judge have them.

    Their order is that of params.Schemes, wherever they stand in params.yaml: DVC sees no change of
    the order there, and would run no stage again for it."""
    rows: list[Sample] = []
    for scheme in takewhile(lambda scheme: scheme != name, p.schemes.by_name):
        generated, judged = Path("data/generate", scheme), Path("data/judge", scheme)
        if generated.exists() and judged.exists():
            samples = list(read_jsonl(generated / "samples.jsonl", Sample))
            verdicts = list(read_jsonl(judged / "verdicts.jsonl", Verdict))
            rows += accepted_rows(samples, verdicts, p.filter)
    return rows


def own_rows(seeds: Sequence[Seed]) -> list[Sample]:
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
    """Read the samples that the teacher wrote for a scheme, and the judge's verdicts on them."""
    folder, source = f"data/generate/{name}", p.schemes.by_name[name].seeds
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
    """Read the user's own rows as they were fetched: no model wrote them, and no judge is asked."""
    seeds = list(read_jsonl(f"data/fetch/{source}/seeds.jsonl", Seed))
    rows = own_rows(seeds)
    return Given(rows, None, seeds, source, {"own": len(rows)}, [])


Findings = list[tuple[Action, Fault]]


def _drops(findings: Findings) -> bool:
    """Say whether one of the findings drops the row."""
    return any(action == "drop" for action, _ in findings)


def _sample_findings(
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict] | None,
    seeds: Sequence[Seed],
    params: Filter,
    allowed: Collection[str] | None = None,
) -> Iterator[Findings]:
    """Yield for each sample the findings that need no other sample. The first finding that drops it
    ends the search. BadInput: as for keep."""
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
    judged: Sequence[Verdict | None] = [None] * len(samples) if verdicts is None else verdicts
    for sample, verdict, copy in zip(samples, judged, copies, strict=True):
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
            findings: Findings = []
            if marker := _marker(sample):
                marker_fault = Fault("template_marker", {"marker": marker})
                findings.append((params.markers.action, marker_fault))
            if not _drops(findings) and (fault := gates.fault(sample, params.gates, allowed)):
                findings.append((params.gates.action, fault))
            yield findings


def _rejected(sample: Sample, fault: Fault) -> Rejected:
    return Rejected(
        id=sample.id,
        scheme=sample.scheme,
        reason=fault.reason,
        text=sample.instruction,
        details=fault.details,
    )


def _contamination_fault(items: Sequence[Contamination]) -> Fault:
    """Return the worst item that a row holds as a fault. contamination.jsonl lists the others."""
    worst = max(items, key=lambda item: (item.kind != "fuzzy", item.score))
    details = {"benchmark": worst.benchmark, "item": worst.item, "kind": worst.kind}
    return Fault("contaminated", {**details, "score": f"{worst.score:.3f}"})


def _near_fault(near: dedup.Near) -> Fault:
    return Fault("near_duplicate", {"of": near.name, "similarity": f"{near.similarity:.3f}"})


def _marker(sample: Sample) -> str | None:
    texts = (sample.system, sample.instruction, sample.context, sample.response)
    return next((marker for text in texts if (marker := chat.marker(text))), None)


def split(
    samples: Sequence[S], seeds: Sequence[Seed], eval_share: float
) -> tuple[list[S], list[S]]:
    """Return (train, eval), with about `eval_share` of the rows held out by a hash of content.

    A seed is held out together with all rows made from it. Among rows with equally many seeds, no
    row of train was made from a held-out seed, and every row of eval was made from at least one. A
    row's side depends on its own seeds alone, so it stays there when rows are added. A row without
    a known seed is held out by its instruction (in Orca the instruction is the seed).

    If the hash would leave one side empty, that side gets the rows nearest to it. BadInput: no two
    rows were made from different seeds."""
    texts = {seed.id: seed.instruction for seed in seeds}
    positions = [_position(sample, texts) for sample in samples]
    if len(set(positions)) < 2:
        raise BadInput(f"filter: keeps {too_few(samples, seeds)}; {APART}")
    # Positions are held out and not rows, so rows made from the same seeds stay together.
    held_out = {position for position in positions if position < eval_share} or {min(positions)}
    if held_out == set(positions):
        held_out.remove(max(positions))
    train = [s for s, position in zip(samples, positions, strict=True) if position not in held_out]
    return train, [
        s for s, position in zip(samples, positions, strict=True) if position in held_out
    ]


def too_few(samples: Sequence[Sample], seeds: Sequence[Seed]) -> str:
    """Describe the rows where they are too few to be split. Return "" where they are enough."""
    texts = {seed.id: seed.instruction for seed in seeds}
    parts = len({_position(sample, texts) for sample in samples})
    if parts > 1:
        return ""
    rows = f"{len(samples)} row" + "s" * (len(samples) != 1)
    return rows + (", all made from the same seeds" if len(samples) > 1 else "")


def check_splittable(name: str, inputs: Given, curated: Curated) -> None:
    """Check that the rows kept can be split.

    BadInput: they cannot. The rejected rows and the counts are written to data/filter first."""
    short = too_few(curated.kept, inputs.seeds)
    if not short:
        return
    out = f"data/filter/{name}"
    # The two are written empty, because a lineage looks there first.
    for side in ("train", "eval"):
        write_jsonl(f"{out}/{side}.jsonl", [])
    write_jsonl(f"{out}/rejected.jsonl", curated.dropped)
    write_jsonl(f"{out}/reported.jsonl", curated.reported)
    dropped = [*inputs.lost, *curated.dropped]
    counts = funnel(inputs.samples, inputs.verdicts or [], curated.kept, dropped, curated.reported)
    write_json(f"{out}/funnel.json", {"scheme": name, **counts})
    raise BadInput(
        f"filter@{name}: keeps {short}, of {len(inputs.samples)} samples "
        f"({count_by_reason(curated.dropped)}); {APART}: {out}/rejected.jsonl has each row with "
        "its reason"
    )


def count_by_reason(rejected: Sequence[Rejected]) -> str:
    """Count rejected rows by reason in one line, the most frequent first."""
    counts = Counter(row.reason for row in rejected)
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "none"


def drop_shared_seeds(
    samples: Sequence[S], seeds: Sequence[Seed], eval_share: float
) -> tuple[list[S], list[Rejected]]:
    """Return (the samples that stay, the others with the reason `shared_seed`). After a split of
    those that stay, no seed stands on both sides.

    Only rows with several seeds can be dropped (LaMini shows three in a call). They are rows that
    `split` holds out for one seed, while train has a row of another of their seeds. Such rows are
    dropped. Keeping all calls that share a seed on one side would, at scale, put every row on the
    same side. All rows stay where no held-out row would be left."""
    train, held_out = split(samples, seeds, eval_share)
    trained = {seed for row in train for seed in row.seeds}
    shared = {row.id: sorted(trained & {*row.seeds}) for row in held_out}
    # Every held-out row shares a seed with train: without them eval would be empty.
    if all(shared.values()):
        return list(samples), []
    dropped = [
        _rejected(row, Fault("shared_seed", {"seeds": ", ".join(shared[row.id])}))
        for row in held_out
        if shared[row.id]
    ]
    return [row for row in samples if not shared.get(row.id)], dropped


def _position(sample: Sample, seeds: dict[str, str]) -> float:
    """Return a number from 0 to 1 that depends only on what the sample was made from. It is
    uniform, however many seeds that is."""
    made_from = [seeds[seed] for seed in sample.seeds if seed in seeds] or [sample.instruction]
    # Each seed is hashed to a number in [0, 1), and the row takes the lowest, m, of its n numbers.
    # So a seed with a low number holds out every row of n seeds that was made from it. But the
    # minimum of three uniform numbers lies below 0.1 with a probability of 1 - 0.9^3 = 0.271, so
    # too many rows would be held out. 1 - (1 - m)^n is uniform again: for n = 3 it lies below 0.1
    # where m < 0.0345, which is true of one row in ten.
    numbers = {_number(text) for text in made_from}
    return 1 - (1 - min(numbers)) ** len(numbers)


def _number(text: str) -> float:
    """Hash a text to a number in [0, 1)."""
    digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def funnel(
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict],
    kept_rows: Sequence[Sample],
    rejected: Sequence[Rejected],
    reported: Sequence[Rejected] = (),
) -> dict[str, Any]:
    """Count the rows from the judge's verdicts to the rows kept (the paper's Table 4).

    `samples` are the rows generated, all of them judged. `rejected` are those of generation and of
    `keep`. In the result `copies` are copies of a seed, found in either, and `equal` are evolutions
    equal to their original. `reported` are rows with a finding that stay. `distributions` and
    `by_category` count the rows generated beside the rows kept (figures 7-9)."""
    statuses = Counter(verdict.status for verdict in verdicts)
    reasons = Counter(row.reason for row in rejected)
    return {
        "copies": reasons["copy"] + reasons["echo"],
        "equal": reasons["equal"],
        **{status: statuses[status] for status in ("accepted", "rejected", "undecided")},
        "kept": len(kept_rows),
        "reasons": dict(reasons),
        "reported": dict(Counter(row.reason for row in reported)),
        "distributions": {"generated": count_details(samples), "kept": count_details(kept_rows)},
        "by_category": {"generated": by_category(samples), "kept": by_category(kept_rows)},
        "judge": ", ".join(sorted({verdict.judge for verdict in verdicts})),
        "simulated_judge": any(verdict.simulated for verdict in verdicts),
    }


def count_details(rows: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Count `rows` by category and by each of SHOWN. A detail that no row has is left out."""
    values = {name: [row.details[name] for row in rows if name in row.details] for name in SHOWN}
    values["category"] = [row.category for row in rows]
    counted = {name: _counts(row_values) for name, row_values in values.items()}
    return {name: counts for name, counts in counted.items() if counts}


def by_category(rows: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Count the strategies of each category. Return {} where no row was made by a strategy."""
    rows_of_strategy = [row for row in rows if row.category and CROSSED in row.details]
    return {
        category: _counts(
            [row.details[CROSSED] for row in rows_of_strategy if row.category == category]
        )
        for category in sorted({row.category for row in rows_of_strategy})
    }


def _counts(values: Sequence[str | int | bool]) -> dict[str, int]:
    names = (str(v).lower() if isinstance(v, bool) else str(v) for v in values)
    return dict(Counter(name for name in names if name))


def shares(
    counts: Mapping[str, Any], samples: int, described: Mapping[str, Any]
) -> dict[str, float]:
    """Return the judge's decisions as shares of all samples (none without a judge). Also return the
    distance of the kinds of task from the target, before and after filtering."""
    decided = {
        f"{status}_share": counts[status] / samples
        for status in ("accepted", "rejected", "undecided")
        if status in counts
    }
    sets = described["sets"].items()
    return decided | {
        f"target_distance_{name}": described_set["distance"] for name, described_set in sets
    }


def count_contaminated_seeds(
    rows: Sequence[Sample], seeds: Sequence[SeedContamination]
) -> dict[str, int]:
    """Count the seeds that hold an item of a benchmark, and the rows that were made from them."""
    ids = {seed.id for seed in seeds}
    return {
        "contaminated_seeds": len(ids),
        "rows_of_contaminated_seeds": sum(not ids.isdisjoint(row.seeds) for row in rows),
    }
