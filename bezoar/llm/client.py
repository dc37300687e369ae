"""A model behind HTTP as an `Ask`: each distinct request is bought once and kept before it is used.

A request goes one of three ways, all in the background loop's thread:
1. The ledger has its answer, which is returned at once.
2. An equal request of this process is under way, and both get its reply. One of another process is
   waited for in the same way (claims.py).
3. It queues until admission lets it out and the budget has room, and is sent. A failure that may
   pass is tried again for as long as `patience` says.

Every wait ends, and none is silent. A server that asks for a longer pause than `patience`, or that
gives no reply for so long, ends the requests that wait for it. Every REPORT_EVERY seconds a line
on standard error says what the run waits for and until when.
"""

import asyncio
import atexit
import email.utils
import json
import os
import random
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bezoar.llm import background, budget, claims, losses
from bezoar.llm.admission import Admission
from bezoar.llm.budget import Purse, Taken
from bezoar.llm.elsewhere import Elsewhere
from bezoar.llm.ledger import Bill, Ledger
from bezoar.llm.mask import Mask
from bezoar.llm.room import Room
from bezoar.llm.servers import Servers
from bezoar.llm.wire import (
    Problem,
    Unusable,
    Wire,
    encode,
    is_filtered,
    is_greedy,
    no_room,
    problem,
    request_key,
    words_of,
)
from bezoar.params import Anthropic, OpenAI
from bezoar.rows import thoughts
from bezoar.rows.files import BadInput
from bezoar.rows.records import Ending, Failure, Message, Reply

if TYPE_CHECKING:
    import aiohttp

BUSY = (429, 503, 529)
# Times that the reply to one request may be broken before that is a failure. Each of them may have
# been paid.
SPOILT = 6
QUOTED = 300  # characters of a server's error that a reason quotes
JSON = {"Content-Type": "application/json"}
SYNC = 1.0  # seconds between two fsyncs of the ledger
REPORT_EVERY = 30.0  # seconds between two lines that say what is waited for
# Times that a request that came to a 5xx must fail again, while its simpler form is answered,
# before the server counts as one that does not know the full form.
DOUBTS = 3
YEAR = 365 * 86400.0
GRACE = 30.0  # seconds that replies under way may still take once the stage has failed


