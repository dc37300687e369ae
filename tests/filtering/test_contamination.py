"""Items of benchmarks in training data: word for word, reworded, and what is neither."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.filtering import contamination, curation
from bezoar.filtering.contamination import Text
from bezoar.params import Decontamination
from bezoar.rows.files import BadInput, write_jsonl
from bezoar.rows.records import Item, ItemText, Message, Pair, Probe, Question, Sample, Seed
from tests.builders.rows import sample
from tests.conftest import DATA, ROOT

PARAMS = params.load(ROOT).filter.contamination
QUIZ = [
    Text("science", "0", "Which of these rocks forms when lava cools down?", ("basalt", "chalk")),
    Text("science", "1", "Why does the moon look larger close to the horizon?", ()),
    Text(
        "stories",
        "9",
        "A woman fills a kettle at the sink and sets it on the stove. She",
        (
            "waits until the water boils and then pours it slowly over the leaves in the old pot.",
            "throws the kettle at a passing dog and dances on the roof of the garden shed.",
        ),
    ),
    Text("chat", "81", "How tall is it?", ()),
]


def found(*rows: Sample, quiz: list[Text] = QUIZ) -> list[list[tuple[str, str, str]]]:
    results = contamination.find(rows, quiz, PARAMS)
    for row, items in zip(rows, results, strict=True):
        assert all(each.id == row.id and 0 < each.score <= 1 for each in items)
    return [[(each.benchmark, each.item, each.kind) for each in items] for items in results]


def test_a_clean_row_holds_nothing() -> None:
    rows = [sample(), sample(instruction="Name a rock.", context="Chalk is white.")]
    assert found(*rows) == [[], []]
    assert found() == []
    assert found(sample(), quiz=[]) == [[]]


@pytest.mark.parametrize("field", ["instruction", "context", "response"])
def test_thirteen_words_of_an_item_are_found_in_any_field(field: str) -> None:
    words = QUIZ[2].choices[0].split()
    for count, wanted in ((13, [("stories", "9", "ngram")]), (12, [])):
        text = f"He said that it {' '.join(words[2 : 2 + count])} and left; nobody knew why."
        hits = [hit for hit in found(sample(**{field: text}))[0] if hit[2] == "ngram"]
        assert hits == wanted, count


def test_case_marks_and_line_breaks_hide_nothing() -> None:
    text = QUIZ[2].choices[0].upper().replace(" ", "\n * ").replace("BOILS", "BOILS,")
    assert ("stories", "9", "ngram") in found(sample(response=text))[0]


def test_words_of_two_fields_make_no_match_together() -> None:
    words = QUIZ[2].choices[0].split()
    row = sample(instruction=" ".join(words[:8]), context=" ".join(words[8:]))
    assert ("stories", "9", "ngram") not in found(row)[0]


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("When lava cools down, which rocks form of these?", "0"),
        ("Say which rocks of these forms when lava cools.", "0"),
        ("Why, close to the horizon, does the moon look larger?", "1"),
        # on a line of its own, in a longer prompt
        (
            "Definition: answer in one sentence, as a teacher would, and give a reason.\n"
            "Input: why close to the horizon does the moon look larger?\nOutput:",
            "1",
        ),
    ],
)
def test_a_reworded_question_is_found(text: str, item: str) -> None:
    assert found(sample(instruction=text)) == [[("science", item, "fuzzy")]]


def test_a_question_with_its_choices_is_found_reworded() -> None:
    text = "Lava cools down: which of these rocks forms, basalt or chalk?"
    assert found(sample(instruction=text)) == [[("science", "0", "fuzzy")]]


@pytest.mark.parametrize(
    "text",
    [
        "Which of these birds sings when the sun goes down?",
        "Why does the road look shorter on the way home?",
        "A man fills a glass at the bar and sets it on a table. He",
        "How tall is it, and how old?",
    ],
)
def test_another_question_of_the_same_make_is_clean(text: str) -> None:
    assert found(sample(instruction=text)) == [[]]


def test_the_best_item_of_a_benchmark_is_named() -> None:
    near = Text("science", "2", "Which of these rocks forms when hot lava slowly cools down?", ())
    row = sample(instruction="Which of these rocks forms when lava cools down?")
    assert found(row, quiz=[near, *QUIZ]) == [[("science", "0", kind) for kind in SAME]]
    twin = QUIZ[0]._replace(id="twin")
    assert found(row, quiz=[twin, *QUIZ]) == [[("science", "twin", kind) for kind in SAME]]


SAME = ("fuzzy", "whole")  # a short question that is the same is found in two ways
HOSTS = ("instruction", "context", "response", "system")


@pytest.mark.parametrize("field", HOSTS)
@pytest.mark.parametrize(
    "text",
    [
        "Which of these rocks forms when lava cools down?",
        "Go through it in steps. Which of these rocks forms when lava cools down? Then explain it.",
        'Somebody asked "which of these rocks forms when lava cools down", and nobody knew.',
        "so which of these rocks forms when lava cools down my friend",
        "WHICH OF THESE ROCKS -- forms\n* when\n* lava cools down:",
        "Which\u200b of the\u00adse rocks for\u2060ms when \u202elava\u202c cools down?",
        "Whi\u0441h \u043ef th\u0435se r\u043ecks forms when l\u0430v\u0430 \u0441ools down?",
        "\uff37hich of these rocks \uff46\uff4f\uff52\uff4d\uff53 when lava cools down\uff1f",
        "\U0001d416hich of these \U0001d42bocks forms when \U0001d425ava cools down?",
        "<p>Which of these <b>rocks</b>&nbsp;forms<br/>when <a href='x'>lava</a> cools down?</p>",
        "Wh\u0131ch of these r\u00f2cks f\u00f6rms when lava c\u03bf\u03bfls d\u03bfwn?",
    ],
)
def test_a_short_question_is_found_whole_wherever_it_stands(field: str, text: str) -> None:
    assert ("science", "0", "whole") in found(sample(**{field: text}))[0]


@pytest.mark.parametrize(
    ("text", "response", "kinds"),
    [
        ("Say it. Why does ice float? Be brief.", "", ["whole"]),  # a sentence of its own
        ("Tell me why does ice float on lakes", "", []),
        ("Tell me why does ice float on lakes", "It is lighter than water.", ["whole"]),
        ("What is it?", "A bird.", ["whole"]),  # beside its answer alone: two items share it
        ("What is it?", "Who knows.", []),
        ("Well, what do you think? Go on.", "", []),  # a turn of a talk is anybody's
        ("What do you think?", "", ["whole"]),  # but not where a row asks nothing else
        ("ice", "It is lighter than water.", []),
    ],
)
def test_very_short_questions_need_more(text: str, response: str, kinds: list[str]) -> None:
    quiz = [
        Text("quiz", "0", "Why does ice float?", ("it is lighter than water", "it is cold")),
        Text("quiz", "1", "What is it?", ("a bird", "a plane")),
        Text("quiz", "2", "What is it?", ("a boat", "a car")),
        Text("talk", "3", "What do you think?", ()),
        Text("quiz", "4", "Ice", ("it is lighter than water",)),
    ]
    (hits,) = found(sample(instruction=text, context="", response=response), quiz=quiz)
    assert [kind for *_, kind in hits] == kinds


@pytest.mark.parametrize(
    "item",
    [
        "下列哪一项是化学变化的例子？",
        "月が地平線の近くで大きく見えるのはなぜですか",
        "ข้อใดเป็นตัวอย่างของการเปลี่ยนแปลงทางเคมี",
        "Почему луна кажется больше у горизонта?",
        "달이 지평선 가까이에서 더 크게 보이는 이유는 무엇입니까?",
        "क्या बर्फ पानी पर तैरती है और क्यों?",
        "ما هو مثال على التغير الكيميائي؟",
    ],
)
def test_other_scripts_are_compared_too(item: str) -> None:
    middle = len(item) // 2
    rows = [f"A: «{item}» B", item[:middle], item[middle:] + " " + item[:middle]]
    hits = found(*(sample(response=row) for row in rows), quiz=[Text("quiz", "0", item, ())])
    assert [bool(each) for each in hits] == [True, False, False]


def test_longer_texts_need_less_likeness() -> None:
    """The thresholds, one after the other: a step counts different words of the shorter text."""
    for step in PARAMS.fuzzy:
        shared = [f"w{n}" for n in range(step.words)]
        quiz = [Text("quiz", "0", " ".join(shared), ()), Text("quiz", "1", "x " * 9, ())]
        likeness = []
        for others in range(3 * step.words):
            row = sample(instruction=" ".join([*shared, *(f"o{n}" for n in range(others))]))
            (hits,) = contamination.find([row], quiz, PARAMS)
            likeness += [hit.score for hit in hits if hit.kind == "fuzzy"]
        assert likeness[0] == 1
        assert step.cosine <= likeness[-1] < step.cosine + 0.06, step
        short = [Text("quiz", "0", " ".join(shared[: PARAMS.fuzzy[0].words - 1]), ())]
        reversed_ = " ".join(short[0].question.split()[::-1])
        assert found(sample(instruction=reversed_), quiz=short) == [[]]


def test_the_blocks_of_a_large_comparison_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    words = [f"w{n}" for n in range(80)]
    quiz = [Text("quiz", str(n), " ".join(rng.sample(words, 14)), ()) for n in range(30)]
    rows = [sample(id=str(n), instruction=" ".join(rng.sample(words, 14))) for n in range(40)]
    rows += [sample(id=text.id, instruction=text.question[3:]) for text in quiz]
    whole = contamination.find(rows, quiz, PARAMS)
    assert sum(map(bool, whole)) >= 30
    monkeypatch.setattr(contamination, "BLOCK", 1)
    assert contamination.find(rows, quiz, PARAMS) == whole


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "\0", "?!", "𝟙" * 40, "word " * 20_000, "\u2028".join("ab")])
def test_odd_texts_break_nothing(text: str) -> None:
    row = sample(instruction=text, context=text, response=text)
    quiz = [*QUIZ, Text("odd", "0", text, (text,))]
    contamination.find([row], quiz, PARAMS)
    contamination.find([row], [Text("odd", "0", text, ())], PARAMS)


def test_seeds_that_hold_an_item_are_told_with_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short question within a longer instruction of a seed."""
    monkeypatch.setattr(contamination, "FETCHED", tmp_path)
    asked = "Which is NOT an example of a chemical change? Go through it in several steps."
    fields = {"context": "", "response": "Ice that melts.", "category": "open_qa"}
    told = {**fields, "source": "s", "licence": "MIT"}
    texts = {"a": asked, "b": "Name a fish.", "unused": asked}
    seeds = [Seed.model_validate({"id": i, "instruction": t, **told}) for i, t in texts.items()]
    write_jsonl(tmp_path / "dolly/seeds.jsonl", seeds)
    question = "Which is NOT an example of a chemical change?"
    quiz = [Text("arc", "7", question, ("ice melting", "wood burning"))]
    rows = [
        sample(id="1", seeds=["a", "b"]),
        sample(id="2", seeds=["a"]),
        sample(id="3", seeds=["b"]),
    ]
    settings = params.load(ROOT)
    (held,) = contamination.find_in_seeds(rows, "lamini", quiz, settings)
    assert (held.id, held.benchmark, held.item, held.rows) == ("a", "arc", "7", 2)
    assert curation.count_contaminated_seeds(rows, [held]) == {
        "contaminated_seeds": 1,
        "rows_of_contaminated_seeds": 2,
    }


