"""The checks that a generated row passes."""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bezoar.params.fields import Count, Number, Rate, Section, Share


def _to_shares(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    if not total:
        raise ValueError("weighs nothing; give a kind of task a weight above zero")
    return {kind: weight / total for kind, weight in weights.items()}


# Shares of kinds of task that add to one. The file gives weights in any unit.
Target = Annotated[
    dict[Annotated[str, Field(pattern=r"^\w+$")], Annotated[float, Field(ge=0)]],
    AfterValidator(_to_shares),
]


class Balance(Section):
    """A number of kept rows that stay, and the shares of kinds of task to which they are drawn."""

    rows: Count
    target: Target


class Licences(Section):
    """Licences that a kept row may be under: its seeds', the teacher's, the judge's (null: any)."""

    allow: list[str] | None


# With report the row stays, and the finding is written down.
Action = Literal["drop", "report"]


class RowAction(Section):
    """The fate of a row in which a check finds something."""

    action: Action


class NearDuplicates(Section):
    """Rows that ask nearly the same: the Jaccard index of their word n-grams is at least
    `threshold`. Below 0.5 the search for candidates would miss some."""

    ngram: Count
    threshold: Annotated[float, Field(ge=0.5, le=1)]
    action: Action


class Step(Section):
    words: Count
    cosine: Annotated[float, Field(gt=0, le=1)]


def _check_order(steps: list[Step]) -> list[Step]:
    for step, following in pairwise(steps):
        if step.words >= following.words or step.cosine <= following.cosine:
            raise ValueError("steps are out of order; words rise, and cosines fall")
    return steps


class Decontamination(Section):
    """Limits from which a row and an item of a benchmark match (bezoar/filtering/contamination.py).

    `ngram`: neighbouring words of an item that a row holds.
    `whole`: words of a question shorter than `ngram`, from which it matches where a row holds all
        of it. A shorter question needs more, such as one of its answers beside it.
    `fuzzy`: [{words, cosine}]: if the shorter text has at least `words` distinct words, a match
        needs this cosine.
    """

    ngram: Annotated[int, Field(ge=5)]
    whole: Annotated[int, Field(ge=2)] = 5
    fuzzy: Annotated[list[Step], Field(min_length=1), AfterValidator(_check_order)]
    action: Action


def _languages(value: Any) -> str | list[str]:
    """Take `any`, `seeds`, or languages by ISO 639-1 or by their English names."""
    if value in ("any", "seeds"):
        return str(value)
    names = value if isinstance(value, list) else [value]
    # YAML 1.1 reads the code of Norwegian, `no`, as false.
    names = ["no" if name is False else name for name in names]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("is no seeds, any, or list of languages such as [de, en]")
    # Imported here: a stage that names no language does not depend on that module.
    from bezoar.rows import languages

    return list(dict.fromkeys(map(languages.code, names)))


class Gates(Section):
    """Thresholds of filtering/gates.py, which explains each.

    `language`: languages that rows may be in: `seeds` (those of the seeds), `any`, or a list.
    """

    refusal_words: Count
    loop_words: Count
    loop_ngram: Count
    loop_share: Annotated[float, Field(gt=0, le=1)]
    truncated_words: Count
    # It came later, as did `language_odds`. An older params.yaml meant the English of its seeds.
    language: Annotated[str | list[str], BeforeValidator(_languages)] = "seeds"
    language_words: Count
    language_odds: Annotated[float, Field(gt=1)] = 20.0
    characters: Count
    action: Action


class Filter(Section):
    """The checks and thresholds of `filter`.

    `copies`: the schemes whose rows are compared with their seeds.
    `duplicates`: rows that are equal but for white space.
    `markers`: rows that hold a mark of the chat template.
    `tasks`: pattern (of a row's category, or of its FLAN sub-mixture/task) -> kind of task. The
        first that matches counts, and a row that matches none is `other`.
    `target`: the shares of kinds of task that a set is reported beside.
    """

    min_rating: Count
    copy_ratio: Share
    copy_distance: Number
    # It came later. The default is what happened under an older params.yaml.
    copies: list[str] = ["lamini", "evol_instruct"]
    eval_share: Rate
    licences: Licences
    tasks: dict[str, str]
    target: Target
    balance: Balance | None
    # These two came later. An older params.yaml stays valid, and drops as it did.
    duplicates: RowAction = RowAction(action="drop")
    markers: RowAction = RowAction(action="drop")
    near_duplicates: NearDuplicates
    contamination: Decontamination
    gates: Gates

    @model_validator(mode="after")
    def _known_kinds(self) -> "Filter":
        for pattern, kind in self.tasks.items():
            if kind not in self.target and kind != "other":
                raise ValueError(
                    f"tasks.{pattern}: {kind!r} is no kind of task; "
                    f"target has {', '.join(self.target)}"
                )
        return self
