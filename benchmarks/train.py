"""How fast training is, and what it holds: `python -m benchmarks.train [--embedded | --memory]`.

A plain TRL script (padded batches, TRL's defaults) beside this project's training: the same rows,
model, seed, optimizer and steps; QLoRA and full SFT on Dolly's rows, DPO on HH-RLHF's. Each side
runs in a process of its own, the two in turn, --repeats times, and the medians count. The gain is
in the padding that is not computed: padded / real tokens of the plain script's batches is its
bound. DPO gains more: the plain script asks the reference in each step, ours once, in its set-up,
and not again in another run from the same start. Seconds are the clock's on a GPU, and there the
share of the measured bf16 matrix peak stands beside them; on a CPU they are those of the one thread
that computes, because other work on the machine then changes little.

--embedded: with the rows, batches and model size of the embedded profile. --deterministic: ours a
second time, with kernels that repeat to the bit. --memory: the peak of our step against the need
that preflight computes. The last line is one JSON object.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal
from unittest.mock import patch

from bezoar import params, world
from bezoar.models import loading
from bezoar.params import Dpo, GrownBase, Link, Sft, Training
from bezoar.preflight import gpu
from bezoar.rows import chat
from bezoar.rows.records import Message
from bezoar.sources import pretraining, readers
from bezoar.training import dpo, sft
from bezoar.training.runs import batching, fitting, memory
from bezoar.training.runs.storages import peak_of, storage_bytes

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared/data"
DOLLY = DATA / "dolly/databricks-dolly-15k.jsonl", ROOT / "data/fetch/dolly/seeds.jsonl"
HH_RLHF = (DATA / "hh_rlhf/helpful-base.test.jsonl",)
MODELS = DATA / "tiny_lm/stories260K-hf", ROOT / "models/fetch/base"
SHAPES: dict[str, dict[str, Any]] = {  # known without a config.json
    "open_llama_3b_v2": {
        "vocab_size": 32_000,
        "hidden_size": 3200,
        "intermediate_size": 8640,
        "num_hidden_layers": 26,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
    },
    "small": {
        "vocab_size": 2000,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 1024,
    },
}
Kind = Literal["qlora", "sft", "dpo"]
KINDS: tuple[Kind, ...] = ("qlora", "sft", "dpo")
LENGTH = 512  # tokens of a row of Dolly, at most
PROMPT, ANSWER = 384, 128  # tokens of a prompt and an answer of HH-RLHF, at most
BATCH = {"qlora": 64, "sft": 64, "dpo": 16}  # the paper's; a pair of DPO is two rows
RATE = {"qlora": 1e-3, "sft": 1e-4, "dpo": 2e-5}  # high enough for the losses to part
WAYS: tuple[tuple[str, Kind, str], ...] = (  # name, kind, weights of DPO
    ("qlora", "qlora", "all"),
    ("sft", "sft", "all"),
    ("dpo", "dpo", "all"),
    ("dpo_adapter", "dpo", "adapter"),
)
WEIGHED = (1, 256), (4, 256), (4, 768)  # rows at once and tokens of each, for --memory
GIB = 2**30


@dataclass(frozen=True)
class Case:
    """What both sides train: `rows`, a JSON Lines file of prompt and completion, or of prompt,
    chosen and rejected, in steps of which the first `warm` are not counted."""

    kind: Kind
    model: str
    rows: str
    how: dict[str, Any]
    amount: dict[str, Any]
    warm: int

    def settings(self) -> tuple[Any, Any]:
        """(how, amount) as bezoar.training takes them; DPO's are one."""
        if self.kind == "dpo":
            both = Dpo.model_validate(self.how)
            return both, both
        return Sft.model_validate(self.how), Training.model_validate(self.amount)

    @property
    def counted_as(self) -> memory.Kind:
        """As `memory.need` names it."""
        if self.kind == "dpo":
            return "dpo" if self.how["weights"] == "all" else "dpo_adapter"
        return "adapter" if self.kind == "qlora" else "all"


# --- the two sides, each in a process of its own --------------------------------------------------


