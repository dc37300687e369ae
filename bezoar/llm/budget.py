"""Money: what a request may cost before it is sent, what it cost after, and where the cap is.

All in US dollars. A request is set aside at the most it can cost before it is sent and charged at
what it did cost after. What all processes have set aside counts in each of them, so a cap holds
whatever the replies are and however many processes there are.
"""

from collections.abc import Iterable, Mapping
from math import fsum
from typing import Any, Literal

from bezoar.llm.claims import Claims
from bezoar.llm.ledger import Bill, Ledger, about, dollars
from bezoar.params import Anthropic, Endpoint, InProcess, OpenAI, Params, Price
from bezoar.rows.files import BadInput
from bezoar.rows.records import Exchange, Spending

__all__ = [
    "BYTES_PER_TOKEN", "Purse", "Taken", "about", "check", "cost", "dollars", "run_id", "spending",
    "worst_tokens",
]  # fmt: skip

MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")
BYTES_PER_TOKEN = 4  # English, by the byte-level vocabularies in use: the forecast's estimate

# What becomes of a request that is about to be sent: it may be; its answer is in the ledger;
# another process has it under way; or a cap forbids it
Taken = Literal["taken", "known", "elsewhere", "dear"]


def run_id(params: Params) -> str:
    """What a cap counts by: the profile and the name of its budget, whatever else is changed."""
    return f"{params.profile} {params.budget_usd.name}"


def worst_tokens(body_bytes: int, sent: Mapping[str, Any]) -> tuple[int, int | None]:
    """The most tokens a request can be billed: (in, out). A token is at least one byte of the
    request. `out` is None where the request sets no maximum."""
    return body_bytes, next((int(sent[name]) for name in MAXIMA if sent.get(name)), None)


def cost(price: Price, tokens_in: int, tokens_cached: int, tokens_out: int, batch: bool) -> float:
    """Dollars for one reply; `tokens_cached` of `tokens_in` are at the cache rate."""
    usd = (
        (tokens_in - tokens_cached) * price.input
        + tokens_cached * price.cached
        + tokens_out * price.output
    ) / 1e6
    return usd * price.batch if batch else usd


