"""Direct preference optimisation (OpenBezoar, section 3.4, and DPO, arXiv 2305.18290).

A policy pi learns from pairs: a prompt x, a chosen answer y_w and a rejected one y_l. It starts as
a copy of the reference pi_ref, which never changes. The loss (DPO, equation 7) is

    L = -E[ log sigmoid(r(x, y_w) - r(x, y_l)) ]
    r(x, y) = beta (log pi(y|x) - log pi_ref(y|x))
    log pi(y|x) = sum over t of log pi(y_t | x, y_<t)       over the tokens of the answer alone

where r is the implicit reward (equation 5, whose term of x alone cancels in the difference).

A batch of B pairs goes through the model as 2B rows: first the B chosen ones, then the B rejected
ones. With rows of up to L tokens, input_ids are [2B, L] and log pi(y|x) is [2B]. Each r is [B].

TRL computes the loss. This module prepares the pairs, has the reference's log-probabilities
computed before the first step, and measures every held-out pair.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bezoar import work
from bezoar.models import loading
from bezoar.params import Dpo
from bezoar.rows import chat
from bezoar.training.runs import adapters, batching, fitting, launching, padding_free


def dpo(
    start: Path,
    train: Sequence[tuple[str, str, str]],
    held_out: Sequence[tuple[str, str, str]],
    *,
    settings: Dpo,
    out: Path,
) -> fitting.Run | None:
    """Train `start` on (prompt, chosen, rejected) and leave the policy, a full model, at `out`.

    The reference is `start` itself. The loss is that of the module's docstring, or another of TRL's
    that `settings.loss` names. `settings.weights` is "all" to train every parameter, or "adapter"
    to train a LoRA on the frozen `start`, which is merged at the end.

    A prompt keeps its last `max_prompt_tokens`, an answer its first `max_answer_tokens`. A killed
    run resumes, and `settings.eval_limit` of the held-out pairs are evaluated, as `sft` does. On
    several processes the first alone returns a run. The reference's log-probabilities stay in a
    scratch folder of their own, for other runs from the same start on the same rows.

    Metrics: `accuracy`, the share of held-out pairs whose chosen answer has the higher
    log-probability under the policy. `accuracy_before`, the same under `start`. `margin`, the mean
    of r(chosen) - r(rejected). `reward_accuracy`, the share of pairs where that difference is
    positive.
    """
    loading.quiet()
    device = loading.device()
    eval_pairs = fitting.some(held_out, settings.eval_limit)
    modules = __file__, padding_free.__file__
    reference_key = fitting.key(
        *modules,
        rows=[train, eval_pairs],
        start=work.content(start),
        tokens=[settings.max_prompt_tokens, settings.max_answer_tokens],
        device=device,
    )
    adapter = work.code(adapters.__file__) if settings.weights == "adapter" else ""
    key = work.fingerprint(reference=reference_key, adapter=adapter, numbers=settings.model_dump())
    with launching.scratch("dpo", key) as folder:
        if not (folder / "result.json").exists():
            split = batching.split(
                "dpo",
                folder,
                device,
                model=start,
                kind="dpo" if settings.weights == "all" else "dpo_adapter",
                settings=settings,
                amount=settings,
                tokens=settings.max_prompt_tokens + settings.max_answer_tokens,
            )
            arguments = fitting.trainer_arguments(device, settings, settings, split)
            tokenizer = loading.tokenizer(start)
            context = loading.positions(start)
            # Prompt and answer share the model's context, of which an answer gets half at most.
            answer_limit = min(settings.max_answer_tokens, context // 2)
            prompt_limit = min(settings.max_prompt_tokens, context - answer_limit)
            tokenise = partial(
                rows, tokenizer, prompt_limit=prompt_limit, answer_limit=answer_limit
            )
            with launching.scratch("reference", reference_key, wait=True) as reference_folder:
                train_columns = partial(tokenise, train, label="dpo: training pairs")
                eval_columns = partial(tokenise, eval_pairs, label="dpo: held-out pairs")
                train_table = fitting.table(reference_folder / "train", device, train_columns)
                tables = train_table, fitting.table(reference_folder / "eval", device, eval_columns)
                if not fitting.has_ended(folder):
                    dpo_trainer = trainer(
                        starting_model(start, settings, device),
                        tokenizer,
                        tables,
                        settings=settings,
                        arguments=arguments,
                        folder=folder,
                        device=device,
                    )
            if not fitting.has_ended(folder):
                fitting.fit(
                    dpo_trainer,
                    folder,
                    "dpo",
                    seed=settings.seed,
                    patience=None,
                    evaluations=settings.evaluations,
                )
            run = fitting.history(folder)
            fitting.keep(folder, run.checkpoint, tokenizer, start)
            if settings.weights == "adapter":
                _merge(start, folder / fitting.FINAL, device)
            numbers = _results(run, tables)
            fitting.warn_of_altered("dpo", numbers["metrics"])
            fitting.finish(folder, **numbers)
        return fitting.publish(folder, out)


def _results(run: fitting.History, rows: Sequence[Any]) -> dict[str, Any]:
    """Return the policy's metrics and its two curves."""
    last, row_count = run.evaluations[-1], sum(map(len, rows))
    metrics = {
        "accuracy": last["eval_accuracy"],
        "accuracy_before": run.before["eval_accuracy"],
        "margin": last["eval_rewards/margins"],
        "reward_accuracy": last["eval_rewards/accuracies"],
        "eval_loss_start": run.before["eval_loss"],
        "eval_loss_end": last["eval_loss"],
        "train_rows": len(rows[0]),
        "eval_rows": len(rows[1]),
        "truncated_share": sum(sum(part["truncated"]) for part in rows) / row_count,
        "altered_rows": sum(sum(part["altered"]) for part in rows),
    }
    curve = [_point(e["step"], e, "{}", "rewards/{}") for e in run.log if "loss" in e]
    held_out = [_point(0, run.before, "eval_{}", "eval_rewards/{}")]
    held_out += [_point(e["step"], e, "eval_{}", "eval_rewards/{}") for e in run.evaluated]
    return {"metrics": metrics, "train": curve, "held_out": held_out}


