"""The grader compares a checkpoint's MT-Bench answers with a baseline's, in both orders.

reads   data/fetch/mt_bench/questions.jsonl, data/mt_answer/*/answers.jsonl of the two checkpoints
        of compared.NAME in params.yaml, data/fetch/dolly: real rows that the grader judges
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

from collections.abc import Sequence

from bezoar import llm, params, preflight, work
from bezoar.judging import known, pairwise, verdicts
from bezoar.llm.asker import Asker
from bezoar.params import Params
from bezoar.params.arguments import label
from bezoar.rows.files import read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Answers, Ask, Comparison, Question


def main(name: str) -> None:
    work.begin()
    p = params.load()
    sides = p.compared[name]
    model, baseline = (
        list(read_jsonl(f"data/mt_answer/{side}/answers.jsonl", Answers))
        for side in (sides.model, sides.baseline)
    )
    pairs = pairwise.pairs(model, baseline, p.mt_compare.limit)
    asker = Asker(p, "mt_compare", name, p.llm.grader)
    if not pairs:
        keep(asker, p, [], llm.Run([], [], []), known.check("dolly", None))
        return
    preflight.stage("mt_compare", name)
    check = known.check("dolly", p.known)
    mt_bench = list(read_jsonl("data/fetch/mt_bench/questions.jsonl", Question))
    with_reference = verdicts.referenced_ids(mt_bench, p.mt_grade.references)
    questions = {question.question_id: question for question in mt_bench} | check.questions

    def compare(pair: pairwise.Pair, ask: Ask) -> list[Comparison]:
        return pairwise.compare_answers(pair, questions, with_reference, ask)

    for compared in check.rounds(pairs):
        run = asker.run(compare, [*check.pairs, *compared], known.pair_job_name)
        keep(asker, p, compared, run, check)


def keep(
    asker: Asker,
    p: Params,
    pairs: Sequence[pairwise.Pair],
    run: llm.Run[pairwise.Pair, list[Comparison]],
    check: known.Check,
) -> None:
    """Write the grader's verdicts, then stop if it can be neither read nor trusted."""
    of_rows, comparisons = known.separate(run.done)
    trust = check.of_comparisons(of_rows)
    asker.write(run)
    write_jsonl(f"data/mt_compare/{asker.instance}/comparisons.jsonl", comparisons)
    write_jsonl(f"data/mt_compare/{asker.instance}/votes.jsonl", pairwise.votes(comparisons))
    measured = pairwise.measure(comparisons, pairs, p.mt_compare.seed)
    measured["read"] = verdicts.share_read([c.status for c in comparisons])
    measured["retried"] = verdicts.retries(known.without_known(run.exchanges), verdicts.choice)
    write_json(f"metrics/mt_compare/{asker.instance}.json", measured | trust)
    prefix = f"{asker.label}, {p.llm.grader.model}"
    statuses = [c.status for c in comparisons or of_rows]
    verdicts.check_read(prefix, statuses, run.exchanges, verdicts.choice)
    verdicts.tell_unreferenced(prefix, comparisons)
    check.tell(prefix, trust)


if __name__ == "__main__":
    main(label("stages.mt_compare", __doc__))
