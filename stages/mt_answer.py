"""A checkpoint's answers to the two-turn questions of MT-Bench's shape.

reads   models/MODEL of checkpoints.NAME in params.yaml, data/fetch/mt_bench/questions.jsonl
writes  data/mt_answer/NAME/answers.jsonl
metrics metrics/mt_answer/NAME.json: how many turns were answered, ended by themselves, were cut,
        are empty or loop, and their mean number of tokens
"""

import sys
from pathlib import Path

from bezoar import evaluation, files, params, preflight, work
from bezoar.files import BadInput
from bezoar.records import Question
from bezoar.training import loading


def main(name: str) -> None:
    work.die_with_parent()
    settings = params.load()
    preflight.stage("mt_answer", name)
    path = Path("data/fetch/mt_bench/questions.jsonl")
    questions = list(files.read_jsonl(path, Question))
    if not questions:
        raise BadInput(f"{path}: has no questions; each line is one two-turn question")
    folder = Path("models", settings.checkpoints[name].model)
    model, tokenizer = loading.load(folder, folder, settings.sft)
    asked = evaluation.some(questions, settings.mt_answer.limit)
    answers = evaluation.converse(model, tokenizer, asked, name, settings.mt_answer)
    files.write_jsonl(f"data/mt_answer/{name}/answers.jsonl", answers)
    counts = evaluation.counts(answers, tokenizer, settings.mt_answer)
    files.write_json(f"metrics/mt_answer/{name}.json", counts)


if __name__ == "__main__":
    main(sys.argv[1])
