"""The same `Ask` over the providers' batch APIs: half the price, some hours later.

Requests wait for each other. A batch is opened when it is full, or when nothing is under way that
could bring another request. Before it is opened its requests are claimed, and a journal file in
`$BEZOAR_WORK/batches/` names them. The provider's id is added as soon as it is known.

A batch outlives its process. Another process that starts, or that wants one of its requests, finds
the journal and polls on. If a kill came before the id was written, it first looks for the batch at
the provider. Results are joined to requests by their key.

Requests that a batch leaves unanswered are asked live where they are few, and in another batch
where they are many. A batch that fails as a whole ends the stage with the provider's words. One
that was too large is opened again in smaller parts, one after the other.
"""

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bezoar import work
from bezoar.llm import client
from bezoar.llm.budget import Purse
from bezoar.llm.client import Call, Stopped
from bezoar.llm.ledger import Bill, Ledger
from bezoar.llm.wire import Unusable, Wire, is_filtered, no_room, problem, value_at
from bezoar.params import Anthropic, OpenAI
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Record

POLL = 30.0  # seconds between two looks at a batch
LINGER = 0.5  # seconds without a new request after which those that wait may become a batch
REQUESTS, BYTES = 50_000, 150 * 2**20  # in a batch: below what both providers take
LINE = 200  # bytes that a request takes in a file beside its body
SKEW = 300  # seconds by which a provider's clock may differ from ours
LITTLE = 0.1  # the share of a batch that is asked live where it stays unanswered
GONE = (404, 410)
UNKNOWN = "the provider does not know the batch any more: too old, or of another account"
TOO_LARGE = re.compile(
    r"token_limit|enqueued token|too[ _-]large|too many (requests in|lines|tokens)"
    r"|(request|size|file|batch)s?_(size_)?limit|maximum (number|size)|exceeds? the (max|limit)",
    re.IGNORECASE,
)


class Journal(Record):
    """A batch that was opened. `bill` says who pays, `usd` is the most that it can cost.

    `url` and `keys` are those of its requests, `opened` is a Unix time. `id` is the provider's,
    None until the provider has named one.
    """

    url: str
    keys: list[str]
    opened: float
    id: str | None = None
    bill: tuple[str, ...] = ()
    usd: float = 0.0


class Result(NamedTuple):
    """The result of one request in a batch: a document, or the reason why there is none.

    `refused` says that the provider would refuse the request again.
    """

    document: Any
    reason: str
    refused: bool


class Ended(NamedTuple):
    """A batch that is over, with its results by key.

    `failure` holds the provider's words where it failed as a whole, and `too_large` says that
    smaller batches may do. `billed` says that the provider counts all of its requests as done, so
    that it may bill those without a result. `missing` is the reason for a request without one.
    """

    results: dict[str, Result]
    failure: str = ""
    too_large: bool = False
    billed: bool = False
    missing: str = "the results have no line for it"

    def why(self, key: str) -> str:
        """Return the reason why there is no answer to a request."""
        if result := self.results.get(key):
            return result.reason
        return self.missing


class Dialect(Protocol):
    """A provider's batch API."""

    async def create(self, name: str, requests: dict[str, bytes]) -> str:
        """Open a batch and return its id."""
        ...

    async def find(self, name: str, journal: Journal) -> str | None:
        """Return the id of this journal's batch, None where the provider has no such batch."""
        ...

    async def look(self, batch: str) -> Ended | None:
        """Return the end of a batch, None while it runs. Refused, with a status of GONE: the
        provider does not know the batch."""
        ...


