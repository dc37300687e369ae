"""What judges are shown, and strict reading of what they say."""

import ast
import re
from collections.abc import Sequence

import pytest

from bezoar.judging import verdicts
from bezoar.rows.files import BadInput
from bezoar.rows.records import Answers, Exchange, Grade, Message, Question, Reply
from bezoar.sources import readers
from tests.builders.rows import ATTACK, form, question, sample, stated
from tests.builders.scripted import Line, Scripted, said
from tests.conftest import DATA

MT_BENCH = DATA / "mt_bench/model_answer"


# --- verdicts on samples -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "status", "rating"),
    [
        (stated(), "accepted", 6),
        (stated("Reject", "1"), "rejected", 1),
        (stated("accept", " 7 "), "accepted", 7),
        (f"Let me see.\n```\n{stated()}\n```", "accepted", 6),
        ("<REASON>Fine.</REASON><Rating>5</Rating><STATUS>\nREJECT\n</STATUS>", "rejected", 5),
        (stated("Reject", "1") + stated(), "accepted", 6),
        (f"Not {stated('Reject', '1')} but\n\n**{stated()}**", "accepted", 6),
        (f"<status>Reject</status>, or rather:\n{stated()}", "accepted", 6),
        (stated(reason="Fine.").replace("\n", " \n\t "), "accepted", 6),
        (form(), "accepted", 6),
        (f"```json\n{form(status='reject', rating=1)}\n```", "rejected", 1),
        (f"{form(rating=2)} I mean {form()}", "accepted", 6),
        (f"{stated('Reject', '1')}\n{form()}", "accepted", 6),
        (f"{form(status='Reject', rating=1)}\n{stated()}", "accepted", 6),
    ],
)
def test_a_verdict_is_read(reply: str, status: str, rating: int) -> None:
    verdict = verdicts.verdict(sample(), said(reply), 7)
    assert (verdict.id, verdict.status, verdict.rating) == ("a-1", status, rating)
    assert verdict.reason == "Fine." and verdict.reply == reply
    assert verdict.judge == "scripted" and verdict.simulated


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "blank"),
        (" \n\t", "blank"),
        ("...", "blank"),
        (said("", "refused"), "refused"),
        (said(stated(), "length"), "truncated"),
        ("Accept, 7: good.", "status: does not stand"),
        (stated("Maybe"), "status: neither"),
        (stated("Accept|Reject"), "status: neither"),
        (stated(""), "status: neither"),
        (stated(rating="8"), "rating: no whole number from 1 to 7"),
        (stated(rating="0"), "rating: no"),
        (stated(rating="-3"), "rating: no"),
        (stated(rating="6.5"), "rating: no"),
        (stated(rating="6/10"), "rating: no"),
        (stated(rating="six"), "rating: no"),
        (stated(rating="⁶"), "rating: no"),
        (stated(rating="9" * 5000), "rating: no"),
        (stated(rating=""), "rating: no"),
        (stated(reason=" "), "reason: empty"),
        (f"{stated()}{stated()} So be it.", "status: does not stand"),
        (f"{stated()}<rating>2</rating><reason>No.</reason>", "rating: does not stand"),
        (stated() + stated(rating="8"), "rating: no whole number from 1 to 7"),
        (stated() + stated("Maybe"), "status: neither"),
        (form(rating=8), "rating: no whole number from 1 to 7"),
        (form(rating=6.0), "rating: no"),
        (form(rating="6"), "rating: no"),
        (form(rating=True), "rating: no"),
        (form(status=None), "status: neither"),
        (form(status="Acceptable"), "status: neither"),
        (form(reason=""), "reason: empty"),
        (form(more=1), "status: does not stand"),
        (form() + " So be it.", "status: does not stand"),
        (f"[{form()}]", "status: does not stand"),
        (form()[:-1] + ', "rating": 7}', "status: does not stand"),
        (form(rating=0).replace("0", "9" * 5000), "status: does not stand"),
        ('{"status": "Accept", "rating": 6}', "status: does not stand"),
        ("x{" * 50_000 + "}", "status: does not stand"),
        ('{"a":' * 50_000 + "}", "status: does not stand"),
        (stated() + "<status>Reject</status>", "status: does not stand"),
        (stated(reason="It says <status>Accept</status>."), "status: does not stand"),
        (stated(reason="ok <rating>7"), "rating: does not stand"),
        ("</status>Accept<status>" + stated()[23:], "status: does not stand"),
        (stated().removesuffix("Fine.</reason>"), "reason: empty"),
        ("<status>" * 12_500, "status: does not stand"),
        ("a" * 100_000, "status: does not stand"),
    ],
)
def test_any_other_reply_is_undecided_and_says_why(reply: Line, why: str) -> None:
    verdict = verdicts.verdict(sample(), said(reply) if isinstance(reply, str) else reply, 7)
    assert (verdict.status, verdict.rating) == ("undecided", None)
    assert verdict.reason.startswith(why)


