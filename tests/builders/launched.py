"""What the processes of tests/training/test_launch.py run.

`python -m tests.builders.launched LAUNCH RUN [FAULT]`.
"""

import os
import signal
import sys
from typing import Any

from bezoar import work
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.training.runs import launching
from tests.builders import micro

ROWS = [*micro.ROWS, micro.ROWS[0]]  # 16: whole batches of 4
HELD_OUT = ROWS[::3]  # 6, whole batches of 2: the second process repeats one to come out even
# nothing is drawn at random, which each process would draw for itself
SFT = micro.SFT.model_copy(update={"lora_dropout": 0.0})


def prefer() -> Any:
    return micro.prefer(micro_batch_size=2)


RUNS: dict[str, Any] = {
    "all": lambda: micro.link(of=micro.ALL, how=SFT, epochs=2, rows=(ROWS, HELD_OUT)),
    "adapter": lambda: micro.link(how=SFT, epochs=2, rows=(ROWS, HELD_OUT)),
    "dpo": prefer,
}


def pass_off_as_gpus() -> None:
    """accelerate makes FSDP of process groups of GPUs alone: let it take this one for such."""
    import torch
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    torch.distributed.init_process_group("gloo")
    prepare: Any = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)  # noqa: E731
    PartialState._prepare_backend = prepare
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))


def fail(fault: str) -> None:
    """In the second process, after step 6: a mistake of the user's, a fault of ours, or a kill."""
    import transformers

    step = transformers.Trainer.training_step

    def training_step(self: Any, *args: Any, **more: Any) -> Any:
        if self.state.global_step == 6 and launching.processes().rank == 1:
            if fault == "mistake":
                raise BadInput("second: bad; do better")
            if fault == "fault":
                raise ValueError("odd")
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **more)

    transformers.Trainer.training_step = training_step


def main(launch: str, run: str, *fault: str) -> None:
    work.die_with_parent()
    name = None if launch == "none" else launch
    launching.spread(name, "tests.builders.launched", launch, run, *fault, shard=run != "adapter")
    if launching.processes().sharded:
        pass_off_as_gpus()
    for each in fault:
        fail(each)
    done = RUNS[run]()
    if done:
        out = {"metrics": done.metrics, "train": done.train, "evaluation": done.evaluation}
        files.write_json("run.json", out)
    print(f"process {launching.processes().rank} is done", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
