"""The places from which rows, topics, benchmarks, the base and further models come."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from bezoar.params.endpoints import Anthropic, OpenAI
from bezoar.params.fields import Count, Names, Rate, Section, Seed, Share, Url


class World(Section):
    """Rows written by the project's own small world."""

    source: Literal["world"]
    rows: Count


AnswerIs = Literal["number_from_0", "number_from_1", "letter", "text", "label"]


class Reading(Section):
    """The way in which files are read as rows.

    `take`: a limit is spread over the files, or takes the first rows as they stand.
    `fields`: our names of fields -> what the files call them.
    `category`: of seeds that name none.
    `answer_is`: the form in which a benchmark writes its answers, where two readings fit.
    """

    take: Literal["spread", "first"] = "spread"
    fields: dict[str, Annotated[str, Field(min_length=1)]] = {}
    category: Annotated[str, Field(min_length=1)] = "open_qa"
    answer_is: AnswerIs | None = None


class Local(Reading):
    """The user's own files in local/NAME/.

    `limit`: rows at most, of benchmarks a task (null: all).
    `licence`: of all files (null: as a README beside a file states it).
    `otherwise`: stands in where there are no files (null: there must be some).
    """

    source: Literal["local"]
    limit: Count | None
    licence: Annotated[str, Field(min_length=1)] | None = None
    otherwise: World | None


class GrownBase(Section):
    """A tiny Llama trained from nothing on the world's text."""

    source: Literal["grown"]
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    layers: Count
    heads: Count
    positions: Count
    documents: Count
    steps: Count
    batch_size: Count
    sequence: Count
    muon_lr: Rate
    adamw_lr: Rate
    initializer_range: Rate
    warmup_steps: Count
    weight_decay: Share
    adamw_beta2: Share
    clip: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _heads_are_whole(self) -> "GrownBase":
        if self.hidden_size % self.heads:
            raise ValueError(
                f"heads: {self.heads} do not divide hidden_size; it is {self.hidden_size}"
            )
        return self


class LocalBase(Section):
    """The user's own model in local/base/. `otherwise` is grown where there is none."""

    source: Literal["local"]
    otherwise: GrownBase


def _check_commit(revision: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{7,40}", revision):
        raise ValueError(
            "a branch can move; name a commit: 40 hex digits, or its first 7 and more with `ref`"
        )
    return revision


class Repository(Section):
    """A repository of the Hugging Face Hub at one commit.

    `revision`: the whole commit, or its first digits.
    `ref`: the branch whose tip the commit must be. It is needed where `revision` is not whole.
    `licence`: as the repository states it.
    """

    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    kind: Literal["dataset", "model", "space"]
    revision: Annotated[str, AfterValidator(_check_commit)]
    ref: str | None
    licence: str

    @model_validator(mode="after")
    def _short_revision_has_ref(self) -> "Repository":
        if len(self.revision) < 40 and self.ref is None:
            raise ValueError(
                "revision: is part of a commit; name `ref` too, the branch that ends in it"
            )
        return self


class Files(Repository):
    """Some files of a repository, in this order. A name may be a pattern with `*`."""

    files: Annotated[list[str], Field(min_length=1)]


class Hub(Reading):
    """Rows from the Hugging Face Hub, at most `limit` (null: all)."""

    source: Literal["hub"]
    parts: Annotated[list[Files], Field(min_length=1)]
    limit: Count | None


class Mixtures(Section):
    """The files of each sub-mixture of the FLAN collection, as patterns."""

    cot: list[str]
    niv2: list[str]
    t0: list[str]
    flan2021: list[str]


class HubFlan(Repository):
    """The FLAN collection from the Hub, streamed.

    `per_task`: rows of each task, drawn evenly from all that are read.
    `task_share`: share of the tasks that are taken.
    `shards`: files of a pattern at most (null: all).
    """

    source: Literal["hub"]
    mixtures: Mixtures
    per_task: Count
    task_share: Annotated[float, Field(gt=0, le=1)]
    shards: Count | None


class Wikipedia(Section):
    """Categories of Wikipedia out of its category table (a dump, `category.sql.gz`).

    `sha256`: of the file (null: take what the address holds now).
    `housekeeping`: words that make a category one of Wikipedia's housekeeping.
    """

    source: Literal["wikipedia"]
    url: Url
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    licence: str
    housekeeping: list[str]


class Harness(Section):
    """Tasks of the harness, and no items of our own. lm_eval brings `tasks`, the same as
    lm_eval.tasks, from the Hub. Their texts are written down, for `filter` to look for them."""

    source: Literal["harness"]
    tasks: Names


class HubBase(Files):
    """A base model from the Hub."""

    source: Literal["hub"]


class FurtherHub(HubBase):
    """A further model from the Hub.

    `chat_template`: the Jinja by which a conversation is put to it (null: its tokenizer's, and this
        recipe's where that has none).
    `stop`: texts that begin the next turn, for a model that writes that too. An answer ends before
        them.
    """

    chat_template: str | None
    stop: list[Annotated[str, Field(min_length=1)]] = []


class FurtherLocal(Section):
    """A further model in local/models/NAME/. `chat_template` and `stop` as of FurtherHub."""

    source: Literal["local"]
    chat_template: str | None
    stop: list[Annotated[str, Field(min_length=1)]] = []


class FurtherServed(Section):
    """A further model behind HTTP."""

    source: Literal["served"]
    endpoint: Annotated[OpenAI | Anthropic, Field(discriminator="provider")]

    @model_validator(mode="after")
    def _only_verdicts_have_a_schema(self) -> "FurtherServed":
        if getattr(self.endpoint, "structured", False):
            raise ValueError(
                "endpoint.structured: only a judge's verdict has a schema; write false"
            )
        return self


Further = Annotated[FurtherHub | FurtherLocal | FurtherServed, Field(discriminator="source")]
Rows = Annotated[World | Local | Hub, Field(discriminator="source")]
Flan = Annotated[World | Local | HubFlan, Field(discriminator="source")]
Topics = Annotated[World | Local | Wikipedia, Field(discriminator="source")]
Benchmarks = Annotated[World | Local | Harness, Field(discriminator="source")]
Base = Annotated[GrownBase | LocalBase | HubBase, Field(discriminator="source")]
# The names that `fields` of a source may have.
FIELDS = {
    "dolly": ("instruction", "context", "response", "category", "id"),
    "flan": ("inputs", "targets", "task_name", "prompt", "completion"),
    "topics": ("name", "subcategories"),
    "hh_rlhf": ("prompt", "chosen", "rejected", "system"),
    "mt_bench": (
        "question_id",
        "category",
        "turns",
        "model_id",
        "choices",
        "judge",
        "model_a",
        "model_b",
        "winner",
        "turn",
    ),
    "benchmarks": ("question", "choices", "answer", "context"),
}


class Fetch(Section):
    seed: Seed
    dolly: Rows
    flan: Flan
    topics: Topics
    hh_rlhf: Rows
    mt_bench: Rows
    benchmarks: Benchmarks
    base: Base

    @model_validator(mode="after")
    def _fields_are_known(self) -> "Fetch":
        for source, fields in FIELDS.items():
            for name in getattr(getattr(self, source), "fields", {}):
                if name not in fields:
                    raise ValueError(
                        f"{source}.fields.{name}: no field of these rows; have {', '.join(fields)}"
                    )
        return self
