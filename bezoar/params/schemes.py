"""The schemes by which a teacher writes rows."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from bezoar.params.fields import Count, Name, Names, Number, Section, Seed, Share, reject_repeats


class Generate(Section):
    seed: Seed


# Orca's system messages, each a file of prompts/orca/system/
Ids = Annotated[list[Count], Field(min_length=1), AfterValidator(reject_repeats)]
# The categories of seeds that a scheme draws from (null: all that the seeds have, but `without`).
Categories = Names | None


class Lamini(Section):
    seeds: Name
    examples: Count
    asked: Count
    topic_guided: Share
    topics: Count
    topic_words: Count
    topic_subcategories: Number
    categories: Categories
    without: list[str] = []  # came later: older files stay valid
    calls: Count
    fewer_examples: bool = True  # came later: older files stay valid
    answers_shown: Number = 0  # came later: older files stay valid


Operation = Literal[
    "add_constraints", "deepen", "concretize", "increase_reasoning", "complicate_input"
]


class EvolInstruct(Section):
    seeds: Name
    epochs: Count
    breadth: Share
    operations: Annotated[list[Operation], Field(min_length=1), AfterValidator(reject_repeats)]
    refusal_words: Number
    categories: Categories
    without: list[str] = []  # came later: older files stay valid
    per_category: Count
    iterations: Count = 1  # came later: older files stay valid
    answers_shown: Number = 0  # came later: older files stay valid


class SystemIds(Section):
    cot: Ids
    niv2: Ids
    t0: Ids
    flan2021: Ids


class Orca(Section):
    seeds: Name
    system_ids: SystemIds
    per_task: Count
    flan2021: Count


class Schemes(Section):
    """A scheme that the recipe does not name is neither generated nor judged."""

    lamini: Lamini | None = None
    evol_instruct: EvolInstruct | None = None
    orca: Orca | None = None

    @property
    def by_name(self) -> dict[str, Any]:
        """Return the schemes that the recipe names, in the order of this class."""
        every = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: scheme for name, scheme in every.items() if scheme is not None}
