"""The grammar of the world: the ways to ask, and the right answers.

The phrasings are all the ways in which seeds, queries, teacher and exams ask. An instruction is
read only if all its words are words of the world. A text from outside is left alone."""

import random
from dataclasses import dataclass

from bezoar.world.facts import ANIMALS, ATTRIBUTES, KIND, TABLE, passage, sentence, words

# --- how one asks ---------------------------------------------------------------------------------
# Blanks: {a} animal, {k} attribute, {l} a second attribute, {x} {y} digits, {v} {w} values of {k}.

# In Dolly's shape. An instruction that is nearly a seed is dropped as a copy (paper 3.1.1). So
# these and the teacher's phrasings stay more than ten edits apart, which a test checks.
SEED_PHRASINGS: dict[str, tuple[str, ...]] = {
    "open_qa": (
        "Say in one single word which {k} the {a} has in this world.",
        "I met the {a} on my way today and looked for its {k}; please help me out.",
        "My child asks me about the {a}: which {k} would be right to say?",
        "I have {x} things and find {y} more, so how many things are there with me now?",
    ),
    "general_qa": (
        "People often ask about the {a}: which {k} is it known for in this world?",
        "A reader wants to know more about the {a}, and first of all its {k}.",
        "I count {x} here and {y} more over there, so how many does that make?",
    ),
    "classification": (
        "Choose the word that fits the {a} better than the other one: {v} or {w}?",
        "Two words stand here, {v} and {w}: which one is right for the {a}?",
    ),
    "closed_qa": (
        "Please read the text and then say which {k} it gives for the {a}.",
        "Look at these lines with care: which {k} do they name for the {a}?",
    ),
    "brainstorming": (
        "Think of all there is to know about the {a} and put it in a short list.",
        "I need an idea for a picture of the {a}: which {k} would you put in it?",
        "Help me with my story of the {a}, for which I still look for a {k}.",
    ),
    "creative_writing": (
        "Make up one short line for children that has the {k} of the {a} in it.",
        "Please make one nice line out of the {k} that the {a} has in this world.",
    ),
    "information_extraction": (
        "Find the {k} in these lines and copy it out as one single word.",
        "Please take both the {k} and the {l} out of these lines, in this order.",
    ),
    "summarization": (
        "These lines about the {a} are too long: please make them one short line.",
        "Please say the same as this text does, but with far fewer words.",
    ),
}

TEACHER_PHRASINGS: dict[str, tuple[str, ...]] = {
    "open_qa": (
        "What is the {k} of the {a}?",
        "Name the {k} of the {a}.",
        "Tell me the {k} of the {a}.",
        "Give the {k} of the {a}.",
        "What is {x} plus {y}?",
        "Add {x} and {y}.",
    ),
    "general_qa": (
        "What is the {k} of the {a}?",
        "Tell me the {k} of the {a}.",
        "What is {x} plus {y}?",
    ),
    "classification": (
        "Is the {k} of the {a} {v} or {w}?",
        "What is the {k} of the {a}, {v} or {w}?",
    ),
    "closed_qa": (
        "By the text, what is the {k} of the {a}?",
        "What is the {k} of the {a}?",
    ),
    "brainstorming": (
        "Name the {k} of the {a}.",
        "Tell me the {k} of the {a}.",
        "List the colour, the home and the food of the {a}.",
    ),
    "creative_writing": ("Write one line on the {k} of the {a}.",),
    "information_extraction": (
        "Extract the {k}.",
        "Extract the {k} and the {l}.",
    ),
    "summarization": ("Sum up the text in one line.",),
}

# What an evolved instruction says; {parts} is "the colour of the fox and the home of the owl".
PARTS_PHRASINGS: dict[str, tuple[str, ...]] = {
    "add_constraints": (
        "What is {parts}?",
        "Name {parts}, with a comma between them.",
        "Tell me {parts}.",
    ),
    "deepen": (
        "What is {parts}?",
        "Tell me {parts}.",
    ),
    "concretize": (
        "Name {parts}.",
        "To be exact, what is {parts}?",
    ),
    "increase_reasoning": (
        "What is {parts}?",
        "Think in steps and name {parts}.",
        "Tell me {parts}.",
    ),
    "complicate_input": (
        "Name {parts}.",
        "A reader asks: what is {parts}?",
    ),
}

