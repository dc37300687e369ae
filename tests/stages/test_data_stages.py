"""The stages from the teacher to the training data and from answers to grades, on the embedded
models, in a folder of their own; and what they say when there is nothing to work on."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bezoar import llm, params, world
from bezoar.llm.client import Failed
from bezoar.params.__main__ import main as check_params
from bezoar.rows.files import BadInput, write_jsonl
from bezoar.rows.records import Answers, Failure, Item, Sample, Vote
from stages import agreement, filter, generate, judge, mt_compare, mt_grade
from tests.builders import parameters
from tests.builders.folders import better, lines, read, says, tree
from tests.builders.rows import stated
from tests.builders.scripted import Line, Scripted, said

__all__ = ["tree"]  # fixtures


SCHEMES = ("lamini", "evol_instruct", "orca")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_is_lost_between_what_is_asked_for_and_what_is_kept(
    tree: Path, scheme: str
) -> None:
    generate.main(scheme)
    judge.main(scheme)
    filter.main(scheme)
    made, judged, out = f"data/generate/{scheme}", f"data/judge/{scheme}", f"data/filter/{scheme}"
    samples, replies = lines(f"{made}/samples.jsonl"), lines(f"{made}/replies.jsonl")
    dropped, later = lines(f"{made}/rejected.jsonl"), lines(f"{out}/rejected.jsonl")
    verdicts = lines(f"{judged}/verdicts.jsonl")
    train, held_out = lines(f"{out}/train.jsonl"), lines(f"{out}/eval.jsonl")
    funnel, summary = read(f"{out}/funnel.json"), read(f"{made}/summary.json")

    assert [v["id"] for v in verdicts] == [s["id"] for s in samples]
    kept = {row["id"] for row in (*train, *held_out)}
    assert kept | {row["id"] for row in later} == {s["id"] for s in samples}
    assert len(kept) + len(later) == len(samples) and len(kept) == funnel["kept"]
    assert len(train) == funnel["train"] > len(held_out) == funnel["eval"] > 0
    described = read(f"{out}/distributions.json")["sets"]
    assert described["before"]["rows"] == sum(described["before"]["tasks"].values()) == len(samples)
    assert described["after"]["rows"] == sum(described["after"]["tasks"].values()) == len(kept)
    assert summary["calls"] == len(replies) == funnel["calls"]
    whole = {"no_examples", "empty_reply", "refusal_reply"}
    if not whole & {row["reason"] for row in dropped}:
        surplus = sum(row["reason"] == "surplus" for row in dropped)
        assert len(samples) + len(dropped) - surplus == funnel["asked"]
    assert sum(funnel[s] for s in ("accepted", "rejected", "undecided")) == len(samples)
    assert funnel["kept"] <= funnel["accepted"] <= funnel["parsed"] <= funnel["asked"]
    assert sum(funnel["reasons"].values()) == len(dropped) + len(later)
    assert funnel["simulated_teacher"] and funnel["simulated_judge"]
    assert (funnel["teacher"], funnel["judge"]) == ("world-teacher", "world-judge")
    metrics = read(f"metrics/filter/{scheme}.json")
    assert metrics["accepted_share"] == funnel["accepted"] / len(samples)
    assert metrics["replies_read"] == funnel["replies_read"] == summary["replies_read"] > 0.5
    assert metrics["kept"] == funnel["kept"] and metrics["copies"] == funnel["copies"]
    for which, rows in (("generated", samples), ("kept", kept)):
        for counts in funnel["distributions"][which].values():
            assert 0 < sum(counts.values()) <= len(rows)
        crossed: Counter[str] = Counter()
        for counts in funnel["by_category"][which].values():
            crossed.update(counts)
        assert crossed == funnel["distributions"][which].get("strategy", {})


@pytest.mark.slow
def test_what_earlier_schemes_and_benchmarks_hold_is_found_in_the_stage(tree: Path) -> None:
    for scheme in ("lamini", "orca"):
        generate.main(scheme)
        judge.main(scheme)
    asked = "What is the home of the eagle, and which of the other animals live there with it?"
    for scheme, text in (("lamini", asked), ("orca", asked[:-1] + " today?")):
        samples = lines(f"data/generate/{scheme}/samples.jsonl")
        verdicts = lines(f"data/judge/{scheme}/verdicts.jsonl")
        at = next(n for n, v in enumerate(verdicts) if v["status"] == "accepted")
        samples[at] |= {"instruction": text, "context": ""}
        write_jsonl(
            f"data/generate/{scheme}/samples.jsonl", [Sample.model_validate(s) for s in samples]
        )
    quiz = Item(id="quiz-3", question=asked, choices=["forest", "desert"], label=0)
    write_jsonl("data/fetch/benchmarks/tasks/quiz.jsonl", [quiz])

    filter.main("lamini")
    out = "data/filter/lamini"
    found = [row for row in lines(f"{out}/contamination.jsonl") if row["kind"] == "ngram"]
    assert [(row["benchmark"], row["item"]) for row in found] == [("quiz", "quiz-3")]
    assert read(f"{out}/funnel.json")["reported"]["contaminated"] > 0
    kept = {row["id"] for name in ("train", "eval") for row in lines(f"{out}/{name}.jsonl")}
    assert {row["id"] for row in lines(f"{out}/reported.jsonl")} <= kept
    assert "contaminated" not in {row["reason"] for row in lines(f"{out}/rejected.jsonl")}

    Path("data/fetch/benchmarks/tasks/quiz.jsonl").unlink()
    again = tree / "again"  # parameters are read once a folder
    shutil.copytree(tree, again, ignore=shutil.ignore_patterns("again", "filter"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(again)
        with pytest.MonkeyPatch.context() as given:
            given.setattr("sys.argv", ["params", "local"])
            check_params()
        filter.main("orca")
        dropped = {row["text"]: row for row in lines("data/filter/orca/rejected.jsonl")}
        row = dropped[asked[:-1] + " today?"]
        assert row["reason"] == "near_duplicate" and row["details"]["of"] == found[0]["id"]
        assert lines("data/filter/orca/reported.jsonl") == []


@pytest.mark.slow
def test_many_calls_at_once_give_the_same_bytes(tree: Path) -> None:
    generate.main("lamini")
    one = {p.name: p.read_bytes() for p in Path("data/generate/lamini").iterdir()}
    again = tree / "again"
    shutil.copytree(tree / "data/fetch", again / "data/fetch")
    parameters.copy(again)
    parameters.replace(again, "concurrency: 1", "concurrency: 8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(again)
        assert params.load().llm.teacher.concurrency == 8
        generate.main("lamini")
        assert one == {p.name: p.read_bytes() for p in Path("data/generate/lamini").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_teacher_that_says_nothing_usable_is_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    says(monkeypatch, "")
    with pytest.raises(BadInput, match=rf"generate@{scheme}: passes nothing of \d+ jobs \(empty"):
        generate.main(scheme)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stage_that_passes_nothing_keeps_what_came_and_shows_three_replies(
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scheme: str,
) -> None:
    says(monkeypatch, said("I cannot", "refused"))
    with pytest.raises(BadInput) as stopped:
        generate.main(scheme)
    out = f"data/generate/{scheme}"
    dropped, summary = lines(f"{out}/rejected.jsonl"), read(f"{out}/summary.json")
    whole = Counter(row["reason"] for row in dropped)
    assert f"({', '.join(f'{why} {n}' for why, n in whole.most_common())})" in str(stopped.value)
    assert f"{out}/replies.jsonl" in str(stopped.value)
    assert lines(f"{out}/samples.jsonl") == [] and lines(f"{out}/failures.jsonl") == []
    assert len(lines(f"{out}/replies.jsonl")) == summary["calls"] > 0
    assert summary["replies_read"] == 0
    assert read(f"metrics/generate/{scheme}_spending.json")["usd"] == 0
    printed = capsys.readouterr().err
    assert f"warning: generate@{scheme}: 0" in printed
    assert printed.count("a reply: [refused] I cannot") == 3


@pytest.mark.slow
def test_a_low_yield_warns_by_name_and_the_stage_goes_on(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = iter(range(10**6))

    def line(prompt: str) -> str:
        if not prompt.endswith("###RESPONSE:"):
            return "An answer."
        return "Let me think." if next(turns) % 4 else "<example>\nName a river.\n</example>"

    monkeypatch.setattr(llm, "connect", lambda endpoint, *_: Scripted(line))
    generate.main("lamini")
    printed = capsys.readouterr().err
    assert "warning: generate@lamini: " in printed and printed.count("a reply: [stop] Let me") == 3
    assert lines("data/generate/lamini/samples.jsonl")
    assert 0 < read("data/generate/lamini/summary.json")["replies_read"] < 0.5


@pytest.mark.slow
def test_a_good_yield_is_silent(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate.main("lamini")
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(("scheme", "source"), [("lamini", "dolly"), ("orca", "flan")])
def test_seeds_without_rows_are_an_error(tree: Path, scheme: str, source: str) -> None:
    for path in Path(f"data/fetch/{source}").iterdir():
        path.write_text("")
    with pytest.raises(BadInput, match=rf"data/fetch/{source}: holds no seeds"):
        generate.main(scheme)


def test_seeds_of_other_categories_are_an_error(tree: Path) -> None:
    rows = [seed.model_copy(update={"category": "general_qa"}) for seed in world.seeds(50, 7)]
    write_jsonl("data/fetch/dolly/seeds.jsonl", rows)
    for scheme in ("lamini", "evol_instruct"):
        with pytest.raises(BadInput, match=rf"generate@{scheme}: no calls can be planned"):
            generate.main(scheme)


def test_an_unknown_scheme_is_named_with_those_there_are(tree: Path) -> None:
    with pytest.raises(SystemExit, match="lamani: no such scheme"):
        generate.main("lamani")


@pytest.mark.slow
def test_a_judge_that_accepts_nothing_leaves_no_training_data(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate.main("lamini")
    says(monkeypatch, stated("Reject", "1"))
    judge.main("lamini")
    with pytest.raises(
        BadInput,
        match=r"keeps 0 rows, of \d+ samples \(rejected \d+, .*rejected.jsonl has each row",
    ):
        filter.main("lamini")
    assert not lines("data/filter/lamini/train.jsonl")
    assert lines("data/filter/lamini/rejected.jsonl")


def test_a_missing_stage_before_is_named(tree: Path) -> None:
    for stage, name in ((judge, "lamini"), (filter, "lamini"), (mt_grade, "dpo")):
        with pytest.raises(BadInput, match="there is no such file; the stage before writes it"):
            stage.main(name)


def test_grades_and_their_means(tree: Path) -> None:
    answers = [Answers.model_validate(row) for row in lines("data/mt_answer/base/answers.jsonl")]
    emptied = answers[0].model_copy(update={"turns": ["", answers[0].turns[1]]})
    write_jsonl("data/mt_answer/base/answers.jsonl", [emptied, *answers[1:]])
    mt_grade.main("base")
    grades = lines("data/mt_grade/base/grades.jsonl")
    order = [(answer.question_id, turn) for answer in answers for turn in (1, 2)]
    assert [(g["question_id"], g["turn"]) for g in grades] == order
    assert (grades[0]["score"], grades[0]["status"]) == (1, "empty_answer")
    metrics = read("metrics/mt_grade/base.json")
    for name, turns in (("turn_1", (1,)), ("turn_2", (2,)), ("average", (1, 2))):
        scores = [g["score"] for g in grades if g["turn"] in turns and g["score"] is not None]
        assert metrics[name] == pytest.approx(sum(scores) / len(scores))
        low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
        assert 1 <= low < metrics[name] < high <= 10
    assert metrics["coverage"] == sum(g["score"] is not None for g in grades) / len(grades)
    told = ("ok", "empty_answer", "unparsed", "refused", "truncated")
    counts = {status: sum(g["status"] == status for g in grades) for status in told}
    assert counts["empty_answer"] and counts.items() <= metrics.items()


def test_a_grader_that_never_grades_covers_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [a for a in world.model_answers(world.questions(16, 7), 7) if all(a.turns)][:3]
    write_jsonl("data/mt_answer/base/answers.jsonl", answers)
    says(monkeypatch, "Quite good.")
    with pytest.raises(BadInput, match=r"mt_grade@base, world-judge: 0 of 6 replies could be read"):
        mt_grade.main("base")
    metrics = read("metrics/mt_grade/base.json")
    assert metrics["coverage"] == metrics["read"] == metrics["known_read"] == 0
    assert (metrics["unparsed"], metrics["retried"]) == (6, 6)
    assert metrics["average"] is metrics["turn_1_low"] is None


def test_grades_that_failed_for_good_are_missing_from_the_coverage_too(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [a for a in world.model_answers(world.questions(16, 7), 7) if all(a.turns)][:4]
    write_jsonl("data/mt_answer/base/answers.jsonl", answers)
    monkeypatch.setattr(llm.run, "max_failed", lambda endpoint: 0.25)
    lost = str(answers[0].turns[0])

    def grade(prompt: str) -> Line:
        if lost in prompt:
            gone = Failure(job="", step=0, reason="HTTP 400", status=400, attempts=1, usd=0)
            raise Failed(gone)
        return "Fine. Rating: [[7]]"

    monkeypatch.setattr(llm, "connect", lambda endpoint, *_: Scripted(grade))
    mt_grade.main("base")
    metrics = read("metrics/mt_grade/base.json")
    assert (metrics["average"], metrics["coverage"]) == (7.0, 0.75)
    failures = lines("data/mt_grade/base/failures.jsonl")
    assert {f["job"] for f in failures} == {str(answers[0].question_id)}, "both of its turns"
    assert {f["status"] for f in failures} == {400} and metrics["failed"] == 2


@pytest.mark.slow
def test_a_checkpoint_is_compared_with_its_baseline(tree: Path) -> None:
    answers = [Answers.model_validate(row) for row in lines("data/mt_answer/base/answers.jsonl")]
    named = [answer.model_copy(update={"model": "base"}) for answer in answers]
    write_jsonl("data/mt_answer/base/answers.jsonl", named)
    write_jsonl("data/mt_answer/sft/answers.jsonl", better(answers))
    mt_compare.main("sft")
    comparisons = lines("data/mt_compare/sft/comparisons.jsonl")
    order = [(answer.question_id, turn) for answer in answers for turn in (1, 2)]
    assert [(c["question_id"], c["turn"]) for c in comparisons] == order
    assert all(c["simulated"] or c["status"] == "empty_answer" for c in comparisons)
    metrics = read("metrics/mt_compare/sft.json")
    assert metrics["wins"] > metrics["losses"] and metrics["win_rate_low"] > 0.5
    votes = [Vote.model_validate(row) for row in lines("data/mt_compare/sft/votes.jsonl")]
    assert {(v.judge, v.model_a, v.model_b) for v in votes} == {("grader", "sft", "base")}
    assert metrics["wins"] == sum(v.winner == "model_a" for v in votes)
    heard = sum(len(c["replies"]) for c in comparisons)
    assert heard >= 2 * sum(c["status"] == "ok" for c in comparisons)
    replies = lines("data/mt_compare/sft/replies.jsonl")
    own = [
        reply
        for reply in replies
        if not reply["job"].startswith("known/") and reply["messages"][0]["role"] == "system"
    ]
    assert len(own) == heard + metrics["retried"] and len(replies) >= len(own) + 2 * 20
    assert metrics["win_rate_lc_low"] < metrics["win_rate_lc"] < metrics["win_rate_lc_high"]
    assert read("metrics/mt_compare/sft_spending.json")["usd"] == 0


def test_a_limit_of_nothing_asks_nobody(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("data/mt_answer/base", "data/mt_answer/sft")
    parameters.override(Path(), "profiles/embedded.yaml:mt_compare.limit=0")

    def never(*_: object) -> None:
        raise AssertionError("nothing is to be asked")

    monkeypatch.setattr(llm, "connect", never)
    mt_compare.main("sft")
    for name in ("comparisons", "votes", "replies", "failures"):
        assert lines(f"data/mt_compare/sft/{name}.jsonl") == []
    assert set(read("metrics/mt_compare/sft.json").values()) == {0, None}


@pytest.mark.slow
def test_the_embedded_models_are_paid_nothing_and_need_no_ledger(tree: Path) -> None:
    generate.main("lamini")
    judge.main("lamini")
    mt_grade.main("base")
    agreement.main()
    paid = ("generate/lamini_", "judge/lamini_", "mt_grade/base_", "agreement/")
    for name in paid:
        spent = read(f"metrics/{name}spending.json")
        assert spent.pop("model") in ("world-teacher", "world-judge")
        assert spent == {"calls": 0, "tokens_in": 0, "tokens_out": 0, "usd": 0}
    assert not (tree / "work").exists()


@pytest.mark.slow
def test_the_grader_is_compared_with_people(tree: Path) -> None:
    agreement.main()
    table: Any = json.loads(Path("data/agreement/table.json").read_text(encoding="utf-8"))
    pairs = {(row["turn"], row["a"], row["b"]) for row in table}
    assert {(turn, "grader", other) for turn in (1, 2) for other in ("human", "author")} <= pairs
    row = next(r for r in table if (r["turn"], r["a"], r["b"]) == (1, "grader", "human"))
    metrics = read("metrics/agreement/agreement.json")
    assert metrics["grader_human_s1_turn_1"] == row["s1"]
    assert 0 <= row["s1_low"] <= row["s1"] <= row["s1_high"] <= 1 and row["s1_n"] >= row["s2_n"]
    # six pairs of four models, two turns each, of which every set of judgements has a verdict
    assert len(lines("data/agreement/comparisons.jsonl")) == 16 * 6 * 2 == metrics["records"]
    assert lines("data/agreement/grades.jsonl") == []
    assert (metrics["judged"], metrics["unanswered"]) == (16 * 6 * 2 - unread(), 0)
    assert metrics["without_reference"] == 0 and metrics["reference_coverage"] == 1
    study = read("data/agreement/study.json")
    assert (study["verdicts"], study["which"]) == ("pairs", "intersection")
    assert study["absent"] == ["gpt4_single", "gpt4_pair"], "simulated ones stand in for them"
    assert set(study["votes"]) == {"simulated_single", "simulated_pair", "author", "human"}
    kinds = {row["b"] for row in table if row["a"] == "grader"}
    assert kinds == {*study["votes"], "human_majority"}
    parts = json.loads(Path("data/agreement/breakdown.json").read_text(encoding="utf-8"))
    assert len({part["of"] for part in parts if part["by"] == "category"}) == 8
    for kind in kinds:
        its = [p for p in parts if (p["by"], p["turn"], p["b"]) == ("models", 1, kind)]
        whole = next(r for r in table if (r["turn"], r["a"], r["b"]) == (1, "grader", kind))
        assert sum(part["s1_agree"] for part in its) == whole["s1_agree"]


def unread() -> int:
    statuses = [row["status"] for row in lines("data/agreement/comparisons.jsonl")]
    return sum(status not in ("ok", "empty_answer") for status in statuses)


@pytest.mark.slow
def test_the_grader_may_grade_singly_instead(tree: Path) -> None:
    changed = params.load().agreement.model_copy(update={"verdicts": "single", "limit": 3})
    settings = params.load().model_copy(update={"agreement": changed})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(params, "load", lambda *_: settings)
        agreement.main()
    assert lines("data/agreement/comparisons.jsonl") == []
    grades = lines("data/agreement/grades.jsonl")
    assert 2 * 3 <= len(grades) <= 2 * 6, "two turns of the answers of three pairs"
    assert read("data/agreement/study.json")["verdicts"] == "single"
    biases = json.loads(Path("data/agreement/biases.json").read_text(encoding="utf-8"))
    told = {(row["judge"], row["bias"]) for row in biases}
    assert ("grader", "first_shown") not in told and ("human", "first_shown") in told


def test_a_study_that_asks_nothing_needs_no_judge(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = params.load().agreement.model_copy(update={"limit": 0})
    settings = params.load().model_copy(update={"agreement": changed})
    monkeypatch.setattr(params, "load", lambda *_: settings)
    monkeypatch.setattr(llm, "connect", None)
    agreement.main()
    metrics = read("metrics/agreement/agreement.json")
    assert metrics["judged"] == 0 and metrics["read"] is None
    assert "simulated_pair_human_s1_turn_1" in metrics


@pytest.mark.slow
@pytest.mark.parametrize("emptied", [["answers"], ["votes"], ["answers", "votes"]])
def test_without_released_answers_or_votes_there_is_less_to_compare(
    tree: Path, emptied: list[str]
) -> None:
    for name in emptied:
        Path(f"data/fetch/mt_bench/{name}.jsonl").write_text("")
    agreement.main()
    metrics = read("metrics/agreement/agreement.json")
    if "votes" in emptied:
        assert (metrics["judged"] == 0) == ("answers" in emptied)
        assert ("grader_simulated_single_s1_turn_1" in metrics) == ("answers" not in emptied)
    else:
        assert metrics["comparisons"] > 0 and "author_human_s1_turn_1" in metrics
        assert not any("grader" in name for name in metrics)
