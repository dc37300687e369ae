"""Direct preference optimisation: the policy starts at, and is held against, one model.

reads   the weights that `aligned` starts from (models/), data/fetch/hh_rlhf/train.jsonl,
        data/fetch/hh_rlhf/test.jsonl
writes  models/dpo/NAME: a full model with its tokenizer
metrics metrics/dpo/dpo.json, metrics/dpo/train.csv, metrics/dpo/eval.csv
"""

from pathlib import Path

from bezoar import params, preflight, work
from bezoar.params import arguments
from bezoar.rows import chat, files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Pair
from bezoar.training import dpo
from bezoar.training.runs import launching


def main(name: str) -> None:
    work.begin()
    settings = params.load()
    preflight.stage("dpo", name)
    launching.spread(settings.launch, "stages.dpo", name, shard=settings.dpo.weights == "all")
    run = dpo.dpo(
        Path("models", settings.aligned[name].start),
        pairs("data/fetch/hh_rlhf/train.jsonl"),
        pairs("data/fetch/hh_rlhf/test.jsonl"),
        settings=settings.dpo,
        out=Path("models/dpo", name),
    )
    if run:
        files.write_json("metrics/dpo/dpo.json", run.metrics)
        files.write("metrics/dpo/train.csv", run.train)
        files.write("metrics/dpo/eval.csv", run.evaluation)


def pairs(path: str) -> list[tuple[str, str, str]]:
    """Return the (prompt, chosen, rejected) of every row. BadInput: there is none."""
    rows = [chat.from_pair(pair) for pair in files.read_jsonl(path, Pair)]
    if not rows:
        raise BadInput(
            f"{path}: has no rows; preference pairs are needed to train on and to hold to"
        )
    return rows


if __name__ == "__main__":
    main(arguments.label("stages.dpo", __doc__))
