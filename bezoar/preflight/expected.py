"""The time and the money that a run will take, each from a stated assumption."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, fsum
from pathlib import Path

from bezoar.llm import budget
from bezoar.llm.ledger import Ledger
from bezoar.params import Anthropic, Dpo, FurtherServed, OpenAI, Params, Training, World
from bezoar.params.layout import profile_file
from bezoar.preflight import data, forecast, gpu
from bezoar.preflight.findings import Finding
from bezoar.preflight.forecast import Row
from bezoar.preflight.gpu import Fit
from bezoar.preflight.machine import Machine
from bezoar.report import paper
from bezoar.training import chain
from bezoar.training.runs import memory
from bezoar.training.runs.memory import Shape

# Dense bf16 matrix TFLOP/s with sums in float32 (T4 and V100: fp16), as NVIDIA's data sheets and
# architecture papers give them: half of a number that is given with sparsity
PEAKS = {
    "H100": 989,
    "H100 PCIe": 756,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10": 125,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "T4": 65,
    "V100": 125,
}
# The GPU for which time is estimated where there is none.
EXAMPLE = "H100"
# Ours: the share of the peak that a trainer of transformers gets out of large rows. 25-35 % are
# common.
SHARE = 0.3
# Tokens a second of one reply under way. Ours: a 40 B model on one 80 GB GPU with some tens of
# requests at once. Hosted models are seldom slower.
STREAM = 20
# Seconds in which a model of some 3 B writes a token for all rows at once. Ours: transformers takes
# about a millisecond a layer, whatever the GPU.
STEP = 0.03
QUESTIONS = 80  # of MT-Bench
BATCH_HOURS = 24  # OpenAI's and Anthropic's promise for a batch
# Mean tokens of a row, at four bytes a token: the chat template, and the instruction with its input
# as preflight/forecast.py measures them. The teacher's answer comes on top.
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
    """The time that a stage takes: its work in words, and seconds, or the words to show
    `instead`."""

    stage: str
    work: str
    seconds: float
    instead: str = ""


def money(p: Params, forecast_rows: Sequence[Row]) -> list[Finding]:
    """Return a finding for each cap of budget_usd. The cap of a stage is compared with the dearest
    stage. The cap of the run is compared with the sum, and with what was spent before under the
    budget's name."""
    by_stage: dict[str, list[Row]] = {}
    for row in forecast_rows:
        by_stage.setdefault(row.stage, []).append(row)
    stages = [forecast.total(rows)._replace(stage=stage) for stage, rows in by_stage.items()]
    # A recipe of own rows alone asks no model.
    stages = stages or [forecast.total([])]
    dearest, total = max(stages, key=lambda row: row.usd), forecast.total(forecast_rows)
    most = None if total.most is None else max(row.most or 0.0 for row in stages)
    spent = fsum(usd for bill, usd in Ledger().spent.items() if bill.run == budget.run_id(p))
    caps = p.budget_usd
    return [
        _compare_with_cap(p, "stage", caps.stage, dearest._replace(most=most), 0.0),
        _compare_with_cap(p, "run", caps.run, total._replace(stage="all stages"), spent),
    ]


def _compare_with_cap(p: Params, name: str, cap: float | None, row: Row, spent: float) -> Finding:
    """Compare the cost of `row` with one cap in US dollars, of which `spent` is gone."""
    key = f"budget_usd.{name}"
    message = "nothing is paid for"
    if row.usd or row.most:
        top = "with no maximum" if row.most is None else f"{budget.about(row.most)} at most"
        message = f"about {budget.about(row.usd)} for {row.stage}, {top}"
    if spent:
        gone = f"{budget.about(spent)} are spent under the name {p.budget_usd.name!r}"
        message += f"; {gone} (answers that were bought cost nothing again)"
    if cap is None:
        return Finding("ok", key, f"{message}; no cap is set")
    message += f"; the cap is {budget.dollars(cap)}"
    if row.usd > cap:
        do = f"raise {key} in {profile_file(p.profile)}, or ask for less"
        return Finding("stop", key, message, do)
    if row.most is None or spent + row.most > cap:
        do = "a run that reaches it stops, keeps what it bought and goes on once it is raised"
        return Finding("warning", key, message, do)
    return Finding("ok", key, message)


