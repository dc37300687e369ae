"""A model server on loopback: speaks OpenAI's and Anthropic's protocols, misbehaves to order.

What goes wrong is drawn from a hash of (prompt, attempt), so that a test can be repeated. `paid`
counts the replies written for each prompt, `statuses` the answers by kind. Listens on 127.0.0.1.

`python -m tests.builders.servers LATENCY` serves until its standard input ends, for programs that
measure.
"""

import asyncio
import contextlib
import hashlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Faults:
    """Shares of the attempts (0-1) that go wrong in each way; `bucket` is (requests a second,
    burst); `slots` requests are served at once, others wait (a server that queues and never
    refuses)."""

    latency: float = 0.0
    error: float = 0.0  # 500
    busy: float = 0.0  # 429, no Retry-After
    later: float = 0.0  # 429, Retry-After: 0.05
    drop: float = 0.0  # half a body, then the connection ends
    hangup: float = 0.0  # the connection ends before an answer
    torn: float = 0.0  # a whole response whose JSON is half a document
    html: float = 0.0  # 200, text/html
    empty: float = 0.0  # 200, no choices / no content
    drip: float = 0.0  # a byte at a time, never done within a test's timeout
    bucket: tuple[float, int] | None = None
    retry_after: str = "1"
    slots: int | None = None
    bad: str = "ALWAYS-400"  # prompts that hold this are answered 400
    echo_key: bool = False  # errors and replies repeat the Authorization header


COMPLETIONS = ("/v1/chat/completions", "/v1/completions", "/v1/messages")
KINDS = ("error", "busy", "later", "drop", "hangup", "torn", "html", "empty", "drip")


def reply_to(prompt: str) -> str:
    """What the model says to a prompt."""
    return f"reply {hashlib.sha256(prompt.encode()).hexdigest()[:16]} é\n\u2028" + "so it is. " * 8


@dataclass
class Model:
    """The server's mind and its books."""

    faults: Faults = field(default_factory=Faults)
    paid: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    bodies: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    keep_bodies: bool = False
    under_way: int = 0
    most_under_way: int = 0
    tokens: float = -1.0
    filled: float = 0.0
    free_at: list[float] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    speak: Callable[[str], str] = reply_to
    # (prompt, request) -> (status, document, further headers) of an answer that is made up by hand
    script: Callable[[str, dict[str, Any]], tuple[int, Any, str] | None] | None = None
    served: tuple[str, ...] | None = ("m",)  # the list of models; None: the server has no list
    alias: str = ""  # a model that is known by this name too, and not listed
    key: str = ""  # the one that is let in; "" for any
    batch_polls: int = 2  # polls until a batch is over
    batch_faults: dict[str, str] = field(
        default_factory=dict
    )  # prompt -> expired | error | bad | lost (paid, no result)
    batch_end: str = ""  # failed | cancelled: how every batch ends as a whole
    batch_limit: int | None = None  # requests above which a batch is too large
    batch_words: str = ""  # what a batch that failed says of that
    batch_refusal: str = ""  # with what words each batch is refused
    batch_empty: bool = False  # all that the batch API answers is {}
    batch_gone: bool = False  # batches are taken in, and not known afterwards
    batch_late: int = 0  # so many batches expire before anything of them is done

    def fault(self, prompt: str, attempt: int) -> str | None:
        """What goes wrong with this attempt."""
        digest = hashlib.sha256(f"{attempt} {prompt}".encode()).digest()
        draw = int.from_bytes(digest[:8], "big") / 2**64
        for kind in KINDS:
            draw -= getattr(self.faults, kind)
            if draw < 0:
                return kind
        return None

    def take(self) -> bool:
        """A token out of the bucket."""
        if self.faults.bucket is None:
            return True
        rate, burst = self.faults.bucket
        now = time.monotonic()
        if self.tokens < 0:
            self.tokens, self.filled = float(burst), now
        self.tokens = min(float(burst), self.tokens + (now - self.filled) * rate)
        self.filled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def delay(self) -> float:
        """Seconds until this request is answered."""
        latency = self.faults.latency
        if self.faults.slots is None:
            return latency
        now = time.monotonic()
        self.free_at = [t for t in self.free_at if t > now]
        waiting = sorted(self.free_at)
        start = waiting[-self.faults.slots] if len(waiting) >= self.faults.slots else now
        self.free_at.append(start + latency)
        return start + latency - now


