"""From the rows asked for to the rows kept, and why the others were dropped."""

from collections.abc import Mapping
from typing import Any

from bezoar.report import paper, words
from bezoar.report.run import Funnel, Run
from bezoar.report.summary import counts

STEPS = {
    "asked": "asked for",
    "parsed": "parsed",
    "repaired": "repaired",
    "copies": "seed copies",
    "equal": "not evolved",
    "accepted": "accepted",
    "rejected": "rejected",
    "undecided": "undecided",
    "kept": "kept",
}
STATUSES = ("accepted", "rejected", "undecided")
MOST_BARS = 10


def funnels(run: Run) -> list[dict[str, Any]]:
    """What became of each scheme's rows, step by step, beside the paper's Table 4."""
    shown = []
    for scheme, funnel in run.funnels.items():
        theirs = paper.SAMPLING.get(scheme)
        judged = sum(getattr(funnel, status) for status in STATUSES)
        ours = {s: getattr(funnel, s) / judged if judged else 0.0 for s in STATUSES}
        bars = [("ours", ours)]
        aside = {step: [words.percent(share, 1)] for step, share in ours.items() if judged}
        below: dict[str, dict[str, str]] = {}
        if funnel.replies_read is not None:
            below["parsed"] = {"replies read": words.percent(funnel.replies_read, 1)}
        if funnel.undecided_checks:
            below["equal"] = {"equality undecided": f"{funnel.undecided_checks:,}"}
        beside: dict[str, str] = {}
        if theirs:
            rest = 1 - theirs.accepted_share - theirs.undecided_share
            shares = (theirs.accepted_share, rest, theirs.undecided_share)
            bars.append(("paper", dict(zip(STATUSES, shares, strict=True))))
            beside = {status: words.percent(share, 1) for status, share in bars[1][1].items()}
            beside["accepted"] = f"{theirs.accepted:,} · {beside['accepted']}"
            if theirs.asked:
                beside["asked"] = f"{theirs.asked:,}"
        shown.append(
            {
                "scheme": scheme,
                "teacher": funnel.teacher,
                "judge": funnel.judge,
                "bars": bars,
                "steps": _steps(funnel, aside, below, beside),
                "reasons": _bars(funnel.reasons),
                "reported": _bars(funnel.reported),
            }
        )
    return shown


def _steps(
    funnel: Funnel,
    aside: Mapping[str, list[str]],
    below: Mapping[str, Mapping[str, str]],
    beside: Mapping[str, str],
) -> list[dict[str, str]]:
    """The rows of a funnel's table: each step's count with what stands `aside` of it, the paper's
    `beside` it, and further rows `below`."""
    rows = []
    for step, count in counts(funnel).items():
        ours = " · ".join([f"{count:,}", *aside.get(step, [])])
        rows.append({"step": STEPS[step], "ours": ours, "paper": beside.get(step, "")})
        for name, value in below.get(step, {}).items():
            rows.append({"step": name, "ours": value, "paper": ""})
    return rows


def _bars(counted: Mapping[str, int]) -> list[dict[str, Any]]:
    """The largest first, the small ones as one."""
    ranked = sorted(counted.items(), key=lambda kv: (-kv[1], kv[0]))
    most = len(ranked) if len(ranked) <= MOST_BARS else MOST_BARS - 1
    rest = ranked[most:]
    if rest:
        ranked = [*ranked[:most], (f"{len(rest)} others", sum(n for _, n in rest))]
    total, top = sum(counted.values()), max([n for _, n in ranked], default=0)
    return [
        {
            "label": words.excerpt(label)[0][:60] or "(none)",
            "n": n,
            "share": n / total if total else 0.0,
            "width": n / top if top else 0.0,
        }
        for label, n in ranked
    ]
