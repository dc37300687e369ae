"""Additions to the LM Evaluation Harness: examples that give no answer away, and its warnings.

The examples never show the item that is asked. The warnings reach the user, each kind once. Nothing
here imports lm_eval. A sampler is any object that has its two methods.
"""

import logging
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

from bezoar.rows.files import BadInput

# Warnings about the way in which the pipeline uses lm_eval. A user can change nothing about them.
# That requests were cut is left out here too, because they are counted.
NOISE = re.compile(
    r"`pretrained` model kwarg is not of type|Passed an already-initialized model|"
    r".*Custom kwargs can be passed to `--metadata`|Combined length of context .* from the left"
)
LONGEST = 300  # characters of a warning that are shown


# --- examples ------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """An item as an example shows it: the question, the choices, and the right answer.

    `answer` is None where several are right.
    """

    question: str
    choices: frozenset[str]
    answer: str | None

    def reveals(self, item: "Shown") -> bool:
        """Say whether this example asks what `item` asks and answers with one of its choices."""
        return self.question == item.question and (
            not item.choices or self.answer is None or self.answer in item.choices
        )


class Examples:
    """Draws the examples of a task from the items that it asks.

    An item's examples never include the item itself, nor another that asks the same and answers it.
    lm_eval's own sampler knows an item by its fields alone, so that an item that stands in a file
    twice would show its answer.
    """

    def __init__(self, task: Any) -> None:
        self.name: str = task.config.task
        self.random = Random()
        self._task = task
        self._docs: list[Any] = list(task.sampler.df)
        self._shown = [as_example(task, doc) for doc in self._docs]
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, example in enumerate(self._shown):
            self._places[example.question].append(place)

    def set_rnd(self, seed: int | None) -> "Examples":
        """Draw from `seed` on, as lm_eval asks its samplers to."""
        self.random = Random(seed)
        return self

    def sample(self, n: int, eval_doc: Any = None, **_: Any) -> list[Any]:
        """Draw `n` examples for the item `eval_doc`."""
        hidden = self._hidden(as_example(self._task, eval_doc))
        places = self.random.sample(range(len(self._docs)), n + len(hidden))
        return [self._docs[place] for place in places if place not in hidden][:n]

    def check(self, n: int) -> None:
        """Raise BadInput where an item of the task has fewer than `n` others to show."""
        most_hidden = max(len(self._hidden(item)) for item in self._shown)
        if len(self._docs) - most_hidden < n:
            raise BadInput(
                f"lm_eval.num_fewshot: {n} examples are wanted, and {self.name} has "
                f"{len(self._docs) - most_hidden} that do not give an item's answer away "
                f"({len(self._docs)} items in all); give it more items, or lower num_fewshot"
            )

    def _hidden(self, item: Shown) -> set[int]:
        return {p for p in self._places[item.question] if self._shown[p].reveals(item)}


def as_example(task: Any, doc: Any) -> Shown:
    """Return an item of a task of lm_eval as its examples show it."""
    choices = [_plain(choice) for choice in task.doc_to_choice(doc) or []]
    question, answer = task.doc_to_text(doc), task.doc_to_target(doc)
    if isinstance(answer, int) and not isinstance(answer, bool) and choices:
        answer = choices[answer]
    return Shown(
        # WinoGrande gives as text the number of the right one of two sentences.
        question=_plain(question) if isinstance(question, str) else " ".join(choices),
        choices=frozenset(choices),
        answer=_plain(answer) if isinstance(answer, str) else None,
    )


def _plain(text: str) -> str:
    """Return the words of a text, so that neither case nor punctuation tells two texts apart."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def set_shots(tasks: Iterable[Any], num_fewshot: int) -> list[str]:
    """Give each task of lm_eval its number of examples and the items that they come from.

    Returns what a user must know of it. A task that sets its own number to 0 (truthfulqa) keeps
    that. BadInput: a task has too few items.
    """
    notices, sharing_split = [], []
    for task in tasks:
        fixed = task.get_config("num_fewshot")
        shots = 0 if fixed == 0 else num_fewshot
        if fixed is not None and fixed != num_fewshot:
            why = (
                f"num_fewshot stays {fixed}, which the task fixes itself"
                if shots == fixed
                else f"num_fewshot is {num_fewshot}; the task itself would take {fixed}"
            )
            notices.append(f"{task.config.task}: {why}")
        task.set_config(key="num_fewshot", value=shots)
        if shots and _asks_what_it_shows(task):
            task.sampler = Examples(task)
            task.sampler.check(shots)
            # lm_eval tells its sampler which item is asked only where these two are equal.
            task.fewshot_cfg.split = task.config.test_split
            sharing_split.append(task.config.task)
        task.set_fewshot_seed(seed=1234)  # the harness' own default
    if sharing_split:
        notices.append(
            f"no split of their own for examples: {', '.join(sharing_split)}; their examples are "
            "other items of the same split, never the item that is asked"
        )
    return notices