def prompt_of(path: str, body: dict[str, Any]) -> str:
    """The text that a request shows the model."""
    if "prompt" in body:
        return str(body["prompt"])
    return "\n\n".join(
        [*filter(None, [body.get("system")]), *(m["content"] for m in body["messages"])]
    )


def document(path: str, body: dict[str, Any], text: str) -> dict[str, Any]:
    """A whole 200 response."""
    prompt = prompt_of(path, body)
    size_in, size_out = len(prompt) // 4 + 1, len(text) // 4 + 1
    if path.endswith("/messages"):
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "thinking", "thinking": ".."}, {"type": "text", "text": text}],
            "stop_reason": "max_tokens" if "CUT-ME" in prompt else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": size_in, "output_tokens": size_out},
        }
    finish = "length" if "CUT-ME" in prompt else "stop"
    said = (
        {"message": {"role": "assistant", "content": text}}
        if path.endswith("/chat/completions")
        else {"text": text}
    )
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, **said, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": size_in,
            "completion_tokens": size_out,
            "total_tokens": size_in + size_out,
        },
    }


def problem(path: str, message: str, kind: str) -> bytes:
    """An error's body."""
    error = {"message": message, "type": kind}
    if path.startswith("/v1/messages"):
        return json.dumps({"type": "error", "error": error}).encode()
    return json.dumps({"error": {**error, "param": None, "code": None}}).encode()


REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many", 500: "Oops"}


