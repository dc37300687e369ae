"""Tells by which steps of the chain a checkpoint came about, and what each step learnt from."""

from typing import NamedTuple

from bezoar.params import PAIRS, Params


class Step(NamedTuple):
    """A stage that changed weights, and the sets (folders of data/) that it learnt from."""

    stage: str
    # the weights that it wrote, a folder of models/
    weights: str
    # its own sets; a merge has none
    data: tuple[str, ...] = ()
    # sets of earlier links, some of whose rows it saw again
    replayed: tuple[str, ...] = ()


def steps(settings: Params, weights: str) -> list[Step]:
    """Return every step by which `weights` (a folder of models/) came about, first to last. The
    base and a further model have none."""
    if weights.startswith("sft/"):
        name = weights.removeprefix("sft/")
        link = settings.chain[name]
        origins, last = [link.base, link.start], Step(f"sft@{name}", weights, (*link.sets,))
    elif weights.startswith("merge/"):
        name = weights.removeprefix("merge/")
        merged = settings.merges[name]
        origins, last = [merged.base, *merged.adapters], Step(f"merge@{name}", weights)
    elif weights.startswith("dpo/"):
        start = settings.aligned[weights.removeprefix("dpo/")].start
        origins, last = [start], Step("dpo", weights, (PAIRS,))
    else:
        return []
    earlier = list(dict.fromkeys(step for origin in origins for step in steps(settings, origin)))
    # replay draws on the sets of all links before this one, but for those that it trains on anyway
    if settings.mix.replay and last.stage.startswith("sft@"):
        learnt_sets = dict.fromkeys(name for step in earlier for name in step.data)
        last = last._replace(replayed=tuple(name for name in learnt_sets if name not in last.data))
    return [*earlier, last]
