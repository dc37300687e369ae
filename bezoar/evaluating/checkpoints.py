"""Evaluates a checkpoint, and keeps what is worked out in a work folder.

The folder stands under a fingerprint of all that changes a number. So a killed evaluation goes on,
and one that is run again after an edit elsewhere takes seconds. A docstring, a comment or a new
record class is such an edit.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from bezoar import arithmetic, work
from bezoar.evaluating import harness, lm_harness, probes, talks
from bezoar.models import generation, loading, small
from bezoar.params import Evaluated, FurtherHub, FurtherLocal, Params
from bezoar.rows import chat, thoughts
from bezoar.rows.records import Answers, Attempt, Item, Probe, Question
from bezoar.work.results import Results

LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes", "lm_eval", "numpy")


def measure(
    p: Params, point: Evaluated, tasks: Mapping[str, Sequence[Item]], questions: Sequence[Probe]
) -> tuple[harness.Measured, list[Attempt]]:
    """Return what the harness measures of a checkpoint on `tasks`, and its answers to the held-out
    questions. A link between checkpoints is asked the questions alone. BadInput: as harness.run."""
    weights = Path("models", point.model), Path("models", point.base)
    inputs = {"tasks": tasks, "questions": questions, "settings": p.lm_eval, "link": point.link}
    # The items of tasks that lm_eval brings are not among `tasks`, but their texts were fetched.
    texts = Path("data/fetch/benchmarks/texts")
    inputs |= {"texts": work.content(texts) if texts.is_dir() else ""}
    modules = harness, lm_harness, probes
    with _results("lm_eval", p, point.further, weights, modules, **inputs) as results:
        # Nothing is loaded where all of it is kept.
        checkpoint = functools.cache(lambda: loading.load(*weights, p.sft, point.further))

        def run_harness() -> object:
            return harness.run(*checkpoint(), tasks, p.lm_eval, results=results).dump()

        def ask_questions() -> object:
            done, batch_size = results.rows("questions"), p.lm_eval.batch_size
            attempts = probes.probe(*checkpoint(), questions, batch_size, done)
            return [attempt.model_dump() for attempt in attempts]

        measured = harness.Measured({}, [], 0, [])
        if not point.link:
            measured = harness.Measured.restore(results.once("harness", run_harness))
        attempts = results.once("attempts", ask_questions) if questions else []
        return measured, [Attempt(**attempt) for attempt in attempts]


def answer(p: Params, name: str, questions: Sequence[Question]) -> tuple[list[Answers], list[int]]:
    """Return a checkpoint's answers to MT-Bench, and the number of tokens of each turn. BadInput:
    as talks.converse."""
    checkpoint = p.checkpoints[name]
    folder = Path("models", checkpoint.model)
    further = p.further(checkpoint)
    stop = further.stop if isinstance(further, FurtherHub | FurtherLocal) else []
    inputs = {"name": name, "questions": questions, "settings": p.mt_answer, "stop": stop}
    modules = talks, thoughts
    with _results("mt_answer", p, checkpoint.further, [folder], modules, **inputs) as results:

        def converse() -> object:
            model, tokenizer = loading.load(folder, folder, p.sft, checkpoint.further)
            answers = talks.converse(
                model, tokenizer, questions, name, p.mt_answer, stop=stop, results=results
            )
            tokens = talks.lengths(answers, tokenizer)
            return {"answers": [row.model_dump() for row in answers], "tokens": tokens}

        done = results.once("answers", converse)
        return [Answers(**row) for row in done["answers"]], done["tokens"]


@contextmanager
def _results(
    stage: str,
    p: Params,
    further: bool,
    weights: Sequence[Path],
    modules: Sequence[ModuleType],
    **inputs: Any,
) -> Iterator[Results]:
    """Yield what `stage` has worked out before with the same inputs on the same kind of machine.

    `weights` are the folders of the model. `modules` are those that work the results out, beside
    the ones that load and run any model.
    """
    device = loading.device()
    code = [Path(str(module.__file__)) for module in (chat, generation, loading, small, *modules)]
    key = work.fingerprint(
        code=work.code(*code),
        template=chat.body(),
        system=chat.SYSTEM.fill(),
        versions=[version(name) for name in LIBRARIES],
        machine=[device.name, device.dtype, arithmetic.in_force()],
        weights=[work.content(folder) for folder in weights],
        loading=[p.sft.quantization, p.sft.double_quantization, further],
        **inputs,
    )
    with work.scratch(stage, key, wait=True) as folder:
        yield Results(folder)
