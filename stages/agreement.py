"""Our judge is compared with people and with other judges, to see how far they agree.

reads   data/fetch/mt_bench/: questions.jsonl, answers.jsonl (other models'; may be empty),
        votes.jsonl and grades.jsonl (other judges'; may be empty)
writes  data/agreement/: comparisons.jsonl (our judge's verdicts on pairs, for verdicts: pairs),
        grades.jsonl (its grades, for verdicts: single), replies.jsonl (every exchange, as bought),
        failures.jsonl, study.json (what was asked, on which records, which groups voted),
        table.json (S1, S2 in shares and votes, kappa and an interval for every two kinds of
        judges, a turn each), breakdown.json (the same by category and by pair of models),
        biases.json (what sways each kind)
metrics metrics/agreement/agreement.json: A_B_s1_turn_1 and so on, of our judge's rows; of the given
        judges' where ours judged nothing that they voted on; records, judged, unanswered (pairs
        of models without answers), read, the share of its verdicts that could be read, and of
        references as in mt_grade; metrics/agreement/spending.json
"""

from bezoar import params, preflight, work
from bezoar.judging import agreement, study, verdicts
from bezoar.llm.asker import Asker
from bezoar.params import arguments
from bezoar.rows.files import read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Answers, Grade, Question, Vote

SOURCE = "data/fetch/mt_bench"


def main() -> None:
    work.begin()
    p = params.load()
    questions = {q.question_id: q for q in read_jsonl(f"{SOURCE}/questions.jsonl", Question)}
    answers = list(read_jsonl(f"{SOURCE}/answers.jsonl", Answers))
    others = agreement.judgements(
        # A run in which no checkpoint answers MT-Bench has no grader to compare with anybody.
        list(read_jsonl(f"{SOURCE}/votes.jsonl", Vote)) if p.checkpoints else [],
        list(read_jsonl(f"{SOURCE}/grades.jsonl", Grade)) if p.checkpoints else [],
        p.agreement.tie_margin,
    )
    records = agreement.records(others, p.agreement.records)
    puts, unanswered = agreement.puts(records, answers, p.agreement.limit)
    if puts:
        preflight.stage("agreement")
    asker = Asker(p, "agreement", "", p.llm.grader)
    judged = study.judge(asker, p, questions, puts)
    description = agreement.describe(others, judged.votes, records)
    votes = agreement.votes_on([*others, *judged.votes], records)
    rows = agreement.table(votes, p.agreement.seed)
    category_of = {id: question.category for id, question in questions.items()}
    settings = {"verdicts": p.agreement.verdicts, "which": p.agreement.records}
    write_json("data/agreement/study.json", settings | description)
    write_json("data/agreement/table.json", rows)
    write_json("data/agreement/breakdown.json", agreement.breakdown(votes, category_of))
    write_json("data/agreement/biases.json", study.biases(p, votes, answers))
    counts = {
        "records": len(records),
        "judged": sum(description["judged"].values()),
        "unanswered": unanswered,
        "read": verdicts.share_read([verdict.status for verdict in judged.verdicts]),
        **verdicts.reference_metrics(judged.verdicts),
    }
    write_json("metrics/agreement/agreement.json", agreement.flat_metrics(rows) | counts)
    keep(asker, judged)


def keep(asker: Asker, judged: study.Judged) -> None:
    """Write our judge's replies, then stop if they cannot be read."""
    write_jsonl("data/agreement/comparisons.jsonl", judged.comparisons)
    write_jsonl("data/agreement/grades.jsonl", judged.grades)
    spent = asker.write(judged.run)
    prefix = f"agreement, {spent.model}"
    statuses = [verdict.status for verdict in judged.verdicts]
    verdicts.check_read(prefix, statuses, judged.run.exchanges, judged.read)
    verdicts.tell_unreferenced(prefix, judged.verdicts)


if __name__ == "__main__":
    arguments.none("stages.agreement", __doc__)
    main()
