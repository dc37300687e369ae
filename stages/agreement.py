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
from bezoar.judging import agreement, study
from bezoar.llm.asker import Asker
from bezoar.params import arguments
from bezoar.rows.files import read_jsonl, write_json, write_jsonl
from bezoar.rows.records import Answers, Question

SOURCE, OUT = "data/fetch/mt_bench", "data/agreement"


def main() -> None:
    work.begin()
    p = params.load()
    questions = {q.question_id: q for q in read_jsonl(f"{SOURCE}/questions.jsonl", Question)}
    answers = list(read_jsonl(f"{SOURCE}/answers.jsonl", Answers))
    others = study.read_others(SOURCE, p)
    records = agreement.records(others, p.agreement.records)
    puts, unanswered = agreement.puts(records, answers, p.agreement.limit)
    if puts:
        preflight.stage("agreement")
    asker = Asker(p, "agreement", "", p.llm.grader)
    judged = study.judge(asker, p, questions, puts)
    description = study.describe(p, others, judged, records)
    votes = agreement.votes_on([*others, *judged.votes], records)
    rows = agreement.table(votes, p.agreement.seed)
    category_of = {id: question.category for id, question in questions.items()}
    write_json(f"{OUT}/study.json", description)
    write_json(f"{OUT}/table.json", rows)
    write_json(f"{OUT}/breakdown.json", agreement.breakdown(votes, category_of))
    write_json(f"{OUT}/biases.json", study.biases(p, votes, answers))
    counts = study.counts(description, unanswered, judged)
    write_json("metrics/agreement/agreement.json", agreement.flat_metrics(rows) | counts)
    write_jsonl(f"{OUT}/comparisons.jsonl", judged.comparisons)
    write_jsonl(f"{OUT}/grades.jsonl", judged.grades)
    asker.write(judged.run)
    judged.check_grader(f"agreement, {p.llm.grader.model}")


if __name__ == "__main__":
    arguments.none("stages.agreement", __doc__)
    main()
