"""The texts of the tasks that the LM Evaluation Harness brings, for `filter` to look for them.

lm_eval finds a task's data on the Hub as it does to evaluate; what is downloaded stays in the cache
of `datasets`, so that the evaluation downloads it no more.
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


def read(wanted: Harness) -> Source:
    """texts/TASK.jsonl of every task, a group's tasks in one file: the split that is evaluated, all
    of it. BadInput: a name that lm_eval does not know, or data that cannot be loaded."""
    from bezoar.evaluating import lm_harness

    with lm_harness.collect_warnings():
        return _read(wanted)


def _read(wanted: Harness) -> Source:
    import datasets
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from lm_eval.tasks import TaskManager

    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    disable_progress_bars()
    hub.ready()
    manager = TaskManager()
    if unknown := [name for name in wanted.tasks if name not in manager.all_tasks]:
        raise BadInput(
            f"fetch.benchmarks.tasks: {', '.join(unknown)}: no task of lm_eval; "
            "`lm_eval ls tasks` lists them"
        )
    tables = {}
    with progress.bar("fetch benchmarks: tasks", len(wanted.tasks)) as advance:
        for name in wanted.tasks:
            tables[f"texts/{name}.jsonl"] = _group(manager, name)
            advance(1)
    sizes = {file: len(table) for file, table in tables.items()}
    written: Tables = {**tables, "probes.jsonl": []}  # the world's probes ask what no seed teaches
    return Source(written, {"source": "harness", "rows": sizes, "left_out": {}})


def _group(manager: Any, name: str) -> list[ItemText]:
    """The items of a task, or of a group's tasks in the order of their names."""
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
    """What a model is shown of each item, without what the task shows before every item."""
    docs = list(task.eval_docs)
    asked: list[Any] = [task.doc_to_text(doc) for doc in docs]
    offered: list[Sequence[str]] = [task.doc_to_choice(doc) for doc in docs]
    if asked and not isinstance(asked[0], str):
        # WinoGrande: the options stand inside the text, the same words follow each of them
        wholes = [
            [f"{option} {task.doc_to_target(doc)}" for option in options]
            for doc, options in zip(docs, offered, strict=True)
        ]
        asked, offered = [first for first, *_ in wholes], [rest for _, *rest in wholes]
    # TruthfulQA opens every prompt with the same six questions and answers
    lines = zip(*(text.splitlines()[:-1] for text in asked), strict=False)
    shown = [line for line, *others in takewhile(lambda same: len({*same}) == 1, lines) if others]
    return [
        ItemText(
            id=f"{name}/{number}",
            question=_CLOSES.sub(
                "", _OPENS.sub("", "\n".join(text.splitlines()[len(shown) :]).strip())
            ),
            # a letter stands for what the question spells out
            choices=[option for option in options if len(option) > 1],
        )
        for number, (text, options) in enumerate(zip(asked, offered, strict=True))
    ]