def plain(case: Case, out: Path) -> tuple[Any, Callable[[], object]]:
    """(trainer, how to run it) as in TRL's documentation: a model's path, text, defaults but for
    the recipe's numbers."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    how, amount = case.settings()
    cuda = torch.cuda.is_available()
    told: dict[str, Any] = {
        "output_dir": str(out),
        "num_train_epochs": 1,
        "per_device_train_batch_size": amount.batch_size,
        "learning_rate": amount.learning_rate,
        "warmup_steps": amount.warmup_steps,
        "lr_scheduler_type": how.scheduler,
        "optim": how.optimizer,
        "seed": how.seed,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    if not cuda:  # TRL's defaults refuse a CPU (bf16) or crawl on it (gradient checkpointing)
        told |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    rows: Any = load_dataset("json", data_files=case.rows, split="train")
    given: dict[str, Any] = {"model": case.model, "train_dataset": rows}
    trainer: Any
    if case.kind == "dpo":
        trainer = DPOTrainer(
            args=DPOConfig(**told, beta=how.beta, max_length=gpu.tokens(amount)), **given
        )
        return trainer, trainer.train
    if case.kind == "qlora":
        given["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=how.quantization,
            bnb_4bit_use_double_quant=how.double_quantization,
            bnb_4bit_compute_dtype=torch.bfloat16 if cuda else torch.float32,
        )
        given["peft_config"] = LoraConfig(
            r=how.lora_r,
            lora_alpha=how.lora_alpha,
            lora_dropout=how.lora_dropout,
            target_modules=how.target_modules,
        )
    trainer = SFTTrainer(args=SFTConfig(**told, max_length=amount.max_length), **given)
    return trainer, trainer.train


def ours(case: Case, out: Path) -> tuple[Any, Callable[[], object]]:
    """(trainer, how to run it) as bezoar.training has it, but that no checkpoint is kept. What is
    computed of the rows stays beside them, for the next run."""
    how, amount = case.settings()
    model, device = Path(case.model), loading.device()
    split = batching.split(
        case.kind,
        out,
        device,
        model=model,
        kind=case.counted_as,
        settings=how,
        amount=amount,
        tokens=gpu.tokens(amount),
    )
    chosen = fitting.trainer_arguments(device, how, amount, split)
    chosen |= {"save_strategy": "no", "eval_strategy": "no"}
    tokenizer = loading.tokenizer(model)
    made: Any
    build: Any
    if case.kind == "dpo":
        start, build = dpo.starting_model(model, how, device), dpo.trainer
        limits = {"prompt_limit": how.max_prompt_tokens, "answer_limit": how.max_answer_tokens}
        made = partial(dpo.rows, tokenizer, **limits, label="rows")
    else:
        link = Link(weights="all" if case.kind == "sft" else "adapter", base="", start="", data="x")
        start, build = sft.starting_model(link, model, model, how, device), sft.trainer
        made = partial(sft.rows, tokenizer, limit=amount.max_length, label="rows")
    rows = [tuple(row.values()) for row in read(Path(case.rows))]
    kept = Path(case.rows).with_suffix("")
    tables = (
        fitting.table(kept / "train", device, partial(made, rows)),
        fitting.table(kept / "eval", device, partial(made, rows[:1])),  # there must be some
    )
    trainer = build(
        start, tokenizer, tables, settings=how, arguments=chosen, folder=out, device=device
    )
    return trainer, lambda: fitting.fit(
        trainer, out, case.kind, seed=how.seed, patience=None, evaluations=1
    )


def measure(case: Case, side: str) -> dict[str, Any]:
    """Train one side and tell: seconds of the counted steps, of the set-up and of both with the
    warm-up; (real, padded) tokens of each step; the mean loss; peak memory in bytes; rows at once
    and whether they are checkpointed."""
    loading.quiet()
    import torch
    import trl.trainer.dpo_trainer
    import trl.trainer.sft_trainer  # noqa: F401  imports are no one's set-up
    from transformers import TrainerCallback

    loading.device()  # sets the threads, of both sides
    cuda = torch.cuda.is_available()
    # one thread computes on a CPU: its own time is no longer where the machine is busy
    clock = time.perf_counter if cuda else time.process_time
    batches: list[tuple[int, int]] = []
    moments: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes when the first step begins and when each ends."""

        def on_evaluate(self, *_: Any, **__: Any) -> None:
            batches.clear()  # ours evaluates before the first step

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not moments:
                moments.append(clock())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if cuda:
                torch.cuda.synchronize()
            moments.append(clock())

    with tempfile.TemporaryDirectory() as out:
        began = clock()
        if side == "exact":
            case.how["deterministic"] = True
        trainer, run = (plain if side == "plain" else ours)(case, Path(out))
        collate = trainer.data_collator

        def counted(examples: Any) -> Any:
            batch = collate(examples)
            batches.append((int(batch["attention_mask"].sum()), batch["attention_mask"].numel()))
            return batch

        trainer.data_collator = counted
        trainer.add_callback(Clock)
        run()
    rows, turns = trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps
    steps = [batches[n : n + turns] for n in range(0, len(batches), turns)]
    resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": moments[-1] - moments[case.warm],
        "setup": moments[0] - began,
        "whole": moments[-1] - began,
        "tokens": [[sum(part) for part in zip(*step, strict=True)] for step in steps],
        "loss": next(row["train_loss"] for row in trainer.state.log_history if "train_loss" in row),
        "peak": torch.cuda.max_memory_allocated() if cuda else resident,
        "rows": rows,
        "checkpointing": bool(trainer.args.gradient_checkpointing),
    }


