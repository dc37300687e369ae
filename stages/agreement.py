"""How far our grader agrees with people and with other judges.

reads   data/fetch/mt_bench/: questions.jsonl, answers.jsonl (other models'; may be empty),
        votes.jsonl (may be empty)
writes  data/agreement/: grades.jsonl (our grader's, of those answers), replies.jsonl (every
        exchange, as bought), failures.jsonl, table.json (S1, S2, kappa and an interval for every
        two kinds of judges, a turn each), biases.json (what sways each kind)
metrics metrics/agreement/agreement.json: A_B_s1_turn_1 and so on, of the grader's rows; of the
        given judges' where our grader graded nothing that they voted on; read, the share of
        its grades that could be read;
        metrics/agreement/spending.json
"""

from bezoar import agreement, budget, llm, params, preflight, progress, verdicts, work
from bezoar.files import read_jsonl, write_json, write_jsonl
from bezoar.records import Answers, Ask, Grade, Question, Vote


def main() -> None:
    work.begin()
    p = params.load()
    preflight.stage("agreement")
    source = "data/fetch/mt_bench"
    questions = {q.question_id: q for q in read_jsonl(f"{source}/questions.jsonl", Question)}
    answers = list(read_jsonl(f"{source}/answers.jsonl", Answers))
    votes = list(read_jsonl(f"{source}/votes.jsonl", Vote))
    ask = llm.connect(p.llm.grader, p, "agreement")

    def grade(one: Answers, ask: Ask) -> list[Grade]:
        return verdicts.grader(questions, p.mt_grade.references, ask)(one)

    with progress.bar("agreement", len(answers)) as advance:
        run = llm.each(
            grade, answers, ask, p.llm.grader, where="agreement",
            name=lambda one: f"{one.model}/{one.question_id}", advance=advance,
        )  # fmt: skip
    grades = [grade for _, both in run.done for grade in both]
    votes += agreement.from_grades(grades, p.agreement.tie_margin)
    rows = agreement.table(votes, p.agreement.seed)
    write_jsonl("data/agreement/grades.jsonl", grades)
    write_jsonl("data/agreement/replies.jsonl", run.exchanges)
    write_jsonl("data/agreement/failures.jsonl", run.failures)
    lengths = {
        (row.question_id, row.model, turn): len(text)
        for row in answers
        for turn, text in enumerate(row.turns, 1)
    }
    leanings = agreement.biases(votes, lengths, p.agreement.own, p.agreement.seed)
    write_json("data/agreement/table.json", rows)
    write_json("data/agreement/biases.json", leanings)
    statuses = [grade.status for grade in grades]
    read = {"read": verdicts.share_read(statuses)}
    write_json("metrics/agreement/agreement.json", agreement.flat(rows) | read)
    spent = budget.spending(p.llm.grader, run.exchanges)
    write_json("metrics/agreement/spending.json", spent.model_dump())
    where = f"agreement, {p.llm.grader.model}"
    verdicts.hold(where, statuses, run.exchanges, verdicts.rating)


if __name__ == "__main__":
    main()
