"""Checks of sections against each other."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from bezoar.params import harness_names
from bezoar.params.evaluating import Temperatures
from bezoar.params.faults import Fault, hint, near
from bezoar.params.recipe import FURTHER, OWN, PAIRS, Checkpoint, Evaluated
from bezoar.params.schemes import Schemes
from bezoar.params.settings import Params
from bezoar.params.sources import FurtherServed, GrownBase, Harness, Local


def check_across(profile: str, params: Params, folder: Path) -> tuple[Params, list[str]]:
    """Check the sections against each other. Return the parameters, with `others` among the
    checkpoints, and the faults as lines."""
    faults = _check_others(params)
    params = _with_others(params)
    faults += _check_references(params)
    faults += _check_merges(params)
    faults += _check_links(profile, params)
    faults += _check_benchmarks(profile, params)
    faults += _check_launch(profile, params.launch, folder / "launch")
    faults += _check_sizes(profile, params)
    return params, faults


def find_renamed(checked: dict[str, Params]) -> list[Fault]:
    """Find links of the chain to which no profile gives an amount, and guess the name that was
    meant."""
    chain = next(iter(checked.values())).chain
    amounts = {name for params in checked.values() for name in params.sft.links}
    spare = sorted(amounts - chain.keys())
    unknown = [name for name in chain if name not in amounts]
    faults = []
    for name in unknown:
        alone = spare[0] if len(unknown) == len(spare) == 1 else ""
        if close := near(name, spare) or alone:
            message = f"sft.links of the profiles have no such link; did you mean {close!r}?"
            faults.append(Fault(("chain", name), message, instead=("chain", close)))
    return faults


def _check_references(params: Params) -> list[str]:
    """Check that links, merges and checkpoints name weights that a stage makes, and links sets of
    rows."""
    weights = {
        "fetch/base",
        *(f"dpo/{name}" for name in params.aligned),
        *(f"sft/{name}" for name in params.chain),
        *(f"merge/{name}" for name in params.merges),
    }
    trained = {
        **{f"chain.{n}.{k}": getattr(c, k) for n, c in params.chain.items() for k in _WEIGHTS},
        **{f"merges.{n}.{k}": getattr(m, k) for n, m in params.merges.items() for k in _MERGED},
        **{f"aligned.{n}.start": aligned.start for n, aligned in params.aligned.items()},
    }
    measured = {
        **{f"evaluated.{n}.model": e.model for n, e in params.evaluated.items()},
        **{f"evaluated.{n}.base": e.base for n, e in params.evaluated.items()},
        **{f"checkpoints.{n}.model": c.model for n, c in params.checkpoints.items()},
    }
    further = {f"{FURTHER}{name}" for name in params.models}
    unmade: dict[str, list[str]] = {}
    for key, path in {**trained, **measured}.items():
        if path not in weights | (further if key in measured else set()):
            unmade.setdefault(path, []).append(key)
    faults = [
        f"{first}: no stage makes models/{path}{_also_named(more)}; {hint(path, sorted(weights))}"
        for path, (first, *more) in unmade.items()
    ]
    sets = [PAIRS, *(f"filter/{name}" for name in [*params.schemes.by_name, *params.own])]
    for name, link in params.chain.items():
        for path in link.sets:
            if path not in sets:
                right = _way_to_put_back(path) or hint(path, sets)
                faults.append(f"chain.{name}.data: data/{path} is no set of rows; {right}")
    return faults + _check_compared(params)


def _also_named(places: list[str]) -> str:
    return f" (which {', '.join(places)} {'name' if places[1:] else 'names'} too)" * bool(places)


def _way_to_put_back(path: str) -> str:
    """Return the way to a set that is known and not made, "" for one that is not known."""
    name = path.removeprefix("filter/")
    if path == f"filter/{OWN}":
        return f"your own rows are filtered where they are named: own: [{OWN}]"
    if path.startswith("filter/") and name in Schemes.model_fields:
        return (
            f"the scheme is left out of `schemes`: `python -m bezoar.recipe without {name}` (or "
            "`whole`) writes the links that go with it"
        )
    return ""


def _check_others(params: Params) -> list[str]:
    """Check that each of `others` is one of `models`, named once, and no checkpoint of ours."""
    faults = []
    for name in dict.fromkeys(params.others):
        if name not in params.models:
            faults.append(f"others: {name!r} is none of `models`; {hint(name, params.models)}")
        if params.others.count(name) > 1:
            faults.append(f"others: {name!r} stands there twice; keep one of them")
        if name in {**params.checkpoints, **params.evaluated}:
            faults.append(f"others: {name!r} is a checkpoint of this recipe; rename it in `models`")
    if "index" in {**params.checkpoints, **dict.fromkeys(params.others)}:
        # The report's page of a checkpoint has its name, beside the page that lists them all.
        faults.append("checkpoints: 'index' is the name of a page of the report; rename it")
    for key in ("checkpoints", "evaluated"):
        for name, checkpoint in getattr(params, key).items():
            if checkpoint.further:
                model = checkpoint.model.removeprefix(FURTHER)
                faults.append(
                    f"{key}.{name}: {checkpoint.model} is not made by this recipe; leave the line "
                    f"out, and name {model} in `others`"
                )
    return faults


def _with_others(params: Params) -> Params:
    """Return `params` with `others` beside our checkpoints, and with no other model left."""
    beside = {name: params.models[name] for name in params.others if name in params.models}
    places = {name: f"{FURTHER}{name}" for name in beside}
    answering = {name: Checkpoint(model=place) for name, place in places.items()}
    # An endpoint has no log-probabilities to give.
    scored = {
        name: Evaluated(model=place, base=place, link=False)
        for name, place in places.items()
        if not isinstance(beside[name], FurtherServed)
    }
    return params.model_copy(
        update={
            "models": beside,
            "checkpoints": {**params.checkpoints, **answering},
            "evaluated": {**params.evaluated, **scored},
        }
    )


def _check_compared(params: Params) -> list[str]:
    """Check that both sides of a comparison are checkpoints, which answer MT-Bench."""
    faults, absent = [], dict[str, list[str]]()
    for name, pair in params.compared.items():
        for key in ("model", "baseline"):
            if (checkpoint := getattr(pair, key)) not in params.checkpoints:
                absent.setdefault(checkpoint, []).append(f"compared.{name}.{key}")
        if pair.model == pair.baseline:
            faults.append(
                f"compared.{name}: {pair.model!r} is compared with itself; name another baseline"
            )
    return faults + [
        f"{first}: {checkpoint!r} is no checkpoint{_also_named(more)}; "
        f"{hint(checkpoint, params.checkpoints)}"
        for checkpoint, (first, *more) in absent.items()
    ]


def _check_merges(params: Params) -> list[str]:
    """Check that slerp merges two adapters: an arc has two ends."""
    return [
        f"merges.{name}: merge.method slerp goes between two adapters, here are three; "
        "let `third` name one of the others again"
        for name, merge in params.merges.items()
        if params.merge.method == "slerp" and len(merge.adapters) > 2
    ]


def _check_links(profile: str, params: Params) -> list[str]:
    """Check that every link has an amount and a beginning. Amounts may be left over: an experiment
    that leaves out a link edits `chain` alone."""
    faults = []
    for name, link in params.chain.items():
        if link.start == f"sft/{name}":
            faults.append(
                f"chain.{name}.start: a link cannot start from itself; name the link before it"
            )
        if name not in params.sft.links:
            spare = sorted(params.sft.links.keys() - params.chain.keys())
            close = near(name, spare)
            guess = f"; did you mean it by {close!r}?" if close else ""
            faults.append(
                f"profiles.{profile}.sft.links.{name}: missing; chain has this link{guess}"
            )
    return faults or _check_circle(params)


def _check_circle(params: Params) -> list[str]:
    """Find weights that would have to be there before they are made."""
    needs = {
        **{f"sft/{n}": [getattr(c, k) for k in _WEIGHTS] for n, c in params.chain.items()},
        **{f"merge/{n}": [getattr(m, k) for k in _MERGED] for n, m in params.merges.items()},
        **{f"dpo/{name}": [aligned.start] for name, aligned in params.aligned.items()},
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return [
            f"chain: goes in a circle: {' -> '.join(error.args[1])}; let one of them start from "
            "what is made before it"
        ]
    return []


def _check_benchmarks(profile: str, params: Params) -> list[str]:
    """Check that the evaluated tasks are those that `filter` looks for."""
    fetched, evaluated = params.fetch.benchmarks, params.lm_eval.tasks
    if not isinstance(fetched, Harness) or fetched.tasks == evaluated:
        return []
    # A misspelt task is one fault, and no difference between the two lists as well.
    if unknown := unknown_tasks(params):
        return [f"{fault.where}: {fault.message}" for fault in unknown]
    apart = ", ".join(sorted({*(evaluated or [])} ^ {*fetched.tasks})) or "in another order"
    return [
        f"profiles.{profile}.lm_eval.tasks: not those of fetch.benchmarks, whose texts `filter` "
        f"looks for ({apart}); name the same in both"
    ]


def _check_sizes(profile: str, params: Params) -> list[str]:
    """Check the numbers and names that have a limit elsewhere in the file."""
    faults = []
    if params.filter.min_rating > params.judge.scale:
        faults.append(
            f"filter.min_rating: {params.filter.min_rating} is above every rating; judge.scale is "
            f"{params.judge.scale}"
        )
    for scheme, made_of in _SEEDS.items():
        section = params.schemes.by_name.get(scheme)
        if section and (source := section.seeds) not in made_of:
            right = hint(source, made_of)
            faults.append(f"schemes.{scheme}.seeds: {source!r} has no rows for it; {right}")
    for scheme in params.filter.copies:
        if scheme not in type(params.schemes).model_fields:
            have = type(params.schemes).model_fields
            faults.append(f"filter.copies: {scheme!r} is no scheme; {hint(scheme, have)}")
    if isinstance(params.mt_grade.references, list) and not isinstance(
        params.fetch.mt_bench, Local
    ):
        categories = Temperatures.model_fields
        faults += [
            f"mt_grade.references: {name!r} is no category of MT-Bench; {hint(name, categories)}"
            for name in params.mt_grade.references
            if name not in categories
        ]
    return faults + _check_contexts(profile, params)


# Scheme -> the sources whose rows its plan can be made from.
_SEEDS = {"lamini": ("dolly",), "evol_instruct": ("dolly",), "orca": ("flan",)}


def _check_contexts(profile: str, params: Params) -> list[str]:
    """Find texts that would be longer than the models that read or write them can hold."""
    faults = []
    for role in type(params.llm).model_fields:
        for name, endpoint in params.llm.by_name(role).items():
            context = getattr(endpoint, "context_tokens", None)
            for key, value in getattr(endpoint, "params", {}).items():
                if context and key in REPLY_MAXIMA and type(value) is int and value >= context:
                    faults.append(
                        f"profiles.{profile}.llm.{name}.params.{key}: {value} leaves no room for a "
                        f"prompt; context_tokens is {context}"
                    )
    base = params.fetch.base
    if not isinstance(base, GrownBase):
        return faults
    lengths = {f"sft.links.{n}.max_length": link.max_length for n, link in params.sft.links.items()}
    lengths["dpo.max_prompt_tokens"] = params.dpo.max_prompt_tokens + params.dpo.max_answer_tokens
    lengths["mt_answer.max_new_tokens"] = params.mt_answer.max_new_tokens
    lengths["fetch.base.sequence"] = base.sequence
    return faults + [
        f"profiles.{profile}.{place}: {length} tokens"
        f"{' with those of the answer' if place.startswith('dpo') else ''} are more than the base "
        f"can see; fetch.base.positions is {base.positions}"
        for place, length in lengths.items()
        if length > base.positions
    ]


# Names by which servers know the most tokens of a reply.
REPLY_MAXIMA = ("max_tokens", "max_completion_tokens", "max_new_tokens")


def _check_launch(profile: str, name: str | None, folder: Path) -> list[str]:
    """Check that `launch` names a file of launch/."""
    have = sorted(file.stem for file in folder.glob("*.yaml"))
    if name is None or name in have:
        return []
    return [
        f"profiles.{profile}.launch: there is no launch/{name}.yaml; "
        f"have {', '.join(have) or 'none'}"
    ]


_WEIGHTS, _MERGED = ("base", "start"), ("base", "adapter", "second", "third")


def unknown_tasks(params: Params) -> list[Fault]:
    """Return a fault for each task of the harness that the installed lm_eval does not know."""
    benchmarks = params.fetch.benchmarks
    if not isinstance(benchmarks, Harness):
        return []
    task_names = harness_names.names()
    lists = {
        ("fetch", "benchmarks", "tasks"): benchmarks.tasks,
        ("lm_eval", "tasks"): params.lm_eval.tasks or [],
    }
    unknown: dict[str, Fault] = {}
    for path, tasks in lists.items():
        for number, task in enumerate(tasks):
            # Without names lm_eval is not installed, and any task may be right.
            if task_names and task not in task_names:
                message = f"{task!r} is no task of lm_eval; {_task_hint(task, task_names)}"
                unknown.setdefault(task, Fault((*path, number), message))
    return list(unknown.values())


def _task_hint(task: str, task_names: frozenset[str]) -> str:
    close = near(task, sorted(task_names))
    return f"did you mean {close!r}?" if close else "`lm_eval ls tasks` lists them"
