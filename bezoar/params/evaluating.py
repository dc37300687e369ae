"""The harness and the answers to MT-Bench."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from bezoar.params.fields import Count, Names, Number, Section, Seed


class LmEval(Section):
    """The evaluation by the harness.

    `chat_template`: put a question as an instruction, as in training, not as plain text.
    `tasks`: null is every file of data/fetch/benchmarks.
    `limit`: items a task (null: all).
    """

    num_fewshot: Number
    chat_template: bool
    tasks: Names | None
    limit: Count | None
    batch_size: Count


Temperature = Annotated[float, Field(ge=0, le=2)]


class Temperatures(Section):
    """Temperatures by MT-Bench's categories."""

    writing: Temperature
    roleplay: Temperature
    reasoning: Temperature
    math: Temperature
    coding: Temperature
    extraction: Temperature
    stem: Temperature
    humanities: Temperature


class MtAnswer(Section):
    """The answers to MT-Bench.

    `temperature`: of every answer, or by category (0 is greedy).
    `loop_words`, `loop_ngram`, `loop_share`: as of Gates.
    """

    temperature: Annotated[
        Annotated[Temperature, Tag("number")] | Annotated[Temperatures, Tag("by_category")],
        # As of `judge`: one half is picked before it is checked.
        Discriminator(lambda v: "by_category" if isinstance(v, dict | Temperatures) else "number"),
    ]
    seed: Seed
    loop_words: Count
    loop_ngram: Count
    loop_share: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    batch_size: Count
    limit: Count | None