def test_what_was_not_looked_at_is_counted() -> None:
    quiz = [
        *QUIZ,
        Text("q", "0", "Ice", ("a",)),
        Text("q", "1", "Why?", ("a",)),
        Text("q", "2", "下列哪一项是化学变化的例子？", ("a",)),
    ]
    told = contamination.count_compared([sample()], quiz, PARAMS)
    assert (told["rows"], told["texts"], told["unsought"], told["by_character"]) == (1, 7, 2, 1)
    assert told["short"] == 1 and told["not_reworded"] == 3
    assert told["scripts_of_texts"] == {"CJK": 1, "LATIN": 6}
    assert told["scripts_of_rows"] == {"LATIN": 1}


# --- what is looked for --------------------------------------------------------------------------


def fill(folder: Path) -> None:
    choice = {"choices": ["a", "b"], "label": 0}
    pair = {"chosen": "Yes.", "rejected": "No.", "source": "s", "licence": "MIT"}
    talk = [("user", "First?"), ("assistant", "Said."), ("user", "Then?")]
    turns = [Message.model_validate({"role": r, "content": c}) for r, c in talk]
    write_jsonl(
        folder / "benchmarks/tasks/own.jsonl",
        [Item.model_validate({"id": "own-0", "question": "Own?", **choice})],
    )
    write_jsonl(
        folder / "benchmarks/texts/mmlu.jsonl",
        [ItemText(id="mmlu_virology/0", question="Its?", choices=["c"])],
    )
    write_jsonl(
        folder / "benchmarks/probes.jsonl",
        [Probe(id="lookup-0", skill="lookup", system="", instruction="Held out?", answers=["x"])],
    )
    write_jsonl(
        folder / "mt_bench/questions.jsonl",
        [Question(question_id=81, category="writing", turns=["One.", "Two."], reference=[])],
    )
    write_jsonl(
        folder / "hh_rlhf/test.jsonl",
        [Pair.model_validate({"id": "hh-1", "prompt": turns, **pair})],
    )