def head(status: int, length: int, kind: str = "application/json", more: str = "") -> bytes:
    """Status line and headers."""
    return (
        f"HTTP/1.1 {status} {REASONS.get(status, 'X')}\r\nContent-Type: {kind}\r\n{more}"
        f"Content-Length: {length}\r\nrequest-id: req_1\r\n\r\n"
    ).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.buffer = b""
        self.last = False  # the client asked for the connection to end
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if (end := self.buffer.find(b"\r\n\r\n")) < 0:
            return
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        if headers.get("transfer-encoding") == "chunked":
            if not self.buffer.endswith(b"0\r\n\r\n"):
                return
            body, rest = b"", self.buffer[end + 4 :]
            while (size := int(rest.split(b"\r\n", 1)[0], 16)) > 0:
                rest = rest.split(b"\r\n", 1)[1]
                body, rest = body + rest[:size], rest[size + 2 :]
            self.buffer = b""
        else:
            size = int(headers.get("content-length", 0))
            if len(self.buffer) < end + 4 + size:
                return
            body = self.buffer[end + 4 : end + 4 + size]
            self.buffer = self.buffer[end + 4 + size :]
        method, target, _ = lines[0].split(" ", 2)
        self.request(method, target, headers, body)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)
            if self.last:
                self.transport.close()

    def request(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        model, path = self.model, urlsplit(target).path
        self.last = headers.get("connection", "").lower() == "close"
        if model.keep_bodies:
            model.bodies.append((f"{method} {path}", headers, body))
        if model.key and headers.get("authorization") != f"Bearer {model.key}":
            data = problem(path, "who are you", "authentication_error")
            self.send(head(401, len(data)) + data)
            return
        if method == "POST" and path in COMPLETIONS:
            self.complete(path, headers, json.loads(body))
        else:
            if path.startswith("/redirect"):
                more = f"Location: {path.removeprefix('/redirect')}\r\n"
                self.send(head(307, 0, more=more))
                return
            answer = other(model, method, target, headers, body)
            status = 404 if answer is None else 200
            data = b'{"error":{"message":"no such thing"}}' if answer is None else answer
            if answer is None and method == "POST" and path == "/v1/messages/batches":
                status, data = 413, problem(path, "Request too large", "request_too_large")
            if model.batch_refusal and method == "POST" and path.endswith("/batches"):
                words = f'{{"error":{{"message":"for {model.batch_refusal} no batch"}}}}'
                status, data = 400, words.encode()
            self.send(head(status, len(data)) + data)

    def complete(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        model, faults = self.model, self.model.faults
        prompt = prompt_of(path, body)
        model.attempts[prompt] += 1
        secret = headers.get("authorization", "") if faults.echo_key else ""
        if faults.bad in prompt:
            model.statuses["400"] += 1
            data = problem(path, f"never this prompt {secret}", "invalid_request_error")
            self.send(head(400, len(data)) + data)
            return
        if model.script and (answer := model.script(prompt, body)):
            status, made_up, more = answer
            model.statuses[str(status)] += 1
            data = made_up if isinstance(made_up, bytes) else json.dumps(made_up).encode()
            self.send(head(status, len(data), more=more) + data)
            return
        fault = model.fault(prompt, model.attempts[prompt])
        if fault in ("busy", "later") or not model.take():
            model.statuses["429"] += 1
            data = problem(path, f"slow down {secret}", "rate_limit_error")
            wait = faults.retry_after if fault is None else "0.05"
            more = "" if fault == "busy" else f"Retry-After: {wait}\r\n"
            self.send(head(429, len(data), more=more) + data)
            return
        model.under_way += 1
        model.most_under_way = max(model.most_under_way, model.under_way)
        asyncio.get_running_loop().call_later(
            model.delay(), self.answer, path, body, prompt, fault, secret
        )

    def answer(
        self, path: str, body: dict[str, Any], prompt: str, fault: str | None, secret: str
    ) -> None:
        model = self.model
        model.under_way -= 1
        model.statuses[fault or "200"] += 1
        if fault == "error":
            data = problem(path, f"it broke {secret}", "api_error")
            self.send(head(500, len(data)) + data)
            return
        if fault == "hangup":
            self.transport.abort()
            return
        whole = document(path, body, model.speak(prompt) + secret)
        if fault == "empty":
            whole |= {"content": []} if "content" in whole else {"choices": []}
            if "content" in whole:
                whole["type"] = "nothing"
        data = json.dumps(whole).encode()
        if fault == "html":
            data = b"<html>gateway</html>"
            self.send(head(200, len(data), "text/html") + data)
        elif fault == "torn":
            data = data[: len(data) // 2]
            self.send(head(200, len(data)) + data)
        elif fault == "drop":
            self.send(head(200, len(data)) + data[: len(data) // 2])
            asyncio.get_running_loop().call_later(0.005, self.transport.abort)
        elif fault == "drip":
            self.send(head(200, len(data)))
            self.drip(data)
        else:
            if fault is None:
                model.paid[prompt] += 1
            self.send(head(200, len(data)) + data)

    def drip(self, data: bytes) -> None:
        if data and not self.transport.is_closing():
            self.send(data[:1])
            asyncio.get_running_loop().call_later(0.2, self.drip, data[1:])


def other(  # noqa: PLR0911, PLR0912
    model: Model, method: str, target: str, headers: dict[str, str], body: bytes
) -> bytes | None:
    """Files, batches, books; None: 404."""
    parts = urlsplit(target)
    path = parts.path
    if path == "/v1/models" and model.served is not None:
        rows = [{"id": name, "object": "model", "owned_by": "x"} for name in model.served]
        return json.dumps({"object": "list", "data": rows}).encode()
    if model.alias and path == f"/v1/models/{model.alias}":
        return json.dumps({"id": model.alias, "object": "model"}).encode()
    if model.batch_empty and ("/files" in path or "/batches" in path):
        return b"{}"
    if path == "/v1/files" and method == "POST":
        mark = headers["content-type"].split("boundary=")[1].strip('"').encode()
        content = next(p for p in body.split(b"--" + mark) if b'name="file"' in p)
        name = f"file-{len(model.files) + 1}"
        model.files[name] = content.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        return json.dumps({"id": name, "object": "file", "purpose": "batch"}).encode()
    if path.startswith("/v1/files/") and path.endswith("/content"):
        return model.files.get(path.split("/")[3])
    for top, anthropic in (("/v1/batches", False), ("/v1/messages/batches", True)):
        if path == top and method == "POST":
            if anthropic and too_large(model, json.loads(body)["requests"]):
                return None
            return json.dumps(open_batch(model, json.loads(body), anthropic)).encode()
        if path == top:
            listed = [b for b in model.batches.values() if b["anthropic"] == anthropic]
            rows = [shown(b) for b in reversed(listed)]
            return json.dumps({"object": "list", "data": rows, "has_more": False}).encode()
        if path.startswith(top + "/"):
            name, *tail = path.removeprefix(top + "/").split("/")
            if name not in model.batches or model.batch_gone:
                return None
            batch = model.batches[name]
            if tail == ["results"]:
                return b"\n".join(json.dumps(row).encode() for row in batch["results"]) + b"\n"
            batch["polls"] += 1
            if batch["polls"] >= model.batch_polls and not batch["over"]:
                close_batch(model, batch, headers.get("host", ""))
            return json.dumps(shown(batch)).encode()
    return None


def shown(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch as the API shows it."""
    hidden = ("anthropic", "polls", "over", "results", "requests")
    return {key: value for key, value in batch.items() if key not in hidden}


def too_large(model: Model, requests: list[Any]) -> bool:
    """Whether a batch of these requests is refused or fails."""
    return model.batch_limit is not None and len(requests) > model.batch_limit


def open_batch(model: Model, body: dict[str, Any], anthropic: bool) -> dict[str, Any]:
    """Take a batch in."""
    name = f"batch_{len(model.batches) + 1}"
    if anthropic:
        requests = [(r["custom_id"], "/v1/messages", r["params"]) for r in body["requests"]]
        batch: dict[str, Any] = {
            "id": name,
            "type": "message_batch",
            "processing_status": "in_progress",
        }
        batch |= {"results_url": None, "created_at": time.strftime("%FT%TZ", time.gmtime())}
        batch["request_counts"] = {
            "processing": len(requests),
            "succeeded": 0,
            "errored": 0,
            "canceled": 0,
            "expired": 0,
        }
    else:
        lines = model.files[body["input_file_id"]].decode().split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        requests = [(r["custom_id"], r["url"], r["body"]) for r in rows]
        batch = {"id": name, "object": "batch", "status": "validating", "created_at": 0}
        batch |= {"endpoint": body["endpoint"], "input_file_id": body["input_file_id"]}
        batch |= {"metadata": body.get("metadata"), "completion_window": "24h"}
        batch |= {"output_file_id": None, "error_file_id": None}
        batch["request_counts"] = {"total": len(requests), "completed": 0, "failed": 0}
    batch |= {
        "anthropic": anthropic,
        "polls": 0,
        "over": False,
        "results": [],
        "requests": requests,
    }
    model.batches[name] = batch
    return shown(batch)


BAD = {
    "long": "This model's maximum context length is 10 tokens",
    "filtered": "The response was filtered due to the prompt triggering content_filter",
}


def fail_batch(model: Model, batch: dict[str, Any]) -> None:
    """End a batch before any of its requests is looked at."""
    error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    if model.batch_end:
        words = model.batch_words or "one model a batch"
        error = {"code": "mismatched_model", "message": words}
    batch["over"], batch["status"] = True, "failed"
    batch["errors"] = {"object": "list", "data": [{**error, "param": None, "line": None}]}


def close_batch(  # noqa: PLR0912
    model: Model, batch: dict[str, Any], host: str
) -> None:
    """End a batch: results in another order than asked."""
    good: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    model.batch_late -= 1
    late = model.batch_late >= 0
    end = "failed" if too_large(model, batch["requests"]) else model.batch_end
    if end == "failed":
        fail_batch(model, batch)
        return
    for name, path, body in reversed(batch["requests"]):
        prompt = prompt_of(path, body)
        fate = "expired" if late else model.batch_faults.get(prompt)
        if end == "cancelled" and len(good) >= len(batch["requests"]) // 2:
            fate = "cancelled"
        if fate in (None, "lost"):
            model.paid[prompt] += 1
        if fate == "lost":
            continue
        if batch["anthropic"]:
            kind = {
                "expired": "expired",
                "error": "errored",
                "bad": "errored",
                "cancelled": "canceled",
            }.get(fate or "")
            result: dict[str, Any] = {"type": kind or "succeeded"}
            if kind == "errored":
                what = "invalid_request_error" if fate == "bad" else "api_error"
                result["error"] = {"type": "error", "error": {"type": what, "message": "no"}}
            elif kind is None:
                result["message"] = document(path, body, model.speak(prompt))
            good.append({"custom_id": name, "result": result})
        elif fate == "blocked":  # an error inside of a 200
            said = {"error": {"message": "flagged by the content filter", "code": 400}}
            response = {"status_code": 200, "request_id": "r", "body": said}
            good.append({"custom_id": name, "response": response, "error": None})
        elif fate in ("expired", "cancelled"):
            error = {"code": f"batch_{fate}", "message": "too late"}
            bad.append({"custom_id": name, "response": None, "error": error})
        elif fate:
            status = 500 if fate == "error" else 400
            failed = {"error": {"message": BAD.get(fate, "no"), "type": "x"}}
            response = {"status_code": status, "request_id": "r", "body": failed}
            bad.append({"custom_id": name, "response": response, "error": None})
        else:
            answer = document(path, body, model.speak(prompt))
            response = {"status_code": 200, "request_id": "r", "body": answer}
            good.append({"custom_id": name, "response": response, "error": None})
    batch["over"] = True
    if batch["anthropic"]:
        batch["results"] = good
        batch["processing_status"] = "ended"
        batch["results_url"] = f"http://{host}/v1/messages/batches/{batch['id']}/results"
        return
    batch["status"] = end or ("expired" if late else "completed")
    for key, rows in (("output_file_id", good), ("error_file_id", bad)):
        if rows:
            batch[key] = f"file-{batch['id']}-{key}"
            model.files[batch[key]] = "\n".join(json.dumps(row) for row in rows).encode()


async def listen(model: Model) -> asyncio.Server:
    """Serve on a free port of loopback."""
    make: Callable[[], Connection] = lambda: Connection(model)  # noqa: E731
    loop = asyncio.get_running_loop()
    return await loop.create_server(make, "127.0.0.1", 0, backlog=1024)


@contextlib.contextmanager
def serving(faults: Faults | None = None, **settings: Any) -> Iterator[tuple[Model, str]]:
    """A running server, (its books, its http://127.0.0.1:port); ended when the block ends, however
    it ends."""
    model = Model(faults or Faults(), **settings)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(listen(model), loop).result(10)
    try:
        yield model, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def main(latency: str) -> None:
    """Serve in this process until standard input ends; the first line printed is the address."""

    async def run() -> None:
        server = await listen(Model(Faults(latency=float(latency))))
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    asyncio.run(run())


def chat(text: Any, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """A document of OpenAI's protocol."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    return {"model": "m", "choices": [{**choice, "finish_reason": finish}], "usage": usage}


def refusing(feature: str, status: int, words: str) -> Any:
    """A server that refuses requests that have `feature`."""

    def script(_: str, body: dict[str, Any]) -> Any:
        has = feature in body or any(m["role"] == feature for m in body["messages"])
        return (status, {"error": {"message": words}}, "") if has else None

    return script


if __name__ == "__main__":
    main(*sys.argv[1:])
