"""A simulated teacher and simulated judges: no language model, no network, free, repeatable.

They answer from the prompt alone, and know the invented world (bezoar/world/). Their choices are
drawn from a hash of the prompt and the sample index, so equal requests get equal replies in any
process. They misbehave at stated rates, as the paper's teacher and judge did, so that every repair
and reject path runs. Every reply says that it is simulated.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import partial

from bezoar.llm.embedded import judge, teacher
from bezoar.rows.files import BadInput
from bezoar.rows.records import Ask, Message, Reply

MODELS: dict[str, Callable[[str, random.Random], tuple[str, bool]]] = {
    "world-teacher": teacher.respond,
    "world-judge": judge.respond,
    "strict-world-judge": partial(judge.respond, least=7),
    "form-judge": partial(judge.respond, knows=False),
}


def connect(model: str) -> Ask:
    """Return the simulated model of that name. BadInput: there is no such model."""
    if model not in MODELS:
        raise BadInput(f"llm: {model!r} is no embedded model; have {', '.join(sorted(MODELS))}")
    respond = MODELS[model]

    def ask(messages: Sequence[Message], sample: int = 0) -> Reply:
        turns = [f"{message.role}\0{message.content}" for message in messages]
        digest = hashlib.sha256("\0".join([model, str(sample), *turns]).encode()).hexdigest()
        text, complete = respond(messages[-1].content, random.Random(digest))
        return Reply(
            text=text,
            finish_reason="stop" if complete else "length",
            tokens_in=sum(len(message.content.split()) for message in messages),
            tokens_out=len(text.split()),
            model=model,
            simulated=True,
        )

    return ask
