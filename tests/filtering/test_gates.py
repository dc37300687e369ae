"""Faults that need no model: hand-made rows on both sides of every threshold."""

from typing import Any

import pytest

from bezoar import params
from bezoar.filtering import gates
from bezoar.rows import prompts
from tests.builders.rows import sample
from tests.conftest import ROOT

GATES = params.load(ROOT).filter.gates

ENGLISH = (
    "The river rises in the mountains and runs through four towns before it reaches the sea. "
    "In the spring it is high, for the snow that lies on the hills melts within a few weeks. "
    "People who live on its banks have built their houses on small mounds, and they keep a boat "
    "behind the house. In late summer children can wade from one side of it to the other side."
)


def reason(**changes: Any) -> str | None:
    found = gates.fault(sample(**changes), GATES, ["en"])
    return found.reason if found else None


@pytest.mark.slow
def test_a_good_row_passes() -> None:
    assert reason() is None
    assert reason(instruction="Describe the river.", context=ENGLISH, response=ENGLISH) is None


# --- refusal -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m very sorry, but this is not something that I may answer.",
        "Sorry, I am unable to do that.",
        "I apologize, but I cannot provide such a list.",
        "Unfortunately, I cannot answer without the passage.",
        "I cannot comply.\nAsk something else.",
        "I won't be able to assist you there.",
        "As an AI language model, I don't have feelings.",
        "As a large language model I have no access to the internet.",
        "I do not have access to real-time data.",
        "I don't have enough information.",
    ],
)
def test_an_answer_that_declines_is_a_refusal(text: str) -> None:
    assert reason(response=text) == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "I can't believe how cold the river was, she wrote to her sister.",
        "I'm sorry to hear that. Here is what you can do: call the bank.",
        "Cannot is written as one word.",
        "To decline politely, say: I'm sorry, but I can't come.",
        "As an airline grows, it needs more pilots.",
        "I don't have a brother, but two sisters.",
        "Unfortunately, the bridge was closed in 1970.",
    ],
)
def test_an_answer_that_only_sounds_like_it_is_none(text: str) -> None:
    assert reason(response=text) is None


def test_a_refusal_that_goes_on_for_long_enough_is_an_answer() -> None:
    opening = "I'm sorry, but I can't name one. Here is what I know instead."
    words = [f"word{n}" for n in range(GATES.refusal_words - len(opening.split()))]
    assert reason(response=" ".join([opening, *words[:-1]]) + ".") == "refusal"
    assert reason(response=" ".join([opening, *words]) + ".") is None


def test_an_instruction_may_be_a_refusal_too() -> None:
    assert reason(instruction="I'm sorry, but I cannot create new examples.") == "refusal"


# --- the prompts' markup -------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", prompts.MARKUP)
def test_the_markers_of_a_scheme_stand_in_its_prompts(scheme: str) -> None:
    text = "".join(path.read_text("utf-8") for path in (prompts.ROOT / scheme).rglob("*.txt"))
    for marker in prompts.MARKUP[scheme]:
        assert marker in text and marker in gates.MARKUP


@pytest.mark.parametrize("field", ["instruction", "context", "response"])
def test_markup_that_leaked_is_found(field: str) -> None:
    for mark in gates.MARKUP:
        assert reason(**{field: f"Go on. {mark.upper()} Stop."}) == "leaked_prompt"
    assert reason(**{field: "Operation: three plus four. An example: <b>."}) is None


# --- thoughts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("The tags <think> and </think> mark it.", "thought"),
        ("It is so. </think> And so.", "thought"),
        ("It is [THINK] so.", "thought"),
        ("Use `<think>` there.", None),
        ("```\n<think>\n</think>\n```", None),
        ('The mark "<think>" opens it.', None),
        ("<reasoning>It is so.</reasoning>", None),
        ("I think so.", None),
    ],
)
def test_marks_of_thoughts_that_were_left_in_are_found(text: str, fault: str | None) -> None:
    assert reason(response=text) == fault == reason(instruction=text)


# --- loops ---------------------------------------------------------------------------------------


def test_a_loop_is_found_from_the_threshold_on() -> None:
    n, size = GATES.loop_ngram, 60
    grams = size - n + 1
    for repeats, found in ((0.4, None), (0.6, "loop")):
        fresh = size - round(grams * repeats)
        text = " ".join([*(f"w{i}" for i in range(fresh)), *["again"] * (size - fresh)])
        assert reason(response=text + ".") == found, repeats


@pytest.mark.parametrize(
    "text",
    [
        "The end. " * 20,
        "He went up the hill and down. " * 6,
        "a b c d e f g h i j " * 5,
    ],
)
def test_what_is_said_again_and_again_is_a_loop(text: str) -> None:
    assert reason(response=text) == "loop"