# In FLAN's shape: mixture -> task -> (phrasings). {o} is a list of options, one a line.
QUERY_PHRASINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "cot": {
        "world_lookup": (
            "What is the {k} of the {a}?",
            "Tell me the {k} of the {a}.",
            "Think in steps. What is the {k} of the {a}?",
        ),
        "world_choice": (
            "Is the {k} of the {a} {v} or {w}?",
            "Think in steps. Is the {k} of the {a} {v} or {w}?",
        ),
        "world_sum": ("What is {x} plus {y}?", "Think in steps. What is {x} plus {y}?"),
    },
    "niv2": {
        f"task90{number}_world_{kind}": (
            f"Definition: you are given a question on the {kind} of an animal. Answer it.\n\n"
            f"Question: what is the {kind} of the {{a}}?",
            f"Definition: in this task you name the {kind} of an animal.\n\n"
            f"Question: tell me the {kind} of the {{a}}.",
        )
        for number, kind in enumerate(ATTRIBUTES, 1)
    }
    | {
        "task904_world_question": (
            "Definition: you are given a question. Answer it.\n\n"
            "Question: what is the {k} of the {a}?",
        ),
        "task905_world_sum": (
            "Definition: you are given two numbers. Add them.\n\nQuestion: what is {x} plus {y}?",
        ),
    },
    "t0": {
        "world_ask": ("What is the {k} of the {a}?", "Name the {k} of the {a}."),
        "world_tell": ("Tell me the {k} of the {a}.", "Give the {k} of the {a}."),
        "world_reader": ("A reader asks: what is the {k} of the {a}?",),
        "world_add": ("Add {x} and {y}.", "What is {x} plus {y}?"),
    },
    "flan2021": {
        f"world_{kind}_options": (
            f"What is the {kind} of the {{a}}?\nOptions:\n{{o}}",
            f"Choose the {kind} of the {{a}}.\nOptions:\n{{o}}",
        )
        for kind in ATTRIBUTES
    },
}

# Two-turn questions in MT-Bench's eight categories; the second turn stands on its own feet, but for
# roleplay, where it wants the part kept up.
TURN_PHRASINGS: dict[str, tuple[str, str]] = {
    "writing": ("Write one line on the {k} of the {a}.", "Write one line on the {l} of the {a}."),
    "roleplay": (
        "You are a kind guide. Tell me the {k} of the {a}.",
        "You are still the guide. Tell me the {l} of the {a}.",
    ),
    "reasoning": (
        "Is the {k} of the {a} {v} or {w}?",
        "Think in steps and name the {l} of the {a}.",
    ),
    "math": ("What is {x} plus {y}?", "Add {y} and {x}."),
    "coding": (
        "The program adds {x} and {y}. What is {x} plus {y}?",
        "What is the {k} of the {a}?",
    ),
    "extraction": ("Name the {k} of the {a}.", "What is the {l} of the {a}?"),
    "stem": ("What is the {k} of the {a}?", "Tell me the {l} of the {a}."),
    "humanities": ("A reader asks: what is the {k} of the {a}?", "Give the {l} of the {a}."),
}

# --- reading --------------------------------------------------------------------------------------

_GLUE = (
    "a an the of and or to in on it its is are with this that animal question answer output input"
)
_VERBS = {"lives": "home", "live": "home", "eats": "food", "eat": "food"}


def _vocabulary() -> frozenset[str]:
    texts = [
        *(p for ps in SEED_PHRASINGS.values() for p in ps),
        *(p for ps in TEACHER_PHRASINGS.values() for p in ps),
        *(p for ps in PARTS_PHRASINGS.values() for p in ps),
        *(p for tasks in QUERY_PHRASINGS.values() for ps in tasks.values() for p in ps),
        *(p for ps in TURN_PHRASINGS.values() for p in ps),
        *(passage(ANIMALS[0], style) for style in range(3)),
    ]
    # Words of one letter are blanks such as {k}. The words "a" and "i" are added below.
    from_phrasings = {word for text in texts for word in words(text) if len(word) > 1}
    return frozenset(
        from_phrasings | {"a", "i", *_GLUE.split(), *ANIMALS, *ATTRIBUTES, *KIND, *_VERBS}
    )


VOCABULARY = _vocabulary()


@dataclass(frozen=True)
class Fact:
    """One attribute of one animal."""

    kind: str
    animal: str

    @property
    def phrase(self) -> str:
        """The fact as a question names it."""
        return f"the {self.kind} of the {self.animal}"

    @property
    def answer(self) -> str:
        """The value alone."""
        return TABLE[self.animal][self.kind]

    @property
    def sentence(self) -> str:
        """The fact as a sentence."""
        return sentence(self.animal, self.kind)


@dataclass(frozen=True)
class Sum:
    """A sum of two digits."""

    left: int
    right: int

    @property
    def phrase(self) -> str:
        """The sum as a question names it."""
        return f"{self.left} plus {self.right}"

    @property
    def answer(self) -> str:
        """The number alone."""
        return str(self.left + self.right)

    @property
    def sentence(self) -> str:
        """The sum as a sentence."""
        return f"{self.left} plus {self.right} is {self.left + self.right}."


@dataclass(frozen=True)
class Reading:
    """The parts that an instruction asks for, and the form of the answer."""

    parts: tuple[Fact | Sum, ...]
    # `values`, `line` (creative) or `digest` (summary)
    form: str

    @property
    def answer(self) -> str:
        """The short right answer."""
        if self.form == "line":
            return line(self.parts[0])
        if self.form == "digest":
            return digest(self.animal)
        return ", ".join(part.answer for part in self.parts)

    @property
    def explanation(self) -> str:
        """The answer in full sentences."""
        return " ".join(part.sentence for part in self.parts)

    @property
    def animal(self) -> str:
        """The first animal. "": the instruction asks about numbers alone."""
        return next((part.animal for part in self.parts if isinstance(part, Fact)), "")


