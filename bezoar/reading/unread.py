"""Say on stderr when a model's replies cannot be read, and stop where none of them can."""

import sys
from collections import Counter
from collections.abc import Sequence

from bezoar.rows.files import BadInput
from bezoar.rows.records import Reply

# Ours: a stage warns if a smaller share of replies is read.
LEAST = 0.5
# Ours: replies that are printed, and characters of each
SHOWN, LONGEST = 3, 300

# Advice by the reason that most replies have
MEND = {
    "truncated": "most are cut: raise max_tokens in the params of {key}",
    "too_long": "most rows do not fit: raise context_tokens of {key} if its server takes more",
}
OTHERWISE = "look at the replies above; another model as {key} may do better"


def check(
    prefix: str, key: str, read: int, reasons: Sequence[str], replies: Sequence[Reply]
) -> None:
    """Warn where fewer than LEAST of a model's replies were read. BadInput: none was read.

    In both cases the first of `replies`, those that were not read, are printed. `prefix` opens each
    message and names the stage and the model. `key` is the endpoint in params.yaml. `reasons` has
    one word for each reply that was not read."""
    total = read + len(reasons)
    if not reasons or read >= LEAST * total:
        return
    counted = Counter(reasons).most_common(SHOWN)
    counts = ", ".join(f"{reason} {n}" for reason, n in counted)
    mend = MEND.get(counted[0][0], OTHERWISE).format(key=key)
    message = f"{prefix}: {read} of {total} replies could be read ({counts}); {mend}"
    for reply in replies[:SHOWN]:
        print(f"{prefix}: a reply that could not be read: {format_reply(reply)}", file=sys.stderr)
    if not read:
        raise BadInput(f"{message}; then run the same command again, what was bought is kept")
    print(f"warning: {message}", file=sys.stderr)


def warn(prefix: str, message: str, replies: Sequence[Reply]) -> None:
    """Print a warning, and the first of `replies` below it."""
    print(f"warning: {prefix}: {message}", file=sys.stderr)
    for reply in replies[:SHOWN]:
        print(f"{prefix}: a reply: {format_reply(reply)}", file=sys.stderr)


def format_reply(reply: Reply) -> str:
    """Write a reply as it came, on one line of a terminal, with how it ended."""
    text = (
        reply.raw or reply.text or (f"(thoughts alone) {reply.thoughts}" if reply.thoughts else "")
    )
    # The text of a model must not move the cursor or reorder the line.
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    cut = f" … ({len(text):,} characters)" if len(line) > LONGEST else ""
    return f"[{reply.finish_reason}] {line[:LONGEST] or '(empty)'}{cut}"
