"""One module a data scheme; its name is its file name. A scheme is two functions:

plan(seeds, params, rng)  what to ask of the teacher, decided before any of it is asked
run(job, ask)             ask it; yield what became of each instruction, or raise Reject

`plan` is pure: equal seeds, params (the scheme's section of params.yaml) and `rng` give equal jobs.
What `run` needs of the params stands in the job.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from random import Random
from typing import Any, Protocol, cast

from bezoar.records import (
    Ask,
    Exchange,
    Job,
    Message,
    Outcome,
    Reject,
    Rejected,
    Reply,
    Sample,
    Seeds,
)

# Reasons whose text is no instruction that was asked for, but a whole reply or one too many.
UNPARSED = ("no_examples", "refusal_reply", "surplus")


class Scheme(Protocol):
    """What a module of this package offers."""

    def plan(self, seeds: Seeds, params: Any, rng: Random) -> list[Job]:
        """The jobs, in the order in which their samples will stand."""
        ...

    def run(self, job: Job, ask: Ask) -> Iterator[Sample | Rejected]:
        """Do one job; Reject where nothing of it can be used."""
        ...


def names() -> list[str]:
    """The schemes there are."""
    return sorted(module.name for module in iter_modules(__path__))


def load(name: str) -> Scheme:
    """The scheme of that name; SystemExit names those there are."""
    if name not in names():
        raise SystemExit(f"error: {name}: no such scheme; bezoar/schemes/ has {', '.join(names())}")
    return cast(Scheme, import_module(f"{__name__}.{name}"))


def attempt(scheme: str, job: Job, ask: Ask) -> Outcome:
    """Do one job of `scheme`: its samples and rejects, and every exchange with the teacher.

    A Reject becomes one Rejected under the job's id, with the last reply as its text; what was
    yielded before it stays."""
    exchanges: list[Exchange] = []

    def recorded(messages: Sequence[Message], sample: int = 0) -> Reply:
        reply = ask(messages, sample)
        step = len(exchanges)
        exchanges.append(Exchange(job=job.id, step=step, messages=list(messages), reply=reply))
        return reply

    samples: list[Sample] = []
    rejected: list[Rejected] = []
    try:
        for row in load(scheme).run(job, recorded):
            if isinstance(row, Sample):
                samples.append(row)
            else:
                rejected.append(row)
    except Reject as reject:
        text = exchanges[-1].reply.text if exchanges else ""
        rejected.append(
            Rejected(id=job.id, scheme=scheme, reason=str(reject), text=text, details={})
        )
    return Outcome(samples=samples, rejected=rejected, exchanges=exchanges)


def parsed(outcome: Outcome) -> int:
    """Instructions that were read from the teacher's replies, whatever became of them."""
    read = [r for r in outcome.rejected if r.text.strip() and r.reason not in UNPARSED]
    return len(outcome.samples) + len(read)


def repaired(outcome: Outcome) -> int:
    """Instructions among them that had to be taken out of a malformed reply."""
    rows: list[Sample | Rejected] = [*outcome.samples, *outcome.rejected]
    return sum(row.details.get("repaired") is True for row in rows)


def say(ask: Ask, text: str, sample: int = 0) -> Reply:
    """Ask with one user message."""
    return ask([Message(role="user", content=text)], sample)


def with_input(instruction: str, context: str) -> str:
    """An instruction and its context in one text; `split_input` takes them apart."""
    return f"{instruction}\n\nInput: {context}" if context else instruction


def split_input(text: str) -> tuple[str, str]:
    """(instruction, context): the context opens with the first line that starts with `Input:`."""
    head, _, tail = f"\n{text.strip()}".partition("\nInput:")
    return head.strip(), tail.strip()


def unfinished(reply: Reply) -> str | None:
    """Why this reply is no whole answer, or None: `refusal`, `truncated` or `empty`."""
    if reply.finish_reason == "refused":
        return "refusal"
    if not reply.text.strip():
        return "empty"
    return "truncated" if reply.finish_reason == "length" else None


def licences(listed: Sequence[str]) -> str:
    """The licences that a sample inherits from what it was made of, each once."""
    return ", ".join(sorted(set(listed)))
