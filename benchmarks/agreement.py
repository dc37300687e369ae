"""How far judges agree with people: `python -m benchmarks.agreement --human FILE --judge FILE`.

A FILE holds votes (JSON Lines or parquet: judge, question_id, turn, model_a, model_b, winner), as
lmsys/mt_bench_human_judgments has them: --human those of people (judges expert_N and author_N),
--judge those of a machine, again for each further one. Prints S1 and S2 (OpenBezoar, appendix D)
of every two kinds of judges, with a 95 % interval of S1 over questions and Cohen's kappa; then
what sways each: the place, the length (--answers FILE, models' answers) and being asked about
itself (--own JUDGE=MODEL). The last line is one JSON object, of the first judge against people.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bezoar.judging import agreement
from bezoar.sources import readers

SEED = 3  # of the bootstrap, as agreement.seed


def main() -> None:
    """Read the votes, compare, and end with one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--human", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True, action="append")
    parser.add_argument("--answers", type=Path, action="append", default=[])
    parser.add_argument("--own", action="append", default=[], help="JUDGE=MODEL")
    given = parser.parse_args()
    judged = [vote for path in given.judge for vote in readers.votes(path)]
    if not judged:
        parser.error(f"--judge: {given.judge[0]} holds no votes")
    votes = [*judged, *readers.votes(given.human)]
    lengths = {
        (row.question_id, row.model, turn): len(text)
        for path in given.answers
        for row in readers.answers(path)
        for turn, text in enumerate(row.turns, 1)
    }
    rows = agreement.table(votes, SEED)
    shares = "".join(f" {s:>6} {'n':>6}   {'[95 %]':14}" for s in ("S1", "S2"))
    print(f"turn  {'judges':30}{shares}  kappa")
    for row in rows:
        print(line(row))
    own = dict(pair.split("=", 1) for pair in given.own)
    print("\njudge            leans to               share      n   [95 %]        people      n")
    for row in agreement.biases(votes, lengths, own, SEED):
        print(leaning(row))
    print(json.dumps(summary(rows, agreement.kind(judged[0].judge))))


def line(row: Any) -> str:
    """A row of the first table."""
    told = f"{row['turn']:4}  {row['a'] + ' / ' + row['b']:30}"
    for s in ("s1", "s2"):
        share = "-" if row[s] is None else f"{row[s]:.1%}"
        told += f" {share:>6} {row[f'{s}_n']:6}   {interval(row[f'{s}_low'], row[f'{s}_high']):14}"
    return f"{told} " + (f"{row['kappa']:6.2f}" if row["kappa"] is not None else f"{'-':>6}")


def leaning(row: Any) -> str:
    """A row of the second one."""
    told = f"{row['judge']:16} {row['bias']:20} {row['share']:7.1%} {row['n']:6}"
    people = f"{row['people']:7.1%} {row['people_n']:6}" if row["people"] is not None else ""
    return f"{told}   {interval(row['low'], row['high']):16} {people}".rstrip()


def interval(low: float | None, high: float | None) -> str:
    """`[62.2%, 69.8%]`, or a dash where all is of one question."""
    return "-" if low is None else f"[{low:.1%}, {high:.1%}]"


def summary(rows: list[Any], judge: str) -> dict[str, dict[str, float | int | None]]:
    """S1 and S2 of `judge` against people, a turn each, to four digits."""
    return {
        f"turn_{row['turn']}": {
            "s1": round(row["s1"], 4),
            "s1_n": row["s1_n"],
            "s2": None if row["s2"] is None else round(row["s2"], 4),
            "s2_n": row["s2_n"],
        }
        for row in rows
        if (row["a"], row["b"]) == (judge, agreement.HUMAN)
    }


if __name__ == "__main__":
    main()