class Purse:
    """What one client may spend. A cap counts what the ledger says was bought and lost under its
    run, by whomever, and what all living processes have set aside. Use it in one thread."""

    def __init__(self, ledger: Ledger, bill: Bill, stage_cap: float | None, run_cap: float | None):
        self.bill = bill.plain()
        self.claims = Claims(ledger, bill)
        self.most = 0.0  # the dearest single request taken or refused
        self._ledger = ledger
        self._caps = stage_cap, run_cap

    @property
    def capped(self) -> bool:
        """Whether there is a cap at all."""
        return self._caps != (None, None)

    def take(self, key: str, usd: float, batch: bool = False) -> Taken:
        """Claim a request that costs `usd` at most, right before it is sent. OSError when the
        ledger's folder cannot be written, BadInput when a loss cannot: nothing may be sent then."""
        with self.claims.locked():
            if self.claims.holder(key):
                return "elsewhere"
            # who had it may have bought it, and in a capped run what others bought counts
            if key in self.claims.news or (self.capped and self.claims.news):
                self.claims.refresh()
            if key in self._ledger:
                return "known"
            if not self._affords(key, usd):
                return "dear"
            self.claims.take(key, usd, batch)
        return "taken"

    def adopt(self, keys: list[str], usd: float) -> bool:
        """Claim the requests of a batch that a dead process opened, `usd` for all of them; False
        where another process has done so. Errors as with `take`."""
        with self.claims.locked():
            if any(self.claims.holder(key) or self.claims.mine(key) for key in keys):
                return False
            self.claims.refresh()
            for key in keys:
                if key not in self._ledger:
                    self.claims.take(key, usd / len(keys), batch=True)
        return True

    def _affords(self, key: str, usd: float) -> bool:
        self.most = max(self.most, usd)
        if not self.capped:
            return True
        self.claims.rest(key)  # what an earlier attempt had set aside
        if self._refusal(usd) is None:
            return True
        self.claims.bury()  # what the dead had set aside may be less by now
        return self._refusal(usd) is None

    def _refusal(self, usd: float) -> tuple[str, float, float] | None:
        """The cap that forbids another `usd`: its name, the cap, dollars bought and lost."""
        run, stage, label, _ = self.bill
        places: tuple[tuple[str, ...], ...] = ((run, stage, label), (run,))
        for name, cap, place in zip(("stage", "run"), self._caps, places, strict=True):
            if cap is not None:
                spent = fsum(
                    d for bill, d in self._ledger.spent.items() if bill[: len(place)] == place
                )
                # the grain of float sums, not of money
                if spent + self.claims.set_aside(place) + usd > cap + 1e-9:
                    return name, cap, spent
        return None

    def others(self) -> bool:
        """Whether another process has dollars of this run set aside, which it may not need."""
        return self.claims.others(self.bill.run)

    @property
    def spent(self) -> float:
        """Dollars spent by everybody, as far as the ledger was read."""
        return fsum(self._ledger.spent.values())

    def rest(self, key: str) -> None:
        """The request failed and is tried again later: it stays claimed, with nothing set aside."""
        self.claims.rest(key)

    def release(self, key: str) -> None:
        """The request is over: its answer is in the ledger, or there will be none."""
        self.claims.release(key)

    def flush(self) -> None:
        """Let others see what was released."""
        self.claims.flush()

    def lose(self, usd: float, reason: str) -> None:
        """Charge a reply that came to nothing and is billed all the same. BadInput when the ledger
        cannot be written."""
        if usd > 0:
            self._ledger.charge(self.bill, usd, "lost", reason)

    def close(self) -> None:
        """End all claims. What is under way is charged as lost, by the next process if this one
        cannot write."""
        try:
            self.claims.close()
        except (OSError, BadInput):
            self.claims.leave()

    def why(self) -> str:
        """Which cap is reached, in words, and the key in params.yaml that raises it."""
        if (refusal := self._refusal(self.most)) is None:
            return "the budget is spent; raise budget_usd"
        name, cap, spent = refusal
        run = [usd for bill, usd in self._ledger.lost.items() if bill.run == self.bill.run]
        lost = f" ({dollars(sum(run))} of the run on replies that never came whole)" if run else ""
        return (
            f"{dollars(spent)} of budget_usd.{name} {dollars(cap)} are spent{lost} and the next "
            f"request may cost {dollars(self.most)}; raise budget_usd.{name}, or begin anew "
            "under another budget_usd.name"
        )


def check(endpoint: OpenAI | Anthropic | InProcess, purse: Purse) -> None:
    """BadInput when a cap is set that could not be held, because a reply has no maximum."""
    if isinstance(endpoint, InProcess) or not purse.capped or not endpoint.price.output:
        return
    if worst_tokens(0, endpoint.params)[1] is None:
        raise BadInput(
            f"llm: {endpoint.model}: params sets none of {', '.join(MAXIMA)}, so a reply has no "
            "greatest cost and budget_usd cannot be kept; set the one that this server knows"
        )


def spending(endpoint: Endpoint, exchanges: Iterable[Exchange]) -> Spending:
    """What the answers in `exchanges` cost. The same whether they were bought now or came out of
    the ledger, so that a run that was killed and resumed reports what one that was not does."""
    bought = {e.reply.key: e.reply for e in exchanges if e.reply.key}.values()
    return Spending(
        model=endpoint.model,
        calls=len(bought),
        tokens_in=sum(reply.tokens_in for reply in bought),
        tokens_out=sum(reply.tokens_out for reply in bought),
        usd=round(fsum(reply.usd for reply in bought), 9),
    )
