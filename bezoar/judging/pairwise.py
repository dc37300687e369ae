"""Compares two models' answers side by side. The judge sees both in both orders (the MT-Bench
paper's pairwise comparison). The win rate is against a baseline (AlpacaEval's)."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from math import fsum, log, tanh
from statistics import stdev
from typing import Any, Literal, NamedTuple

from bezoar.judging import verdicts
from bezoar.judging.differences import bootstrap, bootstrap_interval
from bezoar.rows.files import BadInput
from bezoar.rows.prompts import Prompt, fence
from bezoar.rows.records import Answers, Ask, Comparison, Question, Vote

SYSTEM = Prompt("mt_bench/pair_system")
_TURNS: tuple[Literal[1], Literal[2]] = (1, 2)
ROLES = ("model", "baseline")
LEFT_OUT = ("unparsed", "refused", "truncated", "too_long", "failed")
WORTH = {"model": 1.0, "tie": 0.5, "inconsistent": 0.5, "baseline": 0.0}
# Ours: a normal prior on phi, of the scale that Gelman et al. (2008) give a standardised predictor,
# so that phi stays finite where the longer answer always wins. AlpacaEval cross-validates its
# penalty, which a few dozen questions do not bear.
RIDGE = 1 / 2.5**2

# The model's and the baseline's answers to one question.
Pair = tuple[Answers, Answers]
Metrics = dict[str, float | int | None]


class Told(NamedTuple):
    """The worth of one turn's comparison to the model, and the number of characters by which its
    answer is longer. `longer` is None where a rule decided, for a rule has no preference for
    length."""

    question_id: int
    worth: float
    longer: int | None


def pairs(model: Sequence[Answers], baseline: Sequence[Answers], limit: int | None) -> list[Pair]:
    """Return the answers of two models to the same questions. They are at most `limit`, spread over
    the list, so that every category stays. BadInput: they have no question in common."""
    theirs = {answers.question_id: answers for answers in baseline}
    shared = [(ours, theirs[ours.question_id]) for ours in model if ours.question_id in theirs]
    if not shared:
        raise BadInput(
            "mt_compare: the two checkpoints answered no question in common; mt_answer asks all "
            "of them the same"
        )
    count = len(shared) if limit is None else min(limit, len(shared))
    return [shared[i * len(shared) // count] for i in range(count)]


def compare_answers(
    pair: Pair,
    questions: Mapping[int, Question],
    with_reference: Collection[int],
    ask: Ask,
    turns: Sequence[Literal[1, 2]] = _TURNS,
) -> list[Comparison]:
    """Return a comparison of two models' answers in each of `turns`. References are as in
    verdicts.grade_answers. An empty answer loses without asking, and two of them tie."""
    question = verdicts.find_question(questions, pair[0])
    judged = [turn for turn in turns if _both_speak(pair, turn)]
    references = verdicts.References()
    if question.question_id in with_reference and judged:
        references = verdicts.references(question, ask, judged[-1])
    return [_compare(question, pair, references, turn, ask) for turn in turns]


def _both_speak(pair: Pair, turn: int) -> bool:
    return all(answers.turns[turn - 1].strip() for answers in pair)


def _compare(
    question: Question, pair: Pair, references: verdicts.References, turn: Literal[1, 2], ask: Ask
) -> Comparison:
    by_role = dict(zip(ROLES, pair, strict=True))
    base: dict[str, Any] = {
        "question_id": question.question_id,
        "turn": turn,
        **{role: answers.model for role, answers in by_role.items()},
    }
    if not _both_speak(pair, turn):
        spoke = [role for role, answers in by_role.items() if answers.turns[turn - 1].strip()]
        base |= {"status": "empty_answer", "replies": [], "judge": "rule", "simulated": False}
        return Comparison(**base, winner=spoke[0] if spoke else "tie")
    winners, replies = [], []
    for a, b in (ROLES, ROLES[::-1]):
        text = sheet(question, by_role[a], by_role[b], references.up_to(turn), turn)
        messages = verdicts.judge_messages(SYSTEM.fill(), text)
        choice, status, reply = verdicts.ask_and_read(ask, messages, verdicts.choice)
        replies.append(reply.text)
        winners.append({"A": a, "B": b, "C": "tie", None: None}[choice])
        # Whatever the other order gives, the comparison is left out.
        if choice is None:
            break
    return Comparison(
        **base,
        # Both orders name the same side, or the order decided, or one reply could not be read.
        winner=winners[0] if winners[0] == winners[-1] else "inconsistent" if winners[-1] else None,
        status=status,
        replies=replies,
        judge=reply.model,
        simulated=reply.simulated,
        reference=references.origin(turn),
    )


def sheet(question: Question, a: Answers, b: Answers, reference: list[str], turn: int) -> str:
    """Return the judge's sheet: turn 1 alone, or both turns with the second to be compared."""
    name = "mt_bench/pair_one_turn" if turn == 1 else "mt_bench/pair_two_turns"
    sections = {
        "question": question.turns,
        "reference": reference,
        "answer_a": a.turns,
        "answer_b": b.turns,
    }
    return Prompt(f"{name}_reference" if reference else name).fill(
        **{
            f"{kind}_{number}": fence(text, *verdicts.SECTIONS, *verdicts.TURNS)
            for kind, texts in sections.items()
            for number, text in enumerate(texts[:turn], 1)
        }
    )


def votes(comparisons: Sequence[Comparison]) -> list[Vote]:
    """Return the comparisons with a result as votes of the judge `grader`."""
    side_of = {"model": "model_a", "baseline": "model_b"}
    return [
        Vote.model_validate(
            {
                "judge": "grader",
                "question_id": c.question_id,
                "turn": c.turn,
                "model_a": c.model,
                "model_b": c.baseline,
                "winner": side_of.get(c.winner, c.winner),
            }
        )
        for c in comparisons
        if c.winner
    ]


