"""A transformers model in this process, over the same ledger.

It uses the code that answers MT-Bench (models/generation.py). A reply is kept as soon as its row of
the batch has ended, and the next request takes that row. So a kill loses only replies that were
half written. The tokens that are drawn follow from the request and its sample number alone. The
model computes in the type that suits the machine (bezoar/models/loading.py), whatever type its
weights are kept in.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bezoar import work
from bezoar.llm import client, openai, room
from bezoar.llm.budget import Purse
from bezoar.llm.client import Call, Stopped, empty_reply
from bezoar.llm.ledger import Ledger
from bezoar.llm.wire import value_at, without_nulls
from bezoar.models import generation, loading
from bezoar.models.generation import Batch, Draw
from bezoar.params import LOCAL_FOLDER, LOCAL_MAXIMA, InProcess, OpenAI, Price
from bezoar.rows import chat
from bezoar.rows.files import BadInput

T = TypeVar("T")

FREE = Price(input=0, cached=0, output=0, batch=1)
INDEX = "model.safetensors.index.json"
TOKENIZERS = (room.FILE, "tokenizer.model", "vocab.json")


class Request(NamedTuple):
    """A request that is being answered: its body, and the tokens of its prompt."""

    call: Call
    body: dict[str, Any]
    tokens: int


class Client(client.Client):
    """A client whose server is a model in this process.

    Requests and replies have OpenAI's form, so that all else is the same as with a server.
    """

    def __init__(self, endpoint: InProcess, ledger: Ledger, purse: Purse) -> None:
        check(endpoint)
        shape = openai_endpoint(endpoint)
        super().__init__(shape, openai.Wire(shape, None), ledger, purse, "")
        self._local = endpoint
        self._loaded: tuple[Any, Batch] | None = None  # the tokenizer, and the model's rows
        self._taken: dict[str, Call] = {}  # out of the queue, and not answered yet
        # the request of each row of the batch, by the row's name; used in the other thread alone
        self._answering: dict[int, Request] = {}
        self._named = 0
        self._computing = self._leaving = False
        self._thread: threading.Thread | None = None

    def _pump(self) -> None:
        if not self._computing and self._queue:
            self._computing = True
            self._start(self._compute())

    async def _compute(self) -> None:
        """Answer the requests that wait, and those that come meanwhile."""
        try:
            while not self._stopped and (self._queue or self._taken):
                calls = self._next()
                self._taken |= {call.key: call for call in calls}
                for call, document in await self._apart(partial(self._write, calls)):
                    # _stop has finished this call already, with the reason why the run ends
                    if self._taken.pop(call.key, None) is None:
                        continue
                    self._heard = time.monotonic()
                    if document is None:
                        self._finish(call, empty_reply("too_long", self.endpoint.model))
                    else:
                        self._keep(call, self._reply(call, document, batch=False))
        except Exception as error:  # whoever waits must hear of it
            self._stop(error)
        finally:
            self._computing = False

    def _next(self) -> list[Call]:
        """Claim as many requests as the batch has free rows, without those that another process
        answers."""
        free = self._loaded[1].free if self._loaded else self._local.batch_size
        calls: list[Call] = []
        while self._queue and len(calls) < free:
            call = self._queue.popleft()
            if self._reserve(call, batch=False) == "taken":
                calls.append(call)
        return calls

    def _waiting_for(self, now: float) -> str:
        words = f"{self.endpoint.model} writes {len(self._taken)} replies"
        if rest := len(self._calls) - len(self._taken):
            words += f", {rest} more requests wait"
        return words + (f"; {elsewhere}" if (elsewhere := self.elsewhere.words()) else "")

    def _stop(self, why: Exception) -> None:
        super()._stop(why)
        for call in self._taken.values():
            self._finish(call, why)
        self._taken.clear()

    async def _apart(self, work: Callable[[], T]) -> T:
        """Do `work` in a daemon thread, so that a process that ends need not wait for it.

        Stopped: the work cannot go on, for a reason that the user can mend.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        before = self._thread

        def run() -> None:
            try:
                # an earlier thread that was given up ends with its next token: never two at once
                if before:
                    before.join()
                self._leaving = False
                tell: Callable[[], None] = partial(future.set_result, work())
            except BadInput as error:  # a SystemExit, which would end the loop
                why = Stopped(str(error).removeprefix("error: "))
                tell = partial(future.set_exception, why)
            except Exception as error:
                tell = partial(future.set_exception, error)
            with contextlib.suppress(RuntimeError):  # the loop ended with the process
                self._loop.call_soon_threadsafe(lambda: None if future.done() else tell())

        self._thread = threading.Thread(target=run, name="local model", daemon=True)
        self._thread.start()
        return await future

    async def _end(self, close: bool) -> None:
        self._leaving = True
        await super()._end(close)

    # --- below here: the other thread, one at a time ---------------------------------------------

    def _write(self, calls: Sequence[Call]) -> list[tuple[Call, dict[str, Any] | None]]:
        """Take in requests and write on, until one is answered or others may join.

        Returns the answered requests with their replies, or those that do not fit the model's
        context, with None.
        """
        if self._loaded is None:
            self._loaded = load(self._local)
        tokenizer, batch = self._loaded
        too_long = [call for call in calls if not self._take(call, tokenizer, batch)]
        if too_long:
            return [(call, None) for call in too_long]
        ended: list[generation.Ended] = []
        while batch and not ended and not self._leaving and not (self._queue and batch.free):
            ended = self._step(batch)
        return [self._document(answer) for answer in ended]

    def _take(self, call: Call, tokenizer: Any, batch: Batch) -> bool:
        """Give a request a row of the batch. False where the model has no room for its longest
        reply."""
        body = json.loads(call.body)
        ids = prompt_ids(self._local, tokenizer, body)
        most = max(body.get(name) or 0 for name in LOCAL_MAXIMA)
        if len(ids) + most > batch.positions:
            return False
        self._named += 1
        self._answering[self._named] = Request(call, body, len(ids))
        # the key stands for the request, its sample number and the model's bytes
        batch.add(self._named, ids, most, Draw(float(body.get("temperature") or 0), call.key))
        return True

    def _step(self, batch: Batch) -> list[generation.Ended]:
        try:
            return batch.step()
        except (RuntimeError, MemoryError) as error:  # torch's own for a GPU is a RuntimeError
            if "memory" not in str(error) and "allocate" not in str(error):
                raise
            raise BadInput(
                f"llm: {self._local.model}: no memory for {len(self._answering)} requests at "
                f"once; lower batch_size ({self._local.batch_size})"
            ) from None

    def _document(self, ended: generation.Ended) -> tuple[Call, dict[str, Any]]:
        """Return a request and its reply, in the form in which a server would send it."""
        call, body, tokens = self._answering.pop(ended.name)
        text = ended.continuation.text
        choice = {"text": text} if "prompt" in body else {"message": {"content": text}}
        return call, {
            "model": body["model"],
            "choices": [{**choice, "finish_reason": ended.continuation.finish}],
            "usage": {"prompt_tokens": tokens, "completion_tokens": ended.tokens},
        }


