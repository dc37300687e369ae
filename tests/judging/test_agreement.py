"""S1 and S2 by hand-made votes, and on the votes that the MT-Bench paper released."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import agreement as benchmark
from bezoar.judging import agreement
from bezoar.judging.agreement import Row
from bezoar.rows.files import BadInput
from bezoar.rows.records import Answers, Grade, Vote
from bezoar.sources import readers
from tests.conftest import DATA

VOTES = DATA / "judgments"


def vote(judge: str, winner: str, question_id: int = 1, models: str = "ab", turn: int = 1) -> Vote:
    """`winner`: the model's name, tie or inconsistent."""
    a, b = models
    return Vote.model_validate(
        {
            "judge": judge,
            "question_id": question_id,
            "turn": turn,
            "model_a": a,
            "model_b": b,
            "winner": {a: "model_a", b: "model_b"}.get(winner, winner),
        }
    )


def grade(model: str, score: float | None, question_id: int = 1, turn: int = 1) -> Grade:
    return Grade.model_validate(
        {
            "question_id": question_id,
            "model": model,
            "turn": turn,
            "score": score,
            "status": "ok" if score else "unparsed",
            "reply": "",
            "judge": "grader",
            "simulated": True,
        }
    )


def rows(*votes: Vote) -> dict[tuple[Any, ...], Row]:
    return {(row["turn"], row["a"], row["b"]): row for row in agreement.table(votes, 3)}


def test_ties_count_in_s1_and_not_in_s2() -> None:
    votes = [vote("gpt", w, q) for q, w in enumerate(["a", "a", "tie", "tie", "b"])]
    votes += [vote("expert_1", w, q) for q, w in enumerate(["a", "b", "tie", "a", "tie"])]
    row = rows(*votes)[1, "gpt", "human"]
    assert (row["s1"], row["s1_n"], row["s2"], row["s2_n"]) == (2 / 5, 5, 1 / 2, 2)


def test_the_order_of_the_models_does_not_matter() -> None:
    row = rows(vote("gpt", "b", models="ab"), vote("expert_1", "b", models="ba"))
    assert row[1, "gpt", "human"]["s1"] == 1.0
    row = rows(vote("gpt", "b", models="ab"), vote("expert_1", "a", models="ba"))
    assert row[1, "gpt", "human"]["s1"] == 0.0


def test_every_human_vote_is_one_comparison_and_people_are_compared_in_pairs() -> None:
    votes = [vote("gpt", "a"), *(vote(f"expert_{n}", w) for n, w in enumerate("aab"))]
    found = rows(*votes)
    assert (found[1, "gpt", "human"]["s1"], found[1, "gpt", "human"]["s1_n"]) == (2 / 3, 3)
    assert (found[1, "human", "human"]["s1"], found[1, "human", "human"]["s1_n"]) == (1 / 3, 3)


def test_a_person_is_not_compared_with_themselves() -> None:
    assert rows(vote("expert_1", "a"), vote("expert_1", "a", models="ba")) == {}


def test_questions_pairs_and_turns_are_kept_apart() -> None:
    assert rows(vote("gpt", "a", 1), vote("expert_1", "a", 2)) == {}
    assert rows(vote("gpt", "a", models="ab"), vote("expert_1", "a", models="ac")) == {}
    assert rows(vote("gpt", "a", turn=1), vote("expert_1", "a", turn=2)) == {}


@pytest.mark.parametrize(
    ("said", "majority"),
    [
        (["a"], "a"),
        (["a", "a", "b"], "a"),
        (["a", "tie", "tie"], "tie"),
        (["a", "b"], "tie"),
        (["a", "a", "b", "b", "tie"], "tie"),
        (["a", "b", "tie"], "tie"),
    ],
)
def test_the_majority_is_what_leads_and_tie_where_nothing_does(
    said: list[str], majority: str
) -> None:
    votes = [vote(f"expert_{n}", w) for n, w in enumerate(said)]
    found = rows(vote("gpt", majority), *votes)
    assert found[1, "gpt", "human_majority"]["s1"] == 1.0
    assert found[1, "gpt", "human_majority"]["s1_n"] == 1
    assert (1, "human", "human_majority") not in found


