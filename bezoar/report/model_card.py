"""The card of a trained checkpoint: metrics/report/cards/CHECKPOINT.md. The report writes it, for
its numbers are measured after the weights are made."""

from pathlib import Path
from typing import Any

import yaml

from bezoar.filtering import cards, licences
from bezoar.params import PAIRS, Params
from bezoar.report import Run
from bezoar.rows.files import read_json
from bezoar.training import chain


def checkpoint_weights(settings: Params) -> dict[str, str]:
    """Return checkpoint -> its weights below models/, for those that a stage trained or merged.
    Some are asked MT-Bench or measured beside the links. The others are whole weights that nothing
    measures."""
    paths = {
        n: checkpoint.model for n, checkpoint in settings.evaluated.items() if not checkpoint.link
    }
    paths |= {name: checkpoint.model for name, checkpoint in settings.checkpoints.items()}
    paths |= settings.unmeasured
    return {name: path for name, path in paths.items() if chain.steps(settings, path)}


def standing(settings: Params, weights: str) -> dict[str, Any]:
    """Return the licences that the weights stand under: their base's and those of every set that
    they learnt from, joined (licences.joined)."""
    base: Any = read_json("models/fetch/base/source.json")
    parts: dict[str, Any] = {"base": licences.of_source(base)}
    for data in _sets(chain.steps(settings, weights)):
        if data == PAIRS:
            pairs: Any = read_json(f"data/{PAIRS}/source.json")
            parts[data] = licences.of_source(pairs)
        else:
            parts[data] = read_json(f"data/{data}/licences.json")
    return licences.combine(parts)


