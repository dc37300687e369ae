"""A conversation with a loaded model: its turns, its settings, and an answer as it is written."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from bezoar.models import generation, loading
from bezoar.rows import chat, thoughts
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message

PARTIAL = "\ufffd"  # what stands for a character whose last bytes have not been written yet
LARGE = 100_000_000  # parameters from which several threads of a CPU are faster than one


class Answer(NamedTuple):
    """What was answered, why it ended, how many tokens of context it had before it, and how many
    exchanges were left out of that to make room."""

    text: str
    finish: Literal["stop", "length", "interrupted", "no_room"]
    tokens: int
    left_out: int


@dataclass
class Session:
    """A conversation. `system` "" is the template's own; `temperature` 0 takes the likeliest token
    each time; an answer has at most `tokens`, and ends before one of `stop`."""

    model: Any
    tokenizer: Any
    system: str = ""
    temperature: float = 0.0
    tokens: int = 256
    stop: Sequence[str] = ()
    turns: list[Message] = field(default_factory=list)

    @property
    def positions(self) -> int:
        """Tokens that the model takes at once."""
        return loading.context(self.model.config)

    def say(self, text: str, show: Callable[[str], None]) -> Answer:
        """Say `text`, the user's next turn, and have `show` called with each further piece of the
        answer. Ctrl-C ends an answer, and what is written by then is kept. A message that is longer
        than the context is not kept."""
        self.turns.append(Message(role="user", content=text))
        try:
            ids, left_out = self._fitting()
        except BadInput:
            self.turns.pop()
            raise
        if len(ids) >= self.positions:
            self.turns.pop()
            return Answer("", "no_room", len(ids), left_out)
        stream = Stream(self.tokenizer, self.stop, show)
        finish = self._write(ids, stream)
        # the next turn is not to be told what a model thought, as its template has it
        answered = thoughts.part(stream.shown).text
        self.turns.append(Message(role="assistant", content=answered))
        return Answer(stream.shown, finish, len(ids), left_out)

    def _fitting(self) -> tuple[list[int], int]:
        """The conversation as token ids, with room for an answer, and how many exchanges had to go
        for that, the oldest first."""
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
        """Continue `ids` into `stream`."""
        import torch
        from transformers import GenerationConfig

        stops = generation.ends(self.model, self.tokenizer)
        sampled = {"temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        how = GenerationConfig(
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
                    generation_config=how,
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
    """Takes the tokens of an answer as transformers writes them and shows their text: no half of a
    character, and nothing of what ends the answer."""

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
        at = min((place for stop in self.stop if (place := text.find(stop)) >= 0), default=None)
        if at is not None:
            self._show(text[:at])
            raise StopText
        self._show(text[: len(text) - self._withheld(text)])

    def end(self) -> None:
        """Show what was held back: nothing more comes."""
        self._show(self._text())

    def _text(self) -> str:
        return chat.decode(self.tokenizer, [self.ids])[0]

    def _withheld(self, text: str) -> int:
        """How many characters at the end may become others, or the beginning of a stop text."""
        partial = len(text) - len(text.rstrip(PARTIAL))
        begun = (
            length
            for stop in self.stop
            for length in range(len(stop) - 1, 0, -1)
            if text.endswith(stop[:length])
        )
        return max(partial, max(begun, default=0))

    def _show(self, text: str) -> None:
        # a tokenizer may put another space before a text as that grows: then wait for its end
        if text.startswith(self.shown) and len(text) > len(self.shown):
            self.show(text[len(self.shown) :])
            self.shown = text


@contextmanager
def threads(model: Any) -> Iterator[None]:
    """Let a large model on a CPU have all of its threads: no bytes are to be the same here."""
    import os

    import torch

    before = torch.get_num_threads()
    if model.device.type == "cpu" and model.num_parameters() > LARGE:
        torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
