"""A conversation with a loaded model: its turns, its settings, and an answer as it is written."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from bezoar.models import generation, loading
from bezoar.rows import chat, thoughts
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message

PARTIAL = "\ufffd"  # decoded in place of a character whose last bytes are not written yet
LARGE = 100_000_000  # parameters from which several threads of a CPU are faster than one


class Answer(NamedTuple):
    """An answer: its text, the reason why it ended, and the tokens of context before it.

    `left_out` is the number of exchanges that were left out of that context to make room.
    """

    text: str
    finish: Literal["stop", "length", "interrupted", "no_room"]
    tokens: int
    left_out: int


@dataclass
class Session:
    """A conversation.

    `system` "" is the template's own system message. `temperature` 0 takes the likeliest token each
    time. An answer has at most `tokens` tokens, and ends before any of the texts in `stop`.
    """

    model: Any
    tokenizer: Any
    system: str = ""
    temperature: float = 0.0
    tokens: int = 256
    stop: Sequence[str] = ()
    turns: list[Message] = field(default_factory=list)

    @property
    def positions(self) -> int:
        """Return the tokens that the model takes at once."""
        return loading.context(self.model.config)

    def say(self, text: str, show: Callable[[str], None]) -> Answer:
        """Say `text`, the user's next turn, and return the answer.

        `show` is called with each further piece of it. Ctrl-C ends an answer, and the part that is
        written by then is kept. A message that is longer than the context is not kept. BadInput:
        the model's chat template refuses the conversation.
        """
        self.turns.append(Message(role="user", content=text))
        try:
            ids, left_out = self._fit()
        except BadInput:
            self.turns.pop()
            raise
        if len(ids) >= self.positions:
            self.turns.pop()
            return Answer("", "no_room", len(ids), left_out)
        stream = Stream(self.tokenizer, self.stop, show)
        finish = self._write(ids, stream)
        # The thoughts are left out of the conversation, as chat templates leave them out: the model
        # does not see them in the next turn.
        answered = thoughts.part(stream.shown).text
        self.turns.append(Message(role="assistant", content=answered))
        return Answer(stream.shown, finish, len(ids), left_out)

    def _fit(self) -> tuple[list[int], int]:
        """Return the conversation as token ids, with room for an answer, and the number of
        exchanges that were dropped for that, the oldest first."""
        room = min(self.tokens, self.positions // 2)
        left_out = 0
        while True:
            ids = self._ids()
            if len(self.turns) == 1 or len(ids) + room <= self.positions:
                return ids, left_out
            del self.turns[:2]
            left_out += 1

    def _ids(self) -> list[int]:
        from jinja2 import TemplateError

        try:
            return chat.prompts(self.tokenizer, [self.turns], [self.system])[0]
        except TemplateError as error:
            raise BadInput(f"the model's chat template refuses this: {error}") from None

    def _write(self, ids: list[int], stream: "Stream") -> Literal["stop", "length", "interrupted"]:
        """Continue `ids` into `stream`, and return the reason why the answer ended."""
        import torch
        from transformers import GenerationConfig

        stops = generation.end_tokens(self.model, self.tokenizer)
        sampled = {"temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        settings = GenerationConfig(
            max_new_tokens=min(self.tokens, self.positions - len(ids)),
            do_sample=self.temperature > 0,
            eos_token_id=sorted(stops) or None,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=generation.fastest(self.model) != "bare",
            **(sampled if self.temperature > 0 else {}),
        )
        prompt = torch.tensor([ids], device=self.model.device)
        try:
            with generation.plain(self.model):
                self.model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    generation_config=settings,
                    streamer=stream,
                )
        except StopText:
            return "stop"
        except KeyboardInterrupt:
            return "interrupted"
        return "stop" if stream.ids and stream.ids[-1] in stops else "length"


class StopText(Exception):
    """The answer has come to a text before which it ends."""


class Stream:
    """A streamer for transformers: it takes the tokens of an answer and shows their text.

    It shows no half of a character, and nothing of the text that ends the answer. Example: with the
    stop text "<human>:" an answer that has come to "Yes. <hum" is shown as "Yes. ", until the next
    token shows whether "<hum" goes on to "<human>:".
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], show: Callable[[str], None]) -> None:
        self.tokenizer, self.stop, self.show = tokenizer, [text for text in stop if text], show
        self.ids: list[int] = []
        self.shown = ""
        self._prompted = False

    def put(self, tokens: Any) -> None:
        """Take in the next token. The prompt comes first, and is not shown."""
        if not self._prompted:
            self._prompted = True
            return
        self.ids += tokens.flatten().tolist()
        text = self._text()
        cut = min((place for stop in self.stop if (place := text.find(stop)) >= 0), default=None)
        if cut is not None:
            self._show(text[:cut])
            raise StopText
        self._show(text[: len(text) - self._count_withheld(text)])

    def end(self) -> None:
        """Show the text that was held back, because nothing more comes."""
        self._show(self._text())

    def _text(self) -> str:
        return chat.decode(self.tokenizer, [self.ids])[0]

    def _count_withheld(self, text: str) -> int:
        """Count the characters at the end that may become others, or begin a stop text."""
        partial = len(text) - len(text.rstrip(PARTIAL))
        begun = (
            length
            for stop in self.stop
            for length in range(len(stop) - 1, 0, -1)
            if text.endswith(stop[:length])
        )
        return max(partial, max(begun, default=0))

    def _show(self, text: str) -> None:
        # As a text grows, a tokenizer may decode its beginning otherwise (with another space). Text
        # that was shown cannot be taken back: then nothing is shown until the beginning fits again.
        if text.startswith(self.shown) and len(text) > len(self.shown):
            self.show(text[len(self.shown) :])
            self.shown = text


@contextmanager
def threads(model: Any) -> Iterator[None]:
    """Let a large model on a CPU have all threads: answers here need not be the same on every
    machine."""
    import os

    import torch

    before = torch.get_num_threads()
    if model.device.type == "cpu" and model.num_parameters() > LARGE:
        torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
