"""Finding a user's files by what is in them, and linking them so that DVC sees every change."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bezoar.rows.files import BadInput
from bezoar.sources import link, local
from tests.builders.bases import model
from tests.builders.files import CHAIN, DOLLY, ITEMS, PAIR, QUESTIONS, TASK, answer, put, read, vote
from tests.conftest import BIN, DATA, environment

DECOYS: dict[str, Any] = {
    "chat.json": [{"conversations": [{"from": "human", "value": "Hi"}], "tools": "[]"}],
    "code.jsonl": {"text": "def f(): ..."},
    "humaneval.jsonl": {"task_id": "1", "prompt": "def f():", "canonical_solution": "pass"},
    "judge_prompts.jsonl": {"name": "pair-v2", "type": "pairwise", "system_prompt": "Judge."},
    "topics.json": ["Travel", "Food"],
    "eval.json": [{"class": "math", "data": "What is 2 + 2?"}],
    "prompts.json": [{"instruction": "Hi", "input": ""}],
    "outline.json": [{"subject": "Water", "level": 1, "children": [{"subject": "Sea"}]}],
    "one_turn.jsonl": {"question_id": 1, "category": "math", "turns": ["2 + 2?"]},
    "unlabelled.jsonl": {"goal": "?", "sol1": "a", "sol2": "b"},
    "number.json": 3,
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files with names that tell nothing, beside an empty project."""
    folder = tmp_path / "mine"
    put(folder / "x/1.txt", DOLLY, DOLLY)
    put(folder / "x/y/2", PAIR)
    put(folder / "x/y/3.json", text=json.dumps(TASK, indent=1))
    put(folder / "x/y/4.jsonl", {"prompt": "a", "completion": "b"})
    put(folder / "x/y/5.txt", text=f"{CHAIN}\n" * 3)
    put(folder / "6.json", text=json.dumps([{"inputs": "a", "targets": "b"}]))
    put(folder / "7.json", [{"subject": "a", "level": 1, "children": [], "subcategory": []}])
    put(folder / "mt/8", *QUESTIONS)
    put(folder / "mt/9", answer(1, "a", "b"), answer(2, "a", "b"))
    put(folder / "mt/10", vote(1, "tie"))
    put(folder / "b/11.jsonl", ITEMS[0][0])
    model(folder / "m/weights")
    for name, content in DECOYS.items():
        put(folder / "other" / name, text=json.dumps(content))
    put(folder / "other/table.tsv", text="id\tlabel\tvalue\n1\ta\tb\n")
    put(folder / "other/broken.json", text='{"instruction": ')
    (folder / "other/picture.png").write_bytes(b"\x89PNG\0\0")
    (folder / "other/latin.csv").write_bytes("Größe\n".encode("latin-1"))
    put(folder / ".hidden/1.jsonl", DOLLY)
    put(folder / "x/.hidden.jsonl", DOLLY)
    put(tmp_path / "project/local/dolly/.gitkeep", text="")
    monkeypatch.chdir(tmp_path / "project")
    return folder


def linked() -> dict[str, list[str]]:
    return {
        kind: [p.relative_to(f"local/{kind}/linked").as_posix() for p in local.list_files(kind)]
        for kind in link.KINDS
    }


def test_files_are_told_by_their_content_alone(mine: Path, capsys: Any) -> None:
    link.main([str(mine)])
    assert linked() == {
        "dolly": ["x/1.txt"],
        "flan": ["6.json", "x/y/3.json", "x/y/4.jsonl", "x/y/5.txt"],
        "topics": ["7.json"],
        "hh_rlhf": ["x/y/2"],
        "mt_bench": ["mt/10", "mt/8", "mt/9"],
        "benchmarks": ["b/11.jsonl"],
        "base": [
            "weights/config.json",
            "weights/model.safetensors",
            "weights/tokenizer.json",
        ],
    }
    for kind in link.KINDS:
        for path in local.list_files(kind):
            assert path.is_symlink() and path.readlink().is_absolute()
            assert not any(parent.is_symlink() for parent in path.parents)
    told = capsys.readouterr().out
    assert "x/1.txt (seeds)" in told and "m/weights/config.json (base model)" in told
    assert "other/broken.json: 1: not JSON" in told and "other/latin.csv: 1: not UTF-8" in told
    unused = told.split("not used: ")[1]
    assert unused.startswith(f"{len(DECOYS) + 4} files")
    assert all(f"other/{name}" in unused for name in ("chat.json", "prompts.json"))


def test_a_new_link_replaces_the_old_ones_and_nothing_else(mine: Path, tmp_path: Path) -> None:
    link.main([str(mine)])
    own = put(Path("local/dolly/own.jsonl"), DOLLY)
    kept = put(Path("local/dolly/linked/kept.jsonl"), DOLLY)
    put(tmp_path / "other/seeds.jsonl", DOLLY)
    link.main([str(tmp_path / "other")])
    assert [p.name for p in local.list_files("dolly")] == ["kept.jsonl", "seeds.jsonl", "own.jsonl"]
    assert local.list_files("flan") == local.list_files("base") == []
    link.main([])
    assert own.exists() and kept.exists() and len(local.list_files("dolly")) == 2
    assert not Path("local/base/linked").exists()
    assert (mine / "x/1.txt").exists() and (tmp_path / "other/seeds.jsonl").exists()


