"""One module a data scheme, named by its file name. A scheme is two functions:

plan(seeds, params, rng)  decide what to ask of the teacher, before any of it is asked
run(job, ask)             ask it, then yield the result for each instruction, or raise Reject

`plan` is pure: equal seeds, params (the scheme's section of params.yaml) and `rng` give equal jobs.
All that `run` needs of the params stands in the job."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from random import Random
from typing import Any, Protocol, cast

from bezoar.reading.markup import split_input as split_input
from bezoar.rows.chat import with_input
from bezoar.rows.records import (
    Ask,
    Exchange,
    Generated,
    Job,
    Message,
    Outcome,
    Reject,
    Rejected,
    Reply,
    Sample,
    Seed,
    Seeds,
    Undecided,
)

# Reasons of rejects whose text is no instruction: it is a whole reply, or one example too many.
UNPARSED = (
    *("no_examples", "refusal_reply", "unread", "refusal", "truncated"),
    *("surplus", "unread_example"),
)
# Reasons of rejects from whose reply nothing could be used
UNUSED = ("no_examples", "unread", "empty", "truncated", "refusal")
# Endings of requests that got no reply
UNANSWERED = ("too_long", "failed")


class Scheme(Protocol):
    """The two functions of a module of this package."""

    def plan(self, seeds: Seeds, params: Any, rng: Random) -> list[Job]:
        """Return the jobs, in the order in which their samples will stand."""
        ...

    def run(self, job: Job, ask: Ask) -> Iterator[Sample | Rejected | Undecided]:
        """Do one job and yield its results. Reject: nothing of it can be used.

        An Undecided is yielded where a reply cannot be read and the job goes on without it."""
        ...


def names() -> list[str]:
    """List the schemes there are."""
    return sorted(module.name for module in iter_modules(__path__))


def load(name: str) -> Scheme:
    """Import the scheme of that name. SystemExit lists the schemes there are."""
    if name not in names():
        raise SystemExit(f"error: {name}: no such scheme; bezoar/schemes/ has {', '.join(names())}")
    return cast(Scheme, import_module(f"{__name__}.{name}"))


def categories(seeds: Sequence[Seed], params: Any) -> list[str]:
    """Return the categories that a scheme draws from, in their order: those that its `params` list,
    or all that the seeds have. Those of `without` are left out."""
    listed = params.categories or sorted({seed.category for seed in seeds})
    return [name for name in listed if name not in params.without]


def attempt(scheme: str, job: Job, ask: Ask) -> Outcome:
    """Do one job of `scheme`. Return its samples and rejects, and every exchange with the teacher.

    A Reject becomes one Rejected under the job's id, with the last reply as its text. Rows that
    were yielded before it stay."""
    exchanges: list[Exchange] = []

    def ask_and_record(messages: Sequence[Message], sample: int = 0) -> Reply:
        reply = ask(messages, sample)
        step = len(exchanges)
        exchanges.append(Exchange(job=job.id, step=step, messages=list(messages), reply=reply))
        return reply

    samples: list[Sample] = []
    rejected: list[Rejected] = []
    unread: list[int] = []
    undecided = 0
    try:
        for row in load(scheme).run(job, ask_and_record):
            if isinstance(row, Sample):
                samples.append(row)
            elif isinstance(row, Undecided):
                unread.append(len(exchanges) - 1)
                undecided += 1
            else:
                rejected.append(row)
                unread += [len(exchanges) - 1] if _is_unused(row.reason) else []
    except Reject as reject:
        text = exchanges[-1].reply.text if exchanges else ""
        unread += [len(exchanges) - 1] if exchanges and _is_unused(str(reject)) else []
        rejected.append(
            Rejected(id=job.id, scheme=scheme, reason=str(reject), text=text, details={})
        )
    return Outcome(
        samples=samples,
        rejected=rejected,
        exchanges=exchanges,
        unread=unread,
        undecided=undecided,
    )


def _is_unused(reason: str) -> bool:
    return reason.removesuffix("_reply").removesuffix("_response") in UNUSED


def summarise(jobs: Sequence[Job], outcomes: Sequence[Outcome], calls: int) -> Generated:
    """Count what was asked of the teacher and what was read from its replies."""
    replies = [e.reply for o in outcomes for e in o.exchanges if _is_answered(e)]
    unread = sum(_is_answered(o.exchanges[step]) for o in outcomes for step in o.unread)
    return Generated(
        jobs=len(jobs),
        calls=calls,
        asked=sum(job.asked for job in jobs),
        parsed=sum(map(count_parsed, outcomes)),
        repaired=sum(map(count_repaired, outcomes)),
        replies_read=(len(replies) - unread) / len(replies) if replies else 0.0,
        undecided_checks=sum(outcome.undecided for outcome in outcomes),
        teacher=", ".join(sorted({reply.model for reply in replies})),
        simulated=any(reply.simulated for reply in replies),
    )


def _is_answered(exchange: Exchange) -> bool:
    return exchange.reply.finish_reason not in UNANSWERED


def shortfall(counts: Generated) -> str:
    """Say what is wrong with a yield under half, or with checks that state nothing. "": nothing is
    wrong."""
    if not counts.calls:
        return "no request got a reply"
    if counts.parsed * 2 < counts.asked:
        share = f"{counts.parsed} of the {counts.asked} instructions asked for"
        return f"{share} could be read from the teacher's replies"
    if counts.replies_read < 0.5:
        return f"{counts.replies_read:.0%} of the teacher's replies could be read"
    if counts.undecided_checks * 2 > counts.parsed:
        return (
            f"{counts.undecided_checks} of the teacher's checks could not be read, and eliminate "
            f"nothing of the {counts.parsed} instructions"
        )
    return ""


def replies_to_show(outcomes: Sequence[Outcome]) -> list[Reply]:
    """Return the replies that a warning may show: those that could not be read, then all others."""
    unread = [o.exchanges[step] for o in outcomes for step in o.unread]
    others = [e for o in outcomes for n, e in enumerate(o.exchanges) if n not in o.unread]
    return [e.reply for e in [*unread, *others] if _is_answered(e)]


def list_reasons(outcomes: Sequence[Outcome]) -> str:
    """List the reasons of all rejects with their counts, the most frequent first."""
    reasons = Counter(row.reason for outcome in outcomes for row in outcome.rejected)
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())


def advise(scheme: str, outcomes: Sequence[Outcome]) -> str:
    """Say what to look at where nothing passes, by the reason that most rejects have."""
    reasons = Counter(row.reason for outcome in outcomes for row in outcome.rejected)
    reasons.pop("not_reached", None)
    most = max(reasons, key=lambda reason: reasons[reason], default="")
    if most == "too_long":
        return (
            "no request fits the teacher: raise context_tokens of llm.teacher, or lower max_tokens"
        )
    if most.startswith("truncated"):
        return "most replies are cut: raise max_tokens in the params of llm.teacher"
    folder = f"data/generate/{scheme}"
    return f"look at {folder}/replies.jsonl, at the teacher (llm.teacher) and at prompts/{scheme}/"


def count_parsed(outcome: Outcome) -> int:
    """Count the instructions that were read from the teacher's replies, those of rejects
    included."""
    read = [r for r in outcome.rejected if r.text.strip() and r.reason not in UNPARSED]
    return len(outcome.samples) + len(read)


def count_repaired(outcome: Outcome) -> int:
    """Count the instructions among them that had to be taken out of a malformed reply."""
    rows: list[Sample | Rejected] = [*outcome.samples, *outcome.rejected]
    return sum(row.details.get("repaired") is True for row in rows)


def say(ask: Ask, text: str, sample: int = 0) -> Reply:
    """Ask with one user message."""
    return ask([Message(role="user", content=text)], sample)


def draw_style(
    near: Sequence[Seed], others: Sequence[Seed], sources: Sequence[Seed], count: int, rng: Random
) -> list[dict[str, Any]]:
    """Draw `count` seeds whose own answers the teacher sees as examples of style.

    Seeds of the row's category (`near`) come first, then `others`. Those that a row is made from
    (`sources`) are never among them, nor their repetitions."""
    taken = {(seed.instruction, seed.context) for seed in sources}
    examples: list[Seed] = []
    for rows in (near, others):
        if len(examples) < count:
            by_text = {(seed.instruction, seed.context): seed for seed in rows}
            pool = [seed for text, seed in by_text.items() if text not in taken]
            examples += rng.sample(pool, min(count - len(examples), len(pool)))
            taken |= {(seed.instruction, seed.context) for seed in examples}
    return [seed.model_dump() for seed in examples]


def answer(
    ask: Ask, request: Callable[[str], str], text: str, examples: Sequence[Seed], sample: int = 0
) -> tuple[Reply, list[Seed]]:
    """Ask for the answer to `text`. Return the reply and the examples that stood before it.

    Each example is a turn of the conversation before: its own request, and its own answer. If that
    is more than the teacher takes, the longest example is left out and the request made again."""
    shown_seeds = list(examples)
    while True:
        turns = [turn for seed in shown_seeds for turn in _turns(seed, request)]
        reply = ask([*turns, Message(role="user", content=request(text))], sample)
        if reply.finish_reason != "too_long" or not shown_seeds:
            return reply, shown_seeds
        shown_seeds.remove(
            max(shown_seeds, key=lambda seed: len(seed.context) + len(seed.response))
        )


def _turns(seed: Seed, request: Callable[[str], str]) -> list[Message]:
    question = request(with_input(seed.instruction, seed.context))
    return [
        Message(role="user", content=question),
        Message(role="assistant", content=seed.response),
    ]


def style_details(examples: Sequence[Seed]) -> dict[str, str | int | bool]:
    """Return the part of a row's details that names the examples before its answer. {}: there are
    none."""
    return {"answers_shown": ", ".join(seed.id for seed in examples)} if examples else {}


def copy_fault(response: str, examples: Sequence[Seed]) -> str:
    """Return the reason if a response is the answer of an example, word for word, else ""."""
    same = any(response.split() == seed.response.split() for seed in examples)
    return "echo_response" if same else ""


def unfinished(reply: Reply) -> str | None:
    """Return the reason why this reply is no whole answer, or None if it is one.

    The reason is `refusal`, `truncated` or `empty`, or the ending of a request without a reply,
    `too_long` or `failed`."""
    if reply.finish_reason in UNANSWERED:
        return reply.finish_reason
    if reply.finish_reason == "refused":
        return "refusal"
    if reply.finish_reason == "length":
        # A cut reply may be empty too, when all its tokens went into thoughts.
        return "truncated"
    return None if reply.text.strip() else "empty"


def fault(reply: Reply, role: str) -> str:
    """Return the reason why this reply is no whole `response` (or `reply`), such as
    `empty_response`.

    "": it is one. `too_long` and `failed` say nothing of a reply, and stand without the role."""
    reason = unfinished(reply)
    return reason if reason in UNANSWERED else f"{reason}_{role}" if reason else ""


def licences(listed: Sequence[str]) -> str:
    """List the licences that a sample inherits from its seeds, each once."""
    return ", ".join(sorted(set(listed)))
