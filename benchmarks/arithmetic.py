"""What equal bits on every CPU cost: `python -m benchmarks.arithmetic [STEPS [ROUNDS]]`.

The base of the embedded profile is grown for a few steps (10) in fresh processes, in turn with
`cpu: avx2` and with each library as it chooses, twice each. The faster turn counts. Prints seconds
a step, and their ratio as JSON.
"""

import json
import os
import subprocess
import sys
import time

from bezoar import arithmetic
from bezoar.params import arguments


def main(steps: int = 10, rounds: int = 2) -> None:
    turns = [{way: _seconds(way, steps) for way in ("avx2", "own")} for _ in range(rounds)]
    best = {way: min(seconds[way] for seconds in turns) for way in turns[0]}
    for way, least in best.items():
        print(f"{way}: {least / steps:.3f} s of CPU a step")
    ratio = best["avx2"] / best["own"]
    print(json.dumps({"cpu": arithmetic.model(), "avx2_to_own": float(f"{ratio:.3g}")}))


def _seconds(way: str, steps: int) -> float:
    """The CPU seconds of `steps` steps in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.arithmetic", way, str(steps)]
    plain = {name: value for name, value in os.environ.items() if name not in _SET}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


_SET = arithmetic.SETTINGS["avx2"].keys()


def _grow(way: str, steps: int) -> None:
    """Train the base, and print how long it took: the steps alone, no import and no tokenizer."""
    arithmetic.settle("avx2" if way == "avx2" else None)
    from bezoar import params, world
    from bezoar.params import GrownBase
    from bezoar.sources import pretraining

    p = params.load(profile="embedded")
    assert isinstance(p.fetch.base, GrownBase)
    size = p.fetch.base.model_copy(update={"steps": steps, "documents": 500})
    corpus = world.corpus(size.documents, p.fetch.seed)
    tokenizer = pretraining._tokenizer(corpus, size)
    rows = pretraining._blocks(tokenizer, corpus, size.sequence)
    warm = size.model_copy(update={"steps": 1})
    pretraining._train(rows, tokenizer, warm, p.fetch.seed)
    start = time.process_time()
    pretraining._train(rows, tokenizer, size, p.fetch.seed)
    print(time.process_time() - start)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("avx2", "own"):
        _grow(sys.argv[1], int(sys.argv[2]))
    else:
        main(*map(int, arguments.words("benchmarks.arithmetic", __doc__, 0, "NUMBER", 2)))
