"""The trust in each judge and grader of a run: its results on rows whose answers are known."""

from collections.abc import Mapping
from typing import NamedTuple

from bezoar.report.run import Metrics, Run
from bezoar.report.seen import Trust


class Line(NamedTuple):
    """A line of a table: a judge or grader, and its results on known rows."""

    # the scheme or the kind of grades that it judged
    of: str
    # the judge's name, or several
    who: str
    simulated: bool
    trust: Trust
    # its AUC is below `known.least_auc` of params.yaml
    below: bool


def judges(run: Run) -> list[Line]:
    """Return a line for each scheme and judge that was asked about known rows, or would have been
    had there been enough of them."""
    return [
        _line(run, scheme, judge, run.funnels[scheme].simulated_judge, member)
        for scheme, judging in run.judging.items()
        for judge, member in judging.members.items()
        if member.known_rows is not None
    ]


def graders(run: Run) -> list[Line]:
    """Return the lines of single grades and of pairs. Checkpoints whose graders gave the same
    results, as they do if the ledger answers, share one line."""
    # an empty answer is graded by rule, without a grader
    everyone = {grade.judge for grades in run.grades.values() for grade in grades} - {"rule"}
    simulated = any(grade.simulated for grades in run.grades.values() for grade in grades)
    pairs = {name: contest.metrics for name, contest in run.contests.items()}
    return [
        _line(run, subject, ", ".join(sorted(everyone)), simulated, trust)
        for kind, by_name in (("Single grades", run.mt_bench), ("Pairs", pairs))
        for subject, trust in _merge_equal(kind, by_name)
    ]


def _merge_equal(kind: str, by_name: Mapping[str, Metrics]) -> list[tuple[str, Trust]]:
    # a Trust is frozen, so equal results are one key
    names: dict[Trust, list[str]] = {}
    for name, metrics in by_name.items():
        trust = Trust.model_validate(metrics)
        if trust.known_rows is not None:
            names.setdefault(trust, []).append(name)
    if len(names) == 1:
        return [(kind, trust) for trust in names]
    return [(f"{kind}, {', '.join(same)}", trust) for trust, same in names.items()]


def _line(run: Run, subject: str, judge: str, simulated: bool, trust: Trust) -> Line:
    auc, least = trust.known_auc, run.least_auc
    below = auc is not None and least is not None and auc < least
    return Line(subject, judge, simulated, trust, below)