def _point(step: int, logged: dict[str, float], loss: str, reward: str) -> dict[str, float]:
    """Return a point of a DPO curve. Its accuracy is that of the rewards."""
    names = {"margin": "margins", "accuracy": "accuracies"}
    names |= {"chosen": "chosen", "rejected": "rejected"}
    rewards = {name: logged[reward.format(key)] for name, key in names.items()}
    return {"step": step, "loss": logged[loss.format("loss")], **rewards}


def trainer(
    model: Any,
    tokenizer: Any,
    rows: tuple[Any, Any],
    *,
    settings: Dpo,
    arguments: dict[str, Any],
    folder: Path,
    device: loading.Device,
) -> Any:
    """Return TRL's trainer on two tables of pairs, to learn from and held out.

    The pairs are token ids already (see `rows`). The trainer first computes what the reference says
    of them, and stores it beside them. `arguments` and `folder` are as for sft.trainer.
    """
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    unpadded = padding_free.possible(model.config, device)

    class Trainer(DPOTrainer):  # type: ignore[misc]
        """TRL's trainer with held-out numbers that are means over pairs.

        TRL's own are means over batches, though the last batch is smaller. It also has no plain
        ranking: the share of pairs with log pi(chosen) > log pi(rejected).
        """

        # The rows are token ids already. TRL would take them for text to be tokenized.
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            # The trainer drops every column that is not listed here, and groups pairs by this one.
            if "length" not in self._signature_columns:
                self._signature_columns.append("length")

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            for network in (self.model, self.ref_model):
                if unpadded and network is not None:
                    padding_free.attach(network)
            with fitting.show_progress(
                f"dpo: reference, {name} pairs", len(dataset)
            ) as self.advance:
                return super()._precompute_ref_logps(dataset, name, batch_size)

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            chosen, rejected = super().compute_ref_log_probs(model, inputs)
            self.advance(len(chosen) * launching.processes().count)
            return chosen, rejected

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "eval_loss" in logs:
                # log pi(y|x) of the chosen and the rejected answers, each [N]. row_sums gives
                # [N, 2, 2] with token counts, which are not used here.
                chosen, rejected = evaluated(len(self.eval_dataset))[..., 0].T
                data = self.eval_dataset.with_format("torch")
                # r(x, y) = beta (log pi - log pi_ref), each [N].
                rewards = (
                    self.beta * (chosen - data["ref_chosen_logps"][:]),
                    self.beta * (rejected - data["ref_rejected_logps"][:]),
                )
                values_by_row = {
                    "accuracy": chosen > rejected,
                    "rewards/accuracies": rewards[0] > rewards[1],
                    "rewards/margins": rewards[0] - rewards[1],
                    "rewards/chosen": rewards[0],
                    "rewards/rejected": rewards[1],
                }
                means = {name: [row.double().mean().item()] for name, row in values_by_row.items()}
                self._metrics["eval"].update(means)
            super().log(logs, start_time)

    arguments = arguments | {
        "beta": settings.beta,
        "loss_type": settings.loss,
        "label_smoothing": settings.label_smoothing,
    }
    if launching.processes().sharded:
        # Under FSDP TRL loads a reference of its own, and would spread it over all GPUs.
        arguments["model_init_kwargs"] = {"device_map": None}
    if not unpadded:
        arguments["train_sampling_strategy"] = "group_by_length"
    collator = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)
    dpo_trainer: Any = Trainer(
        model=model,
        args=fitting.trainer_config(
            DPOConfig,
            folder,
            **arguments,
            max_length=None,
            # The reference's numbers come from the weights in memory (but under FSDP). Without
            # this TRL loads the reference by the name that the model was loaded from, which a
            # moved or merged model does not have.
            precompute_ref_log_probs=True,
        ),
        train_dataset=rows[0],
        eval_dataset=rows[1],
        processing_class=tokenizer,
        data_collator=padding_free.collator(collator) if unpadded else collator,
    )
    dpo_trainer.remove_callback(PrinterCallback)
    evaluated = fitting.row_sums(dpo_trainer, 2)
    return dpo_trainer