@pytest.mark.parametrize(
    ("judge", "kind"),
    [
        ("expert_17", "human"),
        ("simulated_expert_2", "human"),
        ("author_0", "author"),
        ("simulated_author_1", "author"),
        ("gpt4_pair", "gpt4_pair"),
        ("simulated_model", "simulated_model"),
        ("grader", "grader"),
    ],
)
def test_judges_are_sorted_by_kind(judge: str, kind: str) -> None:
    assert agreement.kind(judge) == kind


def test_the_grader_stands_first_then_machines_then_people_as_in_the_paper() -> None:
    judges = ("expert_1", "grader", "author_1", "gpt4_pair", "gpt4_single")
    found = list(rows(*(vote(judge, "a") for judge in judges)))
    assert found[:4] == [
        (1, "grader", "gpt4_single"),
        (1, "grader", "gpt4_pair"),
        (1, "grader", "author"),
        (1, "grader", "human"),
    ]


def test_kappa_is_agreement_beyond_chance() -> None:
    # a: 3 a, 1 b; b: 2 a, 2 b; agreement 3/4, by chance (3*2 + 1*2) / 16 = 1/2
    votes = [vote("gpt", w, q) for q, w in enumerate("aaab")]
    votes += [vote("expert_1", w, q) for q, w in enumerate("aabb")]
    assert rows(*votes)[1, "gpt", "human"]["kappa"] == pytest.approx(0.5)
    always = [vote(judge, "a", q) for judge in ("gpt", "expert_1") for q in range(3)]
    assert rows(*always)[1, "gpt", "human"]["kappa"] is None


def test_kappa_within_a_kind_does_not_depend_on_who_comes_first() -> None:
    one = [
        vote(f"expert_{n}", w, q)
        for q, said in enumerate(("ab", "ab", "aa"))
        for n, w in enumerate(said)
    ]
    other = [
        vote(f"expert_{1 - n}", w, q)
        for q, said in enumerate(("ab", "ba", "aa"))
        for n, w in enumerate(said)
    ]
    kappas = [rows(*votes)[1, "human", "human"]["kappa"] for votes in (one, other)]
    # marginals 4/6 and 2/6: chance 20/36, agreement 1/3
    assert kappas[0] == kappas[1] == pytest.approx((1 / 3 - 20 / 36) / (1 - 20 / 36))


def test_the_interval_resamples_questions_not_votes() -> None:
    # one question with nine agreeing pairs, one with a single disagreement
    many = [vote("gpt", "a", 1)] + [vote(f"expert_{n}", "a", 1) for n in range(9)]
    row = rows(*many, vote("gpt", "a", 2), vote("expert_1", "b", 2))[1, "gpt", "human"]
    assert row["s1"] == 0.9 and (row["s1_low"], row["s1_high"]) == (0.0, 1.0)
    again = rows(*many, vote("gpt", "a", 2), vote("expert_1", "b", 2))[1, "gpt", "human"]
    assert again == row


def test_one_question_has_no_interval() -> None:
    votes = [vote("gpt", "a"), vote("expert_1", "a"), vote("expert_2", "b")]
    row = rows(*votes)[1, "gpt", "human"]
    assert (row["s1"], row["s1_low"], row["s1_high"]) == (1 / 2, None, None)
    assert "None" not in benchmark.line(row) and " - " in benchmark.line(row)


def test_grades_become_votes() -> None:
    grades = [grade("b", 7), grade("a", 7.1), grade("c", 7.2), grade("d", None)]
    grades += [grade("a", 3, turn=2), grade("b", 8, turn=2), grade("a", 9, question_id=2)]
    votes = agreement.from_grades(grades, 0.1 + 1e-9)
    assert {(v.question_id, v.turn, v.model_a, v.model_b, v.winner) for v in votes} == {
        (1, 1, "a", "b", "tie"),
        (1, 1, "a", "c", "tie"),
        (1, 1, "b", "c", "model_b"),
        (1, 2, "a", "b", "model_b"),
    }
    assert {v.judge for v in votes} == {"grader"}


def test_votes_are_counted_beside_shares() -> None:
    votes = [vote("gpt", w, q) for q, w in enumerate(["a", "a", "tie", "b"])]
    votes += [vote("expert_1", w, q) for q, w in enumerate(["a", "b", "tie", "tie"])]
    row = rows(*votes)[1, "gpt", "human"]
    assert (row["s1_agree"], row["s1_n"], row["s2_agree"], row["s2_n"]) == (2, 4, 1, 2)


