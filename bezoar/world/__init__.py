"""A small closed world, the project's own. Every source of the embedded profile comes from it.

It is pure: it has no files, no clock and no global state, and equal arguments give equal records.
Facts and sums stand in facts.py, the ways to ask and the reading of questions in grammar.py."""

from bezoar.world.exams import (
    benchmarks,
    grades,
    model_answers,
    pair_votes,
    probes,
    questions,
    votes,
)
from bezoar.world.grammar import explain, solve
from bezoar.world.preferences import pairs
from bezoar.world.sources import queries, seeds, topics
from bezoar.world.text import corpus

__all__ = [
    "benchmarks",
    "corpus",
    "explain",
    "grades",
    "model_answers",
    "pair_votes",
    "pairs",
    "probes",
    "queries",
    "questions",
    "seeds",
    "solve",
    "topics",
    "votes",
]
