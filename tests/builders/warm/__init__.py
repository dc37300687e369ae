"""Python processes that begin with torch, transformers, peft and TRL imported.

Those imports take most of the time of a stage on a tiny model: ten seconds, where the work takes
one. `python(arithmetic)` is an interpreter that takes them from a server: the server has imported
them once, and forks a process for each that is started. A process is a process still: it has its
own memory, environment, folder, streams and exit code, and is killed as any other is. Code of the
project is never imported beforehand.

A test that is about how a process starts (what is loaded, which signals reach it, how the audit
sees it) takes `sys.executable`, as the embedded run of the fixture `finished` does.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

from bezoar.arithmetic import SETTINGS

HERE = Path(__file__).parent
REAL, ENVIRONMENT = sys.executable, {**os.environ}  # before a test changes them
# Variables that a library reads when it is imported. A process that has others imports for itself.
READ_EARLY = (
    "HF_",
    "TRANSFORMERS_",
    "TORCH_HOME",
    "OMP_",
    "MKL_",
    "ATEN_",
    "ONEDNN_",
    "OPENBLAS_",
    "NPY_",
    "CUDA_",
    "BNB_",
    "XDG_",
    "USE_",
    "TQDM_",
)
# What bezoar.models.loading sets before it imports them.
QUIET = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
OFFLINE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# A program that reads a folder, and none of the caches whose place HF_HOME gives.
READS_NO_CACHE = ("-m", "bezoar.preflight.trial")
# Variables that may differ: the server was told how to compute, the process sets its own cache, and
# without a network no address is asked, nor is anything downloaded.
FREE = (
    *SETTINGS["avx2"],
    *QUIET,
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_DATASETS_CACHE",
    "HF_ENDPOINT",
    "HF_XET_HIGH_PERFORMANCE",
)


@cache
def python(settled: bool = True) -> Path:
    """An interpreter for `-m` and `-c`, in a virtual environment like this one. Its libraries
    compute as `cpu` of the embedded profile says, or, not `settled`, as they choose themselves:
    another way than the process would choose gives other bits."""
    folder = Path(tempfile.mkdtemp(prefix="bezoar-warm-"))
    # A virtual environment like this one, for a process that imports for itself.
    venv = Path(sys.prefix)
    shutil.copy(venv / "pyvenv.cfg", folder)
    (folder / "lib").symlink_to(venv / "lib")
    interpreter = folder / "bin/python"
    interpreter.parent.mkdir()
    for program in (venv / "bin").iterdir():
        if not program.name.startswith("python"):
            (interpreter.parent / program.name).symlink_to(program)
    text = (HERE / "client.py").read_text("utf-8")
    interpreter.write_text(f"#!{REAL} -IS\n{text}", "utf-8")
    interpreter.chmod(0o700)
    computing = SETTINGS["avx2"] if settled else {}
    env = {**ENVIRONMENT, **OFFLINE, **QUIET, **computing}
    env.pop("PYTHONPATH", None)
    given = {
        name: value
        for name, value in env.items()
        if name.startswith(READ_EARLY) and name not in FREE
    }
    early = {"prefixes": READ_EARLY, "free": FREE, "given": given, "no_cache": READS_NO_CACHE}
    (folder / "read_early.json").write_text(json.dumps(early), "utf-8")
    # It ends when its standard input does, as this process ends, however that ends.
    server = subprocess.Popen(
        [REAL, HERE / "server.py", folder], env=env, cwd=folder, stdin=subprocess.PIPE
    )
    while not (folder / "socket").exists():
        assert server.poll() is None, "the libraries cannot be imported"
        time.sleep(0.05)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.wait)
    assert server.stdin is not None
    atexit.register(server.stdin.close)
    return interpreter


def trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process start its trials of a base (bezoar/preflight/bases.py) so."""
    monkeypatch.setattr(sys, "executable", str(python()))


def path(settled: bool = True) -> str:
    """A PATH on which `python` is that interpreter: for stages that DVC starts."""
    return f"{python(settled).parent}{os.pathsep}{ENVIRONMENT['PATH']}"
