"""S1 and S2 by hand-made votes, and on the votes that the MT-Bench paper released."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import agreement as benchmark
from bezoar import agreement
from bezoar.agreement import Row
from bezoar.files import BadInput
from bezoar.records import Grade, Vote
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
            "judge": "g",
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


def test_the_grader_stands_first_then_machines_then_people() -> None:
    judges = ("expert_1", "grader", "author_1", "zeta", "alpha")
    found = list(rows(*(vote(judge, "a") for judge in judges)))
    assert found[:4] == [
        (1, "grader", "alpha"),
        (1, "grader", "zeta"),
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


def test_metrics_show_the_grader_or_else_the_given_judges() -> None:
    given = [vote("gpt", "a"), vote("expert_1", "a")]
    metrics = agreement.flat(agreement.table(given, 3))
    assert metrics["gpt_human_s1_turn_1"] == 1.0 and metrics["gpt_human_s2_n_turn_1"] == 1
    with_grader = agreement.flat(agreement.table([*given, vote("grader", "b")], 3))
    assert with_grader["grader_human_s1_turn_1"] == 0.0
    assert not any(name.startswith("gpt") for name in with_grader)
    assert agreement.flat([]) == {"comparisons": 0}


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


@pytest.mark.skipif(not VOTES.exists(), reason="needs the votes in ../shared/data/judgments")
def test_the_papers_figures_come_out_of_its_votes() -> None:
    found = rows(*released("tie"))
    for key, golden in GOLDEN.items():
        row: Any = found[key]
        measured = (100 * row["s1"], row["s1_n"], 100 * row["s2"], row["s2_n"])
        assert (round(measured[0], 1), measured[1], round(measured[2], 1), measured[3]) == golden
    low, high = found[1, "gpt4_pair", "human"]["s1_low"], found[1, "gpt4_pair", "human"]["s1_high"]
    assert low == pytest.approx(0.623, abs=0.01) and high == pytest.approx(0.696, abs=0.01)


@pytest.mark.skipif(not VOTES.exists(), reason="needs the votes in ../shared/data/judgments")
def test_dropping_inconsistent_votes_instead_would_give_other_figures() -> None:
    row: Any = rows(*released(""))[1, "gpt4_pair", "human"]
    assert round(100 * row["s1"], 1) == 71.5
