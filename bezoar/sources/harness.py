"""The texts of the tasks of the LM Evaluation Harness. `filter` looks for them in training rows.

lm_eval fetches a task's data from the Hub, as it does to evaluate. The download stays in the cache
of `datasets`, so that the evaluation needs no second one.
"""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from bezoar.params import Harness
from bezoar.rows.files import BadInput
from bezoar.rows.records import ItemText
from bezoar.sources import hub
from bezoar.sources.tables import Source, Tables
from bezoar.work import progress

_OPENS = re.compile(r"\A(?:Question|Article|Q):\s*")
_CLOSES = re.compile(r"\s*^(?:Answer|A):\s*\Z", re.MULTILINE)


def read(settings: Harness) -> Source:
    """Return texts/TASK.jsonl of every task, with all items of the split that is evaluated.

    The tasks of a group share one file. BadInput: a name that lm_eval does not know, or data that
    cannot be loaded.
    """
    from bezoar.evaluating import lm_harness

    with lm_harness.collect_warnings():
        return _read(settings)


def _read(settings: Harness) -> Source:
    import datasets
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from lm_eval.tasks import TaskManager

    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    disable_progress_bars()
    hub.prepare_client()
    manager = TaskManager()
    if unknown := [name for name in settings.tasks if name not in manager.all_tasks]:
        raise BadInput(
            f"fetch.benchmarks.tasks: {', '.join(unknown)}: no task of lm_eval; "
            "`lm_eval ls tasks` lists them"
        )
    tables = {}
    with progress.bar("fetch benchmarks: tasks", len(settings.tasks)) as advance:
        for name in settings.tasks:
            tables[f"texts/{name}.jsonl"] = _group(manager, name)
            advance(1)
    sizes = {file: len(table) for file, table in tables.items()}
    # The world's probes ask what no seed teaches, so the list of probes is empty.
    written: Tables = {**tables, "probes.jsonl": []}
    return Source(written, {"source": "harness", "rows": sizes, "left_out": {}})


def _group(manager: Any, name: str) -> list[ItemText]:
    """Return the items of a task, or of a group's tasks in the order of their names."""
    try:
        tasks = manager.load([name])["tasks"]
        return [item for task in sorted(tasks) for item in _items(task, tasks[task])]
    except (OSError, ValueError, RuntimeError) as error:  # of datasets, of the Hub, of a cache
        why = str(error).partition("\n")[0]
        raise BadInput(
            f"fetch.benchmarks: {name}: its data cannot be loaded ({type(error).__name__}: {why}); "
            "check the network and HF_ENDPOINT; with HF_HUB_OFFLINE=1 only what is in the cache "
            "is read"
        ) from None


def _items(name: str, task: Any) -> list[ItemText]:
    """Return the texts of each item of a task, without the lines that open every prompt of it."""
    docs = list(task.eval_docs)
    questions: list[Any] = [task.doc_to_text(doc) for doc in docs]
    options_by_item: list[Sequence[str]] = [task.doc_to_choice(doc) for doc in docs]
    if questions and not isinstance(questions[0], str):
        # WinoGrande puts each option into the text, and lets the same words follow. The first
        # text of an item becomes its question, the other one a choice.
        wholes = [
            [f"{option} {task.doc_to_target(doc)}" for option in options]
            for doc, options in zip(docs, options_by_item, strict=True)
        ]
        questions, options_by_item = [first for first, *_ in wholes], [rest for _, *rest in wholes]
    # TruthfulQA opens every prompt with the same six questions and answers
    lines = zip(*(text.splitlines()[:-1] for text in questions), strict=False)
    # One item alone has no others to share its lines with, and keeps them all.
    preamble = [
        line for line, *others in takewhile(lambda same: len({*same}) == 1, lines) if others
    ]
    return [
        ItemText(
            id=f"{name}/{number}",
            question=_CLOSES.sub(
                "", _OPENS.sub("", "\n".join(text.splitlines()[len(preamble) :]).strip())
            ),
            # A choice of one letter (A, B) only names a text that the question itself spells out.
            choices=[option for option in options if len(option) > 1],
        )
        for number, (text, options) in enumerate(zip(questions, options_by_item, strict=True))
    ]
