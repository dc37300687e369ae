"""The copies that `dvc exp run --temp` works in see the user's own files, or refuse by name."""

import json
import shutil
from pathlib import Path

import pytest

from bezoar.rows.files import BadInput
from bezoar.sources import local
from bezoar.work import temporary
from tests.conftest import Run, copy, environment

TALK = "\n\nHuman: A {}?\n\nAssistant: {}"
PAIRS = [
    {"chosen": TALK.format(asked, answer), "rejected": TALK.format(asked, "No.")}
    for asked, answer in (("name", "Ida."), ("town", "Ulm."), ("tree", "Oak."))
]


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project; the current folder is a temporary copy of it, as DVC makes one."""
    root = tmp_path / "project"
    here = root / ".dvc/tmp/exps/tmp1"
    put(here / "local/hh_rlhf/.gitkeep")
    put(root / "local/hh_rlhf/.gitkeep")
    monkeypatch.chdir(here)
    monkeypatch.setenv("DVC_ROOT", str(root))
    return root


@pytest.mark.parametrize(
    "name",
    [
        "dolly/mine.jsonl",
        "dolly/a folder/mine.jsonl",
        "hh_rlhf/linked/mine.jsonl",
        "base/model.safetensors",
        "llm/teacher/config.json",
        "models/rival/model.safetensors",
    ],
)
def test_every_own_file_is_seen_in_the_copy(root: Path, name: str) -> None:
    path = put(root / "local" / name, "mine")
    put(path.with_name(".cache"))
    temporary.bring_own_files("fetch@dolly")
    assert Path("local", name).read_text() == "mine"
    assert not Path("local", name).with_name(".cache").exists()
    temporary.bring_own_files("generate@lamini")  # a second stage finds them there
    kind = name.partition("/")[0]
    assert [each.name for each in local.list_files(kind)] == [path.name]


def test_a_link_of_the_project_leads_to_the_same_file(root: Path, tmp_path: Path) -> None:
    (root / "local/hh_rlhf/linked").mkdir()
    for place, name in ((put(tmp_path / "data/a.jsonl", "mine"), "a"), (tmp_path / "gone", "b")):
        (root / "local/hh_rlhf/linked" / name).symlink_to(place)
    temporary.bring_own_files("fetch@hh_rlhf")
    assert Path("local/hh_rlhf/linked/a").resolve() == tmp_path / "data/a.jsonl"
    assert Path("local/hh_rlhf/linked/b").is_symlink()


def test_a_link_to_a_folder_is_refused_as_in_the_project(root: Path, tmp_path: Path) -> None:
    put(tmp_path / "data/a.jsonl")
    (root / "local/hh_rlhf/all").symlink_to(tmp_path / "data")
    temporary.bring_own_files("fetch@hh_rlhf")
    with pytest.raises(BadInput, match="a link to a folder"):
        local.list_files("hh_rlhf")


def test_what_the_copy_holds_stays(root: Path) -> None:
    put(root / "local/hh_rlhf/a.jsonl", "the project's")
    put(Path("local/hh_rlhf/a.jsonl"), "the copy's")
    temporary.bring_own_files("fetch@hh_rlhf")
    assert Path("local/hh_rlhf/a.jsonl").read_text() == "the copy's"


@pytest.mark.parametrize("elsewhere", [".", "../../../../other"])
def test_elsewhere_nothing_is_linked(
    root: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    """Neither in the project itself nor where $DVC_ROOT is another project's."""
    put(root / "local/dolly/mine.jsonl")
    monkeypatch.setenv("DVC_ROOT", elsewhere)
    temporary.bring_own_files("fetch@dolly")
    assert local.list_files("dolly") == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A project under the profile `local` whose preference pairs stand in, as DVC has them."""
    base = tmp_path_factory.mktemp("own")
    folder = copy(base / "project")
    params = (folder / "params.yaml").read_text()
    put(folder / "params.yaml", params.replace("profile: embedded", "profile: local", 1))
    run = Run(folder, environment(base / "work"), "")
    run.dvc("repro", "fetch@hh_rlhf")
    # no `dvc repro` has seen this file yet
    put(folder / "local/hh_rlhf/mine.jsonl", "\n".join(map(json.dumps, PAIRS)))
    return run


@pytest.mark.slow
def test_a_temporary_run_reads_own_files_and_leaves_the_project_alone(run: Run) -> None:
    before = (run.folder / "data/fetch/hh_rlhf/source.json").read_text()
    told = run.dvc("exp", "run", "--temp", "-S", "fetch.seed=8", "fetch@hh_rlhf").stdout
    assert '"rows": {"mine.jsonl": 3}' in told and "stands in" not in told
    assert (run.folder / "data/fetch/hh_rlhf/source.json").read_text() == before
    # DVC hashed what was read: the same in the project comes out of its cache
    again = run.dvc("exp", "run", "-S", "fetch.seed=8", "fetch@hh_rlhf").stdout
    assert "'fetch@hh_rlhf' is cached" in again


@pytest.mark.slow
def test_what_stood_in_is_refused_by_the_stages_that_need_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy(run.folder / ".dvc/tmp/exps/tmp1", run.folder)
    account = {"source": "world", "stands_in_for": "local/hh_rlhf"}
    put(here / "data/fetch/hh_rlhf/source.json", json.dumps(account))
    monkeypatch.chdir(here)
    monkeypatch.setenv("DVC_ROOT", str(run.folder))
    # DVC may run what needs no pairs before it comes to fetch@hh_rlhf
    for stage in ("generate@lamini", "fetch@hh_rlhf"):
        temporary.bring_own_files(stage)
    for stage in ("filter@lamini", "report"):
        with pytest.raises(BadInput, match=r"^error: local/hh_rlhf: holds .* `dvc repro fetch`"):
            temporary.bring_own_files(stage)
    shutil.rmtree(here)