def _asks_what_it_shows(task: Any) -> bool:
    """Say whether a task's examples come from the split that is evaluated, as lm_eval chooses."""
    config, examples = task.config, task.fewshot_cfg
    if examples.split is None and examples.samples is not None:
        return False
    splits = (examples.split, config.training_split, config.validation_split, config.test_split)
    shown_split = next((split for split in splits if split is not None), None)
    return bool(shown_split == (config.test_split or config.validation_split))


# --- warnings ------------------------------------------------------------------------------------


class Warnings(logging.Handler):
    """Collects lm_eval's warnings: each kind once, in its first line, with how often it came."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._first: dict[str, str] = {}
        self._times: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record of the logger, and print it where it is the first of its kind."""
        message = record.getMessage().strip()
        if not NOISE.match(message):
            line = " ".join(re.split(r"\n\s*\n|,Sample:", message)[0].split())
            self.add(f"lm_eval: {line[:LONGEST]}")

    def add(self, notice: str) -> None:
        """Keep a notice of our own, or one of lm_eval's."""
        kind = re.sub(r"\d+", "#", notice)
        if kind not in self._first:
            print(f"warning: {notice}", file=sys.stderr)
        self._first.setdefault(kind, notice)
        self._times[kind] += 1

    def counts(self) -> Counter[str]:
        """Return how often each kind came so far."""
        return Counter(self._times)

    def since(self, before: Counter[str]) -> list[tuple[str, int]]:
        """Return the first line of each kind that came since `before`, and how often it came."""
        return [(self._first[kind], n) for kind, n in (self._times - before).items()]

    def bring(self, counted: Iterable[tuple[str, int]]) -> None:
        """Add what `since` returned in an earlier run."""
        for notice, times in counted:
            for _ in range(times):
                self.add(notice)

    def lines(self) -> list[str]:
        """Return every kind of warning, in the order in which they came first."""
        return [
            notice if self._times[kind] == 1 else f"{notice} ({self._times[kind]} times)"
            for kind, notice in self._first.items()
        ]


@contextmanager
def collect_warnings() -> Iterator[Warnings]:
    """Collect lm_eval's warnings, which it would otherwise print for each request."""
    logger, warnings = logging.getLogger("lm_eval"), Warnings()
    before = logger.level, logger.propagate
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(warnings)
    try:
        yield warnings
    finally:
        logger.removeHandler(warnings)
        logger.level, logger.propagate = before


def limit_notice(name: str, counts: Sequence[dict[str, int]]) -> str | None:
    """Return a notice of what `lm_eval.limit` left out of a task or group, or None.

    `counts` are n-samples of its tasks.
    """
    evaluated, available = (
        sum(count[key] for count in counts) for key in ("effective", "original")
    )
    if evaluated == available:
        return None
    return (
        f"{name}: {evaluated:,} of {available:,} items asked (lm_eval.limit); not to be published"
    )
