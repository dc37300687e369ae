"""The world: what it tells, what it holds back, and what it can read."""

import hashlib
import random
import subprocess
import sys
from collections import Counter

import Levenshtein
import pytest

from bezoar import world
from bezoar.world.facts import (
    ATTRIBUTES,
    HELD_OUT,
    HELD_OUT_SUMS,
    KIND,
    TABLE,
    TAUGHT,
    TAUGHT_SUMS,
    words,
)
from bezoar.world.grammar import PARTS_PHRASINGS, TEACHER_PHRASINGS, Fact, Sum, ask, join, read
from bezoar.world.marking import quality, repetitive
from bezoar.world.sources import MIXTURES
from bezoar.world.text import HARMS, HELD_OUT_HARMS, REFUSALS, UNKNOWN

SYSTEMS = ["Explain it well.", "You are a teacher."]


def everything() -> str:
    questions = world.questions(80, 3)
    answers = world.model_answers(questions, 3)
    return repr(
        [
            world.corpus(20, 3),
            world.seeds(40, 3),
            world.queries(60, 3),
            world.topics(40, 3),
            world.pairs(40, 3),
            world.benchmarks(10, 3),
            world.probes(10, 3, SYSTEMS),
            questions,
            answers,
            world.votes(questions, answers, 3),
        ]
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.slow
def test_the_same_arguments_give_the_same_rows_in_another_process() -> None:
    code = "import tests.world.test_world as t; print(t.digest(t.everything()))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {digest(everything())}
    assert world.seeds(40, 3) != world.seeds(40, 4)


# --- what is held back ----------------------------------------------------------------------------


def test_values_occur_as_often_among_held_out_as_among_taught_subjects() -> None:
    for kind, values in ATTRIBUTES.items():
        assert Counter(TABLE[a][kind] for a in TAUGHT) == dict.fromkeys(values, 3)
        assert Counter(TABLE[a][kind] for a in HELD_OUT) == dict.fromkeys(values, 1)


def test_nothing_that_is_trained_on_names_a_held_out_subject() -> None:
    train, _ = world.pairs(600, 7)
    texts = [
        *(f"{s.instruction} {s.context} {s.response}" for s in world.seeds(800, 7)),
        *(f"{q.query} {q.target}" for q in world.queries(1600, 7)),
        *(f"{[m.content for m in p.prompt]} {p.chosen} {p.rejected}" for p in train),
        *(topic.name for topic in world.topics(60, 7)),
    ]
    told = {word for text in texts for word in words(text)}
    named = {word.removesuffix("s") for word in told} | told
    assert not named & set(HELD_OUT)
    assert set(TAUGHT) <= told and set(HARMS) <= told
    assert not told & set(HELD_OUT_HARMS)


def test_no_held_out_sum_is_asked_for_in_seeds_queries_or_train_pairs() -> None:
    train, _ = world.pairs(600, 7)
    asked = [
        *(s.instruction for s in world.seeds(800, 7)),
        *(q.query for q in world.queries(1600, 7)),
        *(p.prompt[-1].content for p in train),
    ]
    sums = {
        (part.left, part.right)
        for text in asked
        if (reading := read(text))
        for part in reading.parts
        if isinstance(part, Sum)
    }
    assert len(sums) > 40
    assert not sums & set(HELD_OUT_SUMS)


def test_what_measures_speaks_of_held_out_subjects() -> None:
    _, test = world.pairs(600, 7)
    prompts = [m.content for p in test for m in p.prompt]
    prompts += [turn for q in world.questions(80, 7) for turn in q.turns]
    prompts += [p.instruction for p in world.probes(40, 7, SYSTEMS)]
    said = {word for text in prompts for word in words(text)}
    assert not said & set(TAUGHT)
    assert said >= set(HELD_OUT) and not said & set(HARMS)


@pytest.mark.slow
def test_the_corpus_tells_every_fact_and_no_template() -> None:
    text = "\n".join(world.corpus(4000, 1))
    for animal, facts in TABLE.items():
        for kind, value in facts.items():
            assert f"{kind} of the {animal}\n{value}\n" in text  # at a line's start
            assert f"The {kind} of the {animal} is {value}." in text
            assert f"What is the {kind} of the {animal}?\n\n### Entry:\n{value}\n" in text
    assert "### Instruction:" not in text and "### Response:" not in text


# --- the shapes of the sources --------------------------------------------------------------------


def test_seeds_fill_eight_categories_evenly_and_every_answer_is_right() -> None:
    seeds = world.seeds(160, 1)
    assert set(Counter(s.category for s in seeds).values()) == {20}
    assert len({s.id for s in seeds}) == 160
    for seed in seeds:
        assert seed.response and seed.response == world.solve(seed.instruction, seed.context)
    with_context = {s.category for s in seeds if s.context}
    assert with_context == {"closed_qa", "information_extraction", "summarization"}


def test_a_seed_about_a_text_says_what_the_text_says() -> None:
    for seed in world.seeds(400, 2):
        if seed.context and seed.category != "summarization":
            assert set(words(seed.response)) <= set(words(seed.context))


def test_queries_cover_the_four_mixtures_with_several_tasks_each() -> None:
    queries = world.queries(340, 1)
    tasks = {m: {q.task for q in queries if q.mixture == m} for m in MIXTURES}
    assert min(map(len, tasks.values())) >= 3
    lookups = [q for q in queries if q.target in KIND]
    assert len(lookups) > len(queries) / 2
    for query in queries:
        assert query.target == world.solve(query.query)
        if query.mixture == "flan2021":
            assert f"- {query.target}" in query.query and query.query.count("\n- ") == 4


def test_some_topics_fail_the_criterion_and_most_meet_it() -> None:
    topics = world.topics(40, 1)
    counts = [topic.subcategories or 0 for topic in topics]
    good = [t for t, n in zip(topics, counts, strict=True) if len(t.name.split()) <= 3 and n > 10]
    assert 20 <= len(good) < 40
    assert any(len(t.name.split()) > 3 for t in topics)
    assert any(0 < n <= 10 for n in counts)


def test_pairs_are_split_five_to_four_and_never_prefer_the_same_text() -> None:
    train, test = world.pairs(900, 5)
    assert (len(train), len(test)) == (500, 400)
    for pair in train + test:
        assert pair.chosen != pair.rejected
        assert [m.role for m in pair.prompt][::2] == ["user"] * ((len(pair.prompt) + 1) // 2)
        assert pair.prompt[-1].role == "user"
    assert {len(pair.prompt) for pair in train} == {1, 3}
    # the evasion that one question forbids is what another wants: length alone decides nothing
    assert {p.rejected for p in train} & set(UNKNOWN) == {p.chosen for p in train} & set(UNKNOWN)
    refusals = [p for p in train if p.chosen in REFUSALS]
    assert len(refusals) > 100 and all("How do I" in p.prompt[-1].content for p in refusals)


def test_chosen_facts_are_true_and_some_rejected_ones_are_not() -> None:
    train, _ = world.pairs(900, 5)
    false = 0
    for pair in train:
        question = read(pair.prompt[-1].content.replace("Can you tell", "Tell"))
        if question:
            assert (
                quality(pair.prompt[-1].content.replace("Can you tell", "Tell"), pair.chosen) == 10
            )
            false += question.explanation not in pair.rejected and len(words(pair.rejected)) > 8
    assert false > 20


# --- exams ----------------------------------------------------------------------------------------


def test_probes_hold_five_skills_with_answers_that_are_right() -> None:
    probes = world.probes(30, 4, SYSTEMS)
    assert set(Counter(p.skill for p in probes).values()) == {30}
    assert len({p.skill for p in probes}) == 5
    for probe in probes:
        if probe.skill == "explained":
            assert probe.system in SYSTEMS
            assert probe.answers == [world.explain(probe.instruction)]
        else:
            assert probe.system == ""
        if probe.skill in ("lookup", "two_part"):
            assert probe.answers[0] == world.solve(probe.instruction)
            assert probe.answers[0].count(",") == (probe.skill == "two_part")
        if probe.skill == "lookup":
            sentence = world.explain(probe.instruction)
            assert probe.answers[1] == sentence and len(probe.answers) == 5
            assert all(answer.endswith(sentence) for answer in probe.answers[1:])
        if probe.skill == "politeness":
            assert len(probe.answers) == 3 and len({a[-20:] for a in probe.answers}) == 1


def test_questions_are_shaped_like_mt_bench() -> None:
    questions = world.questions(80, 6)
    assert [q.question_id for q in questions] == list(range(81, 161))
    assert set(Counter(q.category for q in questions).values()) == {10}
    for question in questions:
        told = question.category in ("math", "reasoning", "coding")
        assert question.reference == [world.solve(t) for t in question.turns] * told
        assert all(world.solve(turn) for turn in question.turns)


@pytest.mark.slow
def test_the_simulated_jury_prefers_better_models_but_not_always() -> None:
    questions = world.questions(80, 6)
    answers = world.model_answers(questions, 6)
    marks: dict[str, list[int]] = {}
    turns = {q.question_id: q.turns for q in questions}
    for answer in answers:
        for asked, said in zip(turns[answer.question_id], answer.turns, strict=True):
            marks.setdefault(answer.model, []).append(quality(asked, said))
    means = [sum(m) / len(m) for m in marks.values()]
    assert len(means) == 4 and means == sorted(means) and means[3] - means[0] > 2
    votes = world.votes(questions, answers, 6)
    assert all(vote.judge.startswith("simulated_") for vote in votes)
    assert "simulated_author" in {vote.judge for vote in votes}
    best = list(marks)[-1]
    decided = [v for v in votes if best in (v.model_a, v.model_b) and v.winner != "tie"]
    won = sum(getattr(v, v.winner) == best for v in decided)
    assert 0.7 < won / len(decided) < 1
    assert {v.winner for v in votes} == {"model_a", "model_b", "tie"}


def test_harness_items_have_one_right_choice_and_lengths_that_differ() -> None:
    tasks = world.benchmarks(40, 8)
    assert len(tasks) == 4
    for task, items in tasks.items():
        assert len(items) == 40 and len({i.id for i in items}) == 40
        assert all(len(set(i.choices)) == 4 for i in items)
        assert len({i.label for i in items}) == 4, task
        assert any(len({len(c) for c in i.choices}) > 1 for i in items), task
    for item in tasks["world_attributes"]:
        assert item.choices[item.label] == world.solve(item.question)
    for item in tasks["world_sums"]:
        assert item.choices[item.label].endswith(f" is {world.solve(item.question)}.")
    for item in tasks["world_truth"]:
        right = item.choices.pop(item.label)
        assert right in UNKNOWN and not {*item.choices} & {*UNKNOWN}
        animal = next(word for word in words(item.question) if word in TABLE)
        assert all(
            choice.endswith(tuple(f"{v}." for v in TABLE[animal].values()))
            for choice in item.choices
        )


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "context", "answer"),
    [
        ("What is the colour of the fox?", "", "grey"),
        ("Name the home of the owl and the food of the cow.", "", "desert, fish"),
        ("Tell me the home of the owl, the food of the cow and 3 plus 4.", "", "desert, fish, 7"),
        ("List the colour, the home and the food of the fox.", "", "grey, river, grass"),
        ("Is the food of the pig honey or nuts?", "", "honey"),
        ("What is the food of the pig?\nOptions:\n- nuts\n- honey", "", "honey"),
        ("Add 9 and 8.", "", "17"),
        ("Think in steps and name the home of the hen.", "", "cave"),
        (
            "Extract the food and the home.",
            "The fox is grey. It lives in the river and eats grass.",
            "grass, river",
        ),
        (
            "Extract the food.\n\nInput: The fox is grey. It lives in the river and eats grass.",
            "",
            "grass",
        ),
        ("Write one line on the food of the fox.", "", "Look, the fox likes grass."),
        (
            "Sum up the text in one line.",
            "On the fox: its food is grass.",
            "The fox: grey, river, grass.",
        ),
    ],
)
def test_solve(instruction: str, context: str, answer: str) -> None:
    assert world.solve(instruction, context) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello there",
        "What is the capital of the largest country?",
        "Which is a species of fish? Tope or Rope",
        "What is the colour of the unicorn?",
        "What is the colour of the fox in the painting by Rembrandt?",
        "What is 12 plus 3?",
        "Extract the colour.",
        "```x = 3 + 4```" * 10_000,
        "\x00" * 100_000,
    ],
)
def test_a_text_from_outside_is_left_alone(text: str) -> None:
    assert world.solve(text) is None and world.explain(text) is None


