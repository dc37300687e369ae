"""A run that never happened: the files that its report is made from."""

import csv
import json
import math
import random
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

from bezoar import params
from bezoar.filtering import distributions
from bezoar.report import paper
from bezoar.rows import files
from bezoar.rows.records import Answers, Grade, Question, Scored
from tests.builders import ROOT
from tests.builders.rows import sample

SETTINGS = params.load(ROOT)
POINTS = list(SETTINGS.evaluated)
CHECKPOINTS = list(SETTINGS.checkpoints)
SKILLS = ("lookup", "explained", "two_part", "refusal", "politeness")
# the paper's seven of Dolly's eight
CATEGORIES = (
    *("brainstorming", "classification", "closed_qa", "creative_writing"),
    *("information_extraction", "open_qa", "summarization"),
)


def grow(root: Path, local: bool = False) -> Path:
    """Write the files of a made-up run below `root`: of the embedded shape, or of the local one
    (other tasks, no skills, no votes, an empty set). The numbers are noise with a seed."""
    rng = random.Random("report")
    put(root / "models/fetch/base/source.json", {"source": "local" if local else "grown"})
    for name in ("dolly", "flan", "topics", "hh_rlhf", "mt_bench", "benchmarks"):
        account = {"source": "world", "rows": {"rows.jsonl": 300}, "left_out": {}}
        if local and name == "topics":
            account["stands_in_for"] = "local/topics"
        elif local:
            account["source"], account["left_out"] = "local", {"rows.jsonl: no answer": 17}
        put(root / f"data/fetch/{name}/source.json", account)
    for scheme in ("lamini", "evol_instruct", "orca"):
        put(root / f"data/filter/{scheme}/funnel.json", funnel(scheme, rng, local))
        put(root / f"data/filter/{scheme}/rejected.jsonl", copied(scheme))
        put(root / f"metrics/judge/{scheme}.json", judged("world-judge"))
        put(root / f"data/filter/{scheme}/distributions.json", described(scheme, local))
        free = {"answer": "yes", "by": [], "reason": "every licence and every term allows it"}
        put(
            root / f"data/filter/{scheme}/licences.json",
            {
                "text": "Apache-2.0",
                "texts": {"Apache-2.0": 160},
                "rows": 160,
                "unknown": 0,
                "unjoinable": [],
                "commercial": free,
                "sharing": free,
            },
        )
    for link in SETTINGS.chain:
        start, end = rng.uniform(2, 3), rng.uniform(0.3, 1)
        losses = [end + (start - end) * math.exp(-e) for e in range(5)]
        put(
            root / f"metrics/sft/{link}.json",
            {
                "eval_loss_start": losses[0],
                "eval_loss_end": losses[-1],
                "eval_loss_best": min(losses),
                "epochs": 4,
                "kept_epoch": 4,
                "train_rows": 400,
                "eval_rows": 44,
                "dropped_rows": 0,
                "truncated_share": 0.0,
                "train_tokens": 31_000,
                "runs": {
                    "1": {
                        "epochs": 4,
                        "eval_loss_start": losses[0],
                        "eval_loss_end": losses[-1],
                    }
                },
            },
        )
        sets = dict.fromkeys(SETTINGS.chain[link].sets, 400)
        counts = {"train_rows": 400, "replayed_rows": 0, "eval_rows": 44, "sets": sets}
        put(root / f"metrics/mix/{link}.json", counts)
        table(
            root / f"metrics/sft/{link}_train.csv",
            ["run", "step", "epoch", "loss", "learning_rate"],
            [
                [1, s, s / 25, losses[0] * math.exp(-s / 60) + rng.uniform(0, 0.2), 1e-3]
                for s in range(1, 101)
            ],
        )
        held = [[1, epoch, loss] for epoch, loss in enumerate(losses)]
        table(root / f"metrics/sft/{link}_eval.csv", ["run", "epoch", "loss"], held)
    curve = ["step", "loss", "margin", "accuracy", "chosen", "rejected"]
    for split, steps in (("train", range(1, 40)), ("eval", range(0, 41, 10))):
        table(
            root / f"metrics/dpo/{split}.csv",
            curve,
            [[s, 0.69 - s / 100, s / 50, 0.5 + s / 90, s / 100, -s / 100] for s in steps],
        )
    put(
        root / "metrics/dpo/dpo.json",
        {
            "accuracy": 0.91234567,
            "accuracy_before": 0.6,
            "margin": 0.41,
            "reward_accuracy": 0.88,
            "eval_loss_start": 0.693,
            "eval_loss_end": 0.41,
            "train_rows": 480,
            "eval_rows": 120,
            "truncated_share": 0.0,
        },
    )
    for at, point in enumerate(POINTS):
        found = results(point, at, rng, local)
        put(root / f"data/lm_eval/{point}/results.json", found)
        luck = random.Random(point)
        items = {
            task: [luck.random() < s["acc"] for _ in range(200)]
            for task, s in found["tasks"].items()
        }
        answered(root, point, items)
    questions = bench(root, local)
    for at, checkpoint in enumerate(CHECKPOINTS):
        converse(root, checkpoint, questions, at, rng)
    for name in SETTINGS.compared:
        put(root / f"metrics/mt_compare/{name}.json", contest(None if local else 28))
    agreement(root, local)
    spending(root)
    return root


