"""Running a trainer: settings, progress, checkpoints and resuming, and what a run leaves."""

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bezoar import chat, files, work
from bezoar.files import BadInput
from bezoar.params import Dpo, Sft, Training
from bezoar.progress import bar
from bezoar.training import loading

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
SAVE_SECONDS = 600.0  # besides the checkpoint after each epoch; saving changes no result


@dataclass(frozen=True)
class Run:
    """What a training run leaves for metrics/: numbers, and two curves as lines of CSV."""

    metrics: dict[str, float]
    train: list[str]
    evaluation: list[str]


def settings(
    folder: Path, device: loading.Device, how: Sft | Dpo, amount: Training | Dpo
) -> dict[str, Any]:
    """Arguments that both of TRL's trainers take."""
    return {
        "output_dir": str(folder / "checkpoints"),
        "num_train_epochs": amount.epochs,
        "per_device_train_batch_size": amount.micro_batch_size,
        "per_device_eval_batch_size": amount.micro_batch_size,
        "gradient_accumulation_steps": amount.batch_size // amount.micro_batch_size,
        "learning_rate": amount.learning_rate,
        "warmup_steps": amount.warmup_steps,
        "lr_scheduler_type": how.scheduler,
        "seed": how.seed,
        "data_seed": how.seed,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,  # the newest and, where it is another, the best
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # on, a NaN is logged as the mean of the losses before it
        "use_cpu": device.name == "cpu",
        "bf16": device.dtype == "bfloat16",
        "gradient_checkpointing": device.name == "cuda",
        "dataloader_pin_memory": device.name == "cuda",
        "disable_tqdm": True,
        "report_to": "none",
    }


def fit(
    trainer: Any, folder: Path, label: str, seed: int, patience: int | None
) -> list[dict[str, Any]]:
    """Train to the end, or to the end of patience, from the newest whole checkpoint; return the
    log, whose rows have step, epoch and either loss or eval_loss."""
    from transformers import TrainerCallback, set_seed

    newest, state = _newest(folder / "checkpoints")
    if state and (
        state["global_step"] >= state["max_steps"] or _impatient(state["log_history"], patience)
    ):
        return list(state["log_history"])

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Shows progress, saves now and then, stops a loss that is lost or no longer falls."""

        saved = time.monotonic()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            advance(1)
            # not at an epoch's end: that checkpoint is the one which holds the epoch's evaluation
            if time.monotonic() - self.saved > SAVE_SECONDS and state.global_step % steps:
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.saved = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
            for name in ("loss", "eval_loss"):
                if name in logs and not math.isfinite(logs[name]):
                    raise BadInput(
                        f"{label}: {name} is {logs[name]} at step {state.global_step}; lower the "
                        f"learning rate (the last good checkpoint stays in {folder})"
                    )

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if _impatient(state.log_history, patience):
                control.should_training_stop = True

    args = trainer.args
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
    steps = math.ceil(len(trainer.train_dataset) / batch)  # an epoch
    trainer.add_callback(Watch)
    set_seed(seed)  # what ran before (an evaluation, or none after a kill) must not matter
    with bar(label, steps * args.num_train_epochs) as advance:
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    return list(trainer.state.log_history)


def _newest(checkpoints: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """The newest whole checkpoint and its state; newer broken ones are removed. The state file is
    written last, so one that parses means a whole checkpoint."""
    found = checkpoints.glob("checkpoint-*")
    for path in sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        try:
            return path, json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)
    return None, None


def _impatient(history: Sequence[dict[str, Any]], patience: int | None) -> bool:
    """Whether the last `patience` evaluations were all no better than one before them."""
    losses = [e["eval_loss"] for e in history if "eval_loss" in e]
    return patience is not None and len(losses) - 1 - losses.index(min(losses)) >= patience


def before(trainer: Any, folder: Path, label: str) -> dict[str, float]:
    """The evaluation before the first step, kept: a resumed run has other weights to start with."""
    path = folder / "start.json"
    if not path.exists():
        measured = trainer.evaluate()
        if not math.isfinite(measured["eval_loss"]):
            raise BadInput(
                f"{label}: the loss is {measured['eval_loss']} before the first step; the model "
                "that it starts from is broken"
            )
        files.write_json(path, measured)
    kept: Any = files.read_json(path)
    return dict(kept)


def keep(folder: Path, step: int, model: Any, tokenizer: Any, base: Path) -> None:
    """Make folder/final of the checkpoint at `step`: weights, configuration, tokenizer; nothing
    that varies from run to run (training_args.bin, trainer_state.json, a model card)."""
    checkpoint, final = folder / "checkpoints" / f"checkpoint-{step}", folder / "final"
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    for file in checkpoint.iterdir():
        if file.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(file, final / file.name)
    if loading.is_adapter(checkpoint):
        config = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
        config["target_modules"] = sorted(config["target_modules"])  # a set: its order varies
        config["base_model_name_or_path"] = base.as_posix()
        files.write_json(final / "adapter_config.json", config)
    else:
        model.config.use_cache = True  # the trainer's False would make generation crawl
        model.config.save_pretrained(final)
        model.generation_config.save_pretrained(final)
    tokenizer.save_pretrained(final)


def finish(
    folder: Path,
    metrics: dict[str, float],
    train: Sequence[dict[str, float]],
    held_out: Sequence[dict[str, float]],
) -> None:
    """Write folder/result.json, by which a run counts as done."""
    files.write_json(
        folder / "result.json",
        {
            "metrics": {name: _digits(value) for name, value in metrics.items()},
            "train": _csv(train),
            "evaluation": _csv(held_out),
        },
    )


def publish(folder: Path, out: Path) -> Run:
    """Copy the finished model to `out`. It stays in the work folder, its checkpoints do not."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    work.publish(folder / "final", out)
    result: Any = files.read_json(folder / "result.json")
    return Run(**result)


def _csv(rows: Sequence[dict[str, float]]) -> list[str]:
    lines = [",".join(rows[0])]
    lines += [",".join(str(_digits(value)) for value in row.values()) for row in rows]
    return [line + "\n" for line in lines]


def _digits(value: float) -> float:
    """Six significant digits: what more there is differs between machines."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def key(module: str, **what: object) -> str:
    """The fingerprint of a run of `module` (its file): its inputs, the code, the template and the
    libraries."""
    versions = [version(name) for name in LIBRARIES]
    code = work.content(loading.__file__, __file__, module)
    return work.fingerprint(code=code, template=chat.TEMPLATE, versions=versions, **what)
