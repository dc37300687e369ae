"""What a link learns from: no row lost or twice, the same rows for the same seed, earlier sets
seen again in the measure that is asked for."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bezoar import params, work, world
from bezoar.rows import chat
from bezoar.rows.files import BadInput, write_jsonl
from bezoar.rows.records import Example, Kept
from bezoar.training import mixing
from stages import mix
from tests.builders import parameters
from tests.conftest import ROOT

SCHEMES = ("lamini", "orca", "evol_instruct")


def examples(source: str, rows: int) -> list[Example]:
    return [
        Example(id=f"{source}-{n}", prompt=f"{source} {n}?", completion="Yes.", source=source)
        for n in range(rows)
    ]


def ids(rows: list[Example]) -> list[str]:
    return [row.id for row in rows]


def sample(scheme: str, number: int) -> Kept:
    return Kept(
        id=f"{scheme}-{number:05}",
        scheme=scheme,
        system="Be brief." if scheme == "orca" else "",
        instruction=f"What is {scheme} {number}?",
        context="A list." if number % 2 else "",
        response=f"It is {number}.",
        expected="",
        category="open_qa",
        details={},
        seeds=[],
        licence="CC0-1.0",
        teacher="world-teacher",
        simulated=True,
        sources=["world"],
        teacher_terms="Apache-2.0",
        judge_terms="Apache-2.0",
    )


# --- lists ---------------------------------------------------------------------------------------


def test_one_set_alone_keeps_its_order() -> None:
    rows = examples("a", 50)
    assert mixing.mix([rows], [], 0.0, Random(1)) == rows
    assert mixing.mix([rows], [], 0.5, Random(1)) == rows, "there is nothing before it"
    assert mixing.mix([rows], [examples("b", 9)], 0.0, Random(1)) == rows


def test_several_sets_are_shuffled_and_none_is_lost() -> None:
    sets = [examples("a", 50), examples("b", 20), examples("c", 1)]
    mixed = mixing.mix(sets, [], 0.0, Random("42/link"))
    assert mixed == mixing.mix(sets, [], 0.0, Random("42/link"))
    assert ids(mixed) != ids(mixing.mix(sets, [], 0.0, Random("43/link")))
    assert sorted(ids(mixed)) == sorted(ids(sets[0] + sets[1] + sets[2]))
    assert len({row.source for row in mixed[:20]}) > 1
    assert [len(rows) for rows in sets] == [50, 20, 1], "what was given stays as it was"


def test_a_share_of_the_rows_before_is_seen_again_among_the_new_ones() -> None:
    new, earlier = examples("new", 200), [examples("a", 300), examples("b", 40)]
    mixed = mixing.mix([new], earlier, 0.1, Random(1))
    assert Counter(row.source for row in mixed) == {"new": 200, "a": 10, "b": 10}
    assert {*ids(new)} <= {*ids(mixed)} and len({*ids(mixed)}) == len(mixed)
    places = [at for at, row in enumerate(mixed) if row.source != "new"]
    assert min(places) < 100 < max(places)
    assert ids(mixed) != ids(mixing.mix([new], earlier, 0.1, Random(2)))


@pytest.mark.parametrize(
    ("sizes", "wanted", "drawn"),
    [
        ((100, 100, 100), 30, [10, 10, 10]),
        ((100, 100, 100), 31, [10, 10, 11]),
        ((100, 4, 100), 30, [13, 4, 13]),  # what the small set lacks, the others give
        ((5, 5), 30, [5, 5]),
        ((5, 0), 4, [4, 0]),
        ((100, 100, 100), 2, [0, 1, 1]),
        ((100,), 0, [0]),
        ((), 9, []),
    ],
)
def test_as_many_rows_are_drawn_from_each_set(
    sizes: tuple[int, ...], wanted: int, drawn: list[int]
) -> None:
    sets = [examples(str(n), size) for n, size in enumerate(sizes)]
    found = mixing.draw(sets, wanted, Random(3))
    assert len({*ids(found)}) == len(found) == min(wanted, sum(sizes))
    assert [sum(row.source == str(n) for row in found) for n in range(len(sizes))] == drawn


def test_samples_and_pairs_go_through_the_one_template() -> None:
    kept, (pair, *_) = sample("orca", 1), world.pairs(8, 7)[0]
    asked = mixing.example(kept, "filter/orca")
    assert (asked.prompt, asked.completion) == chat.from_sample(kept)
    assert asked.prompt.startswith("### System:\nBe brief.") and "Input: A list." in asked.prompt
    chosen = mixing.example(pair, "fetch/hh_rlhf")
    assert (chosen.prompt, chosen.completion) == (chat.prompt(pair.prompt), pair.chosen)
    assert (chosen.id, chosen.source) == (pair.id, "fetch/hh_rlhf")


# --- the stage -----------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and the sets of the recipe's chain, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "die_with_parent", lambda: None)
    parameters.copy(Path())
    for scheme in SCHEMES:
        rows = [sample(scheme, number) for number in range(60)]
        write_jsonl(f"data/filter/{scheme}/train.jsonl", rows[:50])
        write_jsonl(f"data/filter/{scheme}/eval.jsonl", rows[50:])
    for side, pairs in zip(("train", "test"), world.pairs(90, 7), strict=True):
        write_jsonl(f"data/fetch/hh_rlhf/{side}.jsonl", pairs)
    return tmp_path


def change(**sections: Any) -> None:
    """Set values in params.yaml: change(mix={"seed": 1}); once, before they are read."""
    document = parameters.read(Path())
    for section, values in sections.items():
        for key, value in values.items():
            known = document[section][key]
            document[section][key] = {**known, **value} if isinstance(known, dict) else value
    parameters.write(Path(), document)


def replaying(share: float) -> dict[str, Any]:
    """What `change` wants for the active profile to replay this share."""
    return {"embedded": {"mix": {"replay": share}}}


def lines(path: str) -> Iterator[dict[str, Any]]:
    return map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())


def sources(link: str, side: str = "train") -> dict[str, int]:
    return dict(Counter(row["source"] for row in lines(f"data/mix/{link}/{side}.jsonl")))


def test_a_link_of_the_paper_learns_from_its_set_as_it_is(tree: Path) -> None:
    change(profiles=replaying(0.0))
    for link, (source, held_out) in {
        **{scheme: (f"filter/{scheme}", "eval") for scheme in SCHEMES},
        "hh_rlhf": ("fetch/hh_rlhf", "test"),
    }.items():
        mix.main(link)
        for side, file in (("train", "train"), ("eval", held_out)):
            found = [row["id"] for row in lines(f"data/mix/{link}/{side}.jsonl")]
            assert found == [row["id"] for row in lines(f"data/{source}/{file}.jsonl")]
    assert json.loads(Path("metrics/mix/orca.json").read_text()) == {
        "train_rows": 50,
        "replayed_rows": 0,
        "eval_rows": 10,
        "sets": {"filter/orca": 50},
    }


def test_a_link_may_mix_samples_and_pairs(tree: Path) -> None:
    change(chain={"lamini": {"data": ["filter/orca", "fetch/hh_rlhf"]}})
    mix.main("lamini")
    assert sources("lamini") == {"filter/orca": 50, "fetch/hh_rlhf": 50}
    assert list(sources("lamini", "eval").items()) == [("filter/orca", 10), ("fetch/hh_rlhf", 40)]
    first = Path("data/mix/lamini/train.jsonl").read_bytes()
    mix.main("lamini")
    assert Path("data/mix/lamini/train.jsonl").read_bytes() == first


def test_replay_reaches_back_through_the_merge_and_holds_nothing_out(tree: Path) -> None:
    change(profiles=replaying(0.3))
    for link in ("lamini", "evol_instruct", "hh_rlhf"):
        mix.main(link)
    assert sources("lamini") == {"filter/lamini": 50}
    assert sorted(sources("evol_instruct").items()) == [
        ("filter/evol_instruct", 50),
        ("filter/lamini", 7),
        ("filter/orca", 8),
    ]
    again = {f"filter/{scheme}": 5 for scheme in SCHEMES}
    assert sources("hh_rlhf") == {"fetch/hh_rlhf": 50, **again}
    assert sources("hh_rlhf", "eval") == {"fetch/hh_rlhf": 40}
    assert json.loads(Path("metrics/mix/hh_rlhf.json").read_text())["replayed_rows"] == 15


@pytest.mark.slow
def test_the_demo_replays_and_the_line_of_the_page_is_the_papers_way(tree: Path) -> None:
    assert params.load(ROOT).mix.replay > 0
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    [override] = re.findall(r"^dvc exp run -S (\S*replay=\S*)", page, re.MULTILINE)
    parameters.override(tree, override)
    mix.main("hh_rlhf")
    assert sources("hh_rlhf") == {"fetch/hh_rlhf": 50}


def test_a_set_that_a_link_has_of_its_own_is_not_replayed(tree: Path) -> None:
    change(profiles=replaying(0.5), chain={"orca": {"data": ["filter/lamini", "filter/orca"]}})
    mix.main("orca")
    assert sources("orca") == {"filter/lamini": 50, "filter/orca": 50}


@pytest.mark.parametrize("side", ["train", "eval"])
def test_an_empty_set_is_named(tree: Path, side: str) -> None:
    change(profiles=replaying(0.1))
    path = Path(f"data/filter/lamini/{side}.jsonl")
    path.write_text("")
    with pytest.raises(BadInput, match=rf"^error: {re.escape(str(path))}: has no rows; a link"):
        mix.main("lamini")
    if side == "train":  # of earlier links
        with pytest.raises(BadInput, match=rf"{re.escape(str(path))}: has no rows"):
            mix.main("orca")
    else:
        mix.main("orca")


def test_a_set_that_is_not_there_and_a_row_that_is_none_are_named(tree: Path) -> None:
    Path("data/filter/orca/eval.jsonl").unlink()
    with pytest.raises(BadInput, match=r"data/filter/orca/eval\.jsonl: there is no such file"):
        mix.main("orca")
    Path("data/filter/lamini/train.jsonl").write_text("{}\n")
    with pytest.raises(BadInput, match=r"data/filter/lamini/train\.jsonl:1: .*one Kept as JSON"):
        mix.main("lamini")
    assert not Path("data/mix").exists()


# --- params.yaml ---------------------------------------------------------------------------------

ALONE = {"weights": "adapter", "base": "fetch/base", "start": "fetch/base"}


def test_a_link_is_added_in_params_alone(tree: Path) -> None:
    document = parameters.read(Path())
    document["chain"]["all-in-one"] = {**ALONE, "data": ["filter/lamini", "filter/orca"]}
    for profile in document["profiles"].values():
        profile["sft"]["links"]["all-in-one"] = profile["sft"]["links"]["orca"]
    parameters.write(Path(), document)
    mix.main("all-in-one")
    assert sources("all-in-one") == {"filter/lamini": 50, "filter/orca": 50}


def test_a_link_is_left_out_by_chain_alone(tree: Path) -> None:
    document = parameters.read(Path())
    del document["chain"]["orca"], document["evaluated"]["orca"]
    document["chain"]["evol_instruct"]["start"] = "sft/lamini"
    parameters.write(Path(), document)
    assert {*params.load().chain} == {"lamini", "evol_instruct", "hh_rlhf"}


def test_a_circle_is_seen_before_anything_waits_in_it(tree: Path) -> None:
    change(chain={"lamini": {"base": "merge/sft", "start": "merge/sft"}})
    with pytest.raises(BadInput, match=r"chain: goes in a circle: .*merge/sft -> sft/lamini"):
        params.load()
