"""Prompts: one golden rendering of every file, blanks, and text that would break out of its place.

After a prompt was reworded on purpose: `BEZOAR_GOLDEN=write pytest tests/rows/test_prompts.py`.
"""

import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bezoar import params, schemes
from bezoar.evaluating import talks
from bezoar.judging import pairwise, verdicts
from bezoar.params import blanks
from bezoar.params.__main__ import main as check_params
from bezoar.preflight import forecast
from bezoar.rows import chat, prompts
from bezoar.rows.files import BadInput
from bezoar.rows.prompts import ROOT, Prompt, fence
from bezoar.rows.records import Answers, Job, Message
from bezoar.schemes import evol_instruct
from tests.builders import parameters
from tests.builders.jobs import (
    IN_BREADTH,
    evol_job,
    lamini_job,
    lamini_params,
    orca_job,
    orca_params,
)
from tests.builders.rows import dolly, flan, sample
from tests.builders.rows import question as mt_question
from tests.builders.scripted import Scripted

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(p.relative_to(ROOT).with_suffix("").as_posix() for p in ROOT.rglob("*.txt"))
ANSWERS = Answers(question_id=81, model="m", turns=["One.", "Two."], finish=["stop", "stop"])


def asked(scheme: str, job: Job, *replies: str) -> list[str]:
    """The prompts that a job sends while the teacher says `replies`."""
    teacher = Scripted(list(replies))
    schemes.attempt(scheme, job, teacher)
    return teacher.prompts


def operation(name: str) -> str:
    step = {"strategy": "in_depth", "operation": name}
    return asked("evol_instruct", evol_job(step, seed=dolly(context="A text.")[0]), "")[0]


def system(number: str) -> str:
    params = orca_params(system_ids={m: [int(number)] for m in ("cot", "niv2", "t0", "flan2021")})
    seeds = schemes.Seeds(flan=flan("cot", "task", 1))
    return asked("orca", schemes.load("orca").plan(seeds, params, random.Random(1))[0], "")[0]


def sheet(reference: list[str], turn: int) -> str:
    return verdicts.sheet(mt_question(), ANSWERS, reference, turn)


def pair(reference: list[str], turn: int) -> str:
    other = ANSWERS.model_copy(update={"model": "n", "turns": ["Uno.", "Due."]})
    return pairwise.sheet(mt_question(), ANSWERS, other, reference, turn)


EXAMPLE = "<example>\nSort.\n\nInput: b a\n</example>"
EVOLVED = ("Harder?", "not equal", "Answer.")
RENDERED: dict[str, Callable[[], str]] = {
    "chat/system": lambda: chat.prompt([Message(role="user", content="Hello.")]),
    "evol_instruct/equality": lambda: asked("evol_instruct", evol_job(), *EVOLVED)[1],
    "evol_instruct/in_breadth": lambda: asked("evol_instruct", evol_job(IN_BREADTH), "")[0],
    "evol_instruct/in_depth": lambda: operation("deepen"),
    "chat/no_answer": talks.NO_ANSWER.fill,
    "evol_instruct/response": lambda: asked("evol_instruct", evol_job(), *EVOLVED)[2],
    "evol_instruct/stop_words": evol_instruct.STOP_WORDS.fill,
    "judge/explanation": lambda: verdicts.question(sample(expected="Rhine"), 7)[1].content,
    "judge/explanation_system": lambda: verdicts.question(sample(expected="Rhine"), 7)[0].content,
    "judge/response": lambda: verdicts.question(sample(context="Rhine, Po"), 7)[1].content,
    "judge/response_system": lambda: verdicts.question(sample(context="Rhine, Po"), 7)[0].content,
    "lamini/example": lambda: asked("lamini", lamini_job(topic_guided=0.0), "")[0],
    "lamini/instructions": lambda: asked("lamini", lamini_job(topic_guided=0.0), "")[0],
    "lamini/response": lambda: asked("lamini", lamini_job(), EXAMPLE, "a b")[1],
    "lamini/topics": lambda: asked("lamini", lamini_job(topic_guided=1.0), "")[0],
    "mt_bench/one_turn": lambda: sheet([], 1),
    "mt_bench/one_turn_reference": lambda: sheet(["r 1", "r 2"], 1),
    "mt_bench/pair_one_turn": lambda: pair([], 1),
    "mt_bench/pair_one_turn_reference": lambda: pair(["r 1", "r 2"], 1),
    "mt_bench/pair_system": pairwise.SYSTEM.fill,
    "mt_bench/pair_two_turns": lambda: pair([], 2),
    "mt_bench/pair_two_turns_reference": lambda: pair(["r 1", "r 2"], 2),
    "mt_bench/system": verdicts.SYSTEM.fill,
    "mt_bench/two_turns": lambda: sheet([], 2),
    "mt_bench/two_turns_reference": lambda: sheet(["r 1", "r 2"], 2),
    "orca/response": lambda: asked("orca", orca_job(), "")[0],
}