# --- memory, in a process of its own --------------------------------------------------------------


def weigh(case: Case) -> dict[str, Any]:
    """{"need", "peak"}: the bytes that preflight says a step of ours takes, and what torch held at
    the peak of the second one, which finds the optimizer's state and adds to gradients."""
    loading.quiet()
    import torch
    from transformers import TrainerCallback

    how, amount = case.settings()
    device = loading.device()
    cuda = device.name == "cuda"
    found: list[int] = []
    within: Any = nullcontext() if cuda else peak_of()

    class Scales(TrainerCallback):  # type: ignore[misc]
        """Weighs the second step."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1 and cuda:
                torch.cuda.reset_peak_memory_stats()
            elif state.global_step == 1:
                found.append(storage_bytes(lasting(trainer)))
                within.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2 and cuda:
                found.append(torch.cuda.max_memory_allocated())
            elif state.global_step == 2:
                within.__exit__(None, None, None)
                found.append(within.peak)

    with tempfile.TemporaryDirectory() as out, nullcontext() if cuda else as_on_a_gpu():
        trainer, run = ours(case, Path(out))
        trainer.add_callback(Scales)
        run()
        need = memory.need(
            memory.Shape.read(Path(case.model) / "config.json"),
            case.counted_as,
            rows=trainer.args.per_device_train_batch_size,
            tokens=gpu.tokens(amount),
            checkpointing=trainer.args.gradient_checkpointing,
            optimizer=how.optimizer,
            lora_r=how.lora_r,
            target_modules=how.target_modules,
            compute_bytes=device.bytes,
            padded=not device.varlen,
        )
    return {"need": need.total, "peak": sum(found)}


def lasting(trainer: Any) -> list[Any]:
    """The tensors that outlive a step: weights, the scales of 4-bit ones, optimizer state."""
    import torch

    scales = [m.weight.quant_state for m in trainer.model.modules() if hasattr(m, "quant_state")]
    return [
        *trainer.model.parameters(),
        *(part for scale in scales for part in (scale.absmax, scale.state2.absmax)),
        *(
            part
            for state in trainer.optimizer.optimizer.state.values()
            for part in state.values()
            if torch.is_tensor(part)
        ),
    ]


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """On a CPU, what takes memory on a GPU: a dropout that keeps a mask and not the numbers, a head
    that works on its tile and not on copies (here: on a small one)."""
    import torch
    from trl.trainer import utils

    def dropout(x: Any, p: float, training: bool, inplace: bool) -> Any:
        return torch.native_dropout(x, p, training)[0] if training else x

    with (
        patch.object(torch.nn.functional, "dropout", dropout),
        patch.object(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 32),
        patch.object(memory, "TILE_WORDS", 32),
    ):
        yield


# --- rows and models ------------------------------------------------------------------------------


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a JSON Lines file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def asked(text: str) -> str:
    """The prompt of one turn."""
    return chat.prompt([Message(role="user", content=text)])


def instructions(path: Path | None) -> list[tuple[str, str]]:
    """(prompt, completion) of Dolly's rows at `path`; None: of the world's."""
    rows = read(path) if path else [seed.model_dump() for seed in world.seeds(3000, 7)]
    return [
        (asked(chat.with_input(row["instruction"], row["context"])), row["response"])
        for row in rows
    ]


def preferences(path: Path | None) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) of HH-RLHF's rows at `path`; None: of the world's."""
    pairs: Any = world.pairs(3000, 7)[0]
    if path:
        file = readers.File(path, "HH-RLHF", "MIT")
        tables = readers.read("hh_rlhf", [file], None, 1, str(path)).tables
        pairs = [pair for table in tables.values() for pair in table]
    return [chat.from_pair(pair) for pair in pairs]


