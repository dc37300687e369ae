"""All parameters, as one profile sees them."""

from typing import Annotated, Literal

from pydantic import Field

from bezoar.arithmetic import Instructions
from bezoar.params.endpoints import Budget, Endpoints
from bezoar.params.evaluating import LmEval, MtAnswer
from bezoar.params.fields import Count, Name, Section
from bezoar.params.filtering import Filter
from bezoar.params.judging import Agreement, Judge, Known, MtCompare, MtGrade
from bezoar.params.recipe import (
    FURTHER,
    PAIRS,
    Aligned,
    Checkpoint,
    Compared,
    Evaluated,
    Link,
    Merge,
)
from bezoar.params.schemes import Generate, Schemes
from bezoar.params.sources import Fetch, Further
from bezoar.params.training import Dpo, MergeStage, Mix, Sft


class Report(Section):
    examples: Count


class Params(Section):
    """All parameters, as one profile sees them.

    `launch`: a file of launch/ by which training runs on several processes (null: in one).
    `cpu`: the instructions that CPUs of several kinds have in common, so that all compute the same
        bits (null: each computes in its fastest way).
    `others`: those of `models` that stand beside our checkpoints. `load` drops the rest of
        `models`. It adds `others` to `checkpoints` and, but for those behind an endpoint, to
        `evaluated`.
    """

    profile: str
    chain: dict[Name, Link]
    merges: dict[Name, Merge]
    evaluated: dict[Name, Evaluated]
    checkpoints: dict[Name, Checkpoint]
    models: dict[Name, Further]
    others: list[Name] = []  # came later, but dvc.yaml names it
    compared: dict[Name, Compared]
    aligned: Annotated[dict[Name, Aligned], Field(max_length=1)]
    own: list[Literal["dolly"]]
    stand_ins: Literal["stop", "allow"] = "stop"  # came later: older files stay valid
    llm: Endpoints
    budget_usd: Budget
    launch: str | None
    cpu: Instructions | None = None  # came later, but dvc.yaml names it
    fetch: Fetch
    generate: Generate
    schemes: Schemes
    judge: Judge
    filter: Filter
    mix: Mix
    sft: Sft
    merge: MergeStage
    dpo: Dpo
    lm_eval: LmEval
    mt_answer: MtAnswer
    mt_grade: MtGrade
    mt_compare: MtCompare
    agreement: Agreement
    known: Known | None = None  # came later, but dvc.yaml names it
    report: Report

    @property
    def sources(self) -> list[str]:
        """Return the sources whose rows this recipe trains on, shows a teacher, or evaluates by."""
        sets = [path for link in self.chain.values() for path in link.sets]
        lamini = self.schemes.lamini
        used = {
            "dolly": "dolly" in self._seeds or bool(self.own),
            "flan": "flan" in self._seeds,
            "topics": lamini is not None and lamini.topic_guided > 0,
            "hh_rlhf": PAIRS in sets or bool(self.aligned),
            "mt_bench": bool(self.checkpoints),
            "benchmarks": bool(self.evaluated),
        }
        return [name for name, so in used.items() if so]

    @property
    def _seeds(self) -> set[str]:
        return {scheme.seeds for scheme in self.schemes.by_name.values()}

    @property
    def unmeasured(self) -> dict[str, str]:
        """Return the whole weights that nothing asks or measures: name -> path, in their order."""
        measured: dict[str, Checkpoint] = {**self.evaluated, **self.checkpoints}
        weights = {
            **{name: f"merge/{name}" for name in self.merges},
            **{name: f"sft/{name}" for name, link in self.chain.items() if link.weights == "all"},
            **{name: f"dpo/{name}" for name in self.aligned},
        }
        paths = {checkpoint.model for checkpoint in measured.values()}
        return {
            name: path
            for name, path in weights.items()
            if path not in paths and name not in measured
        }

    @property
    def final(self) -> str:
        """Return the name of the checkpoint that the chain ends with: the last that is no further
        model."""
        measured = {
            name: checkpoint for name, checkpoint in self.evaluated.items() if not checkpoint.link
        }
        ours = [
            name
            for name, checkpoint in (measured | self.checkpoints).items()
            if not checkpoint.further
        ]
        return [*self.chain, *self.unmeasured, *ours][-1]

    @property
    def final_model(self) -> str:
        """Return the path below models/ of the checkpoint that the chain ends with."""
        measured: dict[str, Checkpoint] = {**self.evaluated, **self.checkpoints}
        if self.final in measured:
            return measured[self.final].model
        return self.unmeasured.get(self.final, f"sft/{self.final}")

    def further(self, checkpoint: Checkpoint) -> Further | None:
        """Return the one of `models` that a checkpoint is, None for one that this recipe makes."""
        return self.models[checkpoint.model.removeprefix(FURTHER)] if checkpoint.further else None