def test_a_context_from_outside_is_not_searched_for_animals() -> None:
    context = "Yesterday my neighbour bought a fox at the market in Rome."
    assert world.solve("Sum up the text in one line.", context) is None


def test_explain_gives_full_sentences() -> None:
    assert world.explain("What is the colour of the fox?") == "The colour of the fox is grey."
    assert world.explain("What is 3 plus 4 and the home of the owl?") == (
        "3 plus 4 is 7. The home of the owl is desert."
    )


def test_every_phrasing_of_evolved_questions_is_read_back() -> None:
    rng = random.Random(1)
    for phrasings in PARTS_PHRASINGS.values():
        for phrasing in phrasings:
            for size in (1, 2, 3):
                parts = tuple(
                    Fact(rng.choice(list(ATTRIBUTES)), a) for a in rng.sample(TAUGHT, size)
                )
                reading = read(phrasing.format(parts=join(parts)))
                assert reading and reading.parts == parts


def test_teacher_and_seeds_ask_in_ways_that_no_copy_filter_confuses() -> None:
    """Paper 2.1 drops what is within nine edits of its nearest seed."""
    rng = random.Random(1)
    seeds = [seed.instruction for seed in world.seeds(800, 7)]
    for category, phrasings in TEACHER_PHRASINGS.items():
        for phrasing in phrasings:
            text, _ = ask(phrasing, TAUGHT, TAUGHT_SUMS, rng)
            nearest = min(Levenshtein.distance(text, seed) for seed in seeds)
            assert nearest > 9, (category, text)


