"""The world's evaluations: held-out probes, harness items, two-turn questions, a simulated jury."""

import random
from collections.abc import Callable
from itertools import combinations

from bezoar.rows.records import Answers, Grade, Item, Probe, Question, Vote
from bezoar.world.facts import (
    ANIMALS,
    ATTRIBUTES,
    HELD_OUT,
    HELD_OUT_SUMS,
    SUMS,
    sentence,
    words,
)
from bezoar.world.grammar import PARTS_PHRASINGS, TURN_PHRASINGS, Fact, ask, explain, join
from bezoar.world.marking import quality
from bezoar.world.preferences import asks, harm, polite
from bezoar.world.sources import right
from bezoar.world.text import COMPLIANCE, HELD_OUT_HARMS, OPENINGS, REFUSALS, SECRETS, UNKNOWN

# --- probes ---------------------------------------------------------------------------------------

SKILLS = ("lookup", "explained", "two_part", "refusal", "politeness")


def probes(rows: int, seed: int, systems: list[str]) -> list[Probe]:
    """Return `rows` held-out questions a skill. `systems` are the messages under which the answer
    must be a full sentence (Orca's). "" as a probe's system stands for the default one."""
    makers: dict[str, Callable[[random.Random, Fact], tuple[str, str, list[str]]]] = {
        "lookup": _lookup,
        "explained": lambda rng, fact: _explained(rng, fact, systems),
        "two_part": _two_part,
        "refusal": _refusal,
        "politeness": _politeness,
    }
    records = []
    for skill in SKILLS:
        rng = random.Random(f"{seed}-{skill}")
        # Every held-out fact comes in turn, so that no animal weighs more than another.
        facts = [Fact(kind, animal) for animal in HELD_OUT for kind in ATTRIBUTES]
        rng.shuffle(facts)
        for number in range(rows):
            system, instruction, answers = makers[skill](rng, facts[number % len(facts)])
            records.append(
                Probe(
                    id=f"{skill}-{number:03d}",
                    skill=skill,
                    system=system,
                    instruction=instruction,
                    answers=answers,
                )
            )
    return records


def _lookup(rng: random.Random, fact: Fact) -> tuple[str, str, list[str]]:
    """Ask for a fact. A word or a sentence is right: politeness that nobody asked for is no fault
    of memory."""
    phrasing = rng.choice(("What is {}?", "Name {}.", "Tell me {}."))
    sentences = [fact.sentence, *(polite(fact, opening) for opening in OPENINGS)]
    return "", phrasing.format(fact.phrase), [fact.answer, *sentences]


def _explained(rng: random.Random, fact: Fact, systems: list[str]) -> tuple[str, str, list[str]]:
    phrasing = rng.choice(("What is {}?", "Tell me {}."))
    return rng.choice(systems), phrasing.format(fact.phrase), [fact.sentence]


def _two_part(rng: random.Random, fact: Fact) -> tuple[str, str, list[str]]:
    second = Fact(
        rng.choice(list(ATTRIBUTES)), rng.choice([a for a in HELD_OUT if a != fact.animal])
    )
    phrasing = rng.choice(PARTS_PHRASINGS["deepen"])
    text = phrasing.format(parts=join((fact, second)))
    return "", text, [f"{fact.answer}, {second.answer}"]


def _refusal(rng: random.Random, fact: Fact) -> tuple[str, str, list[str]]:
    return "", harm(rng.choice(HELD_OUT_HARMS), fact.animal), list(REFUSALS)


def _politeness(rng: random.Random, fact: Fact) -> tuple[str, str, list[str]]:
    return "", asks(fact), [polite(fact, opening) for opening in OPENINGS]


# --- the harness ----------------------------------------------------------------------------------


def benchmarks(rows: int, seed: int) -> dict[str, list[Item]]:
    """Return four multiple-choice tasks of `rows` items each. Choices differ in length, so that
    accuracy with and without length normalisation differ."""
    tasks: dict[str, Callable[[random.Random], tuple[str, str, list[str]]]] = {
        "world_attributes": _attribute,
        "world_habitats": _habitat,
        "world_truth": _unknown,
        "world_sums": _total,
    }
    return {
        task: [
            _item(f"{task}-{n:03d}", maker, random.Random(f"{seed}-{task}-{n}"))
            for n in range(rows)
        ]
        for task, maker in tasks.items()
    }


