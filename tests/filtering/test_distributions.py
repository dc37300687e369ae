"""What a set holds: kinds of task beside a target, lengths, and a sample nearer to the target."""

import itertools
import json
import random
import statistics
from pathlib import Path

import pytest

from bezoar import params
from bezoar.filtering import curation, distributions
from bezoar.filtering.distributions import allot, distance
from bezoar.params import Balance
from bezoar.preflight.forecast import DOLLYS
from bezoar.rows.files import BadInput
from bezoar.rows.records import Sample
from tests.builders import parameters
from tests.builders.bases import write_tokenizer
from tests.builders.rows import sample
from tests.conftest import DATA, ROOT

FILTER = params.load(ROOT).filter


# --- kinds of task -------------------------------------------------------------------------------


def flan(mixture: str, name: str) -> Sample:
    return sample(category="", details={"mixture": mixture, "task": name, "system_id": 2})


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (sample(category="creative_writing"), "generation"),
        (sample(category="information_extraction"), "extract"),
        (sample(category="something new"), "other"),
        (sample(category="", details={}), "other"),
        (flan("niv2", "task111_asset_sentence_simplification"), "rewrite"),
        (flan("niv2", "task381_boolq_question_generation"), "generation"),
        (flan("niv2", "task1411_dart_subject_identification"), "classification"),
        (flan("niv2", "task1452_location_entity_extraction_btc_corpus"), "extract"),
        (flan("t0", "adversarial_qa_droberta_generate_question"), "generation"),
        (flan("t0", "glue_mrpc_paraphrase"), "rewrite"),
        (flan("flan2021", "gem/wiki_lingua_english_summarize"), "summarization"),
        # whether it brings the passage that answers it, the name does not say
        (flan("t0", "ropes_prompt_mix"), "other"),
    ],
)
def test_a_rows_kind_comes_from_its_category_or_its_flan_task(row: Sample, kind: str) -> None:
    assert distributions.task(row, FILTER.tasks) == kind


def test_every_category_that_a_scheme_draws_has_a_kind() -> None:
    for category in {*DOLLYS} - {"general_qa"}:
        assert distributions.task(sample(category=category), FILTER.tasks) in FILTER.target


def test_the_first_pattern_that_matches_decides_and_letters_count() -> None:
    tasks = {"open_qa": "a", "*qa": "b"}
    found = [distributions.task(sample(category=c), tasks) for c in ("open_qa", "x_qa", "X_QA")]
    assert found == ["a", "b", "other"]


def test_the_target_is_instructgpts() -> None:
    assert sum(FILTER.target.values()) == pytest.approx(1)
    assert list(FILTER.target)[:3] == ["generation", "open_qa", "brainstorming"]
    assert FILTER.target["generation"] == pytest.approx(0.456, abs=1e-3)
    assert FILTER.balance is None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"a": 50, "b": 50}, 0.0),
        ({"a": 1}, 0.5),
        ({"c": 7}, 1.0),
        ({"a": 6, "b": 2, "c": 2}, 0.3),
        ({"a": 0}, None),
        ({}, None),
    ],
)
def test_the_distance_is_the_share_of_rows_that_would_have_to_change(
    counts: dict[str, int], expected: float | None
) -> None:
    found = distance(counts, {"a": 0.5, "b": 0.5})
    assert found == (expected if expected is None else pytest.approx(expected))


# --- lengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 10, 101])
def test_a_summary_is_that_of_the_statistics_module(n: int) -> None:
    values = [random.Random(f"{n} {i}").randint(0, 3000) for i in range(n)]
    found = distributions.summary(values)
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if n > 1 else values * 3
    assert [found[k] for k in ("q1", "median", "q3")] == pytest.approx(quartiles, abs=5e-3)
    assert found["mean"] == pytest.approx(statistics.fmean(values), abs=5e-3)
    assert found["std"] == pytest.approx(statistics.pstdev(values), abs=5e-3)
    assert (found["n"], found["min"], found["max"]) == (n, min(values), max(values))


def words(texts: object) -> list[int]:
    assert isinstance(texts, list)
    return [len(text.split()) for text in texts]


def test_lengths_are_told_by_set_category_field_and_unit() -> None:
    rows = [
        sample(id="1", instruction="one two", response="a b c", context="x " * 10),
        sample(id="2", instruction="one", response="", category="brainstorming"),
        flan("cot", "t").model_copy(update={"id": "3", "response": "d"}),
    ]
    told = distributions.describe(rows, rows[:1], FILTER, distributions.sizes(rows, words))
    lengths = {(r["set"], r["category"], r["field"], r["unit"]): r for r in told["lengths"]}
    assert len(lengths) == len(told["lengths"])
    everything = lengths["before", "", "response", "tokens"]
    assert (everything["n"], everything["min"], everything["max"]) == (3, 0, 3)
    assert lengths["after", "", "response", "tokens"]["n"] == 1
    assert lengths["before", "open_qa", "instruction", "characters"]["max"] == len("one two")
    assert lengths["before", "cot", "response", "characters"]["mean"] == 1
    # two of three rows have no context: they do not draw its mean down
    assert lengths["before", "", "context", "tokens"]["mean"] == 10
    assert ("before", "brainstorming", "context", "tokens") not in lengths
    assert told["sets"]["before"]["tasks"]["open_qa"] == 1
    assert told["sets"]["before"]["tasks"]["chat"] == 0
    assert told["sets"]["after"] == {
        "rows": 1,
        "tasks": dict.fromkeys(FILTER.target, 0) | {"open_qa": 1},
        "distance": pytest.approx(1 - FILTER.target["open_qa"]),
    }


