"""The adapter of a link, or several, are merged into full-precision weights.

reads   models/BASE and the adapters models/ADAPTER of merges.NAME in the recipe
writes  models/merge/NAME: a full model with its tokenizer
metrics none
"""

from pathlib import Path

from bezoar import params, preflight, work
from bezoar.params import arguments
from bezoar.training import merge


def main(name: str) -> None:
    work.begin()
    settings = params.load()
    preflight.stage("merge", name)
    merged, models = settings.merges[name], Path("models")
    merge.merge(
        models / merged.base,
        [models / adapter for adapter in merged.adapters],
        settings.merge,
        settings.sft,
        models / "merge" / name,
    )


if __name__ == "__main__":
    main(arguments.label("stages.merge", __doc__))