class Failed(Exception):
    """A request failed for good. `failure` says why, without the job, which is not known here."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Stopped(Exception):
    """Nothing more may be bought (the budget, a full disk). str(self) is the message for the
    user."""


Done = Callable[[Reply | Exception], None]


class Call:
    """One request on its way, with the callbacks of all who wait for it (`done`)."""

    __slots__ = (
        "attempts",
        "body",
        "claimed",
        "done",
        "key",
        "lost",
        "reserved",
        "since",
        "spoilt",
        "tokens",
    )

    def __init__(self, key: str, body: bytes, done: Done) -> None:
        self.key = key
        self.body = body
        self.done = [done]
        self.since: float | None = None  # when it was first sent
        self.attempts = 0
        self.spoilt = 0
        self.tokens = 0
        self.claimed = False  # by this process, until the call ends
        self.reserved = 0.0  # dollars set aside for the attempt under way
        self.lost = 0.0  # dollars that broken replies may have cost


_OPEN: "set[Client]" = set()  # clients with open connections


@atexit.register
def _close_all() -> None:
    """Close the clients that stages leave open for their next run. The loop's thread, which does
    that, still runs at this point."""
    for client in list(_OPEN):
        client.close()


class Client:
    """An `Ask` over one endpoint. Safe to call from any thread and from any job of `run_jobs`."""

    def __init__(
        self, endpoint: OpenAI | Anthropic, wire: Wire, ledger: Ledger, purse: Purse, secret: str
    ) -> None:
        import aiohttp

        self.endpoint = endpoint
        self.wire = wire
        self.ledger = ledger
        self.purse = purse
        self.bought = 0
        self._mask = Mask(secret)
        self._room = Room(endpoint)
        self._calls: dict[str, Call] = {}
        self._queue: deque[Call] = deque()
        self._resting: dict[Call, asyncio.TimerHandle] = {}  # between two attempts
        self._timer: asyncio.TimerHandle | None = None
        self._stopped: Exception | None = None
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reporter: asyncio.Task[None] | None = None
        # There are two forms of requests: with a system message (True) and without (False).
        # `_proved` has the forms that the server has answered. `_doubts` has a task for each form
        # that it refused, which finds the parameter that the server does not know.
        self._proved: set[bool] = set()
        self._doubts: dict[bool, asyncio.Task[str | None]] = {}
        self._heard = time.monotonic()  # when a reply last came, or the run began
        self._reported = self._heard  # when the last line about waiting was printed
        self._silent = False  # a request has waited for all its patience, and no reply came
        # (when, dollars spent then) a cap began to have room only in what others set aside
        self._short: tuple[float, float] | None = None
        self._trouble = ""  # why the last attempt failed
        self.admission = Admission(
            endpoint.concurrency,
            endpoint.requests_per_minute and endpoint.requests_per_minute / 60,
            endpoint.tokens_per_minute and endpoint.tokens_per_minute / 60,
        )
        self._loop = background.loop()
        self._most_out = budget.worst_tokens(0, endpoint.params)[1] or 0
        self.elsewhere = Elsewhere(
            purse.claims,
            self._loop,
            # a model in this process has no patience to lose
            bound=endpoint.patience + endpoint.timeout if endpoint.patience else float("inf"),
            back=self._come_back,
            late=self._too_late,
            broken=self._unwritable,
        )
        self._servers = Servers([address + wire.path for address in endpoint.addresses])

    def __call__(self, messages: Sequence[Message], sample: int = 0) -> Reply:
        """Return the reply to `messages`, bought now or out of the ledger.

        `sample` above 0 asks for a further reply. A greedy model would answer an equal request with
        its first reply again, so that one is returned. A request that leaves no room for its
        longest reply is not sent, and its reply has finish_reason "too_long". Failed: there will be
        no reply. Stopped: nothing more may be bought.
        """
        if not self._room.fits(messages, sample):
            return empty_reply("too_long", self.endpoint.model)
        request = self.wire.body(messages, sample)
        if sample and is_greedy(request) and request == self.wire.body(messages):
            sample = 0
        body = encode(request)
        key = request_key(self.wire, body, sample)
        answer = background.wait(lambda done: self._submit(key, body, done))
        if isinstance(answer, Exception):
            raise answer
        reply: Reply = answer
        return reply

    # --- below here: the loop's thread alone -----------------------------------------------------

    def _submit(self, key: str, body: bytes, done: Done) -> None:
        """Take in a request, and have `done` called with its answer."""
        if (value := self.ledger.get(key)) is not None:
            done(from_ledger(key, value))
        elif same := self._calls.get(key):
            # Two jobs may ask the same at the same time. Example: both grade the answer "4" to
            # "What is 2 + 2?". One request is sent, and its reply goes to both.
            same.done.append(done)
        elif self._stopped:
            done(self._stopped)
        else:
            if not self._calls:
                self._heard = self._reported = time.monotonic()
            if self._reporter is None or self._reporter.done():
                self._reporter = self._start(self._sync_and_report())
            call = self._calls[key] = Call(key, body, done)
            self._route(call)

    def _route(self, call: Call) -> None:
        """Put a new request into the queue. Batch mode overrides this."""
        self._queue.append(call)
        self._pump()

    def _pump(self) -> None:
        """Send the requests that may be sent now, and arrange to be called when more may."""
        while self._queue:
            now = time.monotonic()
            if self._silent and self.admission.under_way:
                # one request under way is enough to find out whether the server is back
                over = f"no reply to anything for patience of {self.endpoint.patience:g} s"
                self._fail(self._queue.popleft(), None, f"{self._trouble} ({over})")
                continue
            pause = self.admission.wait(now)
            if pause == float("inf"):
                return  # a reply will pump
            if pause > 0:
                if self._timer is None or self._timer.when() > self._loop.time() + pause:
                    if self._timer:
                        self._timer.cancel()
                    self._timer = self._loop.call_later(pause, self._later)
                return
            call = self._queue.popleft()
            match self._reserve(call, batch=False):
                case "taken":
                    self.admission.sent(now, call.tokens)
                    self._start(self._send(call, now))
                case "dear":
                    self._queue.appendleft(call)
                    if self.admission.under_way == 0:
                        self._over_budget()
                    # requests under way may cost less than was set aside for them: try again then
                    return

    def _later(self) -> None:
        self._timer = None
        self._pump()

    def _start(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself keeps only weak references to tasks
        task.add_done_callback(self._tasks.discard)
        return task

    def _reserve(self, call: Call, batch: bool) -> Taken:
        """Claim a request. One that need not or cannot be sent is dealt with here, except for a
        dear one, which the caller keeps."""
        size = len(call.body)
        call.tokens = size // budget.BYTES_PER_TOKEN + self._most_out
        usd = budget.cost(self.endpoint.price, size, 0, self._most_out, batch)
        try:
            taken = self.purse.take(call.key, usd, batch)
        except (OSError, BadInput) as error:
            self._queue.appendleft(call)
            self._unwritable(error)
            return "elsewhere"
        if taken == "taken":
            call.claimed, call.reserved = True, usd
            self._short = None
        elif taken == "elsewhere":
            self.elsewhere.wait(call)
        elif taken == "known":
            self._come_back([call])
        return taken

    def _over_budget(self) -> None:
        """Decide what follows when a cap forbids the next request and nothing of this process is
        under way.

        Other processes may have dollars set aside, of which some may become free. Wait for that as
        long as they go on spending. Else stop.
        """
        now, spent = time.monotonic(), self.purse.spent
        if self._short is None or self._short[1] != spent:
            self._short = now, spent
        halted = now - self._short[0] > self.elsewhere.bound and not self.purse.claims.batches()
        if not self.purse.others():
            self._stop(Stopped(self.purse.why()))
        elif halted:
            whose = "the rest is set aside by other processes that have not moved for longer than"
            patience = f"patience of {self.endpoint.patience:g} s: end them or have them go on"
            self._stop(Stopped(f"{self.purse.why()}; {whose} {patience}"))
        else:
            self.elsewhere.arm()

    def _come_back(self, calls: list[Call]) -> None:
        """Finish calls whose answer another process has bought, and send the others here."""
        for call in calls:
            if (value := self.ledger.get(call.key)) is not None:
                self._finish(call, from_ledger(call.key, value))
            elif self._stopped:
                self._finish(call, self._stopped)
            else:
                self._route(call)
        if self._queue and not calls:
            self._pump()

    def _too_late(self, call: Call, owner: str) -> None:
        self._fail(
            call, None, f"process {claims.process(owner)} had it under way for longer than patience"
        )

    def _unwritable(self, error: OSError | BadInput) -> None:
        """Stop all requests: an answer that cannot be kept must not be bought."""
        if isinstance(error, OSError):
            self._stop(
                Stopped(
                    f"{self.ledger.folder}: what is bought cannot be written down "
                    f"({error.strerror or error}); mend the folder or free some space, or let "
                    "BEZOAR_WORK name another"
                )
            )
        else:
            self._stop(Stopped(str(error).removeprefix("error: ")))

    def _lose(self, call: Call, reason: str, document: Any = None, batch: bool = False) -> None:
        """Charge an attempt that brought no reply and is billed all the same."""
        usd = losses.cost(document, self.endpoint.price, batch, call.reserved)
        call.lost += usd
        try:
            self.purse.lose(usd, self._mask.text(reason))
        except BadInput as error:
            self._unwritable(error)

    def _stop(self, why: Exception) -> None:
        self._stopped = why
        for timer in self._resting.values():
            timer.cancel()
        idle = [*self._queue, *self._resting, *self.elsewhere.clear()]
        self._queue.clear()
        self._resting.clear()
        for call in idle:
            self._finish(call, why)

    def _finish(self, call: Call, answer: Reply | Exception) -> None:
        self._calls.pop(call.key, None)
        if call.claimed:
            call.claimed = False
            self.purse.release(call.key)
        # each callback once: a reply may still come for a call that was given up
        waiting, call.done = call.done, []
        for done in waiting:
            done(answer)

    async def _send(self, call: Call, began: float) -> None:
        """Make one attempt at a call, and act on its outcome."""
        call.attempts += 1
        call.since = call.since or began
        url = self._servers.take(began)
        try:
            status, headers, raw = await self._exchange("POST", url, call.body)
        # aiohttp, ssl and the system raise errors of many classes here: each ends the attempt
        except Exception as error:
            self._servers.give_back(url, time.monotonic(), failed=True)
            slow = isinstance(error, asyncio.TimeoutError)
            self.admission.failed(time.monotonic(), slow)
            reason = f"no answer in {self.endpoint.timeout:g} s" if slow else _words(error)
            if losses.may_have_arrived(error):
                self._lose(call, reason)
            self._again(call, None, reason, None)
        else:
            self._servers.give_back(url, time.monotonic(), failed=status >= 500)
            try:
                await self._answered(call, began, status, headers, raw)
            except Exception as error:  # a fault of ours: all who wait must hear of it
                self._finish(call, error)
        self._pump()

    async def _exchange(self, method: str, url: str, data: Any = None) -> tuple[int, Any, bytes]:
        """Make one HTTP exchange: (status, headers, body). The key is masked in the body."""
        session = self._session or self._connect()
        headers = JSON if isinstance(data, bytes) else None
        # no redirects: they would carry the key to a host that nobody named
        async with session.request(
            method, url, data=data, headers=headers, allow_redirects=False
        ) as response:
            raw = await response.read()
            return response.status, response.headers, self._mask.raw(raw)

    def _connect(self) -> "aiohttp.ClientSession":
        import aiohttp

        # all servers of one model are reached the same way as the first
        parts = urlsplit(self.wire.url)
        # The proxy is looked up here and not by aiohttp's trust_env. That would read .netrc too,
        # and a password in there is not meant for a model's server.
        proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy and urllib.request.proxy_bypass(parts.hostname or ""):
            proxy = None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            headers={k: v for k, v in self.wire.headers.items() if k != "Content-Type"}
            | {"User-Agent": "bezoar"},
            timeout=aiohttp.ClientTimeout(total=self.endpoint.timeout, sock_connect=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy,
        )
        _OPEN.add(self)
        return self._session

    async def _sync_and_report(self) -> None:
        """Sync the ledger and print the lines about waiting, while requests are under way."""
        while self._calls:
            await asyncio.sleep(SYNC)
            self.purse.flush()
            if self._calls:
                await self._loop.run_in_executor(None, self.ledger.sync)
            now = time.monotonic()
            if self._calls and now - max(self._heard, self._reported) >= REPORT_EVERY:
                self._reported = now
                bill = self.purse.bill
                stage = f"{bill.stage}@{bill.label}" if bill.label else bill.stage or "llm"
                print(f"{stage}: {self._waiting_for(now)}", file=sys.stderr, flush=True)

    def _waiting_for(self, now: float) -> str:
        """Say in words what the run waits for, and until when."""
        sent = [call.since for call in self._calls.values() if call.since is not None]
        under_way = self.admission.under_way
        words = f"waiting for {under_way} replies of {self.endpoint.model}"
        if not under_way:
            words = f"{len(self._calls)} requests of {self.endpoint.model} wait"
        elif len(self._calls) > under_way:
            words += f", {len(self._calls) - under_way} more requests wait"
        if elsewhere := self.elsewhere.words():
            words += f"; {elsewhere}"
        if sent and self.endpoint.patience:
            end = _clock(min(sent) + self.endpoint.patience + self.endpoint.timeout - now)
            words += f"; the oldest for {now - min(sent):.0f} s, given up by {end}"
        if self.admission.resume > now:
            words += f"; the server asks to wait until {_clock(self.admission.resume - now)}"
        return words + (f" ({self._trouble})" if self._trouble else "")

    async def _answered(
        self, call: Call, began: float, status: int, headers: Any, raw: bytes
    ) -> None:
        now = time.monotonic()
        document = _document(raw)
        error = problem(document)
        if status != 200:
            error = Problem(status, words_in(raw), error.names if error else "")
        try:
            if error and error.status is None:
                raise Unusable(f"an error instead of a reply: {self._cut(error.words)}")
            if error:
                await self._refused(call, error, headers, document)
                return
            reply = self._reply(call, document, batch=False)
        except Unusable as unusable:
            self.admission.failed(now, slow=False)
            call.spoilt += 1
            if losses.may_be_billed(status, document):
                self._lose(call, str(unusable), document)
            reason = self._mask.text(str(unusable))
            if not isinstance(document, dict) or not {"choices", "content"} & document.keys():
                reason += f": {self._cut(raw[: 4 * QUOTED].decode('utf-8', 'replace'))}"
            if call.spoilt < SPOILT:
                self._again(call, status, reason, None)
            else:
                self._fail(call, status, f"{reason}, {SPOILT} times")
            return
        self._proved.add(_has_system(call.body))
        self._silent = False
        self._heard, self._trouble = now, ""
        used = reply.tokens_in + reply.tokens_out
        self.admission.answered(now, now - began, call.tokens, used, reply.tokens_out)
        self._keep(call, reply)

    async def _refused(self, call: Call, error: Problem, headers: Any, document: Any) -> None:
        """Act on an error that a server states, with an HTTP status or inside of a 200."""
        now, wait, status = time.monotonic(), _retry_after(headers), error.status
        assert status is not None
        if status in BUSY:
            self.admission.refused(now, wait)
        else:
            self.admission.failed(now, slow=False)
        if no_room(status, error.words):
            self._settle(call)
            self._finish(call, empty_reply("too_long", self.endpoint.model))
            return
        if is_filtered(status, f"{error.words} {error.names}"):
            refused = empty_reply("refused", self.endpoint.model)
            self._keep(call, refused.model_copy(update={"key": call.key}))
            return
        words = self._cut(error.words)
        reason = f"HTTP {status}: {words}"
        if losses.may_be_billed(status, document):
            self._lose(call, reason)
        if (
            status not in BUSY
            and (parameter := await self._doubt(call, status))
            and not self._stopped
        ):
            why = f"llm: {self.endpoint.model}: refuses the request as it is ({reason})"
            self._stop(Stopped(f"{why} and answers it with {parameter}; set that"))
        if self._stopped:
            self._settle(call)
            self._finish(call, self._stopped)
        elif self._may_pass(status, headers, document):
            self._again(call, status, reason, wait)
            self._stop_where_all_wait(reason)
        else:
            self._fail(call, status, reason + self._hint(status))

    async def _doubt(self, call: Call, status: int) -> str | None:
        """Return the parameter of a refused request that the server does not know, or None.

        The server is asked once for each form of request. All requests of that form that are
        refused meanwhile wait for the outcome.
        """
        form = _has_system(call.body)
        if form in self._proved:
            return None
        if form not in self._doubts:
            self._doubts[form] = self._loop.create_task(self._unknown(call, status))
        # shielded: a request that is cancelled must not cancel the task that others wait for
        return await asyncio.shield(self._doubts[form])

    async def _unknown(self, call: Call, status: int) -> str | None:
        """Return the parameter that makes the server answer, or None where there is none.

        Example: a server refuses a request with a system message. The request is sent again with
        that message folded into the user's. If that is answered, and the first form is refused once
        more, the server does not know system messages: "system_role: false".
        """
        body = json.loads(call.body)
        # these attempts are charged, so they ask for one token
        short = {**body, **dict.fromkeys(body.keys() & set(budget.MAXIMA), 1)}
        for doubt in self.wire.doubts(short):
            if await self._answers(call, doubt.body):
                # A server that only failed once answers the first form too when it is sent again.
                # A 5xx may be such a failure, so it is tried more often than a refusal.
                for attempt in range(DOUBTS if status >= 500 else 1):
                    await asyncio.sleep(backoff(attempt) if attempt else 0)
                    if _has_system(call.body) in self._proved or await self._answers(call, short):
                        return None
                return doubt.parameter
        return None

    async def _answers(self, call: Call, body: dict[str, Any]) -> bool:
        """Say whether the server answers another form of a request. The answer is charged as
        lost."""
        try:
            status, _, raw = await self._exchange("POST", self.wire.url, encode(body))
        except Exception:  # whatever a connection can come to
            return False
        document = _document(raw)
        if status != 200 or document is None or problem(document):
            return False
        self._lose(call, "asked to find out what the server knows", document)
        return True

    def _hint(self, status: int) -> str:
        """Return a hint at the usual cause of a 404 to the first request, "" where it is none."""
        openai = isinstance(self.endpoint, OpenAI)
        versioned = "/v1" in urlsplit(self.endpoint.addresses[0]).path
        if status not in (404, 405) or self._proved or openai == versioned:
            return ""
        return f" (base_url ends with{'out' if openai else ''} /v1; is that right?)"

    def _stop_where_all_wait(self, reason: str) -> None:
        """Stop all requests where the server asks for a longer pause than `patience`."""
        pause = self.admission.resume - time.monotonic()
        if pause > self.endpoint.patience:
            self._stop(
                Stopped(
                    f"{self.endpoint.model} asks to wait until {_clock(pause)} ({reason}), longer "
                    f"than its patience of {self.endpoint.patience:g} s"
                )
            )

    def _cut(self, words: str) -> str:
        """Make a server's words fit for a message: short, on one line, without the key."""
        return " ".join(self._mask.text(words[: 4 * QUOTED]).split())[:QUOTED] or "(nothing)"

    def _reply(self, call: Call, document: Any, batch: bool) -> Reply:
        if document is None:
            raise Unusable("a reply that is not JSON")
        parsed = self.wire.parse(document)
        tokens_in, tokens_out = parsed.tokens_in, parsed.tokens_out
        if tokens_in is None:
            tokens_in = len(call.body) // budget.BYTES_PER_TOKEN
        if tokens_out is None:
            tokens_out = len(parsed.text.encode("utf-8", "replace")) // budget.BYTES_PER_TOKEN
        cached = min(parsed.tokens_cached, tokens_in)
        price = self.endpoint.price
        reply = Reply(
            text=self._written(parsed.text),
            finish_reason=parsed.finish,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            model=self._written(parsed.model),
            simulated=False,
            tokens_cached=cached,
            usd=budget.cost(price, tokens_in, cached, tokens_out, batch),
            key=call.key,
            thoughts=self._written(parsed.thoughts),
        )
        return part_thoughts(reply)

    def _written(self, text: str) -> str:
        """Make a server's text fit for a file: without lone surrogates, and without the key."""
        return self._mask.text(text.encode("utf-8", "replace").decode())

    def _keep(self, call: Call, reply: Reply, payer: Bill | None = None) -> None:
        """Keep a reply and hand it out.

        The order matters. The reply is in the ledger first, so that a kill does not lose it. Then
        nothing is set aside for it any longer. Only then do the jobs that wait get it.
        """
        self.bought += 1
        value = {"reply": to_ledger(reply), "at": int(time.time())}
        try:
            self.ledger.put(call.key, value, payer or self.purse.bill, reply.usd)
        except BadInput as error:
            call.claimed = False  # the claim stays: the next process counts it as lost
            self._unwritable(error)
        call.reserved = 0.0
        self._finish(call, reply)

    def _may_pass(self, status: int, headers: Any, document: Any) -> bool:
        """Say whether an error may pass, so that the request is worth another attempt."""
        if (advice := headers.get("x-should-retry")) in ("true", "false"):
            return bool(advice == "true")
        if self.wire.hopeless(document):
            return False
        return status in (408, 409, 429) or status >= 500

    def _again(self, call: Call, status: int | None, reason: str, wait: float | None) -> None:
        """Queue the request anew after a pause: `wait` seconds where the server names them, else a
        doubling, jittered time. Fail it where its patience would be over by then."""
        pause = backoff(call.attempts)
        if wait is not None:
            pause = wait
        self._settle(call)
        self._trouble = self._mask.text(reason)
        until = max(time.monotonic() + pause, self.admission.resume)
        if self._silent or until - (call.since or until) > self.endpoint.patience:
            patience = f"patience of {self.endpoint.patience:g} s"
            over = f"{patience} is over"
            if pause > self.endpoint.patience:
                over = f"the server asks to wait until {_clock(pause)}, longer than {patience}"
            elif self._heard <= (call.since or until):
                # One request has waited for all its patience and the server has answered nothing.
                # The next would wait as long, and each after it: so those fail at once (_pump).
                self._silent = True
            self._fail(call, status, f"{reason} ({over})")
        elif self._stopped:
            self._finish(call, self._stopped)
        else:
            self._resting[call] = self._loop.call_later(pause, self._back, call)

    def _settle(self, call: Call) -> None:
        """End an attempt: nothing is set aside for it any longer."""
        self.purse.rest(call.key)
        call.reserved = 0.0

    def _back(self, call: Call) -> None:
        del self._resting[call]
        self._queue.appendleft(call)
        self._pump()

    def _fail(self, call: Call, status: int | None, reason: str) -> None:
        if status in (401, 403):
            name = self.endpoint.api_key_env
            reason += f" (key from ${name})" if name else " (api_key_env is null: no key was sent)"
        failure = Failure(
            job="",
            step=0,
            reason=self._mask.text(reason),
            status=status,
            attempts=call.attempts,
            usd=call.lost,
        )
        self._finish(call, Failed(failure))

    def stop(self, why: str) -> None:
        """End the requests that are queued or rest between two attempts. Call it from any thread.

        Those under way have GRACE seconds to bring their replies, which are paid.
        """

        def end() -> None:
            if self._stopped is None:
                self._stop(Stopped(why))
            self._loop.call_later(min(GRACE, self.endpoint.timeout), self._drop)

        self._loop.call_soon_threadsafe(end)

    def _drop(self) -> None:
        """Give up the replies that are still under way."""
        if self._stopped is None:
            return
        for call in list(self._calls.values()):
            if call.reserved:
                self._lose(call, "given up when the run ended")
            self._finish(call, self._stopped)

    async def _end(self, close: bool) -> None:
        ours = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        self.purse.close()
        self.ledger.sync()
        if close and self._session:
            await self._session.close()
            self._session = None
            _OPEN.discard(self)
        if close:
            self.ledger.close()

    def rest(self) -> None:
        """End the requests under way and sync the ledger once a run is over. The client may be used
        again."""
        asyncio.run_coroutine_threadsafe(self._end(close=False), self._loop).result()

    def close(self) -> None:
        """Close the connections and the ledger."""
        asyncio.run_coroutine_threadsafe(self._end(close=True), self._loop).result()