def test_the_tables_for_plots_have_a_line_a_task_and_a_line_a_twentieth() -> None:
    rows = [sample(id=str(n), response="a " * n) for n in range(41)]
    counted = distributions.sizes(rows, words)
    table = distributions.tasks_table(distributions.describe(rows, rows[:2], FILTER, counted))
    assert table[0] == "task,target,before,after\n" and len(table) == 1 + len(FILTER.target)
    assert "open_qa,0.1241,1.0000,1.0000\n" in table
    lengths = [line.strip().split(",") for line in distributions.lengths_table(rows, counted)]
    assert lengths[0] == ["share", "instruction", "context", "response"] and len(lengths) == 22
    assert [line[3] for line in lengths[1:]] == [str(2 * n) for n in range(21)]
    assert {line[2] for line in lengths[1:]} == {""}  # no row has a context


def test_tokens_are_those_of_the_text_alone(tmp_path: Path) -> None:
    count = distributions.tokenizer(write_tokenizer(tmp_path / "tokenizer.json"))
    assert count(["", "a", "a a a a a a", "new word"]) == [0, 1, 6, 2]
    assert count(["<s>"]) == [3], "the name of a special token is text: <, s, >"
    assert count([]) == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\ud800".encode("utf-8", "surrogatepass")])
