"""Say on stderr when a model's replies cannot be read, and stop where none of them can."""

import sys
from collections import Counter
from collections.abc import Sequence

from bezoar.files import BadInput
from bezoar.records import Reply

LEAST = 0.5  # ours: share of replies that are read, below which a stage warns
SHOWN, LONGEST = 3, 300  # ours: replies shown, and characters of each


def check(
    where: str, read: int, reasons: Sequence[str], replies: Sequence[Reply], mend: str
) -> None:
    """Warn where fewer than LEAST of a model's replies were read, BadInput where none was; either
    way some of `replies`, those that were not read, are shown as they came.

    `where` names the stage and the model, `reasons` has one word for each that was not read, and
    `mend` says what would be right."""
    total = read + len(reasons)
    if not reasons or read >= LEAST * total:
        return
    counts = ", ".join(f"{reason} {n}" for reason, n in Counter(reasons).most_common(SHOWN))
    message = f"{where}: {read} of {total} replies could be read ({counts}); {mend}"
    for reply in replies[:SHOWN]:
        print(f"{where}: a reply that could not be read: {shown(reply)}", file=sys.stderr)
    if not read:
        raise BadInput(message)
    print(f"warning: {message}", file=sys.stderr)


def shown(reply: Reply) -> str:
    """A reply as it came, on one line of a terminal, with how it ended."""
    text = reply.raw or reply.text
    # what a model wrote must not move the cursor or reorder the line
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    cut = f" … ({len(text):,} characters)" if len(line) > LONGEST else ""
    return f"[{reply.finish_reason}] {line[:LONGEST] or '(empty)'}{cut}"
