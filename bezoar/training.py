"""Training: QLoRA links, full-parameter links, the merge, DPO; and loading what they made.

With pretraining and evaluation the only place for torch, transformers, trl and peft. What the
libraries do on their own and must not happen here is undone where it happens, with the reason.
"""

import json
import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from bezoar import chat, files, work
from bezoar.files import BadInput
from bezoar.params import Dpo, Link, Sft, Training
from bezoar.progress import bar

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
SAVE_SECONDS = 600.0  # besides the checkpoint after each epoch; saving changes no result
IGNORED = -100  # the label of a token that the loss leaves out (torch's cross-entropy)

Ids = list[int]


@dataclass(frozen=True)
class Run:
    """What a training run leaves for metrics/: numbers, and two curves as lines of CSV."""

    metrics: dict[str, float]
    train: list[str]
    evaluation: list[str]


@dataclass(frozen=True)
class Adapter:
    """A finished LoRA adapter and the quantised base that it was trained on."""

    base: Path
    folder: Path


# --- supervised fine-tuning ----------------------------------------------------------------------


def sft(
    name: str,
    link: Link,
    train: Sequence[tuple[str, str]],
    held_out: Sequence[tuple[str, str]],
    *,
    how: Sft,
    amount: Training,
    models: Path,
) -> Run:
    """Train one link on (prompt, completion) pairs and leave it at `models`/sft/`name`.

    The loss is on the completion and its end-of-sequence token. `link.weights` adapter: QLoRA, on
    `link.base` quantised, carried on from the adapter `link.start` (OpenBezoar 3.3); all: every
    parameter of `link.start` (3.4). A killed run continues from its newest whole checkpoint and
    ends with the same bytes. BadInput: nothing to learn from, a start that does not fit, a loss
    that is not finite, a full disk.
    """
    base, start, label = models / link.base, models / link.start, f"sft {name}"
    _quiet()
    device = _device()
    general = {k: v for k, v in how.model_dump().items() if not isinstance(v, dict)}
    key = _key(
        rows=[train, held_out],
        weights=[link.weights, work.content(base), work.content(start)],
        numbers=[general, amount.model_dump()],
        device=device.name,
    )
    with work.scratch("sft", key) as folder:
        if not (folder / "result.json").exists():
            from transformers import set_seed

            tokenizer = _tokenizer(base if link.weights == "adapter" else start)
            set_seed(how.seed)  # a new adapter's weights are drawn
            if link.weights == "adapter":
                model = _start_adapter(base, start, how, device)
            else:
                model = _plain(start, "float32", device)
            limit = min(amount.max_length, model.config.max_position_embeddings)
            taught = _tokenize(tokenizer, train, limit)
            asked = _tokenize(tokenizer, held_out, limit)
            for rows, what in ((taught, "training"), (asked, "held-out")):
                if not rows.ids:
                    raise BadInput(
                        f"{label}: none of the {rows.dropped} {what} rows has room for an answer "
                        f"within {limit} tokens; raise sft.{name}.max_length or shorten the rows"
                    )
            settings = _settings(folder, device, how, amount)
            trainer = _sft_trainer(model, tokenizer, taught, asked, settings)
            patience = how.patience if how.keep == "best" else None
            start_loss = _before(trainer, folder, label)["eval_loss"]
            history = _fit(trainer, folder, label, how.seed, patience)
            evaluated = {round(e["epoch"]): e for e in history if "eval_loss" in e}
            losses = {epoch: e["eval_loss"] for epoch, e in evaluated.items()}
            epochs = max(losses)
            kept = min(losses, key=losses.__getitem__) if how.keep == "best" else epochs
            _keep(folder, evaluated[kept]["step"], trainer.model, tokenizer, base)
            whole = len(taught.ids) + len(asked.ids)
            metrics = {
                "eval_loss_start": start_loss,
                "eval_loss_end": losses[epochs],
                "eval_loss_best": min(losses.values()),
                "epochs": epochs,
                "kept_epoch": kept,
                "train_rows": len(taught.ids),
                "eval_rows": len(asked.ids),
                "dropped_rows": taught.dropped + asked.dropped,
                "truncated_share": (taught.truncated + asked.truncated) / whole,
                "train_tokens": sum(map(len, taught.ids)),
            }
            columns = ("step", "epoch", "loss", "learning_rate")
            curve = [{k: e[k] for k in columns} for e in history if "loss" in e]
            held = [{"epoch": n, "loss": x} for n, x in sorted({0: start_loss, **losses}.items())]
            _finish(folder, metrics, curve, held)
        return _publish(folder, models / "sft" / name)


