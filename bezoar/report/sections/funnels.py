"""From the rows asked for to the rows kept, and why the others were dropped."""

from collections.abc import Mapping, Sequence
from typing import Any

from bezoar.report import paper, words
from bezoar.report.run import Run
from bezoar.report.seen import Funnel, Own
from bezoar.report.summary import counts
from bezoar.rows.records import Rejected

STEPS = {
    "asked": "asked for",
    "parsed": "found in replies",
    "repaired": "mended",
    "copies": "seed copies",
    "equal": "not changed",
    "accepted": "accepted",
    "rejected": "rejected",
    "undecided": "undecided",
    "kept": "kept",
}
# The meaning of each reason, by its name without the field that it was found in: "empty" stands
# for empty_response and empty_instruction too.
REASONS = {
    "balance": "one of too many rows of a kind of task (filter.balance)",
    "contaminated": "holds an item of a benchmark that this run evaluates on",
    "copy": "an instruction that differs from a seed by a few letters",
    "duplicate": "the same instruction as another row that stays",
    "echo": "word for word one of the seeds that the request showed",
    "echo_response": "word for word an answer that the request showed as an example",
    "empty": "nothing was written",
    "equal": "the teacher was to change an instruction, and it still asks the same",
    "failed": "the request got no reply",
    "leaked_prompt": "a piece of the prompt’s own markup stands in the row",
    "loop": "the text says the same again and again",
    "low_rating": "accepted, with a rating below filter.min_rating",
    "near_duplicate": "almost the words of another row that stays",
    "no_examples": "a reply without any instruction in it",
    "not_reached": "was to be made from a row that was rejected itself",
    "only_stop_words": "nothing but words such as “the” and “of”",
    "overlong": "more characters than filter.gates.characters",
    "refusal": "the text declines instead of answering",
    "rejected": "the judge calls the answer wrong",
    "shared_seed": "held out, but made from a seed that a row to learn from shares",
    "surplus": "more instructions than the request asked for",
    "template_marker": "holds a mark that would break the template of the chat",
    "thought": "holds the model’s thinking, which is no part of an answer",
    "too_long": "the request was longer than the model takes",
    "truncated": "the text stops before its end",
    "unclosed": "the mark that ends an instruction is missing",
    "undecided": "the judge’s reply states no verdict, or two",
    "unread": "the reply does not have the form that was asked for",
    "wrong_language": "not in a language that filter.gates allows",
}
FIELDS = ("_response", "_instruction", "_reply", "_example")
STATUSES = ("accepted", "rejected", "undecided")
MOST_BARS = 10
MOST_COPIES = 5


def funnels(run: Run) -> list[dict[str, Any]]:
    """Return each scheme's rows counted step by step, beside the paper's Table 4."""
    tables = []
    for scheme, funnel in run.funnels.items():
        printed = paper.SAMPLING.get(scheme)
        # the shares are of the rows that the judge saw, as in the paper
        judged = sum(getattr(funnel, status) for status in STATUSES)
        ours = {s: getattr(funnel, s) / judged if judged else 0.0 for s in STATUSES}
        bars = [("ours", ours)]
        aside = {step: [words.percent(share, 1)] for step, share in ours.items() if judged}
        below: dict[str, dict[str, str]] = {}
        if funnel.replies_read is not None:
            below["parsed"] = {"replies read": words.percent(funnel.replies_read, 1)}
        if funnel.undecided_checks:
            below["equal"] = {"change undecided": f"{funnel.undecided_checks:,}"}
        if funnel.train is not None and funnel.eval is not None:
            parts = {"to learn from": f"{funnel.train:,}", "held out": f"{funnel.eval:,}"}
            below["kept"] = parts
        beside: dict[str, str] = {}
        if printed:
            # the paper prints no share of rejected rows: it is the rest
            rest = 1 - printed.accepted_share - printed.undecided_share
            shares = (printed.accepted_share, rest, printed.undecided_share)
            bars.append(("paper", dict(zip(STATUSES, shares, strict=True))))
            beside = {status: words.percent(share, 1) for status, share in bars[1][1].items()}
            beside["accepted"] = f"{printed.accepted:,} · {beside['accepted']}"
            if printed.asked:
                beside["asked"] = f"{printed.asked:,}"
        tables.append(
            {
                "scheme": scheme,
                "teacher": funnel.teacher,
                "judge": funnel.judge,
                "bars": bars,
                "steps": _steps(funnel, aside, below, beside),
                "reasons": _bars(funnel.reasons),
                "reported": _bars(funnel.reported),
                "copies": _copies(run.copies[scheme]),
            }
        )
    return tables


def own_sets(run: Run) -> list[dict[str, Any]]:
    """Return the user's own rows, those given and those kept, and their share of each link's
    rows."""
    return [
        {
            "source": source,
            "rows": rows,
            "reasons": _bars(rows.reasons),
            "reported": _bars(rows.reported),
            "shares": run.shares(f"filter/{source}"),
        }
        for source, rows in run.own_sets.items()
    ]


def meanings(run: Run) -> dict[str, str]:
    """Return the meaning of each reason for which this run dropped or marked rows. Reasons of a
    scheme that the user added are left out, for their meanings are not known here."""
    sets: list[Funnel | Own] = [*run.funnels.values(), *run.own_sets.values()]
    reasons = {reason for counted in sets for reason in (*counted.reasons, *counted.reported)}
    return {
        reason: REASONS[general]
        for reason in sorted(reasons)
        if (general := _without_field(reason)) in REASONS
    }


def _without_field(reason: str) -> str:
    if reason in REASONS:
        return reason
    return next((reason.removesuffix(end) for end in FIELDS if reason.endswith(end)), reason)


def _copies(rows: Sequence[Rejected]) -> dict[str, Any]:
    """Return the first rows that were dropped as copies, each beside its seed, and the number of
    the others."""
    return {
        "rows": [
            {
                "id": row.id,
                "text": words.excerpt(row.text)[0],
                "seed": str(row.details["seed"]),
                # a run from before the text was kept has the seed's id alone
                "seed_text": words.excerpt(str(row.details.get("seed_text", "")))[0],
            }
            for row in rows[:MOST_COPIES]
        ],
        "more": max(0, len(rows) - MOST_COPIES),
    }


def _steps(
    funnel: Funnel,
    aside: Mapping[str, list[str]],
    below: Mapping[str, Mapping[str, str]],
    beside: Mapping[str, str],
) -> list[dict[str, str]]:
    """Return the rows of a funnel's table. In the row of a step stand its count, texts `aside` of
    it, and the paper's text `beside` it. Further rows stand `below` it."""
    rows = []
    for step, count in counts(funnel).items():
        ours = " · ".join([f"{count:,}", *aside.get(step, [])])
        rows.append({"step": STEPS[step], "ours": ours, "paper": beside.get(step, "")})
        for name, value in below.get(step, {}).items():
            rows.append({"step": name, "ours": value, "paper": ""})
    return rows


def _bars(counted: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return a bar for each reason, the largest first. From the tenth on, if there are more than
    ten, they are summed in one bar."""
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
