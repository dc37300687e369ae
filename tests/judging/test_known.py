"""Is a judge better than a coin: the rows it is asked about, the measures, what a stage does."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bezoar import llm, params, world
from bezoar.judging import known, pairwise, verdicts
from bezoar.judging.known import Check, Row
from bezoar.llm import embedded
from bezoar.params import Known
from bezoar.preflight import forecast
from bezoar.rows.files import BadInput, write_jsonl
from bezoar.rows.records import Query, Seed
from stages import generate, judge, mt_compare, mt_grade
from tests.builders import parameters
from tests.builders.clients import openai
from tests.builders.folders import (
    better,
    judged_by,
    lines,
    read,
    says,
    simulated,
    tree,  # noqa: F401  (a fixture)
)
from tests.builders.rows import ATTACK, stated
from tests.builders.scripted import Line, Scripted, said
from tests.builders.servers import serving

HOW = Known(rows=20, least_auc=0.7, below="warn", seed=1)


def seed(question: str, answer: str, context: str = "") -> Seed:
    return Seed(
        id="s",
        instruction=question,
        context=context,
        response=answer,
        category="open_qa",
        source="",
        licence="",
    )


def query(question: str, target: str) -> Query:
    return Query(
        id="q", mixture="cot", task="t", query=question, target=target, source="", licence=""
    )


def numbered(n: int) -> list[Seed]:
    """Seeds that share nothing with each other."""
    word = "{}{}{}{}".format
    return [
        seed(
            f"{word('what', n, 'of', i)} {word('name', n, 'so', i)}?",
            f"{word('this', n, 'is', i)} {word('that', n, 'was', i)}",
        )
        for i in range(n)
    ]


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [world.seeds(800, 7), world.queries(1600, 7), numbered(60)])
def test_every_answer_is_right_once_and_wrong_once(seeds: list[Any]) -> None:
    rows = known.draw(seeds, HOW)
    assert len(rows) == 20
    assert sorted(row.own for row in rows) == sorted(row.other for row in rows)
    right = {(row.question, row.own) for row in rows}
    assert not right & {(row.question, row.other) for row in rows}
    assert rows == known.draw(seeds, HOW), "the same rows every time"
    assert rows != known.draw(seeds, HOW.model_copy(update={"seed": 2}))


def test_a_taste_for_form_alone_is_a_coin() -> None:
    rows = known.draw(world.seeds(800, 7), HOW)
    tastes: list[Callable[[str], float]] = [len, lambda text: -len(text), hash]
    for taste in tastes:
        assert known.auc([(taste(row.own), taste(row.other)) for row in rows]) == 0.5


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (seed("Is snow white?", "Yes"), seed("Can a whale fly to Mars?", "Yes.")),
        (seed("Is snow white?", "yes"), seed("Can a whale sing?", "Yes, it can.")),
        (seed("Capital of France?", "Paris"), seed("Where is the Louvre?", "It is in Paris.")),
        (seed("Pick one of (A) cat (B) hut.", "(A)"), seed("Which gate opens?", "A")),
        (query("Premise: it rains. Wet?", "entailment"), query("Premise: sun.", "Entailment")),
        (
            seed("Write a poem about love.", "Roses are red."),
            seed("Write a poem on love", "Hearts break at dawn."),
        ),
        (
            seed("Who leads?", "Ann Lee.", "A long passage on leaders and their many followers."),
            seed("Who lags?", "Bo Ek.", "A long passage on leaders and their many followers."),
        ),
        (seed("What is tea?", "A drink made of leaves."), seed("And mate?", "A drink of leaves.")),
    ],
)
def test_an_answer_that_may_be_right_for_the_next_row_does_not_stand_there(
    one: Any, two: Any
) -> None:
    assert len(known.draw([one, two], HOW)) < 2
    for _, own, other in known.draw([one, two, *numbered(30)], HOW):
        texts = [row.response if isinstance(row, Seed) else row.target for row in (one, two)]
        assert {own, other} != set(texts)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (seed("What is the capital of France?", "Paris"), seed("What is 2 + 3?", "5")),
        (query("Does it follow? It rains.", "yes"), query("Is the moon a cheese?", "no")),
        (
            seed("Summarise the text.", "It is on rivers.", "The Rhine flows north to the sea."),
            seed("Summarise the text.", "Bees dance well.", "Honey comes out of busy hives."),
        ),
        (seed("法国的首都是哪里？", "巴黎"), seed("二加三等于多少？", "五")),
    ],
)
def test_answers_to_other_questions_stand_beside_each_other(one: Any, two: Any) -> None:
    assert len(known.draw([one, two], HOW)) == 2


@pytest.mark.parametrize("labels", [("yes", "no"), ("(A)", "(B)", "(C)")])
def test_a_source_of_labels_alone_makes_rows_too(labels: tuple[str, ...]) -> None:
    seeds = [
        s.model_copy(update={"response": labels[i % len(labels)]})
        for i, s in enumerate(numbered(60))
    ]
    rows = known.draw(seeds, HOW)
    assert len(rows) == 20 and all(row.own != row.other for row in rows)


@pytest.mark.parametrize(
    "spoilt",
    [
        seed("What is a river?", ""),
        seed("What is a river?", " \n"),
        seed("What is a river?", "..."),
        seed("", "A stream of water."),
        seed("What is a river?", "It is long. " * 500),
        seed("What is it?", "A river.", "Much text. " * 500),
    ],
)
def test_what_has_no_answer_or_is_long_makes_no_row(spoilt: Seed) -> None:
    assert known.draw([spoilt], HOW) == []
    rows = known.draw([spoilt, *numbered(30)], HOW)
    assert len(rows) == 20 and not any(spoilt.response in (r.own, r.other) for r in rows)


def test_short_answers_come_last() -> None:
    short = [seed(f"{s.instruction} Briefly.", f"w{n}") for n, s in enumerate(numbered(30))]
    words = [seed(f"z{n} y{n} x{n}", " ".join(f"{c}{n}" for c in "abcdef")) for n in range(12)]
    rows = known.draw([*short, *words], HOW)
    assert (
        len(rows) == 20 and [len(row.own.split()) > 1 for row in rows] == [True] * 12 + [False] * 8
    )


# --- measures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worth", "auc"),
    [
        ([(2, 1), (2, 1)], 1.0),
        ([(1, 2), (1, 2)], 0.0),
        ([(1, 1), (1, 1)], 0.5),
        ([(3, 1), (1, 2)], 0.625),  # 3>1, 3>2, 1=1, 1<2
        ([(None, None), (None, None)], 0.5),
        ([(2, None), (2, 1)], 0.75),
        ([(None, 1), (None, 1)], 0.5),
    ],
)
def test_the_auc_is_that_of_a_count_by_hand(worth: list[Any], auc: float) -> None:
    by_hand = [
        0.5 if own is None or other is None or own == other else float(own > other)
        for own, _ in worth
        for _, other in worth
    ]
    assert known.auc(worth) == auc == sum(by_hand) / len(by_hand)


def oracle(rows: list[Row], right: str, wrong: str) -> Callable[[str], Line]:
    """A judge that knows: it says `right` of a row's own answer."""

    def speak(prompt: str) -> Line:
        return right if any(r.question in prompt and r.own in prompt for r in rows) else wrong

    return speak


