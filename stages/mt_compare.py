"""The grader compares a checkpoint's MT-Bench answers with a baseline's, in both orders.

reads   data/fetch/mt_bench/questions.jsonl, data/mt_answer/*/answers.jsonl of the two checkpoints
        of compared.NAME in the recipe, data/fetch/dolly: real rows that the grader judges
        too, to see whether it is better than a coin
writes  data/mt_compare/NAME/: comparisons.jsonl, two a question: turn 1, turn 2, votes.jsonl (those
        with a winner or a tie, as agreement reads them), replies.jsonl (every exchange, as bought),
        failures.jsonl; all empty for limit: 0
metrics metrics/mt_compare/NAME.json: wins, losses, ties, inconsistent (the order decided), what was
        left out by reason, read (share of what was asked that the replies decide), retried
        (requests made once more, their reply stated nothing), win_rate, by turn and at equal length
        (_lc), each with an interval, mean characters, how the grader did on the real rows (known_);
        metrics/mt_compare/NAME_spending.json
"""

from bezoar import params, preflight, work
from bezoar.judging import pairwise, rounds, verdicts
from bezoar.llm.asker import Asker
from bezoar.params.arguments import label
from bezoar.rows.files import read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Answers


def main(name: str) -> None:
    work.begin()
    p = params.load()
    sides = p.compared[name]
    model, baseline = (
        list(read_jsonl(f"data/mt_answer/{side}/answers.jsonl", Answers))
        for side in (sides.model, sides.baseline)
    )
    pairs = pairwise.pairs(model, baseline, p.mt_compare.limit)
    if pairs:
        preflight.stage("mt_compare", name)
    asker = Asker(p, "mt_compare", name, p.llm.grader)
    for compared in rounds.compare(asker, p, pairs):
        comparisons, out = compared.verdicts, f"data/mt_compare/{name}"
        asker.write(compared.run)
        write_jsonl(f"{out}/comparisons.jsonl", comparisons)
        write_jsonl(f"{out}/votes.jsonl", pairwise.votes(comparisons))
        measured = pairwise.measure(comparisons, compared.jobs, p.mt_compare.seed)
        measured["read"] = verdicts.share_read([c.status for c in comparisons])
        measured["retried"] = compared.retried
        write_json(f"metrics/mt_compare/{name}.json", measured | compared.trust)
        compared.check_grader(f"{asker.label}, {p.llm.grader.model}")


if __name__ == "__main__":
    main(label("stages.mt_compare", __doc__))