def test_the_schema_takes_what_the_parser_takes() -> None:
    schema = verdicts.schema(5)
    assert schema["required"] == list(schema["properties"]) and not schema["additionalProperties"]
    for status in schema["properties"]["status"]["enum"]:
        for rating in schema["properties"]["rating"]["enum"]:
            accepted, stars, _ = verdicts.parse(said(form(status=status, rating=rating)), 5)
            assert (accepted, stars) == (status == "Accept", rating)
    with pytest.raises(ValueError, match="from 1 to 5"):
        verdicts.parse(said(form(rating=6)), 5)


def test_the_scale_is_the_one_asked_for() -> None:
    judge = Scripted([stated(rating="3"), stated(rating="4")])
    assert verdicts.judge(sample(), 3, judge).status == "accepted"
    assert verdicts.judge(sample(), 3, judge).status == "undecided"
    assert "from 1 (worst) to 3 (best)" in judge.prompts[0]


@pytest.mark.parametrize("expected", ["", "Rhine"])
def test_the_criterion_is_a_system_message_and_the_row_a_user_message(expected: str) -> None:
    row = sample(expected=expected)
    system, user = verdicts.question(row, 7)
    assert (system.role, user.role) == ("system", "user")
    assert "Name a river." in user.content and "The Rhine." in user.content
    form = "<status>...</status>\n<rating>...</rating>\n<reason>...</reason>"
    assert user.content.endswith(form), "a small model keeps a form that it reads last"
    assert ("explanation" in system.content) == bool(expected)
    other = sample(expected=expected, instruction="Name a hill.", response="The Brocken.")
    assert verdicts.question(other, 7)[0] == system, "the criterion is the same for every row"


def test_a_row_with_an_expected_answer_is_judged_as_its_explanation() -> None:
    _, row = verdicts.question(sample(expected="Rhine", context="Rivers: Rhine."), 7)
    prompt = row.content
    assert "<expected>\nRhine\n</expected>" in prompt
    assert "<generated>\nThe Rhine.\n</generated>" in prompt
    assert "<instruction>\nName a river.\n\nInput: Rivers: Rhine.\n</instruction>" in prompt
    assert "<response>" not in prompt


def test_a_row_without_one_is_judged_as_a_response() -> None:
    prompt = verdicts.question(sample(), 7)[1].content
    assert "<response>\nThe Rhine.\n</response>" in prompt and "<expected>" not in prompt


@pytest.mark.parametrize("expected", ["", ATTACK])
def test_what_is_judged_cannot_speak_for_the_judge(expected: str) -> None:
    honest = sample(expected="x" if expected else "")
    bad = sample(instruction=ATTACK, context=ATTACK, response=ATTACK, expected=expected)
    (criterion, shown), (same, attacked) = (verdicts.question(row, 7) for row in (honest, bad))
    assert criterion == same, "nothing of a row comes into the system message"
    prompts = [shown.content, attacked.content]
    for tag in verdicts.TAGS:
        assert prompts[0].count(tag) == prompts[1].count(tag), tag
    assert "$scale" in prompts[1] and "fine‹/response›" in prompts[1]


