"""Shared fixtures: copies of the project to break, and the embedded run that slow tests look at."""

import fcntl
import getpass
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar import arithmetic

pytest.register_assert_rewrite("tests.builders")
from tests.builders import ROOT, parameters  # noqa: E402

# A shell has what it starts in the background ignore Ctrl-C, and so do the children of that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A stage that runs in this process sets nothing: its libraries are loaded already, and a process
# that a later test starts would compute in another way than this one.
SETTLE = arithmetic.settle
arithmetic.settle = lambda instructions: None

DATA = Path(os.environ.get("BEZOAR_DATA", ROOT.parent / "shared" / "data"))
BIN = Path(sys.executable).parent


# Bases that passed their rehearsal, by the content of all that decides it: tests need not wait for
# the same one again.
REHEARSALS = Path(tempfile.gettempdir()) / f"bezoar-rehearsals-{getpass.getuser()}"


def environment(work: Path, **more: str) -> dict[str, str]:
    """What the Makefile exports, with a scratch folder of its own, but for passed rehearsals."""
    if work.name == "work" and work.is_absolute():
        REHEARSALS.mkdir(exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "rehearsals").exists():
            (work / "rehearsals").symlink_to(REHEARSALS)
    return _environment(work, **more)


def _environment(work: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "BEZOAR_WORK": str(work),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DVC_NO_ANALYTICS": "1",
        # a machine without a git identity must do
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@localhost",
        **more,
    }


def from_yaml(text: str) -> Any:
    """A YAML document, by the parser in C that bezoar reads with: a sixth of the time."""
    return yaml.load(text, Loader=yaml.CSafeLoader)


def copy(to: Path, source: Path = ROOT) -> Path:
    """The files git would commit, as a fresh repository with one commit and no DVC cache."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=source,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (source / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, to / name)
    env = _environment(to)
    for command in ("init -q", "add -A", "commit -q -m copy"):
        subprocess.run(["git", *command.split()], cwd=to, check=True, env=env)
    return to


def looking() -> set[str]:
    """The names of the files that look at the finished run."""
    tests = (ROOT / "tests").rglob("test_*.py")
    return {path.name for path in tests if "finished: Run" in path.read_text("utf-8")}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one worker, so that what its fixtures make is made once, and the files in
    the order of `pytest_collection_modifyitems`, where xdist has its own."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return ByFile(config, log)


SLOW = {"finished", "sets"}  # fixtures that take seconds, and so do the tests that want them


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests slow that want a slow fixture."""
    if SLOW & {*getattr(item, "fixturenames", ())}:
        item.add_marker(pytest.mark.slow)


# Files of few tests that take a minute each.
LONG = {"test_own_data.py", "test_experiments.py"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with a file whose worker makes the finished run. Until that is made, the other workers
    have the files of slow tests that do not look at it. Then come those that do, and last what is
    quick: a worker that got a long file last would keep the others waiting."""
    names = looking()
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    first = max((path for path in slow if path.name in names), key=lambda p: slow[p], default=None)

    def place(item: pytest.Item) -> tuple[int, int]:
        path, count = item.path, slow[item.path]
        if path == first:
            return 0, 0
        if path.name in names:
            return 2, -count
        return (1 if count > 2 or path.name in LONG else 3), -count

    items.sort(key=place)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project in a folder of its own."""
    return copy(tmp_path / "project")


@pytest.fixture
def folder(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `sets` to work in, which is the current folder."""
    copied = tmp_path / "copy"
    shutil.copytree(sets, copied)
    monkeypatch.chdir(copied)
    return copied


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml and the three embedded sets, from their seeds to their cards. Look,
    or work on a copy."""
    from bezoar import work, world
    from bezoar.rows.files import write_json, write_jsonl
    from stages import filter, generate, judge
    from tests.builders.bases import write_tokenizer

    folder = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(work, "die_with_parent", lambda: None)
        patch.setenv("BEZOAR_WORK", str(folder / "work"))
        parameters.copy(folder)
        write_jsonl("data/fetch/dolly/seeds.jsonl", world.seeds(400, 7))
        write_jsonl("data/fetch/flan/queries.jsonl", world.queries(400, 7))
        write_jsonl("data/fetch/topics/topics.jsonl", world.topics(40, 7))
        write_jsonl("data/fetch/mt_bench/questions.jsonl", world.questions(8, 7))
        write_jsonl("data/fetch/benchmarks/probes.jsonl", [])
        write_jsonl("data/fetch/hh_rlhf/test.jsonl", [])
        for source in ("dolly", "flan", "hh_rlhf"):
            write_json(f"data/fetch/{source}/source.json", {"source": "world"})
        write_json("models/fetch/base/source.json", {"source": "grown"})
        write_tokenizer(folder / "models/fetch/base/tokenizer.json")
        schemes = ("lamini", "evol_instruct", "orca")
        for stage in (generate, judge, filter):
            for scheme in schemes:
                stage.main(scheme)
    return folder


@dataclass(frozen=True)
class Run:
    """A finished embedded run: its folder, its environment, what it printed."""

    folder: Path
    env: dict[str, str]
    output: str

    def dvc(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a dvc command in the run's folder."""
        return subprocess.run(
            [BIN / "dvc", *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=check,
        )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An embedded run with nothing cached, under tests/audit/, which logs every file that a stage
    opens. Look, or work on a copy. The first worker that wants it makes it, others get a copy."""
    mine = tmp_path_factory.mktemp("run") / "another folder"
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return embedded(mine)
    shared = tmp_path_factory.getbasetemp().parent / "finished"
    output = shared / "output.txt"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            run = embedded(mine)
            shutil.copytree(mine, shared, symlinks=True)
            output.write_text(run.output, "utf-8")
            return run
    shutil.copytree(shared, mine, symlinks=True)
    return Run(mine / "project", elsewhere(mine), output.read_text("utf-8"))


def embedded(base: Path) -> Run:
    """Run the embedded profile from nothing, on what looks like another machine than the one that
    made dvc.lock: folder, umask, locale, time zone, hash seed and concurrency differ."""
    folder = copy(base / "project")
    (folder / "dvc.lock").unlink(missing_ok=True)
    profile = folder / "profiles/embedded.yaml"
    text = profile.read_text()
    assert "concurrency: 1\n" in text
    profile.write_text(text.replace("concurrency: 1\n", "concurrency: 7\n"))
    (base / "audit").mkdir()
    env = elsewhere(base)
    done = subprocess.run(
        [BIN / "dvc", "repro"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        check=False,
        umask=0o077,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return Run(folder, env, done.stdout)


def elsewhere(base: Path) -> dict[str, str]:
    """The environment of that run."""
    return environment(
        base / "work",
        PYTHONPATH=str(ROOT / "tests/audit"),
        AUDIT_LOG=str(base / "audit"),
        PYTHONHASHSEED="2",
        LC_ALL="POSIX",
        TZ="Asia/Kathmandu",
    )