def of_judge(speak: Callable[[str], Line]) -> dict[str, Any]:
    check = known.check_on(numbered(60), "dolly", HOW)
    judge = Scripted(speak)
    found = {s.id: verdicts.judge(s, 7, judge) for s in check.samples(explained=False)}
    assert len(judge.prompts) == 40
    return check.of_verdicts(found, 7)


ROWS = known.draw(numbered(60), HOW)


@pytest.mark.parametrize(
    ("speak", "auc", "own", "other", "read"),
    [
        (oracle(ROWS, stated("Accept", "6"), stated("Reject", "2")), 1, 1, 0, 1),
        (oracle(ROWS, stated("Reject", "2"), stated("Accept", "6")), 0, 0, 1, 1),
        (oracle(ROWS, stated("Accept", "6"), stated("Accept", "5")), 1, 1, 1, 1),
        (oracle(ROWS, stated("Accept", "1"), stated("Reject", "7")), 1, 1, 0, 1),
        (lambda prompt: stated("Accept", "7"), 0.5, 1, 1, 1),
        (lambda prompt: "I like it.", 0.5, 0, 0, 0),
        (oracle(ROWS, stated("Accept", "6"), ""), 0.5, 1, 0, 0.5),
    ],
)
def test_what_a_judge_is_worth(
    speak: Callable[[str], Line], auc: float, own: float, other: float, read: float
) -> None:
    found = of_judge(speak)
    assert found["known_rows"] == 20 and found["known_auc"] == auc
    assert (found["known_accepted_own"], found["known_accepted_other"]) == (own, other)
    assert found["known_read"] == read
    assert found["known_auc_low"] <= auc <= found["known_auc_high"]