# --- MT-Bench ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Good. Rating: [[7]]", 7),
        ("Rating: [[ 7 ]]", 7),
        ("Rating: [[8.5]]", 8.5),
        ("[[10]]", 10),
        ("Rating: [[08]]", 8),
        ("Rating: [[7/10]]", 7),
        (r"Rating: \[\[9\]\]", 9),
        ("The answer claims [[10]] for itself. Rating: [[2]]", 2),
        (said("Rating: [[4]] and furth", "length"), 4),
        ("**Rating**: [[6]].\n" + "x" * 100_000, 6),
        ("nums[0] is 3, which is off by one. Rating: [[3]]", 3),
        ("See [1] and [[2, 3]]; `nums[0]` is wrong. Rating: [[8]]", 8),
        ("Rating: [[4]]\n\nOn reflection, rating: [[5]]", 5),
        (r"Rating: \[\[7\]\] out of [10]", 7),
    ],
)
def test_the_last_rating_counts(reply: Line, score: float) -> None:
    got = verdicts.rating(said(reply) if isinstance(reply, str) else reply)
    assert got == (score, "ok")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("", "unparsed"),
        ("Rating: [[95]]", "unparsed"),
        ("Rating: [[0]]", "unparsed"),
        ("Rating: [[-7]]", "unparsed"),
        ("Rating: [[True]]", "unparsed"),
        ("Rating: [[n]]", "unparsed"),
        ("Rating: [[7/100]]", "unparsed"),
        ("Rating: [[7-8]]", "unparsed"),
        ("Rating: [[]]", "unparsed"),
        ("[[7]] no: Rating: [[11]]", "unparsed"),
        ("[[" * 50_000, "unparsed"),
        (said("It is a good", "length"), "truncated"),
        (said("Rating: [[7]]", "refused"), "refused"),
    ],
)
def test_no_number_is_made_up(reply: Line, status: str) -> None:
    assert verdicts.rating(said(reply) if isinstance(reply, str) else reply) == (None, status)


def fastchat(judgment: str) -> float | None:
    """FastChat's rule (llm_judge/common.py): the first number in double brackets, or else in single
    ones; None where it gives -1 or crashes."""
    found = re.search(r"\[\[(\d+\.?\d*)\]\]", judgment) or re.search(r"\[(\d+\.?\d*)\]", judgment)
    try:
        return float(ast.literal_eval(found[1])) if found else None
    except SyntaxError:  # a leading zero
        return None


WELL_FORMED = (
    "The answer is clear, but it leaves the price out. Rating: [[{}]]",
    "Rating: [[{}]]",
    "[[{}]]",
    "Rating: [[{}]].\n\nThe second reason is weak.",
    "1. Fluent.\n2. See [3] and `rows[0]`: off by one.\n\n**Rating: [[{}]]**",
    "It returns [[1, 2], [3, 4]] for `grid[i][0]`. Rating: [[{}]]",
    "I would rate it 3/10 for style and 9 for content.\nRating: [[{}]]",
)


@pytest.mark.parametrize("judgment", WELL_FORMED)
def test_a_well_formed_judgment_is_read_as_by_fastchat(judgment: str) -> None:
    """One number in double brackets, from 1 to 10."""
    grades = [f"{tenths / 10:{form}}" for tenths in range(10, 101) for form in ("g", ".1f", ".4f")]
    for text in (judgment.format(grade) for grade in [*grades, "7."]):
        score = fastchat(text)
        assert score and verdicts.rating(said(text)) == (score, "ok"), text


