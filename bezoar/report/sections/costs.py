"""What the answers of models behind an endpoint cost."""

import math
from typing import Any

from bezoar.report.run import Run
from bezoar.report.seen import Judging
from bezoar.rows.records import Spending


def spending(run: Run) -> dict[str, Any]:
    """A row for each model that a stage instance bought answers of, and what each cost in all."""
    bought = [
        (stage, instance, spent)
        for stage, instances in run.spending.items()
        for instance, total in instances.items()
        for spent in (_members(run.judging[instance]) if stage == "judge" else []) or [total]
        if spent.calls
    ]
    sums = []
    for model in sorted({spent.model for _, _, spent in bought}):
        same_model = [spent for _, _, spent in bought if spent.model == model]
        sums.append(
            Spending(
                model=model,
                calls=sum(spent.calls for spent in same_model),
                tokens_in=sum(spent.tokens_in for spent in same_model),
                tokens_out=sum(spent.tokens_out for spent in same_model),
                usd=math.fsum(spent.usd for spent in same_model),
            )
        )
    rows = [
        {"stage": stage, "instance": "" if instance == stage else instance, "spent": spent}
        for stage, instance, spent in bought
    ]
    return {"rows": rows, "models": sums, "usd": math.fsum(spent.usd for spent in sums)}


def _members(judging: Judging) -> list[Spending]:
    """What each member of a panel was paid; [] for one judge, whose pay is the stage's."""
    if judging.judges == 1:
        return []
    paid = {"calls", "tokens_in", "tokens_out", "usd"}
    return [
        Spending(model=judge, **m.model_dump(include=paid)) for judge, m in judging.members.items()
    ]
