"""Two models' answers side by side: which the judge calls better, shown both in both orders (the
MT-Bench paper's pairwise comparison), and how often one beats a baseline (AlpacaEval's win rate).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import fsum
from typing import Any, Literal

from bezoar import verdicts
from bezoar.differences import bootstrap
from bezoar.files import BadInput
from bezoar.prompts import Prompt, fence
from bezoar.records import Answers, Ask, Comparison, Question, Vote

SYSTEM = Prompt("mt_bench/pair_system")
_TURNS: tuple[Literal[1], Literal[2]] = (1, 2)
ROLES = ("model", "baseline")
LEFT_OUT = ("unparsed", "refused", "truncated")
WORTH = {"model": 1.0, "tie": 0.5, "inconsistent": 0.5, "baseline": 0.0}

Pair = tuple[Answers, Answers]  # the model's and the baseline's, to one question
Metrics = dict[str, float | int | None]


def pairs(model: Sequence[Answers], baseline: Sequence[Answers], limit: int | None) -> list[Pair]:
    """Answers of two models to the same questions; at most `limit`, spread over the list, so that
    every category stays. BadInput where they share none."""
    theirs = {answers.question_id: answers for answers in baseline}
    both = [(ours, theirs[ours.question_id]) for ours in model if ours.question_id in theirs]
    if not both:
        raise BadInput(
            "mt_compare: the two checkpoints answered no question in common; mt_answer asks all "
            "of them the same"
        )
    count = len(both) if limit is None else min(limit, len(both))
    return [both[i * len(both) // count] for i in range(count)]


def comparer(
    questions: Mapping[int, Question], with_reference: Sequence[str], ask: Ask
) -> Callable[[Pair], list[Comparison]]:
    """A function from two models' answers to a comparison of either turn; references are those of
    verdicts.grader. An empty answer loses without asking, two of them tie."""

    def compare(pair: Pair) -> list[Comparison]:
        question = questions.get(pair[0].question_id)
        if question is None:
            raise BadInput(
                f"{pair[0].model}: answers question {pair[0].question_id}, which is not among the "
                "questions of data/fetch/mt_bench; fetch@mt_bench writes both"
            )
        wanted = question.category in with_reference
        reference = verdicts.references(question, ask) if wanted else []
        return [_compare(question, pair, reference, turn, ask) for turn in _TURNS]

    return compare


def _compare(
    question: Question, pair: Pair, reference: list[str], turn: Literal[1, 2], ask: Ask
) -> Comparison:
    by_role = dict(zip(ROLES, pair, strict=True))
    found: dict[str, Any] = {
        "question_id": question.question_id,
        "turn": turn,
        **{role: answers.model for role, answers in by_role.items()},
    }
    spoke = [role for role, answers in by_role.items() if answers.turns[turn - 1].strip()]
    if len(spoke) < len(ROLES):
        found |= {"status": "empty_answer", "replies": [], "judge": "rule", "simulated": False}
        return Comparison(**found, winner=spoke[0] if spoke else "tie")
    said, replies = [], []
    for a, b in (ROLES, ROLES[::-1]):
        text = sheet(question, by_role[a], by_role[b], reference, turn)
        choice, status, reply = verdicts.heard(ask, SYSTEM.fill(), text, verdicts.choice)
        replies.append(reply.text)
        said.append({"A": a, "B": b, "C": "tie", None: None}[choice])
        if choice is None:  # whatever the other order gives, the comparison is left out
            break
    return Comparison(
        **found,
        winner=said[0] if said[0] == said[-1] else "inconsistent" if said[-1] else None,
        status=status,
        replies=replies,
        judge=reply.model,
        simulated=reply.simulated,
    )


def sheet(question: Question, a: Answers, b: Answers, reference: list[str], turn: int) -> str:
    """What the judge is shown: turn 1 alone, or both turns with the second to be compared."""
    name = "mt_bench/pair_one_turn" if turn == 1 else "mt_bench/pair_two_turns"
    shown = {
        "question": question.turns,
        "reference": reference,
        "answer_a": a.turns,
        "answer_b": b.turns,
    }
    return Prompt(f"{name}_reference" if reference else name).fill(
        **{
            f"{kind}_{number}": fence(text, *verdicts.SECTIONS, *verdicts.TURNS)
            for kind, texts in shown.items()
            for number, text in enumerate(texts[:turn], 1)
        }
    )


def votes(comparisons: Sequence[Comparison]) -> list[Vote]:
    """What was decided, as votes of the judge `grader`."""
    named = {"model": "model_a", "baseline": "model_b"}
    return [
        Vote.model_validate(
            {
                "judge": "grader",
                "question_id": c.question_id,
                "turn": c.turn,
                "model_a": c.model,
                "model_b": c.baseline,
                "winner": named.get(c.winner, c.winner),
            }
        )
        for c in comparisons
        if c.winner
    ]


def measure(comparisons: Sequence[Comparison], compared: Sequence[Pair], seed: int) -> Metrics:
    """Counts of what the judge said over both turns and of what it left out; `coverage`, the share
    of the turns compared that have a winner or a tie; `win_rate`, by turn too (turn 1 is
    AlpacaEval's), where a tie and what the order decided count half, with a 95 % bootstrap interval
    over questions; mean characters of either side's answers. None where nothing was compared."""
    said = Counter(c.winner for c in comparisons)
    statuses: Counter[str] = Counter(c.status for c in comparisons)
    decided = len(comparisons) - said[None]
    told: Metrics = {
        "wins": said["model"],
        "losses": said["baseline"],
        "ties": said["tie"],
        "inconsistent": said["inconsistent"],
        "empty_answer": statuses["empty_answer"],
        **{status: statuses[status] for status in LEFT_OUT},
        "coverage": decided / (len(_TURNS) * len(compared)) if compared else None,
    }
    for end, turns in (("", _TURNS), ("_turn_1", (1,)), ("_turn_2", (2,))):
        worth = [
            (c.question_id, WORTH[c.winner]) for c in comparisons if c.winner and c.turn in turns
        ]
        low, high = bootstrap(worth, seed) or (None, None)
        told[f"win_rate{end}"] = fsum(w for _, w in worth) / len(worth) if worth else None
        told[f"win_rate{end}_low"], told[f"win_rate{end}_high"] = low, high
    for side, end in ((0, ""), (1, "_baseline")):
        lengths = [len(text) for pair in compared for text in pair[side].turns]
        told[f"characters{end}"] = sum(lengths) / len(lengths) if lengths else None
    return told
