"""Machines that are only pretended, and the shapes of models that they are to hold."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from bezoar.preflight import gpu
from bezoar.preflight.machine import Gpu, Machine
from bezoar.training.runs.memory import Shape
from tests.builders.bases import config

GIB = 2**30
H100 = Machine(Gpu("NVIDIA H100 80GB HBM3", 1, 80 * GIB, 79 * GIB), 200 * GIB)


def shape(tmp_path: Path, **changed: Any) -> gpu.Shape:
    return gpu.Shape.read(config(tmp_path / "shape", **changed))


OPENLLAMA_3B = Shape(3200, 8640, 26, 32, 32, 100, 32_000, 2048, tied=False)


def private_mounts() -> bool:
    """Whether a small disk of one's own can be had here."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    tried = shutil.which("unshare") and subprocess.run(command, capture_output=True, check=False)
    return bool(tried) and tried.returncode == 0