def _has_system(body: bytes) -> bool:
    return b'"role":"system"' in body


def empty_reply(why: Ending, model: str) -> Reply:
    """Make the empty reply that stands for one that did not come."""
    return Reply(
        text="", finish_reason=why, tokens_in=0, tokens_out=0, model=model, simulated=False
    )


def to_ledger(reply: Reply) -> dict[str, Any]:
    """Return a reply as the ledger keeps it.

    The text is kept as it came, with its thoughts. So a better way of parting them can be used on
    old replies without another call.
    """
    value = reply.model_dump(exclude={"key", "raw", *({"thoughts"} if not reply.thoughts else ())})
    return {**value, "text": reply.raw or reply.text}


def from_ledger(key: str, value: dict[str, Any]) -> Reply:
    """Return the reply that the ledger keeps as `value`, with its thoughts parted anew."""
    reply = Reply(**value["reply"], key=key)
    return part_thoughts(reply.model_copy(update={"text": reply.raw or reply.text, "raw": ""}))


def read_reply(wire: Wire, document: Any) -> Reply:
    """Read the reply in a document, outside of any run. Unusable: it holds none."""
    if error := problem(document):
        raise Unusable(f"an error instead of a reply ({error.words[:QUOTED]})")
    parsed = wire.parse(document)
    reply = empty_reply(parsed.finish, parsed.model)
    return part_thoughts(
        reply.model_copy(update={"text": parsed.text, "thoughts": parsed.thoughts})
    )


