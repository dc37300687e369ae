"""Run what a fresh `make demo` can run side by side: two lanes of stages, on two cores.

DVC runs one stage at a time. Two `dvc repro` beside each other are safe where no stage of one
writes what a stage of the other reads. In each leg below the first lane runs its stages, and the
second lane runs groups of stages, each as soon as the first has come to the stage that it names.
A plain `dvc repro` afterwards checks everything, and runs what is left. Where this project has
other stages than these, or one core, nothing is run here.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import yaml

from bezoar import interrupts
from bezoar.params import arguments


class Group(NamedTuple):
    """Stages of the second lane. They wait until the first lane begins `after`, or has ended. An
    empty `after` waits for nothing."""

    after: str
    stages: tuple[str, ...]


class Leg(NamedTuple):
    """The stages of the first lane, and the groups of the second, in their order."""

    first: tuple[str, ...]
    second: tuple[Group, ...]

    def stages(self) -> Iterator[str]:
        """Yield the stages of both lanes."""
        yield from self.first
        for group in self.second:
            yield from group.stages


DATA = ("dolly", "flan", "topics", "hh_rlhf", "mt_bench", "benchmarks")
SCHEMES = ("lamini", "evol_instruct", "orca")
LINKS = ("lamini", "orca", "evol_instruct")


def _answers(checkpoint: str) -> tuple[str, str]:
    return f"mt_answer@{checkpoint}", f"mt_grade@{checkpoint}"


LEGS = (
    Leg(
        ("fetch@base",),
        (
            Group(
                "",
                (
                    *(f"fetch@{source}" for source in DATA),
                    *(f"{stage}@{scheme}" for stage in ("generate", "judge") for scheme in SCHEMES),
                    "agreement",
                ),
            ),
        ),
    ),
    Leg(("filter@lamini", "filter@orca"), (Group("", ("filter@evol_instruct",)),)),
    Leg(
        (
            *(f"{stage}@{link}" for link in LINKS for stage in ("mix", "sft")),
            *("merge@sft", "mix@hh_rlhf", "sft@hh_rlhf", "dpo@policy", "lm_eval@dpo"),
        ),
        (
            Group("", ("lm_eval@base", *_answers("base"))),
            Group("mix@orca", ("lm_eval@lamini",)),
            Group("mix@evol_instruct", ("lm_eval@orca",)),
            Group("mix@hh_rlhf", ("lm_eval@sft", *_answers("sft"), "mt_compare@sft")),
            Group("dpo@policy", ("lm_eval@hh_rlhf", *_answers("hh_rlhf"))),
            Group("lm_eval@dpo", (*_answers("dpo"), "mt_compare@dpo")),
        ),
    ),
)
LAST = ("report",)  # it reads what all the others write


def main() -> None:
    """Run the legs where the project is fresh, has these stages, and the machine has two cores."""
    fresh = not Path("models/fetch/base").exists()
    planned = {stage for leg in LEGS for stage in leg.stages()}
    if not fresh or len(os.sched_getaffinity(0)) < 2 or stages() != planned | {*LAST}:
        return
    for leg in LEGS:
        if code := run(leg):
            raise SystemExit(code)


def stages() -> set[str]:
    """Return the stages of dvc.yaml by name, its loops over the maps and lists of the parameters
    unrolled."""
    pipeline, settings = _read("dvc.yaml"), _read("params.yaml")
    for variables in pipeline.get("vars", ()):
        settings |= _read(variables) if isinstance(variables, str) else variables
    names: set[str] = set()
    for name, stage in pipeline["stages"].items():
        loop = stage.get("foreach")
        names |= {f"{name}@{key}" for key in settings[loop.strip("${}")]} if loop else {name}
    return names


def _read(file: str) -> Any:
    return yaml.safe_load(Path(file).read_text(encoding="utf-8"))


def run(leg: Leg) -> int:
    """Run both lanes of a leg to their end. The first that fails ends the other one, and its exit
    code is returned. A signal ends this process when both lanes have ended, with one line for all.
    """
    lanes = Lanes(leg)
    interrupts.before_the_end(lanes.stop)
    try:
        with interrupts.as_exception():
            code = lanes.run()
    # Both lanes have got the signal too, and end by themselves.
    except KeyboardInterrupt:
        lanes.interrupted.set()
        lanes.join()
        interrupts.end_with(interrupts.WORDS[signal.SIGINT])
        code = 130
    return code


class Lanes:
    """The two lanes of a leg while they run."""

    def __init__(self, leg: Leg) -> None:
        self.leg, self.waiting = leg, [*leg.second]
        self.first: subprocess.Popen[str] | None = None
        self.second: subprocess.Popen[str] | None = None
        self.begun: set[str] = set()  # the stages to which the first lane has come
        self.interrupted = threading.Event()
        self.printers: list[threading.Thread] = []

    def run(self) -> int:
        """Run both lanes, and return 0, or the exit code of the first one that failed."""
        self.first = self.start(self.leg.first)
        while True:
            for lane, other in ((self.first, self.second), (self.second, self.first)):
                if lane and lane.poll():
                    # DVC ignores the signal of Ctrl-C, but not this one. Its stage ends with it.
                    if other and other.poll() is None:
                        other.terminate()
                    self.join()
                    return lane.returncode
            ended = self.first.poll() == 0
            if self.second is None or self.second.poll() == 0:
                if self.waiting and (ended or self.waiting[0].after in {"", *self.begun}):
                    self.second = self.start(self.waiting.pop(0).stages)
                elif ended and not self.waiting:
                    self.join()
                    return 0
            time.sleep(0.05)

    def start(self, stages: Sequence[str]) -> subprocess.Popen[str]:
        """Start `dvc repro` on stages, in their order and without what they depend on."""
        lane = subprocess.Popen(
            ["dvc", "--wait-for-lock", "repro", "--single-item", *stages],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        begun = self.begun if stages == self.leg.first else set()
        printer = threading.Thread(target=self.show, args=(lane.stdout, begun))
        printer.start()
        self.printers.append(printer)
        return lane

    def show(self, output: IO[str], begun: set[str]) -> None:
        """Print the lines of a lane as they come, until a signal is on its way. Lines of two lanes
        may alternate, and stay whole. Each stage that a line names is added to `begun`."""
        for line in output:
            if named := re.match(r"(?:Running s|S)tage '([^']+)'", line):
                begun.add(named[1])
            # Ctrl-C reaches the stages too, and they may be first to say so. One line is enough.
            if line.strip() in interrupts.WORDS.values():
                self.interrupted.wait(1)
            if line.strip() and not self.interrupted.is_set():
                with LOCK:
                    print(line, end="", flush=True)

    def stop(self) -> None:
        """End the lanes. Nothing of what they print about it is shown."""
        self.interrupted.set()
        for lane in filter(None, (self.first, self.second)):
            lane.terminate()
        self.join()

    def join(self) -> None:
        """Wait until both lanes have ended and their lines are printed."""
        for lane in filter(None, (self.first, self.second)):
            lane.wait()
        for printer in self.printers:
            printer.join()


LOCK = threading.Lock()

if __name__ == "__main__":
    arguments.none("demos.lanes", __doc__)
    main()
