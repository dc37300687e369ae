"""Scratch that survives a killed stage: a folder outside the tree, one writer at a time.

DVC deletes a stage's outs before each run, and `dvc exp run --temp` runs in a throw-away copy, so
nothing that must be resumed may live in either.
"""

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

# A full disk, as Python and safetensors, a quota, and torch.save put it
FULL = ("No space left on device", "Disk quota exceeded", "inline_container.cc")


def home() -> Path:
    """`$BEZOAR_WORK`, else bezoar/ in the user's cache folder."""
    if path := os.environ.get("BEZOAR_WORK"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bezoar"


def fingerprint(**inputs: object) -> str:
    """16 hex digits over all that changes a result; equal input, equal digits."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content(*paths: str | Path) -> str:
    """16 hex digits over the names and bytes of files and folders."""
    digest = hashlib.sha256()
    for top in map(Path, paths):
        files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
        for file in files:
            digest.update(file.relative_to(top).as_posix().encode() + b"\0")
            with file.open("rb") as data:
                digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()[:16]


@contextmanager
def scratch(stage: str, key: str, wait: bool = False) -> Iterator[Path]:
    """A folder for one stage and fingerprint, held under a lock; BadInput when another holds it
    (`wait`: once it no longer does, go on), or when the disk is full."""
    folder = home() / stage / key
    folder.mkdir(parents=True, exist_ok=True)
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
    """Copy a finished folder to a stage's out; the out is absent or whole. `link`: files become
    hard links where the disk allows it, for what is large and never written to again."""
    out = Path(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(folder, part, copy_function=_link if link else shutil.copyfile)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        # copytree gathers the faults of all files: (from, to, "[Errno 28] No space left ...: ...")
        several = isinstance(error, shutil.Error)
        why = error.args[0][0][2].partition(": ")[0] if several else error.strerror
        raise BadInput(
            f"{out}: cannot be written ({why}); free some space, then run the same command again"
        ) from None
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)


def _link(file: str, to: str) -> None:
    try:
        os.link(os.path.realpath(file), to)
    except OSError:  # another disk, or one that has no such links
        shutil.copyfile(file, to)


def begin() -> None:
    """Start a stage: it ends when dvc ends, computes as `cpu` of the profile says, sees the user's
    own files in a temporary copy too, and what it takes is kept."""
    die_with_parent()
    stage = os.environ.get("DVC_STAGE", "")
    times.start(home(), stage)
    arithmetic.settle(params.load().cpu)
    temporary.bring_own_files(stage)


def die_with_parent() -> None:
    """Ask the kernel to end this process when dvc ends (Linux): no orphan writes to a stale out.
    Have Ctrl-C and SIGTERM end it with a line."""
    interrupts.say_in_a_line()
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)
        _die_behind_shell(parent)


def _die_behind_shell(parent: int) -> None:
    """The same where dvc's `sh -c` stands between and outlives it: bash becomes the command that it
    was given, dash waits for it."""
    try:
        shell, *words = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
        if not (shell.endswith(b"sh") and b"-c" in words):
            return
        status = Path(f"/proc/{parent}/status").read_text(encoding="utf-8")
        dvc = os.pidfd_open(int(status.partition("PPid:")[2].split()[0]))
    except (AttributeError, OSError):  # an old kernel, or a guarded one
        return

    def wait() -> None:
        select.select([dvc], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
