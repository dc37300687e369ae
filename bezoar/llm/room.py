"""The room in a model's context: a request must fit in there together with its longest reply.

`context_tokens` of an endpoint is the size of the context, prompt and reply together. A null says
that it is not known, and then every request fits. The longest reply is the maximum that `params`
set. If they set none, one token must be left.

Tokens of the prompt are counted with the model's tokenizer where one is named. Else they are
estimated: BYTES_PER_TOKEN of ASCII are a token, and so is each character beyond ASCII. The text
that a server's chat template adds is not known here and has an allowance.

Example: a context of 4,096 tokens and max_tokens of 512 leave 3,584 for the prompt. A chat of one
message in English may have (3584 - 32 - 8) * 4 = 14,176 bytes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bezoar.llm import budget
from bezoar.llm.budget import BYTES_PER_TOKEN
from bezoar.llm.wire import value_at
from bezoar.params import Anthropic, Endpoint, InProcess, OpenAI
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message

FILE = "tokenizer.json"
# Tokens that a chat template writes around each message, and once around a request (its own system
# message, and the opening of the reply). ours: ChatML takes 5 and 23, Llama 3.1's 5 and 30
PER_MESSAGE, PER_CHAT = 8, 32
PER_TEXT = 2  # of a prompt without a template: its first token, a blank line between two


class Room:
    """The room of one endpoint's model. Make it once, and ask it about each request.

    A model in this process has the context and the tokenizer of its folder. A simulated one takes
    everything. BadInput: `tokenizer` names a place without one.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._where = f"llm: {endpoint.model}: tokenizer"
        # read only when a request is too large for its bytes alone to show that it fits
        self._tokenizer: Any = None
        self._file: Path | None = None
        self._chat = isinstance(endpoint, Anthropic) or getattr(endpoint, "style", "") == "chat"
        self._longest = self._again = 1
        self._context: int | None = None
        match endpoint:
            case OpenAI() | Anthropic():
                self._context = endpoint.context_tokens
                self._longest = longest_reply(endpoint.params)
                self._again = longest_reply({**endpoint.params, **endpoint.again})
                if endpoint.tokenizer:
                    self._file = _tokenizer_file(endpoint.tokenizer, self._where)
            case InProcess():
                self._context = positions(Path(endpoint.model))
                self._longest, self._again = endpoint.most(), endpoint.most(sample=1)
                file = Path(endpoint.model, FILE)
                self._file = file if file.is_file() else None

    def fits(self, messages: Sequence[Message], sample: int = 0) -> bool:
        """Say whether the model can take the request and give the longest reply to it."""
        if self._context is None:
            return True
        left = self._context - (self._again if sample else self._longest)
        # The size in bytes shows of most requests that they fit. Counting takes a thousand times as
        # long.
        if self._file and self.most(messages) <= left:
            return True
        return self.tokens(messages) <= left

    def most(self, messages: Sequence[Message]) -> int:
        """Return the most tokens that a request can have: each stands for one byte at least."""
        sizes = (len(message.content.encode("utf-8", "replace")) for message in messages)
        return sum(sizes) + self._around(messages)

    def tokens(self, messages: Sequence[Message]) -> int:
        """Count or estimate the tokens of a request."""
        count = self._counted if self._file else estimate_tokens
        return sum(count(message.content) for message in messages) + self._around(messages)

    def _around(self, messages: Sequence[Message]) -> int:
        """Return the tokens that stand around and between the texts."""
        if self._chat:
            return PER_CHAT + PER_MESSAGE * len(messages)
        return PER_TEXT * len(messages)

    def prove(self) -> None:
        """Read the tokenizer that the endpoint names. BadInput: its file is no tokenizer."""
        if self._file:
            self.tokenizer()

    def _counted(self, text: str) -> int:
        return len(self.tokenizer().encode(replace_surrogates(text), add_special_tokens=False).ids)

    def tokenizer(self) -> Any:
        """Return the tokenizer that the endpoint names. BadInput: its file is no tokenizer."""
        assert self._file is not None
        if self._tokenizer is None:
            self._tokenizer = _load(self._file, self._where)
        return self._tokenizer


def positions(folder: Path) -> int | None:
    """Read from a folder's config.json how many tokens its model takes. None where that does not
    say."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    for part in (config, value_at(config, "text_config")):
        for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(tokens := value_at(part, name), int) and tokens > 0:
                return tokens
    return None


def longest_reply(params: Mapping[str, Any]) -> int:
    """Return the most tokens that a reply may have by `params`, 1 where they set no maximum."""
    _, most = budget.worst_tokens(0, params)
    return max(1, most or 1)  # llama.cpp takes -1 for none


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text by its bytes and characters alone."""
    plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return -(-plain // BYTES_PER_TOKEN) + len(text) - plain


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates (halves of characters) by "?", because no tokenizer takes them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _tokenizer_file(location: str, prefix: str) -> Path:
    """Return the tokenizer.json at a path, which is the file or a folder that holds it. BadInput:
    there is none."""
    path = Path(location).expanduser()
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise BadInput(
            f"{prefix}: {location}: no {FILE} there; name the file or the folder that holds it, or "
            "null: tokens are then estimated"
        )
    return file


def _load(file: Path, prefix: str) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no narrower one
        why = " ".join(str(error).split())[:200]
        raise BadInput(
            f"{prefix}: {file}: no tokenizer ({why}); name the {FILE} that lies beside the model's "
            "weights, or null: tokens are then estimated"
        ) from None
    # a file may ask for its texts to be cut, which would make everything fit
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # a text may hold the name of a special token, such as <|im_end|>: there it is plain text
    tokenizer.encode_special_tokens = True
    return tokenizer
