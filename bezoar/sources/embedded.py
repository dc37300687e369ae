"""The project's own world as a source. Nothing is read: every row is made from a seed."""

from collections.abc import Callable

from bezoar import world
from bezoar.rows.prompts import ROOT, Prompt
from bezoar.sources.tables import Source, Tables


def read(name: str, rows: int, seed: int) -> Source:
    """Return the world's files for the fetch `name`, `rows` rows of each. For benchmarks that is
    `rows` items of a task, and `rows` probes of a skill."""
    tables = TABLES[name](rows, seed)
    sizes = {file: len(table) for file, table in tables.items() if file.endswith(".jsonl")}
    return Source(tables, {"source": "world", "rows": sizes, "left_out": {}})


def systems() -> list[str]:
    """Return Orca's system messages, in the order of their names. The probes of explained answers
    are asked under them."""
    names = sorted(path.stem for path in (ROOT / "orca" / "system").glob("*.txt"))
    return [text for name in names if (text := Prompt(f"orca/system/{name}").fill())]


def _pairs(rows: int, seed: int) -> Tables:
    train, test = world.pairs(rows, seed)
    return {"train.jsonl": train, "test.jsonl": test}


def _mt_bench(rows: int, seed: int) -> Tables:
    questions = world.questions(rows, seed)
    answers = world.model_answers(questions, seed)
    return {
        "questions.jsonl": questions,
        "answers.jsonl": answers,
        "votes.jsonl": [
            *world.votes(questions, answers, seed),
            *world.pair_votes(questions, answers, seed),
        ],
        "grades.jsonl": world.grades(questions, answers, seed),
        "votes.json": {"simulated": True},
    }


def _benchmarks(rows: int, seed: int) -> Tables:
    tasks = world.benchmarks(rows, seed)
    return {
        **{f"tasks/{task}.jsonl": items for task, items in tasks.items()},
        "probes.jsonl": world.probes(rows, seed, systems()),
    }


TABLES: dict[str, Callable[[int, int], Tables]] = {
    "dolly": lambda rows, seed: {"seeds.jsonl": world.seeds(rows, seed)},
    "flan": lambda rows, seed: {"queries.jsonl": world.queries(rows, seed)},
    "topics": lambda rows, seed: {"topics.jsonl": world.topics(rows, seed)},
    "hh_rlhf": _pairs,
    "mt_bench": _mt_bench,
    "benchmarks": _benchmarks,
}