def words_in(raw: bytes) -> str:
    """Return the words of an error's body, for a message."""
    document = _document(raw)
    error = problem(document)
    plain = raw[: 4 * QUOTED].decode("utf-8", "replace")
    words = error.words if error else plain if document is None else words_of(document)
    return " ".join(words[: 4 * QUOTED].split())[:QUOTED] or "(nothing)"


def part_thoughts(reply: Reply) -> Reply:
    """Part the thoughts of a reply from its text.

    A reply whose thoughts have no end, or that holds nothing else, was cut before its answer came.
    Its finish_reason becomes "length".
    """
    parted = thoughts.part(reply.text)
    thought = parted.thoughts or reply.thoughts
    if not thought and parted.text == reply.text:
        return reply
    never = not parted.closed or (bool(thought) and not parted.text.strip())
    cut = never and reply.finish_reason == "stop"
    return reply.model_copy(
        update={
            "text": parted.text,
            "thoughts": thought,
            "raw": reply.text if parted.text != reply.text else "",
            "finish_reason": "length" if cut else reply.finish_reason,
        }
    )


def backoff(attempts: int) -> float:
    """Return the seconds until the next attempt: doubling from a quarter of a second to ten, and
    jittered."""
    return float(min(10.0, 0.25 * 2 ** min(attempts - 1, 10)) * random.uniform(0.5, 1))


