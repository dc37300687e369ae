"""LaMini (OpenBezoar 3.1.1, LaMini-LM): show the teacher examples of one category, and ask for more
like them. Then have each new instruction answered by a call of its own."""

from collections.abc import Iterator
from random import Random

from bezoar.params import Lamini
from bezoar.reading.examples import Item, examples
from bezoar.rows.chat import with_input
from bezoar.rows.prompts import MARKUP, Prompt, fence
from bezoar.rows.records import Ask, Job, Reject, Rejected, Reply, Sample, Seed, Seeds
from bezoar.schemes import (
    answer,
    categories,
    copy_fault,
    draw_style,
    fault,
    licences,
    say,
    style_details,
    unfinished,
)

NAME = "lamini"
# The paper's text names the number of examples itself, and so may a user's.
INSTRUCTIONS = Prompt(f"{NAME}/instructions", "asked", "category", "topics")
TOPICS = Prompt(f"{NAME}/topics", "asked", "category", "examples")
EXAMPLE, RESPONSE = Prompt(f"{NAME}/example"), Prompt(f"{NAME}/response")
MARKERS = MARKUP[NAME]


def plan(seeds: Seeds, params: Lamini, rng: Random) -> list[Job]:
    """Plan `params.calls` jobs, each of one category.

    Categories with too few seeds are passed over. Without topics that meet LaMini-LM's criterion no
    call is guided by topics."""
    by_category: dict[str, list[Seed]] = {name: [] for name in categories(seeds.dolly, params)}
    for seed in seeds.dolly:
        by_category.get(seed.category, []).append(seed)
    large = [name for name, rows in by_category.items() if len(rows) >= params.examples]
    topics = [
        topic.name
        for topic in seeds.topics
        if len(topic.name.split()) <= params.topic_words
        and (topic.subcategories is None or topic.subcategories > params.topic_subcategories)
    ]
    jobs: list[Job] = []
    examples: list[list[Seed]] = []
    for number in range(1, params.calls + 1 if large else 1):
        category = rng.choice(large)
        job_seeds = rng.sample(by_category[category], params.examples)
        guided = rng.random() < params.topic_guided and len(topics) >= params.topics
        inputs = {
            "category": category,
            "examples": [with_input(seed.instruction, seed.context) for seed in job_seeds],
            "topics": rng.sample(topics, params.topics) if guided else [],
            "seeds": [seed.id for seed in job_seeds],
            "licences": [seed.licence for seed in job_seeds],
            "fewer": params.fewer_examples,
        }
        jobs.append(Job(id=f"{NAME}-{number:05d}", asked=params.asked, inputs=inputs))
        examples.append(job_seeds)
    # These are drawn last, so that the requests for instructions stay what they are without them.
    pool = [seed for rows in by_category.values() for seed in rows]
    for job, job_seeds in zip(jobs, examples, strict=True):
        near = by_category[job.inputs["category"]]
        job.inputs["answers"] = draw_style(near, pool, job_seeds, params.answers_shown, rng)
    return jobs


def run(job: Job, ask: Ask) -> Iterator[Sample | Rejected]:
    """Ask for new examples, then yield a row for each. Reject: there is no reply, or no example in
    it can be read."""
    listed, reply = _ask_examples(job, ask)
    reason = unfinished(reply)
    # Of a cut reply, the examples before the cut are whole.
    if reason and (reason != "truncated" or not reply.text.strip()):
        raise Reject(fault(reply, "reply"))
    items = examples(reply.text, cut=reply.finish_reason != "stop")
    if not items:
        raise Reject("no_examples")
    if all(item.fault == "unread_example" for item in items):
        raise Reject("unread")
    for number in range(1, max(job.asked, len(items)) + 1):
        item = items[number - 1] if number <= len(items) else Item("", fault="missing")
        yield _row(job, number, item, listed, ask)


def _ask_examples(job: Job, ask: Ask) -> tuple[list[int], Reply]:
    """Return the places of the examples that were shown, and the reply to them.

    All are shown. If the teacher cannot take them all and `fewer_examples` allows it, the longest
    ones are left out."""
    lengths = [len(text) for text in job.inputs["examples"]]
    listed = list(range(len(lengths)))
    reply = say(ask, _prompt(job, listed))
    while reply.finish_reason == "too_long" and job.inputs["fewer"] and len(listed) > 1:
        listed.remove(max(listed, key=lambda place: lengths[place]))
        reply = say(ask, _prompt(job, listed))
    return listed, reply


def _row(job: Job, number: int, item: Item, listed: list[int], ask: Ask) -> Sample | Rejected:
    """Return a sample for an example that is new and whole and has a response, else a reject."""
    inputs = job.inputs
    id, text = f"{job.id}-{number}", with_input(item.instruction, item.context)
    details: dict[str, str | int | bool] = {
        "topic_guided": bool(inputs["topics"]),
        "repaired": item.repaired,
    }
    details |= {"shown": len(listed), "answered": item.answered}
    reason = "surplus" if number > job.asked else item.fault
    reason = reason or ("echo" if text in inputs["examples"] else "")
    style: list[Seed] = []
    if not reason:
        style_seeds = [Seed.model_validate(seed) for seed in inputs["answers"]]
        reply, style = answer(ask, _response_request, text, style_seeds)
        reason = fault(reply, "response") or copy_fault(reply.text, style)
        details |= style_details(style)
    if reason:
        return Rejected(id=id, scheme=NAME, reason=reason, text=text, details=details)
    return Sample(
        id=id,
        scheme=NAME,
        system="",
        instruction=item.instruction,
        context=item.context,
        response=reply.text.strip(),
        expected="",
        category=inputs["category"],
        details=details,
        seeds=[inputs["seeds"][place] for place in listed],
        licence=licences(
            [*(inputs["licences"][place] for place in listed), *(seed.licence for seed in style)]
        ),
        teacher=reply.model,
        simulated=reply.simulated,
    )


def _response_request(text: str) -> str:
    """Write the request for the response to an instruction."""
    return RESPONSE.fill(instruction=fence(text, "###RESPONSE:"))


def _prompt(job: Job, listed: list[int]) -> str:
    """Write the request for new examples. A guided call's topics go into `$topics` of the shared
    prompt, unless the file of the topics is a whole prompt with `$examples`."""
    texts = [job.inputs["examples"][place] for place in listed]
    blanks = {
        "asked": str(job.asked),
        "category": job.inputs["category"],
        "examples": "\n".join(EXAMPLE.fill(instruction=fence(t, *MARKERS)) for t in texts),
    }
    if not job.inputs["topics"]:
        return INSTRUCTIONS.fill(**blanks, topics="")
    topics = "\n".join(f"Topic: {topic}" for topic in job.inputs["topics"])
    guided = TOPICS.fill(**blanks, topics=topics)
    if TOPICS.holds("examples"):
        return guided
    INSTRUCTIONS.require(
        "topics",
        f", or write the whole prompt of a guided call, with $examples, into {TOPICS.path}, or set "
        "schemes.lamini.topic_guided: 0.0",
    )
    return INSTRUCTIONS.fill(**blanks, topics=f"\n{guided}")
