"""The wall-clock seconds, CPU seconds and memory of each stage, kept beside the ledger.

Outs hold no times, or they would differ from machine to machine. Each process of a stage writes its
times into a file of its own, every few seconds. So a kill loses no more than that. Once the outs of
the stage are whole, all that was spent on them becomes one file, named by the content of the outs.

A stage that comes out of DVC's cache therefore shows the time of the run that made it. Clones of a
machine do not mix: until the outs are whole, times belong to the folder that the stage ran in."""

import atexit
import hashlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from bezoar import interrupts

# Seconds between two looks at the clock
EVERY = 10.0
# Bytes at both ends of a large file, which stand for all of it
SAMPLE = 64 * 2**10
PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")


class Spent(NamedTuple):
    """Seconds on the wall clock and of CPU, and peak memory in bytes of the machine and of its GPU.
    `starts` counts the processes that were started for it."""

    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    gpu: int = 0
    starts: int = 0

    def and_then(self, later: "Spent") -> "Spent":
        """Add up two runs, one after the other."""
        return Spent(
            round(self.seconds + later.seconds, 2),
            round(self.cpu + later.cpu, 2),
            max(self.memory, later.memory),
            max(self.gpu, later.gpu),
            self.starts + later.starts,
        )


def start(home: Path, stage: str) -> None:
    """Record the time and memory of this process below `home`, as a start of `stage` ($DVC_STAGE).

    Nothing is recorded without a stage, nor in one of several processes of a training. The process
    that started those counts them."""
    if not stage or "LOCAL_RANK" in os.environ:
        return
    clock = _Clock(home, stage)
    interrupts.before_the_end(clock.write)
    atexit.register(clock.finish)
    threading.Thread(target=clock.run, daemon=True).start()


class _Clock:
    """The clock of one process of a stage."""

    def __init__(self, home: Path, stage: str) -> None:
        self.home, self.stage, self.began = home, stage, time.monotonic() - _age()
        # Times under other parameters belong to other outs.
        self.under = _digits(Path())
        self.file = _open(home) / f"{stage}-{self.under}-{time.time_ns()}-{os.getpid()}.json"
        self.over = threading.Event()

    def run(self) -> None:
        """Look at the clock until the process ends."""
        self.write()
        while not self.over.wait(EVERY):
            self.write()

    def write(self) -> None:
        """Write the times so far. A full disk loses them and does not end the stage."""
        own_usage, child_usage = (
            resource.getrusage(scope) for scope in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        spent = Spent(
            round(time.monotonic() - self.began, 2),
            round(sum(usage.ru_utime + usage.ru_stime for usage in (own_usage, child_usage)), 2),
            # macOS gives bytes, Linux KiB.
            max(own_usage.ru_maxrss, child_usage.ru_maxrss)
            * (1 if sys.platform == "darwin" else 1024),
            _gpu(),
            1,
        )
        _write(self.file, spent)

    def finish(self) -> None:
        """Move the times of this stage to the file that is named by the content of its outs.
        Earlier processes that ended without whole outs are included."""
        self.over.set()
        self.write()
        key = outs_key(self.stage)
        if key is None:
            return
        open_files = [*_open(self.home).glob(f"{self.stage}-{self.under}-*.json")]
        spent = Spent()
        for file in open_files:
            spent = spent.and_then(_read(file))
        made_file = _made_file(self.home, self.stage, key)
        # A stage that finds its work done in the work folder takes a second, and did not make the
        # outs in it. So the larger CPU time is kept.
        if not made_file.exists() or _read(made_file).cpu < spent.cpu:
            _write(made_file, spent)
        for file in open_files:
            file.unlink(missing_ok=True)


def of_run(home: Path) -> dict[str, Spent | None]:
    """Return the times of each stage of dvc.lock whose outs lie here. None: no process of this
    machine made them."""
    spent: dict[str, Spent | None] = {}
    for stage in _stages():
        key = outs_key(stage)
        if key is not None:
            made_file = _made_file(home, stage, key)
            spent[stage] = _read(made_file) if made_file.exists() else None
    return spent


def of_machine(home: Path) -> tuple[dict[str, Spent], dict[str, Spent]]:
    """Return the times of all runs of this machine by stage: for whole outs, and for outs that are
    not whole (yet)."""
    return _by_stage(home / "times/made"), _by_stage(home / "times/open")


def outs_key(stage: str) -> str | None:
    """Return 32 hex digits over the outs of `stage`, large files by their size and their two ends.
    None: an out is missing, or dvc.yaml has no such stage."""
    digest = hashlib.sha256(stage.encode())
    for out in _outs(stage):
        files = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]
        for file in files:
            try:
                digest.update(f"{file.as_posix()} {file.stat().st_size}\n".encode())
                digest.update(_ends(file))
            except OSError:
                return None
    return digest.hexdigest()[:32] if _outs(stage) else None


