"""A judge or grader of whom little or nothing can be read: a warning by name, or a stop there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bezoar import llm, world
from bezoar.reading import unread
from bezoar.rows.files import BadInput, write_jsonl
from bezoar.rows.records import Reply
from stages import agreement, generate, judge, mt_compare, mt_grade
from tests.builders.folders import (
    better,
    judged_by,
    lines,
    read,
    simulated,
    tree,  # noqa: F401  (a fixture)
)
from tests.builders.rows import stated
from tests.builders.scripted import Line, Scripted, said


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (said("I like it.\nA lot."), "[stop] I like it. A lot."),
        (said("", "length"), "[length] (empty)"),
        (said("\x1b[2J\x1b]0;x\x07\u202eno\u200b"), "[stop] [2J ]0;x no"),
        (said("", "refused").model_copy(update={"raw": "<think>Hm"}), "[refused] <think>Hm"),
        (
            said("", "length").model_copy(update={"thoughts": "Hm"}),
            "[length] (thoughts alone) Hm",
        ),
        (said("ab " * 200), "[stop] " + "ab " * 100 + " … (600 characters)"),
    ],
)
def test_a_reply_is_shown_as_it_came_on_one_line(reply: Reply, line: str) -> None:
    assert unread.format_reply(reply) == line


@pytest.mark.parametrize(("read", "silent"), [(0, 0), (1, 0), (5, 5), (50, 50), (9, 1)])
def test_a_model_that_is_mostly_read_is_left_in_peace(
    read: int, silent: int, capsys: pytest.CaptureFixture[str]
) -> None:
    unread.check("a@b, m", "llm.x", read, ["blank"] * silent, [said("")] * silent)
    assert capsys.readouterr().err == ""


def test_under_half_it_warns_by_name_with_three_replies(capsys: pytest.CaptureFixture[str]) -> None:
    replies = [said(f"Fine {n}.") for n in range(6)]
    unread.check("a@b, m", "llm.x", 4, ["blank"] * 5 + ["truncated"], replies)
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        *(f"a@b, m: a reply that could not be read: [stop] Fine {n}." for n in range(3)),
        "warning: a@b, m: 4 of 10 replies could be read (blank 5, truncated 1); look at the "
        "replies above; another model as llm.x may do better",
    ]


@pytest.mark.parametrize(
    ("reasons", "mend"),
    [
        (["truncated"] * 3 + ["blank"], "raise max_tokens in the params of llm.x"),
        (["too_long"] * 3 + ["blank"], "raise context_tokens of llm.x"),
        (["refused"] * 3 + ["blank"], "another model as llm.x"),
        (["status"] * 3, "another model as llm.x"),
    ],
)
def test_where_nothing_is_read_the_error_says_what_would_be_right(
    reasons: list[str], mend: str
) -> None:
    with pytest.raises(
        BadInput, match=rf"^error: a@b, m: 0 of \d replies .*{mend}.*bought is kept"
    ):
        unread.check("a@b, m", "llm.x", 0, reasons, [])


# --- the stages ----------------------------------------------------------------------------------


def ready(stage: str) -> Callable[[], None]:
    """Write what the stage needs; a function that runs it."""
    if stage.startswith("judge"):
        generate.main("lamini")
        return lambda: judge.main("lamini")
    rows = [a for a in world.model_answers(world.questions(16, 7), 7)[:16] if all(a.turns)]
    named = [row.model_copy(update={"model": "base"}) for row in rows]
    write_jsonl("data/mt_answer/base/answers.jsonl", named)
    write_jsonl("data/mt_answer/sft/answers.jsonl", better(rows))
    return {
        "mt_grade@base": lambda: mt_grade.main("base"),
        "mt_compare@sft": lambda: mt_compare.main("sft"),
        "agreement": agreement.main,
    }[stage]


READ = {
    "judge@lamini": stated("Accept", "6"),
    "mt_grade@base": "Rating: [[6]]",
    "mt_compare@sft": "Verdict: [[A]]",
    "agreement": "Verdict: [[A]]",
}
SILENT: list[Line] = [
    "",
    "I like them all.",
    said("It is", "length"),
    said("", "refused"),
    said("", "too_long"),
]
each_stage = pytest.mark.parametrize("stage", READ)


@pytest.mark.slow
@each_stage
@pytest.mark.parametrize("line", SILENT)
def test_a_stage_that_can_read_nothing_stops_there_and_keeps_what_it_bought(
    tree: Path,  # noqa: F811
    stage: str,
    line: Line,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ready(stage)
    monkeypatch.setattr(llm, "connect", lambda *_: Scripted(lambda prompt: line))
    with pytest.raises(
        BadInput, match=rf"{stage}, world-judge: 0 of \d+ replies .*llm\.(judge|grader)"
    ):
        run()
    shown = capsys.readouterr().err.count("a reply that could not be read")
    sent = not isinstance(line, Reply) or line.finish_reason != "too_long"
    assert shown == (3 if sent else 0)
    name = stage.replace("@", "/")
    assert bool(lines(f"data/{name}/replies.jsonl")) == sent
    assert Path(f"metrics/{name}").is_dir() or read(f"metrics/{name}.json")


@each_stage
@pytest.mark.slow
def test_a_stage_that_reads_few_warns_and_goes_on(
    tree: Path,  # noqa: F811
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ready(stage)

    def speak(prompt: str) -> Line:
        # the same for a prompt however often it comes
        return READ[stage] if sum(map(ord, prompt)) % 4 == 0 else "I like them all."

    monkeypatch.setattr(llm, "connect", lambda *_: Scripted(speak))
    run()
    errors = capsys.readouterr().err
    assert f"warning: {stage}, world-judge: " in errors and " replies could be read (" in errors
    assert errors.count("[stop] I like them all.") == 3


@pytest.mark.slow
def test_one_member_of_a_panel_that_cannot_be_read_stops_the_stage(
    tree: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate.main("lamini")
    judged_by(simulated("world-judge"), simulated("form-judge"))

    def connect(endpoint: Any, *_: Any) -> Scripted:
        line = stated() if endpoint.model == "world-judge" else "Good."
        return Scripted(lambda prompt: line)

    monkeypatch.setattr(llm, "connect", connect)
    with pytest.raises(BadInput, match="judge@lamini, form-judge: 0 of"):
        judge.main("lamini")
    members = read("metrics/judge/lamini.json")["members"]
    assert {who: member["read"] for who, member in members.items()} == {
        "world-judge": 1,
        "form-judge": 0,
    }
    assert lines("data/judge/lamini/votes.jsonl")


@pytest.mark.slow
def test_what_does_not_fit_a_judge_is_counted(
    tree: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate.main("lamini")
    samples = lines("data/generate/lamini/samples.jsonl")
    hit = [s["id"] for s in samples if s["response"] == samples[2]["response"]]
    row = f"<response>\n{samples[2]['response']}\n</response>"

    def speak(prompt: str) -> Line:
        return said("", "too_long") if row in prompt else stated()

    monkeypatch.setattr(llm, "connect", lambda *_: Scripted(speak))
    judge.main("lamini")
    found = {v["id"]: v for v in lines("data/judge/lamini/verdicts.jsonl")}
    assert {id for id, v in found.items() if v["status"] == "undecided"} == set(hit)
    assert found[hit[0]]["reason"] == "too_long" and found[hit[0]]["rating"] is None
    assert read("metrics/judge/lamini.json")["members"]["world-judge"]["too_long"] == len(hit)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["too_long", "failed"])
def test_the_first_turns_word_stays_where_the_second_came_to_nothing(
    tree: Path,  # noqa: F811
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = {stage: ready(stage) for stage in ("mt_grade@base", "mt_compare@sft")}
    for stage, start in run.items():
        line = READ[stage]

        def speak(prompt: str, line: str = line) -> Line:
            return said("", ending) if "[Question 2]" in prompt else line

        monkeypatch.setattr(llm, "connect", lambda *_, s=speak: Scripted(s))
        start()
    graded, compared = read("metrics/mt_grade/base.json"), read("metrics/mt_compare/sft.json")
    assert (graded["turn_1"], graded["turn_2"], graded["coverage"]) == (6, None, 0.5)
    assert graded[ending] == graded["ok"] > 0 and graded["retried"] == 0
    assert compared["inconsistent"] == compared[ending] > 0 and compared["coverage"] == 0.5
    assert compared["read"] == graded["read"] == 0.5
