"""Run what a fresh `make demo` can run side by side: two lanes of stages, on two cores.

DVC runs one stage at a time. Two `dvc repro` beside each other are safe where no stage of one
writes what a stage of the other reads. The legs below are such pairs, and a lane waits for the
other one at the end of a leg. A plain `dvc repro` afterwards checks everything, and runs what is
left. Nothing is run here if this project has other stages than these, or the machine one core."""

import functools
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import yaml

from bezoar import interrupts
from bezoar.params import arguments

Leg = tuple[tuple[str, ...], tuple[str, ...]]
DATA = ("dolly", "flan", "topics", "hh_rlhf", "mt_bench", "benchmarks")
SCHEMES = ("lamini", "evol_instruct", "orca")
LINKS = ("lamini", "orca", "evol_instruct")
LEGS: tuple[Leg, ...] = (
    (
        ("fetch@base",),
        (
            *(f"fetch@{source}" for source in DATA),
            *(f"{stage}@{scheme}" for stage in ("generate", "judge") for scheme in SCHEMES),
            "agreement",
        ),
    ),
    (
        (
            *(f"filter@{scheme}" for scheme in SCHEMES),
            *(f"{stage}@{link}" for link in LINKS for stage in ("mix", "sft")),
            "merge@sft",
        ),
        ("lm_eval@base", "mt_answer@base", "mt_grade@base"),
    ),
    (
        ("mix@hh_rlhf", "sft@hh_rlhf", "dpo@policy"),
        (
            *(f"lm_eval@{point}" for point in ("lamini", "orca", "sft")),
            *("mt_answer@sft", "mt_grade@sft", "mt_compare@sft"),
        ),
    ),
    (
        ("lm_eval@hh_rlhf", "lm_eval@dpo"),
        (
            *("mt_answer@hh_rlhf", "mt_grade@hh_rlhf"),
            *("mt_answer@dpo", "mt_grade@dpo", "mt_compare@dpo"),
        ),
    ),
)
# This stage reads the outs of all the others.
LAST = ("report",)


def main() -> None:
    """Run the legs where the project is fresh, has these stages, and the machine has two cores."""
    fresh = not Path("models/fetch/base").exists()
    planned = {stage for leg in LEGS for lane in leg for stage in lane}
    if not fresh or len(os.sched_getaffinity(0)) < 2 or stages() != planned | {*LAST}:
        return
    for leg in LEGS:
        if code := run(leg):
            raise SystemExit(code)


def stages() -> set[str]:
    """Return the stages of dvc.yaml by name, its loops over the maps and lists of params.yaml
    unrolled."""
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))
    settings = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for variables in pipeline.get("vars", ()):
        settings |= variables
    names: set[str] = set()
    for name, stage in pipeline["stages"].items():
        loop = stage.get("foreach")
        names |= {f"{name}@{key}" for key in settings[loop.strip("${}")]} if loop else {name}
    return names


def run(leg: Leg) -> int:
    """Run both lanes of a leg to their end. The first that fails ends the other one, and its exit
    code is returned. A signal ends this process when both lanes have ended, with one line for all.
    """
    lanes = [start(lane) for lane in leg]
    interrupts.before_the_end(functools.partial(stop, lanes))
    printers = [threading.Thread(target=show, args=(lane.stdout,)) for lane in lanes]
    for thread in printers:
        thread.start()
    try:
        with interrupts.as_exception():
            code = wait(lanes)
    # Both lanes have got the signal too, and end by themselves.
    except KeyboardInterrupt:
        INTERRUPTED.set()
        for lane in lanes:
            lane.wait()
        interrupts.end_with(interrupts.WORDS[signal.SIGINT])
        code = 130
    for thread in printers:
        thread.join()
    return code


def stop(lanes: Sequence[subprocess.Popen[str]]) -> None:
    """End the lanes. Nothing of what they print about it is shown."""
    INTERRUPTED.set()
    for lane in lanes:
        lane.terminate()
    for lane in lanes:
        lane.wait()


def start(lane: Sequence[str]) -> subprocess.Popen[str]:
    """Start `dvc repro` on the stages of a lane, in their order and without what they depend on."""
    return subprocess.Popen(
        ["dvc", "--wait-for-lock", "repro", "--single-item", *lane],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


LOCK = threading.Lock()
INTERRUPTED = threading.Event()


def show(output: IO[str] | None) -> None:
    """Print the lines of a lane as they come, until a signal is on its way. Lines of two lanes may
    alternate, and stay whole."""
    assert output is not None
    for line in output:
        if line.strip() and not INTERRUPTED.is_set():
            with LOCK:
                print(line, end="", flush=True)


def wait(lanes: Sequence[subprocess.Popen[str]]) -> int:
    """Wait for all lanes, and return 0, or the exit code of the first one that failed. The others
    are ended then."""
    running = {lane.pid: lane for lane in lanes}
    failed = 0
    while running:
        pid, status = os.waitpid(-1, 0)
        lane = running.pop(pid)
        lane.returncode = os.waitstatus_to_exitcode(status)
        if lane.returncode and not failed:
            failed = lane.returncode
            for survivor in running.values():
                # DVC ignores the signal of Ctrl-C, but not this one. Its stage ends when DVC does.
                survivor.terminate()
    return failed


if __name__ == "__main__":
    arguments.none("demos.lanes", __doc__)
    main()