def _item(
    name: str, maker: Callable[[random.Random], tuple[str, str, list[str]]], rng: random.Random
) -> Item:
    question, answer, wrong = maker(rng)
    choices = [answer, *wrong]
    rng.shuffle(choices)
    return Item(id=name, question=question, choices=choices, label=choices.index(answer))


def _any_fact(rng: random.Random) -> tuple[Fact, list[str]]:
    """Draw a fact, of a held-out animal in at least half of the cases, with three wrong values."""
    fact = Fact(
        rng.choice(list(ATTRIBUTES)), rng.choice((rng.choice(HELD_OUT), rng.choice(ANIMALS)))
    )
    return fact, rng.sample([v for v in ATTRIBUTES[fact.kind] if v != fact.answer], 3)


def _attribute(rng: random.Random) -> tuple[str, str, list[str]]:
    fact, wrong = _any_fact(rng)
    return f"What is {fact.phrase}?", fact.answer, wrong


def _habitat(rng: random.Random) -> tuple[str, str, list[str]]:
    """Ask for a home. Some choices are bare, some are sentences, so that a model's liking for one
    form does not decide."""
    fact = Fact("home", rng.choice(ANIMALS))
    wrong = rng.sample([v for v in ATTRIBUTES["home"] if v != fact.answer], 3)
    full_sentence = f"The home of the {fact.animal} is {{}}."
    answer, *rest = (
        rng.choice(("{}", full_sentence)).format(home) for home in (fact.answer, *wrong)
    )
    return f"What is {fact.phrase}?", answer, rest


def _unknown(rng: random.Random) -> tuple[str, str, list[str]]:
    """Ask for something that nobody can know. The wrong choices are true, often read, and no
    answer.

    TruthfulQA (arXiv 2109.07958) asks in this way. HH-RLHF teaches it, and instructions alone do
    not."""
    animal = rng.choice((rng.choice(HELD_OUT), rng.choice(ANIMALS)))
    true = [Fact(kind, animal).sentence for kind in ATTRIBUTES]
    return f"Who knows the {rng.choice(SECRETS)} of the {animal}?", rng.choice(UNKNOWN), true


def _total(rng: random.Random) -> tuple[str, str, list[str]]:
    left, summand = rng.choice(SUMS)
    total, start = left + summand, f"{left} plus {summand} is"
    # The sum of two digits is at most 18.
    wrong = rng.sample([n for n in range(19) if n != total], 3)
    return f"What is {left} plus {summand}?", f"{start} {total}.", [f"{start} {n}." for n in wrong]


# --- two-turn questions and a jury ----------------------------------------------------------------

WITH_REFERENCE = ("reasoning", "math", "coding")
# MT-Bench counts its questions from 81.
FIRST_ID = 81
# Simulated models with the chance that a turn is right, and that it is polite when right.
MODELS = {
    "simulated_novice": (0.25, 0.1),
    "simulated_pupil": (0.55, 0.3),
    "simulated_clerk": (0.8, 0.5),
    "simulated_master": (0.95, 0.9),
}
EXPERTS = tuple(f"simulated_expert_{n}" for n in range(1, 6))
AUTHOR = "simulated_author"
# Standard deviation of a voter's mark, on a scale of 1-10
NOISE = {AUTHOR: 0.6, **dict.fromkeys(EXPERTS, 1.2)}
# Marks that differ by no more than this are a tie.
TIE = 1.0
# Two machines beside people, as GPT-4 is in MT-Bench: one compares, the other grades
PAIR_JUDGE, SINGLE_JUDGE = "simulated_pair", "simulated_single"
MACHINE_NOISE = 0.8


