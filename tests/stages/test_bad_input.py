"""A user's mistakes, by the commands a user runs: a clear error, no traceback, nothing lost."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import parameters
from tests.builders.bases import BASE_FILES
from tests.builders.files import DOLLY, put
from tests.builders.machines import private_mounts
from tests.conftest import copy, environment


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy of the project for all these tests; each mends what it breaks."""
    folder = copy(tmp_path_factory.mktemp("bad") / "project")
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("profile: embedded", "profile: local", 1))
    return folder


def run(folder: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    done = subprocess.run(
        [*prefix, sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment(folder.parent / "work"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def fails(folder: Path, *arguments: str) -> str:
    code, said = run(folder, *arguments)
    assert code != 0 and said.startswith("error: "), said
    return said


def written(folder: Path) -> dict[str, bytes]:
    files = [p for top in ("data", "models") for p in (folder / top).rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


# --- params.yaml ---------------------------------------------------------------------------------

# tests/params/mistakes.yaml has many more, for the check that each stage begins with
FAULTS = [
    (
        "  copy_ratio: ",
        "  copy_ration: ",
        "filter.copy_ration: no such parameter; did you mean 'copy_ratio'?",
    ),
    ("profile: local", "profile: locale", "no profile 'locale' .*; did you mean 'local'\\? have"),
    ("profile: local", "profile: [local", r"params.yaml:\d+: not YAML \("),
]


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "said"), FAULTS)
def test_a_fault_in_params_stops_a_stage_before_it_starts(
    tree: Path, old: str, new: str, said: str
) -> None:
    path = tree / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        output = fails(tree, "stages.fetch", "topics")
        assert re.search(said, output), output
        assert {Path(name).name for name in written(tree)} <= {".gitignore", ".gitkeep"}
    finally:
        path.write_text(text)


@pytest.mark.slow
def test_all_faults_are_told_at_once_also_of_the_other_profile(tree: Path) -> None:
    before = parameters.texts(tree)
    parameters.replace(tree, "calls: 120", "cals: 120")
    parameters.replace(tree, "  beta: 0.1", "  beta: -1")
    try:
        output = fails(tree, "stages.fetch", "dolly")
    finally:
        for path, text in before.items():
            (tree / path).write_text(text)
    assert "schemes.lamini.cals: no such parameter; did you mean" in output
    assert "profiles/embedded.yaml:" in output
    assert "dpo.beta" in output and "nothing was run" in output


# --- the user's files ----------------------------------------------------------------------------


@pytest.fixture
def dolly(tree: Path) -> Path:
    """Fetched seeds, and the file that they came from."""
    shutil.rmtree(tree / "data/fetch", ignore_errors=True)
    path = put(tree / "local/dolly/seeds.jsonl", *[DOLLY] * 15_000)
    assert run(tree, "stages.fetch", "dolly") == (0, "")
    return path


@pytest.mark.slow
def test_a_broken_line_is_named_and_what_was_fetched_stays(tree: Path, dolly: Path) -> None:
    before = written(tree)
    assert len(before["data/fetch/dolly/seeds.jsonl"].splitlines()) == 15_000
    lines = dolly.read_text().splitlines()
    lines[4710] = lines[4710][:-5]
    dolly.write_text("\n".join(lines))
    output = fails(tree, "stages.fetch", "dolly")
    assert output == (
        "error: local/dolly/seeds.jsonl:4711: not JSON (unterminated string starting at, "
        "column 82); each row is one whole JSON object\n"
    )
    assert written(tree) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dolly", "flan", "topics", "hh_rlhf", "mt_bench", "benchmarks"])
def test_an_empty_file_is_an_error_in_every_source(tree: Path, name: str) -> None:
    path = put(tree / f"local/{name}/empty.jsonl", text="")
    try:
        output = fails(tree, "stages.fetch", name)
        assert f"local/{name}/empty.jsonl: is empty; leave the file out" in output
    finally:
        path.unlink()


@pytest.mark.slow
def test_missing_seeds_are_an_error_and_other_missing_files_are_not(
    tree: Path, dolly: Path
) -> None:
    before = written(tree)
    dolly.unlink()
    output = fails(tree, "stages.fetch", "dolly")
    assert "local/dolly: holds no file, and nothing stands in for it; put the file" in output
    assert written(tree) == before
    assert run(tree, "stages.fetch", "mt_bench") == (0, "")
    source = json.loads((tree / "data/fetch/mt_bench/source.json").read_text())
    assert source["source"] == "world" and source["stands_in_for"] == "local/mt_bench"
    votes = json.loads((tree / "data/fetch/mt_bench/votes.json").read_text())
    assert votes == {"simulated": True}


def a_base(folder: Path) -> Path:
    """A Llama with weights, and a tokenizer of bytes."""
    from transformers import LlamaConfig

    from bezoar.models import small

    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    small.build(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(BASE_FILES[name])
    return folder


@pytest.mark.slow
def test_a_base_without_a_tokenizer_is_an_error_and_the_one_before_stays(tree: Path) -> None:
    base = a_base(tree / "local/base/mine")
    try:
        assert run(tree, "stages.fetch", "base") == (0, "")
        before = written(tree)
        assert "models/fetch/base/model.safetensors" in before
        (base / "tokenizer.json").unlink()
        output = fails(tree, "stages.fetch", "base")
        assert "local/base/mine: has no tokenizer; put tokenizer.json" in output
        assert written(tree) == before
    finally:
        shutil.rmtree(base)


@pytest.mark.slow
def test_a_folder_without_seeds_cannot_be_linked(tree: Path, tmp_path: Path) -> None:
    output = fails(tree, "bezoar.sources.link", str(tmp_path))
    assert "no seeds found; a seeds file is JSONL whose rows have" in output


@pytest.mark.slow
def test_which_categories_of_seeds_each_scheme_draws_from_is_told(tree: Path) -> None:
    rows = [{**DOLLY, "response": str(n), "category": "poetry"} for n in range(3)]
    path = put(tree / "local/dolly/own/poems.jsonl", *rows)
    put(tree / "local/dolly/own/others.jsonl", {"question": "Why?", "answer": "So."})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "stages.fetch", "dolly"],
            cwd=tree,
            env=environment(tree.parent / "work"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert (
            "categories of the seeds: poetry (3), open_qa (1); lamini draws from poetry, and not "
            "from open_qa; evol_instruct draws from all" in done.stdout
        )
        account = json.loads((tree / "data/fetch/dolly/source.json").read_text())
        assert account["categories"] == {"open_qa": 1, "poetry": 3}
    finally:
        shutil.rmtree(path.parent)


# --- a full disk ---------------------------------------------------------------------------------

MOUNT = 'mount -t tmpfs -o size=512k none "$1" && cp -r "$2"/. "$1" && shift 2 && "$@"; code=$?'
KEEP = 'rm -rf "$BEFORE"; cp -r data/fetch "$BEFORE"; exit $code'


@pytest.mark.slow
@pytest.mark.skipif(not private_mounts(), reason="no tmpfs can be mounted here (unshare -rm)")
def test_a_disk_that_fills_up_leaves_what_was_there(
    tree: Path, dolly: Path, tmp_path: Path
) -> None:
    """data/fetch is a disk of 512 kB that already holds other rows; the seeds are 3 MB."""
    fetched, saved, after = tree / "data/fetch", tmp_path / "saved", tmp_path / "after"
    shutil.rmtree(fetched)
    put(fetched / "dolly/seeds.jsonl", text="earlier seeds\n")
    put(fetched / "topics/topics.jsonl", text="earlier topics\n")
    before = written(tree)
    shutil.copytree(fetched, saved)
    prefix = ("unshare", "-rm", "env", f"BEFORE={after}", "sh", "-c", MOUNT + "\n" + KEEP, "sh")
    code, output = run(tree, "stages.fetch", "dolly", prefix=(*prefix, str(fetched), str(saved)))
    assert code != 0 and output.startswith("error: data/fetch/dolly: cannot be written")
    assert "No space left on device" in output and "free some space" in output
    left = {
        f"data/fetch/{p.relative_to(after)}": p.read_bytes()
        for p in after.rglob("*")
        if p.is_file()
    }
    assert left == {name: data for name, data in before.items() if name.startswith("data/fetch")}


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where nothing can be mounted: the system's own error, at the write."""
    from bezoar.rows.files import BadInput, write

    put(tmp_path / "seeds.jsonl", text="earlier\n")
    real = Path.open

    def full(path: Path, *arguments: object, **options: object) -> object:
        opened = real(path, *arguments, **options)  # type: ignore[call-overload]
        if path.name.endswith(".part"):

            def writelines(chunks: object) -> None:
                raise OSError(28, os.strerror(28))

            opened.writelines = writelines
        return opened

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(BadInput, match=r"seeds.jsonl: cannot be written \(No space left on device"):
        write(tmp_path / "seeds.jsonl", ["later\n"])
    assert [p.name for p in tmp_path.iterdir()] == ["seeds.jsonl"]
    assert (tmp_path / "seeds.jsonl").read_text() == "earlier\n"
