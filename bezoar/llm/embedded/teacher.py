"""The simulated teacher: writes examples, responses, evolutions and explanations.

It knows from the prompt's structural markers which of them to write. Only the operations of
Evol-Instruct have no marker, and are known by the words of their files. It misbehaves at the rates
below.
"""

import random
import re

from bezoar.llm.embedded import outside
from bezoar.rows.prompts import Prompt
from bezoar.world.facts import ATTRIBUTES, TABLE, TAUGHT, TAUGHT_SUMS, passage
from bezoar.world.grammar import (
    PARTS_PHRASINGS,
    TEACHER_PHRASINGS,
    Fact,
    Reading,
    Sum,
    join,
    read,
)
from bezoar.world.sources import example

# Rates of misbehaviour: the rest is well behaved. The paper gives that of `one_pair` (53 results of
# some 1,500); its Table 4 shows how much there was to reject: a quarter of the LaMini responses, a
# third of the Evol ones, most of Orca's.
EXAMPLES = {  # of calls for examples
    "one_pair": 0.035,  # all examples are in one pair of tags
    "copy": 0.02,  # one example is a seed of the prompt
    "near_copy": 0.05,  # one is such a seed with other punctuation
    "unclosed": 0.03,
    "cut": 0.03,
    "empty": 0.02,
    "answered": 0.03,  # one comes with a response that nobody asked for
}
RESPONSES = {"wrong": 0.10, "gibberish": 0.04, "blank": 0.01, "refusal": 0.01, "dots": 0.01}
EVOLUTIONS = {
    "equal": 0.10,  # it holds nothing new
    "leaked": 0.025,  # it holds words of the prompt
}
# The share of sums among the parts that an evolution adds or asks for. The rest are facts.
NEW_SUMS = 0.35
EXPLANATIONS = {"wrong": 0.05, "rambling": 0.04, "gibberish": 0.04, "cut": 0.02}


def respond(prompt: str, rng: random.Random) -> tuple[str, bool]:
    """Answer a prompt of one of the schemes, or any other text: (reply, True unless it is cut)."""
    text = prompt.rstrip()
    for ending, write in _WRITERS:
        if text.endswith(ending):
            return write(text.removesuffix(ending), rng)
    return _response(text, rng)


def _fault(rates: dict[str, float], rng: random.Random) -> str:
    """Draw a kind of misbehaviour, or "" for none."""
    return rng.choices([*rates, ""], weights=[*rates.values(), 1 - sum(rates.values())])[0]


# --- LaMini: more examples like these -------------------------------------------------------------


def _examples(prompt: str, rng: random.Random) -> tuple[str, bool]:
    # Tags around a seed stand on lines of their own. A tag inside a line belongs to the
    # instructions of the prompt.
    seeds = [text.strip() for text in re.findall(r"<example>\n(.*?)</example>", prompt, re.DOTALL)]
    category_line = re.search(r"\(Category: ([^)\n]+)\)", prompt)
    topics = re.findall(r"^Topic: (.+)$", prompt, re.MULTILINE)
    number = re.search(r"\b(\d{1,2}) new examples\b", prompt)
    amount = int(number[1]) if number else 5
    category = category_line[1].strip() if category_line else ""
    world_seeds = [text for text in seeds if read(text)]
    fault = _fault(EXAMPLES, rng)
    listed = fault == "one_pair"
    if len(world_seeds) * 2 >= len(seeds) > 0:
        examples = [_world_example(category, topics, rng, listed) for _ in range(amount)]
    else:
        examples = [_other_example(seeds, topics, rng, listed) for _ in range(amount)]
    if listed:
        return _one_pair(examples, rng), True
    return _tagged(examples, seeds, fault, rng)


def _world_example(category: str, topics: list[str], rng: random.Random, bare: bool) -> str:
    """Write an example of the world. `bare` ones need no input."""
    category = category if category in TEACHER_PHRASINGS else "open_qa"
    animals = _themed(rng.choice(topics)) if topics else TAUGHT
    text, context = example(rng.choice(TEACHER_PHRASINGS[category]), category, rng, animals)
    # a bare example must be answerable without the input that is left out
    if bare and not read(text):
        text, context = example(rng.choice(TEACHER_PHRASINGS["open_qa"]), "open_qa", rng, animals)
    return f"{text}\nInput: {context}" if context and not bare else text


