"""One link of the training chain: QLoRA on the quantised base, or all parameters.

reads   models/BASE and models/START of the link in the recipe, data/mix/LINK/: train.jsonl,
        eval.jsonl
writes  models/sft/LINK: an adapter, or a full model, each with its tokenizer
metrics metrics/sft/LINK.json, metrics/sft/LINK_train.csv, metrics/sft/LINK_eval.csv
"""

from pathlib import Path

from bezoar import params, preflight, work
from bezoar.params import arguments
from bezoar.rows import files
from bezoar.rows.records import Example
from bezoar.training import sft
from bezoar.training.runs import launching


def main(name: str) -> None:
    work.begin()
    settings = params.load()
    preflight.stage("sft", name)
    link = settings.chain[name]
    launching.spread(settings.launch, "stages.sft", name, shard=link.weights == "all")
    run = sft.sft(
        name,
        link,
        rows(f"data/mix/{name}/train.jsonl"),
        rows(f"data/mix/{name}/eval.jsonl"),
        settings=settings.sft,
        amount=settings.sft.links[name],
        models=Path("models"),
    )
    if run:
        files.write_json(f"metrics/sft/{name}.json", run.metrics)
        files.write(f"metrics/sft/{name}_train.csv", run.train)
        files.write(f"metrics/sft/{name}_eval.csv", run.evaluation)


def rows(path: str) -> list[tuple[str, str]]:
    """Return the (prompt, completion) of every row."""
    return [(row.prompt, row.completion) for row in files.read_jsonl(path, Example)]


if __name__ == "__main__":
    main(arguments.label("stages.sft", __doc__))
