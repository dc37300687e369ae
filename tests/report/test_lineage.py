"""Lineage: every row of a run can be followed from its seeds to the weights that hold it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bezoar import params, work
from bezoar.report import lineage
from bezoar.rows.files import BadInput, write_jsonl
from bezoar.training import chain
from stages import mix
from tests.conftest import ROOT, environment

SCHEMES = ("lamini", "evol_instruct", "orca")
SETTINGS = params.load(ROOT)


def changed(replay: float = 0.0, **links: Any) -> params.Params:
    """SETTINGS with another `mix.replay` and other fields of links: orca={"data": [...]}."""
    chain = {
        name: link.model_copy(update=links.get(name, {})) for name, link in SETTINGS.chain.items()
    }
    mix = SETTINGS.mix.model_copy(update={"replay": replay})
    return SETTINGS.model_copy(update={"chain": chain, "mix": mix})


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_weights_are_followed_back_to_the_base() -> None:
    made = [step.stage for step in chain.steps(SETTINGS, "dpo/policy")]
    assert made == [
        *("sft@lamini", "sft@orca", "sft@evol_instruct", "merge@sft", "sft@hh_rlhf", "dpo"),
    ]
    assert [step.stage for step in chain.steps(SETTINGS, "sft/orca")] == made[:2]
    assert chain.steps(SETTINGS, "fetch/base") == []


def test_a_link_learns_from_all_its_sets_and_sees_those_before_again() -> None:
    mixed = ["filter/orca", "filter/evol_instruct"]
    settings = changed(replay=0.1, evol_instruct={"data": mixed})
    steps = {step.stage: step for step in chain.steps(settings, "dpo/policy")}
    assert steps["sft@lamini"][2:] == (("filter/lamini",), ())
    assert steps["sft@orca"][2:] == (("filter/orca",), ("filter/lamini",))
    assert steps["sft@evol_instruct"][2:] == ((*mixed,), ("filter/lamini",)), "orca is its own now"
    assert steps["merge@sft"][2:] == ((), ())
    before = ("filter/lamini", "filter/orca", "filter/evol_instruct")
    assert steps["sft@hh_rlhf"][2:] == (("fetch/hh_rlhf",), before)
    assert steps["dpo"][2:] == (("fetch/hh_rlhf",), ())
    for step in chain.steps(changed(replay=0.0), "dpo/policy"):
        assert step.replayed == ()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_row_that_was_trained_on(folder: Path, scheme: str) -> None:
    for row in rows(f"data/filter/{scheme}/train.jsonl")[:40]:
        found = lineage.trace(row["id"], SETTINGS)
        assert sorted(seed["id"] for seed in found["seeds"]) == sorted({*row["seeds"]})
        wrote = {each["wrote"]: each for each in found["exchanges"]}
        assert row["response"] in wrote["response"]["reply"]
        assert row["instruction"] in wrote["response"]["prompt"]
        if scheme == "orca":  # its instruction is the seed's own
            assert found["seeds"][0]["query"] == row["instruction"]
        else:
            assert row["instruction"] in wrote["instruction"]["reply"]
        assert (found["verdict"]["id"], found["verdict"]["status"]) == (row["id"], "accepted")
        assert found["split"] == "train" and found["trained_by"] == [f"sft@{scheme}"]
        assert {"sft", "hh_rlhf", "dpo"} <= found["held_by"].keys()
        assert "base" not in found["held_by"]
        assert ("lamini" in found["held_by"]) == (scheme == "lamini")
        assert found["licences"]["teacher_terms"] == "Apache-2.0"
        text = lineage.text(found)
        assert f"trained on by sft@{scheme}" in text and "dpo: models/dpo/policy (not th" in text


def test_a_row_that_was_held_out_taught_nobody(folder: Path) -> None:
    (id, *_) = [row["id"] for row in rows("data/filter/orca/eval.jsonl")]
    found = lineage.trace(id, SETTINGS)
    assert found["split"] == "eval" and found["trained_by"] == [] and found["held_by"] == {}
    assert found["chose_the_epoch_of"] == ["sft@orca"]
    assert "trained on by no link\n  held out: sft@orca chose its epoch by it" in lineage.text(
        found
    )


def test_a_row_of_a_mixed_set_names_every_link_that_has_it(folder: Path) -> None:
    settings = changed(evol_instruct={"data": ["filter/lamini", "filter/evol_instruct"]})
    (row, *_) = rows("data/filter/lamini/train.jsonl")
    found = lineage.trace(row["id"], settings)
    assert found["trained_by"] == ["sft@lamini", "sft@evol_instruct"]
    assert found["replayed_by"] == []


@pytest.mark.slow
def test_a_row_that_was_replayed_says_by_which_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "die_with_parent", lambda: None)
    settings = changed(replay=0.1)
    monkeypatch.setattr(params, "load", lambda: settings)
    for link in ("orca", "evol_instruct"):
        mix.main(link)
    write_jsonl("data/mix/hh_rlhf/train.jsonl", [])
    orca, evol = (
        {row["id"] for row in rows(f"data/mix/{link}/train.jsonl") if "lamini" in row["source"]}
        for link in ("orca", "evol_instruct")
    )
    for row in rows("data/filter/lamini/train.jsonl"):
        found = lineage.trace(row["id"], settings)
        again = [
            f"sft@{n}" for n, ids in (("orca", orca), ("evol_instruct", evol)) if row["id"] in ids
        ]
        assert found["trained_by"] == ["sft@lamini"] and found["replayed_by"] == again
        assert (f"replayed by {', '.join(again)}" in lineage.text(found)) == bool(again)
    assert orca and evol
    Path("data/mix/orca/train.jsonl").unlink()
    with pytest.raises(BadInput, match=r"data/mix/orca/train\.jsonl: there is no such file"):
        lineage.trace(row["id"], settings)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("stage", ["generate", "filter"])
def test_every_row_that_was_dropped_says_where_and_why(
    folder: Path, scheme: str, stage: str
) -> None:
    dropped = rows(f"data/{stage}/{scheme}/rejected.jsonl")
    for row in dropped[:40]:
        found = lineage.trace(row["id"], SETTINGS)
        assert found["dropped"]["stage"] == f"{stage}@{scheme}"
        assert found["dropped"]["reason"] == row["reason"] and found["exchanges"]
        assert "trained_by" not in found and ("verdict" in found) == (stage == "filter")
        assert f"dropped by {stage}@{scheme}: {row['reason']}" in lineage.text(found)
    assert dropped or (stage, scheme) == ("generate", "orca")


@pytest.mark.parametrize(
    "id", ["lamini-0001-1", "lamini", "zzz", "orca-99999", "../x", '"', "", "é"]
)
def test_an_unknown_id_names_near_ones(folder: Path, id: str) -> None:
    with pytest.raises(BadInput, match=r"no row has this id; the nearest of [\d,]+ are \w+-\d+"):
        lineage.trace(id, SETTINGS)


@pytest.mark.parametrize(
    "path",
    [
        "data/generate/lamini/samples.jsonl",
        "data/generate/lamini/replies.jsonl",
        "data/judge/lamini/verdicts.jsonl",
        "data/filter/lamini/train.jsonl",
        "data/fetch/dolly/seeds.jsonl",
    ],
)
def test_a_file_that_is_missing_is_named(folder: Path, path: str) -> None:
    id = rows("data/filter/lamini/train.jsonl")[0]["id"]
    Path(path).unlink()
    with pytest.raises(BadInput, match=f"{path}: there is no such file"):
        lineage.trace(id, SETTINGS)


def test_an_empty_tree_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="data/generate holds no rows: run `dvc repro`"):
        lineage.trace("row", SETTINGS)


def test_a_set_that_is_older_than_its_samples_says_so(folder: Path) -> None:
    lines = Path("data/filter/orca/train.jsonl").read_text(encoding="utf-8").splitlines(True)
    Path("data/filter/orca/train.jsonl").write_text("".join(lines[1:]), encoding="utf-8")
    with pytest.raises(BadInput, match="`dvc repro filter@orca` makes it anew"):
        lineage.trace(json.loads(lines[0])["id"], SETTINGS)
    Path("data/filter/orca/train.jsonl").write_text(lines[0].replace("sources", "source"))
    with pytest.raises(BadInput, match=r"train\.jsonl:1: is no Kept of this version"):
        lineage.trace(json.loads(lines[0])["id"], SETTINGS)


@pytest.mark.slow
def test_the_command_prints_text_or_json(folder: Path) -> None:
    id = rows("data/filter/evol_instruct/train.jsonl")[0]["id"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bezoar.lineage", *arguments]
        env = {**environment(folder / "work"), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False
        )

    assert run(id).stdout.startswith("seed world-") and run(id).returncode == 0
    assert json.loads(run(id, "--json").stdout) == lineage.trace(id, SETTINGS)
    wrong = run("evol-1")
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: evol-1: no row has this id")
    assert "Traceback" not in wrong.stderr
