"""The judge, the grader, and the checks of both."""

from typing import Annotated, Literal

from pydantic import Field

from bezoar.params.fields import Number, Section, Seed, Share


class Judge(Section):
    """Ratings from 1 to `scale`. `vote`: the way in which a panel decides
    (bezoar/judging/panel.py)."""

    scale: Annotated[int, Field(ge=2)]
    vote: Literal["majority", "mean"]


class MtGrade(Section):
    """The grades of MT-Bench. `references`: categories whose questions are judged beside a
    reference answer."""

    references: Literal["all"] | list[str]
    seed: Seed


class MtCompare(Section):
    """The comparison of checkpoints. `limit`: questions, spread over all (null: all, 0: no
    comparison)."""

    seed: Seed
    limit: Number | None


class Agreement(Section):
    """The study of judges beside people.

    `verdicts`: our judge compares two answers, or grades each alone.
    `records`: those on which every set of judgements has a verdict, or all.
    `limit`: pairs of answers that are put to our judge, spread over all (null: all, 0: none).
    `own`: judge of the given votes -> the model whose answers it may take for its own.
    """

    own: dict[str, str]
    tie_margin: Annotated[float, Field(ge=0)]
    seed: Seed
    # came later: older files stay valid
    verdicts: Literal["pairs", "single"] = "pairs"
    records: Literal["intersection", "all"] = "intersection"
    limit: Number | None = None


# Ours: by chance a judge has an AUC of 0.7 on eight rows one time in ten, on twenty one time in
# seventy.
FEWEST_KNOWN = 8


class Known(Section):
    """The check of a judge on rows whose answers are known (judging/known.py).

    `rows`: seeds that it is asked about, each with its own answer and with another's.
    `least_auc`, `below`: if the judge tells the two apart with a lower AUC, a stage warns, or stops
        before it asks about anything else.
    """

    rows: Annotated[int, Field(ge=FEWEST_KNOWN)]
    least_auc: Share
    below: Literal["warn", "stop"]
    seed: Seed
