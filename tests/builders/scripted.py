"""A model that says what a test wants it to say: an `Ask` that also remembers what it was asked."""

from collections.abc import Callable, Sequence

from bezoar.rows.records import Message, Reply

Line = str | Reply


def said(text: str, finish_reason: str = "stop", model: str = "scripted") -> Reply:
    """A reply with that text."""
    return Reply.model_validate(
        {
            "text": text,
            "finish_reason": finish_reason,
            "tokens_in": 1,
            "tokens_out": 1,
            "model": model,
            "simulated": True,
        }
    )


class Scripted:
    """Replies with the lines of a list, one a call, or with what a function makes of the prompt.
    A call beyond the end of the list is an error of the code under test."""

    def __init__(self, script: Sequence[Line] | Callable[[str], Line]) -> None:
        self.script = script
        self.prompts: list[str] = []
        self.messages: list[list[Message]] = []

    def __call__(self, messages: Sequence[Message], sample: int = 0) -> Reply:
        prompt = messages[-1].content
        self.prompts.append(prompt)
        self.messages.append(list(messages))
        at = len(self.prompts) - 1
        line = self.script(prompt) if callable(self.script) else self.script[at]
        return line if isinstance(line, Reply) else said(line)