@pytest.mark.parametrize("why", ["too_long", "failed"])
def test_rows_that_were_not_put_to_a_judge_say_nothing_of_it(why: str) -> None:
    knows = oracle(ROWS, stated("Accept", "6"), stated("Reject", "2"))
    half = {row.question for row in ROWS[::2]}

    def speak(prompt: str) -> Line:
        return said("", why) if any(question in prompt for question in half) else knows(prompt)

    found = of_judge(speak)
    assert (found["known_auc"], found["known_read"]) == (1, 1)
    nothing = of_judge(lambda prompt: said("", why))
    assert nothing["known_auc"] is None and nothing["known_read"] is None


def test_an_explanation_is_held_to_the_rows_own_answer() -> None:
    check = known.check_on(world.queries(400, 7), "flan", HOW)
    for row, own, other in zip(
        check.rows, check.samples(True)[::2], check.samples(True)[1::2], strict=True
    ):
        assert own.expected == other.expected == own.response == row.own
        assert other.response == row.other and own.instruction == row.question


@pytest.mark.parametrize(
    ("speak", "auc", "order", "read"),
    [
        (lambda prompt: "[[B]]", 0.5, 1, 1),
        (lambda prompt: "[[C]]", 0.5, 0, 1),
        (lambda prompt: "Both are fine.", 0.5, None, 0),
        ("own", 1, 0, 1),
        ("other", 0, 0, 1),
    ],
)
def test_pairs_are_shown_both_ways(
    speak: Any, auc: float, order: float | None, read: float
) -> None:
    check = known.check_on(numbered(60), "dolly", HOW)
    if isinstance(speak, str):
        side = speak

        def speak(prompt: str) -> Line:
            row = next(r for r in check.rows if r.question in prompt)
            first = prompt.index(getattr(row, side)) < prompt.index("[/Answer A]")
            return "[[A]]" if first else "[[B]]"

    judge = Scripted(speak)
    comparisons = [
        comparison
        for pair in check.pairs
        for comparison in pairwise.compare_answers(pair, check.questions, [81], judge)
    ]
    found = check.of_comparisons(comparisons)
    assert (found["known_auc"], found["known_order"], found["known_read"]) == (auc, order, read)
    assert len(judge.prompts) == 40, "nobody is asked about a second turn"


def test_grades_are_asked_for_one_turn() -> None:
    check = known.check_on(numbered(60), "dolly", HOW)
    judge = Scripted(oracle(check.rows, "Rating: [[9]]", "Rating: [[2]]"))
    done = [
        (answers, verdicts.grade_answers(answers, check.questions, [81], judge))
        for answers in check.answers
    ]
    of_rows, others = known.separate(done)
    assert others == [] and len(judge.prompts) == 40
    assert check.of_grades(of_rows)["known_auc"] == 1
    assert known.job_name(check.answers[3]) == "known/1/other"
    assert known.pair_job_name(check.pairs[2]) == "known/2/both"


def test_a_question_of_any_number_keeps_its_grades() -> None:
    check = known.check_on(numbered(60), "dolly", HOW)
    asked = {id: world.questions(1, 7)[0].model_copy(update={"question_id": id}) for id in (-3, 0)}
    questions, grader = asked | check.questions, Scripted(lambda prompt: "[[5]]")
    jobs = [
        check.answers[0].model_copy(update={"question_id": id, "turns": ["a", "b"]}) for id in asked
    ]
    done = [
        (one, verdicts.grade_answers(one, questions, [], grader)) for one in [*check.answers, *jobs]
    ]
    of_rows, others = known.separate(done)
    assert [g.question_id for g in others] == [-3, -3, 0, 0] and len(of_rows) == 80
    assert [known.job_name(one) for one in jobs] == ["-3", "0"]


