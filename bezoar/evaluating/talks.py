"""Has a checkpoint, or a served model, answer MT-Bench in two turns (OpenBezoar, section 4.2).

Greedy and in float32 on a CPU, answers repeat to the token.
"""

from collections.abc import Sequence
from typing import Any, Literal

from bezoar.filtering import gates
from bezoar.models import generation, loading
from bezoar.models.generation import Continuation, Draw
from bezoar.params import MtAnswer, Temperatures
from bezoar.rows import chat, thoughts
from bezoar.rows.files import BadInput
from bezoar.rows.prompts import Prompt
from bezoar.rows.records import Answers, Ask, Message, Question, Reply
from bezoar.work.results import Results


def converse(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    name: str,
    settings: MtAnswer,
    *,
    stop: Sequence[str] = (),
    results: Results | None = None,
) -> list[Answers]:
    """Answer both turns of each question, the second with the model's own first answer before it.

    An answer may need `settings.max_new_tokens`, at most half of the context. A conversation that
    leaves less room than that loses its beginning, never the turn to answer. If that turn alone is
    too long, the answer is empty and its finish "no_room".

    The tokens drawn (`settings.temperature`) depend on `settings.seed`, the question and the turn
    alone. An answer ends before one of `stop`, with which a model begins the user's next turn by
    itself. `results` keeps each answer of a turn. BadInput: a category without a temperature.
    """
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
            done=results.rows(f"turn_{turn}") if results else None,
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
