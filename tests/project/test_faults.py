"""docs/faults.md, row by row: a fault is provoked in a copy of the finished run, the page's words
are printed, the page's commands are typed, and the outs have the bytes of the finished run."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from bezoar import work
from tests.builders.machines import private_mounts
from tests.builders.s3 import S3, key_of, s3
from tests.conftest import BIN, ROOT, Run, environment

PAGE = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
CHECK = re.findall(r"^```\n(find .*)\n```$", PAGE, re.MULTILINE)[0]
# A folder and three files, for the bucket: their stages
OUTS = {
    "data/filter/lamini": "filter@lamini",
    "metrics/filter/lamini.json": "filter@lamini",
    "metrics/dpo/dpo.json": "dpo@policy",
    "metrics/dpo/train.csv": "dpo@policy",
}


@dataclass(frozen=True)
class Row:
    """A fault of the page: the words that it says are printed, the commands that it says to type,
    and the tests that it names."""

    printed: list[str]
    commands: list[str]
    tests: list[str]


def rows() -> dict[str, Row]:
    """Those of the page, by the fault as it is called there."""
    found = {}
    for line in re.findall(r"^\| (?!fault|-)(.*) \|$", PAGE, re.MULTILINE):
        fault, printed, typed, tests = line.split(" | ")
        spans, commands, named = (re.findall(r"`([^`]+)`", c) for c in (printed, typed, tests))
        programs = ("dvc ", "git ", "rm ")
        found[fault] = Row(
            [words for words in spans if not words.startswith(programs)],
            [words for words in commands if words.startswith(programs)],
            named,
        )
    return found


def row(start: str) -> Row:
    """The one whose fault begins so."""
    (found,) = (row for fault, row in rows().items() if fault.startswith(start))
    return found


def test_every_row_names_tests_that_are_there() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(rows()) == 25
    for fault, told in rows().items():
        assert told.tests, fault
        for name in told.tests:
            assert f"def {name}(" in text, name


# --- on this machine ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copy(Run):
    """A copy of the finished run to break, and what its lock file and its outs must be again."""

    finished: Path

    def says(self, *arguments: str) -> tuple[int, str]:
        """What a dvc command ends with and prints."""
        done = self.dvc(*arguments, check=False)
        return done.returncode, done.stdout + done.stderr

    def types(self, command: str, stage: str) -> str:
        """Type a command of the page, for this stage alone; it must succeed."""
        words = [stage if word == "STAGE" else word for word in command.split()]
        if words[:2] == ["dvc", "repro"]:
            words.append("--single-item")  # the other stages are as they were
        done = subprocess.run(
            words, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def start(self, *arguments: str, **more: str) -> "subprocess.Popen[str]":
        """A dvc command in a session of its own."""
        return subprocess.Popen(
            [BIN / "dvc", *arguments],
            cwd=self.folder,
            env=self.env | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def outs(self, stage: str) -> dict[str, str]:
        """The outs of a stage by path, each with its md5."""
        lock = yaml.load((self.finished / "dvc.lock").read_text(), yaml.CSafeLoader)
        return {out["path"]: out["md5"] for out in lock["stages"][stage]["outs"]}

    def forget(self, stage: str) -> None:
        """Lose what a stage made, as if it never ran: its way out is computed, not restored."""
        cache = self.folder / ".dvc/cache"
        shutil.rmtree(cache / "runs", ignore_errors=True)
        for digest in self.outs(stage).values():
            (cache / key_of(digest)).unlink(missing_ok=True)

    def assert_whole(self, stage: str) -> None:
        """The outs of `stage` and all that dvc.lock says are those of the finished run."""
        for out in self.outs(stage):
            assert work.content(self.folder / out) == work.content(self.finished / out), out
        assert self.lock() == (self.finished / "dvc.lock").read_text(encoding="utf-8")

    def lock(self) -> str:
        return (self.folder / "dvc.lock").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def copied(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    base = tmp_path_factory.mktemp("faults")
    shutil.copytree(finished.folder, base / "project", symlinks=True)
    env = environment(base / "work")
    for command in ("add --all", "commit --quiet --allow-empty -m finished"):
        subprocess.run(["git", *command.split()], cwd=base / "project", env=env, check=True)
    return Copy(base / "project", env, "", finished.folder)


@pytest.fixture
def grown(copied: Copy, finished: Run) -> Path:
    """The scratch folder of fetch@base, with the base that the finished run grew there."""
    (done,) = Path(finished.env["BEZOAR_WORK"], "fetch").glob("*/base")
    folder = Path(copied.env["BEZOAR_WORK"], "fetch", done.parent.name)
    shutil.copytree(done, folder / "base", dirs_exist_ok=True)
    return folder


@dataclass(frozen=True)
class Halted:
    """`dvc repro`, whose stage stands still at a chosen moment."""

    dvc: "subprocess.Popen[str]"
    script: int

    def kill(self, who: str) -> str:
        """kill -9 of dvc, of the script, or of both; the other has ended, too. What was printed."""
        if who == "both":
            os.killpg(self.dvc.pid, signal.SIGKILL)
        else:
            os.kill(self.dvc.pid if who == "dvc" else self.script, signal.SIGKILL)
        said, _ = self.dvc.communicate(timeout=20)
        assert self.dvc.returncode != 0
        until(lambda: not alive(self.script))
        return said


@pytest.fixture
def halt(copied: Copy, tmp_path: Path) -> Iterator[Callable[..., Halted]]:
    """Run a stage of `copied` until it writes a file, or moves it into place, and stop it there."""
    started: list[subprocess.Popen[str]] = []

    def begin(stage: str, at: str, **more: str) -> Halted:
        seen = tmp_path / f"seen-{len(started)}"
        more |= {"HALT_AT": at, "HALT_SEEN": str(seen), "PYTHONPATH": str(ROOT / "tests/halt")}
        dvc = copied.start("repro", "--single-item", "--force", stage, **more)
        started.append(dvc)
        until(lambda: seen.exists() or dvc.poll() is not None)
        assert dvc.poll() is None, dvc.communicate()[0]
        return Halted(dvc, int(seen.read_text()))

    yield begin
    for dvc in started:
        with contextlib.suppress(ProcessLookupError):  # where a script outlived its dvc
            os.killpg(dvc.pid, signal.SIGKILL)
        dvc.communicate()


def until(come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and whom nobody asks about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


KILLS = {"dvc": "`kill -9` of dvc", "script": "`kill -9` of the stage", "both": "`kill -9` of both"}

SH, BASH = "/bin/sh", shutil.which("bash") or "/bin/sh"  # dvc runs a stage in $SHELL, or in sh
KINDS = [
    ("fetch@topics", "data/fetch/topics", SH, ("dvc", "script", "both")),
    ("generate@lamini", "data/generate/lamini/replies.jsonl", BASH, ("both", "dvc", "script")),
    ("judge@lamini", "metrics/judge/lamini.json", SH, ("script", "both", "dvc")),
    ("filter@lamini", "data/filter/lamini/funnel.json", BASH, ("dvc", "both", "script")),
    ("report", "metrics/report/report.html", SH, ("both", "script", "dvc")),
    ("lm_eval@lamini", "data/lm_eval/lamini/results.json", SH, ("dvc",)),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=[stage for stage, *_ in KINDS])
def test_a_killed_stage_ends_with_the_same_bytes(
    copied: Copy, halt: Callable[..., Halted], kind: tuple[str, str, str, tuple[str, ...]]
) -> None:
    stage, at, shell, kills = kind
    copied.forget(stage)
    said = ""
    for kill in kills:
        said += halt(stage, at, SHELL=shell).kill(kill)
        assert not (copied.folder / at).exists()
    said += copied.types(row(KILLS[kills[-1]]).commands[0], stage)
    for kill in kills:
        assert all(words in said for words in row(KILLS[kill]).printed), said
    assert f"Stage '{stage}' is cached" not in said
    copied.assert_whole(stage)


@pytest.mark.slow
def test_what_a_killed_stage_leaves_is_no_data(copied: Copy, halt: Callable[..., Halted]) -> None:
    """Where the outs come out of the run cache, nothing writes over what was half written."""
    halt("judge@lamini", "metrics/judge/lamini.json").kill("both")
    assert "is cached" in copied.types("dvc repro STAGE", "judge@lamini")
    assert (copied.folder / "metrics/judge/.lamini.json.part").exists()
    assert copied.says("status", "--quiet", "report")[0] == 0
    copied.assert_whole("judge@lamini")


@pytest.mark.slow
def test_a_training_stage_ends_with_its_dvc_and_goes_on(
    copied: Copy, halt: Callable[..., Halted]
) -> None:
    """Killed with half a checkpoint written."""
    copied.forget("dpo@policy")
    halt("dpo@policy", "/trainer_state.json").kill("dvc")
    copied.types(row("a training stage").commands[0], "dpo@policy")
    copied.assert_whole("dpo@policy")


@pytest.mark.slow
def test_a_stage_that_goes_on_without_its_dvc(copied: Copy, grown: Path, tmp_path: Path) -> None:
    copied.forget("fetch@base")
    halting = {"HALT_AT": "models/fetch/base", "HALT_SEEN": str(tmp_path / "seen")}
    halting |= {"PYTHONPATH": str(ROOT / "tests/halt"), "DVC_STAGE": "fetch@base"}
    told = row("a stage that goes on")
    left = subprocess.Popen(
        [BIN / "python", "-m", "stages.fetch", "base"], cwd=copied.folder, env=copied.env | halting
    )
    try:
        until(lambda: (tmp_path / "seen").exists() or left.poll() is not None)
        code, said = copied.says("repro", "--single-item", "fetch@base")
    finally:
        left.kill()
        left.wait()
    assert code == 255 and all(words in said for words in told.printed), said
    assert str(grown) in said and "Traceback" not in said
    copied.types(told.commands[0], "fetch@base")
    copied.assert_whole("fetch@base")


@pytest.mark.slow
def test_two_at_once(copied: Copy, halt: Callable[..., Halted]) -> None:
    copied.forget("filter@orca")
    first = halt("filter@orca", "data/filter/orca/funnel.json")
    told = row("`dvc repro` while another runs")
    code, said = copied.says("repro", "--single-item", "filter@orca")
    assert code == 255 and all(words in said for words in told.printed), said
    assert str(first.dvc.pid) in said
    first.kill("both")
    copied.types(told.commands[0], "filter@orca")
    copied.assert_whole("filter@orca")


@pytest.mark.slow
def test_dvc_killed_in_the_middle_of_its_lock_file(copied: Copy) -> None:
    lock = copied.folder / "dvc.lock"
    size = lock.stat().st_size
    dvc = copied.start("repro", "--single-item", "--force", "filter@orca")
    try:
        until(lambda: lock.stat().st_size < size or dvc.poll() is not None)
    finally:
        os.killpg(dvc.pid, signal.SIGKILL)
        dvc.communicate()
    assert dvc.returncode == -signal.SIGKILL and lock.stat().st_size == 0
    told = row("dvc is killed while it writes `dvc.lock`")
    code, said = copied.says("repro", "--single-item", "filter@orca")
    assert code == 255 and all(words in said for words in told.printed), said
    for command in told.commands:
        copied.types(command, "filter@orca")
    copied.assert_whole("filter@orca")


@pytest.mark.slow
def test_a_torn_list_of_who_runs(copied: Copy) -> None:
    (copied.folder / ".dvc/tmp/rwlock").write_text('{"read": {"/')
    told = row("dvc is killed while it writes its list")
    code, said = copied.says("repro", "--single-item", "filter@orca")
    assert code == 255 and all(words in said for words in told.printed), said
    for command in told.commands:
        copied.types(command, "filter@orca")
    copied.assert_whole("filter@orca")


SMALL = """
mount -t tmpfs -o size=256k none .dvc/cache/files
dvc repro --single-item --force $STAGE && exit 1
mount -o remount,size=100m .dvc/cache/files
$TYPED && dvc status --quiet $STAGE && find .dvc/cache/files -type f -name '[0-9a-f]*'
"""


@pytest.mark.slow
@pytest.mark.skipif(not private_mounts(), reason="no tmpfs can be mounted here (unshare -rm)")
def test_a_disk_that_fills_up_while_an_out_is_committed(copied: Copy) -> None:
    """The cache is a disk of 256 kB of its own; then some space is freed."""
    told, stage = row("the disk is full while DVC commits"), "filter@lamini"
    typed = told.commands[0].replace("STAGE", stage)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", SMALL],
        cwd=copied.folder,
        env=copied.env | {"STAGE": stage, "TYPED": typed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(words in done.stdout + done.stderr for words in told.printed)
    assert done.stdout.count("Running stage") == 1
    for out, digest in copied.outs(stage).items():
        assert f"{key_of(digest)}\n" in done.stdout, out
    copied.assert_whole(stage)


# --- bytes that change ----------------------------------------------------------------------------


def flip(path: Path) -> None:
    """Change one bit of a file, as an editor or a program would."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def cached(copied: Copy, out: str) -> Path:
    """Where the content of the first file of an out, a folder, lies in the cache."""
    (digest,) = (md5 for path, md5 in copied.outs("filter@orca").items() if path == out)
    cache = copied.folder / ".dvc/cache"
    listed = json.loads((cache / key_of(digest)).read_text())
    return cache / key_of(next(e["md5"] for e in listed if e["relpath"] == "train.jsonl"))


