"""Combines several judges' verdicts on the same samples, and measures how far they agree.

Ours: the paper has one judge (OpenBezoar 3.2). A panel of one gives that judge's verdicts. A member
abstains on a row where it states no verdict, or where its request failed for good."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

from bezoar.judging import agreement, verdicts
from bezoar.llm import Run
from bezoar.reading import unread
from bezoar.rows.records import UNSAID, Sample, Spending, Verdict

DECIDED = ("accepted", "rejected")

# A member's run over the samples.
Judged = Run[Sample, Verdict]
# Verdicts by member, each in the order of the samples.
Votes = Mapping[str, Sequence[Verdict]]


def decide(votes: Votes, rule: Literal["majority", "mean"], scale: int) -> list[Verdict]:
    """Return the panel's verdict on each sample, in their order. A single member's verdicts are
    returned as they are.

    majority: the more frequent of accept and reject. The rating is the mean of the members who said
    so. mean: accepted where the mean of all ratings lies above the middle of 1 to `scale`, rejected
    where it lies below. A tie is undecided, and so is a row on which all abstain. A mean rating is
    rounded to a whole number."""
    if len(votes) == 1:
        return list(*votes.values())
    return [_decide_row(dict(zip(votes, row, strict=True)), rule, scale) for row in _rows(votes)]


def _decide_row(verdict_of: Mapping[str, Verdict], rule: str, scale: int) -> Verdict:
    accepting, rejecting = (
        [v.rating for v in verdict_of.values() if v.status == status and v.rating is not None]
        for status in DECIDED
    )
    counted = accepting + rejecting
    if rule == "mean":
        # The sign is that of the mean rating less the middle of the scale, (1 + scale) / 2.
        lead = 2 * sum(counted) - (1 + scale) * len(counted)
    else:
        lead = len(accepting) - len(rejecting)
        counted = accepting if lead > 0 else rejecting
    return Verdict(
        id=next(iter(verdict_of.values())).id,
        status="accepted" if lead > 0 else "rejected" if lead < 0 else "undecided",
        rating=round(sum(counted) / len(counted)) if lead else None,
        reason=" | ".join(f"{member}: {_words(verdict)}" for member, verdict in verdict_of.items()),
        reply="",
        judge=", ".join(verdict_of),
        simulated=any(verdict.simulated for verdict in verdict_of.values()),
    )


def _rows(votes: Votes) -> list[tuple[Verdict, ...]]:
    return list(zip(*votes.values(), strict=True))


def _words(verdict: Verdict) -> str:
    rating = "" if verdict.rating is None else f" {verdict.rating}"
    return f"{verdict.status}{rating}: {verdict.reason}"


def ballots(votes: Votes) -> list[Verdict]:
    """Return every member's verdict, sample by sample, in the order of the panel."""
    return [verdict for row in _rows(votes) for verdict in row]


def by_id(run: Judged, judge: str) -> dict[str, Verdict]:
    """Return one judge's verdicts by their samples, undecided where its request failed for good."""
    verdict_of = {sample.id: verdict for sample, verdict in run.done}
    return verdict_of | {
        f.job: verdicts.failed_verdict(f.job, f.reason, judge) for f in run.failures
    }


def check_read(label: str, stated: Sequence[Verdict], run: Judged) -> None:
    """Check that enough replies of one judge could be read. BadInput: it states no verdict at all.
    It prints a warning where it states few."""
    silent = {verdict.id: verdict for verdict in stated if verdict.status == "undecided"}
    unread.check(
        label,
        "llm.judge",
        len(stated) - len(silent),
        [_reason(verdict) for verdict in silent.values()],
        [e.reply for e in run.exchanges if e.job in silent and e.reply.finish_reason not in UNSAID],
    )


def _reason(verdict: Verdict) -> str:
    return verdict.reason.partition(":")[0]


def measure(
    votes: Votes,
    trust: Mapping[str, Mapping[str, float | int | None]],
    failures: Mapping[str, int],
    spent: Sequence[Spending],
) -> dict[str, Any]:
    """Return the metrics of a panel.

    `unanimous`: the share of rows that all members accept or all reject (None without rows).
    `members`: each member's decisions, `read` (the share of rows with a verdict), failures, trust
    (judging/known.py) and pay. `pairs`: how far two members agree on the `n` rows that both decide,
    as a share and as Cohen's kappa."""
    same = [len({v.status for v in row}) == 1 and row[0].status in DECIDED for row in _rows(votes)]
    members: dict[str, dict[str, float | int | None]] = {}
    for (member, stated), paid in zip(votes.items(), spent, strict=True):
        counts = Counter(verdict.status for verdict in stated)
        members[member] = {
            "accepted": counts["accepted"],
            "rejected": counts["rejected"],
            "undecided": counts["undecided"],
            "read": 1 - counts["undecided"] / len(stated) if stated else None,
            "too_long": sum(_reason(verdict) == "too_long" for verdict in stated),
            "failed": failures[member],
            **trust[member],
            **paid.model_dump(exclude={"model"}),
        }
    return {
        "judges": len(votes),
        "unanimous": sum(same) / len(same) if same else None,
        "members": members,
        "pairs": {f"{a}, {b}": _pair(votes[a], votes[b]) for a, b in combinations(votes, 2)},
    }


def _pair(a: Sequence[Verdict], b: Sequence[Verdict]) -> dict[str, int | float | None]:
    decided = [
        (first.status, second.status)
        for first, second in zip(a, b, strict=True)
        if first.status in DECIDED and second.status in DECIDED
    ]
    if not decided:
        return {"agreement": None, "kappa": None, "n": 0}
    left, right = zip(*decided, strict=True)
    return {
        "agreement": sum(first == second for first, second in decided) / len(decided),
        "kappa": agreement.kappa(left, right),
        "n": len(decided),
    }
