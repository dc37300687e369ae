"""Supervised fine-tuning: QLoRA links and full-parameter links (OpenBezoar, 3.3 and 3.4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bezoar import work
from bezoar.models import loading
from bezoar.params import Link, Sft, Training
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.training.runs import adapters, batching, fitting, launching, padding_free

IGNORED = -100  # the label of a token that the loss leaves out (torch's cross-entropy)


def sft(
    name: str,
    link: Link,
    train: Sequence[tuple[str, str]],
    held_out: Sequence[tuple[str, str]],
    *,
    settings: Sft,
    amount: Training,
    models: Path,
) -> fitting.Run | None:
    """Train one link on (prompt, completion) pairs and leave it at `models`/sft/`name`.

    The loss is on the completion and its end-of-sequence token. `link.weights` is "adapter" for
    QLoRA on `link.base` quantised, carried on from the adapter `link.start` (OpenBezoar 3.3). It is
    "all" to train every parameter of `link.start` (3.4).

    There are at most `amount.runs` runs, each with an optimizer and a schedule of its own. A
    further run starts only where the losses of the last have not diverged (Table 5). A killed run
    continues from its newest whole checkpoint and ends with the same bytes. `amount.eval_limit` of
    the held-out rows are evaluated, spread over all. On several processes the first alone returns a
    run.

    BadInput: nothing to learn from, a start that does not fit, a loss that is not finite or rises
    too far, a full disk.
    """
    base, start, label = models / link.base, models / link.start, f"sft {name}"
    loading.quiet()
    device = loading.device()
    general = {k: v for k, v in settings.model_dump().items() if not isinstance(v, dict)}
    key = fitting.key(
        __file__,
        adapters.__file__,
        padding_free.__file__,
        rows=[train, held_out],
        weights=[link.weights, work.content(base), work.content(start)],
        numbers=[general, amount.model_dump()],
        device=device,
    )
    with launching.scratch("sft", key) as folder:
        if not (folder / "result.json").exists():
            source = base if link.weights == "adapter" else start
            split = batching.split(
                label,
                folder,
                device,
                model=source,
                kind=link.weights,
                settings=settings,
                amount=amount,
                tokens=amount.max_length,
            )
            tokenizer = loading.tokenizer(source)
            limit = min(amount.max_length, loading.positions(source))
            held_out = fitting.some(held_out, amount.eval_limit)

            def tokenise(pairs: Sequence[tuple[str, str]], kind: str) -> dict[str, list[Any]]:
                columns = rows(tokenizer, pairs, limit=limit, label=f"{label}: {kind} rows")
                if not columns["input_ids"]:
                    raise BadInput(
                        f"{label}: none of the {len(pairs)} {kind} rows has room for an answer "
                        f"within {limit} tokens; raise sft.links.{name}.max_length or shorten the "
                        "rows"
                    )
                return columns

            train_table = fitting.table(
                folder / "train", device, lambda: tokenise(train, "training")
            )
            eval_table = fitting.table(
                folder / "eval", device, lambda: tokenise(held_out, "held-out")
            )
            arguments = fitting.trainer_arguments(device, settings, amount, split)
            patience = settings.patience if settings.keep == "best" else None

            def run(part: Path, weights: Path) -> fitting.History:
                if not fitting.has_ended(part):
                    sft_trainer = trainer(
                        starting_model(link, base, weights, settings, device),
                        tokenizer,
                        (train_table, eval_table),
                        settings=settings,
                        arguments=arguments,
                        folder=part,
                        device=device,
                    )
                    fitting.fit(
                        sft_trainer,
                        part,
                        label,
                        seed=settings.seed,
                        patience=patience,
                        evaluations=settings.evaluations,
                    )
                return fitting.history(part)

            runs = [run(folder / "run-1", start)]
            while len(runs) < amount.runs and not runs[-1].diverged(settings.divergence):
                runs.append(run(folder / f"run-{len(runs) + 1}", runs[-1].checkpoint))
            checkpoint, epoch = fitting.choose_checkpoint(runs, settings.keep)
            fitting.keep(folder, checkpoint, tokenizer, base)
            numbers = _results(runs, epoch, (train_table, eval_table), (train, held_out))
            fitting.warn_of_altered(label, numbers["metrics"])
            fitting.finish(folder, **numbers)
        return fitting.publish(folder, models / "sft" / name)


def _results(
    runs: Sequence[fitting.History],
    kept_epoch: int,
    tables: Sequence[Any],
    pairs: Sequence[Sequence[Any]],
) -> dict[str, Any]:
    """Return a link's metrics and its two curves, over all its runs.

    `tables` are the rows that were trained and evaluated on, `pairs` the same before any was
    dropped.
    """
    losses = [loss for run in runs for loss in run.losses]
    train_table, eval_table = tables
    row_count = len(train_table) + len(eval_table)
    metrics = {
        "eval_loss_start": runs[0].before["eval_loss"],
        "eval_loss_end": losses[-1],
        "eval_loss_best": min(losses),
        "epochs": len(losses),
        "kept_epoch": kept_epoch,
        "train_rows": len(train_table),
        "eval_rows": len(eval_table),
        "dropped_rows": sum(map(len, pairs)) - row_count,
        "truncated_share": (sum(train_table["truncated"]) + sum(eval_table["truncated"]))
        / row_count,
        "altered_rows": sum(train_table["altered"]) + sum(eval_table["altered"]),
        "train_tokens": sum(map(len, train_table["input_ids"])),
        "runs": {
            str(number): {
                "epochs": len(run.losses),
                "eval_loss_start": run.before["eval_loss"],
                "eval_loss_end": run.losses[-1],
            }
            for number, run in enumerate(runs, 1)
        },
    }
    curve, held_out, steps, epochs = [], [], 0, 0
    for number, run in enumerate(runs, 1):
        run_number = {"run": number}
        for e in run.log:
            if "loss" in e:
                position = {"step": steps + e["step"], "epoch": epochs + e["epoch"]}
                curve.append(run_number | position | {k: e[k] for k in ("loss", "learning_rate")})
        held_out.append(run_number | {"epoch": epochs, "loss": run.before["eval_loss"]})
        for e in run.evaluated:
            held_out.append(
                run_number | {"epoch": _as_integer(epochs + e["epoch"]), "loss": e["eval_loss"]}
            )
        steps, epochs = curve[-1]["step"], epochs + len(run.losses)
    return {"metrics": metrics, "train": curve, "held_out": held_out}


def _as_integer(epochs: float) -> float:
    """Return a number of whole epochs as an int, any other as it is."""
    return int(epochs) if float(epochs).is_integer() else epochs


def trainer(
    model: Any,
    tokenizer: Any,
    rows: tuple[Any, Any],
    *,
    settings: Sft,
    arguments: dict[str, Any],
    folder: Path,
    device: loading.Device,
) -> Any:
    """Return TRL's trainer on two tables of rows, to learn from and held out.

    The rows are token ids and labels already (see `rows`). If the model has an adapter, that alone
    is trained, otherwise all weights. `arguments` are those of fitting.trainer_arguments.
    Checkpoints go into `folder`.
    """
    import torch
    from peft import PeftModel
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    class Trainer(SFTTrainer):  # type: ignore[misc]
        """TRL's trainer with a held-out loss per token.

        TRL's own is a mean over batches, however many tokens these hold.
        """

        def evaluation_loop(self, *args: Any, **more: Any) -> Any:
            done = super().evaluation_loop(*args, **more)
            # Of each of N rows the sum of its answer's log-probabilities, and that answer's tokens.
            sums, tokens = evaluated(len(self.eval_dataset))[:, 0].T
            done.metrics["eval_loss"] = float(-sums.sum() / tokens.sum())
            return done

    weights = model.named_parameters() if isinstance(model, PeftModel) else ()
    exact = {name: p.data.clone() for name, p in weights if p.requires_grad}
    collator = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    unpadded = padding_free.possible(model.config, device)
    if not unpadded:
        # The rows of a step stay the same. Those of like length go through the model together.
        arguments = arguments | {"train_sampling_strategy": "batch_rebalance"}
    sft_trainer: Any = Trainer(
        model=model,
        args=fitting.trainer_config(
            SFTConfig,
            folder,
            **arguments,
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
        ),
        train_dataset=rows[0],
        eval_dataset=rows[1],
        processing_class=tokenizer,
        data_collator=padding_free.collator(collator) if unpadded else collator,
    )
    sft_trainer.remove_callback(PrinterCallback)
    # TRL rounds the adapter of a 4-bit model to bfloat16. That loses small updates, changes the
    # adapter that is carried on, and makes a resumed run differ, because peft loads it back as
    # float32.
    for name, parameter in sft_trainer.model.named_parameters():
        if name in exact:
            parameter.data = exact[name].to(torch.float32)
    if unpadded:
        padding_free.attach(sft_trainer.model)
    if settings.neftune_alpha is not None:
        _neftune(sft_trainer.model, settings.neftune_alpha)
    evaluated = fitting.row_sums(sft_trainer, 1)
    return sft_trainer


def _neftune(model: Any, alpha: float) -> None:
    """Add noise to the embeddings while training (NEFTune, arXiv 2310.05914, algorithm 1).

    The noise is uniform in +-alpha / sqrt(L d) for a row of L tokens with d numbers each.
    transformers' own version counts padding into L, and counts all rows of a batch as one where
    there is no padding.
    """
    import torch
    from peft import PeftModel

    backbone = (model.get_base_model() if isinstance(model, PeftModel) else model).base_model

    def disturb(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not module.training:
            return None
        # lengths broadcasts over the embeddings [rows, tokens, d]. Rows laid end to end are one
        # row [1, T, d], in which each token takes the length of its own row: [1, T, 1].
        if "cu_seq_lens_q" in kwargs:
            lengths = kwargs["cu_seq_lens_q"].diff()
            lengths = lengths.repeat_interleave(lengths)[None, :, None]
        else:
            lengths = kwargs["attention_mask"].sum(1)[:, None, None]
        plain = module.get_input_embeddings()(kwargs.pop("input_ids"))
        # rsqrt and not 1 / sqrt, which MKL rounds otherwise on an AMD CPU than on an Intel one
        most = alpha * (lengths * plain.shape[-1]).rsqrt()
        kwargs["inputs_embeds"] = plain + torch.empty_like(plain).uniform_(-1, 1) * most
        return args, kwargs

    backbone.register_forward_pre_hook(disturb, with_kwargs=True)


def starting_model(
    link: Link, base: Path, start: Path, settings: Sft, device: "loading.Device"
) -> Any:
    """Return the model that a run starts from.

    With `link.weights` all it is the full model at `start`. With adapter it is the quantised base
    with a trainable adapter. That is the one at `start`, or a new one where `start` is the base
    itself.
    """
    if link.weights == "all":
        return loading.plain(start, "float32", device)
    model = loading.quantised(base, settings, device)
    if start != base:
        return loading.attach(model, start, base, trainable=True)
    return adapters.new(model, settings, settings.lora_dropout)


def rows(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], *, limit: int, label: str
) -> dict[str, list[Any]]:
    """Return token ids and labels of (prompt, answer), as columns.

    Rows whose prompt leaves no room for an answer are dropped. A row longer than `limit` tokens
    keeps its start, so that it does not end in EOS. `altered` marks rows that the tokenizer writes
    in another form. BadInput, which begins with `label`: as chat.answer_ids.
    """
    columns = "input_ids", "labels", "truncated", "altered"
    table: dict[str, list[Any]] = {name: [] for name in columns}
    parted = chat.answer_ids(tokenizer, pairs, label)
    altered = {*chat.altered(tokenizer, pairs, parted)}
    for number, (prompt, answer) in enumerate(parted):
        if len(prompt) < limit:
            table["input_ids"].append((prompt + answer)[:limit])
            table["labels"].append(([IGNORED] * len(prompt) + answer)[:limit])
            table["truncated"].append(len(prompt + answer) > limit)
            table["altered"].append(number in altered)
    return table