def test_every_text_that_is_evaluated_on_is_looked_for(tmp_path: Path) -> None:
    fill(tmp_path)
    assert contamination.texts(tmp_path) == [
        Text("own", "own-0", "Own?", ("a", "b")),
        Text("mmlu", "mmlu_virology/0", "Its?", ("c",)),
        Text("probes", "lookup-0", "Held out?", ()),
        Text("mt_bench", "81", "One.", ()),
        Text("mt_bench", "81", "Two.", ()),
        Text("hh_rlhf", "hh-1", "First?", ()),
        Text("hh_rlhf", "hh-1", "Then?", ()),
    ]


@pytest.mark.parametrize(
    "missing", ["benchmarks/probes.jsonl", "mt_bench/questions.jsonl", "hh_rlhf/test.jsonl"]
)
def test_a_benchmark_that_was_not_fetched_is_an_error(tmp_path: Path, missing: str) -> None:
    fill(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(BadInput, match=re.escape(missing)):
        contamination.texts(tmp_path)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            [{"words": 6, "cosine": 0.7}, {"words": 6, "cosine": 0.5}],
            "words rise, and cosines fall",
        ),
        (
            [{"words": 6, "cosine": 0.7}, {"words": 12, "cosine": 0.7}],
            "words rise, and cosines fall",
        ),
        ([], "at least 1 item"),
        ([{"words": 0, "cosine": 0.7}], "greater than 0"),
        ([{"words": 6, "cosine": 1.1}], "less than or equal to 1"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(steps: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Decontamination.model_validate({"ngram": 13, "fuzzy": steps, "action": "drop"})


# --- real texts ----------------------------------------------------------------------------------


def real(name: str) -> list[Any]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs {name} in the shared data folder")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_rephrased_problems_are_found_and_real_rows_are_not_blamed() -> None:
    """The measurement behind the thresholds (DEVIATIONS.md): HumanEval as a model rephrased it, all
    names changed, of which exact matches find nearly nothing; and rows that rephrase no item."""
    original, rephrased = (
        [row["text"] for row in real(f"decontamination/{name}.jsonl")]
        for name in ("HumanEval", "rephrase_humaneval_python")
    )
    quiz = [Text("HumanEval", str(n), text, ()) for n, text in enumerate(original)]
    quiz += [
        Text("mt_bench", str(row["question_id"]), turn, ())
        for row in real("mt_bench/question.jsonl")
        for turn in row["turns"]
    ]
    rows = [sample(id=str(n), instruction=text) for n, text in enumerate(rephrased)]
    hits = contamination.find(rows, quiz, PARAMS)
    own = dict.fromkeys(("ngram", "fuzzy"), 0)
    for row, items in zip(rows, hits, strict=True):
        for each in items:
            own[each.kind] += each.item == row.id and each.benchmark == "HumanEval"
    assert own["ngram"] <= 0.05 * len(rows) and own["fuzzy"] >= 0.35 * len(rows)
    gsm8k = [row["text"] for row in real("decontamination/rephrase_gsm8k.jsonl")]
    dolly = real("dolly/databricks-dolly-15k.jsonl")[:4000]
    others = [sample(instruction=text) for text in gsm8k]
    others += [sample(instruction=r["instruction"], context=r["context"]) for r in dolly]
    assert sum(map(bool, contamination.find(others, quiz, PARAMS))) <= 0.002 * len(others)
