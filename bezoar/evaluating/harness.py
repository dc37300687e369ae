"""Runs the LM Evaluation Harness on a loaded checkpoint (OpenBezoar, section 4.1).

In float32 on a CPU all of it repeats to the digit. The times, paths and versions in the harness'
results are left out.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bezoar.evaluating import lm_harness
from bezoar.models import loading
from bezoar.params import LmEval
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.rows.records import Item, Scored
from bezoar.work.progress import bar
from bezoar.work.results import Results

Scores = dict[str, dict[str, float]]

# The form of an item as plain text, after the harness' ARC and PIQA tasks.
PLAIN = "Question: {{question}}\nAnswer:"


class Measured(NamedTuple):
    """The harness' results.

    They are the scores by task, the scores of every item, the number of requests that were cut, and
    what a user must know of the scores.
    """

    scores: Scores
    items: list[Scored]
    cut: int
    warnings: list[str]

    def dump(self) -> dict[str, Any]:
        """Return it as JSON has it. `restore` reads that."""
        return {**self._asdict(), "items": [item.model_dump() for item in self.items]}

    @classmethod
    def restore(cls, values: dict[str, Any]) -> "Measured":
        """Return what `dump` gave."""
        return cls(**{**values, "items": [Scored(**item) for item in values["items"]]})


def run(
    model: Any,
    tokenizer: Any,
    items: Mapping[str, Sequence[Item]],
    settings: LmEval,
    *,
    results: Results | None = None,
) -> Measured:
    """Run the LM Evaluation Harness.

    Returns the scores by task (acc, acc_norm and their standard errors, n), the same item by item,
    the number of requests that were cut, and lm_eval's warnings. A request is cut from the left
    where it does not fit the model's context.

    `settings.tasks` names tasks, and None means all of `items`. Tasks of `items` are made of them.
    Every other name is looked up among the tasks that lm_eval brings, whose data comes from a hub.
    `results` keeps what each task came to, so that a killed run goes on with the next one.
    BadInput: a name that is neither, or a task with too few items for `settings.num_fewshot`.
    """
    with lm_harness.collect_warnings() as warnings:
        scores, scored, cut = _evaluate(
            model, tokenizer, items, settings, warnings, results=results
        )
    return Measured(scores, scored, cut, warnings.lines())


def _evaluate(
    model: Any,
    tokenizer: Any,
    items: Mapping[str, Sequence[Item]],
    settings: LmEval,
    warnings: lm_harness.Warnings,
    *,
    results: Results | None,
) -> tuple[Scores, list[Scored], int]:
    """Return what `run` returns except the warnings, which are added to `warnings`."""
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    names = sorted(items) if settings.tasks is None else settings.tasks
    ours = chat.is_ours(tokenizer)

    class Asking(HFLM):  # type: ignore[misc]
        """A model of lm_eval that asks with the token ids of training.

        It also counts the requests that the harness cuts with no more than a warning.
        """

        cut = 0
        advanced = 0.0  # of the task that is asked

        def tok_encode(
            self,
            string: str,
            add_special_tokens: bool | None = None,
            left_truncate_len: int | None = None,
            **_: Any,
        ) -> list[int]:
            # A chat template writes the special tokens itself. Plain text gets the tokenizer's own,
            # and its words are not read as special tokens.
            plain = not settings.chat_template
            tokens: list[int] = self.tokenizer(
                string,
                add_special_tokens=plain if add_special_tokens is None else add_special_tokens,
                split_special_tokens=plain,
            )["input_ids"]
            return tokens[-left_truncate_len:] if left_truncate_len else tokens

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            if not (ours and settings.chat_template):
                pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
                return pair
            # lm_eval would count the prompt's last line break as part of the answer.
            text = chat.opened_by_tokenizer(tokenizer, context)
            [(prompt, answer)] = chat.answer_ids(tokenizer, [(text, continuation)], "lm_eval")
            return prompt, answer[:-1]  # an answer's end is not scored

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, *args: Any, **more: Any) -> Any:
            self.cut += sum(len(c) + len(a) > self.max_length + 1 for _, c, a in requests)
            self.asked = len(requests)
            return super()._loglikelihood_tokens(requests, *args, **more)

        def _model_call(self, inps: Any, *args: Any, **more: Any) -> Any:
            logits = super()._model_call(inps, *args, **more)
            self.went_on(min(len(inps) / self.asked, 1 - self.advanced))
            return logits

        def went_on(self, share: float) -> None:
            """Advance the bar by this share of a task."""
            self.advanced += share
            advance(share)

    lm = Asking(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=settings.batch_size,
        max_length=loading.context(model.config),
    )
    # Looking through the tasks that lm_eval brings takes 8 s, so it is done only when needed.
    manager = TaskManager(include_defaults=any(name not in items for name in names))
    unknown = [n for n in names if n not in items and n not in manager.all_tasks]
    if unknown:
        raise BadInput(
            f"lm_eval.tasks: {', '.join(unknown)}: neither a file in data/fetch/benchmarks/tasks "
            f"(have {', '.join(sorted(items)) or 'none'}) nor a task of lm_eval"
        )
    loaded = {
        name: manager.load([_task(name, items[name], settings) if name in items else name])
        for name in names
    }
    tasks = [task for name in names for task in loaded[name]["tasks"].values()]
    for shots_notice in lm_harness.set_shots(tasks, settings.num_fewshot):
        warnings.add(shots_notice)

    def evaluate_task(name: str) -> dict[str, Any]:
        """Return the scores, the items, the number of requests cut and the warnings of a task."""
        cut, before = lm.cut, warnings.counts()
        result: Any = evaluate(
            lm,
            loaded[name],
            limit=settings.limit,
            bootstrap_iters=1000,
            log_samples=True,
            apply_chat_template=settings.chat_template,
            system_instruction=chat.SYSTEM.fill() if settings.chat_template and ours else None,
        )
        if notice := lm_harness.limit_notice(name, list(result["n-samples"].values())):
            warnings.add(notice)
        counts = {task: n["effective"] for task, n in result["n-samples"].items()}
        # A group (mmlu) has a row of its own beside its tasks. A tag (truthfulqa) has none, and its
        # tasks give the rows.
        rows = [name] if name in result["results"] else sorted(counts)
        scores: Scores = {}
        for row in rows:
            numbers = {
                key.removesuffix(",none"): float(f"{value:.6g}")
                for key, value in result["results"][row].items()
                if key.endswith(",none") and isinstance(value, float | int)
            }
            n = counts[row] if row in counts else sum(counts.values())
            scores[row] = {**numbers, "n": n}
        scored: list[Scored] = []
        for task in sorted(result["samples"]):
            ids = [item.id for item in items[task]] if task in items else None
            row = name if name in rows else task
            scored += _scored(row, task, ids, result["samples"][task])
        return {
            "scores": scores,
            "items": [item.model_dump() for item in scored],
            "cut": lm.cut - cut,
            "warnings": warnings.since(before),
        }

    scores: Scores = {}
    scored: list[Scored] = []
    cut = 0
    with bar("harness", len(names)) as advance:
        for name in names:
            before = warnings.counts()
            make = functools.partial(evaluate_task, name)
            done = results.once(f"task_{name}", make) if results else make()
            # What a task gave in an earlier run is told in this one too.
            if warnings.counts() == before:
                warnings.bring(done["warnings"])
            lm.went_on(1 - lm.advanced)
            lm.advanced = 0.0
            scores |= done["scores"]
            scored += [Scored(**item) for item in done["items"]]
            cut += done["cut"]
    if cut:
        warnings.add(
            f"{cut:,} requests were longer than the model's {lm.max_length:,} tokens and lost "
            "their beginning"
        )
    return scores, scored, cut


def _scored(
    name: str, task: str, ids: Sequence[str] | None, samples: Sequence[Mapping[str, Any]]
) -> list[Scored]:
    """Return the harness' samples of `task` as records of `name`, which is the task or its group.

    `ids` are those of own items. An item that lm_eval brings is called TASK/PLACE, as `filter`
    names it too. Samples with neither acc nor acc_norm are left out.
    """
    return [
        Scored(
            task=name,
            item=ids[sample["doc_id"]] if ids else f"{task}/{sample['doc_id']}",
            **{
                metric: float(f"{sample[metric]:.6g}")
                for metric in ("acc", "acc_norm")
                if metric in sample
            },
        )
        for sample in samples
        if sample["filter"] == "none" and ("acc" in sample or "acc_norm" in sample)
    ]


def _task(name: str, items: Sequence[Item], settings: LmEval) -> dict[str, Any]:
    """Return the configuration of a multiple-choice task of the harness."""
    from datasets import Dataset, DatasetDict

    rows = [item.model_dump() for item in items]

    def load(**_: Any) -> Any:
        """Load the rows straight from memory.

        The json builder of datasets caches by path and time of change. A file that DVC checked out
        under an old time would give the rows of another run.
        """
        return DatasetDict({"test": Dataset.from_list(rows)})

    return {
        "task": name,
        "custom_dataset": load,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}" if settings.chat_template else PLAIN,
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", "acc_norm")
        ],
        "metadata": {"version": 1.0},
    }