def rendered(name: str) -> str:
    """What a model is sent of a prompt file, with all that stands around it."""
    folder, _, last = name.rpartition("/")
    if folder == "evol_instruct/operations":
        return operation(last)
    return system(last) if folder == "orca/system" else RENDERED[name]()


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_reads_as_its_golden(name: str) -> None:
    text = rendered(name)
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("BEZOAR_GOLDEN") == "write":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text + "\n", encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text + "\n"
    assert Prompt(name).text.split("$")[0] in text, "the golden shows the prompt"


def test_no_golden_is_left_over() -> None:
    assert [
        p.relative_to(GOLDEN).with_suffix("").as_posix() for p in sorted(GOLDEN.rglob("*.txt"))
    ] == NAMES


# --- the marks by which a model knows a prompt ---------------------------------------------------


def test_no_blank_is_left_open() -> None:
    for path in GOLDEN.rglob("*.txt"):
        assert not re.search(r"\$\w", path.read_text(encoding="utf-8")), path


def test_lamini_prompts_hold_their_marks() -> None:
    plain, themed = RENDERED["lamini/instructions"](), RENDERED["lamini/topics"]()
    for prompt in (plain, themed):
        assert len(re.findall(r"<example>\n(.+?)\n</example>", prompt, re.DOTALL)) == 3
        assert prompt.count("<example>\n") == prompt.count("\n</example>") == 3
        assert "must begin with <example> and end with </example>" in prompt
        assert re.search(r"\(Category: \w+\)", prompt) and prompt.endswith("\n###RESPONSE:")
        for section in ("###SYSTEM:", "###YOUR TASK:", "###PROVIDED EXAMPLES"):
            assert section in prompt
    assert "Topic: " not in plain
    assert len(re.findall(r"^Topic: .+$", themed, re.MULTILINE)) == 3
    response = RENDERED["lamini/response"]()
    assert response.startswith("SYSTEM:\n") and 'must not use "###"' in response
    assert response.endswith("\n\nINSTRUCTION:\nSort.\n\nInput: b a\n\nRESPONSE:")
    assert not response.endswith("###RESPONSE:")


def test_an_examples_input_follows_its_label() -> None:
    seeds = schemes.Seeds(dolly=dolly("closed_qa", 3, context="Two\nlines."))
    job = schemes.load("lamini").plan(seeds, lamini_params(), random.Random(1))[0]
    assert asked("lamini", job, "")[0].count("\nInput: Two\nlines.\n</example>") == 3


@pytest.mark.parametrize(
    "name",
    ["add_constraints", "deepen", "concretize", "increase_reasoning", "complicate_input"],
)
def test_in_depth_prompts_say_what_their_operation_does_and_not_its_name(name: str) -> None:
    prompt = operation(name)
    assert Prompt(f"evol_instruct/operations/{name}").text in prompt
    assert "Operation" not in prompt and (name == "deepen" or name not in prompt)
    assert prompt.startswith("<human>: ") and prompt.endswith("<bot>: #Rewritten Prompt#:")
    assert prompt.count("#Given Prompt#:") == 1 and "10 to 20 words" in prompt