def card(name: str, run: Run, settings: Params) -> str:
    """Return the card of the checkpoint `name` of a finished run, as Markdown with front matter."""
    from huggingface_hub import EvalResult, ModelCardData

    weights = checkpoint_weights(settings)[name]
    steps = chain.steps(settings, weights)
    instructed = [data for data in _sets(steps) if data != PAIRS]
    under = standing(settings, weights)
    scores = run.results[name].tasks if name in run.results else {}
    # a dict, for it keeps the speakers in order and each of them once
    simulated = {
        speaker: True
        for funnel in (run.funnels[_scheme(d)] for d in instructed if _scheme(d) in run.funnels)
        for speaker, is_simulated in (
            ("teacher", funnel.simulated_teacher),
            ("judge", funnel.simulated_judge),
        )
        if is_simulated
    }
    harness = [
        EvalResult(
            task_type="text-generation",
            task_name=f"LM Evaluation Harness, {settings.lm_eval.num_fewshot}-shot",
            dataset_type=task,
            dataset_name=task,
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for task, score in scores.items()
        for metric, value in (("acc", score.acc), ("acc_norm", score.acc_norm))
        if value is not None
    ]
    base = cards.repositories(run.sources["base"].model_dump())
    front = ModelCardData(
        **cards.licence(under["text"]),
        language=_languages(instructed) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base[0] if base else None,
        datasets=_seeds(steps, run, settings) or None,
        tags=[cards.PROJECT, *(["simulated"] if simulated else [])],
        model_name=f"{cards.PROJECT}-{name}",
        eval_results=harness or None,
    )
    grades = run.grades.get(name, [])
    grader = sorted({grade.judge for grade in grades if grade.judge != "rule"})
    return cards.render(
        Path(__file__).with_name("model_card.md"),
        front,
        name=name,
        base=base[0] if base else "a base of the maker's own",
        simulated=list(simulated),
        steps=[(step, _method(step, settings), _numbers(step, run, settings)) for step in steps],
        findings={
            data: cards.findings(Path("data", data, "contamination.jsonl")) for data in instructed
        },
        own=[
            (source, rows, _shares(run, source, steps))
            for source, rows in run.own_sets.items()
            if f"filter/{source}" in instructed
        ],
        parameters=_parameters(steps, settings),
        scores=scores,
        before=run.results["base"].tasks if "base" in run.results else {},
        shots=settings.lm_eval.num_fewshot,
        limit=settings.lm_eval.limit,
        mt_bench=run.mt_bench.get(name),
        stand_ins=run.stand_ins,
        grader=", ".join(grader) or "nobody",
        simulated_grader=any(grade.simulated for grade in grades),
        under=under,
        unjoinable=cards.unjoinable(under["unjoinable"]),
    )


def _sets(steps: list[chain.Step]) -> list[str]:
    """Return the sets that the weights learnt from. Replayed sets are among them, as sets of an
    earlier step."""
    return list(dict.fromkeys(data for step in steps for data in step.data))


def _shares(run: Run, source: str, steps: list[chain.Step]) -> dict[str, float]:
    """Return the share of the user's own rows among the rows of each link that led to the
    weights."""
    links = {step.stage.removeprefix("sft@") for step in steps}
    shares = run.shares(f"filter/{source}")
    return {link: share for link, share in shares.items() if link in links}


def _languages(instructed: list[str]) -> list[str]:
    """Return the languages of the rows that the weights learnt from. They are not known of
    preference pairs, nor of rows that no filter has seen."""
    paths = [Path("data", data, "languages.json") for data in instructed]
    accounts: list[Any] = [read_json(path) for path in paths if path.exists()]
    return list(dict.fromkeys(short for account in accounts for short in account["spoken"]))


def _scheme(data: str) -> str:
    return data.removeprefix("filter/")


def _seeds(steps: list[chain.Step], run: Run, settings: Params) -> list[str]:
    """Return the Hub's data sets that the weights learnt from, directly or by way of a scheme's
    seeds."""
    sources = dict.fromkeys(_source(data, settings) for data in _sets(steps))
    repositories = (cards.repositories(run.sources[source].model_dump()) for source in sources)
    return list(dict.fromkeys(repository for names in repositories for repository in names))


def _source(data: str, settings: Params) -> str:
    """Return the source of a set's seeds. A set of the user's own is named as its source."""
    if data == PAIRS:
        return "hh_rlhf"
    name = _scheme(data)
    return name if name in settings.own else settings.schemes.by_name[name].seeds


def _method(step: chain.Step, settings: Params) -> str:
    if step.stage == "dpo":
        dpo = settings.dpo
        loss = "" if dpo.loss == "sigmoid" else f", loss {dpo.loss}"
        smoothed = f", label smoothing {dpo.label_smoothing:g}" if dpo.label_smoothing else ""
        trained_part = "all parameters" if dpo.weights == "all" else "a LoRA adapter, merged"
        return f"preference optimisation (DPO{loss}{smoothed}), {trained_part}"
    if not step.data:
        return "adapter into the base"
    weights = settings.chain[step.stage.removeprefix("sft@")].weights
    alpha = settings.sft.neftune_alpha
    noise = "" if alpha is None else f", NEFTune alpha {alpha:g}"
    return ("QLoRA adapter" if weights == "adapter" else "fine-tuning, all parameters") + noise


def _numbers(step: chain.Step, run: Run, settings: Params) -> dict[str, str]:
    """Return a step's rows, and the epochs and losses of each of its runs. In brackets stand the
    epoch that was kept and its loss."""
    if not step.data:
        return dict.fromkeys(("rows", "epochs", "loss"), "–")
    if step.stage == "dpo":
        dpo = run.dpo.metrics if run.dpo else {}
        return {
            "rows": f"{dpo['train_rows']}",
            "epochs": f"{settings.dpo.epochs}",
            "loss": _loss_change(dpo["eval_loss_start"], dpo["eval_loss_end"]),
        }
    link = run.links[step.stage.removeprefix("sft@")].metrics
    kept_loss = link.eval_loss_best if settings.sft.keep == "best" else link.eval_loss_end
    runs = [link_run for _, link_run in sorted(link.runs.items())]
    epochs = " + ".join(str(link_run.epochs) for link_run in runs)
    losses = ", ".join(
        _loss_change(link_run.eval_loss_start, link_run.eval_loss_end) for link_run in runs
    )
    return {
        "rows": f"{link.train_rows}",
        "epochs": f"{epochs} ({link.kept_epoch})",
        "loss": f"{losses} ({kept_loss:.4f})",
    }


def _loss_change(start: float | None, end: float | None) -> str:
    return " → ".join("–" if loss is None else f"{loss:.4f}" for loss in (start, end))


def _parameters(steps: list[chain.Step], settings: Params) -> str:
    """Return the parameters that shaped the weights, as YAML."""
    links = [step.stage.removeprefix("sft@") for step in steps if step.stage.startswith("sft@")]
    # links that did not lead to these weights are left out
    unused = settings.sft.links.keys() - set(links)
    sft = settings.sft.model_dump(exclude={"links": unused})
    sections: dict[str, Any] = {"mix": settings.mix.model_dump(), "sft": sft}
    if any(step.stage.startswith("merge@") for step in steps):
        sections["merge"] = settings.merge.model_dump()
    if any(step.stage == "dpo" for step in steps):
        sections["dpo"] = settings.dpo.model_dump()
    return yaml.safe_dump(sections, sort_keys=False)
