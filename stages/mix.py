"""The rows of one link: its set, or several sets mixed, and rows of earlier links seen again.

reads   data/SET for each set of the link in the recipe, and of the links before it where
        the profile's mix.replay is above 0: train.jsonl and eval.jsonl of samples, or train.jsonl
        and test.jsonl of preference pairs (the chosen answer)
writes  data/mix/LINK/: train.jsonl, eval.jsonl, as text; of earlier links no row is held out
metrics metrics/mix/LINK.json: train_rows, replayed_rows, eval_rows; train_rows by set
"""

from collections import Counter
from random import Random

from bezoar import params, work
from bezoar.params import PAIRS, arguments
from bezoar.rows.files import BadInput, read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Example, Kept, Pair
from bezoar.training import chain, mixing


def main(name: str) -> None:
    work.begin()
    settings = params.load()
    link = chain.steps(settings, f"sft/{name}")[-1]
    train = mixing.mix(
        [rows(source, "train") for source in link.data],
        [rows(source, "train") for source in link.replayed],
        settings.mix.replay,
        Random(f"{settings.mix.seed}/{name}"),
    )
    held_out = [row for source in link.data for row in rows(source, "eval")]
    write_jsonl(f"data/mix/{name}/train.jsonl", train)
    write_jsonl(f"data/mix/{name}/eval.jsonl", held_out)
    by_set = Counter(row.source for row in train)
    counts = {
        "train_rows": len(train),
        "replayed_rows": sum(by_set[source] for source in link.replayed),
        "eval_rows": len(held_out),
        "sets": by_set,
    }
    write_json(f"metrics/mix/{name}.json", counts)


def rows(source: str, side: str) -> list[Example]:
    """Read the rows of a set to learn from ("train") or its held-out ones ("eval"), in file
    order."""
    path = f"data/{source}/{'test' if (source, side) == (PAIRS, 'eval') else side}.jsonl"
    if source == PAIRS:
        examples = [mixing.example(pair, source) for pair in read_jsonl(path, Pair)]
    else:
        examples = [mixing.example(sample, source) for sample in read_jsonl(path, Kept)]
    if not examples:
        raise BadInput(f"{path}: has no rows; a link needs some to learn from and to be held to")
    return examples


if __name__ == "__main__":
    main(arguments.label("stages.mix", __doc__))
