"""The order of the recipe: links of the chain, merges, and the checkpoints that are measured."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from bezoar.params.fields import Section

PAIRS = "fetch/hh_rlhf"  # the preference pairs, below data/
OWN = "dolly"  # seeds that are a set of their own: data/filter/dolly
FURTHER = "models/"  # what the further models lie under, below models/


def _check_sets(data: object) -> object:
    paths = [data] if isinstance(data, str) else data
    if not isinstance(paths, list) or not paths or not all(isinstance(x, str) for x in paths):
        raise ValueError(
            "names no sets; one set, such as filter/lamini, or a list of sets that are mixed"
        )
    if twice := sorted({x for x in paths if paths.count(x) > 1}):
        raise ValueError(f"{twice[0]} stands there twice; keep one of them")
    return data


class Link(Section):
    """One link of the training chain.

    `base`, `start`: paths below models/, of the base and of the weights that training starts from.
    `data`: one path below data/, or several whose sets are mixed.
    """

    weights: Literal["adapter", "all"]
    base: str
    start: str
    data: Annotated[str | list[str], BeforeValidator(_check_sets)]

    @property
    def sets(self) -> list[str]:
        """Return the sets of `data`, one or several."""
        return [self.data] if isinstance(self.data, str) else self.data


class Aligned(Section):
    """Weights that DPO starts from, and its reference: a path below models/."""

    start: str


class Merge(Section):
    """Adapters of one base. `second` and `third` add nothing where they repeat another."""

    base: str
    adapter: str
    second: str
    third: str

    @property
    def adapters(self) -> list[str]:
        """Return the adapters to merge, each once."""
        return list(dict.fromkeys([self.adapter, self.second, self.third]))


class Checkpoint(Section):
    model: str

    @property
    def further(self) -> bool:
        """Say whether it is one of `models`, which this recipe did not make."""
        return self.model.startswith(FURTHER)


class Evaluated(Checkpoint):
    base: str
    link: bool


class Compared(Section):
    """Two of `checkpoints`: the grader says how often `model` is better than `baseline`."""

    model: str
    baseline: str
