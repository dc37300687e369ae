"""Reads the seeds that schemes plan from."""

from pathlib import Path

from bezoar.rows.files import BadInput, read_jsonl
from bezoar.rows.records import Query, Seed, Seeds, Topic

FETCHED = Path("data/fetch")


def read(source: str) -> Seeds:
    """Read what schemes may plan from. BadInput: the scheme's own source is empty."""
    topics = list(read_jsonl(FETCHED / "topics/topics.jsonl", Topic))
    if source == "dolly":
        seeds = Seeds(dolly=list(read_jsonl(FETCHED / "dolly/seeds.jsonl", Seed)), topics=topics)
    elif source == "flan":
        seeds = Seeds(flan=list(read_jsonl(FETCHED / "flan/queries.jsonl", Query)), topics=topics)
    else:
        raise BadInput(f"params.yaml: seeds: no such source, {source!r}; have 'dolly' and 'flan'")
    if not (seeds.dolly or seeds.flan):
        raise BadInput(
            f"data/fetch/{source}: holds no seeds; give fetch@{source} a source with rows"
        )
    return seeds