def starting_model(start: Path, settings: Dpo, device: loading.Device) -> Any:
    """Return the policy before its first step."""
    if settings.weights == "all":
        return loading.plain(start, "float32", device)
    return adapters.new(loading.plain(start, device.dtype, device), settings)


def _merge(start: Path, final: Path, device: loading.Device) -> None:
    """Replace the adapter in `final` by a full model in float32."""
    if not launching.processes().first:
        return
    model = loading.attach(loading.plain(start, "float32", device), final, start)
    merged = model.merge_and_unload(safe_merge=True)
    for file in final.glob("adapter_*"):
        file.unlink()
    merged.save_pretrained(final)


def rows(
    tokenizer: Any,
    triples: Sequence[tuple[str, str, str]],
    *,
    prompt_limit: int,
    answer_limit: int,
    label: str,
) -> dict[str, list[Any]]:
    """Return token ids of (prompt, chosen, rejected), as columns.

    A prompt keeps its last `prompt_limit` tokens, an answer its first `answer_limit`. `length` is
    the tokens of prompt and longer answer together, by which pairs are grouped where they are
    padded. `altered` marks pairs that the tokenizer writes in another form. BadInput, which begins
    with `label`: as chat.answer_ids.
    """
    columns = "prompt_ids", "chosen_ids", "rejected_ids", "truncated", "length", "altered"
    table: dict[str, list[Any]] = {name: [] for name in columns}
    altered: set[int] = set()
    parted = []
    for answer in ("chosen", "rejected"):
        pairs = [(prompt, c if answer == "chosen" else r) for prompt, c, r in triples]
        parted.append(chat.answer_ids(tokenizer, pairs, f"{label}, {answer}"))
        altered |= {*chat.altered(tokenizer, pairs, parted[-1])}
    for number, ((prompt, good), (_, bad)) in enumerate(zip(*parted, strict=True)):
        longest = max(len(good), len(bad))
        row = (
            chat.cut_left(tokenizer, prompt, prompt_limit),
            good[:answer_limit],
            bad[:answer_limit],
            len(prompt) > prompt_limit or longest > answer_limit,
            min(len(prompt), prompt_limit) + min(longest, answer_limit),
            number in altered,
        )
        for name, value in zip(columns, row, strict=True):
            table[name].append(value)
    return table