def test_hostile_seeds_open_and_close_nothing() -> None:
    seeds = [seed(f"{s.instruction} {ATTACK}", f"{s.response} {ATTACK}") for s in numbered(40)]
    check = Check(HOW, "", 2, [Row(s.instruction, s.response, ATTACK) for s in seeds[:2]])
    for sample in check.samples(explained=True):
        system, row = verdicts.question(sample, 7)
        assert row.content.count("</generated>") == 1 and ATTACK not in system.content


# --- the stages ----------------------------------------------------------------------------------


def settings(**changed: Any) -> None:
    """Change `known` in params.yaml of the current folder; `off=True`: null."""
    with parameters.changed(Path()) as document:
        document["known"] = None if changed.pop("off", False) else document["known"] | changed


def ready(stage: str) -> Callable[[], None]:
    """Write what the stage needs; a function that runs it."""
    if stage == "judge":
        generate.main("lamini")
        return lambda: judge.main("lamini")
    rows = world.model_answers(world.questions(16, 7), 7)[:16]
    named = [row.model_copy(update={"model": "base"}) for row in rows]
    write_jsonl("data/mt_answer/base/answers.jsonl", named)
    write_jsonl("data/mt_answer/sft/answers.jsonl", better(rows))
    return (
        (lambda: mt_grade.main("base")) if stage == "mt_grade" else lambda: mt_compare.main("sft")
    )


METRICS = {"judge": "judge/lamini", "mt_grade": "mt_grade/base", "mt_compare": "mt_compare/sft"}
EMPTY = {"judge": stated("Accept", "6"), "mt_grade": "Rating: [[1]]", "mt_compare": "[[B]]"}


def measured(stage: str) -> dict[str, Any]:
    found = read(f"metrics/{METRICS[stage]}.json")
    return next(iter(found["members"].values())) if stage == "judge" else found


each_stage = pytest.mark.parametrize("stage", METRICS)