def measure(comparisons: Sequence[Comparison], compared: Sequence[Pair], seed: int) -> Metrics:
    """Count the results of both turns, and the comparisons left out by reason.

    `coverage` is the share of the turns compared that have a winner or a tie. `win_rate` is over
    both turns and by turn (turn 1 is AlpacaEval's). A tie counts half there, and so does a
    comparison that the order decided. Its 95 % interval is a bootstrap over questions.
    `win_rate_lc` is that of `length_controlled`. `characters` is the mean length of either side's
    answers. The rest is verdicts.reference_metrics. Values are None where nothing was compared."""
    winners = Counter(c.winner for c in comparisons)
    statuses: Counter[str] = Counter(c.status for c in comparisons)
    decided = len(comparisons) - winners[None]
    metrics: Metrics = {
        "wins": winners["model"],
        "losses": winners["baseline"],
        "ties": winners["tie"],
        "inconsistent": winners["inconsistent"],
        "empty_answer": statuses["empty_answer"],
        **{status: statuses[status] for status in LEFT_OUT},
        "coverage": decided / (len(_TURNS) * len(compared)) if compared else None,
        **verdicts.reference_metrics(comparisons),
    }
    for end, turns in (("", _TURNS), ("_turn_1", (1,)), ("_turn_2", (2,))):
        worth = [
            (c.question_id, WORTH[c.winner]) for c in comparisons if c.winner and c.turn in turns
        ]
        low, high = bootstrap(worth, seed) or (None, None)
        metrics[f"win_rate{end}"] = fsum(w for _, w in worth) / len(worth) if worth else None
        metrics[f"win_rate{end}_low"], metrics[f"win_rate{end}_high"] = low, high
    even = length_controlled(_judged_turns(comparisons, compared), seed) or (None, None, None)
    metrics |= zip(("win_rate_lc", "win_rate_lc_low", "win_rate_lc_high"), even, strict=True)
    for side, end in ((0, ""), (1, "_baseline")):
        lengths = [len(text) for pair in compared for text in pair[side].turns]
        metrics[f"characters{end}"] = sum(lengths) / len(lengths) if lengths else None
    return metrics


def length_controlled(turns: Sequence[Told], seed: int) -> tuple[float, float, float] | None:
    """Return the win rate had both answers always been equally long, and its 95 % interval over
    questions. It is AlpacaEval 2's (arXiv 2404.04475) for one pair of models, without the
    questions' difficulty.

    `logit P(win) = theta + phi * tanh(longer / std)` is fitted to the judge's decisions, a tie as
    half a win. The fit is read where `longer` is 0. A comparison that a rule decided keeps its
    worth.

    None for fewer than two questions that the judge decided. None also if the length difference is
    constant and not 0, because the effects of length and of model cannot be separated. The result
    has six significant digits: further ones differ between machines."""
    longer = [turn.longer for turn in turns if turn.longer is not None]
    if len({turn.question_id for turn in turns if turn.longer is not None}) < 2:
        return None
    std = stdev(longer)
    if not std and any(longer):
        return None
    by_question: dict[int, list[_Point]] = defaultdict(list)
    for turn in turns:
        x = None if turn.longer is None else tanh(turn.longer / (std or 1))
        by_question[turn.question_id].append((turn.worth, x))
    questions = list(by_question.values())
    interval = bootstrap_interval(questions, _at_equal_length, seed)
    assert interval, "two questions or more"
    low, high = interval
    return _digits(_at_equal_length(questions)), _digits(low), _digits(high)


# A comparison's worth and its tanh(longer / std). The latter is None where a rule decided.
_Point = tuple[float, float | None]


def _at_equal_length(questions: Sequence[Sequence[_Point]]) -> float:
    """Return the mean worth, with the fit at `longer` = 0 in place of the judge's decisions."""
    import numpy as np
    from scipy.optimize import root
    from scipy.special import expit

    points = [point for question in questions for point in question]
    judged = [(worth, x) for worth, x in points if x is not None]
    wins = fsum(worth for worth, _ in judged)
    # A model that always or never wins does so at any length.
    if 0 < wins < len(judged):
        y = np.array([worth for worth, _ in judged])
        terms = np.array([(1.0, x) for _, x in judged])
        penalty = np.array([0.0, RIDGE])

        # The gradient of the penalised log loss, then its Jacobian. The loss is convex, so the
        # gradient has one root.
        def slope(weights: Any) -> Any:
            return (expit(terms @ weights) - y) @ terms + penalty * weights

        def bend(weights: Any) -> Any:
            p = expit(terms @ weights)
            return (terms.T * (p * (1 - p))) @ terms + np.diag(penalty)

        # Without an effect of length, theta is the log odds of a win.
        start = [log(wins / (len(judged) - wins)), 0.0]
        theta, _phi = root(slope, start, jac=bend).x
        wins = len(judged) * float(expit(theta))
    return (wins + fsum(worth for worth, x in points if x is None)) / len(points)


def _judged_turns(comparisons: Sequence[Comparison], compared: Sequence[Pair]) -> list[Told]:
    longer = {
        (ours.question_id, turn): len(ours.turns[turn - 1]) - len(theirs.turns[turn - 1])
        for ours, theirs in compared
        for turn in _TURNS
    }
    return [
        Told(
            c.question_id,
            WORTH[c.winner],
            None if c.status == "empty_answer" else longer[c.question_id, c.turn],
        )
        for c in comparisons
        if c.winner
    ]


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