def _ends(file: Path) -> bytes:
    with file.open("rb") as data:
        start = data.read(SAMPLE)
        data.seek(max(SAMPLE, file.stat().st_size - SAMPLE))
        return start + data.read()


def _outs(stage: str) -> list[Path]:
    """Return the paths that dvc.yaml names as the outs, metrics and plots of a stage."""
    document = _yaml(PIPELINE)
    name, _, instance = stage.partition("@")
    if name not in document.get("stages", {}):
        return []
    loop = document["stages"][name]
    body = loop.get("do", loop)
    listed = [entry for kind in ("outs", "metrics", "plots") for entry in body.get(kind, [])]
    paths = [entry if isinstance(entry, str) else next(iter(entry)) for entry in listed]
    # The other entry of `vars` is the name of the recipe's file.
    (sources,) = (entry["sources"] for entry in document["vars"] if isinstance(entry, dict))
    source = sources.get(instance, {})
    for blank, value in (("item.out", source.get("out", "")), ("item", instance)):
        paths = [path.replace(f"${{{blank}}}", value) for path in paths]
    return sorted(Path(path.replace("${key}", instance)) for path in paths)


def _stages() -> list[str]:
    return list(_yaml(LOCK).get("stages", {})) if LOCK.exists() else []


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    if not path.exists():
        return {}
    # libyaml, if it is installed, reads a lock file of 3,000 lines in a tenth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document = yaml.load(path.read_text(encoding="utf-8"), loader)
    return document if isinstance(document, dict) else {}


def _open(home: Path) -> Path:
    """Return the folder of the processes of this project folder whose outs are not whole yet."""
    digits = hashlib.sha256(str(Path.cwd().resolve()).encode()).hexdigest()[:16]
    return home / "times/open" / digits


def _made_file(home: Path, stage: str, key: str) -> Path:
    return home / "times/made" / f"{stage}-{key}.json"


def _by_stage(folder: Path) -> dict[str, Spent]:
    sums: dict[str, Spent] = {}
    for file in sorted(folder.rglob("*.json")):
        name = file.name.partition("@")[0].partition("-")[0]
        sums[name] = sums.get(name, Spent()).and_then(_read(file))
    return sums


def _write(file: Path, spent: Spent) -> None:
    # Two threads of a process may write at once, each to a part of its own.
    part = file.with_suffix(f".{threading.get_ident()}.part")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(spent._asdict()) + "\n", encoding="utf-8")
        part.replace(file)


def _read(file: Path) -> Spent:
    """Read the times in a file. They are zero if it is damaged or has gone."""
    with suppress(OSError, ValueError, TypeError):
        return Spent(**json.loads(file.read_text(encoding="utf-8")))
    return Spent()


def _digits(folder: Path) -> str:
    """Return digits of the files of parameters in a project's folder."""
    digest = hashlib.sha256()
    for file in (
        folder / "params.yaml",
        *sorted(folder.glob("recipes/*.yaml")),
        *sorted(folder.glob("profiles/*.yaml")),
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _age() -> float:
    """Return the seconds since this process was started: a stage's imports are part of its time."""
    try:
        # The 22nd field is the start of the process in ticks since boot. The second field, a name
        # in parentheses, may hold blanks.
        ticks = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        running = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return max(0.0, running - int(ticks) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0


def _gpu() -> int:
    """Return the most bytes that torch held at once on a GPU, or 0 if this process has used
    none."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.max_memory_reserved())


def rows(home: Path, bought: dict[str, dict[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each stage of this run, in the order of dvc.yaml: its times, and its
    purchases.

    `bought` has tokens_in, tokens_out and usd by stage and instance."""
    spent_by_stage = of_run(home)
    for name in _yaml(PIPELINE).get("stages", {}):
        spent_by_instance = {
            stage: spent
            for stage, spent in spent_by_stage.items()
            if stage.partition("@")[0] == name
        }
        if not spent_by_instance:
            continue
        timed = [spent for spent in spent_by_instance.values() if spent]
        total = Spent()
        for spent in timed:
            total = total.and_then(spent)
        sums = bought.get(name.removesuffix("_others"), {})
        instances = [stage.partition("@")[2] or name for stage in spent_by_instance]
        paid = [sums[instance] for instance in instances if instance in sums]
        yield {
            "stage": name,
            "instances": len(spent_by_instance),
            "timed": len(timed),
            **total._asdict(),
            **{
                key: sum(tokens[key] for tokens in paid)
                for key in ("tokens_in", "tokens_out", "usd")
            },
        }
