"""A transformers model in this process, over the same ledger: prompts of like length in a batch."""

import asyncio
import json
import zlib
from pathlib import Path
from typing import Any

from bezoar import work
from bezoar.budget import Purse
from bezoar.files import BadInput
from bezoar.ledger import Ledger
from bezoar.llm import client, openai
from bezoar.llm.admission import Admission
from bezoar.params import InProcess, OpenAI, Price

LINGER = 0.01  # seconds without a new prompt after which those that wait become a batch
FREE = Price(input=0, cached=0, output=0, batch=1)


class Client(client.Client):
    """A client whose server is a model in this process; requests and replies look like OpenAI's."""

    def __init__(self, endpoint: InProcess, ledger: Ledger, purse: Purse) -> None:
        if not Path(endpoint.model, "config.json").is_file():
            raise BadInput(
                f"llm: {endpoint.model}: no config.json in there; model is the folder of a "
                "transformers model"
            )
        if not any(Path(endpoint.model).glob("*.safetensors")):
            raise BadInput(
                f"llm: {endpoint.model}: no *.safetensors in there, and pickled weights, which can "
                "run code when they are loaded, are not; save the model with "
                "safe_serialization=True"
            )
        shape = OpenAI(
            provider="openai",
            style=endpoint.style,
            structured=False,
            model=endpoint.model,
            terms=endpoint.terms,
            # the weights are the address: another folder with the same bytes has said it before
            base_url=f"http://local/{work.content(endpoint.model)}",
            api_key_env=None,
            params=endpoint.params,
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
        # not its folder: what was bought under one path is the same under another
        shape = shape.model_copy(update={"model": Path(endpoint.model).name})
        super().__init__(shape, openai.Wire(shape, None), ledger, purse, "")
        self.admission = Admission(endpoint.concurrency, None, None, adaptive=False)
        self._folder = endpoint.model
        self._batch_size = endpoint.batch_size
        self._prompts: list[tuple[bytes, asyncio.Future[bytes]]] = []
        self._linger_timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._batches = 0
        self._model: Any = None

    async def _exchange(self, method: str, url: str, data: Any = None) -> tuple[int, Any, bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._prompts.append((data, future))
        self._soon()
        return 200, {}, await future

    def _soon(self) -> None:
        if self._linger_timer:
            self._linger_timer.cancel()
        self._linger_timer = self._loop.call_later(LINGER, self._kick)

    def _kick(self) -> None:
        if not self._busy and self._prompts:
            self._busy = True
            # by length, so that little of a batch is padding; then by text, so that the same
            # prompts make the same batches
            self._prompts.sort(key=lambda prompt: (len(prompt[0]), prompt[0]))
            batch = self._prompts[: self._batch_size]
            self._prompts = self._prompts[self._batch_size :]
            self._start(self._run(batch))

    async def _run(self, batch: list[tuple[bytes, "asyncio.Future[bytes]"]]) -> None:
        bodies = [json.loads(body) for body, _ in batch]
        try:
            replies = await self._loop.run_in_executor(None, self._generate, bodies)
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), reply in zip(batch, replies, strict=True):
                future.set_result(json.dumps(reply).encode())
        self._busy = False
        self._kick()

    def _generate(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        import torch
        import transformers

        if self._model is None:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self._folder, padding_side="left", trust_remote_code=False
            )
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
            model = transformers.AutoModelForCausalLM.from_pretrained(
                self._folder, dtype="auto", trust_remote_code=False, use_safetensors=True
            )
            model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
            self._model = tokenizer, model
        tokenizer, model = self._model
        params = {k: v for k, v in bodies[0].items() if k not in ("model", "messages", "prompt")}
        texts = [
            body["prompt"]
            if "prompt" in body
            else tokenizer.apply_chat_template(
                body["messages"], tokenize=False, add_generation_prompt=True
            )
            for body in bodies
        ]
        # a chat template writes the special tokens itself
        tokens = tokenizer(
            texts, return_tensors="pt", padding=True, add_special_tokens="prompt" in bodies[0]
        ).to(model.device)
        # a further sample of the same prompt must not repeat the first
        self._batches += 1
        torch.manual_seed(zlib.crc32("".join(texts).encode()) + self._batches)
        with torch.inference_mode():
            out = model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                pad_token_id=tokenizer.pad_token_id,
                **params,
            )
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        width = tokens["input_ids"].shape[1]
        return [
            _reply(tokenizer, row[width:].tolist(), int(mask.sum()), ends, body)
            for row, mask, body in zip(out, tokens["attention_mask"], bodies, strict=True)
        ]


def _reply(
    tokenizer: Any, ids: list[int], tokens_in: int, ends: set[int], asked: dict[str, Any]
) -> dict[str, Any]:
    stop = next((at for at, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids[:stop], skip_special_tokens=True)
    return {
        "model": asked["model"],
        "choices": [
            {
                **({"text": text} if "prompt" in asked else {"message": {"content": text}}),
                "finish_reason": "length" if stop is None else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": len(ids) if stop is None else stop + 1,
        },
    }
