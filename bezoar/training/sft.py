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
    how: Sft,
    amount: Training,
    models: Path,
) -> fitting.Run | None:
    """Train one link on (prompt, completion) pairs and leave it at `models`/sft/`name`.

    The loss is on the completion and its end-of-sequence token. `link.weights` adapter: QLoRA, on
    `link.base` quantised, carried on from the adapter `link.start` (OpenBezoar 3.3); all: every
    parameter of `link.start` (3.4). `amount.runs` at most, each with an optimizer and a schedule
    of its own, the next one where the losses of the last have not diverged (Table 5). A killed run
    continues from its newest whole checkpoint and ends with the same bytes. `amount.eval_limit` of
    the held-out rows are evaluated, spread over all. On several processes the first alone returns
    a run. BadInput: nothing to learn from, a start that does not fit, a loss that is lost, a full
    disk.
    """
    base, start, label = models / link.base, models / link.start, f"sft {name}"
    loading.quiet()
    device = loading.device()
    general = {k: v for k, v in how.model_dump().items() if not isinstance(v, dict)}
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
                how=how,
                amount=amount,
                tokens=amount.max_length,
            )
            tokenizer = loading.tokenizer(source)
            limit = min(amount.max_length, loading.positions(source))
            held_out = fitting.some(held_out, amount.eval_limit)

            def made(told: Sequence[tuple[str, str]], what: str) -> dict[str, list[Any]]:
                found = rows(tokenizer, told, limit=limit, where=f"{label}: {what} rows")
                if not found["input_ids"]:
                    raise BadInput(
                        f"{label}: none of the {len(told)} {what} rows has room for an answer "
                        f"within {limit} tokens; raise sft.links.{name}.max_length or shorten the "
                        "rows"
                    )
                return found

            taught = fitting.table(folder / "train", device, lambda: made(train, "training"))
            asked = fitting.table(folder / "eval", device, lambda: made(held_out, "held-out"))
            settings = fitting.settings(device, how, amount, split)
            patience = how.patience if how.keep == "best" else None

            def run(part: Path, weights: Path) -> fitting.History:
                if not fitting.ended(part):
                    to_fit = trainer(
                        starting_model(link, base, weights, how, device),
                        tokenizer,
                        (taught, asked),
                        how=how,
                        settings=settings,
                        folder=part,
                        device=device,
                    )
                    fitting.fit(
                        to_fit,
                        part,
                        label,
                        seed=how.seed,
                        patience=patience,
                        evaluations=how.evaluations,
                    )
                return fitting.history(part)

            runs = [run(folder / "run-1", start)]
            while len(runs) < amount.runs and not runs[-1].diverged(how.divergence):
                runs.append(run(folder / f"run-{len(runs) + 1}", runs[-1].checkpoint))
            kept, epoch = fitting.kept(runs, how.keep)
            fitting.keep(folder, kept, tokenizer, base)
            numbers = _told(runs, epoch, (taught, asked), (train, held_out))
            fitting.warn_of_altered(label, numbers["metrics"])
            fitting.finish(folder, **numbers)
        return fitting.publish(folder, models / "sft" / name)


