"""How many requests may be under way, and how fast they may follow one another.

A window of requests under way, and up to two rates. The window opens by doubling until the first
sign of trouble or the ceiling; it closes by a quarter when the server refuses (429, 503, 529) and
when replies become slow without more of them coming (a server that queues, as vLLM does, never
refuses); it opens by one for each ten replies. After refusals the rate at which replies did come,
pauses included, is the rate at which the next requests go: a token bucket is met at its own pace
instead of by bursts against it. A refusal now and then is no news: that one request waits, and no
other; servers that refuse at random would slow to nothing a client that believed each of them.

Times are seconds on one clock, given by the caller.
"""

import random
from collections import deque
from statistics import median

START = 16  # requests under way before anything is known of the server
DOUBLE = 0.2  # seconds in which the window doubles, at least; else half the fastest reply
RECENT = 0.05  # weight of the newest answer in the share of refusals
NEWS = 0.13  # share of refusals that is believed
YIELD, FLOOR = 0.97, 0.8  # a refusal that is not: the learned rate gives a little, not all
CLOSE = 0.75  # of the window is left after a refusal
OPEN = 0.1  # requests that each reply adds to the window
KEEPS = 0.85  # of the work a second, after a cut that cost nothing; a useless one keeps CLOSE
SLOW = 3.0  # times the usual seconds per unit of work: the server queues
SPAN = 60.0  # seconds over which replies are counted into a rate: providers count minutes
PROBE = 1.05  # times the rate that was met is tried next
GROWTH = 0.02  # by which a learned rate grows in a second without refusal
SLACK = 0.05  # seconds that a late timer may catch up
STEP = 0.5  # seconds of the first pause when the server names none; doubles, to at most
LONGEST = 60.0
WORK = 16  # tokens that a reply is worth beside those it wrote: it had a prompt to read


