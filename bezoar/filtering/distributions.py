"""What kinds of task a set holds and how long its texts are; and a sample of it nearer to a target.

A set is told by its shares of InstructGPT's use cases (arXiv 2203.02155, Table 1), beside the
shares it should have, and by the lengths of its texts in characters and in tokens.
"""

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
OTHER = "other"  # a row that no pattern of `filter.tasks` names

TokenCounts = Callable[[Sequence[str]], list[int]]


def tokenizer(path: Path) -> TokenCounts:
    """A function from texts to their numbers of tokens, by the tokenizer.json at `path`. Only the
    text is counted: no BOS, nothing cut or padded, and the name of a special token stays text, as
    in training (chat.ids). BadInput: the file is no tokenizer."""
    from tokenizers import Tokenizer

    try:
        loaded = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower one
        raise BadInput(
            f"{path}: cannot be read as a tokenizer ({error}); `dvc repro -f fetch@base` makes it "
            "anew"
        ) from None
    loaded.encode_special_tokens = True
    loaded.no_truncation()
    loaded.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(e.ids) for e in loaded.encode_batch(list(texts), add_special_tokens=False)]

    return count


def task(sample: Sample, tasks: Mapping[str, str]) -> str:
    """The kind of task that a row is: what the first pattern of `tasks` says that matches its
    category or, where it has none, its FLAN sub-mixture and task (`niv2/task123_...`)."""
    mixture = [str(sample.details[key]) for key in ("mixture", "task") if key in sample.details]
    name = sample.category or "/".join(mixture)
    return next((kind for pattern, kind in tasks.items() if fnmatchcase(name, pattern)), OTHER)


def distance(counts: Mapping[str, int], target: Mapping[str, float]) -> float | None:
    """Total variation between a set and a target, 0 to 1: the share of the set's rows that would
    have to be of another kind. `target` holds shares that add to one; None for an empty set."""
    total = sum(counts.values())
    if not total:
        return None
    kinds = dict.fromkeys([*target, *counts])
    apart = (abs(counts.get(k, 0) / total - target.get(k, 0.0)) for k in kinds)
    return math.fsum(apart) / 2


def sizes(rows: Sequence[Sample], count: TokenCounts) -> dict[str, int]:
    """Text -> tokens of every text of `rows`, each tokenised once."""
    texts = list(dict.fromkeys(text for field in FIELDS for text in _texts(rows, field)))
    return dict(zip(texts, count(texts), strict=True))


def describe(
    before: Sequence[Sample], after: Sequence[Sample], params: Filter, tokens: Mapping[str, int]
) -> dict[str, Any]:
    """The distributions of a scheme's samples before and after filtering; `tokens` as from `sizes`.

    `target`: share by kind of task. `sets`: for before and after the number of rows of each kind
    of task (kinds of the target first, in its order) and their distance to the target. `lengths`:
    one row a set, category ("" for all; Orca's rows have their sub-mixture), field and unit, as
    `summary` has it; contexts are those of rows that have one."""
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
    """The texts of one field; a context that is not there is no text of length nought."""
    texts = [str(getattr(row, field)) for row in rows]
    return [text for text in texts if text] if field == "context" else texts


def summary(values: Sequence[int]) -> dict[str, int | float]:
    """n, mean, std (of these values, not an estimate), min, quartiles (between two values where a
    quartile falls between them), max; at least one value."""
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
    """The value below which `share` (0 to 1) of sorted values lie, linear between neighbours."""
    position = share * (len(ranked) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ranked) - 1)
    return round(ranked[low] + (position - low) * (ranked[high] - ranked[low]), 2)


def tasks_table(described: Mapping[str, Any]) -> list[str]:
    """Lines of a CSV: a row a kind of task, its share in the target, before and after."""
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
    """Lines of a CSV: tokens of each field below which a share of the rows lies, in steps of a
    twentieth; a cell is empty where no row has such a text."""
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
    """(rows drawn, the others with reason `balance`): `wanted.rows` of `samples`, or all where
    there are fewer, by kind of task as near to `wanted.target` as these rows allow. None: all.

    Within a kind those rows stay that come first by a hash of their text, so that a row that is
    drawn is given up only to a new row before it, or to a kind that the target wants more."""
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
    """How many of `rows` fall to each kind, at most what there is of it: no other choice of so
    many comes nearer to `target`. Where a kind has too few, the others share its places in the
    target's proportions; what the target does not want comes last."""
    taken = dict.fromkeys(available, 0)

    def cost(kind: str) -> tuple[float, float, str]:
        share = target.get(kind, 0.0)
        # what one row more adds to |taken - share * rows|: convex, so the cheapest first is best
        more = max(-1.0, min(1.0, 2 * (taken[kind] - share * rows) + 1))
        return more, (taken[kind] + 1) / share if share else math.inf, kind

    for _ in range(min(rows, sum(available.values()))):
        taken[min((kind for kind in taken if taken[kind] < available[kind]), key=cost)] += 1
    return taken


def _draw_key(row: Sample) -> tuple[str, str]:
    """A place in the draw that depends on what a row says, and not on which side of the split it
    falls, for that is a hash as well (curation.split)."""
    content = "\0".join(("balance", row.system, row.instruction, row.context, row.response))
    return hashlib.sha256(content.encode()).hexdigest(), row.id
