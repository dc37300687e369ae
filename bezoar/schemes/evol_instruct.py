"""Evol-Instruct (OpenBezoar 3.1.2, WizardLM): the teacher rewrites seeds into harder or rarer
prompts and answers them. Evolutions that failed are dropped."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

from bezoar import schemes
from bezoar.params import EvolInstruct
from bezoar.reading.equality import Equality, equality
from bezoar.reading.evolved import prompt, turn
from bezoar.rows import refusals
from bezoar.rows.chat import with_input
from bezoar.rows.prompts import MARKUP, Prompt, fence
from bezoar.rows.records import Ask, Job, Rejected, Reply, Sample, Seed, Seeds, Undecided
from bezoar.schemes import fault, split_input, unfinished

NAME = "evol_instruct"
# The teacher, asked with one text
Say = Callable[[str], Reply]
# `$operation` was a blank of earlier files: a user's own copy of one may still hold it.
IN_DEPTH, IN_BREADTH = Prompt(f"{NAME}/in_depth", "operation"), Prompt(f"{NAME}/in_breadth")
EQUALITY, RESPONSE = Prompt(f"{NAME}/equality"), Prompt(f"{NAME}/response")
STOP_WORDS = Prompt(f"{NAME}/stop_words")
MARKERS = MARKUP[NAME]
LEAKS = ("given prompt", "rewritten prompt", "created prompt")

_REFUSING = re.compile(
    r"(?:i['’]?m|i am)?\s*(?:very |so )?sorry\b|as an ai\b"
    r"|i (?:cannot|can['’]t) (?:help|assist|comply|create|do|fulfill?|provide|rewrite)\b"
)


def plan(seeds: Seeds, params: EvolInstruct, rng: Random) -> list[Job]:
    """Plan one job for each seed of each iteration (paper 3.1.2).

    An iteration draws seeds of one category, a strategy, and how many epochs it has. Each of its
    in-depth epochs draws one operation. Seeds that no iteration has had yet come first."""
    jobs: list[Job] = []
    categories = schemes.categories(seeds.dolly, params)
    pool = [seed for seed in seeds.dolly if seed.category in categories]
    # Each iteration draws by itself, so that a further one leaves the requests of the others alone.
    draw = rng.random()
    for category in categories:
        rows = [seed for seed in seeds.dolly if seed.category == category]
        uses: Counter[str] = Counter()
        for iteration in range(1, params.iterations + 1):
            iteration_rng = Random(f"{draw}/{category}/{iteration}")
            steps = _steps(params, iteration_rng)
            shuffled = iteration_rng.sample(rows, len(rows))
            for seed in sorted(shuffled, key=lambda row: uses[row.id])[: params.per_category]:
                # A seed may be drawn again. `sample` makes its requests differ from the earlier
                # ones.
                inputs = {
                    "seed": seed.model_dump(),
                    "iteration": iteration,
                    "steps": steps,
                    "sample": uses[seed.id],
                    "refusal": params.refusal_words,
                    "answers": schemes.draw_style(
                        rows, pool, [seed], params.answers_shown, iteration_rng
                    ),
                }
                id = f"{NAME}-{len(jobs) + 1:05d}"
                jobs.append(Job(id=id, asked=len(steps), inputs=inputs))
                uses[seed.id] += 1
    return jobs


def _steps(params: EvolInstruct, rng: Random) -> list[dict[str, str]]:
    """Draw the epochs of one iteration, all of one strategy."""
    in_breadth = rng.random() < params.breadth
    epochs = range(rng.randint(1, params.epochs))
    if in_breadth:
        return [{"strategy": "in_breadth", "operation": ""} for _ in epochs]
    return [{"strategy": "in_depth", "operation": rng.choice(params.operations)} for _ in epochs]


def run(job: Job, ask: Ask) -> Iterator[Sample | Rejected | Undecided]:
    """Evolve the job's seed step by step, and answer each evolution. A failed step ends the job,
    and the steps behind it are rejected as not reached."""
    seed = Seed.model_validate(job.inputs["seed"])
    examples = [Seed.model_validate(row) for row in job.inputs["answers"]]
    instruction, context, failed = seed.instruction, seed.context, False

    def say(text: str) -> Reply:
        return schemes.say(ask, text, job.inputs["sample"])

    for epoch, step in enumerate(job.inputs["steps"], 1):
        id = f"{job.id}-{epoch}"
        details = {"iteration": job.inputs["iteration"], **step, "epoch": epoch}
        # A sample has a field for its category, a reject has none.
        reject_details = {"category": seed.category, **details}
        if failed:
            yield Rejected(
                id=id, scheme=NAME, reason="not_reached", text="", details=reject_details
            )
            continue
        evolved, evolved_context, reason = _evolve(say, instruction, context, step)
        if not reason:
            verdict = _compare(say, (instruction, context), (evolved, evolved_context))
            # An undecided check does not eliminate the evolution.
            if verdict == "undecided":
                yield Undecided()
            reason = "equal" if verdict == "equal" else ""
        if not reason:
            answer, style = schemes.answer(
                ask,
                _response_request,
                with_input(evolved, evolved_context),
                examples,
                job.inputs["sample"],
            )
            response = turn(answer.text)
            reason = _response_fault(answer, response, job.inputs["refusal"])
            reason = reason or schemes.copy_fault(response, style)
            details |= schemes.style_details(style)
        if reason:
            failed = True
            yield Rejected(id=id, scheme=NAME, reason=reason, text=evolved, details=reject_details)
            continue
        yield Sample(
            id=id,
            scheme=NAME,
            system="",
            instruction=evolved,
            context=evolved_context,
            response=response,
            expected="",
            category=seed.category,
            details=details,
            seeds=[seed.id],
            licence=schemes.licences([seed.licence, *(row.licence for row in style)]),
            teacher=answer.model,
            simulated=answer.simulated,
        )
        instruction, context = evolved, evolved_context


def _response_request(text: str) -> str:
    """Write the request for the answer to a prompt."""
    return RESPONSE.fill(prompt=fence(text, *MARKERS))


def _evolve(say: Say, instruction: str, context: str, step: dict[str, str]) -> tuple[str, str, str]:
    """Return the evolved instruction, its input, and the reason why it is eliminated. "": it is
    not."""
    before = with_input(instruction, context)
    fenced, in_depth = fence(before, *MARKERS), step["strategy"] == "in_depth"
    reply = say(
        _in_depth_request(fenced, step["operation"]) if in_depth else IN_BREADTH.fill(prompt=fenced)
    )
    if reason := unfinished(reply):
        return turn(reply.text), "", reason
    read = prompt(reply.text)
    if read is None:
        return turn(reply.text), "", "unread"
    evolved, added = split_input(read)
    evolved_context = _choose_context(context, added, step)
    return evolved, evolved_context, _prompt_fault(evolved, evolved_context, before)


def _in_depth_request(text: str, operation: str) -> str:
    """Write the request for one operation: its sentence in the shared prompt, or its own prompt."""
    method = Prompt(f"{NAME}/operations/{operation}", "prompt")
    if method.holds("prompt"):
        return method.fill(prompt=text)
    IN_DEPTH.require(
        "method", f", or write each operation's whole prompt into prompts/{NAME}/operations/"
    )
    return IN_DEPTH.fill(prompt=text, operation=operation, method=method.fill(prompt=""))


def _choose_context(before: str, added: str, step: dict[str, str]) -> str:
    """Return the input of an evolved prompt. A created prompt stands alone (paper 3.1.2). A
    rewritten one keeps its input, which the teacher may lengthen and must not replace."""
    if step["strategy"] == "in_breadth" or not before:
        return added
    longer = " ".join(before.split()) in " ".join(added.split())
    return added if longer else before


def _compare(say: Say, first: tuple[str, str], second: tuple[str, str]) -> Equality:
    """Ask the teacher whether two prompts, each with its input, are equal. Undecided: it does not
    answer.

    An input that both share is left out, for it would make any two prompts look alike."""
    shared = first[1] == second[1]
    texts = [text if shared else with_input(text, context) for text, context in (first, second)]
    old, new = (fence(text, *MARKERS) for text in texts)
    reply = say(EQUALITY.fill(first=old, second=new))
    return "undecided" if unfinished(reply) else equality(reply.text)


def _prompt_fault(evolved: str, context: str, before: str) -> str:
    """Apply WizardLM's eliminators that need no second opinion. "": none applies. `before` is the
    prompt before the evolution, with its input."""
    after = with_input(evolved, context)
    if not evolved:
        return "empty"
    if _REFUSING.match(evolved.lower()) or _declines(evolved, before):
        return "refusal"
    if any(leak in after.lower() and leak not in before.lower() for leak in LEAKS):
        return "leaked_prompt"
    if _only_stop_words(evolved):
        return "only_stop_words"
    return "equal" if after.split() == before.split() else ""


def _declines(evolved: str, before: str) -> bool:
    """Say whether a teacher declined in another language. A prompt may open like a refusal ("I have
    no access ...") if it asks a question, or if the prompt before it opened so."""
    return bool(refusals.language(evolved) and "?" not in evolved and not refusals.language(before))


def _response_fault(reply: Reply, response: str, refusal_words: int) -> str:
    """Apply WizardLM's eliminators to the answer. "": none applies.

    WizardLM looks for "sorry" alone, with which only English declines. So other languages' openings
    are looked for too."""
    if reason := fault(reply, "response"):
        return reason
    if not response:
        return "empty_response"
    refuses = "sorry" in response.lower() or refusals.language(response)
    if refuses and len(response.split()) < refusal_words:
        return "refusal_response"
    return "only_stop_words_response" if _only_stop_words(response) else ""


def _only_stop_words(text: str) -> bool:
    stop = set(STOP_WORDS.fill().split())
    return all(word in stop for word in re.findall(r"[^\W_]+", text.lower()))