def _sft_trainer(model: Any, tokenizer: Any, train: "_Rows", held_out: "_Rows", how: Any) -> Any:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    weights = model.named_parameters() if isinstance(model, PeftModel) else ()
    exact = {name: p.data.clone() for name, p in weights if p.requires_grad}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **how,
            # rows are already token ids and labels, cut to length: nothing is dropped in silence
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
        ),
        train_dataset=Dataset.from_dict({"input_ids": train.ids, "labels": train.labels}),
        eval_dataset=Dataset.from_dict({"input_ids": held_out.ids, "labels": held_out.labels}),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    # TRL rounds a 4-bit model's adapter to bfloat16. That loses small updates, changes the adapter
    # that is carried on, and makes a resumed run differ: peft loads it back as float32.
    for name, parameter in trainer.model.named_parameters():
        if name in exact:
            parameter.data = exact[name].to(torch.float32)
    return trainer


def _start_adapter(base: Path, start: Path, how: Sft, device: "_Device") -> Any:
    """The quantised base with a trainable adapter: a new one, or the one at `start`."""
    from peft import LoraConfig, get_peft_model

    model = _quantised(base, how, device)
    if start == base:
        lora = LoraConfig(
            r=how.lora_r,
            lora_alpha=how.lora_alpha,
            lora_dropout=how.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, lora)
    return _attach(model, start, base, trainable=True)


# --- merge ---------------------------------------------------------------------------------------


def merge(
    adapter: Adapter, how: Sft, method: Literal["dequantized", "reloaded"], out: Path
) -> None:
    """Add the adapter to its base in float32 and leave a plain model and tokenizer at `out`.

    dequantized: to the 4-bit base as it was trained on, brought back to float32: the merged model
    is the trained one. reloaded: to the base as it was before quantisation (the usual way). Never
    to the 4-bit copy itself, which would quantise the sum a second time.
    """
    _quiet()
    device = _device()
    key = _key(merge=[method, work.content(adapter.base), work.content(adapter.folder), out.name])
    if method == "dequantized":
        model = _dequantised(adapter.base, how, device)
    else:
        model = _plain(adapter.base, "float32", device)
    model = _attach(model, adapter.folder, adapter.base).merge_and_unload(safe_merge=True)
    with work.scratch("merge", key) as folder:
        part = folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        model.save_pretrained(part)
        _tokenizer(adapter.base).save_pretrained(part)
        work.publish(part, out)
        shutil.rmtree(part)


def _dequantised(base: Path, how: Sft, device: "_Device") -> Any:
    """The base with the values that its 4-bit copy stands for, as a plain float32 model."""
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    model, quantised = _plain(base, "float32", device), _quantised(base, how, device)
    with torch.no_grad():
        for name, layer in quantised.named_modules():
            if isinstance(layer, Linear4bit):
                values = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
                model.get_submodule(name).weight.copy_(values)
    return model


# --- direct preference optimisation --------------------------------------------------------------