def _themed(topic: str) -> tuple[str, ...]:
    """Return the taught animals that a topic speaks of, or all of them where it names nothing of
    the world."""
    topic_words = {word.strip("s") for word in topic.lower().split()} | set(topic.lower().split())
    animals = tuple(
        a for a in TAUGHT if a.strip("s") in topic_words or topic_words & set(TABLE[a].values())
    )
    return animals or TAUGHT


def _other_example(seeds: list[str], topics: list[str], rng: random.Random, bare: bool) -> str:
    """Write an example from outside the world, about key words of the seeds or about a topic."""
    heads = [text.split("\nInput:")[0] for text in seeds]
    first, second = outside.subjects(heads, rng, 2)
    text = outside.new_instruction(
        rng.choice(topics) if topics else first, second, rng, " ".join(heads)
    )
    contexts = [text.split("\nInput:", 1)[1] for text in seeds if "\nInput:" in text]
    if contexts and not bare:
        context = outside.sentences(rng.choice(contexts))
        start = rng.randrange(max(1, len(context) - 2))
        return f"{text}\nInput: {' '.join(context[start : start + 3])}"
    return text


def _one_pair(examples: list[str], rng: random.Random) -> str:
    opening = rng.choice(("Here are 5 examples:", "Here are five examples:"))
    numbered = rng.random() < 0.5
    lines = [f"{n}. {text}" if numbered else f"- {text}" for n, text in enumerate(examples, 1)]
    return "\n".join(["<example>", opening, *lines, "</example>"])


