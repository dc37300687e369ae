"""A checkpoint's answers to the two-turn questions of MT-Bench's shape.

reads   models/MODEL of checkpoints.NAME in the recipe, data/fetch/mt_bench/questions.jsonl
writes  data/mt_answer/NAME/answers.jsonl; of a model behind an endpoint, beside them: replies.jsonl
        (every exchange, as bought), failures.jsonl, spending.json
metrics metrics/mt_answer/NAME.json: how many turns were answered, ended by themselves, were cut,
        are empty or loop, and their mean number of tokens
"""

import sys
from pathlib import Path

from bezoar import llm, params, preflight, work
from bezoar.evaluating import checkpoints, served, talks
from bezoar.llm.asker import Asker
from bezoar.params import arguments
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Question


def main(name: str) -> None:
    work.begin()
    p = params.load()
    path = Path("data/fetch/mt_bench/questions.jsonl")
    questions = list(files.read_jsonl(path, Question))
    if not questions:
        raise BadInput(f"{path}: has no questions; each line is one two-turn question")
    questions = talks.some(questions, p.mt_answer.limit)
    out = Path("data/mt_answer", name)
    if endpoint := llm.endpoint_of(Path("models", p.checkpoints[name].model)):
        preflight.stage_endpoint(f"models.{name}", endpoint, "mt_answer", name)
        answers, tokens = served.answer(Asker(p, "mt_answer", name, endpoint), questions, out)
    else:
        preflight.stage("mt_answer", name)
        answers, tokens = checkpoints.answer(p, name, questions)
    files.write_jsonl(out / "answers.jsonl", answers)
    counts = talks.counts(answers, tokens, p.mt_answer)
    files.write_json(f"metrics/mt_answer/{name}.json", counts)
    if unsaid := talks.unsaid(answers):
        print(
            f"warning: mt_answer@{name}: {unsaid} of {2 * len(answers)} answers were cut before "
            "they said anything, as thoughts are, and count as empty; allow the model more tokens",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main(arguments.label("stages.mt_answer", __doc__))