def test_a_short_text_and_a_list_with_one_pattern_are_no_loops() -> None:
    assert reason(response="No, no, no, no, no, no, no, no, no, no.") is None
    listed = "\n".join(f"- {a} is the capital of {b}" for a, b in zip("ABCDEFGH", "IJKLMNOP"))  # noqa: B905
    assert reason(response=listed) is None


# --- cut answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        " and so the river, which had been low all through the summer months, began to",
        "\nThe third reason is that towns along the river had by then been given a new",
        "\n```python\nprint(1)",
    ],
)
def test_an_answer_that_stops_inside_a_sentence_is_cut(end: str) -> None:
    assert reason(response=ENGLISH + end) == "truncated"


@pytest.mark.parametrize(
    "end",
    [
        "",
        ' He said: "Let us go down to the river and look at the boats before dark."',
        "\n- a boat that is long enough for four people and for all that they carry with them",
        "\n3. the bridge that was built by the town when the old ferry had sunk in a storm",
        "\nKind regards,\nthe town clerk",
        "\n```python\nprint(1)\n```",
        "\nThe sum of all of the numbers that stand in the three tables above is equal to 12",
    ],
)
def test_a_whole_answer_may_end_in_many_ways(end: str) -> None:
    assert reason(response=ENGLISH + end) is None


def test_a_short_answer_needs_no_full_stop() -> None:
    words = [f"w{n}" for n in range(GATES.truncated_words - 1)] + ["last"]
    assert reason(response=" ".join(words)) == "truncated"
    assert reason(response=" ".join(words[1:])) is None


# --- other languages -----------------------------------------------------------------------------

OTHERS = {
    "German": "Der Fluss entspringt in den Bergen und fließt durch vier Städte, bevor er das Meer "
    "erreicht. Im Frühling ist er sehr hoch, denn der Schnee auf den Hügeln schmilzt.",
    "French": "Le fleuve prend sa source dans les montagnes et traverse quatre villes. "
    "Au printemps il est très haut, car la neige qui est sur les collines fond.",
    "Spanish": "El río nace en las montañas y pasa por cuatro ciudades antes de llegar al mar. En "
    "primavera está muy alto, como la nieve de los montes se funde con el sol.",
    "Italian": "Il fiume nasce nelle montagne e passa per quattro città. In primavera "
    "è più alto, per la neve che si scioglie sulle colline della valle.",
    "Dutch": "De rivier begint in het gebergte en stroomt door vier steden voor ze de zee bereikt. "
    "In het voorjaar staat het water hoog, want dan smelt de sneeuw op de heuvels.",
    "Russian": "Река начинается в горах и течёт через четыре города к морю.",
}


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("field", ["instruction", "response"])
def test_other_languages_are_told(language: str, field: str) -> None:
    found = gates.fault(sample(**{field: OTHERS[language]}), GATES, ["en"])
    assert found and found.reason == "wrong_language"
    assert found.details == {"field": field, "language": language}


def test_a_language_without_spaces_is_told_by_its_letters() -> None:
    assert reason(response="河流发源于山中，流经四座城市，最后注入大海。") == "wrong_language"


@pytest.mark.parametrize("asked", ["Translate this into German.", "How do you say it in French?"])
def test_an_answer_may_be_in_a_language_that_is_asked_for(asked: str) -> None:
    assert reason(instruction=asked, response=OTHERS["German"]) is None


@pytest.mark.parametrize(
    "text",
    [
        "Le Monde, Die Zeit, El País, La Repubblica",  # too few words to tell
        "no, no, yes, no, yes, no, no, no, yes, no, no, yes, no, no, yes, no, no",
        "Los Angeles Lakers, Los Angeles Clippers, Los Angeles Rams, Los Angeles Kings, "
        "Los Angeles Dodgers, Los Angeles Chargers, Los Angeles Galaxy",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20",
        "αβγδ is Greek for abcd.",
    ],
)
def test_names_numbers_and_short_texts_are_of_no_language(text: str) -> None:
    assert reason(response=text) is None


# --- length --------------------------------------------------------------------------------------


def test_a_row_that_is_too_long_goes_by_the_sum_of_its_texts() -> None:
    row = sample(system="s", instruction="Name it.", context="", response="A word. ")
    rest = sum(map(len, (row.system, row.instruction, row.response)))
    long = "x" * (GATES.characters - rest)
    assert gates.fault(row.model_copy(update={"context": long}), GATES) is None
    found = gates.fault(row.model_copy(update={"context": long + "x"}), GATES)
    assert found == gates.Fault("overlong", {"characters": GATES.characters + 1})


@pytest.mark.parametrize("text", ["", " ", "\0", "\ud7ff\u2028", "```", "𝟙 ﷽", "." * 5000])
def test_odd_texts_break_nothing(text: str) -> None:
    gates.fault(sample(system=text, instruction=text, context=text, response=text), GATES)
