"""What DVC and this project's own code add to a run: `python -m benchmarks.dvc [--quick]`.

Three figures, on the finished run in the current folder:
- a `dvc repro` that has nothing to do, beside one of the very same dvc.yaml and params.yaml whose
  dependencies and outs are files of a line; and beside as many stages in a row without parameters;
- a stage's start, until its parameters are checked: the dearest stage;
- a whole run from nothing, of what git has here, in a folder of its own, which takes minutes
  (--quick leaves it out): the share of its CPU seconds that is not spent in training, generation
  or evaluation (timed/sitecustomize.py says in which functions that is), but in DVC, the
  libraries' imports and the stages' other work.
All are CPU seconds, the least of --repeats. The last line is JSON: {"noop_ratio": ..,
"startup_cpu_s": .., "own_overhead": ..}; the ratio is that of the same DAG.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

DVC = [sys.executable, "-m", "dvc"]


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.dvc")
    parser.add_argument("--quick", action="store_true", help="measure no whole run")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        floor = Path(scratch, "floor")
        stages = trivial(here, floor)
        ours, least = noop(here, given.repeats), noop(floor, given.repeats)
        bare(stages, Path(scratch, "bare"))
        row = noop(Path(scratch, "bare"), given.repeats)
        print(f"no-op dvc repro, {stages} stages: {ours:.2f} s of CPU; trivial: {least:.2f} s")
        print(f"  as many in a row, without params: {row:.2f} s")
        starts = {
            path.stem: startup(path.stem, given.repeats)
            for path in sorted(here.glob("stages/[a-z]*.py"))
        }
        slowest = max(starts, key=lambda name: starts[name])
        print(f"a stage's start: {starts[slowest]:.2f} s of CPU ({slowest})")
        overhead = None if given.quick else run(here, Path(scratch, "run"))
    told = {"noop_ratio": round(ours / least, 3), "startup_cpu_s": round(starts[slowest], 3)}
    print(json.dumps(told | {"own_overhead": overhead}))


def cpu(command: Sequence[str], folder: Path, **more: str) -> float:
    """CPU seconds of a command and its children. RuntimeError, with what it printed: it failed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def noop(folder: Path, repeats: int) -> float:
    """CPU seconds of a `dvc repro` that has nothing to do."""
    done = subprocess.run([*DVC, "status", "-q"], cwd=folder, check=False)
    if done.returncode:
        sys.exit(f"error: {folder}: has no finished run; `make demo` makes it")
    return min(cpu([*DVC, "repro"], folder) for _ in range(repeats))


def startup(stage: str, repeats: int) -> float:
    """CPU seconds until the stage has checked its parameters."""
    code = f"import stages.{stage}; from bezoar import params; params.load()"
    return min(cpu([sys.executable, "-c", code], Path.cwd()) for _ in range(repeats))


def trivial(project: Path, folder: Path) -> int:
    """Make a repository with `project`'s very dvc.yaml and parameters, in which every dependency
    and every out is a file of a line, as a finished run; returns the number of stages."""
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        stages = repo.index.stages
        deps = {Path(dep.fs_path) for stage in stages for dep in stage.deps if dep.fs_path}
        outs = {Path(out.fs_path) for stage in stages for out in stage.outs}
    files = {path.relative_to(project) for path in deps | outs}
    folders = {parent for path in files for parent in path.parents}
    for path in sorted(files - folders):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"{path}\n")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(project / name, folder)
    for name in ("recipes", "profiles"):
        shutil.copytree(project / name, folder / name, dirs_exist_ok=True)
    for command in (["git", "init", "-q"], [*DVC, "init", "-q"], [*DVC, "commit", "-q", "-f"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return len(stages)


def run(project: Path, folder: Path) -> float:
    """The share of a whole run that is overhead, told by kind."""
    subprocess.run(["git", "clone", "-q", project, folder], check=True)
    (folder / "dvc.lock").unlink()
    times, here = folder.parent / "times", Path(__file__).parent
    more = {"STAGE_TIMES": str(times), "BEZOAR_WORK": str(folder.parent / "work")}
    more["PYTHONPATH"] = os.pathsep.join([str(here / "timed"), os.environ.get("PYTHONPATH", "")])
    whole = cpu([*DVC, "repro"], folder, **more)
    rows = [json.loads(line) for line in times.read_text().splitlines()]
    stages, compute, imports = (
        sum(row.get(kind, 0.0) for row in rows) for kind in ("total", "compute", "imports")
    )
    parts = {
        "training, generation, evaluation": compute,
        "imports": imports,
        "the stages' other work": stages - compute - imports,
        "DVC": whole - stages,
    }
    print(f"a whole run, {len(rows)} stages: {whole:.0f} s of CPU")
    for name, seconds in parts.items():
        print(f"  {name:34} {seconds:6.1f} s {seconds / whole:4.0%}")
    return round(1 - float(compute / whole), 3)


def bare(stages: int, folder: Path) -> None:
    """Make a repository of as many stages in a row, a file in, a file out, and run it."""
    told = {
        f"s{n}": {"cmd": f"echo > {n}", "outs": [f"{n}"], "deps": [f"{n - 1}"] if n else []}
        for n in range(stages)
    }
    folder.mkdir()
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": told}))
    for command in (["git", "init", "-q"], [*DVC, "init", "-q"], [*DVC, "repro", "-q"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1:])
