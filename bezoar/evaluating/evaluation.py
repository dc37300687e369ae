"""Evaluation of a loaded checkpoint (OpenBezoar, sections 4.1 and 4.2).

It has three parts: the LM Evaluation Harness, held-out questions answered freely, and two-turn
conversations. Greedy and in float32 on a CPU, all of it repeats to the digit. The times, paths and
versions in the harness' results are left out.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bezoar.models import generation, loading
from bezoar.models.generation import Continuation, Draw
from bezoar.params import LmEval, MtAnswer, Temperatures
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.rows.prompts import Prompt
from bezoar.rows.records import Answers, Ask, Attempt, Item, Message, Probe, Question, Reply, Scored
from bezoar.work.progress import bar

if TYPE_CHECKING:
    from bezoar.evaluating.lm_harness import Warnings

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


# --- LM Evaluation Harness -----------------------------------------------------------------------


def harness(
    model: Any, tokenizer: Any, items: Mapping[str, Sequence[Item]], settings: LmEval
) -> Measured:
    """Run the LM Evaluation Harness.

    Returns the scores by task (acc, acc_norm and their standard errors, n), the same item by item,
    the number of requests that were cut, and lm_eval's warnings. A request is cut from the left
    where it does not fit the model's context.

    `settings.tasks` names tasks, and None means all of `items`. Tasks of `items` are made of them.
    Every other name is looked up among the tasks that lm_eval brings, whose data comes from a hub.
    BadInput: a name that is neither, or a task with too few items for `settings.num_fewshot`.
    """
    # Imported here, so that mt_answer, which has no use for it, is not run again for an edit to it.
    from bezoar.evaluating import lm_harness

    with lm_harness.collect_warnings() as warnings:
        scores, scored, cut = _evaluate(model, tokenizer, items, settings, warnings)
    return Measured(scores, scored, cut, warnings.lines())


def _evaluate(
    model: Any,
    tokenizer: Any,
    items: Mapping[str, Sequence[Item]],
    settings: LmEval,
    warnings: "Warnings",
) -> tuple[Scores, list[Scored], int]:
    """Return what `harness` returns except the warnings, which are added to `warnings`."""
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from bezoar.evaluating import lm_harness

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
    scores: Scores = {}
    scored: list[Scored] = []
    with bar("harness", len(names)) as advance:
        for name in names:
            result: Any = evaluate(
                lm,
                loaded[name],
                limit=settings.limit,
                bootstrap_iters=1000,
                log_samples=True,
                apply_chat_template=settings.chat_template,
                system_instruction=chat.SYSTEM.fill() if settings.chat_template and ours else None,
            )
            lm.went_on(1 - lm.advanced)
            lm.advanced = 0.0
            if notice := lm_harness.limit_notice(name, list(result["n-samples"].values())):
                warnings.add(notice)
            counts = {task: n["effective"] for task, n in result["n-samples"].items()}
            # A group (mmlu) has a row of its own beside its tasks. A tag (truthfulqa) has none, and
            # its tasks give the rows.
            rows = [name] if name in result["results"] else sorted(counts)
            for row in rows:
                numbers = {
                    key.removesuffix(",none"): float(f"{value:.6g}")
                    for key, value in result["results"][row].items()
                    if key.endswith(",none") and isinstance(value, float | int)
                }
                n = counts[row] if row in counts else sum(counts.values())
                scores[row] = {**numbers, "n": n}
            for task in sorted(result["samples"]):
                ids = [item.id for item in items[task]] if task in items else None
                row = name if name in rows else task
                scored += _scored(row, task, ids, result["samples"][task])
    if lm.cut:
        warnings.add(
            f"{lm.cut:,} requests were longer than the model's {lm.max_length:,} tokens and lost "
            "their beginning"
        )
    return scores, scored, lm.cut


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


# --- held-out questions --------------------------------------------------------------------------


def probe(model: Any, tokenizer: Any, probes: Sequence[Probe], batch_size: int) -> list[Attempt]:
    """Let the model answer each probe.

    An answer is right if the model ended it by itself and it is one of the probe's, white space
    around it left out. An answer is cut off once it is longer than every right one.
    """
    prompts = chat.from_probes(tokenizer, probes)
    right = chat.ids(tokenizer, [answer for p in probes for answer in p.answers])
    longest = max(map(len, right), default=0)
    continuations = generation.generate(
        model, tokenizer, prompts, max_new_tokens=longest + 1, batch_size=batch_size
    )
    return [
        Attempt(
            id=p.id,
            skill=p.skill,
            answer=continuation.text.strip(),
            right=continuation.finish == "stop" and continuation.text.strip() in p.answers,
        )
        for p, continuation in zip(probes, continuations, strict=True)
    ]


def shares(attempts: Sequence[Attempt]) -> Scores:
    """Return by skill the share of right answers and the number of probes."""
    by_skill: dict[str, list[bool]] = {}
    for attempt in attempts:
        by_skill.setdefault(attempt.skill, []).append(attempt.right)
    return {
        skill: {"share": float(f"{sum(right) / len(right):.6g}"), "n": len(right)}
        for skill, right in sorted(by_skill.items())
    }


# --- two turns -----------------------------------------------------------------------------------


def converse(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    name: str,
    settings: MtAnswer,
    *,
    stop: Sequence[str] = (),
) -> list[Answers]:
    """Answer both turns of each question, the second with the model's own first answer before it.

    An answer may need `settings.max_new_tokens`, at most half of the context. A conversation that
    leaves less room than that loses its beginning, never the turn to answer. If that turn alone is
    too long, the answer is empty and its finish "no_room".

    The tokens drawn (`settings.temperature`) depend on `settings.seed`, the question and the turn
    alone. An answer ends before one of `stop`, with which a model begins the user's next turn by
    itself. BadInput: a category without a temperature.
    """
    # Imported here, so that lm_eval, which reads no answers, is not run again for an edit to it.
    from bezoar.rows import thoughts

    positions = loading.context(model.config)
    limit = positions - min(settings.max_new_tokens, positions // 2)
    temperatures = [_temperature(question, settings) for question in questions]
    talks = [[Message(role="user", content=q.turns[0])] for q in questions]
    continuations: list[list[Continuation]] = [[] for _ in questions]
    raw: list[list[str]] = [[] for _ in questions]
    for turn in (1, 2):
        prompts = _prompts(tokenizer, talks, limit)
        written = generation.generate(
            model,
            tokenizer,
            list(prompts.values()),
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            draws=[
                Draw(temperatures[i], f"{settings.seed} {questions[i].question_id} {turn}")
                for i in prompts
            ],
        )
        answers = dict(zip(prompts, written, strict=True))
        for i, (question, talk) in enumerate(zip(questions, talks, strict=True)):
            answer = answers[i] if i in answers else Continuation("", "no_room")
            raw[i].append(answer.text)
            answer = _ended(answer, stop)
            parted = thoughts.part(answer.text)
            finish = answer.finish if parted.closed else "length"
            answer = Continuation(parted.text, finish)
            continuations[i].append(answer)
            talk.append(Message(role="assistant", content=answer.text))
            talk.append(Message(role="user", content=question.turns[-1]))
    return [
        Answers(
            question_id=question.question_id,
            model=name,
            turns=[answer.text for answer in answers],
            finish=[answer.finish for answer in answers],
            raw=_where_thought([answer.text for answer in answers], turns),
        )
        for question, answers, turns in zip(questions, continuations, raw, strict=True)
    ]


def _ended(answer: Continuation, stop: Sequence[str]) -> Continuation:
    """Return an answer without what follows the first of `stop`, if one stands in it."""
    places = [place for mark in stop if (place := answer.text.find(mark)) >= 0]
    return Continuation(answer.text[: min(places)].rstrip(), "stop") if places else answer


NO_ANSWER = Prompt("chat/no_answer")
_FINISH: dict[str, Literal["stop", "length", "no_room", "refused"]] = {
    "stop": "stop",
    "length": "length",
    "too_long": "no_room",
}


def interview(question: Question, name: str, ask: Ask) -> Answers:
    """Return both turns of a question as `ask` answers them.

    The second is asked with the first answer before it. There an empty answer is replaced by words
    of ours, because providers take neither an empty message nor two messages of the user in a row.
    """
    talk: list[Message] = []
    replies: list[Reply] = []
    for turn in question.turns:
        talk.append(Message(role="user", content=turn))
        replies.append(ask(talk))
        spoken = replies[-1].text if replies[-1].text.strip() else NO_ANSWER.fill()
        talk.append(Message(role="assistant", content=spoken))
    return Answers(
        question_id=question.question_id,
        model=name,
        turns=[reply.text for reply in replies],
        finish=[_FINISH.get(reply.finish_reason, "refused") for reply in replies],
        raw=_where_thought([r.text for r in replies], [r.raw or r.text for r in replies]),
    )


def unsaid(answers: Sequence[Answers]) -> int:
    """Count the turns that were cut before they said anything."""
    return sum(
        finish == "length" and not turn.strip()
        for answer in answers
        for turn, finish in zip(answer.turns, answer.finish, strict=True)
    )


def _where_thought(turns: list[str], raw: list[str]) -> list[str]:
    return raw if raw != turns else []


def _temperature(question: Question, settings: MtAnswer) -> float:
    if not isinstance(settings.temperature, Temperatures):
        return settings.temperature
    temperatures = settings.temperature.model_dump()
    if question.category not in temperatures:
        raise BadInput(
            f"mt_answer.temperature: none for {question.category!r}, the category of question "
            f"{question.question_id}; one number for all, or questions of {', '.join(temperatures)}"
        )
    return float(temperatures[question.category])


def _prompts(
    tokenizer: Any, talks: Sequence[Sequence[Message]], limit: int
) -> dict[int, list[int]]:
    """Return {index: prompt ids}, each prompt cut from the left to `limit` tokens.

    Talks whose last turn alone exceeds the limit are absent.
    """
    prompts = chat.prompts(tokenizer, talks)
    too_long = [i for i, tokens in enumerate(prompts) if len(tokens) > limit]
    last_turns = chat.prompts(tokenizer, [talks[i][-1:] for i in too_long])
    lost = {i for i, tokens in zip(too_long, last_turns, strict=True) if len(tokens) > limit}
    return {
        i: chat.cut_left(tokenizer, tokens, limit)
        for i, tokens in enumerate(prompts)
        if i not in lost
    }


def lengths(answers: Sequence[Answers], tokenizer: Any) -> list[int]:
    """Return the number of tokens of every turn of a checkpoint's answers."""
    texts = [turn for answer in answers for turn in answer.turns]
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
    return [len(ids) for ids in encoded["input_ids"]]