@pytest.mark.slow
@each_stage
def test_the_simulated_judge_is_better_than_a_coin(
    tree: Path,  # noqa: F811
    stage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ready(stage)()
    found = measured(stage)
    assert found["known_rows"] == 20 and found["known_auc"] > 0.9 and found["known_read"] > 0.8
    assert found["known_auc_low"] > 0.7 and "coin" not in capsys.readouterr().err


@each_stage
@pytest.mark.slow
def test_below_the_line_a_stage_warns_and_goes_on(
    tree: Path,  # noqa: F811
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ready(stage)
    says(monkeypatch, EMPTY[stage])
    run()
    errors = capsys.readouterr().err
    assert re.search(
        rf"^warning: {stage}@\w+, world-judge: tells right answers from wrong ones with an AUC of "
        r"0\.50 \(0\.50 to 0\.50; a coin has 0\.50\) on 20 rows of data/fetch/dolly, 100% of its "
        r"replies read",
        errors,
        re.MULTILINE,
    )
    assert ("the order decided 100%" in errors) == (stage == "mt_compare")
    assert measured(stage)["known_auc"] == 0.5


@pytest.mark.slow
@each_stage
def test_below_the_line_a_stage_may_stop_before_it_asks_about_anything_else(
    tree: Path,  # noqa: F811
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = ready(stage)
    settings(below="stop")
    asked = Scripted(lambda prompt: EMPTY[stage])
    monkeypatch.setattr(llm, "connect", lambda *_: asked)
    with pytest.raises(BadInput, match=r"AUC of 0\.50 .* go on with known\.below: warn"):
        run()
    assert len(asked.prompts) == 40
    assert measured(stage)["known_auc"] == 0.5
    replies = lines(f"data/{METRICS[stage]}/replies.jsonl")
    assert len(replies) == 40 and all(r["job"].startswith("known/") for r in replies)


@each_stage
@pytest.mark.slow
def test_above_the_line_a_stage_that_may_stop_writes_what_one_that_may_not_does(
    tree: Path,  # noqa: F811
    stage: str,
) -> None:
    run = ready(stage)

    def outs() -> dict[str, bytes]:
        paths = [*Path(f"data/{METRICS[stage]}").iterdir(), Path(f"metrics/{METRICS[stage]}.json")]
        return {path.name: path.read_bytes() for path in paths}

    run()
    before = outs()
    settings(below="stop")
    run()
    assert outs() == before


@each_stage
@pytest.mark.slow
def test_it_can_be_turned_off(tree: Path, stage: str) -> None:  # noqa: F811
    run = ready(stage)
    settings(off=True)
    run()
    found = measured(stage)
    assert {value for key, value in found.items() if key.startswith("known_")} == {None}
    replies = lines(f"data/{METRICS[stage]}/replies.jsonl")
    assert replies and not any(r["job"].startswith("known/") for r in replies)
    counted = forecast.forecast(params.load(), Path("data/fetch"))
    row = next(r for r in counted if r.stage == METRICS[stage].replace("/", " "))
    assert row.calls <= 4 * 16 * 1.1 or (stage == "judge" and row.calls == len(replies))


@each_stage
@pytest.mark.parametrize("seeds", ["three", "none", "absent", "unanswered"])
@pytest.mark.slow
def test_where_seeds_are_too_few_it_says_so_and_goes_on(
    tree: Path,  # noqa: F811
    stage: str,
    seeds: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ready(stage)
    settings(below="stop")
    rows = numbered(30)
    path = Path("data/fetch/dolly/seeds.jsonl")
    if seeds == "absent":
        path.unlink()
    else:
        had = {"three": rows[:3], "none": [], "unanswered": [seed("Why?", "")] * 30}
        write_jsonl(path, had[seeds])
    run()
    n = 3 if seeds == "three" else 0
    assert (
        f"world-judge: not checked for being better than a coin: data/fetch/dolly has {n} rows"
        in capsys.readouterr().err
    )
    found = measured(stage)
    assert found["known_rows"] == n and found["known_auc"] is found["known_read"] is None


@pytest.mark.slow
def test_every_member_of_a_panel_is_checked_for_itself(
    tree: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    generate.main("lamini")
    judged_by(simulated("world-judge"), simulated("form-judge"))
    real = embedded.connect("world-judge")
    yes = Scripted(lambda prompt: stated("Accept", "7"))
    monkeypatch.setattr(
        llm, "connect", lambda endpoint, *_: real if endpoint.model == "world-judge" else yes
    )
    judge.main("lamini")
    errors = capsys.readouterr().err
    assert "judge@lamini, form-judge: tells right" in errors and "world-judge: tells" not in errors
    members = read("metrics/judge/lamini.json")["members"]
    assert members["world-judge"]["known_auc"] > 0.9 > members["form-judge"]["known_auc"] == 0.5
    assert members["form-judge"]["known_accepted_other"] == 1
    assert read("data/judge/lamini/known.json")["form-judge"]["known_auc"] == 0.5


@pytest.mark.slow
def test_it_is_paid_once_for_all_schemes_of_the_same_seeds(
    tree: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-test")
    for scheme in ("lamini", "evol_instruct"):
        generate.main(scheme)
    with serving(speak=lambda prompt: stated(), served=("m",)) as (model, url):
        judged_by(openai(url, concurrency=50).model_dump())
        judge.main("lamini")
        first = {prompt for prompt, n in model.paid.items() if n}
        judge.main("evol_instruct")
        assert set(model.paid.values()) == {1}, "nothing twice"
    spent = read("metrics/judge/evol_instruct_spending.json")
    assert spent["calls"] == len(
        {r["reply"]["key"] for r in lines("data/judge/evol_instruct/replies.jsonl")}
    )
    asked = {
        "\n\n".join(m["content"] for m in r["messages"])
        for r in lines("data/judge/evol_instruct/replies.jsonl")
        if r["job"].startswith("known/")
    }
    assert len(asked) == 40 and asked <= first


# --- params --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_params_yaml_written_before_it_is_told_what_dvc_misses(tree: Path) -> None:  # noqa: F811
    with parameters.changed(Path()) as document:
        del document["known"]
    with pytest.raises(BadInput, match=r"known: missing, and dvc\.yaml names it; it may be null"):
        params.load()
    with parameters.changed(Path()) as document:
        document["known"] = None
    assert params.load().known is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"rows": 3}, r"known\.rows: 3 is not usable; 8 or more is wanted"),
        ({"least_auc": 7}, r"known\.least_auc: 7 is not usable; 1\.0 or less is wanted"),
        ({"below": "halt"}, r"known\.below: .*'warn' or 'stop'"),
        ({"row": 9}, r"known\.row: no such parameter; did you mean 'rows'"),
    ],
)
def test_a_wrong_setting_is_told(tree: Path, changed: dict[str, Any], fault: str) -> None:  # noqa: F811
    settings(**changed)
    with pytest.raises(BadInput, match=fault):
        params.load()
