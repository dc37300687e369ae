"""Writes what the filter stage came to: the rows of a set, their counts, and the set's card."""

from pathlib import Path
from typing import NamedTuple

from bezoar.filtering import curation, distributions, licences, tongues
from bezoar.filtering.cards import dataset
from bezoar.filtering.curation import Curated, Given
from bezoar.filtering.tongues import Speech
from bezoar.params import Filter, Params
from bezoar.rows.files import write, write_json, write_jsonl
from bezoar.rows.records import Kept, SeedContamination

TOKENIZER = Path("models/fetch/base/tokenizer.json")
# Counts of the funnel that are metrics too
MEASURED = ("asked", "parsed", "replies_read", "own", "copies", "kept")


class Filtered(NamedTuple):
    """A set after all checks. `traced` are its rows with their licences, and `train` and `held_out`
    the two sides of them. `tainted` are the items of benchmarks that stand in its seeds."""

    name: str
    pool: Given
    speech: Speech
    chosen: Curated
    tainted: list[SeedContamination]
    traced: list[Kept]
    train: list[Kept]
    held_out: list[Kept]

    @property
    def folder(self) -> Path:
        """The folder of the set."""
        return Path("data/filter", self.name)


def write_rows(rows: Filtered) -> None:
    """Write the rows of a set, those that were dropped, and what was found in either."""
    out, chosen = rows.folder, rows.chosen
    write_jsonl(out / "train.jsonl", rows.train)
    write_jsonl(out / "eval.jsonl", rows.held_out)
    write_json(out / "licences.json", licences.sheet(rows.name, rows.traced))
    write_jsonl(out / "rejected.jsonl", chosen.dropped)
    write_jsonl(out / "reported.jsonl", chosen.reported)
    write_jsonl(out / "contamination.jsonl", chosen.contaminations)
    write_jsonl(out / "contaminated_seeds.jsonl", rows.tainted)
    write_json(out / "compared.json", chosen.compared)
    tongues.write(rows.name, rows.speech, rows.pool.samples, chosen.kept)


def write_counts(rows: Filtered, params: Filter) -> None:
    """Write the funnel and the distributions of a set, and its metrics."""
    name, out, pool, chosen = rows.name, rows.folder, rows.pool, rows.chosen
    lost = [*pool.lost, *chosen.dropped]
    counts = curation.funnel(pool.samples, pool.verdicts or [], chosen.kept, lost, chosen.reported)
    sides = {"train": len(rows.train), "eval": len(rows.held_out)}
    funnel = {"scheme": name, **pool.counted, **counts, **sides}
    write_json(out / "funnel.json", funnel)
    tokens = distributions.sizes(pool.samples, distributions.tokenizer(TOKENIZER))
    described = distributions.describe(pool.samples, chosen.kept, params, tokens)
    write_json(out / "distributions.json", described)
    write(f"metrics/filter/{name}_tasks.csv", distributions.tasks_table(described))
    write(f"metrics/filter/{name}_lengths.csv", distributions.lengths_table(chosen.kept, tokens))
    measured = {key: funnel[key] for key in MEASURED if key in funnel}
    measured |= curation.count_contaminated_seeds(chosen.kept, rows.tainted)
    # No judge decided on the user's own rows.
    decisions = {} if pool.verdicts is None else counts
    measured |= curation.shares(decisions, len(pool.samples), described)
    write_json(f"metrics/filter/{name}.json", measured)


def write_card(rows: Filtered, p: Params) -> None:
    """Write the set's card from the other files of the set."""
    name, out = rows.name, rows.folder
    is_own = rows.pool.verdicts is None
    card = dataset.own_card(name, out) if is_own else dataset.card(name, p, out)
    write(out / "README.md", [card])
