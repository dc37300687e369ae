"""The checkpoints' answers: examples on the page, and all of them on pages of their own."""

from typing import Any

from bezoar.report import words
from bezoar.report.run import Run
from bezoar.report.summary import simulated
from bezoar.rows.records import Answers, Question


def examples(run: Run, count: int) -> list[dict[str, Any]]:
    """Return `count` questions that every checkpoint answered, with the answers. They are from
    evenly spread categories, each from another one if there are enough categories."""
    answered = [q for q in run.questions if all(q.question_id in a for a in run.answers.values())]
    rounds: dict[str, list[Question]] = {}
    for question in answered:
        rounds.setdefault(question.category, []).append(question)
    depth = max(map(len, rounds.values()), default=0)
    first = list(rounds.values())
    count = min(count, len(answered))
    if count <= len(first):
        chosen = [first[i * len(first) // count][0] for i in range(count)]
    else:
        # the first question of every category, then the second of every one, and so on
        queue = [questions[i] for i in range(depth) for questions in first if i < len(questions)]
        chosen = sorted(queue[:count], key=answered.index)
    scores: dict[tuple[str, int, int], float | None] = {
        (checkpoint, grade.question_id, grade.turn): grade.score
        for checkpoint, grades in run.grades.items()
        for grade in grades
    }
    return [
        {
            "category": question.category,
            "turns": [
                {
                    "question": words.excerpt(turn_text),
                    "answers": [
                        {
                            "checkpoint": checkpoint,
                            "css": words.css(run, checkpoint),
                            "score": scores.get((checkpoint, question.question_id, turn)),
                            **_answer(answers[question.question_id], turn),
                        }
                        for checkpoint, answers in run.answers.items()
                    ],
                }
                for turn, turn_text in enumerate(question.turns, 1)
            ],
        }
        for question in chosen
    ]


def _answer(answers: Answers, turn: int) -> dict[str, Any]:
    if turn > len(answers.turns):
        return {"text": "", "cut": 0, "finish": "no answer"}
    text, cut = words.excerpt(answers.turns[turn - 1])
    endings = {
        "stop": "",
        "length": "stopped by the token limit",
        "no_room": "no room left to answer",
    }
    return {"text": text, "cut": cut, "finish": endings[answers.finish[turn - 1]]}


def answers(run: Run, checkpoint: str) -> str:
    """Return one HTML document with every MT-Bench question, the checkpoint's answer and the
    grader's words. The answers of the other checkpoints stand beside it."""
    others = [name for name in run.checkpoints if name != checkpoint]
    questions = [q for q in run.questions if q.question_id in run.answers[checkpoint]]
    talks = [
        {
            "question": question,
            "turns": [
                {
                    "asked": question.turns[turn],
                    "own": _answer_and_grade(run, checkpoint, question.question_id, turn),
                    "others": [
                        _answer_and_grade(run, name, question.question_id, turn) for name in others
                    ],
                }
                for turn in (0, 1)
            ],
        }
        for question in questions
    ]
    return words.render(
        "answers.html",
        style=words.STYLE,
        profile=run.profile,
        checkpoint=checkpoint,
        names=run.checkpoints,
        talks=talks,
        simulated=simulated(run)["grader"],
    )


def index(run: Run) -> str:
    """Return the index of the answers as one HTML document: the checkpoints, and the questions by
    category with every checkpoint's grades. A question leads to all of its answers."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for question in run.questions:
        answered = [c for c in run.checkpoints if question.question_id in run.answers[c]]
        if answered:
            groups.setdefault(question.category, []).append(
                {
                    "id": question.question_id,
                    "begins": words.beginning(question.turns[0]),
                    # each of these pages has all answers, with its own checkpoint's first
                    "page": answered[-1],
                    "cells": [_grades(run, c, question.question_id) for c in run.checkpoints],
                }
            )
    return words.render(
        "answers_index.html",
        style=words.STYLE,
        profile=run.profile,
        checkpoints=[
            {
                "checkpoint": name,
                "answered": len(run.answers[name]),
                "average": run.mt_bench[name]["average"],
                "css": words.css(run, name),
            }
            for name in run.checkpoints
        ],
        groups=groups,
        simulated=simulated(run)["grader"],
    )


def _grades(run: Run, checkpoint: str, question_id: int) -> dict[str, Any]:
    """Return a checkpoint's grades of both turns of a question. None where a turn has none."""
    scores = {g.turn: g.score for g in run.grades[checkpoint] if g.question_id == question_id}
    return {
        "checkpoint": checkpoint,
        "answered": question_id in run.answers[checkpoint],
        "turns": [scores.get(1), scores.get(2)],
    }


def _answer_and_grade(run: Run, checkpoint: str, question_id: int, turn: int) -> dict[str, Any]:
    """Return a checkpoint's whole answer to one turn (0 or 1), and its grade with the grader's
    words."""
    answered = run.answers[checkpoint].get(question_id)
    grade = next(
        (
            candidate
            for candidate in run.grades[checkpoint]
            if (candidate.question_id, candidate.turn) == (question_id, turn + 1)
        ),
        None,
    )
    return {
        "checkpoint": checkpoint,
        "css": words.css(run, checkpoint),
        "text": answered.turns[turn] if answered else None,
        "cut": answered is not None and answered.finish[turn] == "length",
        "grade": grade,
    }
