"""Describes a set by its kinds of task and the lengths of its texts, and samples it toward a
target.

The kinds are InstructGPT's use cases (arXiv 2203.02155, Table 1), each with its share and the share
that it should have. Lengths are in characters and in tokens."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bezoar.params import Balance, Filter
from bezoar.rows.files import BadInput
from bezoar.rows.records import Rejected, Sample

FIELDS = ("instruction", "context", "response")
NO_CATEGORY = "(none)"
# The kind of a row that no pattern of `filter.tasks` matches.
OTHER = "other"

TokenCounts = Callable[[Sequence[str]], list[int]]


def tokenizer(path: Path) -> TokenCounts:
    """Return a function from texts to their numbers of tokens, by the tokenizer.json at `path`.

    Only the text is counted, as in training (chat.ids): no BOS, nothing cut or padded, and the name
    of a special token is plain text. BadInput: the file is no tokenizer."""
    from tokenizers import Tokenizer

    try:
        loaded = Tokenizer.from_file(str(path))
    # The library raises no narrower error.
    except Exception as error:
        raise BadInput(
            f"{path}: cannot be read as a tokenizer ({error}); `dvc repro -f fetch@base` makes it "
            "anew"
        ) from None
    # A text that spells out a special token, such as "</s>", is encoded as plain text.
    loaded.encode_special_tokens = True
    loaded.no_truncation()
    loaded.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(e.ids) for e in loaded.encode_batch(list(texts), add_special_tokens=False)]

    return count


def task(sample: Sample, tasks: Mapping[str, str]) -> str:
    """Return the kind of task that a row is: the value of the first pattern in `tasks` that
    matches, or OTHER.

    A pattern is matched with the row's category. A row without one is matched by its FLAN
    sub-mixture and task (`niv2/task123_...`)."""
    mixture = [str(sample.details[key]) for key in ("mixture", "task") if key in sample.details]
    name = sample.category or "/".join(mixture)
    return next((kind for pattern, kind in tasks.items() if fnmatchcase(name, pattern)), OTHER)


def distance(counts: Mapping[str, int], target: Mapping[str, float]) -> float | None:
    """Return the total variation between a set and a target, from 0 to 1, or None for an empty set.

    It is the share of the rows that would have to be of another kind. `target` holds shares that
    add up to one."""
    total = sum(counts.values())
    if not total:
        return None
    kinds = dict.fromkeys([*target, *counts])
    # A row of the wrong kind counts twice in this sum: one kind has it too many, one too few.
    apart = (abs(counts.get(k, 0) / total - target.get(k, 0.0)) for k in kinds)
    return math.fsum(apart) / 2


def sizes(rows: Sequence[Sample], count: TokenCounts) -> dict[str, int]:
    """Return the number of tokens of each text of `rows`. Each text is tokenised once."""
    texts = list(dict.fromkeys(text for field in FIELDS for text in _texts(rows, field)))
    return dict(zip(texts, count(texts), strict=True))


def describe(
    before: Sequence[Sample], after: Sequence[Sample], params: Filter, tokens: Mapping[str, int]
) -> dict[str, Any]:
    """Describe a scheme's samples before and after filtering: distributions.json. `tokens` is as
    from `sizes`.

    `target`: the share of each kind of task. `sets`: for before and after the number of rows of
    each kind (kinds of the target first, in its order) and the distance to the target. `lengths`: a
    `summary` for each set, category, field and unit. The category is "" for all rows, and Orca's
    rows have their sub-mixture. Contexts are those of rows that have one."""
    sets = {"before": before, "after": after}
    kinds = {name: Counter(task(row, params.tasks) for row in rows) for name, rows in sets.items()}
    return {
        "target": params.target,
        "sets": {
            name: {
                "rows": len(sets[name]),
                "tasks": {k: counts[k] for k in [*params.target, *sorted(set(counts))]},
                "distance": distance(counts, params.target),
            }
            for name, counts in kinds.items()
        },
        "lengths": list(_lengths(sets, tokens)),
    }


def _lengths(
    sets: Mapping[str, Sequence[Sample]], tokens: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    for name, rows in sets.items():
        groups: dict[str, list[Sample]] = {"": list(rows)}
        for row in rows:
            mixture = str(row.details["mixture"]) if "mixture" in row.details else NO_CATEGORY
            groups.setdefault(row.category or mixture, []).append(row)
        for category, members in sorted(groups.items()):
            for field in FIELDS:
                texts = _texts(members, field)
                units = {
                    "characters": [len(t) for t in texts],
                    "tokens": [tokens[t] for t in texts],
                }
                for unit, values in units.items():
                    if values:
                        head = {"set": name, "category": category, "field": field, "unit": unit}
                        yield head | summary(values)


def _texts(rows: Sequence[Sample], field: str) -> list[str]:
    """Return the texts of one field. A missing context is left out: it is no text of length 0."""
    texts = [str(getattr(row, field)) for row in rows]
    return [text for text in texts if text] if field == "context" else texts


def summary(values: Sequence[int]) -> dict[str, int | float]:
    """Summarise at least one value: n, mean, std, min, quartiles, max. The std is that of these
    values, not an estimate. A quartile between two values is interpolated."""
    ranked = sorted(values)
    mean = sum(ranked) / len(ranked)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in ranked) / len(ranked))
    quartiles = {
        name: quantile(ranked, s) for name, s in (("q1", 0.25), ("median", 0.5), ("q3", 0.75))
    }
    return {
        "n": len(ranked),
        "mean": round(mean, 2),
        "std": round(spread, 2),
        "min": ranked[0],
        **quartiles,
        "max": ranked[-1],
    }


def quantile(ranked: Sequence[int], share: float) -> float:
    """Return the value below which `share` (0 to 1) of sorted values lie, linear between
    neighbours."""
    position = share * (len(ranked) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ranked) - 1)
    return round(ranked[low] + (position - low) * (ranked[high] - ranked[low]), 2)


def tasks_table(described: Mapping[str, Any]) -> list[str]:
    """Return the lines of a CSV: each kind of task, its share in the target, before and after."""
    lines = ["task,target,before,after\n"]
    sets = [described["sets"][name] for name in ("before", "after")]
    for kind in dict.fromkeys([k for described_set in sets for k in described_set["tasks"]]):
        shares = [
            described_set["tasks"].get(kind, 0) / max(described_set["rows"], 1)
            for described_set in sets
        ]
        cells = (described["target"].get(kind, 0.0), *shares)
        lines.append(",".join([kind, *(f"{cell:.4f}" for cell in cells)]) + "\n")
    return lines


def lengths_table(rows: Sequence[Sample], tokens: Mapping[str, int]) -> list[str]:
    """Return the lines of a CSV, one for each twentieth of the rows. A cell is the number of tokens
    of a field below which that share lies, or empty where no row has such a text."""
    ranked = [sorted(tokens[text] for text in _texts(rows, field)) for field in FIELDS]
    lines = [f"share,{','.join(FIELDS)}\n"]
    for step in range(21):
        cells = ("" if not values else f"{quantile(values, step / 20):g}" for values in ranked)
        lines.append(f"{step / 20:g},{','.join(cells)}\n")
    return lines


# --- sampling toward a target --------------------------------------------------------------------


def balance(
    samples: Sequence[Sample], tasks: Mapping[str, str], params: Balance | None
) -> tuple[list[Sample], list[Rejected]]:
    """Return (the rows that stay, the others with the reason `balance`). None as `params`: all rows
    stay.

    `params.rows` of `samples` stay, or all where there are fewer. Their kinds of task are as near
    to `params.target` as these rows allow. Within a kind those rows stay that come first by a hash
    of their text. So when rows are added, a row gives way only to a new one before it, or to a kind
    that the target wants more."""
    if params is None:
        return list(samples), []
    groups: dict[str, list[Sample]] = {}
    for row in samples:
        groups.setdefault(task(row, tasks), []).append(row)
    available = {kind: len(rows) for kind, rows in groups.items()}
    quotas = allot(available, params.target, params.rows)
    chosen_ids = {
        row.id
        for kind, rows in groups.items()
        for row in sorted(rows, key=_draw_key)[: quotas[kind]]
    }
    left_out = [row for row in samples if row.id not in chosen_ids]
    return [row for row in samples if row.id in chosen_ids], [
        Rejected(
            id=row.id,
            scheme=row.scheme,
            reason="balance",
            text=row.instruction,
            details={"task": task(row, tasks)},
        )
        for row in left_out
    ]


def allot(available: Mapping[str, int], target: Mapping[str, float], rows: int) -> dict[str, int]:
    """Return the number of rows of each kind, `rows` together and at most `available` of each. No
    other choice of so many comes nearer to `target`.

    If a kind has too few rows, the others share its places in the target's proportions. Kinds that
    the target lacks come last."""
    taken = dict.fromkeys(available, 0)

    def cost(kind: str) -> tuple[float, float, str]:
        share = target.get(kind, 0.0)
        # The cost of a place is what one more row adds to |taken - share * rows|. It never falls
        # as a kind grows, so giving each place to the cheapest kind is best. Among equals the kind
        # with the fewest rows for its share comes first.
        more = max(-1.0, min(1.0, 2 * (taken[kind] - share * rows) + 1))
        return more, (taken[kind] + 1) / share if share else math.inf, kind

    for _ in range(min(rows, sum(available.values()))):
        taken[min((kind for kind in taken if taken[kind] < available[kind]), key=cost)] += 1
    return taken


def _draw_key(row: Sample) -> tuple[str, str]:
    """Return a sort key from a row's text. It must not depend on the side of the split, which is a
    hash of the text as well (curation.split)."""
    content = "\0".join(("balance", row.system, row.instruction, row.context, row.response))
    return hashlib.sha256(content.encode()).hexdigest(), row.id