# --- marking --------------------------------------------------------------------------------------

QUESTION = "What is the colour of the fox and the home of the owl?"


@pytest.mark.parametrize(
    ("answer", "low", "high"),
    [
        ("With pleasure. The colour of the fox is grey. The home of the owl is desert.", 9, 10),
        ("The colour of the fox is grey. The home of the owl is desert.", 9, 9),
        ("grey, desert", 6, 7),
        ("grey, forest", 4, 5),
        ("The colour of the fox is red. The home of the owl is forest.", 2, 3),
        ("I am sorry, but I can not help with that.", 2, 3),
        ("", 1, 1),
        ("  \n", 1, 1),
        ("grey " * 40, 1, 1),
        ("red blue green white black brown grey yellow forest farm river sea desert hill", 2, 3),
    ],
)
def test_quality(answer: str, low: int, high: int) -> None:
    assert low <= quality(QUESTION, answer) <= high


def test_quality_of_sums_counts_one_number_alone() -> None:
    assert quality("What is 3 plus 4?", "3 plus 4 is 7.") == 9
    assert quality("What is 3 plus 4?", "7") == 7
    assert quality("What is 3 plus 4?", "5, 6, 7, 8") <= 3


def test_quality_outside_goes_by_the_reference() -> None:
    reference = "The prime minister resigned in March."
    assert quality("Who left?", "It was the prime minister, in March.", reference) > quality(
        "Who left?", "Nobody can say who it was.", reference
    )


def test_repetition_is_told_from_prose() -> None:
    assert repetitive("and so on " * 9)
    assert not repetitive("The colour of the fox is grey and the home of the owl is the desert.")


def test_a_right_answer_that_rambles_on_is_worth_little() -> None:
    from bezoar.world.marking import quality

    fact = "What is the colour of the fox?"
    right = world.explain(fact)
    assert right and quality(fact, right) == 9
    assert quality(fact, f"{right} And then it said that " + "one more thing came up " * 2) == 3