class Admission:
    """`ceiling` is the most requests under way; `per_second` and `tokens_per_second` are what the
    user allows, None for no limit. Not `adaptive`: the window is the ceiling, come what may."""

    def __init__(
        self,
        ceiling: int,
        per_second: float | None,
        tokens_per_second: float | None,
        adaptive: bool = True,
    ) -> None:
        self.ceiling = ceiling
        self.adaptive = adaptive
        self.window = float(min(ceiling, START) if adaptive else ceiling)
        self.rate: float | None = None  # learned, requests a second
        self.under_way = 0
        self.resume = 0.0
        self._per_second = per_second
        self._tokens_per_second = tokens_per_second
        self._next = self._next_tokens = 0.0
        self._opening = True  # the window doubles its way
        self._opened: float | None = None  # when it last did
        self._fastest = float("inf")
        self._refused = False  # a refusal whose rate is learned when its pause ends
        self._share = 0.0  # of refusals among the latest answers
        self._unlucky = 0  # pauses since the last reply
        self._floor = 0.0
        self._grown = 0.0
        self._closed = 0.0
        self._replies: deque[list[float]] = deque()  # [second, replies in it]
        self._began: float | None = None
        self._usual = float("inf")  # seconds a unit of work, the best that was seen
        self._batch: list[float] = []
        self._work = 0
        self._batch_began = 0.0
        self._trial: tuple[float, float] | None = None  # (window, work a second) before a cut
        self._skip = 0  # replies that were under way when the window last changed

    def wait(self, now: float) -> float:
        """Seconds until the next request may be sent; 0: now; inf: not before one comes back."""
        if self.under_way >= int(self.window):
            return float("inf")
        if now < self.resume:
            return self.resume - now
        if self._refused:
            self._learn(now)
        due = 0.0
        if self._rate(now) is not None:
            due = self._next - now
        if self._tokens_per_second is not None:
            due = max(due, self._next_tokens - now)
        return max(due, 0.0)

    def sent(self, now: float, tokens: int) -> None:
        """A request went out that may use `tokens`."""
        if self._began is None:
            self._began = self._batch_began = now
        self.under_way += 1
        if (rate := self._rate(now)) is not None:
            self._next = max(self._next, now - SLACK) + 1 / rate
        if self._tokens_per_second is not None:
            spent = tokens / self._tokens_per_second
            self._next_tokens = max(self._next_tokens, now) + spent

    def answered(self, now: float, seconds: float, reserved: int, used: int, written: int) -> None:
        """A reply came: `seconds` after it was asked for; `used` of `reserved` tokens, `written`
        of them by the model."""
        self.under_way -= 1
        self._share *= 1 - RECENT
        self._unlucky = 0
        if self._tokens_per_second is not None:
            self._next_tokens -= (reserved - used) / self._tokens_per_second
        second = float(int(now))
        if self._replies and self._replies[-1][0] == second:
            self._replies[-1][1] += 1
        else:
            self._replies.append([second, 1])
            while self._replies[0][0] < now - SPAN:
                self._replies.popleft()
        if self.adaptive:
            self._open(now, seconds)
            self._feel(now, seconds, WORK + written)

    def refused(self, now: float, retry_after: float | None) -> None:
        """The server has enough: pause all for what it names, else a doubling, jittered time."""
        self.under_way -= 1
        self._share += RECENT * (1 - self._share)
        if self._share < NEWS:
            if self.rate is not None:
                self.rate = max(self.rate * YIELD, self._floor)
                self._grown = now + 1  # no growth for a second
            return
        if now >= self.resume:  # not one more of the volley that was refused together
            self._refused = True
            self._unlucky += 1
            self._opening = False
            self._trial = None
            self.window = max(1.0, self.window * CLOSE)
            if retry_after is None:
                pause = min(LONGEST, STEP * 2 ** min(self._unlucky - 1, 10))
                self.resume = now + pause * random.uniform(0.5, 1)
        if retry_after is not None:
            self.resume = max(self.resume, now + retry_after)

    def failed(self, now: float, slow: bool) -> None:
        """A request came to nothing; `slow`: it ran out of time."""
        self.under_way -= 1
        if slow and self.adaptive and now > self._closed + 1:  # not one more of the same volley
            self._opening = False
            self._closed = now
            self.window = max(1.0, self.window * CLOSE)

    def _rate(self, now: float) -> float | None:
        if self.rate is not None:
            self.rate *= 1 + GROWTH * max(0.0, now - self._grown)
            self._grown = max(now, self._grown)
        limits = [rate for rate in (self.rate, self._per_second) if rate is not None]
        return min(limits) if limits else None

    def _learn(self, now: float) -> None:
        self._refused = False
        assert self._began is not None
        span = now - max(self._began, now - SPAN)
        replies = sum(n for second, n in self._replies if second >= now - SPAN)
        if replies == 0:  # an outage says nothing about a rate: begin again
            self._opening, self._opened, self.window = True, None, min(self.window, START)
            return
        self.rate = max(PROBE * replies / span, self.rate * CLOSE if self.rate else 0.0)
        self._floor = FLOOR * self.rate
        self._share = 0.0
        self._grown = self._next = now

    def _open(self, now: float, seconds: float) -> None:
        self._fastest = min(self._fastest, seconds)
        if not self._opening:
            self.window += 0 if self._trial else OPEN
        else:
            if self._opened is not None:
                doublings = (now - self._opened) / max(DOUBLE, self._fastest / 2)
                self.window *= 2 ** min(doublings, 1.0)
            self._opened = now
            self._opening = self.window < self.ceiling
        self.window = min(self.window, float(self.ceiling))

    def _feel(self, now: float, seconds: float, work: int) -> None:
        if self._skip > 0:
            self._skip -= 1
            self._batch_began = now
            return
        self._batch.append(seconds / work)
        self._work += work
        first = self._usual == float("inf")
        # the first few, while little is under way, are the measure of all that come after
        if len(self._batch) < (START if first else max(4 * START, self.window)):
            return
        pace = median(self._batch)
        flow = self._work / max(now - self._batch_began, 1e-6)
        self._batch, self._work, self._batch_began = [], 0, now
        if self._trial and flow < KEEPS * self._trial[1]:
            # less under way, less done: the replies are slow for a reason that is not ours
            self.window, self._usual, self._trial = self._trial[0], pace, None
            return
        self._trial = None
        self._usual = min(self._usual, pace)
        if pace > SLOW * self._usual:
            self._opening = False
            self._trial = (self.window, flow)
            self._skip = self.under_way
            self.window = max(1.0, self.window * CLOSE)