def _tagged(
    examples: list[str], seeds: list[str], fault: str, rng: random.Random
) -> tuple[str, bool]:
    """Put each example into its pair of tags, and the fault into one of them."""
    position = rng.randrange(len(examples))
    if fault in ("copy", "near_copy") and seeds:
        examples[position] = rng.choice(seeds) if fault == "copy" else _nearly(rng.choice(seeds))
    blocks = [f"<example>\n{text}\n</example>" for text in examples]
    if fault == "unclosed":
        blocks[position] = blocks[position].removesuffix("\n</example>")
    elif fault == "empty":
        blocks[position] = "<example>\n</example>"
    elif fault == "answered":
        blocks[position] += f"\nResponse: {_right(examples[position])}"
    elif fault == "cut":
        blocks[-1] = blocks[-1][: len(blocks[-1]) // 2]
    return "\n".join(blocks), fault != "cut"


def _nearly(text: str) -> str:
    """Return a seed with other punctuation."""
    head, _, tail = text.partition("\nInput:")
    head = head.rstrip(" .?!") + " now?"
    return f"{head}\nInput:{tail}" if tail else head


# --- responses ------------------------------------------------------------------------------------


def _request(text: str) -> str:
    """Find the request inside a response prompt, which opens with the prompt's own words.

    It is the text behind the label. Without a label it is the longest end of the prompt, cut at a
    blank line, that is of the world. Else it is all but the first paragraph.
    """
    label = re.search(r"^INSTRUCTION:\n", text, re.MULTILINE)
    if label:
        return text[label.end() :]
    paragraphs = text.split("\n\n")
    for start in range(1, len(paragraphs)):
        end = "\n\n".join(paragraphs[start:])
        if read(end):
            return end
    return "\n\n".join(paragraphs[1:]) or text


def _bare_response(prompt: str, rng: random.Random) -> tuple[str, bool]:
    return _response(_request(prompt.rstrip()), rng)


def _turn(prompt: str, rng: random.Random) -> tuple[str, bool]:
    return _response(prompt.rsplit("<human>:", 1)[-1].strip(), rng)


def _response(request: str, rng: random.Random) -> tuple[str, bool]:
    """Write a short answer, right most of the time."""
    right = _right(request)
    fault = _fault(RESPONSES, rng)
    if fault == "wrong":
        return _wrong(request, right, rng), True
    if fault == "gibberish":
        return _gibberish(right, rng), True
    return {"blank": "", "refusal": "Sorry, I can not answer that.", "dots": "..."}.get(
        fault, right
    ), True


def _right(request: str) -> str:
    reading = read(request)
    if reading:
        return reading.answer
    instruction, _, context = request.partition("\nInput:")
    return outside.answer(instruction, context.strip())


def _wrong(request: str, right: str, rng: random.Random) -> str:
    """Write a wrong answer of the right form. Outside the world it is the words of the request out
    of order."""
    reading = read(request)
    if not reading:
        words = request.split()[:12]
        return " ".join(rng.sample(words, len(words)))
    return _falsify(reading, right, rng)


def _falsify(reading: Reading, text: str, rng: random.Random) -> str:
    """Swap the answer to one part in `text` for a wrong one."""
    part = rng.choice(reading.parts)
    if isinstance(part, Sum):
        off = str(part.left + part.right + rng.choice((1, 2, 3)))
        swapped = rf"(?<!\d){part.answer}(?!\d)(?!.*(?<!\d){part.answer}(?!\d))"
        return re.sub(swapped, off, text, count=1, flags=re.DOTALL)
    wrong_value = rng.choice([v for v in ATTRIBUTES[part.kind] if v != part.answer])
    return re.sub(rf"\b{part.answer}\b", wrong_value, text)


def _gibberish(text: str, rng: random.Random) -> str:
    """Write a loop of words, as a model that repeats itself does."""
    words = text.split()[-3:] or ["so"]
    return " ".join(words * rng.randint(8, 20))


# --- Evol-Instruct --------------------------------------------------------------------------------


def _rewrite(prompt: str, rng: random.Random) -> tuple[str, bool]:
    """Write the prompt that is given with one part more (in-depth)."""
    head, _, rest = prompt.partition("#Given Prompt#:")
    original, operation = rest.strip(), _operation(head)
    fault = _fault(EVOLUTIONS, rng)
    if fault == "equal":
        return _same(original, rng), True
    reading = read(original)
    if reading is None:
        instruction, _, context = original.partition("\n\nInput:")
        evolved = outside.deeper(instruction, operation, rng)
        evolved = f"{evolved}\n\nInput:{context}" if context else evolved
    else:
        parts = _more(reading, "\nInput:" in original, rng)
        phrasings = PARTS_PHRASINGS.get(operation, PARTS_PHRASINGS["deepen"])
        evolved = rng.choice(phrasings).format(parts=join(parts))
    return _leak(evolved, "rewritten prompt", fault, rng), True


def _operation(head: str) -> str:
    """Find the operation whose words stand in a prompt, "" where those of none do."""
    for name in PARTS_PHRASINGS:
        words, _, _ = Prompt(f"evol_instruct/operations/{name}").text.partition("#Given Prompt#:")
        if words.strip() and words.strip() in head:
            return name
    return ""


def _create(prompt: str, rng: random.Random) -> tuple[str, bool]:
    """Write a new prompt of the same kind (in-breadth).

    It stands alone: where the original came with an input, the new one brings an input of its own.
    """
    original = prompt.partition("#Given Prompt#:")[2].strip()
    fault = _fault(EVOLUTIONS, rng)
    if fault == "equal":
        return _same(original, rng), True
    reading = read(original)
    if reading is None:
        head = original.partition("\n\nInput:")[0]
        first, second = outside.subjects([head], rng, 2)
        created = outside.new_instruction(first, second, rng, head)
    else:
        created = _new(reading, "\nInput:" in original, rng)
    return _leak(created, "created prompt", fault, rng), True


def _more(reading: Reading, with_input: bool, rng: random.Random) -> tuple[Fact | Sum, ...]:
    """Return the parts of a reading and a new one. Three parts or more are cut to one first."""
    parts = reading.parts if len(reading.parts) <= 2 else reading.parts[:1]
    # a new part must be answered by the same input, so it is about the same animal
    if with_input and reading.animal:
        pool: list[Fact | Sum] = [Fact(kind, reading.animal) for kind in ATTRIBUTES]
    elif rng.random() < NEW_SUMS:
        pool = [Sum(*pair) for pair in TAUGHT_SUMS]
    else:
        pool = [Fact(kind, animal) for animal in TAUGHT for kind in ATTRIBUTES]
    return (*parts, rng.choice([part for part in pool if part not in parts]))


def _new(reading: Reading, with_input: bool, rng: random.Random) -> str:
    """Ask for other parts. `with_input` adds a text about their animal."""
    if not with_input:
        return _ask_for(_draw_others(reading, TAUGHT, rng), rng)
    animal = rng.choice(TAUGHT)
    question = _ask_for(_draw_others(reading, (animal,), rng), rng)
    return f"{question}\n\nInput: {passage(animal, rng.randrange(3))}"


def _draw_others(
    reading: Reading, animals: tuple[str, ...], rng: random.Random
) -> tuple[Fact | Sum, ...]:
    """Draw parts about `animals` that the reading does not have: two where it has two, else one."""
    facts = [Fact(kind, animal) for animal in animals for kind in ATTRIBUTES]
    new = [fact for fact in facts if fact not in reading.parts] or facts
    if len(reading.parts) == 2:
        return tuple(rng.sample(new, min(2, len(new))))
    if animals == TAUGHT and rng.random() < NEW_SUMS:
        return (Sum(*rng.choice(TAUGHT_SUMS)),)
    return (rng.choice(new),)


def _ask_for(parts: tuple[Fact | Sum, ...], rng: random.Random) -> str:
    if any(isinstance(part, Sum) for part in parts):
        return f"What is {join(parts)}?"
    phrasing = rng.choice(("What is {}?", "Name {}.", "Tell me {}.", "Give {}."))
    return phrasing.format(join(parts))


def _same(original: str, rng: random.Random) -> str:
    """Return a prompt that is no evolution: the original, or its question in other words."""
    reading = read(original)
    if reading is None or reading.form != "values" or "\nInput:" in original or rng.random() < 0.4:
        return original
    return f"Name {join(reading.parts)}."


def _leak(evolved: str, words: str, fault: str, rng: random.Random) -> str:
    if fault == "leaked":
        return rng.choice((f"Here is the {words}: {evolved}", f"{evolved} (This is the {words}.)"))
    return evolved


def _comparison(prompt: str, rng: random.Random) -> tuple[str, bool]:
    """Complete "The two prompts are".

    Two questions are equal when they ask for the same parts in the same form. Two texts from
    outside are equal when nearly all their words are the same.
    """
    first, _, second = prompt.rpartition("#First Prompt#:")[2].partition("#Second Prompt#:")
    second = second.removesuffix("<bot>:")
    readings = read(first.strip()), read(second.strip())
    if readings[0] and readings[1]:
        same = readings[0].form == readings[1].form and set(readings[0].parts) == set(
            readings[1].parts
        )
    else:
        words = [{w.lower() for w in text.split()} for text in (first, second)]
        same = len(words[0] & words[1]) >= 0.9 * max(1, len(words[0] | words[1]))
    return " equal." if same else " not equal.", True


# --- Orca -----------------------------------------------------------------------------------------


def _explanation(prompt: str, rng: random.Random) -> tuple[str, bool]:
    """Write the correct answer as a full sentence. Outside the world it names the query's key
    words."""
    body, _, rest = prompt.rpartition("#Correct answer:")
    answer, _, request = rest.strip().rpartition("\n\n")
    target = answer or request  # the last paragraph asks to be guided by the answer
    query = body.partition("#Task:")[2].strip()
    reading = read(query)
    right = reading.explanation if reading else outside.explanation(query, target)
    fault = _fault(EXPLANATIONS, rng)
    if fault == "wrong":
        subjects = " and ".join(outside.subjects([query], rng, 2))
        return _falsify(reading, right, rng) if reading else f"This asks for {subjects}.", True
    if fault == "rambling":
        return " ".join([right, *["As I said before, it is so."] * 40]), True
    if fault == "gibberish":
        return _gibberish(right, rng), True
    return right[: len(right) // 2] if fault == "cut" else right, fault != "cut"


# The end of a prompt says what to write. An ending that is the end of another comes after it: so
# "###RESPONSE:" before "RESPONSE:".
_WRITERS = (
    ("###RESPONSE:", _examples),
    ("RESPONSE:", _bare_response),
    ("#Response:", _explanation),
    ("<bot>: #Rewritten Prompt#:", _rewrite),
    ("<bot>: #Created Prompt#:", _create),
    ("<bot>: The two prompts are", _comparison),
    ("<bot>:", _turn),
)
