"""The same `Ask` over the providers' batch APIs: half the price, some hours later.

Requests that wait together become one batch. Before it is opened, a journal file in
`$BEZOAR_WORK/batches/` names its requests; the provider's id is added as soon as it is known. A
stage that starts again finds the journal, looks for a batch that was opened but never written down
(the kill came between), polls on, and joins results to requests by their key. A request that the
batch did not answer (expired, a server's error) is asked live; one that it refused has failed.
"""

import asyncio
import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bezoar import files, work
from bezoar.budget import Purse
from bezoar.files import BadInput
from bezoar.ledger import Ledger
from bezoar.llm import client
from bezoar.llm.client import Call, Stopped
from bezoar.llm.wire import Unusable, Wire, first
from bezoar.params import Anthropic, OpenAI
from bezoar.records import Record

POLL = 30.0  # seconds between two looks at a batch
LINGER = 0.5  # seconds without a new request after which those that wait become a batch
REQUESTS, BYTES = 50_000, 150 * 2**20  # in a batch: below what both providers take
SKEW = 300  # seconds by which a provider's clock may differ from ours


class Journal(Record):
    """A batch as far as it is known here."""

    url: str
    keys: list[str]
    opened: float
    id: str | None = None


class Result(NamedTuple):
    """What a batch made of one request: a document, or else why not; `refused` when asking again
    would be refused again."""

    document: Any
    reason: str
    refused: bool


class Dialect(Protocol):
    """A provider's batch API."""

    async def create(self, name: str, requests: dict[str, bytes]) -> str:
        """Open a batch, its id."""
        ...

    async def find(self, name: str, journal: Journal) -> str | None:
        """The id of the batch of this journal, if the provider has it."""
        ...

    async def look(self, batch: str) -> dict[str, Result] | None:
        """Results by key, None while it runs."""
        ...


