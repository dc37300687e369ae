"""Scratch folders that survive a killed stage, outside the tree, with one writer at a time.

DVC deletes a stage's outs before each run, and `dvc exp run --temp` runs in a throw-away copy. So
nothing that must be resumed may live in either."""

import ast
import ctypes
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bezoar import arithmetic, interrupts, params
from bezoar.rows.files import BadInput
from bezoar.work import temporary, times

# Signs of a full disk in the messages of Python and safetensors, of a quota, and of torch.save
FULL = ("No space left on device", "Disk quota exceeded", "inline_container.cc")


def home() -> Path:
    """Return `$BEZOAR_WORK`, else bezoar/ in the user's cache folder."""
    if path := os.environ.get("BEZOAR_WORK"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bezoar"


def fingerprint(**inputs: object) -> str:
    """Return 16 hex digits over all that changes a result. Equal inputs give equal digits."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content(*paths: str | Path) -> str:
    """Return 16 hex digits over the names and bytes of files and folders."""
    digest = hashlib.sha256()
    for top in map(Path, paths):
        files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
        for file in files:
            digest.update(file.relative_to(top).as_posix().encode() + b"\0")
            with file.open("rb") as data:
                digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()[:16]


def code(*files: str | Path) -> str:
    """Return 16 hex digits over what Python files do. Comments, docstrings and layout do not count,
    so that an edit to them repeats no work."""
    digest = hashlib.sha256()
    for file in files:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        digest.update(ast.dump(tree).encode() + b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def scratch(stage: str, key: str, wait: bool = False) -> Iterator[Path]:
    """Yield the folder of one stage and fingerprint, locked while in use.

    BadInput: another process holds it, or the disk is full. `wait`: wait for the other process
    instead."""
    folder = home() / stage / key
    folder.mkdir(parents=True, exist_ok=True)
    # The kernel drops the lock when the process ends, however it ends.
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BadInput(
                f"{folder}: another process is writing here (a stage whose dvc was killed?); "
                "wait for it or end it, then run the same command again"
            ) from None
        try:
            yield folder
        except Exception as error:
            reason = str(error)
            if not any(sign in reason for sign in FULL):
                raise
            raise BadInput(
                f"{folder}: cannot be written, the disk is full ({reason.splitlines()[0]}); free "
                "some space, then run the same command again: it continues from what is whole"
            ) from None


def publish(folder: Path, out: str | Path, link: bool = False) -> None:
    """Copy a finished folder to a stage's out, which is absent or whole.

    `link`: files become hard links where the disk allows it, for large files that are never written
    to again. BadInput: the out cannot be written."""
    out = Path(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(folder, part, copy_function=_link if link else shutil.copyfile)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        # copytree gathers the faults of all files: (from, to, "[Errno 28] No space left ...: ...").
        several = isinstance(error, shutil.Error)
        reason = error.args[0][0][2].partition(": ")[0] if several else error.strerror
        raise BadInput(
            f"{out}: cannot be written ({reason}); free some space, then run the same command again"
        ) from None
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)


def _link(file: str, to: str) -> None:
    try:
        os.link(os.path.realpath(file), to)
    # The out is on another disk, or on one that has no hard links.
    except OSError:
        shutil.copyfile(file, to)


def begin() -> None:
    """Start a stage. It ends when dvc ends, and computes as `cpu` of the profile says.

    It sees the user's own files in a temporary copy too, and its time and memory are recorded."""
    die_with_parent()
    stage = os.environ.get("DVC_STAGE", "")
    times.start(home(), stage)
    arithmetic.settle(params.load().cpu)
    temporary.bring_own_files(stage)


def die_with_parent() -> None:
    """Ask the kernel to end this process when dvc ends (Linux), so that no orphan writes to a stale
    out. Have Ctrl-C and SIGTERM end it with a line."""
    interrupts.say_in_a_line()
    if sys.platform == "linux":
        parent = os.getppid()
        # 1 is PR_SET_PDEATHSIG.
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        # A parent that ended before this call sends no signal.
        if os.getppid() != parent:
            sys.exit(1)
        _die_behind_shell(parent)


def _die_behind_shell(parent: int) -> None:
    """End with dvc where its `sh -c` stands between and outlives it. Bash becomes the command that
    it was given, but dash waits for it."""
    try:
        shell, *words = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
        if not (shell.endswith(b"sh") and b"-c" in words):
            return
        status = Path(f"/proc/{parent}/status").read_text(encoding="utf-8")
        dvc = os.pidfd_open(int(status.partition("PPid:")[2].split()[0]))
    # An old kernel has no such descriptors, and a guarded one hides other processes.
    except (AttributeError, OSError):
        return

    def wait() -> None:
        # The descriptor of a process becomes readable when the process ends.
        select.select([dvc], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
