"""The head of the page, and what each link teaches and forgets."""

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
LEARNT = 0.1  # a skill's share must move by so much between two points to be called a change


def glance(run: Run) -> list[dict[str, str]]:
    """Numbers for the page's head: what came out of the data, and first against last."""
    asked = sum(f.asked for f in run.funnels.values())
    kept = sum(f.kept for f in run.funnels.values())
    parts = [(f.train, f.eval) for f in run.funnels.values()]
    train = sum(train or 0 for train, _ in parts)
    held_out = sum(held_out or 0 for _, held_out in parts)
    tiles = [
        {
            "value": f"{kept:,}",
            "what": f"rows kept of {asked:,} asked for",
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
    if own := run.own(list(means)):
        values = [words.percent(means[c]) for c in (own[0], own[-1])]
        tiles.append(_first_and_last(own, "mean harness accuracy", values))
    if own := run.own(run.checkpoints):
        values = [words.number(run.mt_bench[c]["average"]) for c in (own[0], own[-1])]
        tiles.append(_first_and_last(own, "mean MT-Bench grade, 1–10", values))
    return tiles


def _first_and_last(own: list[str], what: str, values: list[str]) -> dict[str, str]:
    both = f"{words.name(own[0])} and {words.name(own[-1])}"
    return {"value": " → ".join(values), "what": what, "more": both}


def points(run: Run) -> list[dict[str, Any]]:
    """The links and checkpoints of the run in the order of training, each with what it is; a card
    lies beside the page for each checkpoint that the recipe trained."""
    own = run.own(run.measured)
    first, trained = own[:1], own[1:]
    inner = [link for link in run.links if link not in own]
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
    """The share of held-out questions that each point answers right, and what changed there."""
    names = skill_names(run)
    rows = []
    for skill in names:
        found = [r.skills.get(skill) for r in run.results.values()]
        rows.append(
            {
                "skill": skill,
                "about": SKILLS.get(skill, ""),
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
