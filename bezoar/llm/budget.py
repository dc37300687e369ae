"""Money: the most that a request may cost, the cost of its reply, and the caps on both.

All amounts are US dollars. Before a request is sent, the most that it can cost is set aside. Its
reply is charged at the true cost. Each process counts what all processes have set aside, so a cap
holds whatever the replies are and however many processes there are.

Example: of a cap of $10, $9 are spent and another process has set $0.60 aside. A request that may
cost $0.50 must wait. If the reply of the other process costs only $0.20, there is room for it.
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
    "BYTES_PER_TOKEN",
    "Purse",
    "Taken",
    "about",
    "check",
    "cost",
    "dollars",
    "run_id",
    "spending",
    "worst_tokens",
]

MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")
BYTES_PER_TOKEN = 4  # English, by the byte-level vocabularies in use: the forecast's estimate

# The answers to a claim on a request: it may be sent, its answer is in the ledger, another process
# has it under way, or a cap forbids it.
Taken = Literal["taken", "known", "elsewhere", "dear"]


def run_id(params: Params) -> str:
    """Return the name that a cap counts under: the profile and the name of its budget.

    Other changes of the parameters leave it as it is, so they do not open the cap anew.
    """
    return f"{params.profile} {params.budget_usd.name}"


def worst_tokens(body_bytes: int, sent: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return the most tokens that a request can be billed: (in, out).

    A token is at least one byte of the request. `out` is None where `sent` sets no maximum.
    """
    return body_bytes, next((int(sent[name]) for name in MAXIMA if sent.get(name)), None)


def cost(price: Price, tokens_in: int, tokens_cached: int, tokens_out: int, batch: bool) -> float:
    """Return the dollars for one reply. `tokens_cached` of `tokens_in` are at the cache rate.

    Prices are dollars a million tokens. With `batch` the sum is multiplied by `price.batch`.
    """
    usd = (
        (tokens_in - tokens_cached) * price.input
        + tokens_cached * price.cached
        + tokens_out * price.output
    ) / 1e6
    return usd * price.batch if batch else usd


class Purse:
    """The budget of one client, for use in one thread.

    A cap counts everything that was bought and lost under its run, by any process, and everything
    that living processes have set aside.
    """

    def __init__(self, ledger: Ledger, bill: Bill, stage_cap: float | None, run_cap: float | None):
        self.bill = bill.plain()
        self.claims = Claims(ledger, bill)
        self.most = 0.0  # the dearest single request taken or refused
        self._ledger = ledger
        self._caps = stage_cap, run_cap

    @property
    def capped(self) -> bool:
        """Say whether there is a cap at all."""
        return self._caps != (None, None)

    def take(self, key: str, usd: float, batch: bool = False) -> Taken:
        """Claim a request that costs `usd` at most, right before it is sent.

        OSError: the ledger's folder cannot be written. BadInput: a loss cannot be written. Nothing
        may be sent then.
        """
        with self.claims.locked():
            if self.claims.holder(key):
                return "elsewhere"
            # The ledger is read again only where that matters: another process that had this
            # request may have bought it, and a cap counts all that others bought.
            if key in self.claims.changed_keys or (self.capped and self.claims.changed_keys):
                self.claims.refresh()
            if key in self._ledger:
                return "known"
            if not self._affords(key, usd):
                return "dear"
            self.claims.take(key, usd, batch)
        return "taken"

    def adopt(self, keys: list[str], usd: float) -> bool:
        """Claim the requests of a batch that a dead process opened, with `usd` for all of them.

        False where another process has claimed them. Errors as with `take`.
        """
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
        # an earlier attempt at this request may have set dollars aside: they must not count twice
        self.claims.rest(key)
        if self._refusal(usd) is None:
            return True
        # Dead processes may have dollars set aside too. Ending their claims can free some: what
        # they bought is counted at its cost, and no longer at the most.
        self.claims.end_dead()
        return self._refusal(usd) is None

    def _refusal(self, usd: float) -> tuple[str, float, float] | None:
        """Return the cap that forbids another `usd`: its name, the cap, the dollars bought and
        lost. None where there is room."""
        run, stage, label, _ = self.bill
        places: tuple[tuple[str, ...], ...] = ((run, stage, label), (run,))
        for name, cap, place in zip(("stage", "run"), self._caps, places, strict=True):
            if cap is not None:
                spent = fsum(
                    d for bill, d in self._ledger.spent.items() if bill[: len(place)] == place
                )
                # 1e-9 allows for the rounding of float sums
                if spent + self.claims.set_aside(place) + usd > cap + 1e-9:
                    return name, cap, spent
        return None

    def others(self) -> bool:
        """Say whether another process has dollars of this run set aside, which may become free."""
        return self.claims.others(self.bill.run)

    @property
    def spent(self) -> float:
        """Return the dollars that everybody spent, as far as the ledger was read."""
        return fsum(self._ledger.spent.values())

    def rest(self, key: str) -> None:
        """Keep the claim on a request that failed and is tried again, with nothing set aside."""
        self.claims.rest(key)

    def release(self, key: str) -> None:
        """End the claim on a request: its answer is in the ledger, or there will be none."""
        self.claims.release(key)

    def flush(self) -> None:
        """Write the releases, so that other processes see them."""
        self.claims.flush()

    def lose(self, usd: float, reason: str) -> None:
        """Charge a reply that is of no use and is billed all the same. BadInput: the ledger cannot
        be written."""
        if usd > 0:
            self._ledger.charge(self.bill, usd, "lost", reason)

    def close(self) -> None:
        """End all claims. Requests that are under way are charged as lost, by the next process if
        this one cannot write."""
        try:
            self.claims.close()
        except (OSError, BadInput):
            self.claims.leave()

    def why(self) -> str:
        """Say in words which cap is reached and which key of the profile raises it."""
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
    """Refuse a cap that could not be kept. BadInput: there is a cap, and a reply has no maximum."""
    if isinstance(endpoint, InProcess) or not purse.capped or not endpoint.price.output:
        return
    if worst_tokens(0, endpoint.params)[1] is None:
        raise BadInput(
            f"llm: {endpoint.model}: params sets none of {', '.join(MAXIMA)}, so a reply has no "
            "greatest cost and budget_usd cannot be kept; set the one that this server knows"
        )


def spending(endpoint: Endpoint, exchanges: Iterable[Exchange]) -> Spending:
    """Sum up the tokens and dollars of the answers in `exchanges`, each counted once.

    Answers out of the ledger count as those that were bought now. So a run that was killed and
    resumed reports the same as one that was not.
    """
    bought = {e.reply.key: e.reply for e in exchanges if e.reply.key}.values()
    return Spending(
        model=endpoint.model,
        calls=len(bought),
        tokens_in=sum(reply.tokens_in for reply in bought),
        tokens_out=sum(reply.tokens_out for reply in bought),
        usd=round(fsum(reply.usd for reply in bought), 9),
    )