def test_orca_has_the_fifteen_messages_and_they_differ() -> None:
    texts = {n: Prompt(f"orca/system/{n}").fill() for n in range(2, 17)}
    assert len(set(texts.values())) == 15 and not (ROOT / "orca/system/1.txt").exists()
    assert max(len(text.split()) for text in texts.values()) <= 50, "a small model trains on them"


# What each message asks for, by a word of ours (RECIPE: Orca's Table 2, in other words).
BRIEFS = {
    2: ("in detail", "need not search"),
    3: ("task", "long, detailed"),
    4: ("helpful", "five-year-old"),
    5: ("follow instructions very well", "all the help"),
    6: ("find information", "in detail", "need not search"),
    7: ("task", "as faithfully as you can", "step by step", "justify each step"),
    8: ("Describe the task", "explain", "answers first", "others are wrong", "five-year-old"),
    9: ("definition leads to the answer",),
    10: (
        "an assistant",
        "Describe the task",
        "explain",
        "answers first",
        "others are wrong",
        "outside knowledge",
    ),
    11: ("find information", "faithful", "step by step", "justify each step"),
    12: ("task with an instruction", "faithfully", "step by step", "justify each step"),
    13: ("teacher", "what the task asks", "guidelines", "lead to the answer"),
    14: ("every language", "translate", "the task and its guidelines", "solve", "were used"),
    15: (
        "a definition and a sample",
        "into parts",
        "example that meets its criteria",
        "say why it meets them",
        "\nPart #: ",
        "\nUsage: ",
    ),
    16: ("find information",),
}


@pytest.mark.parametrize("number", BRIEFS)
def test_an_orca_message_holds_its_whole_brief(number: int) -> None:
    text = Prompt(f"orca/system/{number}").fill()
    assert [words for words in BRIEFS[number] if words not in text] == []
    assert number != 10 or "five" not in text


def test_orcas_prompt_has_its_parts_in_the_papers_order() -> None:
    text = RENDERED["orca/response"]()
    parts = ("#Task:\n", "#Correct answer:\n", "Let the correct answer guide you", "#Response:")
    places = [text.index(part) for part in parts]
    assert places[0] > 0 and places == sorted(places) and text.endswith(parts[-1])


def test_the_default_system_message_speaks_of_instruction_input_and_response() -> None:
    text = Prompt("chat/system").fill()
    for word in ("instruction", "task", "input", "context", "completes the request"):
        assert word in text


# --- filling blanks ------------------------------------------------------------------------------


def test_a_value_is_not_filled_again() -> None:
    filled = Prompt("orca/response").fill(system="$query", query="${target} $$", target="$system")
    assert filled.startswith("$query\n") and "${target} $$" in filled and "\n$system\n" in filled


# --- a user's own wording ------------------------------------------------------------------------


def told() -> dict[str, tuple[list[str], list[str]]]:
    """The blanks that docs/prompts.md says a file must hold, and may hold."""
    page = (ROOT.parent / "docs/prompts.md").read_text(encoding="utf-8")
    table: dict[str, tuple[list[str], list[str]]] = {}
    for files, must, may in re.findall(
        r"^\| (`\w+/.+?) \| (.*?) ?\| (.*?) ?\| ", page, re.MULTILINE
    ):
        blanks = (re.findall(r"\$(\w+)", must), re.findall(r"\$(\w+)", may))
        table |= dict.fromkeys(re.findall(r"`(\S+?)`", files), blanks)
    every = table.pop("orca/system/ID")
    return table | {name: every for name in NAMES if name.startswith("orca/system/")}