def _told(
    runs: Sequence[fitting.History], kept: int, rows: Sequence[Any], told: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    """A link's numbers and its two curves, over all its runs."""
    losses = [loss for run in runs for loss in run.losses]
    taught, asked = rows
    whole = len(taught) + len(asked)
    metrics = {
        "eval_loss_start": runs[0].before["eval_loss"],
        "eval_loss_end": losses[-1],
        "eval_loss_best": min(losses),
        "epochs": len(losses),
        "kept_epoch": kept,
        "train_rows": len(taught),
        "eval_rows": len(asked),
        "dropped_rows": sum(map(len, told)) - whole,
        "truncated_share": (sum(taught["truncated"]) + sum(asked["truncated"])) / whole,
        "altered_rows": sum(taught["altered"]) + sum(asked["altered"]),
        "train_tokens": sum(map(len, taught["input_ids"])),
        "runs": {
            str(number): {
                "epochs": len(run.losses),
                "eval_loss_start": run.before["eval_loss"],
                "eval_loss_end": run.losses[-1],
            }
            for number, run in enumerate(runs, 1)
        },
    }
    curve, held, steps, epochs = [], [], 0, 0
    for number, run in enumerate(runs, 1):
        place = {"run": number}
        for e in run.log:
            if "loss" in e:
                at = {"step": steps + e["step"], "epoch": epochs + e["epoch"]}
                curve.append(place | at | {k: e[k] for k in ("loss", "learning_rate")})
        held.append(place | {"epoch": epochs, "loss": run.before["eval_loss"]})
        for e in run.evaluated:
            held.append(place | {"epoch": _whole(epochs + e["epoch"]), "loss": e["eval_loss"]})
        steps, epochs = curve[-1]["step"], epochs + len(run.losses)
    return {"metrics": metrics, "train": curve, "held_out": held}


def _whole(epochs: float) -> float:
    """A number of whole epochs as one without decimals."""
    return int(epochs) if float(epochs).is_integer() else epochs


def trainer(
    model: Any,
    tokenizer: Any,
    rows: tuple[Any, Any],
    *,
    how: Sft,
    settings: dict[str, Any],
    folder: Path,
    device: loading.Device,
) -> Any:
    """TRL's trainer on rows, to learn from and held out, that are token ids and labels already (see
    `rows`). A model with an adapter trains that, any other all that it has. `settings` as
    fitting.settings gives them; checkpoints go into `folder`."""
    import torch
    from peft import PeftModel
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    class Trainer(SFTTrainer):  # type: ignore[misc]
        """Held-out loss per token: TRL's own is a mean over batches, whatever they hold."""

        def evaluation_loop(self, *args: Any, **more: Any) -> Any:
            done = super().evaluation_loop(*args, **more)
            sums, tokens = evaluated(len(self.eval_dataset))[:, 0].T
            done.metrics["eval_loss"] = float(-sums.sum() / tokens.sum())
            return done

    weights = model.named_parameters() if isinstance(model, PeftModel) else ()
    exact = {name: p.data.clone() for name, p in weights if p.requires_grad}
    collator = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    whole = padding_free.possible(model.config, device)
    if not whole:  # the same rows a step, those of like length at once
        settings = settings | {"train_sampling_strategy": "batch_rebalance"}
    made: Any = Trainer(
        model=model,
        args=fitting.arguments(
            SFTConfig,
            folder,
            **settings,
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
        ),
        train_dataset=rows[0],
        eval_dataset=rows[1],
        processing_class=tokenizer,
        data_collator=padding_free.collator(collator) if whole else collator,
    )
    made.remove_callback(PrinterCallback)
    # TRL rounds a 4-bit model's adapter to bfloat16. That loses small updates, changes the adapter
    # that is carried on, and makes a resumed run differ: peft loads it back as float32.
    for name, parameter in made.model.named_parameters():
        if name in exact:
            parameter.data = exact[name].to(torch.float32)
    if whole:
        padding_free.attach(made.model)
    if how.neftune_alpha is not None:
        _neftune(made.model, how.neftune_alpha)
    evaluated = fitting.row_sums(made, 1)
    return made


def _neftune(model: Any, alpha: float) -> None:
    """Noise on the embeddings while training: uniform, alpha / sqrt(L d) at most for a row of L
    tokens of d numbers (NEFTune, arXiv 2310.05914, algorithm 1). transformers' own counts the
    padding into L, and all rows of a batch where there is none."""
    import torch
    from peft import PeftModel

    backbone = (model.get_base_model() if isinstance(model, PeftModel) else model).base_model

    def disturb(module: Any, args: Any, asked: dict[str, Any]) -> Any:
        if not module.training:
            return None
        if "cu_seq_lens_q" in asked:
            lengths = asked["cu_seq_lens_q"].diff()
            lengths = lengths.repeat_interleave(lengths)[None, :, None]
        else:
            lengths = asked["attention_mask"].sum(1)[:, None, None]
        plain = module.get_input_embeddings()(asked.pop("input_ids"))
        # not 1 / sqrt, which MKL rounds otherwise on an AMD CPU than on an Intel one
        most = alpha * (lengths * plain.shape[-1]).rsqrt()
        asked["inputs_embeds"] = plain + torch.empty_like(plain).uniform_(-1, 1) * most
        return args, asked

    backbone.register_forward_pre_hook(disturb, with_kwargs=True)


def starting_model(link: Link, base: Path, start: Path, how: Sft, device: "loading.Device") -> Any:
    """What a run starts from: the full model at `start`; or the quantised base with a trainable
    adapter, a new one or the one at `start`."""
    if link.weights == "all":
        return loading.plain(start, "float32", device)
    model = loading.quantised(base, how, device)
    if start != base:
        return loading.attach(model, start, base, trainable=True)
    return adapters.new(model, how, how.lora_dropout)


def rows(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], *, limit: int, where: str
) -> dict[str, list[Any]]:
    """Return token ids and labels of the (prompt, answer) rows with room for some of the answer.

    A row longer than `limit` tokens keeps its start, so it does not end in EOS. `altered` marks
    rows that the tokenizer writes in another form. BadInput, on `where`: as chat.answer_ids."""
    columns = "input_ids", "labels", "truncated", "altered"
    table: dict[str, list[Any]] = {name: [] for name in columns}
    parted = chat.answer_ids(tokenizer, pairs, where)
    altered = {*chat.altered(tokenizer, pairs, parted)}
    for number, (prompt, answer) in enumerate(parted):
        if len(prompt) < limit:
            table["input_ids"].append((prompt + answer)[:limit])
            table["labels"].append(([IGNORED] * len(prompt) + answer)[:limit])
            table["truncated"].append(len(prompt + answer) > limit)
            table["altered"].append(number in altered)
    return table