def drawn(rows: Sequence[Any], tokenizer: Any, amount: Any, count: int) -> list[Any]:
    """`count` of the rows, cut so that both sides make the same token ids of them: TRL knows no
    limit of a prompt and of an answer, so that pairs are cut here, as text, with room for BOS and
    EOS. Rows that leave no room for an answer are passed over."""
    shuffled = random.Random("train").sample(list(rows), len(rows))
    kept: list[Any] = []
    for n in range(0, len(rows), count):
        some = shuffled[n : n + count]
        if isinstance(amount, Dpo):
            before, after = amount.max_prompt_tokens, amount.max_answer_tokens
            places = slice(1 - before, None), slice(after - 1), slice(after - 1)
            some = [tuple(map(partial(cut, tokenizer), row, places)) for row in some]
            limits = {"prompt_limit": before, "answer_limit": after}
            made = dpo.rows(tokenizer, some, **limits, label="rows")
            fits = [not over for over in made["truncated"]]
        else:
            parted = chat.answer_ids(tokenizer, some, "rows")
            fits = [len(ids) < amount.max_length for ids, _ in parted]
        kept += [row for row, fit in zip(some, fits, strict=True) if fit]
        if len(kept) >= count:
            return kept[:count]
    sys.exit(f"--steps: {count} rows are wanted, {len(kept)} can be used; take fewer steps")


def cut(tokenizer: Any, text: str, tokens: slice) -> str:
    """The part of `text` that these of its tokens stand for."""
    told = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    places = told["offset_mapping"][tokens]
    return text[places[0][0] : places[-1][1]]


def randomly(shape: str, tokenizer: Path, out: Path) -> Path:
    """A model at `out` of random weights: of one of SHAPES, or of a folder's config.json; with the
    tokenizer of another folder."""
    loading.quiet()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    told = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    device = loading.device()
    config: Any = (
        LlamaConfig(**SHAPES[shape])
        if shape in SHAPES
        else AutoConfig.from_pretrained(shape, trust_remote_code=False)
    )
    if config.vocab_size < len(told):
        sys.exit(f"--model: {config.vocab_size} words, and the tokenizer has {len(told)}")
    torch.manual_seed(1)
    with torch.device(device.place):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, device.dtype))
    model.save_pretrained(out)
    told.save_pretrained(out)
    del model
    torch.cuda.empty_cache()  # the sides want the memory
    return out


def grown(out: Path) -> Path:
    """The embedded profile's base: the one that `dvc repro` left, or one as large at `out`."""
    if (MODELS[1] / "config.json").exists():
        return MODELS[1]
    size = params.load(ROOT, "embedded").fetch.base
    assert isinstance(size, GrownBase)
    pretraining.grow(world.corpus(1000, 7), size.model_copy(update={"steps": 1}), 7, out)
    return out


# --- the run --------------------------------------------------------------------------------------


def recipe(kind: Kind, embedded: bool, **change: Any) -> tuple[Any, Any]:
    """(how, amount) of params.yaml, the embedded profile's or with the paper's batches, and what is
    to `change`. Without dropout, which falls on other tokens where there is no padding: the losses
    are to be the same."""
    told = params.load(ROOT, "embedded")
    change = {"epochs": 1, "warmup_steps": 0, "lora_dropout": 0.0, "links": {}} | change
    if not embedded:
        usual = {"batch_size": BATCH[kind], "micro_batch_size": "auto", "max_length": LENGTH}
        usual |= {"max_prompt_tokens": PROMPT, "max_answer_tokens": ANSWER}
        change = usual | {"learning_rate": RATE[kind]} | change

    def changed(section: Any) -> Any:
        known = type(section).model_fields
        return section.model_copy(update={k: v for k, v in change.items() if k in known})

    if kind == "dpo":
        return (changed(told.dpo),) * 2
    return changed(told.sft), changed(told.sft.links["lamini" if kind == "qlora" else "hh_rlhf"])