def too_long(p: Params, forecast_rows: Sequence[Row]) -> list[Finding]:
    """Return a finding for each stage and model with requests that do not fit and will not be
    sent."""
    findings = []
    for row in forecast_rows:
        if row.too_long:
            share = row.too_long / (row.calls + row.too_long)
            message = (
                f"about {row.too_long:,} requests ({share:.1%}) do not fit {row.model} with their "
                "longest reply and will not be sent"
            )
            findings.append(Finding("warning", row.stage, message, forecast.fit_more(p, row.stage)))
    return findings


def asking(p: Params, forecast_rows: Sequence[Row]) -> list[Duration]:
    """Return the time of the stages that ask models, by endpoint: a panel's judges ask one after
    the other. Embedded models have no entry, since they take seconds."""
    stages_of: dict[str, tuple[str, ...]] = {
        "teacher": ("generate",),
        "judge": ("judge",),
        "grader": ("mt_grade", "mt_compare", "agreement"),
    }
    endpoints = [
        (key, stages, endpoint)
        for role, stages in stages_of.items()
        for key, endpoint in p.llm.by_name(role).items()
    ]
    endpoints += [
        (f"models/{name}", ("mt_answer",), model.endpoint)
        for name, model in p.models.items()
        if isinstance(model, FurtherServed)
    ]
    durations = []
    for key, stages, endpoint in endpoints:
        rows = [
            r for r in forecast_rows if r.stage.split()[0] in stages and r.model == endpoint.model
        ]
        if not isinstance(endpoint, OpenAI | Anthropic):
            continue
        calls = sum(row.calls for row in rows)
        out = sum(row.tokens_out for row in rows)
        both_ways = out + sum(row.tokens_in for row in rows)
        work = f"{calls:,} replies of {endpoint.reply_tokens} tokens"
        if endpoint.mode == "batch":
            durations.append(Duration(key, work, 0, f"<= {BATCH_HOURS} h a batch"))
            continue
        at_once = endpoint.concurrency * len(endpoint.addresses)
        # The slowest of the limits decides: replies under way at once, requests a minute, tokens a
        # minute.
        limits = [out / (at_once * STREAM)]
        if endpoint.requests_per_minute:
            limits.append(60 * calls / endpoint.requests_per_minute)
        if endpoint.tokens_per_minute:
            limits.append(60 * both_ways / endpoint.tokens_per_minute)
        durations.append(Duration(key, f"{work}, {at_once} at once", max(limits)))
    return durations


def training(
    p: Params, shape: Shape, machine: Machine, fits: Sequence[Fit], forecast_rows: Sequence[Row]
) -> list[Duration]:
    """Return the time of each link, with all the runs that it may have, and of dpo. They run on
    this machine's GPUs, or on one EXAMPLE where it has none."""
    speed = peak(machine.gpu.name if machine.gpu else EXAMPLE)
    processes, _ = gpu.spread(p, machine)
    durations = []
    for fit in fits:
        stage, _, name = fit.stage.partition(" ")
        if stage not in ("sft", "dpo"):
            continue
        link = p.chain.get(name)
        amount: Training | Dpo = p.sft.links[name] if link else p.dpo
        kind: memory.Kind = link.weights if link else "dpo"
        rows, row_tokens = _training_rows(
            p, f"sft/{name}" if link else f"dpo/{next(iter(p.aligned))}", forecast_rows
        )
        row_tokens = min(row_tokens, gpu.tokens(amount), shape.positions)
        runs = amount.runs if isinstance(amount, Training) else 1
        # A pair is read as two rows, one with each of its answers.
        tokens = round(runs * amount.epochs * rows * row_tokens * (2 if kind == "dpo" else 1))
        flops = memory.flops(shape, kind, tokens, fit.checkpointing, row=round(row_tokens))
        unit = "pairs" if kind == "dpo" else "rows"
        times = f"up to {runs} x {amount.epochs}" if runs > 1 else f"{amount.epochs}"
        work = f"{times} x {rows:,} {unit} of {row_tokens:.0f} tokens: {flops / 1e15:,.1f} PFLOP"
        if speed:
            durations.append(Duration(fit.stage, work, flops / (SHARE * speed * 1e12 * processes)))
        else:
            durations.append(
                Duration(fit.stage, work, 0, "not known: no peak of this GPU is known")
            )
    return durations