def test_the_intersection_is_what_every_set_of_judgements_has() -> None:
    votes = [vote("gpt4_pair", "a", q) for q in (1, 2, 3)]
    votes += [vote("gpt4_single", "a", q, models="ba") for q in (1, 2)]
    # people are one set, whether they wrote the question or not
    votes += [vote("expert_1", "a", 1), vote("author_1", "b", 2), vote("expert_1", "a", 4)]
    votes += [vote("expert_1", "a", 1, turn=2)]
    one = agreement.records(votes, "intersection")
    assert {(item.key.question_id, item.turn) for item in one} == {(1, 1), (2, 1)}
    everything = agreement.records(votes, "all")
    assert {(item.key.question_id, item.turn) for item in everything} == {
        *((q, 1) for q in (1, 2, 3, 4)),
        (1, 2),
    }
    told = agreement.describe(votes, [vote("grader", "a", 1)], one)
    assert told["records"] == {"1": 2, "2": 0} and told["judged"] == {"1": 1, "2": 0}
    assert told["votes"] == {"gpt4_single": 2, "gpt4_pair": 2, "author": 1, "human": 1}
    assert told["models"] == ["a", "b"] and told["absent"] == []
    alone = votes[:3]
    assert len(agreement.records(alone, "intersection")) == 3
    absent = agreement.describe(alone, [], agreement.records(alone, "all"))["absent"]
    assert absent == ["gpt4_single", "author", "human"]
    assert agreement.records([], "intersection") == frozenset()


def test_grades_that_others_gave_count_where_there_are_votes() -> None:
    single = [
        grade(model, score, q).model_copy(update={"judge": "gpt4_single"})
        for q in (1, 2)
        for model, score in (("a", 9), ("b", 5), ("c", 5))
    ]
    votes = [vote("expert_1", "a", 1), vote("expert_1", "b", 1, models="cb")]
    found = agreement.judgements(votes, single, 0.1)[2:]
    assert [(v.judge, v.question_id, v.model_a, v.model_b, v.winner) for v in found] == [
        ("gpt4_single", 1, "a", "b", "model_a"),
        ("gpt4_single", 1, "b", "c", "tie"),
    ]
    assert len(agreement.judgements([], single, 0.1)) == 6


def test_what_is_put_to_our_judge_is_spread_and_what_has_no_answer_is_counted() -> None:
    records = agreement.records(
        [vote("gpt", "a", q) for q in range(10)] + [vote("gpt", "a", 3, turn=2)], "all"
    )
    there = [
        Answers(question_id=q, model=m, turns=["1", "2"], finish=["stop", "stop"])
        for q in range(8)
        for m in "ba"
    ]
    puts, missing = agreement.puts(records, there, None)
    assert (len(puts), missing) == (8, 2)
    assert [put.turns for put in puts] == [(1, 2) if q == 3 else (1,) for q in range(8)]
    assert all([one.model for one in put.pair] == ["a", "b"] for put in puts)
    assert puts[3].name == "3/a/b"
    some, _ = agreement.puts(records, there, 4)
    assert [put.pair[0].question_id for put in some] == [0, 2, 4, 6]
    assert agreement.puts(records, there, 0)[0] == []


def test_a_breakdown_by_category_and_by_pair_of_models() -> None:
    votes = [vote("grader", "a", 1), vote("grader", "tie", 2), vote("grader", "a", 2, "ac")]
    votes += [vote("expert_1", "a", 1), vote("expert_1", "b", 2), vote("expert_1", "a", 2, "ca")]
    found = agreement.breakdown(votes, {1: "math"})
    told = {(r["by"], r["of"]): (r["s1_agree"], r["s1_n"], r["s2_agree"], r["s2_n"]) for r in found}
    assert {(r["a"], r["b"]) for r in found} == {("grader", "human"), ("grader", "human_majority")}
    assert told["category", "math"] == (1, 1, 1, 1)
    assert told["category", "unknown"] == (1, 2, 1, 1)
    assert told["models", "a, b"] == (1, 2, 1, 1) and told["models", "a, c"] == (1, 1, 1, 1)


def test_who_saw_an_answer_alone_saw_no_order() -> None:
    votes = [vote("gpt4_single", "a"), vote("other", "b")]
    told = agreement.biases(votes, {}, {}, 3, ["gpt4_single"])
    assert {(row["judge"], row["bias"]) for row in told} == {("other", "first_shown")}