TABLE = told()
LITERAL = "Own words: $5, 5$, US$ 5, $x^2$, $$, ${ and $PATH."


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of prompts/ that the code reads instead."""
    shutil.copytree(ROOT, tmp_path / "prompts")
    monkeypatch.setattr(prompts, "ROOT", tmp_path / "prompts")
    return tmp_path / "prompts"


def reworded(name: str, blanks: Sequence[str]) -> str:
    return "\n".join([LITERAL, *(f"[{blank}]${{{blank}}}[end]" for blank in blanks)])


def test_the_page_has_every_prompt_and_its_blanks() -> None:
    assert sorted(TABLE) == NAMES
    for name, (must, may) in TABLE.items():
        assert set(must) <= Prompt(name).blanks <= {*must, *may}, name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_own_words_need_no_more_blanks_than_the_page_says(name: str, own: Path) -> None:
    must, may = TABLE[name]
    for held in (must, [*must, *may]):
        text = reworded(name, held)
        (own / f"{name}.txt").write_text(text, encoding="utf-8")
        prompts._read_file.cache_clear()
        sent = rendered(name)
        assert LITERAL in sent, "a dollar sign is text"
        for blank in held:
            assert f"[{blank}]$" not in sent and f"[{blank}]" in sent


@pytest.mark.parametrize(
    ("name", "blank"), [(name, blank) for name in NAMES for blank in TABLE[name][0]]
)
def test_a_text_that_would_not_show_the_row_is_refused(name: str, blank: str, own: Path) -> None:
    left = [other for other in TABLE[name][0] if other != blank]
    (own / f"{name}.txt").write_text(reworded(name, left), encoding="utf-8")
    with pytest.raises(BadInput, match=rf"prompts/{name}\.txt: lacks \${blank} .*put \${blank} "):
        rendered(name)


def test_an_operation_may_have_a_prompt_of_its_own(own: Path) -> None:
    whole = "<human>: Deepen $prompt\n<bot>: #Rewritten Prompt#:"
    (own / "evol_instruct/operations/deepen.txt").write_text(whole, encoding="utf-8")
    (own / "evol_instruct/in_depth.txt").write_text("Rewrite $prompt", encoding="utf-8")
    given = "Ask number 0 of open_qa?\n\nInput: A text."
    assert operation("deepen") == whole.replace("$prompt", given)
    with pytest.raises(
        BadInput, match=r"in_depth\.txt: lacks \$method.*whole prompt into prompts/"
    ):
        operation("concretize")


def test_a_guided_call_may_have_a_prompt_of_its_own(own: Path) -> None:
    (own / "lamini/instructions.txt").write_text("Five more like $examples", encoding="utf-8")
    plain = RENDERED["lamini/instructions"]()
    assert plain.startswith("Five more like <example>\nAsk") and "Topic" not in plain
    with pytest.raises(BadInput, match=r"lacks \$topics.*lamini/topics\.txt.*topic_guided: 0\.0"):
        RENDERED["lamini/topics"]()
    whole = "On $topics, five more like\n$examples"
    (own / "lamini/topics.txt").write_text(whole, encoding="utf-8")
    prompts._read_file.cache_clear()
    guided = RENDERED["lamini/topics"]()
    assert guided.startswith("On Topic: ") and guided.count("<example>") == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Say $instrucion.", r"lacks \$instruction \(blanks found: \$instrucion\)"),
        ("Say $Instruction.", r"lacks \$instruction \(blanks found: \$Instruction\)"),
        ("Say {instruction}.", r"lacks \$instruction \(blanks found: none\)"),
        ("Say $$instruction.", r"lacks \$instruction \(blanks found: none\)"),
        (
            "$instruction $response 1 to $scael",
            r"\$scael is no blank; did you mean \$scale\?",
        ),
    ],
)
def test_a_misspelt_blank_is_named(text: str, says: str, own: Path) -> None:
    (own / "judge/response.txt").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=rf"prompts/judge/response\.txt(?::1)?: {says}"):
        rendered("judge/response")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\xff\xfeS\x00a\x00", "is no UTF-8 text"), (None, "there is no such prompt file")],
)
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, says: str, own: Path) -> None:
    path = own / "judge/response.txt"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(BadInput, match=rf"prompts/judge/response\.txt: {says}"):
        rendered("judge/response")


def test_a_file_from_another_editor_is_read(own: Path) -> None:
    text = "\ufeff<human>: $prompt\r\n<bot>:\r\n".encode()
    (own / "evol_instruct/response.txt").write_bytes(text)
    assert rendered("evol_instruct/response") == "<human>: Harder?\n<bot>:"


def test_a_name_that_is_no_blank_is_sent_as_text_and_told(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "$operation: $prompt costs $price, not $$prompt\n$method"
    (own / "evol_instruct/in_depth.txt").write_text(text, encoding="utf-8")
    prompts._report_unknown.cache_clear()
    assert operation("deepen").startswith("deepen: Ask number 0 of open_qa?")
    assert operation("deepen").endswith(f"costs $price, not $prompt\n{METHOD}")
    said = "prompts/evol_instruct/in_depth.txt: no blank, sent as text: $price (line 1)\n"
    assert capsys.readouterr().err == said


METHOD = Prompt("evol_instruct/operations/deepen").text


@pytest.mark.slow
def test_preflight_finds_a_prompt_that_shows_no_row(own: Path) -> None:
    (own / "evol_instruct/equality.txt").write_text("Equal? $first", encoding="utf-8")
    p = params.load(profile="local").model_copy(update={"fetch": params.load().fetch})
    with pytest.raises(BadInput, match=r"equality\.txt: lacks \$second"):
        forecast.estimate(p)


# --- a look at all files before a run ------------------------------------------------------------


def test_the_check_knows_the_blanks_of_every_file_and_finds_nothing_odd() -> None:
    for name, (must, may) in TABLE.items():
        assert blanks.listed(name) == (set(must), set(may)), name
    seen = blanks.look()
    assert (seen.faults, seen.notes) == ([], [])


def test_the_check_names_each_fault_of_each_file_in_a_line(own: Path) -> None:
    texts = {
        "judge/response": "\n\nRate $instruction\nfrom 1 to $scael, for $5 or $10",
        "mt_bench/one_turn": "\n",
        "chat/system": "",
        "evol_instruct/response": "Own words.\n<human>: $prompt costs $price\n<bot>:",
        "lamini/example": "$$instruction",
        "lamini/response": "Only $5 for $instrucion",
    }
    for name, text in texts.items():
        (own / f"{name}.txt").write_text(text, encoding="utf-8")
    (own / "orca/response.txt").write_bytes("Größe $query".encode("cp1252"))
    (own / "judge/explanation.txt").unlink()
    prompts._read_file.cache_clear()
    seen = blanks.look()
    at = "prompts/judge/response.txt"
    for start in (
        f"{at}:4: $scael is no blank; did you mean $scale? ",
        f"{at}: lacks $response (",
        "prompts/mt_bench/one_turn.txt: lacks $answer_1 (",
        "prompts/mt_bench/one_turn.txt: lacks $question_1 (",
        "prompts/lamini/example.txt: lacks $instruction (",
        "prompts/lamini/response.txt:1: $instrucion is no blank; did you mean $instruction? ",
        "prompts/orca/response.txt: is no UTF-8 text",
        "prompts/judge/explanation.txt: there is no such prompt file",
    ):
        assert [line.startswith(start) for line in seen.faults].count(True) == 1, start
    assert len(seen.faults) == 8
    assert seen.notes == [
        f"prompts/chat/system.txt:1: {blanks.EMPTY}",
        "prompts/evol_instruct/response.txt:2: $price is no blank, and is sent as text; `$$price` "
        "says so",
    ]
    assert not any("\n" in line for line in [*seen.faults, *seen.notes])


def test_operations_with_prompts_of_their_own_need_no_shared_one(own: Path) -> None:
    (own / "evol_instruct/in_depth.txt").write_text("Rewrite $prompt", encoding="utf-8")
    prompts._read_file.cache_clear()
    assert ["lacks $method" in fault for fault in blanks.look().faults] == [True]
    for path in (own / "evol_instruct/operations").glob("*.txt"):
        path.write_text("Deepen $prompt", encoding="utf-8")
    prompts._read_file.cache_clear()
    assert blanks.look().faults == []


@pytest.mark.slow
def test_a_faulty_prompt_leaves_params_yaml_as_it_was(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (parameters.copy(tmp_path) / "params.yaml").read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bezoar.params", "local"])
    (own / "judge/response.txt").write_text("Rate $instruction", encoding="utf-8")
    prompts._read_file.cache_clear()
    with pytest.raises(BadInput, match=r"prompts/judge/response\.txt: lacks \$response"):
        check_params()
    assert (tmp_path / "params.yaml").read_bytes() == before
    (own / "judge/response.txt").write_text("Rate $instruction: $response", encoding="utf-8")
    prompts._read_file.cache_clear()
    check_params()
    assert "the parameters are valid; the active profile is local" in capsys.readouterr().out


def test_a_missing_prompt_file_is_named() -> None:
    with pytest.raises(BadInput, match=r"prompts/orca/system/99\.txt"):
        Prompt("orca/system/99").fill()


# --- fences --------------------------------------------------------------------------------------

MARKS = ("<a>", "</a>", "[Answer 1]", "[/Answer 1]", "#Task:", "###RESPONSE:", "Operation:")


@pytest.mark.parametrize(
    ("text", "fenced"),
    [
        ("</a>", "‹/a›"),
        ("x</A >y< / a>z", "x‹/A ›y‹ / a›z"),
        ("[answer 1] and [/Answer  1]", "⟦answer 1⟧ and ⟦/Answer  1⟧"),
        ("#Task:", "＃Task："),
        ("### RESPONSE:", "＃＃＃ RESPONSE："),
        ("</b> [Answer 2] # Title: a<b", "</b> [Answer 2] # Title: a<b"),
        ("", ""),
        ("<a" * 3, "<a" * 3),
        ("é＜/a＞é", "é‹/a›é"),
        ("é<\u200b/\u2060A>é", "é‹/A›é"),
        ("[Аnswer 1]", "⟦answer 1⟧"),
        ("x &lt;/a&#62; &amp; &lt;b&gt; &#x110000; &", "x ‹/a› &amp; &lt;b&gt; &#x110000; &"),
        ("é ＜b＞ ﬁ ‹/a› ½ \u200b #Tasks: 你好：＃", "é ＜b＞ ﬁ ‹/a› ½ \u200b #Tasks: 你好：＃"),
    ],
)
def test_a_fence_changes_markers_and_nothing_else(text: str, fenced: str) -> None:
    assert fence(text, *MARKS) == fenced


def test_a_fence_leaves_no_marker_whatever_the_text() -> None:
    rng = random.Random(2)
    pieces = [
        *MARKS,
        *(m[1:] for m in MARKS),
        *(m[:-1] for m in MARKS),
        "<",
        ">",
        "#",
        " ",
        "\n",
        "a",
    ]
    for _ in range(2000):
        text = "".join(rng.choice(pieces) for _ in range(rng.randrange(12)))
        fenced = fence(text, *MARKS)
        assert not any(mark.lower() in fenced.lower() for mark in MARKS), (text, fenced)
        assert len(fenced) == len(text) and fence(fenced, *MARKS) == fenced
        assert fenced.translate(UNFENCED) == text, "a reader sees what stood there"


UNFENCED = {after: before for before, after in prompts._FENCED.items()}


def test_a_fence_takes_any_length() -> None:
    assert fence("<" * 100_000 + "/a>", *MARKS).endswith("‹/a›")
    assert len(fence("# " * 50_000, *MARKS)) == 100_000
    assert len(fence(" " * 100_000, *MARKS)) == 100_000
