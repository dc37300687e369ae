"""Money: what a request may cost before it is sent, what it cost after, and where the cap is.

All in US dollars. A request is reserved at the most it can cost before it is sent and settled at
what it did cost after, so that a cap holds whatever the replies: one process never passes it, and
processes side by side pass it by no more than what they have in flight at that moment.
"""

from collections.abc import Iterable, Mapping
from math import fsum
from typing import Any

from bezoar import work
from bezoar.files import BadInput
from bezoar.ledger import Bill, Ledger
from bezoar.params import Anthropic, Endpoint, InProcess, OpenAI, Params, Price
from bezoar.records import Exchange, Spending

MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")
BYTES_PER_TOKEN = 4  # English, by the byte-level vocabularies in use: the forecast's estimate


def run_id(params: Params) -> str:
    """16 hex digits that name a run: the same after a kill, in a clone and when only caps were
    raised; others as soon as another number of the recipe is."""
    return work.fingerprint(run=params.model_dump(exclude={"budget_usd"}))


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
    """What one stage may spend, counting what earlier, killed runs of the same stage and the run's
    other stages have spent by the ledger."""

    def __init__(self, ledger: Ledger, bill: Bill, stage_cap: float | None, run_cap: float | None):
        self.bill = bill
        self.reserved = 0.0
        self.spent = 0.0  # by this process
        self.lost = 0.0  # at most, for replies that came broken; by this process
        self.most = 0.0  # the dearest single request reserved or refused
        self._ledger = ledger
        self._caps = stage_cap, run_cap

    @property
    def capped(self) -> bool:
        """Whether there is a cap at all."""
        return self._caps != (None, None)

    def totals(self) -> tuple[float, float]:
        """Dollars spent so far by this stage (with its label) and by the run."""
        if self.capped:
            self._ledger.catch_up()  # other stages of this run may be spending now
        run = [(b, usd) for b, usd in self._ledger.spent.items() if b.run == self.bill.run]
        stage = [usd for b, usd in run if (b.stage, b.label) == (self.bill.stage, self.bill.label)]
        return sum(stage) + self.lost, sum(usd for _, usd in run) + self.lost

    def reserve(self, usd: float) -> bool:
        """Set `usd` aside for one request; False when a cap forbids it."""
        self.most = max(self.most, usd)
        if self.capped:
            for cap, total in zip(self._caps, self.totals(), strict=True):
                # the grain of float sums, not of money
                if cap is not None and total + self.reserved + usd > cap + 1e-9:
                    return False
        self.reserved += usd
        return True

    def settle(self, reserved: float, usd: float) -> None:
        """The request is over: its reservation ends, `usd` were paid."""
        self.reserved -= reserved
        self.spent += usd

    def why(self) -> str:
        """Which cap is reached, in words, and the key in params.yaml that raises it."""
        for name, cap, total in zip(("stage", "run"), self._caps, self.totals(), strict=True):
            if cap is not None and total + self.reserved + self.most > cap + 1e-9:
                return (
                    f"${total:.4f} of budget_usd.{name} ${cap:.2f} are spent and the next request "
                    f"may cost ${self.most:.4f}; raise budget_usd.{name}"
                )
        return "the budget is spent; raise budget_usd"


def check(endpoint: OpenAI | Anthropic | InProcess, purse: Purse) -> None:
    """BadInput when a cap is set that could not be held, because a reply has no maximum."""
    if isinstance(endpoint, InProcess) or not purse.capped or not endpoint.price.output:
        return
    if worst_tokens(0, endpoint.params)[1] is None:
        raise BadInput(
            f"llm: {endpoint.model}: params sets none of {', '.join(MAXIMA)}, so a reply has no "
            "greatest cost and budget_usd cannot be kept; set the one that this server knows"
        )


def dollars(usd: float) -> str:
    """An amount in words: cents, and below a dollar as many digits as it takes to be right."""
    return f"${usd:,.2f}" if usd >= 1 or not usd else f"${usd:.4g}"


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