def case(
    kind: Kind,
    rows: Sequence[Any],
    chosen: tuple[Any, Any],
    *,
    model: Path,
    folder: Path,
    warm: int = 0,
) -> Case:
    """What is to be trained as `recipe` has `chosen`; its rows are then in a file in `folder`."""
    names = ("prompt", "chosen", "rejected") if kind == "dpo" else ("prompt", "completion")
    path = folder / f"{kind}.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(dict(zip(names, row, strict=True))) + "\n")
    how, amount = (part.model_dump() for part in chosen)
    return Case(kind, str(model), str(path), how, amount, warm)


def fresh(command: str, case: Case, folder: Path) -> dict[str, Any]:
    """What `measure` (plain, ours) or `weigh` tells of a case, in a new process."""
    (folder / "case.json").write_text(json.dumps(asdict(case)), encoding="utf-8")
    env = {"BEZOAR_WORK": str(folder), "HF_DATASETS_CACHE": str(folder), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train", "--one", command, str(folder / "case.json")],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def compare(
    case: Case, repeats: int, folder: Path, *, exact: bool, peak: float | None
) -> dict[str, float]:
    """Measure both sides in turn, print a row of each, and return the numbers that sum it up;
    `exact`: ours with deterministic kernels too; `peak` as `matrix_peak` gives it, None without a
    GPU."""
    sides = ("plain", "ours", "exact") if exact else ("plain", "ours")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, told in runs.items():
            told.append(fresh(side, case, folder))
    steps = {side: told[0]["tokens"] for side, told in runs.items()}
    real = [tokens for tokens, _ in steps["plain"]]
    if real != [tokens for tokens, _ in steps["ours"]]:
        sys.exit(f"{case.kind}: the two sides were given other tokens: {steps}")
    counted = sum(real[case.warm :])
    speeds, losses, shares = {}, {}, {}
    for side, told in runs.items():
        took = median(run["seconds"] for run in told)
        speeds[side], losses[side] = counted / took, told[0]["loss"]
        later = [run["setup"] for run in told[1:]]
        row = f"{case.kind:6} {side:6} {speeds[side]:9,.0f} {took:8.2f} {told[0]['setup']:7.1f}"
        row += f" {median(later):7.1f}" if later else "       -"
        row += f" {max(run['peak'] for run in told) / GIB:7.2f} {losses[side]:8.4f}"
        row += f" {told[0]['rows']:5}"
        if peak:
            shares[side] = work(case, side, told[0], counted) / took / peak
            row += f" {shares[side]:5.0%}"
        print(row, flush=True)
    found = {
        "ratio": speeds["ours"] / speeds["plain"],
        "bound": sum(padded for _, padded in steps["plain"][case.warm :]) / counted,
        "loss_gap": abs(losses["ours"] - losses["plain"]) / losses["plain"],
    }
    if exact:
        found["exact"] = speeds["exact"] / speeds["ours"]
    if peak:
        found["peak_share"] = shares["ours"]
    share = found["ratio"] / found["bound"]
    print(
        f"{case.kind:6} ours / plain {found['ratio']:.2f}, bound {found['bound']:.2f} "
        f"({share:.0%} of it), loss gap {found['loss_gap']:.1e}"
    )
    if case.kind == "dpo":
        wholes = {side: [run["whole"] for run in told] for side, told in runs.items()}
        later = wholes["ours"][1:]
        again = f", the next from the same start {median(later):.1f} s" if later else ""
        print(
            f"dpo    whole, set-up and reference too: plain {median(wholes['plain']):.1f} s, "
            f"ours {wholes['ours'][0]:.1f} s{again}"
        )
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def work(case: Case, side: str, told: dict[str, Any], tokens: int) -> float:
    """Floating-point operations of a side on real tokens; none on padding."""
    shape = memory.Shape.read(Path(case.model) / "config.json")
    kind = "all" if (case.kind, side) == ("dpo", "ours") else case.counted_as  # no reference
    rows = case.amount["batch_size"] * (len(told["tokens"]) - case.warm)
    row = tokens // (2 * rows if case.kind == "dpo" else rows)
    return memory.flops(shape, kind, tokens, told["checkpointing"], row=row)


