"""Measures the agreement of judges (OpenBezoar, appendix D, after the MT-Bench paper).

It is the chance that judges of two kinds give the same verdict on a random question and pair of
models. S1 takes all votes, with win and tie as values (chance: 1/3). S2 takes only comparisons in
which both judges name a winner (chance: 1/2).

A record is one turn of a question with two models. The study takes all records, or those on which
every set of judgements has a verdict. Each machine's verdicts are one set. The votes of people are
another, the questions' authors included."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, Literal, NamedTuple

from bezoar.judging.differences import bootstrap
from bezoar.rows.records import Answers, Grade, Vote

GRADER, AUTHOR, HUMAN, MAJORITY = "grader", "author", "human", "human_majority"
GPT4_SINGLE, GPT4_PAIR = "gpt4_single", "gpt4_pair"
# The paper compares its judge with these kinds.
PAPERS = (GPT4_SINGLE, GPT4_PAIR, AUTHOR, HUMAN)
# The judgements of the questions' authors and of everyone else are one set, PEOPLE.
PEOPLE = "people"

Outcome = Literal["first", "second", "tie"]


class Key(NamedTuple):
    """A question and two models to vote on. The models stand in alphabetical order."""

    question_id: int
    first: str
    second: str


class Item(NamedTuple):
    """A record: one turn of a key."""

    key: Key
    turn: Literal[1, 2]


class Voice(NamedTuple):
    """One judge's vote on a key."""

    judge: str
    outcome: Outcome


class Comparison(NamedTuple):
    """The votes of two judges on one key."""

    key: Key
    a: Outcome
    b: Outcome

    @property
    def question_id(self) -> int:
        """The question that both judges looked at."""
        return self.key.question_id


Row = dict[str, str | int | float | None]


# --- which records -------------------------------------------------------------------------------


def records(votes: Sequence[Vote], scope: Literal["intersection", "all"]) -> frozenset[Item]:
    """Return the records of the study. With "intersection" they are those on which every set of
    judgements has a verdict, with "all" those on which any set has one."""
    sets: dict[str, set[Item]] = defaultdict(set)
    for vote in votes:
        name = kind(vote.judge)
        sets[PEOPLE if name in (AUTHOR, HUMAN) else name].add(_item(vote))
    if not sets:
        return frozenset()
    return frozenset(
        set.intersection(*sets.values()) if scope == "intersection" else set.union(*sets.values())
    )


def votes_on(votes: Sequence[Vote], among: Collection[Item]) -> list[Vote]:
    """Return the votes on these records."""
    return [vote for vote in votes if _item(vote) in among]


def judgements(votes: Sequence[Vote], grades: Sequence[Grade], tie_margin: float) -> list[Vote]:
    """Return a source's votes together with its grades as votes. With votes, only grades on their
    records count. Without votes, grades count between every two models."""
    items = {_item(vote) for vote in votes}
    grade_votes = from_grades(grades, tie_margin)
    return [*votes, *(votes_on(grade_votes, items) if votes else grade_votes)]


class Put(NamedTuple):
    """A question of the agreement study that is put to our judge. It has two models' answers, and
    the turns on which others have a verdict."""

    pair: tuple[Answers, Answers]
    turns: tuple[Literal[1, 2], ...]

    @property
    def name(self) -> str:
        """The name under which its requests are filed."""
        return f"{self.pair[0].question_id}/{self.pair[0].model}/{self.pair[1].model}"