def answering(p: Params) -> list[Duration]:
    """Return the time in which the checkpoints and other models in this process answer MT-Bench, if
    every answer is as long as it may be."""
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
    """Return the TFLOP/s of a GPU by its driver's name for it, None for one that is not known. It
    is the longest name in PEAKS whose words are all in the driver's."""
    words = set(kind.replace("-", " ").split())
    fitting = [name for name in PEAKS if set(name.split()) <= words]
    return PEAKS[max(fitting, key=len)] if fitting else None


def _training_rows(p: Params, weights: str, forecast_rows: Sequence[Row]) -> tuple[int, float]:
    """Return (rows to train on, mean tokens of each) of the last step to `weights`: the rows of its
    sets, and those that it replays."""
    step = chain.steps(p, weights)[-1]
    link_rows = [_source_rows(p, source, forecast_rows) for source in step.data]
    rows = sum(number for number, _ in link_rows)
    tokens = sum(number * mean for number, mean in link_rows)
    if earlier := [_source_rows(p, source, forecast_rows) for source in step.replayed]:
        again = min(round(p.mix.replay * rows), sum(number for number, _ in earlier))
        rows += again
        # The same number of rows is replayed of each set, so their means count alike.
        tokens += again * sum(mean for _, mean in earlier) / len(earlier)
    return rows, tokens / max(1, rows)


def _source_rows(p: Params, source: str, forecast_rows: Sequence[Row]) -> tuple[int, float]:
    """Return (rows to train on, mean tokens of each) of data/`source`. They are counted where this
    profile made it, and else estimated."""
    stage, _, name = source.partition("/")
    file = Path("data", source, "train.jsonl")
    if stage == "filter" and name in p.own:
        return _own_rows(p, name)
    if stage == "filter":
        if data.is_current(p, f"generate@{name}", "llm.teacher", file):
            return _measure(file)
        samples = next(row.calls for row in forecast_rows if row.stage == f"judge {name}")
        teacher = p.llm.teacher
        reply_tokens = teacher.reply_tokens if isinstance(teacher, OpenAI | Anthropic) else TEMPLATE
        # Of a scheme that the paper does not have all rows may pass.
        accepted = paper.SAMPLING[name].accepted_share if name in paper.SAMPLING else 1.0
        passing = samples * accepted * (1 - p.filter.eval_share)
        return round(passing), PROMPTS.get(name, PROMPTS["orca"]) + reply_tokens
    if data.fetched(p, name):
        return _measure(file)
    settings = getattr(p.fetch, name)
    most = settings.rows if isinstance(settings, World) else settings.limit
    return round(TRAIN * min(most or PAIRS, PAIRS)), PAIR


def _own_rows(p: Params, name: str) -> tuple[int, float]:
    """Return (rows, mean tokens of each) of the user's own rows: those that were filtered, else all
    seeds that were fetched."""
    for file in (Path("data/filter", name, "train.jsonl"), Path("data/fetch", name, "seeds.jsonl")):
        if data.fetched(p, name) and file.exists():
            return _measure(file)
    settings = getattr(p.fetch, name)
    most = settings.rows if isinstance(settings, World) else settings.limit
    return most or 0, PROMPTS["orca"] + TEMPLATE


def _measure(file: Path) -> tuple[int, float]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    fields = ("system", "instruction", "context", "response", "prompt", "chosen")
    size = sum(len(str(row[key])) for row in rows for key in fields if key in row)
    return len(rows), TEMPLATE + size / 4 / max(1, len(rows))
