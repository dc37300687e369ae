"""The head of the page, and what each link teaches and forgets."""

from itertools import pairwise
from typing import Any

from bezoar.report import harness, words
from bezoar.report.run import Run
from bezoar.report.summary import skills as skill_names

LEARNT = 0.1  # a skill's share must move by so much between two points to be called a change


def glance(run: Run) -> list[dict[str, str]]:
    """Four numbers for the page's head: what came out of the data, and first against last."""
    own = run.own(run.checkpoints)
    first, last = own[0], own[-1]
    both = f"{words.name(first)} and {words.name(last)}"
    asked = sum(f.asked for f in run.funnels.values())
    kept = sum(f.kept for f in run.funnels.values())
    told = [words.percent(run.dpo.metrics[key]) for key in ("accuracy_before", "accuracy")]
    measured = [harness.once(harness.tasks(run, c)).values() for c in (first, last)]
    accuracy = [words.percent(words.mean(score.acc for score in scores)) for scores in measured]
    grades = [words.number(run.mt_bench[c]["average"]) for c in (first, last)]
    return [
        {"value": f"{kept:,}", "what": "rows kept for training", "more": f"of {asked:,} asked for"},
        {
            "value": " → ".join(told),
            "what": "preferences told apart, held out",
            "more": "before and after DPO",
        },
        {"value": " → ".join(accuracy), "what": "mean harness accuracy", "more": both},
        {"value": " → ".join(grades), "what": "mean MT-Bench grade, 1–10", "more": both},
    ]


def skills(run: Run) -> dict[str, Any]:
    """The share of held-out questions that each point answers right, and what changed there."""
    names = skill_names(run)
    rows = []
    for skill in names:
        found = [r.skills.get(skill) for r in run.results.values()]
        rows.append(
            {
                "skill": skill,
                "n": max(s.n for s in found if s),
                "shares": [s.share if s else None for s in found],
            }
        )
    changes = []
    for earlier, point in pairwise(run.own(list(run.results))):
        before, after = run.results[earlier], run.results[point]
        moved = {
            skill: after.skills[skill].share - before.skills[skill].share
            for skill in names
            if skill in before.skills and skill in after.skills
        }
        changes.append(
            {
                "point": point,
                "taught": {s: round(100 * d) for s, d in moved.items() if d >= LEARNT},
                "forgot": {s: round(-100 * d) for s, d in moved.items() if d <= -LEARNT},
            }
        )
    return {"points": list(run.results), "rows": rows, "changes": changes if names else []}


def speakers(run: Run) -> dict[str, list[str]]:
    """The names of those who taught, judged and graded."""
    return {
        "teacher": sorted({f.teacher for f in run.funnels.values()}),
        "judge": sorted({f.judge for f in run.funnels.values()}),
        "grader": sorted({g.judge for grades in run.grades.values() for g in grades}),
    }
