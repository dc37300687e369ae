"""Which samples become training data, and the count of what became of the others."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bezoar import chat, dedup
from bezoar.files import BadInput
from bezoar.params import Filter
from bezoar.records import Rejected, Sample, Seed, Verdict

# Details of a sample whose distribution the paper shows (figures 7-9) or the recipe draws.
SHOWN = ("strategy", "operation", "epoch", "mixture", "system_id", "topic_guided")


def keep(
    samples: Sequence[Sample], verdicts: Sequence[Verdict], seeds: Sequence[Seed], params: Filter
) -> tuple[list[Sample], list[Rejected]]:
    """(samples that stay, the others with the reason); both in the order of `samples`.

    Reasons, the first that applies: copy (of one of `seeds`: paper 2.1, there for LaMini alone,
    here for every scheme that has such seeds), undecided, rejected, low_rating, template_marker
    (text that would break the chat template), duplicate (of a sample that stays). BadInput where
    the verdicts are not those of the samples."""
    if [s.id for s in samples] != [v.id for v in verdicts]:
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
    kept: list[Sample] = []
    dropped: list[Rejected] = []
    seen: set[tuple[str, ...]] = set()
    for sample, said, copy in zip(samples, verdicts, copies, strict=True):
        details: dict[str, str | int | bool] = {}
        # the same query under another system message is another row
        content = tuple(
            " ".join(text.split()) for text in (sample.system, sample.instruction, sample.context)
        )
        if copy:
            fault = "copy"
            details = {"seed": seeds[copy.seed].id, "distance": copy.distance}
            details["ratio"] = f"{copy.ratio:.3f}"
        elif said.status != "accepted":
            fault, details = said.status, {"judge": said.reason}
        elif said.rating is None or said.rating < params.min_rating:
            fault, details = "low_rating", {"rating": said.rating or 0}
        elif found := _marker(sample):
            fault, details = "template_marker", {"marker": found}
        elif content in seen:
            fault = "duplicate"
        else:
            seen.add(content)
            kept.append(sample)
            continue
        dropped.append(
            Rejected(
                id=sample.id,
                scheme=sample.scheme,
                reason=fault,
                text=sample.instruction,
                details=details,
            )
        )
    return kept, dropped


def _marker(sample: Sample) -> str | None:
    texts = (sample.system, sample.instruction, sample.context, sample.response)
    return next((found for text in texts if (found := chat.marker(text))), None)


def split(
    samples: Sequence[Sample], seeds: Sequence[Seed], eval_share: float
) -> tuple[list[Sample], list[Sample]]:
    """(train, eval): by a hash of content, so that a row stays on its side when others are added.

    Rows of one instruction stand on one side, and so do the evolutions of one seed, which hold each
    other's text. Where the hash leaves one side empty, it gets the group nearest to it; BadInput
    where there are no two groups."""
    texts = {seed.id: seed.instruction for seed in seeds}
    places = [_place(sample, texts) for sample in samples]
    if len(set(places)) < 2:
        raise BadInput(
            f"filter: keeps {len(samples)} rows of {len(set(places))} instructions, too few for "
            "training and evaluation; generate more, or look into data/filter's reasons"
        )
    held_out = {place for place in places if place < eval_share} or {min(places)}
    if held_out == set(places):
        held_out.remove(max(places))
    train = [s for s, place in zip(samples, places, strict=True) if place not in held_out]
    return train, [s for s, place in zip(samples, places, strict=True) if place in held_out]


def _place(sample: Sample, seeds: dict[str, str]) -> float:
    """A number from 0 to 1 that depends on what the sample is about, and on nothing else."""
    about = sample.instruction
    if "epoch" in sample.details:
        about = seeds.get(sample.seeds[0], sample.seeds[0])
    digest = hashlib.sha256(" ".join(about.split()).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def funnel(
    verdicts: Sequence[Verdict],
    kept: Sequence[Sample],
    rejected: Sequence[Rejected],
) -> dict[str, Any]:
    """Counts from the judge's word on to the rows kept (the paper's Table 4). `rejected` are those
    of generation and of `keep`: `copies` are copies of a seed, found in either, and `equal` are
    evolutions equal to their original."""
    said = Counter(verdict.status for verdict in verdicts)
    reasons = Counter(row.reason for row in rejected)
    shown = {name: [s.details[name] for s in kept if name in s.details] for name in SHOWN}
    shown["category"] = [sample.category for sample in kept]
    counted = {name: _counts(values) for name, values in shown.items()}
    return {
        "copies": reasons["copy"] + reasons["echo"],
        "equal": reasons["equal"],
        **{status: said[status] for status in ("accepted", "rejected", "undecided")},
        "kept": len(kept),
        "reasons": dict(reasons),
        "distributions": {name: counts for name, counts in counted.items() if counts},
        "judge": ", ".join(sorted({verdict.judge for verdict in verdicts})),
        "simulated_judge": any(verdict.simulated for verdict in verdicts),
    }


def _counts(values: Sequence[str | int | bool]) -> dict[str, int]:
    named = (str(v).lower() if isinstance(v, bool) else str(v) for v in values)
    return dict(Counter(name for name in named if name))