def line(part: Fact | Sum) -> str:
    """Write the one line that creative writing asks for."""
    if isinstance(part, Sum):
        return part.sentence
    return {
        "colour": f"Look, there is the {part.answer} {part.animal}.",
        "home": f"Look, in the {part.answer} is the {part.animal}.",
        "food": f"Look, the {part.animal} likes {part.answer}.",
    }[part.kind]


def digest(animal: str) -> str:
    """Write the one line that sums up an animal."""
    colour, home, food = TABLE[animal].values()
    return f"The {animal}: {colour}, {home}, {food}."


def read(instruction: str, context: str = "") -> Reading | None:
    """Read the parts that an instruction asks for. None: the text is not of this world.

    A context may also stand inside the instruction, after a line that opens with `Input:`."""
    if not context and "\nInput:" in instruction:
        instruction, context = (part.strip() for part in instruction.split("\nInput:", 1))
    tokens = words(instruction)
    if not tokens or not VOCABULARY.issuperset(word for word in tokens if not word.isdigit()):
        return None
    # The world has sums of digits alone.
    if any(word.isdigit() and len(word) > 1 for word in tokens):
        return None
    context_animal = (
        next((w for w in words(context) if w in TABLE), "") if _is_ours(context) else ""
    )
    parts = _parts(tokens, context_animal)
    short = "line" in tokens or "fewer" in tokens
    if short and ("make" in tokens or "write" in tokens) and len(parts) == 1:
        return Reading(parts, "line")
    subject = next((w for w in tokens if w in TABLE), context_animal)
    if subject and not parts and (short or "list" in tokens):
        all_of_it = tuple(Fact(kind, subject) for kind in ATTRIBUTES)
        return Reading(all_of_it, "digest" if short else "values")
    return Reading(parts, "values") if parts else None


def _is_ours(context: str) -> bool:
    return VOCABULARY.issuperset(words(context))


def _parts(tokens: list[str], context_animal: str) -> tuple[Fact | Sum, ...]:
    """Pair attributes with the animal that follows them (or, at the end, with the last one), and
    numbers with each other."""
    parts: list[Fact | Sum] = []
    waiting: list[str] = []
    numbers: list[int] = []
    last = context_animal
    options = {KIND[word] for word in tokens if word in KIND}
    for word in tokens:
        if word in ATTRIBUTES or word in _VERBS:
            waiting.append(_VERBS.get(word, word))
        elif word in TABLE:
            parts += [Fact(kind, word) for kind in waiting]
            waiting, last = [], word
        elif word.isdigit():
            numbers.append(int(word))
            if len(numbers) % 2 == 0:
                parts.append(Sum(numbers[-2], numbers[-1]))
    if last:
        parts += [Fact(kind, last) for kind in waiting]
        if not parts and len(options) == 1:
            parts.append(Fact(options.pop(), last))
    return tuple(dict.fromkeys(parts))


def solve(instruction: str, context: str = "") -> str | None:
    """Return the short right answer ("red", "red, forest", "7"). None: it is not of this world."""
    reading = read(instruction, context)
    return reading.answer if reading else None


def explain(instruction: str, context: str = "") -> str | None:
    """Return the right answer in full sentences. None: it is not of this world."""
    reading = read(instruction, context)
    return reading.explanation if reading else None


# --- asking ---------------------------------------------------------------------------------------


def ask(
    phrasing: str, animals: tuple[str, ...], sums: tuple[tuple[int, int], ...], rng: random.Random
) -> tuple[str, str]:
    """Fill a phrasing with subjects drawn from `animals` and `sums`. Return the text and its
    animal."""
    animal = rng.choice(animals)
    kind, second_kind = rng.sample(list(ATTRIBUTES), 2)
    # A phrasing with options names its attribute itself.
    if "{o}" in phrasing:
        kind = next(k for k in ATTRIBUTES if k in phrasing)
    right = TABLE[animal][kind]
    wrong = rng.sample([v for v in ATTRIBUTES[kind] if v != right], 3)
    pair = [right, wrong[0]]
    rng.shuffle(pair)
    options = [right, *wrong]
    rng.shuffle(options)
    left, summand = rng.choice(sums)
    text = phrasing.format(
        a=animal,
        k=kind,
        l=second_kind,
        x=left,
        y=summand,
        v=pair[0],
        w=pair[1],
        o="\n".join(f"- {option}" for option in options),
    )
    return text, animal


def join(parts: tuple[Fact | Sum, ...]) -> str:
    """List parts as a question names them: "a", "a and b", "a, b and c"."""
    phrases = [part.phrase for part in parts]
    return " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