def test_without_seeds_it_says_what_they_look_like_and_keeps_the_links(
    mine: Path, tmp_path: Path
) -> None:
    link.main([str(mine)])
    before = linked()
    put(tmp_path / "other/a.jsonl", PAIR)
    with pytest.raises(BadInput, match=r"no seeds found; .* instruction, context, response and"):
        link.main([str(tmp_path / "other")])
    with pytest.raises(BadInput, match="there is no such folder"):
        link.main([str(tmp_path / "nowhere")])
    assert linked() == before
    put(Path("local/dolly/own.jsonl"), DOLLY)  # seeds put there by hand will do
    link.main([str(tmp_path / "other")])
    assert [path.name for path in local.list_files("hh_rlhf")] == ["a.jsonl"]


def test_loops_stores_and_second_names_of_a_file_are_left_out(mine: Path) -> None:
    (mine / "x/loop").symlink_to(mine)
    (mine / "z.jsonl").symlink_to(mine / "x/1.txt")
    (mine / "gone.jsonl").symlink_to(mine / "nowhere")
    put(mine / "cache/blobs/0a1b", DOLLY)
    (mine / "cache/snapshots/1").mkdir(parents=True)
    (mine / "cache/snapshots/1/seeds.jsonl").symlink_to(mine / "cache/blobs/0a1b")
    link.main([str(mine)])
    assert linked()["dolly"] == ["cache/snapshots/1/seeds.jsonl", "z.jsonl"]
    # the project's own links are no files of the user's
    link.main([".."])
    assert linked()["dolly"] == ["mine/cache/snapshots/1/seeds.jsonl", "mine/z.jsonl"]


def test_votes_without_questions_are_not_linked(mine: Path, capsys: Any) -> None:
    (mine / "mt/8").unlink()
    link.main([str(mine)])
    assert linked()["mt_bench"] == []
    assert "mt/10: votes, but no questions" in capsys.readouterr().out


def test_one_usable_base_model_is_taken(mine: Path, capsys: Any) -> None:
    (model(mine / "a/pickled") / "model.safetensors").unlink()
    model(mine / "z/second")
    model(mine / "a/encoder", architectures=["BertModel"])
    link.main([str(mine)])
    told = capsys.readouterr().out
    assert {name.split("/")[0] for name in linked()["base"]} == {"weights"}
    assert "a/pickled: " in told and "pickled weights only" in told
    assert "z/second: a second base model" in told
    (mine / "m/weights/tokenizer.json").unlink()
    (mine / "z/second/tokenizer.json").unlink()
    with pytest.raises(BadInput, match="a/pickled: pickled weights only"):
        link.main([str(mine)])
    assert {name.split("/")[0] for name in linked()["base"]} == {"weights"}


@pytest.mark.slow
def test_dvc_sees_a_change_in_a_linked_file(mine: Path) -> None:
    link.main([str(mine)])
    stage = "{cmd: cat local/dolly/linked/x/1.txt > out, deps: [local/dolly], outs: [out]}"
    Path("dvc.yaml").write_text(f"stages: {{seeds: {stage}}}")
    env = environment(mine.parent / "work")

    def dvc(*arguments: str) -> str:
        done = subprocess.run(
            [BIN / "dvc", *arguments], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    dvc("init", "--no-scm", "--quiet")
    dvc("repro")
    assert "up to date" in dvc("status")
    put(mine / "x/1.txt", DOLLY, {**DOLLY, "response": "Elbe."})
    assert "local/dolly" in dvc("status")
    dvc("repro")
    assert "Elbe." in Path("out").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")
def test_the_real_folder_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    link.main([str(DATA)])
    counts = {kind: len(paths) for kind, paths in linked().items()}
    assert counts == {
        "dolly": 5,
        "flan": 39,
        "topics": 1,
        "hh_rlhf": 3,
        "mt_bench": 8,
        "benchmarks": 4,
        "base": 5,
    }
    queries = local.read("flan", None, 7)
    assert queries is not None and len(queries.tables["queries.jsonl"]) == 2_180
    bench = local.read("mt_bench", None, 7)
    assert bench is not None
    questions: Any = bench.tables["questions.jsonl"]
    assert len(questions) == 80 and sum(bool(q.reference) for q in questions) == 30
    assert len(bench.tables["answers.jsonl"]) == 320
    assert len(bench.tables["votes.jsonl"]) == 3_355 + 2_400


def test_a_name_that_is_no_utf8_or_no_line_is_linked_under_one_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    top = tmp_path / "mine"
    for name in (b"gr\xf6\xdfe.jsonl", b"two\nlines.jsonl"):
        path = top / os.fsdecode(name)
        put(path, {**DOLLY, "instruction": repr(name)})
    put(top / os.fsdecode(b"\xe4.txt"), text="nothing")
    monkeypatch.chdir(tmp_path)
    link.main([str(top)])
    told = capsys.readouterr().out
    assert "gr%F6%DFe.jsonl" in told and "two%0Alines.jsonl" in told and "%E4.txt" in told
    source = read("dolly", tmp_path / "local")
    source.write(tmp_path / "out")
    assert source.account["rows"] == {"gr%F6%DFe.jsonl": 1, "two%0Alines.jsonl": 1}
