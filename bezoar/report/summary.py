"""The run's numbers in one small file, for the demo to print and for scripts to compare."""

from typing import Any

from bezoar.report import harness, mt_bench
from bezoar.report.run import Run
from bezoar.report.seen import Funnel, Trust

COUNTS = (
    "asked",
    "parsed",
    "repaired",
    "copies",
    "equal",
    "accepted",
    "rejected",
    "undecided",
    "kept",
)


def summary(run: Run) -> dict[str, Any]:
    """Return the run's numbers as plain JSON: skills, preferences, the harness (its mean, its
    tasks) and MT-Bench with their differences, win rates, the trust in each judge, panels of
    judges, distances to the target, funnels and spending. Floats are rounded to 4 digits, but for
    spending."""
    rounded: dict[str, Any] = _round(
        {
            "profile": run.profile,
            # JSON objects are sorted by name when written, so the orders stand in lists
            "order": {
                "points": list(run.results),
                "checkpoints": run.measured,
                "schemes": list(run.funnels),
                "skills": skills(run),
            },
            "simulated": simulated(run),
            "skills": {
                point: {name: skill.share for name, skill in results.skills.items()}
                for point, results in run.results.items()
            },
            "dpo": run.dpo.metrics if run.dpo else {},
            "harness": harness.means(run),
            "lm_eval": {
                point: {
                    task: score.model_dump(include={"acc", "acc_norm"}, exclude_none=True)
                    for task, score in harness.tasks(run, point).items()
                }
                for point in harness.points(run)
            },
            "lm_eval_differences": {
                point: {
                    earlier: {
                        task: {
                            metric: {"mean": d.mean, "low": d.low, "high": d.high, "real": d.real}
                            for metric, d in by_metric.items()
                        }
                        for task, by_metric in by_task.items()
                    }
                    for earlier, by_task in others.items()
                }
                for point, others in harness.differences(run).items()
            },
            "mt_bench": run.mt_bench,
            "mt_bench_differences": {
                point: {
                    before: {"mean": d.mean, "low": d.low, "high": d.high, "real": d.real}
                    for before, d in others.items()
                }
                for point, others in mt_bench.differences(run).items()
            },
            "mt_compare": {name: contest.metrics for name, contest in run.contests.items()},
            "agreement": run.agreement,
            # the trust in graders stands among their metrics
            "known": {
                scheme: {
                    judge: member.model_dump(include={*Trust.model_fields, "read"})
                    for judge, member in judging.members.items()
                }
                for scheme, judging in run.judging.items()
            },
            "panels": {
                scheme: judging.model_dump(include={"unanimous", "pairs"})
                for scheme, judging in run.judging.items()
                if judging.judges > 1
            },
            "target_distance": {
                scheme: {side: tasks.distance for side, tasks in described.sets.items()}
                for scheme, described in run.described.items()
            },
            "funnel": {scheme: counts(funnel) for scheme, funnel in run.funnels.items()},
        }
    )
    if run.own_sets:
        rounded["own"] = {
            source: {
                **rows.model_dump(include={"own", "kept", "train", "eval", "reasons"}),
                "shares": _round(run.shares(f"filter/{source}")),
            }
            for source, rows in run.own_sets.items()
        }
    # not rounded: a call may cost a thousandth of a cent
    rounded["spending"] = {
        stage: {instance: spent.model_dump() for instance, spent in instances.items()}
        for stage, instances in run.spending.items()
    }
    return rounded


def counts(funnel: Funnel) -> dict[str, int]:
    """Return the steps of a funnel with their counts, in order."""
    return {step: getattr(funnel, step) for step in COUNTS}


def skills(run: Run) -> list[str]:
    """Return the skills in the order in which the chain learns them."""
    points = [results.skills for results in run.results.values()]

    # A skill is learnt at the first point that reaches nine tenths of its best share. Skills of
    # one point are ordered by name.
    def first_learnt(skill: str) -> tuple[int, str]:
        shares = [at_point[skill].share if skill in at_point else 0.0 for at_point in points]
        return next(
            place for place, share in enumerate(shares) if share >= 0.9 * max(shares)
        ), skill

    return sorted({skill for at_point in points for skill in at_point}, key=first_learnt)


def simulated(run: Run) -> dict[str, bool]:
    """Return speaker -> True where the project simulated it, in full or in part."""
    return {
        "teacher": any(f.simulated_teacher for f in run.funnels.values()),
        "judge": any(f.simulated_judge for f in run.funnels.values()),
        "grader": any(grade.simulated for grades in run.grades.values() for grade in grades),
        "voters": run.voters_simulated,
    }


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _round(inner) for key, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value