class Refused(Stopped):
    """The batch API refused a call. `status` is the HTTP status, `too_large` says that a smaller
    batch may be taken."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status
        self.too_large = status == 413 or bool(TOO_LARGE.search(words))


class Unsure(Exception):
    """A call that opens a batch got no clear answer: the batch may exist or not."""


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
        self.over: set[str] = set()  # ids of batches that this process has seen end
        self._waiting: dict[str, Call] = {}
        self._parked: dict[str, Call] = {}  # in a batch
        self._pending: set[str] = set()  # keys of requests in batches that run
        self._unread: dict[str, Exception] = {}  # by key: why its batch could not be read
        self._tries: dict[str, int] = {}  # by key: how many batches left it unanswered
        self._journals: set[Path] = set()  # journals that this process follows
        self._most = REQUESTS
        self._one_by_one = False
        self._running = 0
        self._resumed = False
        self._linger: asyncio.TimerHandle | None = None

    # --- requests that wait ----------------------------------------------------------------------

    def _route(self, call: Call) -> None:
        if not self._resumed:
            self._resumed = True
            self._adopt()
        if self._stopped:
            self._finish(call, self._stopped)
        elif call.key in self._unread:
            self._parked[call.key] = call
            self._stop(self._unread[call.key])
        elif call.key in self._pending:
            self._parked[call.key] = call
        else:
            self._waiting[call.key] = call
            self._flush_soon()

    def _come_back(self, calls: list[Call]) -> None:
        if any(call.key not in self.ledger for call in calls):
            self._adopt()  # whoever had them may have left a batch
        super()._come_back(calls)
        if self._waiting:
            self._flush_soon()

    def _finish(self, call: Call, answer: Any) -> None:
        super()._finish(call, answer)
        if self._waiting:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._linger:
            self._linger.cancel()
        self._linger = self._loop.call_later(LINGER, self._flush)

    def _expecting(self) -> bool:
        """Say whether anything is under way whose end may bring further requests. A batch of
        another stage, of which nothing is wanted here, does not count."""
        live = self.admission.under_way or self._queue or self._resting
        return bool(self._parked or live or len(self.elsewhere))

    def _full(self) -> bool:
        if self._one_by_one:
            return False
        size = sum(len(call.body) + LINE for call in self._waiting.values())
        return len(self._waiting) >= self._most or size > BYTES

    def _flush(self) -> None:
        """Open a batch of the requests that wait, as many as the budget allows."""
        self._linger = None
        if self._waiting:
            self._adopt()
        if not self._waiting or (self._expecting() and not self._full()):
            return  # what is under way comes back here
        try:
            with self.purse.claims.locked():
                calls = self._gather()
        except (OSError, BadInput) as error:
            self._unwritable(error)
            return
        if calls:
            path = self.folder / f"{secrets.token_hex(8)}.json"
            self._see_to(path, list(calls), self._open(path, calls))
        if self._waiting and not self._expecting():
            self._over_budget()
        elif self._waiting and self._full():
            self._flush_soon()

    def _gather(self) -> dict[str, Call]:
        """Claim and park as many calls as a batch takes and the budget allows, and return them."""
        calls: dict[str, Call] = {}
        size = 0
        for key, call in list(self._waiting.items()):
            size += len(call.body) + LINE
            if calls and (len(calls) == self._most or size > BYTES):
                break
            if key in self._pending:  # of a batch that was taken up meanwhile
                self._parked[key] = self._waiting.pop(key)
                continue
            taken = self._reserve(call, batch=True)
            if taken == "dear" or self._stopped:
                break
            self._waiting.pop(key, None)
            if taken == "taken":
                calls[key] = self._parked[key] = call
        self._pending |= set(calls)
        return calls

    def _over_budget(self) -> None:
        # a running batch may cost less than is set aside for it, and leave room for the next
        if not self._running:
            super()._over_budget()

    def _stop(self, why: Exception) -> None:
        super()._stop(why)
        calls = {**self._waiting, **self._parked}
        self._waiting, self._parked = {}, {}
        for call in calls.values():
            self._finish(call, why)

    # --- batches ---------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Follow the batches of killed runs, which no living process follows."""
        for path in sorted(self.folder.glob("*.json")):
            if path in self._journals:
                continue
            journal = _journal(path)
            if journal is None or journal.url != self.wire.url:
                continue
            # another run's batch is paid by that run: nothing of ours is set aside for it
            ours = journal.bill[:1] == (self.purse.bill.run,)
            try:
                adopted = self.purse.adopt(journal.keys, journal.usd if ours else 0.0)
            except (OSError, BadInput) as error:
                self._unwritable(error)
                return
            if adopted:
                self._pending |= set(journal.keys)
                self._see_to(path, journal.keys, self._follow(path, journal))

    def _see_to(self, path: Path, keys: list[str], work: Any) -> None:
        self._running += 1
        self._journals.add(path)
        self._start(self._guard(path, keys, work))

    async def _guard(self, path: Path, keys: list[str], work: Any) -> None:
        """Do `work` on a batch. If that fails, stop a stage that waits for the batch, and print a
        line for one that does not."""
        try:
            await work
        except (Exception, BadInput) as error:
            if not isinstance(error, Stopped):
                reason = str(error).removeprefix("error: ") or type(error).__name__
                if isinstance(error, (LookupError, TypeError, AttributeError)):
                    reason = f"an answer of the batch API lacks what it should hold ({error!r})"
                reason = self._mask.text(reason)
                error = Stopped(f"llm: {self.endpoint.model}: mode: batch: {reason}")
            self._unread |= dict.fromkeys(keys, error)
            if any(key in self._parked for key in keys):
                self._stop(error)
            else:
                self._say(f"{error} (a batch of which nothing is wanted so far)")
        finally:
            self._running -= 1
            self._pending -= set(keys)
            self._journals.discard(path)
            if self._queue:
                self._pump()
            if self._waiting:
                self._flush_soon()

    async def _open(self, path: Path, calls: dict[str, Call]) -> None:
        """Write the journal, open the batch, and follow it to its end."""
        keys = sorted(calls)
        journal = Journal(
            url=self.wire.url,
            keys=keys,
            opened=time.time(),
            bill=tuple(self.purse.bill),
            usd=sum(call.reserved for call in calls.values()),
        )
        # The journal comes first: a kill after the call would otherwise leave a paid batch that
        # nobody finds.
        files.write_json(path, journal.model_dump())
        try:
            batch = await self.dialect.create(path.stem, {k: calls[k].body for k in keys})
        except Refused as error:
            path.unlink(missing_ok=True)
            if not error.too_large or len(keys) == 1:
                raise
            self._conclude(path, journal, Ended({}, str(error), too_large=True))
            return
        journal = journal.model_copy(update={"id": batch})
        files.write_json(path, journal.model_dump())
        await self._follow(path, journal)

    async def _follow(self, path: Path, journal: Journal) -> None:
        """Wait for the end of a batch, whoever opened it, and join its results."""
        batch = journal.id or await self._find_batch(path, journal)
        ended = await self._await_end(batch) if batch else Ended({})
        self._conclude(path, journal.model_copy(update={"id": batch}), ended)

    async def _find_batch(self, path: Path, journal: Journal) -> str | None:
        """Find the batch of a journal without an id. None when it was never opened."""
        try:
            batch = await self.dialect.find(path.stem, journal)
        except Refused as error:
            if error.status not in GONE:
                raise
            return None
        if batch:
            files.write_json(path, journal.model_copy(update={"id": batch}).model_dump())
        return batch

    async def _await_end(self, batch: str) -> Ended:
        """Poll until a batch has ended, and return its end.

        If the provider says twice in a row that it does not know the batch, it has ended without
        results. The provider may bill it all the same.
        """
        gone = 0
        while gone < 2:
            try:
                if (ended := await self.dialect.look(batch)) is not None:
                    self.over.add(batch)
                    return ended
                gone = 0
            except Refused as error:
                if error.status not in GONE:
                    raise
                gone += 1
            await asyncio.sleep(POLL)
        return Ended({}, billed=True, missing=UNKNOWN)

    def _conclude(self, path: Path, journal: Journal, ended: Ended) -> None:
        """Keep the answers of a batch that is over, remove its journal, and ask the rest again."""
        self._pending -= set(journal.keys)
        # under one lock, so that no other process sees the claims gone and the journal still there
        with self.purse.claims.locked():
            left = [key for key in journal.keys if not self._join(key, ended, journal)]
            path.unlink(missing_ok=True)
        calls = [call for key in left if (call := self._parked.pop(key, None))]
        if journal.id is None and not ended.failure:  # it was never opened, or is gone
            self._wait_anew(calls)
        elif not ended.failure:
            share = len(left) / len(journal.keys)
            self._ask_again(calls, share, journal, ended.why(left[0]) if left else "")
        elif ended.too_large and len(journal.keys) > 1:
            self._most, self._one_by_one = max(1, len(journal.keys) // 2), True
            self._say(f"{ended.failure}: opened again in batches of {self._most}, one by one")
            self._wait_anew(calls)
        elif calls:
            self._parked |= {call.key: call for call in calls}
            raise Stopped(
                f"llm: {self.endpoint.model}: batch {journal.id} of {len(journal.keys)} requests: "
                f"{self._mask.text(ended.failure)}; mend that, or set mode: live"
            )

    def _wait_anew(self, calls: list[Call]) -> None:
        self._waiting |= {call.key: call for call in calls}

    def _ask_again(self, calls: list[Call], share: float, journal: Journal, why: str) -> None:
        """Ask the calls that a batch left unanswered, which are `share` of it.

        Few are asked live, many in another batch. Stopped: another batch left many of them too.
        """
        if not calls:
            return
        left = f"batch {journal.id} left {len(calls)} of {len(journal.keys)} requests unanswered"
        left += f" (the first: {self._mask.text(why)})"
        if why != UNKNOWN and (len(calls) == 1 or share <= LITTLE):
            self._say(f"{left}: asked live, at the full price")
            for call in calls:
                super()._route(call)
            return
        for call in calls:
            self._tries[call.key] = self._tries.get(call.key, 0) + 1
        if max(self._tries[call.key] for call in calls) > 1:
            self._parked |= {call.key: call for call in calls}
            raise Stopped(
                f"llm: {self.endpoint.model}: {left}, as the one before it did; wait until the "
                "provider has time, or set mode: live"
            )
        self._say(f"{left}: asked in another batch")
        self._wait_anew(calls)

    def _join(self, key: str, ended: Ended, journal: Journal) -> bool:
        """Take over the result of one request. True when that settles it: it was answered, or
        refused for good."""
        call = self._parked.get(key)
        # a batch of a killed run may hold requests that nobody here waits for: their answers are
        # kept all the same
        request = call or Call(key, b"", lambda answer: None)
        request.claimed = True
        request.attempts += journal.id is not None
        result = ended.results.get(key)
        if (value := self.ledger.get(key)) is not None:
            self._parked.pop(key, None)
            self._finish(request, client.from_ledger(key, value))
        elif result and result.refused:
            self._parked.pop(key, None)
            self._refuse(request, result.reason)
        elif not self._answer(request, ended, journal):
            if call is None:
                self.purse.release(key)
            else:
                self.purse.rest(key)
            return False
        return True

    def _refuse(self, call: Call, reason: str) -> None:
        """Settle a refused request as the live client does: a request that does not fit is no
        failure, and a filter's refusal is an answer."""
        if no_room(400, reason):
            self._finish(call, client.empty_reply("too_long", self.endpoint.model))
        elif is_filtered(400, reason):
            refused = client.empty_reply("refused", self.endpoint.model)
            self._keep(call, refused.model_copy(update={"key": call.key}))
        else:
            self._fail(call, 400, f"refused in a batch: {reason}")

    def _answer(self, call: Call, ended: Ended, journal: Journal) -> bool:
        """Keep the reply to a call. False where the batch has none that can be used."""
        result = ended.results.get(call.key)
        if result and result.document is None:
            return False
        try:
            if not result:
                raise Unusable(ended.why(call.key))
            reply = self._reply(call, result.document, batch=True)
        except Unusable as error:
            call.reserved = call.reserved or journal.usd / len(journal.keys)
            if result:
                ended.results[call.key] = result._replace(reason=str(error))
            if result or ended.billed:
                self._lose(call, str(error), result and result.document, batch=True)
            return False
        self._parked.pop(call.key, None)
        payer = Bill(*journal.bill) if len(journal.bill) == len(Bill._fields) else None
        self._keep(call, reply, payer)
        return True

    def _waiting_for(self, now: float) -> str:
        if not self._running:
            return super()._waiting_for(now)
        words = f"waiting for {self._running} batches of {self.endpoint.model}"
        words += f" with {len(self._parked)} requests, looked at every {POLL:g} s"
        words += "; a provider may take a day"
        if self._waiting:
            words += f"; {len(self._waiting)} requests wait for the next batch"
        if elsewhere := self.elsewhere.words():
            words += f"; {elsewhere}"
        return words

    def _say(self, words: str) -> None:
        print(f"llm: {self.endpoint.model}: {self._mask.text(words)}", file=sys.stderr)

    async def document(self, method: str, path: str, data: Any = None) -> dict[str, Any]:
        """Call the batch API and return the JSON object that it answers with."""
        answer: dict[str, Any] = json.loads(await self.call(method, path, data, _is_object))
        return answer

    async def call(
        self, method: str, path: str, data: Any = None, sound: Any = lambda raw: True
    ) -> bytes:
        """Call the batch API at `path` on the model's own host, and return the body of its 200.

        A failure that may pass is tried again for as long as `patience` says, and so is a body that
        is not `sound`. Refused: any other answer. Unsure: a call that opens a batch failed, and the
        batch may be open.
        """
        url = path if "://" in path else self.wire.url.removesuffix(self.wire.path) + path
        began, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                status, headers, raw = await self._exchange(
                    method, url, data() if callable(data) else data
                )
                if status == 200 and sound(raw):
                    return raw
                reason = self._mask.text(f"HTTP {status}: {raw[:300].decode('utf-8', 'replace')}")
                passing = status == 200 or self._may_pass(status, headers, None)
            except Exception as error:  # whatever a connection can come to
                status, passing = 0, True
                reason = self._mask.text(str(error)) or type(error).__name__
            words = (
                f"llm: {self.endpoint.model}: mode: batch: {method} {path}: {reason}; mend that, "
                "or set mode: live"
            )
            refused = Refused(words, status)
            late = time.monotonic() - began > self.endpoint.patience
            if not passing or late or (status == 429 and refused.too_large):
                raise refused
            # repeating this call could open a second batch, which would be paid too
            if method == "POST" and path.endswith("batches"):
                raise Unsure(reason)
            await asyncio.sleep(client.backoff(attempt))


def _is_object(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False


def count_unread(wire: Wire) -> int:
    """Count the requests to this address in batches that were opened and not read yet."""
    journals = map(_journal, sorted((work.home() / "batches").glob("*.json")))
    return sum(len(journal.keys) for journal in journals if journal and journal.url == wire.url)


def _journal(path: Path) -> Journal | None:
    """Read a journal. None where another process took it away or it cannot be read."""
    try:
        return Journal.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        print(f"{path}: no journal of a batch, left as it is ({error})", file=sys.stderr)
        return None


def _rows(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the rows of a results file, without those that are torn."""
    for line in filter(None, content.split(b"\n")):
        if _is_object(line) and isinstance((row := json.loads(line)).get("custom_id"), str):
            yield row


class OpenAIBatches:
    """OpenAI's batch API: a file of requests, a batch over it, a file of results and one of
    errors."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def create(self, name: str, requests: dict[str, bytes]) -> str:
        """Upload the requests and open a batch. `name` goes along as metadata, by which `find`
        knows the batch."""
        wire = self.client.wire
        endpoint = "/v1" + wire.path
        lines = [
            b'{"custom_id":"%s","method":"POST","url":"%s","body":%s}'
            % (key.encode(), endpoint.encode(), body)
            for key, body in requests.items()
        ]

        # made anew for each attempt: aiohttp sends a FormData only once
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

        file = (await self.client.document("POST", "/files", form))["id"]
        request = {
            "input_file_id": file,
            "endpoint": endpoint,
            "completion_window": "24h",
            "metadata": {"bezoar": name},
        }
        return await _open_once(self, name, "/batches", request, None)

    async def find(self, name: str, journal: Journal | None) -> str | None:
        """Return the id of the newest batch that carries this name."""
        async for batch in _pages(self.client, "/batches"):
            if (
                value_at(batch, "metadata", "bezoar") == name
                and batch["id"] not in self.client.over
            ):
                return str(batch["id"])
        return None

    async def look(self, batch: str) -> Ended | None:
        """Read both files of a batch, in whatever way it ended. None while it runs."""
        state = await self.client.document("GET", f"/batches/{batch}")
        status = state.get("status")
        if status not in ("completed", "failed", "expired", "cancelled"):
            return None
        results = {}
        for kind in ("output_file_id", "error_file_id"):
            if state.get(kind):
                content = await self.client.call("GET", f"/files/{state[kind]}/content")
                for row in _rows(content):
                    results[row["custom_id"]] = self._result(row)
        words = "" if status in ("completed", "expired") else _failure(state)
        if status == "expired":
            return Ended(results, missing="expired")
        return Ended(results, words, bool(TOO_LARGE.search(words)), billed=not words)

    def _result(self, row: dict[str, Any]) -> Result:
        status, body = value_at(row, "response", "status_code"), value_at(row, "response", "body")
        if status == 200:
            if (error := problem(body)) is None:
                return Result(body, "", False)
            status, body = error.status, {"error": {"message": error.words}}
        message = value_at(body, "error", "message") or value_at(row, "error", "message")
        refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 409, 429)
        code = f"HTTP {status}" if status else value_at(row, "error", "code")
        return Result(None, ": ".join(str(word) for word in (code, message) if word), refused)


class AnthropicBatches:
    """Anthropic's batch API: one request opens the batch, one address holds its results."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def create(self, name: str, requests: dict[str, bytes]) -> str:
        """Open a batch and return its id. There is no metadata, so the name is not sent."""
        rows = [b'{"custom_id":"%s","params":%s}' % (k.encode(), b) for k, b in requests.items()]
        body = b'{"requests":[%s]}' % b",".join(rows)
        journal = Journal(url="", keys=list(requests), opened=time.time())
        return await _open_once(self, name, "/v1/messages/batches", body, journal)

    async def find(self, name: str, journal: Journal | None) -> str | None:
        """Find a batch of as many requests that was opened since the journal was written.

        Only the results of an ended batch say which requests it had, so a running one is waited
        for.
        """
        assert journal is not None
        async for batch in _pages(self.client, "/v1/messages/batches"):
            if _unix(batch.get("created_at")) < journal.opened - SKEW:
                continue
            if batch["id"] in self.client.over:
                continue
            if sum(batch["request_counts"].values()) != len(journal.keys):
                continue
            while (ended := await self.look(batch["id"])) is None:
                await asyncio.sleep(POLL)
            if set(ended.results) == set(journal.keys):
                return str(batch["id"])
        return None

    async def look(self, batch: str) -> Ended | None:
        """Read the results of a batch, one line each. None while it runs."""
        state = await self.client.document("GET", f"/v1/messages/batches/{batch}")
        if state.get("processing_status") != "ended":
            return None
        # results_url holds this address too, but it could name another host, which would be sent
        # the key
        content = await self.client.call("GET", f"/v1/messages/batches/{batch}/results")
        rows = list(_rows(content))
        results = {row["custom_id"]: self._result(row.get("result")) for row in rows}
        cancelled = any(value_at(row, "result", "type") == "canceled" for row in rows)
        return Ended(results, "it was cancelled" if cancelled else "", billed=not cancelled)

    def _result(self, result: Any) -> Result:
        if value_at(result, "type") == "succeeded":
            return Result(value_at(result, "message"), "", False)
        kind = value_at(result, "error", "error", "type") or value_at(result, "error", "type")
        message = value_at(result, "error", "error", "message")
        words = ": ".join(str(word) for word in (value_at(result, "type"), message or kind) if word)
        return Result(None, words, kind == "invalid_request_error")


def _failure(state: dict[str, Any]) -> str:
    """Return the reason why OpenAI's batch failed, in its words."""
    errors = value_at(state, "errors", "data") or []
    words = [
        " ".join(str(error[part]) for part in ("code", "message", "line") if error.get(part))
        for error in errors[:3]
        if isinstance(error, dict)
    ]
    return f"{state['status']}: {'; '.join(words) or 'the provider does not say why'}"


async def _open_once(
    dialect: "OpenAIBatches | AnthropicBatches",
    name: str,
    path: str,
    request: Any,
    journal: Journal | None,
) -> str:
    """POST a batch and return its id. If it is not clear whether that worked, look for the batch
    before it is posted again."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    began, attempt = time.monotonic(), 0
    while True:
        attempt += 1
        try:
            return str((await dialect.client.document("POST", path, body))["id"])
        except Unsure as error:
            if batch := await dialect.find(name, journal):
                return batch
            if time.monotonic() - began > dialect.client.endpoint.patience:
                raise Stopped(f"mode: batch: POST {path}: {error}; set mode: live") from None
            await asyncio.sleep(client.backoff(attempt))


async def _pages(client: Client, path: str) -> Any:
    """Yield the provider's batches, newest first, page by page."""
    after = ""
    while True:
        # Anthropic's address holds "messages" and names the parameter otherwise than OpenAI's
        name = "after_id" if "messages" in path else "after"
        query = f"?limit=100&{name}={after}" if after else "?limit=100"
        page = await client.document("GET", path + query)
        batches = page.get("data") or []
        for batch in batches:
            yield batch
        if not page.get("has_more") or not batches:
            return
        after = batches[-1]["id"]


def _unix(stamp: Any) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return time.time()