@pytest.mark.skipif(not MT_BENCH.exists(), reason="needs the answers in ../shared/data/mt_bench")
def test_a_judgment_that_quotes_real_texts_is_read_as_by_fastchat() -> None:
    """No released judgment is at hand as text: those of four models' answers, quoted whole."""
    answers = [row for path in sorted(MT_BENCH.glob("*.jsonl")) for row in readers.answers(path)]
    texts = [text for row in answers for text in row.turns]
    bracketed = 0
    for text in texts:
        judgment = f"The assistant says: {text}\n\nRating: [[6]]"
        assert verdicts.rating(said(judgment)) == (6, "ok")
        bracketed += fastchat(text) is not None
        assert fastchat(judgment) == 6
    assert len(texts) == 640 and bracketed > 0


@pytest.mark.parametrize(
    ("judgment", "theirs", "ours"),
    [
        # a grade that nobody gave
        ("Rating: [[95]]", 95, None),
        ("Rating: [[0]]", 0, None),
        ("[[7]] no: Rating: [[11]]", 7, None),
        # not the grade that was given
        ("It closes with [[10]] itself. Rating: [[2]]", 10, 2),
        ("`nums[0]` is wrong. Rating: 3", 0, 3),
        ("It cites [12]. Rating: 3", 12, 3),
        ("Rating: [[4]]\n\nOn reflection, rating: [[5]]", 4, 5),
        ("`nums[0]` is wrong. Rating: [[ 8 ]]", 0, 8),
        (r"It cites [1]. Rating: \[\[8\]\]", 1, 8),
        # no grade where one was given
        ("Rating: [[ 7 ]]", None, 7),
        ("Rating: [[7/10]]", None, 7),
        (r"Rating: \[\[7\]\]", None, 7),
        ("Rating: [[08]]", None, 8),
    ],
)
def test_where_fastchat_misreads_a_judgment_ours_does_not(
    judgment: str, theirs: float | None, ours: float | None
) -> None:
    assert fastchat(judgment) == theirs
    assert verdicts.rating(said(judgment)) == (ours, "ok" if ours else "unparsed")


def fastchat_choice(judgment: str) -> str | None:
    """FastChat's rule for pairs: [[A]] anywhere, or else [[B]], or else [[C]]."""
    return next((choice for choice in "ABC" if f"[[{choice}]]" in judgment), None)


@pytest.mark.parametrize(
    ("judgment", "theirs", "ours"),
    [
        ("A is right. [[A]]", "A", "A"),
        ("Neither is right. Verdict: [[C]]", "C", "C"),
        ("Assistant A cites [1]; assistant B does not.\n\n[[B]]", "B", "B"),
        ("The answer closes with [[A]] itself. Verdict: [[B]]", "A", "B"),
        ("Verdict: [[ B ]]", None, "B"),
        (r"Verdict: \[\[C\]\]", None, "C"),
    ],
)
def test_choices_beside_fastchats(judgment: str, theirs: str | None, ours: str) -> None:
    assert fastchat_choice(judgment) == theirs
    assert verdicts.choice(said(judgment)) == (ours, "ok")


@pytest.mark.parametrize(
    ("reply", "chosen"),
    [
        ("A is right. Verdict: [[A]]", ("A", "ok")),
        ("Verdict: [[ B ]]", ("B", "ok")),
        (r"Verdict: \[\[C\]\]", ("C", "ok")),
        ("B closes with [[B]] itself. Verdict: [[A]]", ("A", "ok")),
        ("Verdict: [[A/B]]", (None, "unparsed")),
        ("Verdict: [[D]], or A", (None, "unparsed")),
        (said("Both are", "length"), (None, "truncated")),
        (said("Verdict: [[A]]", "refused"), (None, "refused")),
    ],
)
def test_the_last_choice_counts(reply: Line, chosen: tuple[str | None, str]) -> None:
    assert verdicts.choice(said(reply) if isinstance(reply, str) else reply) == chosen


def answers(first: str = "One.", second: str = "Two.") -> Answers:
    return Answers(question_id=81, model="m", turns=[first, second], finish=["stop", "stop"])


def graded(asked: Question, given: Answers, judge: Scripted) -> list[Grade]:
    wanted = verdicts.referenced_ids([asked], ["math"])
    return verdicts.grade_answers(given, {81: asked}, wanted, judge)


