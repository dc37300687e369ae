"""Evol-Instruct (OpenBezoar 3.1.2, WizardLM): rewrite seeds into harder or rarer prompts, drop the
evolutions that failed, answer the others."""

import re
from collections.abc import Iterator
from random import Random

from bezoar.params import EvolInstruct
from bezoar.prompts import Prompt, fence
from bezoar.reading.equality import Equality, equality
from bezoar.reading.evolved import prompt, turn
from bezoar.records import Ask, Job, Rejected, Reply, Sample, Seed, Seeds, Undecided
from bezoar.schemes import fault, say, split_input, unfinished, with_input

NAME = "evol_instruct"
EVOLVE = {"in_depth": Prompt(f"{NAME}/in_depth"), "in_breadth": Prompt(f"{NAME}/in_breadth")}
EQUALITY, RESPONSE = Prompt(f"{NAME}/equality"), Prompt(f"{NAME}/response")
STOP_WORDS = Prompt(f"{NAME}/stop_words")
FIELDS = (
    "#Given Prompt#:",
    "#Rewritten Prompt#:",
    "#Created Prompt#:",
    "#First Prompt#:",
    "#Second Prompt#:",
)
MARKERS = ("<human>:", "<bot>:", "Operation:", *FIELDS)
LEAKS = ("given prompt", "rewritten prompt", "created prompt")

_REFUSING = re.compile(
    r"(?:i['’]?m|i am)?\s*(?:very |so )?sorry\b|as an ai\b"
    r"|i (?:cannot|can['’]t) (?:help|assist|comply|create|do|fulfill?|provide|rewrite)\b"
)


def plan(seeds: Seeds, params: EvolInstruct, rng: Random) -> list[Job]:
    """One job a seed. The number of epochs is drawn a category, strategy and operation a category
    and epoch, so that a whole epoch of a category evolves in one way (paper 3.1.2)."""
    jobs: list[Job] = []
    for category in params.categories:
        rows = [seed for seed in seeds.dolly if seed.category == category]
        steps = [_step(params, rng) for _ in range(rng.randint(1, params.epochs))]
        for seed in rng.sample(rows, min(params.per_category, len(rows))):
            inputs = {"seed": seed.model_dump(), "steps": steps, "refusal": params.refusal_words}
            id = f"{NAME}-{len(jobs) + 1:05d}"
            jobs.append(Job(id=id, asked=len(steps), inputs=inputs))
    return jobs


def _step(params: EvolInstruct, rng: Random) -> dict[str, str]:
    if rng.random() < params.breadth:
        return {"strategy": "in_breadth", "operation": ""}
    return {"strategy": "in_depth", "operation": rng.choice(params.operations)}


def run(job: Job, ask: Ask) -> Iterator[Sample | Rejected | Undecided]:
    seed = Seed.model_validate(job.inputs["seed"])
    instruction, context, failed = seed.instruction, seed.context, False
    for epoch, step in enumerate(job.inputs["steps"], 1):
        id, details = f"{job.id}-{epoch}", {**step, "epoch": epoch}
        if failed:
            yield Rejected(id=id, scheme=NAME, reason="not_reached", text="", details=details)
            continue
        evolved, added, reason = _evolve(ask, instruction, context, step)
        if not reason:
            # the input that both come with would make any two prompts look alike
            judged = _compare(ask, instruction, evolved if context else with_input(evolved, added))
            if judged == "undecided":  # does not eliminate
                yield Undecided()
            reason = "equal" if judged == "equal" else ""
        if not reason:
            context = context or added
            shown = fence(with_input(evolved, context), *MARKERS)
            answer = say(ask, RESPONSE.fill(prompt=shown))
            response = turn(answer.text)
            reason = _response_fault(answer, response, job.inputs["refusal"])
        if reason:
            failed = True
            yield Rejected(id=id, scheme=NAME, reason=reason, text=evolved, details=details)
            continue
        yield Sample(
            id=id,
            scheme=NAME,
            system="",
            instruction=evolved,
            context=context,
            response=response,
            expected="",
            category=seed.category,
            details=details,
            seeds=[seed.id],
            licence=seed.licence,
            teacher=answer.model,
            simulated=answer.simulated,
        )
        instruction = evolved


def _evolve(ask: Ask, instruction: str, context: str, step: dict[str, str]) -> tuple[str, str, str]:
    """(evolved instruction, input that came with it, why it is eliminated or "")."""
    given = fence(with_input(instruction, context), *MARKERS)
    if step["strategy"] == "in_depth":
        method = Prompt(f"{NAME}/operations/{step['operation']}").fill()
        asked = EVOLVE["in_depth"].fill(prompt=given, operation=step["operation"], method=method)
    else:
        asked = EVOLVE["in_breadth"].fill(prompt=given)
    reply = say(ask, asked)
    if why := unfinished(reply):
        return turn(reply.text), "", why
    read = prompt(reply.text)
    if read is None:
        return turn(reply.text), "", "unread"
    evolved, added = split_input(read)
    return evolved, added, _instruction_fault(evolved, instruction)


def _compare(ask: Ask, first: str, second: str) -> Equality:
    """What the teacher says of two prompts; undecided where it did not answer."""
    texts = {"first": fence(first, *MARKERS), "second": fence(second, *MARKERS)}
    reply = say(ask, EQUALITY.fill(**texts))
    return "undecided" if unfinished(reply) else equality(reply.text)


def _instruction_fault(evolved: str, given: str) -> str:
    """WizardLM's eliminators that need no second opinion; "" where none applies."""
    if not evolved:
        return "empty"
    if _REFUSING.match(evolved.lower()):
        return "refusal"
    if any(leak in evolved.lower() and leak not in given.lower() for leak in LEAKS):
        return "leaked_prompt"
    if _only_stop_words(evolved):
        return "only_stop_words"
    return "equal" if evolved.split() == given.split() else ""


def _response_fault(reply: Reply, response: str, refusal_words: int) -> str:
    """WizardLM's eliminators on the answer; "" where none applies."""
    if why := fault(reply, "response"):
        return why
    if not response:
        return "empty_response"
    if "sorry" in response.lower() and len(response.split()) < refusal_words:
        return "refusal_response"
    return "only_stop_words_response" if _only_stop_words(response) else ""


def _only_stop_words(text: str) -> bool:
    stop = set(STOP_WORDS.fill().split())
    return all(word in stop for word in re.findall(r"[^\W_]+", text.lower()))
