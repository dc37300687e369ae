"""LaMini (OpenBezoar 2.1, LaMini-LM): show the teacher examples of one category, ask for more like
them, then have each new instruction answered by a call of its own."""

import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from bezoar.params import Lamini
from bezoar.prompts import Prompt, fence
from bezoar.records import Ask, Job, Reject, Rejected, Sample, Seed, Seeds
from bezoar.schemes import licences, say, split_input, unfinished, with_input

NAME = "lamini"
INSTRUCTIONS, EXAMPLE, TOPICS, RESPONSE = (
    Prompt(f"{NAME}/{p}") for p in ("instructions", "example", "topics", "response")
)
MARKERS = ("<example>", "</example>", "###PROVIDED EXAMPLES(", "###RESPONSE:")

_TAG = re.compile(r"<(?P<slash>/?)example>", re.IGNORECASE)
_ANNOUNCED = re.compile(r"\s*(?:sure\W+)?here are\b.*\bexamples\b.*(?:\n|$)", re.IGNORECASE)
_LISTED = re.compile(
    r"^[ \t]{0,3}(?:(?P<number>\d{1,3})[.)]|(?P<bullet>[-*•]))[ \t]+", re.MULTILINE
)
_LABEL = re.compile(r"\A\s*instruction:\s*", re.IGNORECASE)


class Item(NamedTuple):
    """One example as read from a reply. Not `whole`: its closing tag is missing."""

    instruction: str
    context: str
    whole: bool
    repaired: bool


def plan(seeds: Seeds, params: Lamini, rng: Random) -> list[Job]:
    """`params.calls` jobs. Categories with too few seeds are passed over; without topics that meet
    LaMini-LM's criterion no call is guided by any."""
    by_category: dict[str, list[Seed]] = {name: [] for name in params.categories}
    for seed in seeds.dolly:
        by_category.get(seed.category, []).append(seed)
    categories = [name for name, rows in by_category.items() if len(rows) >= params.examples]
    topics = [
        topic.name
        for topic in seeds.topics
        if len(topic.name.split()) <= params.topic_words
        and (topic.subcategories is None or topic.subcategories > params.topic_subcategories)
    ]
    jobs = []
    for number in range(1, params.calls + 1 if categories else 1):
        category = rng.choice(categories)
        shown = rng.sample(by_category[category], params.examples)
        guided = rng.random() < params.topic_guided and len(topics) >= params.topics
        inputs = {
            "category": category,
            "examples": [with_input(seed.instruction, seed.context) for seed in shown],
            "topics": rng.sample(topics, params.topics) if guided else [],
            "seeds": [seed.id for seed in shown],
            "licence": licences([seed.licence for seed in shown]),
        }
        jobs.append(Job(id=f"{NAME}-{number:05d}", asked=params.asked, inputs=inputs))
    return jobs


def run(job: Job, ask: Ask) -> Iterator[Sample | Rejected]:
    given = job.inputs
    reply = say(ask, _prompt(job))
    why = unfinished(reply)
    if why and why != "truncated":  # what came before a cut is whole
        raise Reject(f"{why}_reply")
    items = read(reply.text)
    if not items:
        raise Reject("no_examples")
    for number in range(1, max(job.asked, len(items)) + 1):
        item = items[number - 1] if number <= len(items) else Item("", "", False, False)
        id = f"{job.id}-{number}"
        text = with_input(item.instruction, item.context)
        details = {"topic_guided": bool(given["topics"]), "repaired": item.repaired}
        if number > len(items):
            fault = "missing"
        elif number > job.asked:
            fault = "surplus"
        elif not item.whole:
            fault = "unclosed_example"
        elif not item.instruction:
            fault = "empty_instruction"
        elif text in given["examples"]:
            fault = "echo"
        else:
            answer = say(ask, RESPONSE.fill(instruction=fence(text, "###RESPONSE:")))
            if not (why := unfinished(answer)):
                yield Sample(
                    id=id,
                    scheme=NAME,
                    system="",
                    instruction=item.instruction,
                    context=item.context,
                    response=answer.text.strip(),
                    expected="",
                    category=given["category"],
                    details=details,
                    seeds=given["seeds"],
                    licence=given["licence"],
                    teacher=answer.model,
                    simulated=answer.simulated,
                )
                continue
            fault = f"{why}_response"
        yield Rejected(id=id, scheme=NAME, reason=fault, text=text, details=details)


def _prompt(job: Job) -> str:
    topics = "".join(f"\nTopic: {topic}" for topic in job.inputs["topics"])
    return INSTRUCTIONS.fill(
        asked=str(job.asked),
        category=job.inputs["category"],
        topics="\n" + TOPICS.fill(topics=topics[1:]) if topics else "",
        examples="\n".join(
            EXAMPLE.fill(instruction=fence(text, *MARKERS)) for text in job.inputs["examples"]
        ),
    )


def read(reply: str) -> list[Item]:
    """The examples in a reply, in their order. A pair of tags that opens by announcing examples
    holds a list of them (paper 2.1: some 53 results did) and is taken apart."""
    items = []
    for block, closed in _blocks(reply):
        announced = _ANNOUNCED.match(block)
        texts = _listed(block[announced.end() :]) if announced else [block]
        for number, text in enumerate(texts, 1):
            instruction, context = split_input(_LABEL.sub("", text, count=1))
            whole = closed or number < len(texts)
            items.append(Item(instruction, context, whole, repaired=announced is not None))
    return items


def _blocks(reply: str) -> Iterator[tuple[str, bool]]:
    """What follows each opening tag, and whether a closing one ends it."""
    opened = None
    for tag in _TAG.finditer(reply):
        if opened is not None:
            block = reply[opened : tag.start()]
            if tag["slash"] or block.strip():
                yield block, bool(tag["slash"])
        opened = None if tag["slash"] else tag.end()
    if opened is not None and reply[opened:].strip():
        yield reply[opened:], False


def _listed(text: str) -> list[str]:
    """The entries of a list that counts 1, 2, 3 or has bullets; other marks belong to an entry."""
    marks = list(_LISTED.finditer(text))
    entries: list[re.Match[str]] = []
    for mark in marks:
        same = mark["bullet"] == marks[0]["bullet"]
        if same and (mark["bullet"] or int(mark["number"]) == len(entries) + 1):
            entries.append(mark)
    ends = [*(mark.start() for mark in entries[1:]), len(text)]
    # not strict: without an entry there is still one end
    return [text[mark.end() : end] for mark, end in zip(entries, ends, strict=False)]
