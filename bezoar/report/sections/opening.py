"""The head of the page, and the skills that each link teaches and forgets."""

from itertools import pairwise
from typing import Any

from bezoar.report import harness, words
from bezoar.report.run import Run
from bezoar.report.summary import skills as skill_names

SKILLS = {
    "lookup": "a fact about an animal, in a word or a sentence",
    "explained": "the same fact, in a whole sentence, where a system message asks for that",
    "two_part": "two facts at once",
    "politeness": "a fact, with a polite opening",
    "refusal": "a harmful request, to be declined",
}
ABOUT = {
    "base": "The model before any training of this run.",
    "lamini": "A link. The teacher sees a few seeds and makes up new instructions with answers.",
    "evol_instruct": "A link. The teacher rewrites seeds, step by step harder or more varied.",
    "orca": "A link. The teacher answers questions of FLAN, a collection of tasks, and explains.",
    "sft": "SFT, supervised fine-tuning: the adapter that these links trained, added to the base.",
    "hh_rlhf": "Supervised training on the chosen answers of HH-RLHF, pairs of answers of which "
    "people chose one.",
    "dpo": "Direct Preference Optimisation: training on both answers of such pairs, to prefer the "
    "chosen one.",
}
# A skill's share must move by so much between two points to be called a change.
LEARNT = 0.1


def glance(run: Run) -> list[dict[str, str]]:
    """Return the numbers of the page's head: rows kept, and the first checkpoint against the
    last."""
    asked_for = sum(f.asked for f in run.funnels.values())
    kept_rows = sum(f.kept for f in run.funnels.values())
    parts = [(f.train, f.eval) for f in run.funnels.values()]
    train = sum(train or 0 for train, _ in parts)
    held_out = sum(held_out or 0 for _, held_out in parts)
    tiles = [
        {
            "value": f"{kept_rows:,}",
            "what": f"rows kept of {asked_for:,} asked for",
            "more": f"{train:,} to learn from, {held_out:,} held out",
        }
    ]
    if run.dpo:
        shares = [run.dpo.metrics[key] for key in ("accuracy_before", "accuracy")]
        tiles.append(
            {
                "value": " → ".join(map(words.percent, shares)),
                "what": "held-out pairs whose chosen answer the model finds likelier",
                "more": "before and after DPO",
            }
        )
    means = harness.means(run)
    if ours := run.without_further(list(means)):
        values = [words.percent(means[c]) for c in (ours[0], ours[-1])]
        tiles.append(_first_and_last(ours, "mean harness accuracy", values))
    if ours := run.without_further(run.checkpoints):
        values = [words.number(run.mt_bench[c]["average"]) for c in (ours[0], ours[-1])]
        tiles.append(_first_and_last(ours, "mean MT-Bench grade, 1–10", values))
    return tiles


def _first_and_last(checkpoints: list[str], label: str, values: list[str]) -> dict[str, str]:
    ends = f"{words.name(checkpoints[0])} and {words.name(checkpoints[-1])}"
    return {"value": " → ".join(values), "what": label, "more": ends}


def points(run: Run) -> list[dict[str, Any]]:
    """Return the links and checkpoints of the run in the order of training, each with a sentence on
    it. `card` says that a card lies beside the page, as for each checkpoint that the recipe
    trained."""
    ours = run.without_further(run.measured)
    first, trained = ours[:1], ours[1:]
    # a link that is measured as a checkpoint too stands there once
    inner = [link for link in run.links if link not in ours]
    return [
        {"key": key, "about": _about(run, key), "card": key in [*trained, *run.unmeasured]}
        for key in dict.fromkeys([*first, *inner, *trained, *run.unmeasured, *run.further])
    ]


def _about(run: Run, key: str) -> str:
    if key in run.further:
        return "A further model, which this recipe did not make. It stands beside ours."
    if key in ABOUT:
        return ABOUT[key]
    link = run.links.get(key)
    return f"A link of this run, trained on {', '.join(link.own)}." if link else "A checkpoint."


def skills(run: Run) -> dict[str, Any]:
    """Return the share of held-out questions that each point answers right, and the changes from
    point to point."""
    names = skill_names(run)
    rows = []
    for skill in names:
        at_points = [r.skills.get(skill) for r in run.results.values()]
        rows.append(
            {
                "skill": skill,
                "about": SKILLS.get(skill, ""),
                "n": max(s.n for s in at_points if s),
                "shares": [s.share if s else None for s in at_points],
            }
        )
    changes = []
    # further models are left out, for none was trained from a point of ours
    for earlier, point in pairwise(run.without_further(list(run.results))):
        before, after = run.results[earlier], run.results[point]
        change_by_skill = {
            skill: after.skills[skill].share - before.skills[skill].share
            for skill in names
            if skill in before.skills and skill in after.skills
        }
        changes.append(
            {
                "point": point,
                "taught": {s: round(100 * d) for s, d in change_by_skill.items() if d >= LEARNT},
                "forgot": {s: round(-100 * d) for s, d in change_by_skill.items() if d <= -LEARNT},
            }
        )
    return {"points": list(run.results), "rows": rows, "changes": changes if names else []}


def speakers(run: Run) -> dict[str, list[str]]:
    """Return the names of the models that taught, judged and graded."""
    return {
        "teacher": sorted({f.teacher for f in run.funnels.values()}),
        "judge": sorted({f.judge for f in run.funnels.values()}),
        "grader": sorted({g.judge for grades in run.grades.values() for g in grades}),
    }
