"""Limits on the requests under way to one server, and on the rate at which they are sent.

There is a window (the most requests under way) and up to two rates (requests and tokens a second).

The window:
- It doubles until the first sign of trouble or until it reaches the ceiling.
- It shrinks by a quarter when the server refuses (429, 503, 529) or a request runs out of time.
- It shrinks by a quarter when replies become slow and no more of them come. A server that queues,
  as vLLM does, never refuses, so slowness is its only sign.
- It grows by one for each ten replies.

The rate is learned from refusals. Once their pause is over, requests go at the rate at which
replies came until then, pauses included. Example: a server lets 60 requests a minute through. We
sent bursts, were refused, and got 60 replies in the last minute. From now on we send one a second
(and 5 % more, to find out whether the limit has risen) instead of another burst.

Occasional refusals (429s) are ignored: only the refused request waits. Some servers refuse at
random, and slowing down for each refusal would throttle us to zero there. Example: a server refuses
every twentieth request, whatever our rate. Each refusal would take a quarter of the window, and the
19 replies until the next one would give back only two requests of it.

Times are seconds on one clock, which the caller reads.
"""

import random
from collections import deque
from statistics import median

# --- the window ---
START = 16  # requests under way before anything is known of the server
DOUBLE = 0.2  # seconds that a doubling takes at least; more where half the fastest reply is more
CLOSE = 0.75  # the share of the window that is left after a cut
OPEN = 0.1  # requests that each reply adds to the window

# --- refusals ---
# The share of refusals is a moving average: each answer counts RECENT of it. At BELIEVED or more a
# refusal is taken for a limit. Below that a learned rate only gives way to YIELD of itself, and
# never under FLOOR of its first value.
RECENT = 0.05
BELIEVED = 0.13
YIELD, FLOOR = 0.97, 0.8
# Seconds of the first pause where the server names none. Each further one is twice as long, up to
# LONGEST.
STEP = 0.5
LONGEST = 60.0

# --- the learned rate ---
SPAN = 60.0  # seconds over which replies are counted into a rate: providers count minutes
PROBE = 1.05  # the next rate is this multiple of the rate at which replies came
GROWTH = 0.02  # share by which a learned rate grows in a second without refusals
SLACK = 0.05  # seconds that a late timer may catch up

# --- slow replies ---
# The server queues where a unit of work takes SLOW times as long as usual. A reply's work is the
# tokens that it wrote, and WORK more for the prompt that the server read.
SLOW = 3.0
WORK = 16
# A cut was right where the work done in a second stays above USEFUL of what it was. A useless one
# leaves CLOSE of it: less is asked for, and less is done.
USEFUL = 0.85


class Admission:
    """The window and the rates of one server.

    `ceiling` is the most requests under way. `per_second` and `tokens_per_second` are the rates
    that the user allows, None for no limit. Without `adaptive` the window starts at the ceiling,
    and slow replies do not shrink it.
    """

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
        self._opening = True  # the window is still doubling
        self._opened: float | None = None  # when it last doubled
        self._fastest = float("inf")
        self._refused = False  # a rate is learned when the pause of the last refusal ends
        self._share = 0.0  # share of refusals among the latest answers
        self._unlucky = 0  # pauses since the last reply
        self._floor = 0.0
        self._grown = 0.0
        self._closed = 0.0
        self._replies: deque[list[float]] = deque()  # [second, replies in it]
        self._began: float | None = None
        self._usual = float("inf")  # seconds that a unit of work takes: the least measured so far
        self._batch: list[float] = []
        self._work = 0
        self._batch_began = 0.0
        self._trial: tuple[float, float] | None = None  # (window, work a second) before a cut
        self._skip = 0  # replies that were under way when the window last changed

    def wait(self, now: float) -> float:
        """Return the seconds until the next request may be sent: 0 for now, inf for not before one
        comes back."""
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
        """Count a request that is sent now and may use `tokens`."""
        if self._began is None:
            self._began = self._batch_began = now
        self.under_way += 1
        if (rate := self._rate(now)) is not None:
            self._next = max(self._next, now - SLACK) + 1 / rate
        if self._tokens_per_second is not None:
            spent = tokens / self._tokens_per_second
            self._next_tokens = max(self._next_tokens, now) + spent

    def answered(self, now: float, seconds: float, reserved: int, used: int, written: int) -> None:
        """Count a reply that came `seconds` after its request was sent.

        It used `used` of the `reserved` tokens, and the model wrote `written` of those.
        """
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
            self._watch_pace(now, seconds, WORK + written)

    def refused(self, now: float, retry_after: float | None) -> None:
        """Count a refusal, and pause all requests if refusals are frequent.

        The pause is `retry_after` seconds. Where the server names none it is a doubling, jittered
        time.
        """
        self.under_way -= 1
        self._share += RECENT * (1 - self._share)
        if self._share < BELIEVED:
            if self.rate is not None:
                self.rate = max(self.rate * YIELD, self._floor)
                self._grown = now + 1  # no growth for a second
            return
        # Requests that were sent together are refused together: 16 refusals of one burst are one
        # sign and cut the window once. Those that come while all pause belong to the same burst.
        if now >= self.resume:
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
        """Count a request without a reply. `slow` says that it ran out of time."""
        self.under_way -= 1
        # requests that were sent together run out of time together: they cut the window once
        if slow and self.adaptive and now > self._closed + 1:
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
        # a server that answered nothing was down, which says nothing of its rate: begin again
        if replies == 0:
            self._opening, self._opened, self.window = True, None, min(self.window, START)
            return
        self.rate = max(PROBE * replies / span, self.rate * CLOSE if self.rate else 0.0)
        self._floor = FLOOR * self.rate
        self._share = 0.0
        self._grown = self._next = now

    def _open(self, now: float, seconds: float) -> None:
        """Widen the window after a reply: by doubling at first, later by OPEN."""
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

    def _watch_pace(self, now: float, seconds: float, work: int) -> None:
        """Watch whether replies become slow, shrink the window then, and undo that if it was wrong.

        Example: with 64 requests under way a unit of work takes four times as long as it did with
        16. The window goes to 48, and the next replies are measured. If the server still does as
        much work a second, its queue was too long and 48 is right. If it does a quarter less, the
        requests were not the reason: the window goes back to 64.
        """
        # these requests were sent under the old window and say nothing of the new one
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
        if self._trial and flow < USEFUL * self._trial[1]:
            # fewer requests, less work done: the replies are slow for a reason that is not ours
            self.window, self._usual, self._trial = self._trial[0], pace, None
            return
        self._trial = None
        self._usual = min(self._usual, pace)
        if pace > SLOW * self._usual:
            self._opening = False
            self._trial = (self.window, flow)
            self._skip = self.under_way
            self.window = max(1.0, self.window * CLOSE)