class Client(client.Client):
    """A client whose requests go out as batches."""

    def __init__(
        self, endpoint: OpenAI | Anthropic, wire: Wire, ledger: Ledger, purse: Purse, secret: str
    ) -> None:
        super().__init__(endpoint, wire, ledger, purse, secret)
        self.folder = work.home() / "batches"
        self.dialect: Dialect = (
            OpenAIBatches(self) if isinstance(endpoint, OpenAI) else AnthropicBatches(self)
        )
        self._waiting: dict[str, Call] = {}
        self._parked: dict[str, Call] = {}  # in a batch
        self._pending: set[str] = set()  # keys of batches that run
        self._running = 0
        self._linger: asyncio.TimerHandle | None = None
        self._resumed = False

    def _route(self, call: Call) -> None:
        if not self._resumed:
            self._resumed = True
            for path in sorted(self.folder.glob("*.json")):
                journal = Journal.model_validate(files.read_json(path))
                if journal.url == self.wire.url:
                    self._pending |= set(journal.keys)
                    self._start(self._guard(self._follow(path, journal)))
        if call.key in self._pending:
            self._parked[call.key] = call
            return
        self._waiting[call.key] = call
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._linger:
            self._linger.cancel()
        self._linger = self._loop.call_later(LINGER, self._flush)

    def _flush(self) -> None:
        """Open a batch of what waits, as far as the budget reaches."""
        calls: dict[str, Call] = {}
        size = 0
        for key, call in list(self._waiting.items()):
            size += len(call.body) + 200
            if len(calls) == REQUESTS or size > BYTES or not self._reserve(call, batch=True):
                break
            calls[key] = self._waiting.pop(key)
        if calls:
            self._pending |= set(calls)
            self._parked |= calls
            self._start(self._guard(self._open(calls)))
            if self._waiting:
                self._flush_soon()
        elif self._waiting and not self._running and not self.admission.under_way:
            self._stop(Stopped(self.purse.why()))

    def _stop(self, why: Exception) -> None:
        super()._stop(why)
        for call in [*self._waiting.values(), *self._parked.values()]:
            self._finish(call, why)
        self._waiting, self._parked = {}, {}

    async def _guard(self, work: Any) -> None:
        """A batch that cannot be opened or read stops the stage, with words."""
        self._running += 1
        try:
            await work
        except Stopped as error:
            self._stop(error)
        except BadInput as error:
            self._stop(Stopped(str(error).removeprefix("error: ")))
        except Exception as error:
            self._stop(error)
        finally:
            self._running -= 1
            if self._waiting:
                self._flush_soon()

    async def _open(self, calls: dict[str, Call]) -> None:
        keys = sorted(calls)
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.json"
        journal = Journal(url=self.wire.url, keys=keys, opened=time.time())
        with _held(path) as held:
            if held:
                files.write_json(path, journal.model_dump())
                batch = await self.dialect.create(name, {k: calls[k].body for k in keys})
                journal = journal.model_copy(update={"id": batch})
                files.write_json(path, journal.model_dump())
        await self._follow(path, journal)

    async def _follow(self, path: Path, journal: Journal) -> None:
        """See a batch through to its end, whoever opened it."""
        while journal.id is None:
            with _held(path) as held:
                if held:  # whoever opened it is gone, or has written the id by now
                    journal = Journal.model_validate(files.read_json(path))
                    found = journal.id or await self.dialect.find(path.stem, journal)
                    if found is None:
                        break
                    journal = journal.model_copy(update={"id": found})
                    files.write_json(path, journal.model_dump())
            if journal.id is None:
                await asyncio.sleep(POLL)
        results: dict[str, Result] = {}
        if journal.id is not None:
            while (ended := await self.dialect.look(journal.id)) is None:
                await asyncio.sleep(POLL)
            results = ended
        self._pending -= set(journal.keys)
        for key in journal.keys:
            self._join(key, results.get(key), opened=journal.id is not None)
        path.unlink(missing_ok=True)

    def _join(self, key: str, result: Result | None, opened: bool) -> None:
        call = self._parked.pop(key, None)
        wanted = call or Call(key, b"", lambda answer: None)
        wanted.attempts += opened
        reason = result.reason if result else "the batch has no result for it"
        if result and result.document is not None and self.ledger.get(key) is None:
            try:
                self._keep(wanted, self._reply(wanted, result.document, batch=True))
                return
            except Unusable as error:
                reason = str(error)
        if call is None:
            return  # not asked for in this run (yet)
        if result and result.refused:
            self._fail(call, 400, f"refused in a batch: {reason}")
            return
        self.purse.settle(call.reserved, 0.0)
        call.reserved = 0.0
        if (value := self.ledger.get(key)) is not None:
            self._finish(call, client.remembered(key, value))
        elif opened:
            super()._route(call)  # live
        else:
            self._waiting[key] = call
            self._flush_soon()

    async def call(self, method: str, path: str, data: Any = None) -> bytes:
        """The body of a 200 of the batch API, `path` on the model's own host; passing troubles are
        sat out. Stopped on any other answer."""
        url = path if "://" in path else self.wire.url.removesuffix(self.wire.path) + path
        began, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                status, headers, raw = await self._exchange(
                    method, url, data() if callable(data) else data
                )
                reason = f"HTTP {status}: {raw[:300].decode('utf-8', 'replace')}"
                passing = self._may_pass(status, headers, None)
            except Exception as error:  # whatever a connection can come to
                status, passing, reason = 0, True, str(error) or type(error).__name__
            if status == 200:
                return raw
            if not passing or time.monotonic() - began > self.endpoint.patience:
                raise Stopped(
                    f"llm: {self.endpoint.model}: mode: batch: {method} {path}: {reason}; mend "
                    "that, or set mode: live"
                )
            if method == "POST" and path.endswith("batches"):
                raise Unsure(reason)
            await asyncio.sleep(client.backoff(attempt))


