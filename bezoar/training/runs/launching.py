"""Training on several processes, one a GPU, as accelerate starts them (launch/README.md).

The stage that dvc runs starts the processes and waits. Each of them runs the stage again and learns
its place from the variables that torchrun sets. The first holds the scratch folder, writes
checkpoints and publishes. The others compute.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bezoar import interrupts, work
from bezoar.rows.files import BadInput


@dataclass(frozen=True)
class Processes:
    """The processes of this training, seen from one of them.

    `count` is how many there are, `rank` the place of this one. `sharded` says that weights and
    optimizer state are shared out among them (FSDP).
    """

    count: int
    rank: int
    sharded: bool

    @property
    def first(self) -> bool:
        """Say whether this process is the one that writes."""
        return self.rank == 0


def processes() -> Processes:
    """Return the processes of this training, or a single one where none were launched."""
    if not _launched():
        return Processes(1, 0, False)
    count, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    return Processes(count, rank, "ACCELERATE_USE_FSDP" in os.environ)


def _launched() -> bool:
    return "LOCAL_RANK" in os.environ


def spread(launch: str | None, module: str, *arguments: str, shard: bool) -> None:
    """Run this stage (`python -m module arguments`) on the processes of launch/`launch`.yaml.

    Exits with their exit code. Returns at once in one of these processes, and where `launch` is
    null.

    With `shard` false an FSDP file runs as DDP. QLoRA asks for that: it trains little, and its
    4-bit base is made of bytes, which FSDP does not cut up. BadInput: fewer than two GPUs, or a
    process that ended with an exit code or by a signal.
    """
    if launch is None or _launched():
        return
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.agent.server import api as agent
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    file = Path("launch", f"{launch}.yaml")
    options = ["--config_file", str(file)]
    if "num_processes" not in yaml.safe_load(file.read_text(encoding="utf-8")):
        options += ["--num_processes", str(_gpus(file))]
    if not shard:
        # This takes precedence over FSDP in the file, and means DDP.
        options += ["--multi_gpu"]
    # Both loggers would print what is reported below in a line. The agent's is set by its own name
    # too, because it gets a level of its own when it is imported.
    for name in ("torch.distributed.elastic", agent.__name__):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    parsed = launch_command_parser().parse_args([*options, "-m", module, *arguments])
    try:
        launch_command(parsed)
    except SignalException as error:  # its processes have ended
        interrupts.end(error.sigval)
    except ChildFailedError as error:
        # When one process ends, the others lose the connection and end with errors of their own.
        # The cause is what is reported.
        rank, failure = min(error.failures.items(), key=_consequence)
        if isinstance(failure.message, dict):  # recorded by `scratch`
            sys.exit(failure.message["message"].removeprefix(f"{BadInput.__name__}: "))
        ending = f"exit code {failure.exitcode}" if failure.exitcode > 0 else failure.signal_name()
        raise BadInput(
            f"{file}: process {rank} of {module} {' '.join(arguments)} ended ({ending}) and the "
            "others with it; what it said stands above"
        ) from None
    sys.exit(0)


def _consequence(failed: tuple[int, Any]) -> tuple[int, int, int]:
    """Return a key that sorts causes before consequences.

    A user's mistake comes first, then a kill, then errors by time, and last what the launcher
    itself ended.
    """
    rank, failure = failed
    if isinstance(failure.message, dict):
        return 0, 0, rank
    kind = 2 if failure.exitcode > 0 else 3 if failure.exitcode == -signal.SIGTERM else 1
    return kind, failure.timestamp, rank


def _gpus(file: Path) -> int:
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        raise BadInput(
            f"{file}: a process a GPU, and this machine has {count or 'none'}; set launch to null "
            "for one process, or num_processes in the file"
        )
    return count


@contextmanager
def scratch(stage: str, key: str, wait: bool = False) -> Iterator[Path]:
    """Hold `work.scratch` in the first process, for all of them.

    A BadInput raised inside is printed once, by the process that launched them.
    """
    process = processes()
    try:
        if process.first:
            with work.scratch(stage, key, wait) as folder:
                yield folder
        else:
            yield work.home() / stage / key
    except BadInput as error:
        if process.count == 1:
            raise
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
        sys.exit(1)


def gathered(value: Any, cpu: bool) -> list[Any]:
    """Return `value` of each process, in order of rank. All processes must call it.

    `cpu` says that they compute on CPUs.
    """
    if processes().count == 1:
        return [value]
    from accelerate import PartialState
    from accelerate.utils import gather_object

    PartialState(cpu=cpu)
    everyone: Sequence[Any] = gather_object([value])
    return list(everyone)
