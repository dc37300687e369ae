"""How far our grader agrees with people and with other judges.

reads   data/fetch/mt_bench/: questions.jsonl, answers.jsonl (other models'; may be empty),
        votes.jsonl (may be empty)
writes  data/agreement/: grades.jsonl (our grader's, of those answers), table.json (S1, S2, kappa
        and an interval for every two kinds of judges, a turn each)
metrics metrics/agreement/agreement.json: A_B_s1_turn_1 and so on, of the grader's rows; of the
        given judges' where our grader graded nothing that they voted on
"""

from bezoar import agreement, llm, params, progress, verdicts, work
from bezoar.files import read_jsonl, write_json, write_jsonl
from bezoar.records import Answers, Question, Vote


def main() -> None:
    work.die_with_parent()
    p = params.load()
    source = "data/fetch/mt_bench"
    questions = {q.question_id: q for q in read_jsonl(f"{source}/questions.jsonl", Question)}
    answers = list(read_jsonl(f"{source}/answers.jsonl", Answers))
    votes = list(read_jsonl(f"{source}/votes.jsonl", Vote))
    grade = verdicts.grader(questions, p.mt_grade.references, llm.connect(p.llm.grader))
    done = progress.each("agreement", grade, answers, p.llm.grader.concurrency)
    grades = [grade for both in done for grade in both]
    votes += agreement.from_grades(grades, p.agreement.tie_margin)
    rows = agreement.table(votes, p.agreement.seed)
    write_jsonl("data/agreement/grades.jsonl", grades)
    write_json("data/agreement/table.json", rows)
    write_json("metrics/agreement/agreement.json", agreement.flat(rows))


if __name__ == "__main__":
    main()