def test_two_grades_the_second_seen_with_the_first_turn() -> None:
    judge = Scripted(["Rating: [[4]]", "Rating: [[6]]"])
    grades = graded(question(), answers(), judge)
    assert [(g.turn, g.score, g.status, g.model) for g in grades] == [
        (1, 4, "ok", "m"),
        (2, 6, "ok", "m"),
    ]
    assert [[m.role for m in messages] for messages in judge.messages] == [["system", "user"]] * 2
    assert "[Question]\nFirst?\n[/Question]\n\n[Answer]\nOne.\n[/Answer]" in judge.prompts[0]
    assert "Second?" not in judge.prompts[0]
    for section, text in {
        "Question 1": "First?",
        "Answer 1": "One.",
        "Question 2": "Second?",
        "Answer 2": "Two.",
    }.items():
        assert f"[{section}]\n{text}\n[/{section}]" in judge.prompts[1]
    assert "Reference answer" not in "".join(judge.prompts)


def test_an_empty_answer_is_graded_one_without_asking() -> None:
    judge = Scripted(["Rating: [[6]]"])
    first, second = graded(question(), answers(first=" \n"), judge)
    assert (first.score, first.status, first.judge) == (1, "empty_answer", "rule")
    assert (second.score, second.status) == (6, "ok") and len(judge.prompts) == 1


@pytest.mark.parametrize(
    ("first", "second", "status", "asked"),
    [
        ("It is good.", "Rating: [[6]]", "ok", 2),
        (said("It is", "length"), "Rating: [[6]]", "ok", 2),
        ("It is good.", "Very good.", "unparsed", 2),
        ("It is good.", said("", "refused"), "refused", 2),
        (said("", "refused"), "Rating: [[6]]", "refused", 1),
        ("Rating: [[6]]", "", "ok", 1),
    ],
)
def test_a_reply_without_a_rating_is_asked_for_once_more(
    first: Line, second: Line, status: str, asked: int
) -> None:
    samples = []
    judge = Scripted([first, second])

    def ask(messages: Sequence[Message], sample: int = 0) -> Reply:
        samples.append(sample)
        return judge(messages, sample)

    (_, grade) = verdicts.grade_answers(answers(first=""), {81: question()}, [], ask)
    assert (grade.status, grade.score) == (status, 6 if status == "ok" else None)
    assert samples == list(range(asked)), "the ledger answers an equal request with the same reply"
    assert len(set(judge.prompts)) == 1


def test_a_given_reference_is_shown_where_the_category_wants_one() -> None:
    judge = Scripted(lambda prompt: "Rating: [[6]]")
    graded(question("math", ["r one", "r two"]), answers(), judge)
    assert "[Reference answer]\nr one\n[/Reference answer]" in judge.prompts[0]
    assert "[Reference answer 1]\nr one\n[/Reference answer 1]" in judge.prompts[1]
    assert "[Reference answer 2]\nr two\n[/Reference answer 2]" in judge.prompts[1]
    assert "r two" not in judge.prompts[0] and len(judge.prompts) == 2
    other = Scripted(lambda prompt: "Rating: [[6]]")
    graded(question("writing", ["r one", "r two"]), answers(), other)
    assert "r one" not in "".join(other.prompts)


REFERENCED = verdicts.References(["r one", "r two"], "asked")


@pytest.mark.parametrize("category", ["math", "writing"])
def test_the_judge_answers_each_turn_in_a_request_of_its_own(category: str) -> None:
    judge = Scripted(["r one", "r two", "Rating: [[6]]", "Rating: [[7]]"])
    asked = question(category)
    wanted = verdicts.referenced_ids([asked], "all")
    grades = verdicts.grade_answers(answers(), {81: asked}, wanted, judge)
    first, second = judge.messages[:2]
    assert [(m.role, m.content) for m in first] == [("user", "First?")]
    assert [(m.role, m.content) for m in second] == [
        *(("user", "First?"), ("assistant", "r one")),
        ("user", "Second?"),
    ]
    one, two = judge.prompts[2:]
    assert "[Reference answer]\nr one" in one and "r two" not in one
    assert "[Reference answer 1]\nr one" in two and "[Reference answer 2]\nr two" in two
    assert [(g.score, g.reference) for g in grades] == [(6, "asked"), (7, "asked")]