def test_a_broken_tokenizer_is_named(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        distributions.tokenizer(path)
    with pytest.raises(BadInput, match="cannot be read as a tokenizer"):
        distributions.tokenizer(tmp_path / "absent.json")


@pytest.mark.slow
def test_a_base_without_tokenizer_json_gets_one_that_counts_alike(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from bezoar.sources import tokenizer

    letters = {c: i for i, c in enumerate(["<|endoftext|>", *"abcdeĠ", "ab", "Ġc"])}
    (tmp_path / "vocab.json").write_text(json.dumps(letters))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nĠ c\n")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    tokenizer.ensure_fast(tmp_path, "local/base")
    made = (tmp_path / "tokenizer.json").read_bytes()
    tokenizer.ensure_fast(tmp_path, "local/base")
    assert (tmp_path / "tokenizer.json").read_bytes() == made
    texts = ["ab cab", "<|endoftext|> ab", "", "c c c"]
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    ids = loaded(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    found = distributions.tokenizer(tmp_path / "tokenizer.json")(texts)
    assert found == [len(i) for i in ids] and found[0] == 3
    (tmp_path / "bare").mkdir()
    with pytest.raises(BadInput, match="fetch base: transformers cannot load its tokenizer"):
        tokenizer.ensure_fast(tmp_path / "bare", "fetch base")


# --- sampling toward a target --------------------------------------------------------------------

TARGET = {"generation": 0.5, "open_qa": 0.3, "extract": 0.2}
KINDS = {
    "generation": "creative_writing",
    "open_qa": "open_qa",
    "extract": "information_extraction",
}


def rows_of(**counts: int) -> list[Sample]:
    """`counts` rows of each kind of task; other names are categories that no pattern fits."""
    return [
        sample(id=f"{kind}-{n}", instruction=f"{kind} {n}?", category=KINDS.get(kind, kind))
        for kind, count in counts.items()
        for n in range(count)
    ]


def drawn(samples: list[Sample], rows: int, target: dict[str, float] = TARGET) -> list[Sample]:
    wanted = Balance(rows=rows, target=target)
    kept, left = distributions.balance(samples, FILTER.tasks, wanted)
    assert sorted([*(r.id for r in kept), *(r.id for r in left)]) == sorted(r.id for r in samples)
    assert {row.reason for row in left} <= {"balance"}
    place = {row.id: at for at, row in enumerate(samples)}
    assert kept == sorted(kept, key=lambda row: place[row.id]), "in their order"
    return kept


def kinds(samples: list[Sample]) -> dict[str, int]:
    found = [distributions.task(row, FILTER.tasks) for row in samples]
    return {kind: found.count(kind) for kind in sorted(set(found))}


def test_without_a_balance_all_stay() -> None:
    samples = rows_of(generation=3, extract=2)
    assert distributions.balance(samples, FILTER.tasks, None) == (samples, [])


def test_the_target_is_met_where_there_are_rows_enough() -> None:
    samples = rows_of(generation=100, open_qa=100, extract=100)
    assert kinds(drawn(samples, 50)) == {"generation": 25, "open_qa": 15, "extract": 10}
    assert kinds(drawn(samples, 1)) == {"generation": 1}


def test_where_a_kind_has_too_few_the_others_share_its_places() -> None:
    samples = rows_of(generation=10, open_qa=100, extract=100, poems=100)
    assert kinds(drawn(samples, 60)) == {"generation": 10, "open_qa": 30, "extract": 20}


def test_what_the_target_does_not_want_comes_last() -> None:
    samples = rows_of(generation=2, open_qa=2, poems=9)
    assert kinds(drawn(samples, 3)) == {"generation": 2, "open_qa": 1}
    assert kinds(drawn(samples, 6)) == {"generation": 2, "open_qa": 2, "other": 2}
    assert len(drawn(samples, 1000)) == 13


def test_a_row_that_is_left_out_says_what_it_was() -> None:
    wanted = Balance(rows=1, target={"generation": 1})
    _, left = distributions.balance(rows_of(generation=1, extract=1), FILTER.tasks, wanted)
    (row,) = left
    assert (row.id, row.reason, row.text) == ("extract-0", "balance", "extract 0?")
    assert row.details == {"task": "extract"}


def test_no_other_choice_of_as_many_rows_comes_nearer() -> None:
    rng = random.Random("allot")
    for _ in range(300):
        names = ("a", "b", "c", "d")
        have = {name: rng.randint(0, 5) for name in names}
        weights = {name: rng.choice((0, 1, 2, 5, 0.3)) for name in names[:3]} | {"a": 1.0}
        target = Balance(rows=1, target=weights).target
        rows = rng.randint(1, max(1, sum(have.values())))
        taken = allot(have, target, rows)
        assert sum(taken.values()) == min(rows, sum(have.values()))
        assert all(0 <= taken[name] <= have[name] for name in names)
        choices = itertools.product(*(range(n + 1) for n in have.values()))
        best = min(
            distance(dict(zip(names, c, strict=True)), target) or 0.0
            for c in choices
            if sum(c) == sum(taken.values())
        )
        assert (distance(taken, target) or 0.0) == pytest.approx(best, abs=1e-9)


@pytest.mark.slow
def test_the_distance_does_not_grow_but_by_a_rounding() -> None:
    rng = random.Random("grow")
    for _ in range(200):
        have = {kind: rng.randint(0, 300) for kind in (*TARGET, "other")} | {"generation": 1}
        before = distance(have, TARGET) or 0.0
        for rows in (1, 10, 100, sum(have.values()), 5000):
            after = distance(allot(have, TARGET, rows), TARGET) or 0.0
            assert after <= before + len(have) / (2 * rows) + 1e-9
            # enough of each kind: nothing is left but the rounding
            if all(have[kind] >= rows * share for kind, share in TARGET.items()):
                assert after <= len(TARGET) / (2 * rows) + 1e-9


def test_a_drawn_row_is_given_up_only_to_a_new_one() -> None:
    few = rows_of(generation=40, open_qa=40, extract=40)
    more = rows_of(generation=60, open_qa=40, extract=40)
    before, after = ({r.id for r in drawn(rows, 30)} for rows in (few, more))
    new = after - {row.id for row in few}
    assert len(before - after) == len(new) > 0
    assert {i.split("-")[0] for i in before ^ after} == {"generation"}
    shuffled = [r.model_copy(update={"id": f"x-{r.id}"}) for r in reversed(few)]
    assert {f"x-{i}" for i in before} == {r.id for r in drawn(shuffled, 30)}


def test_the_draw_does_not_lean_to_one_side_of_the_split() -> None:
    kept = drawn(rows_of(generation=4000), 1000)
    _, held_out = curation.split(kept, [], 0.2)
    assert 150 < len(held_out) < 250


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": {"generation": 0}}, "weighs nothing"),
        ({"target": {}}, "weighs nothing"),
        ({"target": {"generation": -1}}, r"filter\.target\.generation"),
        ({"tasks": {"open_qa": "opne_qa"}}, r"tasks\.open_qa: 'opne_qa' is no kind of task"),
        ({"balance": {"rows": 0, "target": {"a": 1}}}, r"filter\.balance\.rows"),
        ({"balance": {"rows": 5, "target": {"a b,c": 1}}}, r"filter\.balance\.target"),
        ({"balance": {"row": 5, "target": {"a": 1}}}, "did you mean 'rows'"),
    ],
)
def test_params_that_cannot_be_meant_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    document = parameters.read()
    document["filter"].update(change)
    parameters.write(tmp_path, document)
    with pytest.raises(BadInput, match=message):
        params.load(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="no real data on this machine")
def test_dolly_comes_nearer_to_the_target_in_every_size() -> None:
    lines = (DATA / "dolly/databricks-dolly-15k.jsonl").read_text().splitlines()
    rows = [
        sample(id=str(n), instruction=row["instruction"], category=row["category"])
        for n, row in enumerate(map(json.loads, lines))
    ]
    whole = distance(kinds(rows), FILTER.target)
    assert whole is not None
    found = [
        distance(kinds(drawn(rows, size, FILTER.target)), FILTER.target) or 0.0
        for size in (200, 1000, 5000)
    ]
    assert found == sorted(found) and found[-1] < whole
    # chat, rewrite and other are kinds that Dolly has not, 18.5 % of the target
    assert found[0] == pytest.approx(0.185, abs=0.01)
