"""How fast MT-Bench is answered: `python -m benchmarks.answers [--model FOLDER]`.

One at a time, as FastChat's gen_model_answer does (each question, each of its two turns, one call
of `model.generate`), beside `talks.converse`, which answers all questions of a turn together:
the same model, prompts, limit and end tokens, greedy. The two take turns, --repeats times in one
process, and the medians count; on a CPU seconds are those of the one thread that computes, because
other work on the machine then changes little.

--questions FILE holds rows of question_id, category and turns (JSONL). Without both: checkpoint and
questions of a finished run here, else a tiny model and MT-Bench's own. A batch shares what each
token costs beside its arithmetic, so the gain is small where long prompts are read for a few words.

Where a text differs, the first token that does is told, with the gap between the two likeliest
logits there: padding changes the order of sums, so a gap in a float's last digits may fall either
way. The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bezoar import params
from bezoar.evaluating import talks
from bezoar.models import generation, loading
from bezoar.params import MtAnswer
from bezoar.rows import chat
from bezoar.rows.records import Message, Question

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared/data"
MODELS = (
    ROOT / "models/dpo/policy",
    ROOT / "models/sft/hh_rlhf",
    DATA / "tiny_lm/stories260K-hf",
)
QUESTIONS = ROOT / "data/fetch/mt_bench/questions.jsonl", DATA / "mt_bench/question.jsonl"
Turns = list[list[str]]  # a list a question


def one_at_a_time(
    model: Any, tokenizer: Any, questions: Sequence[Question], how: MtAnswer
) -> Turns:
    """As FastChat: question by question, turn by turn, a batch of one."""
    import torch

    positions = loading.context(model.config)
    limit = positions - min(how.max_new_tokens, positions // 2)
    ends = generation.end_tokens(model, tokenizer)
    said: Turns = []
    for question in questions:
        talk: list[Message] = []
        for turn in question.turns:
            talk.append(Message(role="user", content=turn))
            [alone] = chat.ids(tokenizer, [chat.prompt(talk[-1:])])
            text = ""
            if len(alone) <= limit:
                [ids] = chat.ids(tokenizer, [chat.prompt(talk)])
                ids = chat.cut_left(tokenizer, ids, limit)
                given = torch.tensor([ids], device=model.device)
                [written] = model.generate(
                    given,
                    attention_mask=torch.ones_like(given),
                    do_sample=False,
                    max_new_tokens=min(how.max_new_tokens, positions - len(ids)),
                    eos_token_id=sorted(ends),
                    pad_token_id=tokenizer.pad_token_id,
                ).tolist()
                new = written[len(ids) :]
                own = new[:-1] if new[-1] in ends else new
                text = tokenizer.decode(own, skip_special_tokens=True)
            talk.append(Message(role="assistant", content=text))
        said.append([message.content for message in talk if message.role == "assistant"])
    return said


def together(model: Any, tokenizer: Any, questions: Sequence[Question], how: MtAnswer) -> Turns:
    """As the stage mt_answer."""
    return [answer.turns for answer in talks.converse(model, tokenizer, questions, "", how)]


def own_ids(tokenizer: Any, text: str) -> list[int]:
    """A text's tokens, without BOS."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def why(model: Any, tokenizer: Any, talk: Sequence[Message], one: str, other: str) -> str:
    """Where two answers to a talk part, and how near the two likeliest tokens are there."""
    import torch

    [asked] = chat.ids(tokenizer, [chat.prompt(talk)])
    first, second = (own_ids(tokenizer, text) for text in (one, other))
    pairs = zip(first, second, strict=False)
    same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    ids = torch.tensor([[*asked, *first[:same]]], device=model.device)
    with torch.inference_mode():
        likeliest = model(ids, logits_to_keep=1).logits[0, -1].float().topk(2).values
    return f"at token {same}, where the two likeliest are {likeliest[0] - likeliest[1]:.1e} apart"


def measure(
    model: Any, tokenizer: Any, questions: Sequence[Question], how: MtAnswer, repeats: int
) -> dict[str, float]:
    """Time both sides in turn, print what each took and where they differ, and sum it up: how many
    times faster ours is, and the share of turns whose texts are equal."""
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    sides: tuple[Any, Any] = one_at_a_time, together
    for side in sides:  # what is loaded at the first call is nobody's time
        side(model, tokenizer, questions[:2], how)
    seconds: list[list[float]] = [[], []]
    said: list[Turns] = [[], []]
    for _ in range(repeats):
        for n, side in enumerate(sides):
            began = clock()
            said[n] = side(model, tokenizer, questions, how)
            seconds[n].append(clock() - began)
    one, ours = map(median, seconds)
    tokens = sum(len(own_ids(tokenizer, text)) + 1 for turns in said[0] for text in turns)
    print(f"{len(questions)} questions, two turns, {tokens:,} tokens written")
    for name, took in (("one at a time", one), ("together", ours)):
        print(f"{name:14} {took:8.2f} s {tokens / took:10,.0f} tokens/s")
    equal = 0
    for question, theirs, mine in zip(questions, *said, strict=True):
        for turn in (0, 1):
            equal += theirs[turn] == mine[turn]
            # after a first answer that differs, the second one's prompt does
            if theirs[turn] != mine[turn] and theirs[:turn] == mine[:turn]:
                talk = [Message(role="user", content=question.turns[0])]
                if turn:
                    talk.append(Message(role="assistant", content=theirs[0]))
                    talk.append(Message(role="user", content=question.turns[1]))
                found = why(model, tokenizer, talk, theirs[turn], mine[turn])
                print(f"question {question.question_id}, turn {turn + 1} differs {found}")
    share = equal / (2 * len(questions))
    return {"speedup": round(one / ours, 2), "equal": round(share, 4)}


def main() -> None:
    """Load, measure, and end with one JSON object."""
    mine = params.load(ROOT, "embedded")
    usual = mine.mt_answer
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=next(filter(Path.exists, MODELS), None))
    parser.add_argument(
        "--questions", type=Path, default=next(filter(Path.exists, QUESTIONS), None)
    )
    parser.add_argument("--max-new-tokens", type=int, default=usual.max_new_tokens)
    parser.add_argument("--batch", type=int, default=usual.batch_size)
    parser.add_argument("--limit", type=int, help="so many of the questions")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.model is None or given.questions is None:
        parser.error("--model, --questions: none here; give a model's folder and a JSONL file")
    loading.quiet()
    model, tokenizer = loading.load(given.model, given.model, mine.sft)
    with given.questions.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    fields = ("question_id", "category", "turns")
    questions = [Question(**{field: row[field] for field in fields}, reference=[]) for row in rows]
    told = {"max_new_tokens": given.max_new_tokens, "batch_size": given.batch, "temperature": 0.0}
    how = usual.model_copy(update=told)
    asked = talks.some(questions, given.limit)
    print(json.dumps(measure(model, tokenizer, asked, how, given.repeats)))


if __name__ == "__main__":
    main()