def puts(
    among: Collection[Item], answers: Sequence[Answers], limit: int | None
) -> tuple[list[Put], int]:
    """Return the records as pairs of answers, at most `limit` of them, spread over all. Also return
    how many pairs are left out for lack of answers."""
    answers_of = {(answer.question_id, answer.model): answer for answer in answers}
    turns_of: dict[Key, list[Literal[1, 2]]] = defaultdict(list)
    for key, turn in sorted(among):
        turns_of[key].append(turn)
    available = [
        Put((answers_of[id, first], answers_of[id, second]), tuple(turns))
        for (id, first, second), turns in turns_of.items()
        if (id, first) in answers_of and (id, second) in answers_of
    ]
    count = len(available) if limit is None else min(limit, len(available))
    # The pairs are taken at even distances, so a limit does not favour the first questions.
    chosen = [available[i * len(available) // count] for i in range(count)]
    return chosen, len(turns_of) - len(available)


def describe(
    votes: Sequence[Vote], judged: Sequence[Vote], among: Collection[Item]
) -> dict[str, Any]:
    """Return the numbers of the study. `records` counts them by turn, `judged` those that our
    grader judged, and `votes` the votes by kind of judge. `models` are the models in the records,
    `absent` the groups of the paper without votes."""
    counts = Counter(kind(vote.judge) for vote in votes_on(votes, among))
    return {
        "records": {str(turn): sum(item.turn == turn for item in among) for turn in (1, 2)},
        "judged": {
            str(turn): len({_item(v) for v in votes_on(judged, among) if v.turn == turn})
            for turn in (1, 2)
        },
        "models": sorted({model for item in among for model in item.key[1:]}),
        "votes": {name: counts[name] for name in sorted(counts, key=_place)},
        "absent": [name for name in PAPERS if not counts[name]],
    }


# --- agreement -----------------------------------------------------------------------------------


def table(votes: Sequence[Vote], seed: int) -> list[Row]:
    """Return S1, S2, their 95 % intervals and Cohen's kappa, for each turn and every two kinds of
    judges that voted on the same keys.

    A row is {turn, a, b, s1, s1_agree, s1_n, s1_low, s1_high, s2, ..., kappa}: `s1_agree` of `s1_n`
    pairs of votes agree. The interval is None where all votes are on one question.

    Each vote of one kind is compared with each vote of the other. Within a kind each two votes of
    different judges are compared. `human_majority` is the most frequent vote of people, or a tie
    where none leads. It is not compared with the people it is made of. `seed` is the bootstrap's.
    """
    return [
        {"turn": turn, "a": a, "b": b, **_measure(comparisons, a == b, seed)}
        for turn, a, b, comparisons in _comparisons(votes)
    ]


def breakdown(votes: Sequence[Vote], category_of: Mapping[int, str]) -> list[Row]:
    """Return how far our grader agrees with each other kind, by category and by pair of models. A
    row is {by, of, turn, a, b, s1, s1_agree, s1_n, s2, s2_agree, s2_n}.

    If our grader judged nothing, every two kinds are compared."""
    groups = [group for group in _comparisons(votes) if group[1] != group[2]]
    rows: list[Row] = []
    for turn, a, b, comparisons in [group for group in groups if group[1] == GRADER] or groups:
        parts: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
        for comparison in comparisons:
            parts["category", category_of.get(comparison.question_id, "unknown")].append(comparison)
            parts["models", f"{comparison.key.first}, {comparison.key.second}"].append(comparison)
        rows += [
            {
                "by": by,
                "of": value,
                "turn": turn,
                "a": a,
                "b": b,
                **_count_agreement(parts[by, value]),
            }
            for by, value in sorted(parts)
        ]
    return rows


def _comparisons(votes: Sequence[Vote]) -> Iterator[tuple[int, str, str, list[Comparison]]]:
    """Yield (turn, a kind of judge, the same or another, their comparisons of the same keys)."""
    for turn in (1, 2):
        voices = _voices(vote for vote in votes if vote.turn == turn)
        kinds = sorted({name for by_kind in voices.values() for name in by_kind}, key=_place)
        for a, b in [(a, b) for i, a in enumerate(kinds) for b in kinds[i:]]:
            # The majority of people is made of the same votes as `human`.
            if (a, b) != (HUMAN, MAJORITY) and (comparisons := list(_compare(voices, a, b))):
                yield turn, a, b, comparisons


def biases(
    votes: Sequence[Vote],
    lengths: Mapping[tuple[int, str, int], int],
    own_models: Mapping[str, str],
    seed: int,
    graded: Collection[str] = (),
) -> list[Row]:
    """Measure the biases of each kind of judge: {judge, bias, share, n, low, high, people,
    people_n}. Shares are shares of votes, with a 95 % interval (None where all votes are on one
    question).

    Among the votes that name a winner: `verbosity` is how often the longer answer wins. `lengths`
    has characters by (question, model, turn). `self_preference` is how often the judge's own model
    wins, of the votes on it. `own` names that model by judge. `first_shown` is how often the answer
    shown first wins (0.5 is unbiased). It is measured where the judge saw one order, but not for
    those of `graded`, who saw each answer alone.

    Among all votes of a judge that saw both orders: `inconsistent` is how often the order decided.

    `people` is the same share among human votes on the same questions, models and turns. As far as
    the two shares are alike, the judge has no bias of its own."""
    by_kind: dict[str, list[Vote]] = defaultdict(list)
    people: dict[tuple[Key, int], list[Vote]] = defaultdict(list)
    for vote in votes:
        by_kind[kind(vote.judge)].append(vote)
        if kind(vote.judge) == HUMAN:
            people[_key(vote), vote.turn].append(vote)
    rows: list[Row] = []
    for judge in sorted(by_kind, key=_place):
        measures: dict[str, Callable[[Vote], bool | None]] = {
            "verbosity": partial(_longer_won, lengths)
        }
        if judge in own_models:
            measures["self_preference"] = partial(_won, own_models[judge])
        # An inconsistent vote shows that this judge saw both orders: no answer was the first one.
        if any(vote.winner == "inconsistent" for vote in by_kind[judge]):
            measures["inconsistent"] = lambda vote: vote.winner == "inconsistent"
        elif judge not in graded:
            measures["first_shown"] = lambda vote: (
                vote.winner == "model_a" if _decides(vote) else None
            )
        for bias, measure in measures.items():
            measured = [(v, swayed) for v in by_kind[judge] if (swayed := measure(v)) is not None]
            if not measured:
                continue
            keys = sorted({(_key(vote), vote.turn) for vote, _ in measured})
            # People saw the two answers in another order, so what order does cannot be compared.
            shared = judge != HUMAN and bias in ("verbosity", "self_preference")
            people_votes = [v for key in keys for v in people.get(key, [])] if shared else []
            people_swayed = [swayed for v in people_votes if (swayed := measure(v)) is not None]
            by_question = [(vote.question_id, swayed) for vote, swayed in measured]
            low, high = bootstrap(by_question, seed) or (None, None)
            rows.append(
                {
                    "judge": judge,
                    "bias": bias,
                    "share": sum(swayed for _, swayed in measured) / len(measured),
                    "n": len(measured),
                    "low": low,
                    "high": high,
                    "people": sum(people_swayed) / len(people_swayed) if people_swayed else None,
                    "people_n": len(people_swayed),
                }
            )
    return rows


def _decides(vote: Vote) -> bool:
    return vote.winner in ("model_a", "model_b")


def _longer_won(lengths: Mapping[tuple[int, str, int], int], vote: Vote) -> bool | None:
    a, b = (lengths.get((vote.question_id, m, vote.turn)) for m in (vote.model_a, vote.model_b))
    if not _decides(vote) or a is None or b is None or a == b:
        return None
    return (a > b) == (vote.winner == "model_a")


def _won(model: str, vote: Vote) -> bool | None:
    if not _decides(vote) or model not in (vote.model_a, vote.model_b):
        return None
    return model == (vote.model_a if vote.winner == "model_a" else vote.model_b)


def flat_metrics(rows: Sequence[Row]) -> dict[str, float | int | None]:
    """Return the table as metrics named `A_B_s1_turn_1`: the rows of our grader, or all rows where
    it graded nothing that others voted on."""
    grader_rows = [row for row in rows if GRADER in (row["a"], row["b"])] or rows
    metrics: dict[str, float | int | None] = {"comparisons": 0}
    for row in grader_rows:
        for name in ("s1", "s2", "s1_agree", "s2_agree", "s1_n", "s2_n"):
            value = row[name]
            assert not isinstance(value, str)
            metrics[f"{row['a']}_{row['b']}_{name}_turn_{row['turn']}"] = value
        metrics["comparisons"] = int(metrics["comparisons"] or 0) + int(row["s1_n"] or 0)
    return metrics


def from_grades(grades: Sequence[Grade], tie_margin: float) -> list[Vote]:
    """Turn single grades into votes of their judge between every two models. The higher grade wins,
    and grades at most `tie_margin` apart tie. A turn without a grade has no vote. If a turn is
    graded twice, the last grade counts."""
    scores: dict[tuple[str, int, Literal[1, 2]], dict[str, float]] = defaultdict(dict)
    for grade in grades:
        if grade.score is not None:
            scores[grade.judge, grade.question_id, grade.turn][grade.model] = grade.score
    votes = []
    for (judge, question_id, turn), by_model in scores.items():
        for a, b in combinations(sorted(by_model), 2):
            margin = by_model[a] - by_model[b]
            winner: Literal["model_a", "model_b", "tie"] = "model_a" if margin > 0 else "model_b"
            votes.append(
                Vote(
                    judge=judge,
                    question_id=question_id,
                    turn=turn,
                    model_a=a,
                    model_b=b,
                    winner="tie" if abs(margin) <= tie_margin else winner,
                )
            )
    return votes


def kind(judge: str) -> str:
    """Return the kind that a judge belongs to. People are `human`, those who wrote the question are
    `author`, and any other judge is its own kind."""
    name = judge.removeprefix("simulated_")
    return next((k for start, k in _PEOPLE.items() if name.startswith(start)), judge)


_PEOPLE = {"expert": HUMAN, "author": AUTHOR}


def _place(name: str) -> tuple[int, bool, str]:
    """Return a key that sorts kinds as the paper does: our grader first, then other machines (those
    that grade single answers first), then people."""
    order = (GRADER, AUTHOR, HUMAN, MAJORITY)
    place = (0, 2, 3, 4)[order.index(name)] if name in order else 1
    return place, not name.endswith("single"), name


def _voices(votes: Iterable[Vote]) -> dict[Key, dict[str, list[Voice]]]:
    """Return votes by key and kind, each turned so that the models stand in alphabetical order."""
    voices: dict[Key, dict[str, list[Voice]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        outcome: Outcome = "tie"
        if _decides(vote):
            won = vote.model_a if vote.winner == "model_a" else vote.model_b
            outcome = "first" if won == min(vote.model_a, vote.model_b) else "second"
        voices[_key(vote)][kind(vote.judge)].append(Voice(vote.judge, outcome))
    for by_kind in voices.values():
        if people := by_kind.get(HUMAN):
            by_kind[MAJORITY] = [Voice(MAJORITY, _majority([voice.outcome for voice in people]))]
    return voices


def _item(vote: Vote) -> Item:
    return Item(_key(vote), vote.turn)


def _key(vote: Vote) -> Key:
    return Key(vote.question_id, *sorted((vote.model_a, vote.model_b)))


def _majority(outcomes: Sequence[Outcome]) -> Outcome:
    (top, most), *others = Counter(outcomes).most_common()
    return "tie" if others and others[0][1] == most else top


def _compare(voices: dict[Key, dict[str, list[Voice]]], a: str, b: str) -> Iterator[Comparison]:
    for key, by_kind in voices.items():
        left, right = by_kind.get(a, []), by_kind.get(b, [])
        pairs = combinations(left, 2) if a == b else ((x, y) for x in left for y in right)
        for x, y in pairs:
            # Two votes of one judge say nothing about how far judges agree.
            if x.judge != y.judge:
                yield Comparison(key, x.outcome, y.outcome)


def _measure(comparisons: list[Comparison], same_kind: bool, seed: int) -> Row:
    row: Row = {"kappa": _kappa(comparisons, same_kind), **_count_agreement(comparisons)}
    for name, among in (("s1", comparisons), ("s2", _decided(comparisons))):
        agreed = [(c.question_id, c.a == c.b) for c in among]
        row[f"{name}_low"], row[f"{name}_high"] = bootstrap(agreed, seed) or (None, None)
    return row


def _count_agreement(comparisons: Sequence[Comparison]) -> Row:
    """Return for S1 and S2 the share of comparisons that agree, their number, and the number of
    all."""
    row: Row = {}
    for name, among in (("s1", comparisons), ("s2", _decided(comparisons))):
        agree = sum(c.a == c.b for c in among)
        share = agree / len(among) if among else None
        row |= {name: share, f"{name}_agree": agree, f"{name}_n": len(among)}
    return row


def _decided(comparisons: Sequence[Comparison]) -> list[Comparison]:
    return [c for c in comparisons if "tie" not in (c.a, c.b)]


def kappa(a: Sequence[str], b: Sequence[str]) -> float | None:
    """Return Cohen's kappa, the agreement beyond chance, of two judges' labels of the same n > 0
    things. It is None where chance alone gives full agreement."""
    n, ours, theirs = len(a), Counter(a), Counter(b)
    # Two judges who gave their labels at random, each as often as now, would agree this often.
    chance = sum(ours[label] * theirs[label] for label in ours) / n**2
    same = sum(x == y for x, y in zip(a, b, strict=True)) / n
    return (same - chance) / (1 - chance) if chance < 1 else None


def _kappa(comparisons: list[Comparison], same_kind: bool) -> float | None:
    """Return Cohen's kappa. Within a kind the two sides are interchangeable, so they share their
    marginals."""
    a, b = [c.a for c in comparisons], [c.b for c in comparisons]
    return kappa(a + b, b + a) if same_kind else kappa(a, b)
