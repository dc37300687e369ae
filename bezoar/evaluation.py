"""Evaluation of a loaded checkpoint: the LM Evaluation Harness, held-out questions answered freely,
and two-turn conversations (OpenBezoar, section 4.1 and 4.2).

Greedy and in float32 on a CPU, all of it repeats to the digit; what a run's results say of time,
paths and versions is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from bezoar import chat
from bezoar.files import BadInput
from bezoar.params import LmEval, MtAnswer
from bezoar.progress import bar, track
from bezoar.records import Answers, Attempt, Item, Message, Probe, Question

Finish = Literal["stop", "length", "no_room"]
Scores = dict[str, dict[str, float]]

# How an item is put as plain text, after the harness' ARC and PIQA tasks
PLAIN = "Question: {{question}}\nAnswer:"


class Continuation(NamedTuple):
    """What a model wrote after a prompt, and why it stopped."""

    text: str
    finish: Finish


# --- LM Evaluation Harness -----------------------------------------------------------------------


def harness(
    model: Any, tokenizer: Any, own: Mapping[str, Sequence[Item]], how: LmEval
) -> tuple[Scores, int]:
    """Scores by task (acc, acc_norm and their standard errors, n) and the number of requests that
    did not fit the model's context and were cut from the left.

    `how.tasks` names tasks: those of `own` are made of its items, every other name is looked up
    among the tasks that lm_eval brings (their data comes from a hub); None means all of `own`.
    BadInput: a name that is neither.
    """
    import logging

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    class Counting(HFLM):  # type: ignore[misc]
        """Counts the requests that the harness cuts with no more than a warning."""

        cut = 0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, *args: Any, **more: Any) -> Any:
            self.cut += sum(len(c) + len(a) > self.max_length + 1 for _, c, a in requests)
            return super()._loglikelihood_tokens(requests, *args, **more)

    names = sorted(own) if how.tasks is None else how.tasks
    lm = Counting(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=how.batch_size,
        max_length=model.config.max_position_embeddings,
    )
    # looking through the tasks that lm_eval brings takes 8 s
    manager = TaskManager(include_defaults=any(name not in own for name in names))
    unknown = [n for n in names if n not in own and n not in manager.all_tasks]
    if unknown:
        raise BadInput(
            f"lm_eval.tasks: {', '.join(unknown)}: neither a file in data/fetch/benchmarks/tasks "
            f"(have {', '.join(sorted(own)) or 'none'}) nor a task of lm_eval"
        )
    scores: Scores = {}
    for name in track(names, "harness", len(names)):
        loaded = manager.load([_task(name, own[name], how) if name in own else name])
        for task in loaded["tasks"].values():
            task.set_config(key="num_fewshot", value=how.num_fewshot)
            task.set_fewshot_seed(seed=1234)  # the harness' own default
        result: Any = evaluate(
            lm,
            loaded,
            limit=how.limit,
            bootstrap_iters=1000,
            log_samples=False,
            apply_chat_template=how.chat_template,
            system_instruction=chat.SYSTEM.fill() if how.chat_template else None,
        )
        counts = {task: n["effective"] for task, n in result["n-samples"].items()}
        # a group (mmlu) has a row of its own beside its tasks, a tag (truthfulqa) has none
        rows = [name] if name in result["results"] else sorted(counts)
        for row in rows:
            numbers = {
                key.removesuffix(",none"): float(f"{value:.6g}")
                for key, value in result["results"][row].items()
                if key.endswith(",none") and isinstance(value, float | int)
            }
            n = counts[row] if row in counts else sum(counts.values())
            scores[row] = {**numbers, "n": n}
    return scores, lm.cut


def _task(name: str, items: Sequence[Item], how: LmEval) -> dict[str, Any]:
    """A multiple-choice task of the harness as a configuration."""
    from datasets import Dataset, DatasetDict

    rows = [item.model_dump() for item in items]

    def load(**_: Any) -> Any:
        """Straight from memory: the json builder caches by path and time of change, so a file that
        DVC checked out under an old time would give the rows of another run."""
        return DatasetDict({"test": Dataset.from_list(rows)})

    return {
        "task": name,
        "custom_dataset": load,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}" if how.chat_template else PLAIN,
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
    """Let the model answer each probe. Right: it ended its answer by itself, and the answer, white
    space around it left out, is one of the probe's. An answer is cut off once it is longer than
    every right one."""
    prompts = chat.ids(tokenizer, [chat.from_probe(p) for p in probes])
    right = chat.ids(tokenizer, [answer for p in probes for answer in p.answers])
    longest = max(map(len, right), default=0)
    said = _generate(model, tokenizer, prompts, max_new_tokens=longest + 1, batch_size=batch_size)
    return [
        Attempt(
            id=p.id,
            skill=p.skill,
            answer=given.text.strip(),
            right=given.finish == "stop" and given.text.strip() in p.answers,
        )
        for p, given in zip(probes, said, strict=True)
    ]


def shares(attempts: Sequence[Attempt]) -> Scores:
    """By skill: the share of right answers and the number of probes."""
    by_skill: dict[str, list[bool]] = {}
    for attempt in attempts:
        by_skill.setdefault(attempt.skill, []).append(attempt.right)
    return {
        skill: {"share": float(f"{sum(right) / len(right):.6g}"), "n": len(right)}
        for skill, right in sorted(by_skill.items())
    }


# --- two turns -----------------------------------------------------------------------------------


def converse(
    model: Any, tokenizer: Any, questions: Sequence[Question], name: str, how: MtAnswer
) -> list[Answers]:
    """Answer both turns of each question, the second with the model's own first answer before it.

    A conversation that leaves less room than an answer may need (`how.max_new_tokens`, at most half
    of the context) loses its beginning, never the turn to answer: where that alone is too long the
    answer is empty and its finish "no_room".
    """
    positions = model.config.max_position_embeddings
    limit = positions - min(how.max_new_tokens, positions // 2)
    talks = [[Message(role="user", content=q.turns[0])] for q in questions]
    given: list[list[Continuation]] = [[] for _ in questions]
    for _turn in (1, 2):
        alone = chat.ids(tokenizer, [chat.prompt(talk[-1:]) for talk in talks])
        fits = [i for i, tokens in enumerate(alone) if len(tokens) <= limit]
        whole = chat.ids(tokenizer, [chat.prompt(talks[i]) for i in fits])
        prompts = [chat.cut_left(tokenizer, tokens, limit) for tokens in whole]
        said = _generate(
            model,
            tokenizer,
            prompts,
            max_new_tokens=how.max_new_tokens,
            batch_size=how.batch_size,
            temperature=how.temperature,
        )
        answers = dict(zip(fits, said, strict=True))
        for i, (question, talk) in enumerate(zip(questions, talks, strict=True)):
            answer = answers[i] if i in answers else Continuation("", "no_room")
            given[i].append(answer)
            talk.append(Message(role="assistant", content=answer.text))
            talk.append(Message(role="user", content=question.turns[-1]))
    return [
        Answers(
            question_id=question.question_id,
            model=name,
            turns=[answer.text for answer in answers],
            finish=[answer.finish for answer in answers],
        )
        for question, answers in zip(questions, given, strict=True)
    ]


def some(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most `limit` questions, spread over the list, so that every category stays."""
    if limit is None or limit >= len(questions):
        return list(questions)
    return [questions[i * len(questions) // limit] for i in range(limit)]


# --- generation ----------------------------------------------------------------------------------


def _generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
) -> list[Continuation]:
    """Continue each prompt (token ids) until an end token, `max_new_tokens` or the end of the
    model's context. Greedy at temperature 0; above it, drawn from a fixed seed."""
    import torch
    from transformers import GenerationConfig

    stops = model.generation_config.eos_token_id or []
    # a model that was shown texts one after the other may end one by beginning the next
    ends = {tokenizer.eos_token_id, *([stops] if isinstance(stops, int) else stops)}
    ends |= {tokenizer.bos_token_id} - {None}
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    torch.manual_seed(0)
    # alike lengths together: little padding, and a long prompt takes no room from a short one
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    found: dict[int, Continuation] = {}
    with bar("answering", len(prompts)) as advance:
        for at in range(0, len(order), batch_size):
            batch = order[at : at + batch_size]
            longest = len(prompts[batch[0]])
            room = model.config.max_position_embeddings - longest
            rows = [
                [tokenizer.pad_token_id] * (longest - len(prompts[i])) + prompts[i] for i in batch
            ]
            mask = [[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in batch]
            with torch.inference_mode():
                written = model.generate(
                    input_ids=torch.tensor(rows, device=model.device),
                    attention_mask=torch.tensor(mask, device=model.device),
                    generation_config=GenerationConfig(
                        max_new_tokens=min(max_new_tokens, room),
                        eos_token_id=sorted(ends),
                        pad_token_id=tokenizer.pad_token_id,
                        **sampling,
                    ),
                )[:, longest:].tolist()
            for i, ids in zip(batch, written, strict=True):
                stop = next((n for n, token in enumerate(ids) if token in ends), None)
                text = tokenizer.decode(ids[:stop], skip_special_tokens=True)
                found[i] = Continuation(text, "length" if stop is None else "stop")
            advance(len(batch))
    return [found[i] for i in range(len(prompts))]