@pytest.mark.parametrize(
    ("replies", "come"),
    [
        (["", ""], ["missing", "missing"]),
        ([said("r o", "length")] * 2, ["missing", "missing"]),
        ([said("", "refused")], ["missing", "missing"]),
        (["r one", " ", said("r t", "length")], ["asked", "missing"]),
        (["", "r one", "r two"], ["asked", "asked"]),
    ],
)
def test_a_turn_without_the_reference_it_should_have_is_counted_and_named(
    replies: list[Line], come: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    judge = Scripted([*replies, "Rating: [[6]]", "Rating: [[7]]"])
    grades = graded(question("math"), answers(), judge)
    assert [g.reference for g in grades] == come and [g.status for g in grades] == ["ok", "ok"]
    for grade, sheet in zip(grades, judge.prompts[-2:], strict=True):
        assert ("[Reference answer" in sheet) is (grade.reference == "asked")
    missing = come.count("missing")
    measured = verdicts.measure(grades, 1, 3)
    assert measured["without_reference"] == missing
    assert measured["reference_coverage"] == (2 - missing) / 2 and measured["coverage"] == 1
    verdicts.tell_unreferenced("mt_grade@base", grades)
    told = capsys.readouterr().err
    assert ("question 81: judged without the reference answer" in told) is bool(missing)


def test_where_a_reference_came_from_is_kept() -> None:
    judge = Scripted(lambda prompt: "Rating: [[6]]")
    given = graded(question("math", ["r one", "r two"]), answers(), judge)
    assert [g.reference for g in given] == ["given", "given"]
    plain = graded(question("writing"), answers(), judge)
    assert [g.reference for g in plain] == ["not_wanted", "not_wanted"]
    assert verdicts.measure(plain, 1, 3)["reference_coverage"] is None
    # half a reference is none: the judge is asked
    half = graded(question("math", ["r one", " "]), answers(), judge)
    assert [g.reference for g in half] == ["asked", "asked"]


def test_nothing_is_asked_for_answers_that_a_rule_grades() -> None:
    grades = graded(question("math"), answers(first="", second=" "), Scripted([]))
    assert [(g.score, g.reference) for g in grades] == [(1, "not_wanted")] * 2
    judge = Scripted(["r one", "Rating: [[6]]"])
    one, two = graded(question("math"), answers(second=""), judge)
    assert (one.reference, two.reference) == ("asked", "not_wanted")


def test_references_are_for_all_questions_or_for_those_of_some_categories() -> None:
    asked = [
        question(category).model_copy(update={"question_id": id})
        for id, category in enumerate(["writing", "math", "own"])
    ]
    assert verdicts.referenced_ids(asked, "all") == {0, 1, 2}
    assert verdicts.referenced_ids(asked, ["math", "own", "coding"]) == {1, 2}
    with pytest.raises(BadInput, match=r"mt_grade.references: maths: no category .* have coding"):
        verdicts.referenced_ids(asked, ["maths"])


def test_a_reference_that_is_not_there_is_asked_for_once_more() -> None:
    samples = []
    judge = Scripted(["", "r one", "r two"])

    def ask(messages: Sequence[Message], sample: int = 0) -> Reply:
        samples.append(sample)
        return judge(messages, sample)

    assert verdicts.references(question("math"), ask) == REFERENCED
    assert samples == [0, 1, 0]
    refusing = Scripted([said("", "refused")])
    assert verdicts.references(question("math"), refusing).texts == []


def test_requests_made_once_more_are_counted() -> None:
    exchanges: list[Exchange] = []

    def graded_by(script: Sequence[Line], job: str, category: str = "writing") -> None:
        judge = Scripted(script)

        def ask(messages: Sequence[Message], sample: int = 0) -> Reply:
            reply = judge(messages, sample)
            told = {"job": job, "step": len(exchanges), "messages": messages, "reply": reply}
            exchanges.append(Exchange.model_validate(told))
            return reply

        wanted = [81] if category == "math" else []
        verdicts.grade_answers(answers(), {81: question(category)}, wanted, ask)

    def counted() -> int:
        return verdicts.retries(exchanges, verdicts.rating)

    assert counted() == 0
    graded_by(["Rating: [[6]]", "Rating: [[7]]"], "one")
    assert counted() == 0
    graded_by(["Good.", "Rating: [[6]]", said("It", "length"), "Good."], "two")
    assert counted() == 2
    graded_by(["", "r one", "r two", "[[6]]", "[[7]]"], "three", "math")
    assert counted() == 3
    graded_by([said("", "refused"), "Good.", "Good."], "four")
    graded_by(["Rating: [[6]]", "Rating: [[7]]"], "five")
    assert counted() == 4


def heard(reply: Reply) -> float | None:
    messages = [Message(role="user", content="?")]
    return verdicts.ask_and_read(Scripted([reply]), messages, verdicts.rating)[0]


@pytest.mark.parametrize("ending", ["too_long", "failed"])
def test_a_request_that_came_to_nothing_is_neither_read_nor_made_once_more(ending: str) -> None:
    nothing = said("", ending)
    verdict = verdicts.verdict(sample(), nothing, 7)
    assert (verdict.status, verdict.rating, verdict.reason) == ("undecided", None, ending)
    judge = Scripted(["Rating: [[7]]", nothing])
    one, two = graded(question(), answers(), judge)
    assert (one.score, one.status) == (7, "ok"), "the grade of the first turn stays"
    assert (two.score, two.status) == (None, ending) and len(judge.prompts) == 2
    # nor is a text that came with it
    assert heard(said("[[7]]", ending)) is None
    assert verdicts.references(question("math"), Scripted([nothing])).texts == []


def test_an_endpoint_that_has_no_other_text_to_give_is_not_counted_as_asked_again() -> None:
    silent = said("Quite good.").model_copy(update={"key": "0a"})
    judge = Scripted([silent] * 4)
    grades = graded(question(), answers(), judge)
    assert [grade.status for grade in grades] == ["unparsed", "unparsed"]

    def exchanges(*replies: Reply) -> list[Exchange]:
        return [
            Exchange(job="1", step=step, messages=judge.messages[0], reply=reply)
            for step, reply in enumerate(replies)
        ]

    assert verdicts.retries(exchanges(silent, silent), verdicts.rating) == 0
    other = silent.model_copy(update={"key": "0b"})
    assert verdicts.retries(exchanges(silent, other), verdicts.rating) == 1
    unkept = silent.model_copy(update={"key": ""})  # a simulated one is in no ledger
    assert verdicts.retries(exchanges(unkept, unkept), verdicts.rating) == 1


def test_what_is_graded_cannot_speak_for_the_grader() -> None:
    judge = Scripted(lambda prompt: "Rating: [[6]]")
    honest = question("math", ["r", "r"])
    graded(honest, answers(), judge)
    bad = honest.model_copy(update={"turns": [ATTACK, ATTACK], "reference": [ATTACK, ATTACK]})
    graded(bad, answers(ATTACK, ATTACK), judge)
    plain, attacked = judge.prompts[:2], judge.prompts[2:]
    for one, other in zip(plain, attacked, strict=True):
        for section in verdicts.SECTIONS:
            assert one.count(section) == other.count(section), section


def test_an_answer_to_an_unknown_question_is_an_error() -> None:
    with pytest.raises(BadInput, match="question 99"):
        graded(question(), answers().model_copy(update={"question_id": 99}), Scripted([]))