def secret_of(endpoint: OpenAI | Anthropic) -> str:
    """Read the key out of the environment, "" where the endpoint names none. BadInput: it names a
    variable that is not set."""
    if endpoint.api_key_env is None:
        return ""
    if not (secret := os.environ.get(endpoint.api_key_env, "").strip()):
        raise BadInput(
            f"llm: {endpoint.model}: ${endpoint.api_key_env} is not set; export it, or set "
            "api_key_env: null for a server that wants no key"
        )
    return secret


def _document(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    # a megabyte of "[" raises RecursionError, which must not end a run
    except (ValueError, RecursionError):
        return None


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())[:QUOTED]
    return f"connection failed: {text or type(error).__name__}"


def _retry_after(headers: Any) -> float | None:
    """Return the seconds that the server asks to wait, None where it does not say.

    They are in retry-after-ms, else in Retry-After, which holds seconds or a date.
    """
    try:
        if (value := headers.get("retry-after-ms")) is not None:
            seconds = float(value) / 1000
        elif (value := headers.get("Retry-After")) is None:
            return None
        else:
            try:
                seconds = float(value)
            except ValueError:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    # time.localtime fails on times that are very far away, so a year is the most
    return min(seconds, YEAR) if 0 <= seconds < float("inf") else None


def _clock(seconds: float) -> str:
    """Return the time of day so many seconds from now, with its date where that is not today."""
    then, now = time.localtime(time.time() + min(seconds, YEAR)), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)