def dpo(
    start: Path,
    train: Sequence[tuple[str, str, str]],
    held_out: Sequence[tuple[str, str, str]],
    *,
    how: Dpo,
    out: Path,
) -> Run:
    """Train every parameter of `start` on (prompt, chosen, rejected) and leave the policy at `out`.

    L = -E log sigmoid(beta log pi/pi_ref (chosen) - beta log pi/pi_ref (rejected)), the reference
    being `start` itself (OpenBezoar 3.5; DPO paper, equation 7). Of a prompt the last
    `max_prompt_tokens` count, of an answer the first `max_answer_tokens`. Resumes as `sft` does.

    metrics: `accuracy`, the share of held-out pairs whose chosen answer the policy gives the higher
    log-probability, `accuracy_before`, the same of `start`; `margin`, the mean difference of the
    rewards beta log pi/pi_ref; `reward_accuracy`, the share of pairs where it is positive.
    """
    _quiet()
    device = _device()
    key = _key(
        rows=[train, held_out],
        start=work.content(start),
        numbers=how.model_dump(),
        device=device.name,
    )
    with work.scratch("dpo", key) as folder:
        if not (folder / "result.json").exists():
            tokenizer = _tokenizer(start)
            model = _plain(start, "float32", device)
            room = model.config.max_position_embeddings
            answer = min(how.max_answer_tokens, room // 2)
            prompt = min(how.max_prompt_tokens, room - answer)
            taught = _tokenize_pairs(tokenizer, train, prompt, answer)
            asked = _tokenize_pairs(tokenizer, held_out, prompt, answer)
            settings = _settings(folder, device, how, how)
            settings |= {"optim": how.optimizer, "beta": how.beta, "loss_type": how.loss}
            trainer = _dpo_trainer(model, tokenizer, taught, asked, settings)
            before = _before(trainer, folder, "dpo")
            history = _fit(trainer, folder, "dpo", how.seed, None)
            evaluations = [e for e in history if "eval_loss" in e]
            last = evaluations[-1]
            _keep(folder, last["step"], trainer.model, tokenizer, start)
            metrics = {
                "accuracy": last["eval_accuracy"],
                "accuracy_before": before["eval_accuracy"],
                "margin": last["eval_rewards/margins"],
                "reward_accuracy": last["eval_rewards/accuracies"],
                "eval_loss_start": before["eval_loss"],
                "eval_loss_end": last["eval_loss"],
                "train_rows": len(train),
                "eval_rows": len(held_out),
                "truncated_share": (taught.truncated + asked.truncated)
                / (len(train) + len(held_out)),
            }
            curve = [_point(e["step"], e, "{}", "rewards/{}") for e in history if "loss" in e]
            held = [_point(0, before, "eval_{}", "eval_rewards/{}")]
            held += [_point(e["step"], e, "eval_{}", "eval_rewards/{}") for e in evaluations]
            _finish(folder, metrics, curve, held)
        return _publish(folder, out)


def _point(step: int, logged: dict[str, float], loss: str, reward: str) -> dict[str, float]:
    """A point of a DPO curve; accuracy is that of the rewards."""
    names = {"margin": "margins", "accuracy": "accuracies"}
    names |= {"chosen": "chosen", "rejected": "rejected"}
    rewards = {name: logged[reward.format(key)] for name, key in names.items()}
    return {"step": step, "loss": logged[loss.format("loss")], **rewards}


def _dpo_trainer(model: Any, tokenizer: Any, train: "_Pairs", held_out: "_Pairs", how: Any) -> Any:
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    class Trainer(DPOTrainer):  # type: ignore[misc]
        """TRL's trainer on rows that are token ids already, with held-out numbers per row: TRL's
        own are means over batches, whose last is smaller, and have no plain ranking."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "eval_loss" in logs:
                chosen, rejected = torch.cat(seen).T
                seen.clear()
                data = self.eval_dataset.with_format("torch")
                rewards = (
                    self.beta * (chosen - data["ref_chosen_logps"][:]),
                    self.beta * (rejected - data["ref_rejected_logps"][:]),
                )
                rows = {
                    "accuracy": chosen > rejected,
                    "rewards/accuracies": rewards[0] > rewards[1],
                    "rewards/margins": rewards[0] - rewards[1],
                    "rewards/chosen": rewards[0],
                    "rewards/rejected": rewards[1],
                }
                means = {name: [row.double().mean().item()] for name, row in rows.items()}
                self._metrics["eval"].update(means)
            super().log(logs, start_time)

    trainer: Any = Trainer(
        model=model,
        args=DPOConfig(
            **how,
            max_length=None,
            # from the weights in memory; left to itself TRL loads the reference by the name that
            # the model was loaded from, which a moved or merged model does not have
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_dict(train.columns()),
        eval_dataset=Dataset.from_dict(held_out.columns()),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    seen: list[Any] = []

    def note(module: Any, _: Any, outputs: Any) -> None:
        """Keep log pi(answer | prompt) of an evaluation batch: the chosen rows, then the rejected
        ones; log_probs is 0 outside the answer."""
        if not module.training:
            sums = outputs.log_probs.float().sum(dim=1).cpu()
            seen.append(torch.stack(sums.chunk(2), dim=1))

    trainer.model.register_forward_hook(note)
    return trainer


# --- loading -------------------------------------------------------------------------------------


def load(model: Path, base: Path, how: Sft) -> tuple[Any, Any]:
    """(model, tokenizer) of a checkpoint, ready to evaluate: a full model as it is; an adapter on
    `base` quantised, which is how it was trained."""
    _quiet()
    device = _device()
    if not _is_adapter(model):
        return _plain(model, device.dtype, device).eval(), _tokenizer(model)
    loaded = _attach(_quantised(base, how, device), model, base)
    return loaded.get_base_model().eval(), _tokenizer(model)


@dataclass(frozen=True)
class _Device:
    """Where training runs and the type it computes in; weights that are trained stay float32."""

    name: Literal["cuda", "cpu"]
    dtype: Literal["bfloat16", "float32"]


def _device() -> _Device:
    import torch

    if torch.cuda.is_available():
        return _Device("cuda", "bfloat16" if torch.cuda.is_bf16_supported() else "float32")
    # more threads add up in another order, which is other bytes; tiny models gain nothing by them
    torch.set_num_threads(1)
    return _Device("cpu", "float32")


def _plain(folder: Path, dtype: str, device: _Device) -> Any:
    from transformers import AutoModelForCausalLM

    _check_model(folder)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map={"": device.name}, local_files_only=True
    )


def _quantised(base: Path, how: Sft, device: _Device) -> Any:
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    _check_model(base)
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=device.dtype,
        device_map={"": device.name},
        local_files_only=True,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=how.quantization,
            bnb_4bit_use_double_quant=how.double_quantization,
            bnb_4bit_compute_dtype=device.dtype,
        ),
    )
    # On a CPU with AVX512-BF16 bitsandbytes 0.50.2 repacks a layer's weight when it first runs in
    # eval mode, and stays there: from then on no gradient passes through the layer, and what
    # dequantize_4bit returns is garbage. Nothing reports it; only the losses stop falling.
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    return model


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not any(
        (folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    ):
        raise BadInput(
            f"{folder}: no tokenizer; a model folder in Hugging Face format holds tokenizer.json "
            "(or tokenizer.model) beside config.json"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.eos_token is None:
        raise BadInput(
            f"{folder}: the tokenizer has no end-of-sequence token, so no answer could end; set "
            "eos_token in tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "left"  # generation continues the end of a row
    tokenizer.chat_template = chat.TEMPLATE
    return tokenizer


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists()


def _check_model(folder: Path) -> None:
    if _is_adapter(folder):
        raise BadInput(f"{folder}: an adapter, where a full model is wanted; merge it first")
    if not (folder / "config.json").exists():
        raise BadInput(
            f"{folder}: no model; a model folder in Hugging Face format holds config.json, the "
            "weights (model.safetensors) and a tokenizer"
        )


def _attach(model: Any, adapter: Path, base: Path, trainable: bool = False) -> Any:
    """`model` (made of `base`) with the adapter on it; BadInput where the two do not fit."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    if not _is_adapter(adapter):
        raise BadInput(f"{adapter}: not an adapter; a link with `weights: adapter` makes one")
    try:
        loaded = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        if "size mismatch" not in str(error) and "not found in the base" not in str(error):
            raise
        raise BadInput(f"{adapter}: made for another base than {base}: shapes differ") from None
    # peft only warns of layers that one of the two lacks
    with safe_open(adapter / "adapter_model.safetensors", "pt") as stored:
        if set(stored.keys()) != set(get_peft_model_state_dict(loaded)):
            raise BadInput(f"{adapter}: made for another base than {base}: layers differ")
    return loaded


# --- text to token ids ---------------------------------------------------------------------------


@dataclass
class _Rows:
    """Token ids and labels of rows cut to length; `dropped` rows had no room for an answer."""

    ids: list[Ids] = field(default_factory=list)
    labels: list[Ids] = field(default_factory=list)
    truncated: int = 0
    dropped: int = 0


@dataclass
class _Pairs:
    """Token ids of preference pairs, cut to length."""

    prompts: list[Ids] = field(default_factory=list)
    chosen: list[Ids] = field(default_factory=list)
    rejected: list[Ids] = field(default_factory=list)
    truncated: int = 0

    def columns(self) -> dict[str, list[Ids]]:
        return {
            "prompt_ids": self.prompts,
            "chosen_ids": self.chosen,
            "rejected_ids": self.rejected,
        }


def _tokenize(tokenizer: Any, pairs: Sequence[tuple[str, str]], limit: int) -> _Rows:
    """A row longer than `limit` keeps its start, so it does not end in EOS."""
    rows = _Rows()
    for prompt, answer in chat.answer_ids(tokenizer, pairs):
        ids = prompt + answer
        if len(prompt) >= limit:
            rows.dropped += 1
            continue
        rows.truncated += len(ids) > limit
        rows.ids.append(ids[:limit])
        rows.labels.append(([IGNORED] * len(prompt) + answer)[:limit])
    return rows


def _tokenize_pairs(
    tokenizer: Any, triples: Sequence[tuple[str, str, str]], prompt_limit: int, answer_limit: int
) -> _Pairs:
    pairs = _Pairs()
    chosen = chat.answer_ids(tokenizer, [(p, c) for p, c, _ in triples])
    rejected = chat.answer_ids(tokenizer, [(p, r) for p, _, r in triples])
    for (prompt, good), (other, bad) in zip(chosen, rejected, strict=True):
        # where a token spans the end of the prompt, both answers start at the earlier of the two
        same = min(len(prompt), len(other))
        answers = prompt[same:] + good, other[same:] + bad
        pairs.truncated += same > prompt_limit or max(map(len, answers)) > answer_limit
        pairs.prompts.append(chat.cut_left(tokenizer, prompt[:same], prompt_limit))
        pairs.chosen.append(answers[0][:answer_limit])
        pairs.rejected.append(answers[1][:answer_limit])
    return pairs


# --- running a trainer ---------------------------------------------------------------------------


def _settings(
    folder: Path, device: _Device, how: Sft | Dpo, amount: Training | Dpo
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


def _fit(
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


def _before(trainer: Any, folder: Path, label: str) -> dict[str, float]:
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


def _keep(folder: Path, step: int, model: Any, tokenizer: Any, base: Path) -> None:
    """Make folder/final of the checkpoint at `step`: weights, configuration, tokenizer; nothing
    that varies from run to run (training_args.bin, trainer_state.json, a model card)."""
    checkpoint, final = folder / "checkpoints" / f"checkpoint-{step}", folder / "final"
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    for file in checkpoint.iterdir():
        if file.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(file, final / file.name)
    if _is_adapter(checkpoint):
        config = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
        config["target_modules"] = sorted(config["target_modules"])  # a set: its order varies
        config["base_model_name_or_path"] = base.as_posix()
        files.write_json(final / "adapter_config.json", config)
    else:
        model.config.use_cache = True  # the trainer's False would make generation crawl
        model.config.save_pretrained(final)
        model.generation_config.save_pretrained(final)
    tokenizer.save_pretrained(final)


def _finish(
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


def _publish(folder: Path, out: Path) -> Run:
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


def _key(**what: object) -> str:
    """The fingerprint of a run: its inputs, this code, the template and the libraries."""
    versions = [version(name) for name in LIBRARIES]
    code = work.content(__file__)
    return work.fingerprint(code=code, template=chat.TEMPLATE, versions=versions, **what)


def _quiet() -> None:
    """Silence what the libraries say of themselves; call it before they are imported."""
    os.environ |= {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    # on some CPUs bitsandbytes asks for a package of kernels that would come from a hub
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    for library in ("accelerate", "peft", "torch", "transformers", "trl"):
        warnings.filterwarnings("ignore", module=library)
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