def openai_endpoint(endpoint: InProcess) -> OpenAI:
    """Return the endpoint as if a server had the model.

    The bytes of the folder are its address. So the ledger's answers also hold for another folder
    with the same bytes, and for no other.
    """
    return OpenAI(
        provider="openai",
        style=endpoint.style,
        structured=False,
        system_role=endpoint.system_role,
        model=Path(endpoint.model).name,
        terms=endpoint.terms,
        base_url=f"http://local/{work.content(endpoint.model)}",
        api_key_env=None,
        # 0 is the default, but it is stated here: `is_greedy` sees by it that a further sample
        # would be the first one again
        params={"temperature": 0, **without_nulls(endpoint.params)},
        again=endpoint.again,
        mode="live",
        concurrency=endpoint.concurrency,
        requests_per_minute=None,
        tokens_per_minute=None,
        timeout=1,
        patience=0,
        max_failed=0,
        reply_tokens=1,
        price=FREE,
    )


# --- the model -----------------------------------------------------------------------------------


def check(endpoint: InProcess) -> None:
    """Check by its files that the folder holds a model that can be asked. BadInput: it does not."""
    folder, prefix = Path(endpoint.model), f"llm: {endpoint.model}"
    if folder.is_symlink():
        raise BadInput(
            f"{prefix}: a link to a folder, into which DVC does not look; make a folder of that "
            "name and link or copy each file (cp -al)"
        )
    if loading.is_adapter(folder):
        raise BadInput(f"{prefix}: an adapter, where a full model is wanted; merge it first")
    if not (folder / "config.json").is_file():
        raise BadInput(
            f"{prefix}: no config.json in there; model is the folder of a transformers model, "
            f"{LOCAL_FOLDER}/NAME"
        )
    _check_weights(folder, prefix)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise BadInput(f"{prefix}: no tokenizer in there; put tokenizer.json beside the weights")
    if (positions := room.positions(folder)) is None:
        raise BadInput(
            f"{prefix}: its config.json does not say how many tokens the model takes; add "
            "max_position_embeddings"
        )
    if (most := max(endpoint.most(), endpoint.most(sample=1))) >= positions:
        raise BadInput(
            f"{prefix}: a reply of {most} tokens fills its context of {positions}, which leaves no "
            f"room for a prompt; lower {LOCAL_MAXIMA[0]} in params"
        )


