"""The cost of answers of models behind an endpoint."""

import math
from typing import Any

from bezoar.report.run import Run
from bezoar.report.seen import Judging
from bezoar.rows.records import Spending


def spending(run: Run) -> dict[str, Any]:
    """Return a row for each model that a stage instance bought answers of, and the sums of each
    model over all stages."""
    # a panel's judges are rows of their own, in place of the sum of their stage
    bought = [
        (stage, instance, spent)
        for stage, instances in run.spending.items()
        for instance, total in instances.items()
        for spent in (_members(run.judging[instance]) if stage == "judge" else []) or [total]
        if spent.calls
    ]
    sums = []
    for model in sorted({spent.model for _, _, spent in bought}):
        # fsum, so that the sum does not depend on the order of the stages
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
    """Return the pay of each member of a panel. [] for one judge, whose pay is the stage's."""
    if judging.judges == 1:
        return []
    paid = {"calls", "tokens_in", "tokens_out", "usd"}
    return [
        Spending(model=judge, **m.model_dump(include=paid)) for judge, m in judging.members.items()
    ]