def test_metrics_show_the_grader_or_else_the_given_judges() -> None:
    given = [vote("gpt", "a"), vote("expert_1", "a")]
    metrics = agreement.flat_metrics(agreement.table(given, 3))
    assert metrics["gpt_human_s1_turn_1"] == 1.0 and metrics["gpt_human_s2_n_turn_1"] == 1
    with_grader = agreement.flat_metrics(agreement.table([*given, vote("grader", "b")], 3))
    assert with_grader["grader_human_s1_turn_1"] == 0.0
    assert not any(name.startswith("gpt") for name in with_grader)
    assert agreement.flat_metrics([]) == {"comparisons": 0}


# --- biases --------------------------------------------------------------------------------------


def leanings(*votes: Vote, **known: Any) -> dict[tuple[Any, Any], Row]:
    told = agreement.biases(votes, known.get("lengths", {}), known.get("own", {}), 3)
    return {(row["judge"], row["bias"]): row for row in told}


def test_a_vote_that_the_order_decided_is_a_tie_and_is_told() -> None:
    votes = [vote("gpt", w, q) for q, w in enumerate(["a", "inconsistent", "tie", "inconsistent"])]
    found = leanings(*votes, *[vote("expert_1", w) for w in ("a", "b", "tie")])
    assert found["gpt", "inconsistent"]["share"] == 1 / 2 and ("gpt", "first_shown") not in found
    first = found["human", "first_shown"]
    assert (first["share"], first["n"]) == (1 / 2, 2)  # ties name no winner
    row = rows(vote("gpt", "inconsistent"), vote("expert_1", "tie"))[1, "gpt", "human"]
    assert (row["s1"], row["s2_n"]) == (1.0, 0)


def test_the_longer_answer_and_what_people_made_of_it() -> None:
    lengths = {(1, "a", 1): 10, (1, "b", 1): 99, (2, "a", 1): 5, (2, "b", 1): 5}
    votes = [vote("gpt", "b"), vote("gpt", "a", 2), vote("gpt", "a", 3)]  # 2: alike, 3: unknown
    people = [vote("expert_1", "a"), vote("expert_2", "b"), vote("expert_3", "tie")]
    row = leanings(*votes, *people, lengths=lengths)["gpt", "verbosity"]
    assert (row["share"], row["n"], row["people"], row["people_n"]) == (1.0, 1, 1 / 2, 2)
    assert row["low"] is row["high"] is None, "one question has no interval"


def test_a_judge_of_its_own_answers() -> None:
    votes = [vote("gpt", "a"), vote("gpt", "a", 2), vote("gpt", "b", 3), vote("gpt", "c", 4, "bc")]
    people = [vote("expert_1", "b"), vote("expert_1", "a", 2), vote("expert_1", "b", 4, "bc")]
    row = leanings(*votes, *people, own={"gpt": "a"})["gpt", "self_preference"]
    assert (row["share"], row["n"]) == (2 / 3, 3)  # the fourth is on others
    assert (row["people"], row["people_n"]) == (1 / 2, 2)
    assert not any(bias == "self_preference" for judge, bias in leanings(*votes))


@pytest.mark.slow
@pytest.mark.skipif(not VOTES.exists(), reason="needs the votes in ../shared/data/judgments")
def test_the_benchmark_prints_the_papers_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--human", str(VOTES / "human.jsonl"), "--judge", str(VOTES / "gpt4_pair.jsonl")]
    answers = DATA / "mt_bench/model_answer/gpt-4.jsonl"
    given += ["--answers", str(answers), "--own", "gpt4_pair=gpt-4"]
    monkeypatch.setattr("sys.argv", ["agreement", *given])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == {
        "turn_1": {"s1": 0.6597, "s1_n": 1343, "s2": 0.8463, "s2_n": 859},
        "turn_2": {"s1": 0.6574, "s1_n": 1325, "s2": 0.8461, "s2_n": 864},
    }
    # it is for itself more often than people are
    (own,) = (line.split() for line in lines if "self_preference" in line)
    assert float(own[2].rstrip("%")) > float(own[-2].rstrip("%")) + 5


