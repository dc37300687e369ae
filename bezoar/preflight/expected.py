"""The time and the money that a run will take, each from a stated assumption."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, fsum
from pathlib import Path

from bezoar.llm import budget
from bezoar.llm.ledger import Ledger
from bezoar.params import Anthropic, Dpo, FurtherServed, OpenAI, Params, Training, World
from bezoar.preflight import data, forecast, gpu
from bezoar.preflight.findings import Finding
from bezoar.preflight.forecast import Row
from bezoar.preflight.gpu import Fit
from bezoar.preflight.machine import Machine
from bezoar.report import lineage, paper
from bezoar.training.runs import memory
from bezoar.training.runs.memory import Shape

# Dense bf16 matrix TFLOP/s with sums in float32 (T4 and V100: fp16), as NVIDIA's data sheets and
# architecture papers give them: half of a number that is given with sparsity
PEAKS = {
    "H100": 989, "H100 PCIe": 756, "H200": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125,
    "RTX 4090": 165, "RTX 3090": 71, "T4": 65, "V100": 125,
}  # fmt: skip
EXAMPLE = "H100"  # for which time is told where there is no GPU
# of the peak, that a trainer of transformers gets out of large rows; ours, 25-35 % are common
SHARE = 0.3
# Tokens a second of one reply under way; ours: a 40 B model on one 80 GB GPU with some tens of
# requests at once, and hosted models are seldom slower
STREAM = 20
# Seconds in which a model of some 3 B writes a token for all rows at once; ours: transformers takes
# about a millisecond a layer, whatever the GPU
STEP = 0.03
QUESTIONS = 80  # of MT-Bench
BATCH_HOURS = 24  # OpenAI's and Anthropic's promise for a batch
# Mean tokens of a row, four bytes a token: the chat template, the instruction and its input as
# bezoar.forecast measures them; the teacher's answer comes on top
TEMPLATE = 50
PROMPTS = {
    "lamini": TEMPLATE + (forecast.INSTRUCTION + forecast.CONTEXT * forecast.CONTEXTS) / 4,
    "evol_instruct": TEMPLATE + (forecast.INSTRUCTION + forecast.CONTEXT * forecast.CONTEXTS) / 4,
    "orca": TEMPLATE + forecast.QUERY / 4,
}
PAIR = TEMPLATE + 200  # measured: 1,000 rows of helpful-base have 799 bytes
PAIRS = 160_800  # rows of hh-rlhf's training files
TRAIN = 5 / 9  # OpenBezoar 3.4: the share of pairs that is trained on


@dataclass(frozen=True)
class Duration:
    """A stage: what it goes through, and seconds; or what is to be said `instead`."""

    stage: str
    work: str
    seconds: float
    instead: str = ""


def money(p: Params, asked: Sequence[Row]) -> list[Finding]:
    """What the forecast comes to beside budget_usd, with what was spent under its name before: a
    finding for each cap that it passes."""
    by_stage: dict[str, list[Row]] = {}
    for row in asked:
        by_stage.setdefault(row.stage, []).append(row)
    stages = [forecast.total(rows)._replace(stage=stage) for stage, rows in by_stage.items()]
    dearest, total = max(stages, key=lambda row: row.usd), forecast.total(asked)
    most = None if total.most is None else max(row.most or 0.0 for row in stages)
    spent = fsum(usd for bill, usd in Ledger().spent.items() if bill.run == budget.run_id(p))
    caps = p.budget_usd
    return [
        _money(p, "stage", caps.stage, dearest._replace(most=most), 0.0),
        _money(p, "run", caps.run, total._replace(stage="all stages"), spent),
    ]


def _money(p: Params, name: str, cap: float | None, row: Row, spent: float) -> Finding:
    """Set what `row` will cost beside one cap, of which `spent` is gone."""
    key = f"budget_usd.{name}"
    what = "nothing is paid for"
    if row.usd or row.most:
        top = "with no maximum" if row.most is None else f"{budget.about(row.most)} at most"
        what = f"about {budget.about(row.usd)} for {row.stage}, {top}"
    if spent:
        gone = f"{budget.about(spent)} are spent under the name {p.budget_usd.name!r}"
        what += f"; {gone} (answers that were bought cost nothing again)"
    if cap is None:
        return Finding("ok", key, f"{what}; no cap is set")
    what += f"; the cap is {budget.dollars(cap)}"
    if row.usd > cap:
        do = f"raise profiles.{p.profile}.{key}, or ask for less"
        return Finding("stop", key, what, do)
    if row.most is None or spent + row.most > cap:
        do = "a run that reaches it stops, keeps what it bought and goes on once it is raised"
        return Finding("warning", key, what, do)
    return Finding("ok", key, what)


def too_long(p: Params, asked: Sequence[Row]) -> list[Finding]:
    """A finding for each stage and model with requests that do not fit and will not be sent."""
    found = []
    for row in asked:
        if row.too_long:
            share = row.too_long / (row.calls + row.too_long)
            what = (
                f"about {row.too_long:,} requests ({share:.1%}) do not fit {row.model} with their "
                "longest reply and will not be sent"
            )
            found.append(Finding("warning", row.stage, what, forecast.fit_more(p, row.stage)))
    return found


def asking(p: Params, asked: Sequence[Row]) -> list[Duration]:
    """How long the stages that ask models take, by endpoint (a panel's judges one after the other);
    none for embedded ones, which take seconds."""
    users: dict[str, tuple[str, ...]] = {
        "teacher": ("generate",),
        "judge": ("judge",),
        "grader": ("mt_grade", "mt_compare", "agreement"),
    }
    endpoints = [
        (who, stages, endpoint)
        for key, stages in users.items()
        for who, endpoint in p.llm.by_name(key).items()
    ]
    endpoints += [
        (f"models/{name}", ("mt_answer",), model.endpoint)
        for name, model in p.models.items()
        if isinstance(model, FurtherServed)
    ]
    found = []
    for who, stages, endpoint in endpoints:
        rows = [r for r in asked if r.stage.split()[0] in stages and r.model == endpoint.model]
        if not isinstance(endpoint, OpenAI | Anthropic):
            continue
        calls = sum(row.calls for row in rows)
        out = sum(row.tokens_out for row in rows)
        whole = out + sum(row.tokens_in for row in rows)
        work = f"{calls:,} replies of {endpoint.reply_tokens} tokens"
        if endpoint.mode == "batch":
            found.append(Duration(who, work, 0, f"<= {BATCH_HOURS} h a batch"))
            continue
        at_once = endpoint.concurrency * len(endpoint.addresses)
        limits = [out / (at_once * STREAM)]
        if endpoint.requests_per_minute:
            limits.append(60 * calls / endpoint.requests_per_minute)
        if endpoint.tokens_per_minute:
            limits.append(60 * whole / endpoint.tokens_per_minute)
        found.append(Duration(who, f"{work}, {at_once} at once", max(limits)))
    return found


def training(
    p: Params, shape: Shape, machine: Machine, fits: Sequence[Fit], asked: Sequence[Row]
) -> list[Duration]:
    """How long each link, with all the runs that it may have, and dpo take on this machine's GPUs;
    on an EXAMPLE where it has none."""
    speed = peak(machine.gpu.name if machine.gpu else EXAMPLE)
    processes, _ = gpu.spread(p, machine)
    found = []
    for fit in fits:
        stage, _, name = fit.stage.partition(" ")
        if stage not in ("sft", "dpo"):
            continue
        link = p.chain.get(name)
        amount: Training | Dpo = p.sft.links[name] if link else p.dpo
        kind: memory.Kind = link.weights if link else "dpo"
        rows, each = _mixed(p, f"sft/{name}" if link else f"dpo/{next(iter(p.aligned))}", asked)
        each = min(each, gpu.tokens(amount), shape.positions)
        runs = amount.runs if isinstance(amount, Training) else 1
        tokens = round(runs * amount.epochs * rows * each * (2 if kind == "dpo" else 1))
        flops = memory.flops(shape, kind, tokens, fit.checkpointing, row=round(each))
        what = "pairs" if kind == "dpo" else "rows"
        times = f"up to {runs} x {amount.epochs}" if runs > 1 else f"{amount.epochs}"
        work = f"{times} x {rows:,} {what} of {each:.0f} tokens: {flops / 1e15:,.1f} PFLOP"
        if speed:
            found.append(Duration(fit.stage, work, flops / (SHARE * speed * 1e12 * processes)))
        else:
            found.append(Duration(fit.stage, work, 0, "not known: no peak of this GPU is known"))
    return found


def answering(p: Params) -> list[Duration]:
    """How long the checkpoints and other models that run in this process take to answer MT-Bench,
    where every answer is as long as it may be."""
    questions = QUESTIONS if p.mt_answer.limit is None else min(QUESTIONS, p.mt_answer.limit)
    rounds = ceil(questions / p.mt_answer.batch_size)
    steps = 2 * rounds * p.mt_answer.max_new_tokens
    work = f"{2 * questions} answers of up to {p.mt_answer.max_new_tokens:,} tokens"
    return [
        Duration(f"mt_answer {name}", work, steps * STEP)
        for name, checkpoint in p.checkpoints.items()
        if not isinstance(p.further(checkpoint), FurtherServed)
    ]


def peak(kind: str) -> int | None:
    """TFLOP/s of a GPU by the name that its driver gives it: the longest in PEAKS whose words are
    all in it; None where there is none."""
    words = set(kind.replace("-", " ").split())
    fitting = [name for name in PEAKS if set(name.split()) <= words]
    return PEAKS[max(fitting, key=len)] if fitting else None


def _mixed(p: Params, weights: str, asked: Sequence[Row]) -> tuple[int, float]:
    """(rows to train on, mean tokens of each) of the last step to `weights`: those of its sets, and
    what it replays."""
    step = lineage.steps(p, weights)[-1]
    own = [_rows(p, source, asked) for source in step.data]
    rows = sum(number for number, _ in own)
    tokens = sum(number * each for number, each in own)
    if earlier := [_rows(p, source, asked) for source in step.replayed]:
        again = min(round(p.mix.replay * rows), sum(number for number, _ in earlier))
        rows += again
        tokens += again * sum(each for _, each in earlier) / len(earlier)  # as many of each
    return rows, tokens / max(1, rows)


def _rows(p: Params, source: str, asked: Sequence[Row]) -> tuple[int, float]:
    """(rows to train on, mean tokens of each) of data/`source`: as it is, where this profile made
    it; else as it may be expected to be."""
    stage, _, name = source.partition("/")
    file = Path("data", source, "train.jsonl")
    if stage == "filter" and name in p.own:
        return _own(p, name)
    if stage == "filter":
        if data.made(p, f"generate@{name}", "llm.teacher", file):
            return _measured(file)
        samples = next(row.calls for row in asked if row.stage == f"judge {name}")
        teacher = p.llm.teacher
        said = teacher.reply_tokens if isinstance(teacher, OpenAI | Anthropic) else TEMPLATE
        # of a scheme that the paper does not have, all rows may pass
        accepted = paper.SAMPLING[name].accepted_share if name in paper.SAMPLING else 1.0
        kept = samples * accepted * (1 - p.filter.eval_share)
        return round(kept), PROMPTS.get(name, PROMPTS["orca"]) + said
    if data.fetched(p, name):
        return _measured(file)
    wanted = getattr(p.fetch, name)
    most = wanted.rows if isinstance(wanted, World) else wanted.limit
    return round(TRAIN * min(most or PAIRS, PAIRS)), PAIR


def _own(p: Params, name: str) -> tuple[int, float]:
    """The user's own rows: those that were filtered, else all seeds that were fetched."""
    for file in (Path("data/filter", name, "train.jsonl"), Path("data/fetch", name, "seeds.jsonl")):
        if data.fetched(p, name) and file.exists():
            return _measured(file)
    wanted = getattr(p.fetch, name)
    most = wanted.rows if isinstance(wanted, World) else wanted.limit
    return most or 0, PROMPTS["orca"] + TEMPLATE


def _measured(file: Path) -> tuple[int, float]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    told = ("system", "instruction", "context", "response", "prompt", "chosen")
    size = sum(len(str(row[key])) for row in rows for key in told if key in row)
    return len(rows), TEMPLATE + size / 4 / max(1, len(rows))
