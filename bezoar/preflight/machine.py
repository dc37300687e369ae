"""The machine: the GPU, the memory, the folders' file systems and how DVC links files."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Link = Literal["reflink", "hardlink", "symlink", "copy"]


@dataclass(frozen=True)
class Gpu:
    """The kind of GPU that training runs on, the number of them, and bytes of the first."""

    name: str
    count: int
    total: int
    free: int


@dataclass(frozen=True)
class Machine:
    """A machine: its GPU, and `ram`, bytes of memory. `why`: a reason why there is no GPU, "" where
    none is known."""

    gpu: Gpu | None
    ram: int
    why: str = ""


def look() -> Machine:
    """Return this machine as torch sees it, for that is what training sees."""
    import torch

    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(0)
        name, count = torch.cuda.get_device_name(0), torch.cuda.device_count()
        return Machine(Gpu(name, count, total, free), ram)
    if listed := _driver():
        version = torch.__version__
        return Machine(None, ram, f"the driver lists {listed}, which torch {version} cannot use")
    return Machine(None, ram)


def _driver() -> str:
    """Return the GPUs that NVIDIA's tool lists, "" where there is none: torch may be a build
    without CUDA."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ", ".join(done.stdout.split("\n")).strip(", ") if done.returncode == 0 else ""


@dataclass(frozen=True)
class Volume:
    """A file system: its number, and bytes that are free."""

    device: int
    free: int


def volume(path: Path) -> Volume:
    """Return the file system that `path` lies on, or will once it is made."""
    existing = next(p for p in [path.absolute(), *path.absolute().parents] if p.exists())
    return Volume(existing.stat().st_dev, shutil.disk_usage(existing).free)


def size(path: Path) -> int:
    """Return the bytes that a folder's files take on the disk, links to elsewhere left out."""
    files = (f for f in path.rglob("*") if f.is_file() and not f.is_symlink())
    # st_blocks counts 512 bytes, whatever the blocks of the file system are.
    return sum(f.stat().st_blocks * 512 for f in files)


@dataclass(frozen=True)
class Cache:
    """DVC's cache, and the link by which a file gets from there into the workspace, as DVC is
    configured and the file systems allow."""

    folder: Path
    link: Link


def cache(project: Path) -> Cache:
    """Return the cache of the project's DVC configuration."""
    from dvc.config import Config

    settings: dict[str, Any] = Config(dvc_dir=str(project / ".dvc"))["cache"]
    folder = Path(settings.get("dir", project / ".dvc/cache"))
    # DVC's own default, and like DVC the first of them that works.
    links: list[Link] = settings.get("type", ["reflink", "copy"])
    shared = volume(folder).device == volume(project).device
    works: dict[Link, Callable[[], bool]] = {
        "reflink": lambda: shared and _reflinks(project / ".dvc"),
        "hardlink": lambda: shared,
        "symlink": lambda: True,
        "copy": lambda: True,
    }
    return Cache(folder, next((link for link in links if works[link]()), "copy"))


def _reflinks(folder: Path) -> bool:
    """Say whether the file system shares blocks between copies (XFS, Btrfs), by a copy of one
    byte."""
    from dvc_objects.fs.system import reflink

    try:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            source = Path(name, "one")
            source.write_bytes(b"1")
            reflink(str(source), f"{source}.copy")  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