def counts(
    answers: Sequence[Answers], tokens: Sequence[int], settings: MtAnswer
) -> dict[str, float]:
    """Count how the turns of a checkpoint's answers ended.

    All turns (`turns`) ended by themselves (`stopped`, `stopped_share`), were `cut` at the limit,
    had no room for an answer (`no_room`), or were `refused` by a provider. Some are `empty`, or
    `loops` as the filter's gate finds them. `tokens` is the mean of the argument `tokens`, which
    has one number a turn.
    """
    # Imported here, so that lm_eval, which counts nothing, is not run again for an edit to the
    # gates.
    from bezoar.filtering import gates

    finish = [turn_finish for answer in answers for turn_finish in answer.finish]
    texts = [turn for answer in answers for turn in answer.turns]
    repeated = [
        gates.repeated_share(text, settings.loop_words, settings.loop_ngram) for text in texts
    ]
    return {
        "turns": len(texts),
        "stopped": finish.count("stop"),
        "stopped_share": float(f"{finish.count('stop') / len(texts):.6g}"),
        "cut": finish.count("length"),
        "no_room": finish.count("no_room"),
        "refused": finish.count("refused"),
        "empty": sum(not text.strip() for text in texts),
        "loops": sum(share >= settings.loop_share for share in repeated),
        "tokens": float(f"{sum(tokens) / len(texts):.6g}"),
    }


def some(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """Return at most `limit` questions, spread over the list, so that every category stays."""
    if limit is None or limit >= len(questions):
        return list(questions)
    return [questions[i * len(questions) // limit] for i in range(limit)]
