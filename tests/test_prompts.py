"""Prompts: one golden rendering of every file, blanks, and text that would break out of its place.

After a prompt was reworded on purpose: `BEZOAR_GOLDEN=write pytest tests/test_prompts.py`.
"""

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bezoar import chat, evaluation, pairwise, prompts, schemes, verdicts
from bezoar.files import BadInput
from bezoar.prompts import ROOT, Prompt, fence
from bezoar.records import Answers, Job, Message
from bezoar.schemes import evol_instruct
from tests.scripted import Scripted
from tests.test_schemes import (
    IN_BREADTH,
    dolly,
    evol_job,
    flan,
    lamini_job,
    lamini_params,
    orca_job,
    orca_params,
)
from tests.test_verdicts import question as mt_question
from tests.test_verdicts import sample

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
    "chat/no_answer": evaluation.NO_ANSWER.fill,
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


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_reads_as_its_golden(name: str) -> None:
    folder, _, last = name.rpartition("/")
    if folder == "evol_instruct/operations":
        text = operation(last)
    elif folder == "orca/system":
        text = system(last)
    else:
        text = RENDERED[name]()
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("BEZOAR_GOLDEN") == "write":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text + "\n", encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text + "\n"
    assert Prompt(name).template.template.split("$")[0] in text, "the golden shows the prompt"


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
        assert prompt.count("<example>") == prompt.count("</example>") == 3
        assert re.search(r"\(Category: \w+\)", prompt) and prompt.endswith("\n###RESPONSE:")
        for section in ("###SYSTEM:", "###YOUR TASK:", "###PROVIDED EXAMPLES"):
            assert section in prompt
    assert "Topic: " not in plain
    assert len(re.findall(r"^Topic: .+$", themed, re.MULTILINE)) == 3
    response = RENDERED["lamini/response"]()
    assert response.endswith("Sort.\n\nInput: b a\n\nRESPONSE:")
    assert not response.endswith("###RESPONSE:")


def test_an_examples_input_follows_its_label() -> None:
    seeds = schemes.Seeds(dolly=dolly("closed_qa", 3, context="Two\nlines."))
    job = schemes.load("lamini").plan(seeds, lamini_params(), random.Random(1))[0]
    assert asked("lamini", job, "")[0].count("\nInput: Two\nlines.\n</example>") == 3


@pytest.mark.parametrize(
    "name",
    ["add_constraints", "deepen", "concretize", "increase_reasoning", "complicate_input"],
)
def test_in_depth_prompts_name_their_operation(name: str) -> None:
    prompt = operation(name)
    assert re.findall(r"^Operation: (\w+)$", prompt, re.MULTILINE) == [name]
    assert prompt.startswith("<human>: ") and prompt.endswith("<bot>: #Rewritten Prompt#:")
    assert prompt.count("#Given Prompt#:") == 1 and "10 to 20 words" in prompt


def test_orca_has_the_fifteen_messages_and_they_differ() -> None:
    texts = {n: Prompt(f"orca/system/{n}").fill() for n in range(2, 17)}
    assert len(set(texts.values())) == 15 and not (ROOT / "orca/system/1.txt").exists()
    short = [text for text in texts.values() if len(text.split()) <= 12]
    assert len(short) >= 9, "a small model trains on them"
    assert max(len(text.split()) for text in texts.values()) <= 32
    assert "Part #:" in texts[15] and "Usage:" in texts[15]


# --- filling blanks ------------------------------------------------------------------------------


def test_a_value_is_not_filled_again() -> None:
    filled = Prompt("orca/response").fill(system="$query", query="${target} $$", target="$system")
    assert filled.startswith("$query\n") and "${target} $$" in filled and "\n$system\n" in filled


@pytest.mark.parametrize("values", [{}, {"system": "", "query": ""}, {"more": ""}])
def test_blanks_and_values_must_match(values: dict[str, str]) -> None:
    with pytest.raises(BadInput, match=r"prompts/orca/response\.txt.*'query'.*"):
        Prompt("orca/response").fill(**values)


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
