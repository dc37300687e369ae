"""Runs a trainer: its arguments, progress, checkpoints and resuming, and what a run leaves."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from bezoar import arithmetic, work
from bezoar.models import loading
from bezoar.params import Dpo, Sft, Training
from bezoar.rows import chat, files
from bezoar.rows.files import BadInput
from bezoar.training.runs import batching, launching
from bezoar.work.progress import bar

R = TypeVar("R")
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
# In a run's folder: the evaluation before the first step, the log once it has ended, checkpoints.
START, HISTORY, CHECKPOINTS = "start.json", "history.json", "checkpoints"
FINAL = "final"  # in the scratch folder: the model that is published
# A run is lost when the mean training loss of STEPS steps is over LOST times that of its FIRST.
STEPS, FIRST, LOST = 20, 5, 2.0
# A checkpoint is also written when the last is so old, besides the one after each epoch. When a run
# is saved changes no result.
SAVE_SECONDS = 600.0


@dataclass(frozen=True)
class Run:
    """A training run's results for metrics/: numbers, and two curves as lines of CSV."""

    metrics: dict[str, Any]
    train: list[str]
    evaluation: list[str]


@dataclass(frozen=True)
class History:
    """A finished run in `folder`.

    `before` is the evaluation before its first step. Rows of `log` have step, epoch and either loss
    or eval_loss.
    """

    folder: Path
    before: dict[str, Any]
    log: list[dict[str, Any]]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluations at the ends of epochs, one each."""
        return after_epochs(self.log)

    @property
    def evaluated(self) -> list[dict[str, Any]]:
        """All evaluations, those within an epoch too."""
        return [row for row in self.log if "eval_loss" in row]

    @property
    def losses(self) -> list[float]:
        """The evaluation loss after each epoch."""
        return [row["eval_loss"] for row in self.evaluations]

    @property
    def checkpoint(self) -> Path:
        """The folder of the weights that the run ended with."""
        return self.at_epoch(len(self.losses))

    def at_epoch(self, epoch: int) -> Path:
        """Return the checkpoint of the end of an epoch, the first being 1.

        It is there for the last epoch and for the best one.
        """
        return self.folder / CHECKPOINTS / f"checkpoint-{self.evaluations[epoch - 1]['step']}"

    def diverged(self, tolerance: float) -> bool:
        """Say whether the evaluation loss ended more than this share above its lowest."""
        return self.losses[-1] > min(self.losses) * (1 + tolerance)


def after_epochs(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the evaluations of a log that stand at the end of an epoch.

    They alone decide when patience ends and which checkpoint is chosen. So neither depends on how
    often a run is evaluated.
    """
    return [row for row in log if "eval_loss" in row and float(row["epoch"]).is_integer()]