def test_the_benchmark_takes_votes_alone(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_text('{"judge": "x", "winner": 3}\n')
    with pytest.raises(BadInput, match=r"votes.jsonl:1: winner: text is expected"):
        readers.votes(path)


# notes on evaluation, section 5: (s1 in %, n, s2 in %, n)
GOLDEN = {
    (1, "gpt4_pair", "human"): (66.0, 1343, 84.6, 859),
    (1, "human", "human"): (63.0, 721, 81.0, 479),
    (1, "gpt4_pair", "author"): (69.1, 346, 91.5, 201),
    (2, "gpt4_pair", "human"): (65.7, 1325, 84.6, 864),
    (2, "human", "human"): (66.6, 707, 81.9, 474),
    (2, "gpt4_pair", "author"): (65.7, 341, 88.3, 205),
}


@pytest.mark.slow
@pytest.mark.skipif(not VOTES.exists(), reason="needs the votes in ../shared/data/judgments")
def test_a_judge_that_repeats_gpt_4_agrees_with_it_on_every_released_record(tmp_path: Path) -> None:
    votes = [v for name in ("human", "gpt4_pair") for v in readers.votes(VOTES / f"{name}.jsonl")]
    records = agreement.records(votes, "intersection")
    assert len(records) == 1814 and sum(item.turn == 1 for item in records) == 910
    ours = [v.model_copy(update={"judge": "grader"}) for v in votes if v.judge == "gpt4_pair"]
    found = rows(*agreement.votes_on([*votes, *ours], records))
    for turn, n in ((1, 910), (2, 904)):
        row = found[turn, "grader", "gpt4_pair"]
        assert (row["s1"], row["s1_agree"], row["s1_n"], row["s2"]) == (1.0, n, n, 1.0)
        assert row["s2_agree"] == row["s2_n"]
        for other in ("author", "human", "human_majority"):
            key = (turn, "grader", other)
            assert found[key]["s1_agree"] == found[turn, "gpt4_pair", other]["s1_agree"]
    told = agreement.describe(votes, ours, records)
    assert told["absent"] == ["gpt4_single"] and len(told["models"]) == 6
    parts = agreement.breakdown([*votes, *ours], {81: "writing"})
    pair = [r for r in parts if (r["turn"], r["b"], r["by"]) == (1, "gpt4_pair", "models")]
    assert len(pair) == 15 and {row["s1_n"] for row in pair} == {80}


@pytest.mark.skipif(not VOTES.exists(), reason="needs the votes in ../shared/data/judgments")
def test_released_single_grades_leave_the_five_models_that_both_have() -> None:
    """The released grades are of vicuna-13b-v1.3, the votes of v1.2."""
    votes = [v for name in ("human", "gpt4_pair") for v in readers.votes(VOTES / f"{name}.jsonl")]
    models = sorted({v.model_a for v in votes} | {v.model_b for v in votes})
    single = [
        grade(model.replace("v1.2", "v1.3"), 1 + at, q, turn).model_copy(
            update={"judge": "gpt4_single"}
        )
        for at, model in enumerate(models)
        for q in range(81, 161)
        for turn in (1, 2)
    ]
    found = agreement.judgements(votes, single, 0.1)
    told = agreement.describe(found, [], agreement.records(found, "intersection"))
    assert told["records"] == {"1": 616, "2": 613} and told["absent"] == []
    assert len(told["models"]) == 5 and not any("vicuna" in model for model in told["models"])


def released(inconsistent: str) -> list[Vote]:
    votes = []
    for name in ("human", "gpt4_pair"):
        for line in (VOTES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["winner"] == "tie (inconsistent)":
                row["winner"] = inconsistent
            if row["winner"]:
                votes.append(Vote.model_validate(row))
    return votes


@pytest.mark.slow
@pytest.mark.skipif(not VOTES.exists(), reason="needs the votes in ../shared/data/judgments")
def test_the_papers_figures_come_out_of_its_votes() -> None:
    found = rows(*released("tie"))
    for key, golden in GOLDEN.items():
        row: Any = found[key]
        measured = (100 * row["s1"], row["s1_n"], 100 * row["s2"], row["s2_n"])
        assert (round(measured[0], 1), measured[1], round(measured[2], 1), measured[3]) == golden
    low, high = found[1, "gpt4_pair", "human"]["s1_low"], found[1, "gpt4_pair", "human"]["s1_high"]
    assert low == pytest.approx(0.623, abs=0.01) and high == pytest.approx(0.696, abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not VOTES.exists(), reason="needs the votes in ../shared/data/judgments")
def test_dropping_inconsistent_votes_instead_would_give_other_figures() -> None:
    row: Any = rows(*released(""))[1, "gpt4_pair", "human"]
    assert round(100 * row["s1"], 1) == 71.5