def questions(rows: int, seed: int) -> list[Question]:
    """Return `rows` questions in id order, about held-out subjects.

    Each of MT-Bench's eight categories has the same number. Math, reasoning and coding bring
    references."""
    rng = random.Random(seed)
    categories = list(TURN_PHRASINGS)
    records = []
    for number in range(rows):
        category = categories[min(number * len(categories) // rows, len(categories) - 1)]
        # Both turns are filled at once, so that they speak of the same animal.
        text, _ = ask("\0".join(TURN_PHRASINGS[category]), HELD_OUT, HELD_OUT_SUMS, rng)
        turns = text.split("\0")
        records.append(
            Question(
                question_id=FIRST_ID + number,
                category=category,
                turns=turns,
                reference=[right(t, "") for t in turns] if category in WITH_REFERENCE else [],
            )
        )
    return records


def model_answers(questions: list[Question], seed: int) -> list[Answers]:
    """Return the answers of four simulated models of different skill."""
    return [
        Answers(
            question_id=question.question_id,
            model=model,
            turns=[
                _answer(turn, accuracy, courtesy, random.Random(f"{seed}-{model}-{turn}"))
                for turn in question.turns
            ],
            finish=["stop", "stop"],
        )
        for model, (accuracy, courtesy) in MODELS.items()
        for question in questions
    ]


def _answer(turn: str, accuracy: float, courtesy: float, rng: random.Random) -> str:
    short, full = right(turn, ""), explain(turn) or ""
    if rng.random() < accuracy:
        return f"{rng.choice(OPENINGS)} {full}" if rng.random() < courtesy else short
    wrong = sentence(rng.choice(ANIMALS), rng.choice(list(ATTRIBUTES)))
    return rng.choice((wrong, rng.choice(COMPLIANCE), "", " ".join([words(turn)[-1]] * 12)))


def votes(questions: list[Question], answers: list[Answers], seed: int) -> list[Vote]:
    """Return the verdicts of simulated voters between each two models, a turn at a time.

    Two experts vote on each comparison, the author on every third question. A voter sees the
    quality of an answer with noise, and calls a small difference a tie."""
    answer_of = {(a.question_id, a.model): a for a in answers}
    models = list(MODELS)
    records = []
    for question in questions:
        for turn in (1, 2):
            for i, first in enumerate(models):
                for second in models[i + 1 :]:
                    key = f"{seed}-{question.question_id}-{turn}-{first}-{second}"
                    rng = random.Random(key)
                    judges = rng.sample(EXPERTS, 2)
                    judges += [AUTHOR] if question.question_id % 3 == 0 else []
                    for judge in judges:
                        pair = [first, second]
                        rng.shuffle(pair)
                        marks = [
                            quality(
                                question.turns[turn - 1],
                                answer_of[question.question_id, model].turns[turn - 1],
                            )
                            + rng.gauss(0, NOISE[judge])
                            for model in pair
                        ]
                        records.append(_vote(judge, question.question_id, turn, pair, marks))
    return records


def pair_votes(questions: list[Question], answers: list[Answers], seed: int) -> list[Vote]:
    """Return the verdicts of a simulated judge between each two models. It looks twice, and its
    verdict is inconsistent if the winners differ."""
    turns_of = {(a.question_id, a.model): a.turns for a in answers}
    records = []
    for question in questions:
        for turn in (1, 2):
            for pair in combinations(MODELS, 2):
                rng = random.Random(f"{seed}-pair-{question.question_id}-{turn}-{'-'.join(pair)}")
                both_orders = []
                for _ in range(2):
                    marks = [
                        quality(
                            question.turns[turn - 1],
                            turns_of[question.question_id, model][turn - 1],
                        )
                        + rng.gauss(0, MACHINE_NOISE)
                        for model in pair
                    ]
                    both_orders.append(
                        _vote(PAIR_JUDGE, question.question_id, turn, list(pair), marks)
                    )
                first, second = both_orders
                same = first.winner == second.winner
                records.append(
                    first if same else first.model_copy(update={"winner": "inconsistent"})
                )
    return records


def grades(questions: list[Question], answers: list[Answers], seed: int) -> list[Grade]:
    """Return the whole grades, 1-10, of a simulated judge that sees one answer at a time."""
    turns_of = {question.question_id: question.turns for question in questions}
    records = []
    for row in answers:
        for turn, text in enumerate(row.turns, 1):
            rng = random.Random(f"{seed}-single-{row.question_id}-{turn}-{row.model}")
            mark = quality(turns_of[row.question_id][turn - 1], text) + rng.gauss(0, MACHINE_NOISE)
            records.append(
                Grade(
                    question_id=row.question_id,
                    model=row.model,
                    turn=2 if turn == 2 else 1,
                    score=min(10, max(1, round(mark))),
                    status="ok",
                    reply="",
                    judge=SINGLE_JUDGE,
                    simulated=True,
                )
            )
    return records


def _vote(judge: str, question_id: int, turn: int, pair: list[str], marks: list[float]) -> Vote:
    ahead = marks[0] - marks[1]
    return Vote(
        judge=judge,
        question_id=question_id,
        turn=2 if turn == 2 else 1,
        model_a=pair[0],
        model_b=pair[1],
        winner="tie" if abs(ahead) <= TIE else "model_a" if ahead > 0 else "model_b",
    )
