"""Python imports this by itself where the folder is on its path. In a stage's process it adds up
the CPU seconds of COMPUTE and of imports, and writes them to $STAGE_TIMES as a line of JSON."""

import atexit
import builtins
import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

# What is training, generation and evaluation, and not loading, saving or checking
COMPUTE = {
    "bezoar.sources.pretraining": ["grow"],
    "bezoar.training.runs.fitting": ["fit"],
    "bezoar.training.merge": ["merge"],
    "bezoar.models.generation": ["generate"],
    "bezoar.evaluating.harness": ["run"],
    "bezoar.evaluating.probes": ["probe"],
    "bezoar.evaluating.talks": ["converse"],
    "bezoar.llm.run": ["run_jobs"],
}
spent: defaultdict[str, float] = defaultdict(float)
open_: list[str] = []  # what is being timed, the outer first


def timed(kind: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, whose seconds count as `kind`: compute in compute once, imports never as compute."""

    def call(*args: Any, **named: Any) -> Any:
        if kind in open_:
            return work(*args, **named)
        start = time.process_time()
        open_.append(kind)
        try:
            return work(*args, **named)
        finally:
            open_.pop()
            seconds = time.process_time() - start
            spent[kind] += seconds
            if open_:
                spent[open_[-1]] -= seconds

    return call


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of COMPUTE, and wraps their functions once they are loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        """As importlib asks."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name in COMPUTE else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def load(module: Any) -> None:
            run(module)
            for each in COMPUTE[name]:
                setattr(module, each, timed("compute", getattr(module, each)))

        spec.loader.exec_module = load  # type: ignore[method-assign]
        return spec


def tell() -> None:
    """Write what was spent."""
    line = {"stage": os.environ["DVC_STAGE"], "total": time.process_time(), **spent}
    with open(os.environ["STAGE_TIMES"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if "STAGE_TIMES" in os.environ and "DVC_STAGE" in os.environ:
    sys.meta_path.insert(0, Finder())
    builtins.__import__ = timed("imports", builtins.__import__)
    atexit.register(tell)