class Unsure(Exception):
    """Whether the batch was opened is not known."""


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Whether this process alone may open or look for the batch of a journal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class OpenAIBatches:
    """A file of requests, a batch over it, a file of results and one of errors."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def create(self, name: str, requests: dict[str, bytes]) -> str:
        """Upload, then open; `name` goes along as metadata, to find the batch again by."""
        wire = self.client.wire
        endpoint = "/v1" + wire.path
        lines = [
            b'{"custom_id":"%s","method":"POST","url":"%s","body":%s}'
            % (key.encode(), endpoint.encode(), body)
            for key, body in requests.items()
        ]

        def form() -> Any:
            import aiohttp

            data = aiohttp.FormData()
            data.add_field("purpose", "batch")
            data.add_field(
                "file",
                b"\n".join(lines),
                filename=f"{name}.jsonl",
                content_type="application/jsonl",
            )
            return data

        file = json.loads(await self.client.call("POST", "/files", form))["id"]
        request = {
            "input_file_id": file,
            "endpoint": endpoint,
            "completion_window": "24h",
            "metadata": {"bezoar": name},
        }
        return await _open_once(self, name, "/batches", request, None)

    async def find(self, name: str, journal: Journal | None) -> str | None:
        """The newest batch that carries this name."""
        async for batch in _pages(self.client, "/batches"):
            if first(batch, "metadata", "bezoar") == name:
                return str(batch["id"])
        return None

    async def look(self, batch: str) -> dict[str, Result] | None:
        """Both files, whatever way the batch ended."""
        shown = json.loads(await self.client.call("GET", f"/batches/{batch}"))
        if shown["status"] not in ("completed", "failed", "expired", "cancelled"):
            return None
        results = {}
        for kind in ("output_file_id", "error_file_id"):
            if shown.get(kind):
                content = await self.client.call("GET", f"/files/{shown[kind]}/content")
                for row in map(json.loads, filter(None, content.split(b"\n"))):
                    results[row["custom_id"]] = self._result(row)
        return results

    def _result(self, row: dict[str, Any]) -> Result:
        status, body = first(row, "response", "status_code"), first(row, "response", "body")
        if status == 200:
            return Result(body, "", False)
        said = first(body, "error", "message") or first(row, "error", "message")
        refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 409, 429)
        return Result(None, f"HTTP {status}: {said}", refused)


class AnthropicBatches:
    """One request opens the batch, one address holds its results."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def create(self, name: str, requests: dict[str, bytes]) -> str:
        """Open a batch."""
        rows = [b'{"custom_id":"%s","params":%s}' % (k.encode(), b) for k, b in requests.items()]
        body = b'{"requests":[%s]}' % b",".join(rows)
        journal = Journal(url="", keys=list(requests), opened=time.time())
        return await _open_once(self, name, "/v1/messages/batches", body, journal)

    async def find(self, name: str, journal: Journal | None) -> str | None:
        """A batch opened since the journal was, of as many requests; which ones they are shows
        when it has ended, so a running one is waited for."""
        assert journal is not None
        async for batch in _pages(self.client, "/v1/messages/batches"):
            if _unix(batch.get("created_at")) < journal.opened - SKEW:
                continue
            if sum(batch["request_counts"].values()) != len(journal.keys):
                continue
            while (results := await self.look(batch["id"])) is None:
                await asyncio.sleep(POLL)
            if set(results) == set(journal.keys):
                return str(batch["id"])
        return None

    async def look(self, batch: str) -> dict[str, Result] | None:
        """The results, one line each."""
        shown = json.loads(await self.client.call("GET", f"/v1/messages/batches/{batch}"))
        if shown["processing_status"] != "ended":
            return None
        # the address in results_url, without following it to another host with the key
        content = await self.client.call("GET", f"/v1/messages/batches/{batch}/results")
        rows = map(json.loads, filter(None, content.split(b"\n")))
        return {row["custom_id"]: self._result(row["result"]) for row in rows}

    def _result(self, result: dict[str, Any]) -> Result:
        if result["type"] == "succeeded":
            return Result(result["message"], "", False)
        kind = first(result, "error", "error", "type") or first(result, "error", "type")
        said = first(result, "error", "error", "message")
        return Result(None, f"{result['type']}: {said or kind}", kind == "invalid_request_error")


async def _open_once(
    dialect: "OpenAIBatches | AnthropicBatches",
    name: str,
    path: str,
    request: Any,
    journal: Journal | None,
) -> str:
    """POST a batch; when it is not known whether that worked, look before it is done again."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    began, attempt = time.monotonic(), 0
    while True:
        attempt += 1
        try:
            return str(json.loads(await dialect.client.call("POST", path, body))["id"])
        except Unsure as error:
            if found := await dialect.find(name, journal):
                return found
            if time.monotonic() - began > dialect.client.endpoint.patience:
                raise Stopped(f"mode: batch: POST {path}: {error}; set mode: live") from None
            await asyncio.sleep(client.backoff(attempt))


async def _pages(client: Client, path: str) -> Any:
    """Batches, newest first, page by page."""
    after = ""
    while True:
        name = "after_id" if "messages" in path else "after"
        query = f"?limit=100&{name}={after}" if after else "?limit=100"
        page = json.loads(await client.call("GET", path + query))
        for batch in page["data"]:
            yield batch
        if not page.get("has_more") or not page["data"]:
            return
        after = page["data"][-1]["id"]


def _unix(stamp: Any) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return time.time()