def evaluation_steps(steps: int, times: int) -> set[int]:
    """Return the steps of an epoch of `steps` after which a run is evaluated, its last one aside.

    They are such that there are `times` evaluations an epoch at equal distances, or fewer where
    there are fewer steps. For 4 evaluations in 100 steps they are 25, 50 and 75.
    """
    return {steps * n // times for n in range(1, times)} - {0}


def choose_checkpoint(runs: Sequence[History], keep: str) -> tuple[Path, int]:
    """Return the checkpoint that is published of runs that followed one another, and its epoch.

    The epoch is counted through all of them. `keep` is "last", or "best" by evaluation loss.
    """
    epochs = [(run, epoch) for run in runs for epoch in range(1, len(run.losses) + 1)]
    losses = [run.losses[epoch - 1] for run, epoch in epochs]
    chosen = losses.index(min(losses)) if keep == "best" else len(losses) - 1
    run, epoch = epochs[chosen]
    return run.at_epoch(epoch), chosen + 1


def trainer_arguments(
    device: loading.Device, settings: Sft | Dpo, amount: Training | Dpo, split: batching.Split
) -> dict[str, Any]:
    """Return the arguments that both of TRL's trainers take.

    `settings.deterministic` takes effect here. A GPU then uses only kernels that add up in a fixed
    order, as a CPU always does.
    """
    if settings.deterministic:
        import torch

        # torch's notes on reproducibility ask for this beside the call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    at_once = split.rows * launching.processes().count
    return {
        "num_train_epochs": amount.epochs,
        "per_device_train_batch_size": split.rows,
        "per_device_eval_batch_size": split.rows,
        "gradient_accumulation_steps": amount.batch_size // at_once,
        "learning_rate": amount.learning_rate,
        "warmup_steps": amount.warmup_steps,
        "lr_scheduler_type": settings.scheduler,
        "optim": device.optimizer(settings.optimizer),
        "seed": settings.seed,
        "data_seed": settings.seed,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,  # the newest and, where it is another, the best
        "logging_steps": 1,
        # With the filter on, a NaN is logged as the mean of the losses before it, and we see none.
        "logging_nan_inf_filter": False,
        "use_cpu": device.name == "cpu",
        "bf16": device.dtype == "bfloat16",
        "fp16": device.dtype == "float16",
        "gradient_checkpointing": split.checkpointing,
        "dataloader_pin_memory": device.name == "cuda",
        "ddp_find_unused_parameters": False,
        # TRL would add the loss that balances experts to that of the answers. It would also leave
        # checkpoints that return their routers' logits, which fails on batches of other lengths.
        "router_aux_loss_coef": 0.0,
        "disable_tqdm": True,
        "report_to": "none",
    }


def trainer_config(config_class: Any, folder: Path, **arguments: Any) -> Any:
    """Return an instance of TRL's `config_class` for a run in `folder`, on one GPU a process.

    Otherwise transformers would copy the model to every GPU that it sees, which TRL refuses.
    """
    config = config_class(output_dir=str(folder / CHECKPOINTS), **arguments)
    config._n_gpu = min(config.n_gpu, 1)
    return config


def some(rows: Sequence[R], limit: int | None) -> list[R]:
    """Return at most `limit` rows, spread evenly over all of them."""
    if limit is None or limit >= len(rows):
        return list(rows)
    return [rows[i * len(rows) // limit] for i in range(limit)]


def table(folder: Path, device: loading.Device, columns: Callable[[], dict[str, Any]]) -> Any:
    """Return the columns that `columns` gives as a data set, whose files are in `folder`.

    Every process finds it there, a resumed one too, with what TRL computes of its rows beforehand.
    The first process alone calls `columns`.
    """
    from datasets import Dataset, load_from_disk

    if launching.processes().first and not (folder / "dataset_info.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        Dataset.from_dict(columns()).save_to_disk(folder)
    launching.gathered(None, device.name == "cpu")
    return load_from_disk(folder)


def row_sums(trainer: Any, parts: int) -> Callable[[int], Any]:
    """Return a function to call after each evaluation, with the number N of its rows.

    It returns [N, parts, 2]: of each row (sum of the log-probabilities, number) of the tokens that
    count. `parts` is 2 where a batch holds the chosen answers and then the rejected ones.
    """
    import torch

    seen: list[Any] = []

    def note(module: Any, _: Any, outputs: Any) -> None:
        if not module.training:
            sums = outputs.log_probs.float().sum(dim=1)
            rows = torch.stack([sums, outputs.label_mask.sum(dim=1).to(sums)], dim=1).cpu()
            seen.append(torch.stack(rows.chunk(parts), dim=1))

    def ask(rows: int) -> Any:
        # Batches go to the processes in turn. The last ones repeat rows, so that all come out even:
        # of 5 rows in batches of 2, two processes get 0 1, 4 0 and 2 3, 1 2.
        by_process = launching.gathered(seen.copy(), trainer.args.use_cpu)
        seen.clear()
        turns = [batch for turn in zip(*by_process, strict=True) for batch in turn]
        return torch.cat(turns)[:rows].double()

    trainer.model.register_forward_hook(note)
    return ask


def has_ended(folder: Path) -> bool:
    """Say whether the run in `folder` has come to its end."""
    return (folder / HISTORY).exists()


def history(folder: Path) -> History:
    """Read the finished run in `folder`."""
    record: Any = files.read_json(folder / HISTORY)
    return History(folder, record["before"], record["log"])


def fit(
    trainer: Any, folder: Path, label: str, *, seed: int, patience: int | None, evaluations: int
) -> None:
    """Train to the end, or to the end of patience, from the newest whole checkpoint.

    The run's history is then in `folder`. A run is evaluated after each epoch. With fewer epochs
    than `evaluations` it is also evaluated within them, which changes no weight. BadInput: a loss
    that is not finite or rises too far, memory that is full.
    """
    import torch
    from transformers import TrainerCallback, set_seed

    args = trainer.args
    processes = launching.processes()
    newest, state = launching.gathered(
        _newest(folder / CHECKPOINTS) if processes.first else None, args.use_cpu
    )[0]
    if state and (
        state["global_step"] >= state["max_steps"] or _impatient(state["log_history"], patience)
    ):
        _end(folder, state["log_history"], args.use_cpu)
        return

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Shows progress, saves now and then, and ends runs whose loss is lost or falls no more."""

        saved = time.monotonic()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Evaluated in here and not before training, because accelerate takes a model that it
            # prepared to evaluate as prepared to train too. Each process would then train on its
            # own rows alone, without a word. The result is stored, because a resumed run has other
            # weights to start with.
            if not launching.gathered((folder / START).exists(), args.use_cpu)[0]:
                with torch.random.fork_rng():  # its random numbers must not change the training
                    trainer.evaluate()
                measured = state.log_history.pop()
                if processes.first:
                    files.write_json(folder / START, measured)
                launching.gathered(None, args.use_cpu)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Evaluated before a step and not after one. A step's loss is logged later than its
            # callbacks are called: by then the model would be in evaluation, and TRL would log the
            # loss as one of evaluation.
            if state.global_step % steps in between:
                with torch.random.fork_rng():  # its random numbers must not change the training
                    trainer.evaluate()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(1)
            late = time.monotonic() - self.saved > SAVE_SECONDS
            # Not at an epoch's end, where a checkpoint is written anyway, after the evaluation
            # that it has to hold.
            if state.global_step % steps and launching.gathered(late, args.use_cpu)[0]:
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.saved = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
            for name in ("loss", "eval_loss"):
                if name in logs and not math.isfinite(logs[name]):
                    if state.global_step == 0:
                        raise BadInput(
                            f"{label}: the loss is {logs[name]} before the first step; the model "
                            "that it starts from is broken"
                        )
                    raise BadInput(
                        f"{label}: {name} is {logs[name]} at step {state.global_step}; lower the "
                        f"learning rate (the last good checkpoint stays in {folder})"
                    )
            if "loss" in logs and (rise := _rise(state.log_history)) > LOST:
                raise BadInput(
                    f"{label}: the training loss is {rise:.1f} times what it began with, at step "
                    f"{state.global_step}; lower the learning rate (the last good checkpoint stays "
                    f"in {folder})"
                )

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if _impatient(state.log_history, patience):
                control.should_training_stop = True

    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes.count
    # The steps of an epoch.
    steps = math.ceil(len(trainer.train_dataset) / batch)
    between = evaluation_steps(steps, max(1, evaluations // math.ceil(args.num_train_epochs)))
    trainer.add_callback(Watch)
    if args.use_cpu and args.optim == "rmsprop":
        trainer.optimizer_cls_and_kwargs = rmsprop(), {"lr": args.learning_rate}
    set_seed(seed)  # so that nothing drawn before this changes the training
    begun = state["global_step"] if state else 0
    total_steps = steps * args.num_train_epochs
    with show_progress(label, total_steps, begun) as advance:
        try:
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        except torch.OutOfMemoryError as error:
            raise BadInput(
                f"{label}: the GPU's memory is full with {args.per_device_train_batch_size} rows "
                f"at once ({str(error).splitlines()[0]}); write a smaller number as its "
                "micro_batch_size, or end what else runs there"
            ) from None
    _end(folder, trainer.state.log_history, args.use_cpu)


def _end(folder: Path, log: Sequence[dict[str, Any]], cpu: bool) -> None:
    if launching.processes().first:
        before: Any = files.read_json(folder / START)
        files.write_json(folder / HISTORY, {"before": before, "log": list(log)})
    launching.gathered(None, cpu)


def _rise(log: Sequence[dict[str, Any]]) -> float:
    """Return the training loss of the last STEPS steps over that of the FIRST ones.

    It is computed every STEPS steps, and 1 in between.
    """
    losses = [row["loss"] for row in log if "loss" in row]
    if log[-1]["step"] % STEPS or not (first := fmean(losses[:FIRST])):
        return 1.0
    return fmean(losses[-STEPS:]) / first


@contextmanager
def show_progress(label: str, total: float, done: float = 0) -> Iterator[Callable[[float], None]]:
    """Show a bar in the first process. The progress of the others is the same."""
    if not launching.processes().first:
        yield lambda more: None
        return
    with bar(label, total, done) as advance:
        yield advance


def _newest(checkpoints: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the newest whole checkpoint and its state. Newer broken ones are removed.

    The first process writes the state file last. So a state that parses, beside a file of each
    other process, means a whole checkpoint.
    """
    folders = checkpoints.glob("checkpoint-*")
    for path in sorted(folders, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        try:
            if len(list(path.glob("rng_state*.pth"))) < launching.processes().count:
                raise FileNotFoundError(path)
            return path, json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)
    return None, None


def rmsprop() -> Any:
    """Return torch's RMSprop as a class, but with square roots of our own.

    On a CPU torch has MKL take them. They came out with another last bit on an AMD processor than
    on an Intel Haswell that QEMU emulated.
    """
    import torch

    class RMSprop(torch.optim.RMSprop):
        """p <- p - lr g / (sqrt(v) + eps), with v the running mean of g squared."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            loss = closure() if closure else None
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, parameter.grad, group)
            return loss

        def _move(self, parameter: Any, gradient: Any, group: dict[str, Any]) -> None:
            state, alpha = self.state[parameter], group["alpha"]
            if not state:
                state["step"] = torch.zeros(())
                state["square_avg"] = torch.zeros_like(parameter)
            state["step"] += 1
            mean = state["square_avg"].mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
            # 1 / rsqrt(v) is computed by exact instructions, and is 0 where v is 0.
            root = mean.rsqrt().reciprocal_()
            parameter.addcdiv_(gradient, root.add_(group["eps"]), value=-group["lr"])

    return RMSprop


def _impatient(history: Sequence[dict[str, Any]], patience: int | None) -> bool:
    """Say whether none of the last `patience` epochs was better than the best one before them."""
    losses = [e["eval_loss"] for e in after_epochs(history)]
    if patience is None or not losses:
        return False
    return len(losses) - 1 - losses.index(min(losses)) >= patience


def keep(folder: Path, checkpoint: Path, tokenizer: Any, base: Path) -> None:
    """Make folder/final of a checkpoint: weights, configuration, tokenizer.

    Leaves out all that varies from run to run (training_args.bin, trainer_state.json, a model
    card). Does nothing but in the first process.
    """
    if not launching.processes().first:
        return
    from transformers import AutoConfig, GenerationConfig

    final = folder / FINAL
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    for file in checkpoint.iterdir():
        if file.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(file, final / file.name)
    if loading.is_adapter(checkpoint):
        adapter = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
        adapter["target_modules"] = sorted(adapter["target_modules"])  # a set: its order varies
        adapter["base_model_name_or_path"] = base.as_posix()
        files.write_json(final / "adapter_config.json", adapter)
    else:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
        # The trainer sets this to False, which would make generation crawl.
        config.use_cache = True
        config.save_pretrained(final)
        GenerationConfig.from_pretrained(checkpoint).save_pretrained(final)
    tokenizer.save_pretrained(final)


def finish(
    folder: Path,
    metrics: dict[str, Any],
    train: Sequence[dict[str, float]],
    held_out: Sequence[dict[str, float]],
) -> None:
    """Write folder/result.json, by which a run counts as done, in the first process alone."""
    if not launching.processes().first:
        return
    files.write_json(
        folder / "result.json",
        {
            "metrics": _rounded(metrics),
            "train": _csv(train),
            "evaluation": _csv(held_out),
        },
    )


def warn_of_altered(label: str, metrics: dict[str, Any]) -> None:
    """Print on stderr how many rows the tokenizer writes in another form, if any."""
    if metrics["altered_rows"] and launching.processes().first:
        rows = metrics["train_rows"] + metrics["eval_rows"]
        print(
            f"warning: {label}: {metrics['altered_rows']} of {rows} rows hold characters that the "
            "base's tokenizer does not know or writes in another form; the model learns them so",
            file=sys.stderr,
        )


def publish(folder: Path, out: Path) -> Run | None:
    """Copy the finished model to `out`, and read its results. None in all but the first process.

    The model stays in the work folder too. Its runs and its rows are removed there.
    """
    if not launching.processes().first:
        return None
    for leftover in folder.iterdir():
        if leftover.is_dir() and leftover.name != FINAL:
            shutil.rmtree(leftover)
    work.publish(folder / FINAL, out)
    result: Any = files.read_json(folder / "result.json")
    return Run(**result)


def _csv(rows: Sequence[dict[str, float]]) -> list[str]:
    lines = [",".join(rows[0])]
    lines += [",".join(str(_digits(value)) for value in row.values()) for row in rows]
    return [line + "\n" for line in lines]


def _rounded(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _rounded(value) if isinstance(value, dict) else _digits(value)
        for name, value in metrics.items()
    }


def _digits(value: float) -> float:
    """Round to six significant digits. Further ones differ between machines."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def key(*modules: str, device: loading.Device | None = None, **inputs: object) -> str:
    """Return the fingerprint of a run of `modules` (their files).

    It depends on the inputs, the code, the chat template, the libraries' versions, and the machine
    where that changes the numbers.
    """
    versions = [version(name) for name in LIBRARIES]
    code = work.code(loading.__file__, chat.__file__, __file__, *modules)
    processes = launching.processes()
    cpu = [arithmetic.in_force()] if device and device.name == "cpu" else []
    machine = device and [
        device.name,
        device.dtype,
        device.varlen,
        processes.count,
        processes.sharded,
        *cpu,
    ]
    return work.fingerprint(
        code=code, template=chat.body(), versions=versions, machine=machine, **inputs
    )