def matrix_peak() -> float | None:
    """Operations a second of a large product of bfloat16 matrices here; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    size, times, seconds = 8192, 20, []
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            a @ a
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return times * 2 * size**3 / min(seconds)


def speed(given: argparse.Namespace, model: Path, folder: Path) -> dict[str, Any]:
    """Both sides' rows of every kind, and its numbers."""
    loading.quiet()
    peak = matrix_peak()
    if peak:
        print(f"bf16 matrix peak {peak / 1e12:.0f} TFLOP/s")
    header = "                  tok/s  seconds  set-up   again     GiB     loss  rows at once"
    print(f"{header}, share of the peak" if peak else header)
    tokenizer, found = loading.tokenizer(model), {}
    for kind in given.kinds:
        own = {"batch_size": given.batch, "micro_batch_size": "auto"} if given.batch else {}
        chosen = recipe(kind, given.embedded, **own)
        file = given.hh if kind == "dpo" else given.dolly
        source: Any = preferences if kind == "dpo" else instructions
        count = chosen[1].batch_size * (given.warm + given.steps)
        rows = drawn(source(None if given.embedded else file), tokenizer, chosen[1], count)
        told = case(kind, rows, chosen, model=model, folder=folder, warm=given.warm)
        found[kind] = compare(told, given.repeats, folder, exact=given.deterministic, peak=peak)
    return found


def memories(model: Path, folder: Path) -> dict[str, Any]:
    """Every kind's peak / need, for rows at once and tokens of each."""
    print("              rows  tokens  need GiB  peak GiB  peak / need")
    found: dict[str, Any] = {}
    for name, kind, weights in WAYS:
        for rows, tokens in WEIGHED:
            chosen = recipe(
                kind,
                embedded=False,
                weights=weights,
                lora_dropout=0.05,  # what is counted
                batch_size=2 * rows,  # the second half adds to the gradients of the first
                micro_batch_size=rows,
                max_length=tokens,
                max_prompt_tokens=8,
                max_answer_tokens=tokens - 8,
            )
            texts = [(asked("?"), *["of " * tokens] * (2 if kind == "dpo" else 1))] * 4 * rows
            with tempfile.TemporaryDirectory(dir=folder) as own:
                one = case(kind, texts, chosen, model=model, folder=Path(own))
                told = fresh("weigh", one, Path(own))
            share = told["peak"] / told["need"]
            sizes = f"{told['need'] / GIB:9.3f} {told['peak'] / GIB:9.3f}"
            print(f"{name:12} {rows:5} {tokens:7} {sizes} {share:12.2f}", flush=True)
            found.setdefault(name, {})[f"{rows}x{tokens}"] = round(share, 3)
    return found


def main() -> None:
    """Measure, print a table, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a model's folder; with --random-init also a known shape")
    parser.add_argument("--random-init", action="store_true", help="its shape with random weights")
    parser.add_argument("--tokenizer", type=Path, help="the folder that --random-init takes it of")
    parser.add_argument("--dolly", type=Path, default=next(filter(Path.exists, DOLLY), None))
    parser.add_argument("--hh", type=Path, default=next(filter(Path.exists, HH_RLHF), None))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--batch", type=int, help="rows a step; dpo: pairs")
    parser.add_argument("--steps", type=int, default=10, help="that are counted")
    parser.add_argument("--warm", type=int, default=2, help="steps before them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        what, path = given.one
        one = Case(**json.loads(Path(path).read_text(encoding="utf-8")))
        print(json.dumps(weigh(one) if what == "weigh" else measure(one, what)))
        return
    usual = next(filter(Path.exists, MODELS), given.tokenizer)
    grows = given.embedded and given.model is None and not given.random_init
    if usual is None and not grows and (given.model is None or given.random_init):
        parser.error("--model, --tokenizer: none here; give a model's folder")
    if not (given.embedded or given.memory) and not (given.dolly and given.hh):
        parser.error("--dolly, --hh: no rows here; give a file of each, or --embedded")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["BEZOAR_WORK"] = name
        if given.random_init or (given.memory and given.model is None):
            shape = given.model or "small"
            own = Path(shape) if (Path(shape) / "tokenizer.json").exists() else usual
            model = randomly(shape, given.tokenizer or own, folder / "model")
        elif given.embedded and given.model is None:
            model = grown(folder / "model")
        else:
            model = Path(given.model or usual).resolve()
        print(json.dumps(memories(model, folder) if given.memory else speed(given, model, folder)))


if __name__ == "__main__":
    main()