def _check_weights(folder: Path, prefix: str) -> None:
    if not any(folder.glob("*.safetensors")):
        raise BadInput(
            f"{prefix}: no *.safetensors in there, and pickled weights, which can run code when "
            "they are loaded, are not; save the model with safe_serialization=True"
        )
    if (folder / INDEX).is_file():
        parts = value_at(_read(folder / INDEX, prefix), "weight_map")
        files = set(parts.values()) if isinstance(parts, dict) else set()
        if missing := sorted(name for name in files if not (folder / str(name)).is_file()):
            raise BadInput(f"{prefix}: {missing[0]} is missing, which {INDEX} names; copy it too")


def _read(file: Path, prefix: str) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError:
        raise BadInput(f"{prefix}: {file.name} is no JSON; copy it again") from None


def prove(endpoint: InProcess) -> None:
    """Check, with its tokenizer loaded, that the model can be asked as stages will ask. BadInput:
    it cannot. Its weights are not read."""
    check(endpoint)
    _tokenizer(endpoint)


def load(endpoint: InProcess) -> tuple[Any, Batch]:
    """Load the model: its tokenizer, and an empty batch that its requests join."""
    import torch

    loading.quiet()
    tokenizer = _tokenizer(endpoint)
    threads = torch.get_num_threads()
    device = loading.device()
    # loading.device() sets the number of threads for answers that are the same on every machine.
    # Answers here are kept, so that is not needed, and a large model on a CPU gets all cores.
    torch.set_num_threads(threads)
    folder = Path(endpoint.model)
    model = _or_bad_input(endpoint, lambda: loading.plain(folder, device.dtype, device).eval())
    _rehearse(endpoint, model)
    return tokenizer, Batch(model, tokenizer, endpoint.batch_size)


def _rehearse(endpoint: InProcess, model: Any) -> None:
    """Check that models of this kind can continue prompts. BadInput: they cannot."""
    try:
        generation.fastest(model)
    except BadInput as error:
        why = str(error).removeprefix("error: ").partition("; ")[0]
        raise BadInput(
            f"llm: {endpoint.model}: {why}; serve it, and name its address (provider: openai)"
        ) from None


def _tokenizer(endpoint: InProcess) -> Any:
    """Load the tokenizer, and check that the model's chat template takes the messages that stages
    send. BadInput: it does not."""
    folder, prefix = Path(endpoint.model), f"llm: {endpoint.model}"
    tokenizer = _or_bad_input(endpoint, lambda: loading.own_tokenizer(folder))
    if endpoint.style == "chat":
        if not tokenizer.chat_template:
            raise BadInput(
                f"{prefix}: its tokenizer has no chat template; style: completion sends the bare "
                "prompt, or put the model's chat_template.jinja into the folder"
            )
        talk = [{"role": "user", "content": "Hello"}]
        prompt_ids(endpoint, tokenizer, {"messages": talk})
        if endpoint.system_role:
            prompt_ids(
                endpoint,
                tokenizer,
                {"messages": [{"role": "system", "content": "Be brief"}, *talk]},
            )
    return tokenizer


def _or_bad_input(endpoint: InProcess, load_part: Callable[[], T]) -> T:
    try:
        return load_part()
    except BadInput:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors share no class of errors
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise BadInput(
            f"llm: {endpoint.model}: transformers cannot load it ({why}); name another model, or "
            "copy its files again"
        ) from None


def prompt_ids(endpoint: InProcess, tokenizer: Any, body: dict[str, Any]) -> list[int]:
    """Return the token ids of a request, up to where the model answers. BadInput: the chat template
    refuses the messages."""
    if "prompt" in body:
        [ids] = chat.ids(tokenizer, [room.replace_surrogates(body["prompt"])])
    else:
        messages = [
            {**turn, "content": room.replace_surrogates(turn["content"])}
            for turn in body["messages"]
        ]
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # whatever a template raises, or stumbles over
            raise BadInput(_refused(endpoint, messages, error)) from None
        # the template writes the special tokens, BOS among them
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    # a model cannot continue nothing: an empty prompt becomes one special token
    begins = tokenizer.bos_token_id
    return ids or [tokenizer.eos_token_id if begins is None else begins]


def _refused(endpoint: InProcess, messages: list[dict[str, str]], error: Exception) -> str:
    why = " ".join(str(error).split())[:200] or type(error).__name__
    roles = ", ".join(message["role"] for message in messages)
    do = "name a model that takes them"
    if endpoint.system_role and messages[0]["role"] == "system":
        do = "system_role: false puts a system message before the first user message"
    return f"llm: {endpoint.model}: its chat template takes no {roles} messages ({why}); {do}"