def put(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def table(path: Path, head: list[str], rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([head, *rows])


def copied(scheme: str) -> dict[str, Any]:
    """A row that filter dropped as a copy."""
    return {
        "id": f"{scheme}-00001-1",
        "scheme": scheme,
        "reason": "copy",
        "text": "What colour has the fox now?",
        "details": {"seed": "seed-7", "seed_text": "What colour has the fox?"},
    }


def funnel(scheme: str, rng: random.Random, local: bool) -> dict[str, Any]:
    asked = 0 if local and scheme == "evol_instruct" else rng.randint(500, 700)
    parsed = int(asked * 0.97)
    accepted, undecided = int(parsed * 0.7), int(parsed * 0.05)
    kept = int(accepted * 0.98)
    parts: dict[str, dict[str, int]] = {
        "lamini": {"category": dict.fromkeys(CATEGORIES, kept // 7)},
        "evol_instruct": {
            "category": dict.fromkeys(CATEGORIES, kept // 7),
            "strategy": {"in_depth": kept // 2, "in_breadth": kept - kept // 2},
            "operation": dict.fromkeys(SETTINGS.schemes.evol_instruct.operations, kept // 8),
            "epoch": {"1": kept // 2, "2": kept - kept // 2},
        },
        "orca": {
            "mixture": {"niv2": kept // 2, "t0": kept // 3, "cot": 20, "flan2021": 40},
            "system_id": {str(i): 5 * i for i in range(2, 17)},
        },
    }[scheme]
    return {
        "scheme": scheme,
        "asked": asked,
        "calls": asked // 5,
        "parsed": parsed,
        "repaired": 21,
        "replies_read": 0.964,
        "undecided_checks": 3 if scheme == "evol_instruct" else 0,
        "copies": 13,
        "equal": 17 if scheme == "evol_instruct" else 0,
        "accepted": accepted,
        "rejected": parsed - accepted - undecided,
        "undecided": undecided,
        "kept": kept,
        "train": int(kept * 0.9),
        "eval": kept - int(kept * 0.9),
        "reasons": {"judge: rejected": 120, "copy of a seed": 13, "judge: undecided": undecided}
        | {f"reason number {i}": 12 - i for i in range(12)}
        if asked
        else {},
        "simulated_teacher": True,
        "simulated_judge": True,
        "teacher": "world-teacher",
        "judge": "world-judge",
        "distributions": dict.fromkeys(("generated", "kept"), parts if asked else {}),
        "by_category": {
            "generated": {"open_qa": {"in_depth": 40, "in_breadth": 23}, "classification": {}},
            "kept": {"open_qa": {"in_depth": 31, "in_breadth": 9}},
        }
        if scheme == "evol_instruct"
        else {"generated": {}, "kept": {}},
    }


def described(scheme: str, local: bool) -> dict[str, Any]:
    """Distributions as the filter stage describes them, of rows of made-up lengths."""
    rng = random.Random(scheme)
    rows = []
    for number in range(0 if local and scheme == "evol_instruct" else 300):
        kind = rng.choice(CATEGORIES)
        orca = scheme == "orca"
        task = {"mixture": rng.choice(("niv2", "cot")), "task": rng.choice(("a_summary", "qa"))}
        row = sample(
            id=str(number),
            instruction="word " * rng.randint(4, 60),
            context="fact " * rng.randint(1, 300) if kind == "closed_qa" and not orca else "",
            response="say " * int(rng.lognormvariate(3, 1.3)),
            category="" if orca else kind,
            details=task if orca else {},
        )
        rows.append(row)
    words = distributions.sizes(rows, lambda texts: [len(text.split()) for text in texts])
    return distributions.describe(rows, rows[:200], SETTINGS.filter, words)


def judged(*members: str) -> dict[str, Any]:
    """Metrics of judges of a scheme who were paid nothing."""
    said = {"accepted": 400, "rejected": 90, "undecided": 10, "failed": 0, "read": 0.98}
    said |= trusted() | {"known_accepted_own": 0.9, "known_accepted_other": 0.05}
    paid = {"calls": 0, "tokens_in": 0, "tokens_out": 0, "usd": 0.0}
    return {
        "judges": len(members),
        "unanimous": 0.75,
        "members": dict.fromkeys(members, said | paid),
        "pairs": {
            f"{a}, {b}": {"agreement": 0.8125, "kappa": None, "n": 480}
            for a, b in combinations(members, 2)
        },
    }


def trusted() -> dict[str, Any]:
    """Metrics of a judge that is better than a coin."""
    interval = {"known_auc": 0.9345, "known_auc_low": 0.85, "known_auc_high": 0.99}
    return {"known_rows": 20, **interval, "known_read": 0.95}


def results(point: str, at: int, rng: random.Random, local: bool) -> dict[str, Any]:
    link = SETTINGS.evaluated[point].link
    tasks = ("arc_easy", "openbookqa", "piqa", "truthfulqa") if local else ("animals", "sums")
    return {
        "tasks": {}
        if link
        else {
            task: {
                "acc": rng.uniform(0.2, 0.3) + at / 10,
                "acc_stderr": 0.031,
                "acc_norm": rng.uniform(0.2, 0.3) + at / 10,
                "acc_norm_stderr": 0.032,
                "n": 200,
            }
            for task in tasks
        },
        "skills": {}
        if local
        else {
            skill: {"share": max(0.0, 1 - abs(at - 1 - i) * 0.3) if at else 0.01, "n": 60}
            for i, skill in enumerate(SKILLS)
        },
        "truncated": 0,
    }


def answered(root: Path, point: str, tasks: Mapping[str, Sequence[float]]) -> None:
    """Write a checkpoint's scores by item, acc and acc_norm alike."""
    rows = [
        Scored(task=task, item=f"{task}/{n}", acc=score, acc_norm=score)
        for task, scores in tasks.items()
        for n, score in enumerate(scores)
    ]
    files.write_jsonl(root / f"data/lm_eval/{point}/items.jsonl", rows)


def bench(root: Path, local: bool) -> list[Question]:
    names = [
        "writing",
        "roleplay",
        "reasoning",
        "math",
        "coding",
        "extraction",
        "stem",
        "humanities",
    ]
    questions = [
        Question(
            question_id=81 + i,
            category=names[i // 4],
            turns=[f"What do you know of thing {i}? Tell it in a sentence.", "Say it shorter."],
            reference=[],
        )
        for i in range(32)
    ]
    folder = root / "data/fetch/mt_bench"
    files.write_jsonl(folder / "questions.jsonl", questions)
    put(folder / "votes.json", {"simulated": not local})
    return questions


def converse(
    root: Path, checkpoint: str, questions: list[Question], at: int, rng: random.Random
) -> None:
    answers, grades = [], []
    for question in questions:
        said = [f"Thing {question.question_id} is {checkpoint}. " * (turn + at) for turn in (1, 2)]
        answers.append(
            Answers(
                question_id=question.question_id,
                model=checkpoint,
                turns=said,
                finish=["stop", "length"],
            )
        )
        for turn in (1, 2):
            lost = rng.random() < 0.03
            grades.append(
                Grade(
                    question_id=question.question_id,
                    model=checkpoint,
                    turn=turn,
                    score=None if lost else float(min(10, 1 + at * 2 + rng.randint(0, 3))),
                    status="unparsed" if lost else "ok",
                    reply=f"Fair enough. Rating: [[{turn}]]",
                    judge="world-judge",
                    simulated=True,
                )
            )
    files.write_jsonl(root / f"data/mt_answer/{checkpoint}/answers.jsonl", answers)
    counts = {"turns": 64, "stopped": 48, "stopped_share": 0.75, "cut": 11, "no_room": 5}
    counts["refused"] = 3 * (at == 2)
    more = {"empty": 6, "loops": at, "tokens": 12.3456}
    put(root / f"metrics/mt_answer/{checkpoint}.json", counts | more)
    files.write_jsonl(root / f"data/mt_grade/{checkpoint}/grades.jsonl", grades)
    means = [[g.score for g in grades if g.turn == t and g.score is not None] for t in (1, 2)]
    metrics = {"coverage": sum(map(len, means)) / len(grades), "retried": 2} | trusted()
    for name, scores in (
        ("turn_1", means[0]),
        ("turn_2", means[1]),
        ("average", [*means[0], *means[1]]),
    ):
        mean = sum(scores) / len(scores)
        metrics |= {name: mean, f"{name}_low": mean - 0.25, f"{name}_high": mean + 0.25}
    put(root / f"metrics/mt_grade/{checkpoint}.json", metrics)


def contest(wins: int | None) -> dict[str, float | int | None]:
    """As stages.mt_compare writes it: `wins` of 40 turns, or of none."""
    counts = {"wins": wins or 0, "losses": 6, "ties": 4, "inconsistent": 2}
    rate = None if wins is None else wins / 40
    rates = {
        f"win_rate{turn}{end}": rate
        for turn in ("", "_turn_1", "_lc")
        for end in ("", "_low", "_high")
    }
    return {
        **counts,
        **rates,
        "coverage": 1.0,
        "characters": 81.4,
        "characters_baseline": 64.0,
        **trusted(),
        "known_order": 0.35,
    }


def agreement(root: Path, local: bool) -> None:
    pairs = [("gpt4_pair", "human"), ("human", "human")]
    if not local:
        pairs = [("grader", b) for b in ("gpt4_pair", "author", "human", "human_majority")] + pairs
    rows = [
        {
            "turn": turn,
            "a": a,
            "b": b,
            "s1": 0.6 + turn / 100,
            "s1_agree": 756,
            "s1_n": 1240,
            "s1_low": 0.55,
            "s1_high": 0.68,
            "s2": None if b == "author" else 0.8 + turn / 100,
            "s2_agree": 0 if b == "author" else 121,
            "s2_n": 0 if b == "author" else 150,
            "s2_low": None if b == "author" else 0.75,
            "s2_high": None if b == "author" else 0.88,
            "kappa": None if b == "author" else 0.31,
        }
        for turn in (1, 2)
        for a, b in pairs
    ]
    put(root / "data/agreement/table.json", rows)
    portion = {"turn": 1, "a": pairs[0][0], "b": pairs[0][1]}
    counted = {"s1": 0.25, "s1_agree": 5, "s1_n": 20, "s2": None, "s2_agree": 0, "s2_n": 0}
    of = [{"by": "category", "of": "writing"}, {"by": "models", "of": "alpaca, gpt-4"}]
    put(root / "data/agreement/breakdown.json", [one | portion | counted for one in of])
    study = {"verdicts": "pairs", "which": "intersection", "models": ["alpaca", "gpt-4"]}
    study |= {"records": {"1": 616, "2": 613}, "judged": {"1": 600, "2": 613}, "votes": {}}
    put(root / "data/agreement/study.json", study | {"absent": ["gpt4_single"]})
    leaning = {"share": 0.932, "n": 662, "low": 0.91, "high": 0.954, "people": None, "people_n": 0}
    own = leaning | {"judge": "gpt4_pair", "bias": "self_preference"}
    order = leaning | {"judge": "gpt4_pair", "bias": "inconsistent", "share": 0.158}
    put(root / "data/agreement/biases.json", [own | {"people": 0.824, "people_n": 613}, order])
    put(root / "metrics/agreement/agreement.json", {"grader_human_s1_turn_1": 0.61234567})


def spending(root: Path) -> None:
    """As the embedded models leave it: nothing was bought."""
    names = [f"{s}/{scheme}_" for s in ("generate", "judge") for scheme in paper.SAMPLING]
    names += [f"mt_grade/{checkpoint}_" for checkpoint in CHECKPOINTS]
    names += [f"mt_compare/{name}_" for name in SETTINGS.compared]
    for name in (*names, "agreement/"):
        free = {"model": "world", "calls": 0, "tokens_in": 0, "tokens_out": 0, "usd": 0.0}
        put(root / f"metrics/{name}spending.json", free)


def edit(path: str, change: Any) -> None:
    """Apply `change` to a JSON file's value."""
    value = json.loads(Path(path).read_text())
    change(value)
    Path(path).write_text(json.dumps(value))


class Outline(HTMLParser):
    """Tags, attributes and text of a page; `open` must be empty at its end."""

    VOID = ("meta", "br", "circle", "path")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def words(self) -> str:
        return " ".join("".join(self.text).split())