@pytest.mark.slow
def test_an_out_that_was_changed(copied: Copy) -> None:
    told = row("an out was changed")
    for command in told.commands:
        flip(copied.folder / "data/filter/orca/train.jsonl")
        code, said = copied.says("checkout", "filter@orca")
        said += copied.says("status", "filter@orca")[1]
        assert code == 255 and all(words in said for words in told.printed), said
        copied.types(command if "STAGE" in command else f"{command} STAGE", "filter@orca")
        copied.assert_whole("filter@orca")


@pytest.mark.slow
def test_a_file_of_the_cache_that_was_changed(copied: Copy) -> None:
    flip(cached(copied, "data/filter/orca"))
    told = row("a file of the cache was changed")
    said = copied.says("status", "filter@orca")[1]
    shutil.rmtree(copied.folder / "data/filter/orca")
    code, more = copied.says("checkout", "filter@orca")
    assert code == 255 and all(words in said + more for words in told.printed), said + more
    copied.types(told.commands[-1], "filter@orca")
    copied.assert_whole("filter@orca")


@pytest.mark.slow
def test_a_bit_of_the_cache_that_the_disk_flipped(copied: Copy) -> None:
    file, out = cached(copied, "data/filter/orca"), copied.folder / "data/filter/orca"
    before = file.stat()
    flip(file)
    file.chmod(before.st_mode & 0o777)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.rmtree(out)
    copied.dvc("checkout", "filter@orca")
    assert (out / "train.jsonl").read_bytes() == file.read_bytes()
    assert copied.says("status", "--quiet", "filter@orca")[0] == 0, "DVC does look, then"
    done = subprocess.run(
        ["sh", "-c", CHECK], cwd=copied.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (bad,) = (line.split()[1] for line in done.stdout.splitlines())
    assert copied.folder / bad == file
    file.unlink()
    shutil.rmtree(out)
    copied.types(row("the disk itself").commands[0], "filter@orca")
    copied.assert_whole("filter@orca")


# --- a bucket -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bucket:
    """A bucket with `OUTS` of the finished run, the run, and a clone that has none of them."""

    server: S3
    here: Copy
    there: Copy

    def pull(self, **more: str) -> tuple[int, str]:
        """What `dvc pull` ends with and prints in the clone, which has only git's files before."""
        shutil.rmtree(self.there.folder / ".dvc/cache", ignore_errors=True)
        for out in OUTS:
            path = self.there.folder / out
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        env = self.there.env | {"AWS_MAX_ATTEMPTS": "1"} | more
        env = {key: value for key, value in env.items() if value}
        return Copy(self.there.folder, env, "", self.there.finished).says("pull", *OUTS)

    def assert_pulls(self) -> None:
        """The way out: the clone gets the bytes of the finished run."""
        self.there.dvc("pull", *OUTS)
        for out in OUTS:
            folder, finished = self.there.folder, self.there.finished
            assert work.content(folder / out) == work.content(finished / out), out


@pytest.fixture(scope="module")
def bucket(copied: Copy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    base = tmp_path_factory.mktemp("bucket")
    with s3() as server:
        subprocess.run(["git", "clone", "-q", copied.folder, base / "there"], check=True)
        env = copied.env | server.environment
        here, there = (Copy(f, env, "", copied.finished) for f in (copied.folder, base / "there"))
        for each in (here, there):
            server.be_remote_of(each.folder)
        here.dvc("push", *OUTS)
        yield Bucket(server, here, there)


UNREACHED: list[tuple[str, int | None, dict[str, str]]] = [
    ("the server is down", 9, {}),
    ("no credentials", None, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}),
    ("wrong credentials", None, {"AWS_ACCESS_KEY_ID": "another"}),
]


@pytest.mark.slow
def test_a_bucket_that_cannot_be_reached(bucket: Bucket) -> None:
    for fault, port, env in UNREACHED:
        S3(port or bucket.server.port).be_remote_of(bucket.there.folder)
        try:
            code, said = bucket.pull(**env)
        finally:
            bucket.server.be_remote_of(bucket.there.folder)
        told = row(fault)
        assert code == 1 and all(words in said for words in told.printed), said
        assert "Traceback" not in said and told.commands == ["dvc pull"]
    bucket.assert_pulls()


def md5(bucket: Bucket, out: str) -> str:
    return bucket.here.outs(OUTS[out])[out]


@pytest.mark.slow
def test_objects_that_went_bad(bucket: Bucket) -> None:
    server, (_, missing, corrupted, truncated) = bucket.server, OUTS
    keys = {out: key_of(md5(bucket, out)) for out in (missing, corrupted, truncated)}
    good = {out: server.read(key) for out, key in keys.items()}
    server.delete(keys[missing])
    server.write(keys[corrupted], b"?" + good[corrupted][1:])
    server.write(keys[truncated], good[truncated][:-7])
    lost, bad = row("an object is missing"), row("an object is corrupted")

    code, said = bucket.pull()
    said += bucket.there.says("status", "-c", *OUTS)[1]
    assert code == 1 and all(words in said for words in lost.printed + bad.printed), said
    assert md5(bucket, missing) in said
    for out in (corrupted, truncated):
        assert re.search(f"deleted: +{out}", said), said
    assert not any((bucket.there.folder / out).exists() for out in keys)

    assert lost.commands == bad.commands[-2:] == ["dvc push", "dvc pull"]
    bucket.here.dvc("push", *OUTS)
    assert server.read(keys[missing]) == good[missing]
    for out in (corrupted, truncated):
        assert server.read(keys[out]) != good[out], "DVC does mend it, then"
        server.delete(keys[out])
    bucket.here.dvc("push", *OUTS)
    assert {out: server.read(key) for out, key in keys.items()} == good
    bucket.assert_pulls()


@pytest.mark.slow
def test_a_list_that_went_bad(bucket: Bucket) -> None:
    server, digest = bucket.server, md5(bucket, "data/filter/lamini")
    good = server.read(key_of(digest))
    server.write(key_of(digest), good[:-7])
    told = row("the same of a folder's list")
    code, said = bucket.pull()
    assert code == 255 and all(words in said for words in (*told.printed, digest)), said
    assert told.commands == ["dvc push", "dvc pull"]
    server.delete(key_of(digest))
    bucket.here.dvc("push", *OUTS)
    assert server.read(key_of(digest)) == good
    bucket.assert_pulls()
