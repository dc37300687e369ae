"""The grader compares a checkpoint's MT-Bench answers with a baseline's, in both orders.

reads   data/fetch/mt_bench/questions.jsonl, data/mt_answer/*/answers.jsonl of the two checkpoints
        of compared.NAME in params.yaml
writes  data/mt_compare/NAME/: comparisons.jsonl, two a question: turn 1, turn 2 (none where a
        request failed for good), votes.jsonl (those with a winner or a tie, as agreement reads
        them), replies.jsonl (every exchange, as bought), failures.jsonl; all empty for limit: 0
metrics metrics/mt_compare/NAME.json: wins, losses, ties, inconsistent (the order decided), what was
        left out by reason, retried (requests made once more, their reply stated nothing), win_rate,
        by turn and at equal length (_lc), each with an interval, mean characters;
        metrics/mt_compare/NAME_spending.json
"""

import sys

from bezoar import budget, llm, pairwise, params, preflight, progress, verdicts, work
from bezoar.files import read_jsonl, write_json, write_jsonl
from bezoar.records import Answers, Ask, Comparison, Question


def main(name: str) -> None:
    work.die_with_parent()
    p = params.load()
    questions = {
        q.question_id: q for q in read_jsonl("data/fetch/mt_bench/questions.jsonl", Question)
    }
    named = p.compared[name]
    model, baseline = (
        list(read_jsonl(f"data/mt_answer/{one}/answers.jsonl", Answers))
        for one in (named.model, named.baseline)
    )
    pairs = pairwise.pairs(model, baseline, p.mt_compare.limit)
    run = llm.Run[pairwise.Pair, list[Comparison]]([], [], [])
    if pairs:
        preflight.stage("mt_compare", name)
        ask = llm.connect(p.llm.grader, p, "mt_compare", name)

        def compare(pair: pairwise.Pair, ask: Ask) -> list[Comparison]:
            return pairwise.comparer(questions, p.mt_grade.references, ask)(pair)

        with progress.bar(f"mt_compare {name}", len(pairs)) as advance:
            run = llm.each(
                compare, pairs, ask, p.llm.grader, where=f"mt_compare@{name}",
                name=lambda pair: str(pair[0].question_id), advance=advance,
            )  # fmt: skip
    comparisons = [comparison for _, both in run.done for comparison in both]
    write_jsonl(f"data/mt_compare/{name}/comparisons.jsonl", comparisons)
    write_jsonl(f"data/mt_compare/{name}/votes.jsonl", pairwise.votes(comparisons))
    write_jsonl(f"data/mt_compare/{name}/replies.jsonl", run.exchanges)
    write_jsonl(f"data/mt_compare/{name}/failures.jsonl", run.failures)
    measured = pairwise.measure(comparisons, pairs, p.mt_compare.seed)
    measured["retried"] = verdicts.retried(run.exchanges, verdicts.choice)
    write_json(f"metrics/mt_compare/{name}.json", measured)
    spent = budget.spending(p.llm.grader, run.exchanges)
    write_json(f"metrics/mt_compare/{name}_spending.json", spent.model_dump())


if __name__ == "__main__":
    main(sys.argv[1].rpartition("@")[2])
