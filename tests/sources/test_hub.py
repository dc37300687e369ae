"""The rehearsal: every fetch of the profiles `paper` and `small` as shipped, for real, on small
repositories in the hub's own formats, served on loopback; and what can go wrong on the way."""

import dataclasses
import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar.rows.files import BadInput
from bezoar.sources import hub, tokenizer
from tests.builders import parameters, warm
from tests.builders.bases import TEXT, llama, sentencepiece
from tests.builders.files import parquet, put
from tests.builders.hub import Hub, Repo, dump, serve
from tests.conftest import copy, environment

pytestmark = pytest.mark.slow

PROFILES: dict[str, Any] = {
    name: profile["fetch"]
    for name, profile in parameters.read()["profiles"].items()
    if name in ("paper", "small")
}
DUMP = "/enwiki/latest/enwiki-latest-category.sql.gz"
CARD = {"README.md": b"---\nconfigs: nonsense\n---\n", ".gitattributes": b""}


# --- what lies on the hub: the columns and names of the real files --------------------------------


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def flan_row(task: str, number: int, source: str, **more: Any) -> dict[str, Any]:
    return {
        "inputs": f"Question {number} of {task}?",
        "targets": f" answer {number}",
        "_template_idx": number % 9,
        "_task_source": source,
        "_task_name": task,
        "_template_type": "zs_opt",
        "__null_dask_index__": number,
        **more,
    }


def flan_files() -> dict[str, bytes]:
    def part(tasks: list[str], source: str, first: int, template: str = "zs_opt") -> bytes:
        rows = [
            flan_row(task, n, source, _template_type=template)
            for n in range(first, first + 40)
            for task in tasks
        ]
        rows += [
            flan_row(tasks[0], 9_000, source, inputs=" "),
            flan_row(tasks[0], 9_001, source, _template_type="fs_opt"),
        ]
        return parquet(*rows)

    niv2 = [f"task{n:03d}_made_up" for n in range(30)]
    t0 = [f"corpus_{n}_asked_anew" for n in range(20)]
    f2021 = [f"corpus/{n}:1.0.0" for n in range(20)]
    return {
        **CARD,
        "cot_zsopt_data/part.0.parquet": part(["cot_a", "cot_b"], "CoT", 0, "zs_noopt"),
        "cot_fsopt_data/part.0.parquet": part(["cot_c"], "CoT", 0, "fs_opt"),
        "dialog_zsopt_data/part.0.parquet": part(["talk"], "Dialog", 0),
        **{f"niv2_zsopt_data/part.{n}.parquet": part(niv2, "NIv2", 30 * n) for n in range(3)},
        "t0_zsopt_data/part.0.parquet": part(t0, "P3", 0),
        "t0_zsnoopt_data/part.0.parquet": part([*t0, "corpus_99_only_here"], "P3", 0, "zs_noopt"),
        "flan_zsopt_data/part.0.parquet": part(f2021, "Flan2021", 0),
        "flan_zsnoopt_data/part.0.parquet": part(f2021, "Flan2021", 50, "zs_noopt"),
        "cot_zs_submix_data.json": b"[",  # what OpenOrca sampled: not asked for
    }


def said(turns: list[str]) -> list[dict[str, str]]:
    asked = ["Question?", turns[0], "And then?", turns[1]]
    roles = ["user", "assistant"] * 2
    return [{"content": c, "role": r} for c, r in zip(asked, roles, strict=True)]


def vote(judge: str, about: tuple[int, int], a: str, b: str, winner: str) -> dict[str, Any]:
    question, turn = about
    return {
        "question_id": question,
        "model_a": a,
        "model_b": b,
        "winner": winner,
        "judge": judge,
        "conversation_a": said([f"{a} on {question}", "more"]),
        "conversation_b": said([f"{b} on {question}", "more"]),
        "turn": turn,
    }


QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Rewrite."]},
    {"question_id": 111, "category": "math", "turns": ["3 x 4?", "Why?"], "reference": ["x", "y"]},
]


def votes_files() -> dict[str, bytes]:
    human = [
        vote("author_2", (81, 1), "alpaca-13b", "gpt-4", "model_b"),
        vote("expert_17", (81, 2), "gpt-4", "alpaca-13b", "tie"),
    ]
    odd = vote("expert_3", (111, 1), "gpt-4", "llama-13b", "model_a")
    odd["conversation_a"] = said(["another one", "more"])
    machine = [
        vote("gpt4_pair", (111, turn), "llama-13b", "gpt-4", "tie (inconsistent)")
        for turn in (1, 2)
    ]
    return {
        **CARD,
        "data/human-00000-of-00001-25f4910818759289.parquet": parquet(*human, odd),
        "data/gpt4_pair-00000-of-00001-c0b431264a82ddc0.parquet": parquet(*machine),
        "human_judgments.json": b"[]",
    }


def pairs(kind: str, count: int) -> bytes:
    rows = []
    for n in range(count):
        start = f"\n\nHuman: {kind} {n}?\n\nAssistant:"
        rows.append({"chosen": f"{start} Yes.", "rejected": f"{start} No."})
    start = "\n\nHuman: What?\n\nAssistant:"
    rows[1] = {"chosen": f"{start} Same.", "rejected": f"{start} Same."}
    return gzip.compress(jsonl(*rows))


def open_llama(folder: Path) -> dict[str, bytes]:
    sentencepiece(folder)
    llama(folder, 400)
    put(folder / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>"})
    put(folder / "pytorch_model.bin", text="a pickle")
    put(folder / "modeling.py", text="raise SystemExit('ran')")
    return {**CARD, **{path.name: path.read_bytes() for path in folder.iterdir()}}


def smol(folder: Path) -> dict[str, bytes]:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    llama(folder, 512)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([TEXT], vocab_size=300, special_tokens=["<|endoftext|>"])
    PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    bpe.save_model(str(folder))
    return {**CARD, **{path.name: path.read_bytes() for path in folder.iterdir()}}


def contents(repository: str, folder: Path) -> dict[str, bytes]:
    """What a repository of params.yaml holds."""
    seeds = [
        {"instruction": f"Do {n}.", "context": "", "response": "Done.", "category": "open_qa"}
        for n in range(20)
    ]
    seeds[3]["response"] = ""
    answer = {
        "question_id": 111,
        "model_id": "gpt-4",
        "choices": [{"index": 0, "turns": ["12"] * 2}],
    }
    made = {
        "databricks/databricks-dolly-15k": lambda: {
            **CARD,
            "databricks-dolly-15k.jsonl": jsonl(*seeds).rstrip(),
        },
        "Open-Orca/FLAN": flan_files,
        "Anthropic/hh-rlhf": lambda: {
            **CARD,
            "harmless-base/train.jsonl.gz": pairs("harmless", 40),
            "harmless-base/test.jsonl.gz": pairs("harmless test", 5),
            "helpful-base/train.jsonl.gz": pairs("helpful", 30),
            "helpful-online/train.jsonl.gz": pairs("online", 20),
            "helpful-rejection-sampled/train.jsonl.gz": pairs("sampled", 20),
            "red-team-attempts/red_team_attempts.jsonl.gz": gzip.compress(b"{}\n"),
        },
        "lmsys/mt-bench": lambda: {
            "app.py": b"raise SystemExit('ran')",
            "data/mt_bench/question.jsonl": jsonl(*QUESTIONS),
            "data/mt_bench/model_judgment/gpt-4_single.jsonl": jsonl(
                *(
                    {
                        **{"question_id": 81, "model": model, "judge": ["gpt-4", "single-v1"]},
                        **{"score": score, "turn": 1, "user_prompt": "", "judgment": ""},
                    }
                    for model, score in (("alpaca-13b", 5), ("gpt-4", 9))
                )
            ),
        },
        "SaylorTwift/mt-bench-viz": lambda: {
            "data/mt_bench/question.jsonl": jsonl(*QUESTIONS),
            "data/mt_bench/reference_answer/gpt-4.jsonl": jsonl(answer),
        },
        "lmsys/mt_bench_human_judgments": votes_files,
        "openlm-research/open_llama_3b_v2": lambda: open_llama(folder / "open_llama"),
        "HuggingFaceTB/SmolLM2-360M": lambda: smol(folder / "smol"),
    }
    return made[repository]()


def configured(**configs: list[dict[str, Any]]) -> dict[str, bytes]:
    """A data set of several configurations, every split of each with the same rows; the card tells
    which file is whose. `__` in a name stands for a dash."""
    named = {name.replace("__", "-"): rows for name, rows in configs.items()}
    splits = ("train", "validation", "test", "dev")
    listed = [
        {
            "config_name": name,
            "data_files": [{"split": s, "path": f"{name}/{s}-*"} for s in splits],
        }
        for name in named
    ]
    files = {
        f"{name}/{split}-00000-of-00001.parquet": parquet(*rows)
        for name, rows in named.items()
        for split in splits
    }
    card = f"---\n{yaml.safe_dump({'configs': listed})}---\n"
    return {".gitattributes": b"", "README.md": card.encode(), **files}


LAVA, MOON = "Which rock forms when lava cools?", "Why does the moon look large?"


def harness_repositories() -> dict[str, dict[str, bytes]]:
    """The data of the harness tasks: two items each, in the columns that the tasks read."""
    arc = [
        {
            "id": str(n),
            "question": question,
            "choices": {"text": ["basalt", "chalk"], "label": ["A", "B"]},
            "answerKey": "A",
        }
        for n, question in enumerate((LAVA, MOON))
    ]
    book = [
        {"question_stem": row["question"], **{k: row[k] for k in ("id", "choices", "answerKey")}}
        for row in arc
    ]
    mmlu = [
        {"question": q, "subject": "s", "choices": ["basalt", "chalk", "sand", "clay"], "answer": 0}
        for q in (LAVA, MOON)
    ]
    default = {
        "Rowan/hellaswag": [
            {
                "ind": n,
                "activity_label": "Boiling water",
                "ctx_a": "A woman fills a kettle.",
                "ctx_b": "she",
                "ctx": "A woman fills a kettle. she",
                "endings": ["boils it.", "[substeps] sells it.", "eats it.", "paints it."],
                "source_id": "x~1",
                "split": "val",
                "split_type": "indomain",
                "label": "0",
            }
            for n in range(2)
        ],
        "baber/piqa": [
            {"goal": f"open jar {n}", "sol1": "Turn the lid.", "sol2": "Eat it.", "label": 0}
            for n in range(2)
        ],
        "allenai/sciq": [
            {
                "question": question,
                **{f"distractor{n}": f"wrong {n}" for n in (1, 2, 3)},
                "correct_answer": "basalt",
                "support": support,
            }
            for question, support in ((LAVA, "Lava is molten rock."), (MOON, ""))
        ],
    }
    problem = {"question": "Who fled?", "answer": "B", "options": ["Ann", "Ben", "Cy", "Di"]}
    truths = [
        {
            "question": question,
            "mc1_targets": {"choices": ["Basalt.", "Chalk."], "labels": [1, 0]},
            "mc2_targets": {"choices": ["Basalt.", "It is basalt.", "Chalk."], "labels": [1, 1, 0]},
        }
        for question in (LAVA, MOON)
    ]
    blanks = [
        {
            "sentence": "Ann thanked Eve because _ had helped her.",
            "option1": "Ann",
            "option2": "Eve",
            "answer": "2",
        }
    ] * 2
    return {
        "allenai/ai2_arc": configured(ARC__Easy=arc, ARC__Challenge=arc),
        "allenai/openbookqa": configured(main=book),
        "cais/mmlu": configured(**dict.fromkeys(subjects(), mmlu)),
        "EleutherAI/race": configured(
            high=[{"article": f"Ben ran {n}.", "problems": repr([problem])} for n in range(2)]
        ),
        "truthfulqa/truthful_qa": configured(multiple_choice=truths),
        "allenai/winogrande": configured(winogrande_xl=blanks),
        **{name: configured(default=rows) for name, rows in default.items()},
    }


def subjects() -> list[str]:
    """MMLU's, as lm_eval names them."""
    import lm_eval.tasks

    tasks = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
    found = [path.read_text() for path in sorted(tasks.glob("mmlu_*.yaml"))]
    return [re.findall(r'dataset_name"?: "?(\w+)', text)[0] for text in found]


def repositories() -> list[dict[str, Any]]:
    """Every repository that params.yaml names, as it names it."""
    found = {}
    for fetch in PROFILES.values():
        for section in fetch.values():
            for part in section.get("parts", [section]):
                if "repository" in part:
                    found[part["repository"]] = part
    return list(found.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """The hub's contents, at the very commits that params.yaml names; not yet served."""
    folder = tmp_path_factory.mktemp("contents")
    on_hub = Hub(plain={DUMP: dump()})
    for part in repositories():
        commit = part["revision"].ljust(40, "0")
        repo = Repo({commit: contents(part["repository"], folder)}, {part["ref"] or "main": commit})
        on_hub.repos[part["kind"], part["repository"]] = repo
    for name, files in harness_repositories().items():
        on_hub.repos["dataset", name] = Repo({"e" * 40: files}, {"main": "e" * 40})
    return on_hub


@dataclasses.dataclass
class Site:
    """A copy of the project, and a hub of its own with an empty cache."""

    hub: Hub
    folder: Path
    env: dict[str, str]

    def switch(self, profile: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "bezoar.params", profile],
            cwd=self.folder,
            env=self.env,
            check=True,
            capture_output=True,
        )

    def fetch(self, name: str, **env: str) -> tuple[int, str]:
        """Run the stage; returns its exit code and what it said."""
        done = subprocess.run(
            [warm.python(), "-m", "stages.fetch", name],
            cwd=self.folder,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def fetched(self, name: str, **env: str) -> dict[str, Any]:
        """Run the stage, which must go well and quietly; returns its source.json."""
        code, output = self.fetch(name, **env)
        assert code == 0, output
        # on a busy machine the harness also tells how far it is
        bar = re.compile(r"fetch benchmarks: tasks: \d+ of \d+[ ,]")
        assert len([line for line in output.splitlines() if not bar.match(line)]) == 1, output
        top = "models" if name == "base" else "data"
        account: dict[str, Any] = json.loads(
            (self.folder / top / "fetch" / name / "source.json").read_text()
        )
        return account

    def refused(self, name: str, **env: str) -> str:
        code, output = self.fetch(name, **env)
        assert code == 1 and output.startswith("error: "), output
        top = "models" if name == "base" else "data"
        assert not (self.folder / top / "fetch" / name).exists()
        return output

    def rows(self, path: str) -> list[dict[str, Any]]:
        text = (self.folder / "data/fetch" / path).read_text()
        return [json.loads(line) for line in text.splitlines()]

    def edit(self, old: str, new: str) -> None:
        there = {path: text for path, text in parameters.texts(self.folder).items() if old in text}
        assert there
        for path, text in there.items():
            (self.folder / path).write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy(tmp_path_factory.mktemp("rehearsal") / "project")


def settle(made: Hub, project: Path, top: Path, url: str) -> Site:
    folder = top / "project"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".git"))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env = {
        **clean,
        **environment(top / "work"),
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": url,
        "HF_HOME": str(top / "hf"),
    }
    site = Site(made, folder, env)
    site.edit("https://dumps.wikimedia.org/", f"{url}/")
    return site


@pytest.fixture
def site(made: Hub, project: Path, tmp_path: Path) -> Iterator[Site]:
    """A site of its own; the test may change what its hub holds."""
    own = Hub(
        repos={k: dataclasses.replace(r) for k, r in made.repos.items()}, plain={**made.plain}
    )
    with serve(own):
        yield settle(own, project, tmp_path, own.url)


@pytest.fixture(scope="module", params=list(PROFILES))
def rehearsal(
    request: pytest.FixtureRequest,
    made: Hub,
    project: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Site]]:
    """(profile, a site on which that profile is active as shipped)."""
    own = Hub(repos=made.repos, plain=made.plain)
    with serve(own):
        site = settle(own, project, tmp_path_factory.mktemp(request.param), own.url)
        site.switch(request.param)
        yield request.param, site


# --- the rehearsal -------------------------------------------------------------------------------


def pinned(profile: str, name: str) -> list[tuple[str, str, str]]:
    section = PROFILES[profile][name]
    return [
        (part["repository"], part["revision"], part["licence"])
        for part in section.get("parts", [section])
    ]


def check_parts(account: dict[str, Any], profile: str, name: str) -> None:
    """source.json names every repository with its licence and the whole commit."""
    assert account["source"] == "hub"
    told = [(p["repository"], p["revision"], p["licence"]) for p in account["parts"]]
    assert [(repo, len(commit), licence) for repo, commit, licence in told] == [
        (repo, 40, licence) for repo, _, licence in pinned(profile, name)
    ]
    for (_, commit, _), (_, wanted, _) in zip(told, pinned(profile, name), strict=True):
        assert commit.startswith(wanted)


def test_the_seeds(rehearsal: tuple[str, Site]) -> None:
    profile, site = rehearsal
    account = site.fetched("dolly")
    check_parts(account, profile, "dolly")
    rows = site.rows("dolly/seeds.jsonl")
    title = "databricks/databricks-dolly-15k@bdd27f4d94b9: databricks-dolly-15k.jsonl"
    assert account["rows"] == {title: 19}
    assert account["left_out"] == {"empty instruction or response": 1}
    assert rows[3]["instruction"] == "Do 4." and len(rows) == 19
    assert {(row["source"], row["licence"]) for row in rows} == {(title, "CC-BY-SA-3.0")}


def test_the_flan_collection(rehearsal: tuple[str, Site]) -> None:
    profile, site = rehearsal
    section = PROFILES[profile]["flan"]
    account = site.fetched("flan")
    check_parts(account, profile, "flan")
    rows = site.rows("flan/queries.jsonl")
    whole = section["task_share"] == 1
    assert account["tasks"].keys() == {"cot", "niv2", "t0", "flan2021"}
    if whole:
        assert account["tasks"] == {"cot": 2, "niv2": 30, "t0": 21, "flan2021": 20}
        assert len(account["parts"][0]["files"]) == 8
    else:
        assert 0 < sum(account["tasks"].values()) < 30
        assert account["left_out"]["a task that was not drawn"] > 0
    assert not any("fsopt" in n or "dialog" in n for n in account["parts"][0]["files"])
    ends = len(rows) + sum(account["left_out"].values()) + account["beyond_limit"]
    assert sum(account["read"].values()) == ends and account["beyond_limit"] >= 0
    assert account["left_out"]["few-shot"] > 0
    assert account["left_out"]["empty query or target"] > 0
    tasks = Counter((row["mixture"], row["task"]) for row in rows)
    assert set(tasks.values()) == {section["per_task"]}
    assert Counter(mixture for mixture, _ in tasks) == Counter(
        {k: n for k, n in account["tasks"].items() if n}
    )
    assert sum(account["rows"].values()) == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["query"].endswith(f"of {row['task']}?") and row["target"].startswith("answer")
        assert row["source"].startswith("Open-Orca/FLAN@77ed2d7ab8b1: ")
        assert row["licence"] == "CC-BY-4.0"


def test_the_topics(rehearsal: tuple[str, Site]) -> None:
    _, site = rehearsal
    account = site.fetched("topics")
    assert site.rows("topics/topics.jsonl") == [
        {"name": "Rivers of Europe", "subcategories": 12},
        {"name": 'Women\'s history ("x"), \\', "subcategories": 11},
        {"name": "Café", "subcategories": 25},
    ]
    assert account["left_out"] == {"housekeeping": 1, "no sub-categories": 2}
    assert (account["source"], account["licence"]) == ("wikipedia", "CC-BY-SA-4.0")
    assert len(account["sha256"]) == 64 and account["url"].endswith(DUMP)


def test_the_preference_pairs(rehearsal: tuple[str, Site]) -> None:
    profile, site = rehearsal
    account = site.fetched("hh_rlhf")
    check_parts(account, profile, "hh_rlhf")
    train, test = (site.rows(f"hh_rlhf/{part}.jsonl") for part in ("train", "test"))
    count = 110 - 4 if profile == "paper" else 30 - 1
    assert account["left_out"] == {"equal answers": 4 if profile == "paper" else 1}
    assert len(train) + len(test) == count and len(train) == round(count * 5 / 9)
    if profile == "paper":  # both parts hold every kind of pair
        for part in (train, test):
            assert len({row["source"] for row in part}) == 4
    assert {row["licence"] for row in train} == {"MIT"}
    assert {row["chosen"] for row in train} == {"Yes."}
    assert not any("test" in row["prompt"][0]["content"] for row in [*train, *test])


def test_mt_bench(rehearsal: tuple[str, Site]) -> None:
    profile, site = rehearsal
    account = site.fetched("mt_bench")
    check_parts(account, profile, "mt_bench")
    questions = {row["question_id"]: row for row in site.rows("mt_bench/questions.jsonl")}
    assert questions[81]["reference"] == []
    assert questions[111]["reference"] == ([] if profile == "paper" else ["12", "12"])
    answers = {(r["question_id"], r["model"]): r for r in site.rows("mt_bench/answers.jsonl")}
    assert sorted(answers) == [
        (81, "alpaca-13b"),
        (81, "gpt-4"),
        (111, "gpt-4"),
        (111, "llama-13b"),
    ]
    assert answers[81, "gpt-4"]["turns"] == ["gpt-4 on 81", "more"]
    assert answers[111, "gpt-4"]["turns"][0] == "another one"  # the first, of three
    assert account["left_out"] == {}
    assert account["partly_used"] == {"another answer of a model to a question than the first": 2}
    votes = site.rows("mt_bench/votes.jsonl")
    assert [(v["judge"], v["turn"], v["winner"]) for v in votes] == [
        ("author_2", 1, "model_b"),
        ("expert_17", 2, "tie"),
        ("expert_3", 1, "model_a"),
        ("gpt4_pair", 1, "inconsistent"),
        ("gpt4_pair", 2, "inconsistent"),
    ]
    assert json.loads((site.folder / "data/fetch/mt_bench/votes.json").read_text()) == {
        "simulated": False
    }
    grades = site.rows("mt_bench/grades.jsonl")
    assert [(g["judge"], g["model"], g["score"]) for g in grades] == (
        [("gpt4_single", "alpaca-13b", 5), ("gpt4_single", "gpt-4", 9)]
        if profile == "paper"
        else []
    )


def test_the_benchmarks_are_the_harness_s_own(rehearsal: tuple[str, Site]) -> None:
    profile, site = rehearsal
    account = site.fetched("benchmarks")
    assert account["source"] == "harness"
    assert site.rows("benchmarks/probes.jsonl") == []
    tasks = PROFILES[profile]["benchmarks"]["tasks"]
    counts = dict.fromkeys(tasks, 2) | {"mmlu": 2 * len(subjects())}
    assert len(subjects()) == 57
    assert account["rows"] == {f"texts/{task}.jsonl": counts[task] for task in tasks}
    rows = {task: site.rows(f"benchmarks/texts/{task}.jsonl") for task in tasks}
    choices = ["basalt", "chalk"]
    assert rows["arc_easy"] == [
        {"id": "arc_easy/0", "question": LAVA, "choices": choices},
        {"id": "arc_easy/1", "question": MOON, "choices": choices},
    ]
    first = {task: (found[0]["question"], found[0]["choices"]) for task, found in rows.items()}
    letters = "\nA. basalt\nB. chalk\nC. sand\nD. clay"
    assert first == {
        "arc_challenge": (LAVA, choices),
        "arc_easy": (LAVA, choices),
        "hellaswag": (
            "Boiling water: A woman fills a kettle. She",
            ["boils it.", " sells it.", "eats it.", "paints it."],
        ),
        "mmlu": (LAVA + letters, []),
        "openbookqa": (LAVA, choices),
        "piqa": ("open jar 0", ["Turn the lid.", "Eat it."]),
        "race": ("Ben ran 0.\n\nWho fled?", ["Ann", "Ben", "Cy", "Di"]),
        "sciq": (
            f"Lava is molten rock.\nQuestion: {LAVA}",
            ["wrong 1", "wrong 2", "wrong 3", "basalt"],
        ),
        "truthfulqa_mc1": (LAVA, ["Basalt.", "Chalk."]),
        "truthfulqa_mc2": (LAVA, ["Basalt.", "It is basalt.", "Chalk."]),
        "winogrande": (
            "Ann thanked Eve because Ann had helped her.",
            ["Ann thanked Eve because Eve had helped her."],
        ),
    }
    assert rows["mmlu"][0]["id"] == "mmlu_abstract_algebra/0"


def test_the_base_model(rehearsal: tuple[str, Site]) -> None:
    profile, site = rehearsal
    account = site.fetched("base")
    check_parts(account, profile, "base")
    base = site.folder / "models/fetch/base"
    there = {path.name for path in base.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "source.json"} <= there
    assert not {"pytorch_model.bin", "modeling.py", "README.md"} & there
    assert not any(path.is_symlink() for path in base.iterdir())
    assert not any(name.endswith((".bin", ".py")) for name in site.hub.fetched)
    told = "made from tokenizer.model" if profile == "paper" else "as it came"
    assert account["tokenizer"] == told
    blob = next((Path(site.env["HF_HOME"]) / "hub").rglob("snapshots/*/model.safetensors"))
    assert (base / "model.safetensors").samefile(blob.resolve())  # a hard link: no second copy
    code = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        "t, m = (a.from_pretrained(sys.argv[1], local_files_only=True) for a in (T, M))\n"
        "x = t('thermal spring', return_tensors='pt')\n"
        "assert str(m.dtype) == 'torch.float16' and m.float()(**x).logits.isfinite().all()\n"
        "assert t.decode(x['input_ids'][0], skip_special_tokens=True) == 'thermal spring'"
    )
    env = environment(site.folder.parent / "work")
    subprocess.run([warm.python(), "-c", code, str(base)], env=env, check=True)
    if profile == "paper":
        tokenizer_model = Path(site.env["HF_HOME"]).rglob("snapshots/*/tokenizer_config.json")
        config = json.loads(next(tokenizer_model).read_text())
        assert config["tokenizer_class"] == "LlamaTokenizer"  # the cache's own was not written to


def test_what_was_fetched_is_fetched_no_more_and_comes_out_the_same(
    rehearsal: tuple[str, Site],
) -> None:
    _, site = rehearsal
    for name in ("dolly", "hh_rlhf", "mt_bench", "base"):
        out = site.folder / ("models" if name == "base" else "data") / "fetch" / name
        if not out.exists():
            site.fetched(name)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        asked = len(site.hub.requests)
        site.fetched(name, HF_HUB_OFFLINE="1", PYTHONHASHSEED="5")
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before, name
        assert len(site.hub.requests) == asked


# --- what can go wrong ---------------------------------------------------------------------------

LLAMA = ("model", "openlm-research/open_llama_3b_v2")
FLAN = ("dataset", "Open-Orca/FLAN")
DOLLY = ("dataset", "databricks/databricks-dolly-15k")
VOTES = ("dataset", "lmsys/mt_bench_human_judgments")


def change(site: Site, repo: tuple[str, str], **files: bytes | None) -> None:
    """Put files into a repository, or take them out; `__` in a name stands for a dot."""
    old = site.hub.repos[repo]
    named = {name.replace("__", "."): data for name, data in files.items()}
    commits = {
        commit: {n: d for n, d in {**there, **named}.items() if d is not None}
        for commit, there in old.commits.items()
    }
    site.hub.repos[repo] = dataclasses.replace(old, commits=commits)


def test_a_ref_that_has_moved_stops_the_fetch(site: Site) -> None:
    site.switch("paper")
    old = site.hub.repos[LLAMA]
    (files,) = old.commits.values()
    moved = {"refs/pr/16": "a" * 40}
    site.hub.repos[LLAMA] = Repo({"a" * 40: files, **old.commits}, moved)
    message = site.refused("base")
    assert "refs/pr/16 has moved: its tip is aaaa" in message and "4293833c" in message


def test_what_is_not_there_or_not_allowed_is_explained(site: Site) -> None:
    site.switch("paper")
    old = site.hub.repos[DOLLY]
    (files,) = old.commits.values()
    site.hub.repos[DOLLY] = Repo({"a" * 40: files})
    assert "there is no revision bdd27f4d94b9" in site.refused("dolly")
    site.hub.repos[DOLLY] = dataclasses.replace(old, gated=True)
    message = site.refused("dolly")
    assert f"accept them at {site.hub.url}/datasets/databricks/databricks-dolly-15k" in message
    assert "`hf auth login`" in message
    del site.hub.repos[DOLLY]
    assert "no such dataset at" in site.refused("dolly")
    site.hub.repos[DOLLY] = old
    change(site, DOLLY, **{"databricks-dolly-15k__jsonl": None})
    message = site.refused("dolly")
    assert (
        "no file is called databricks-dolly-15k.jsonl; there are .gitattributes, README" in message
    )


def test_without_a_network_it_says_what_to_do(site: Site) -> None:
    site.switch("paper")
    for name in ("dolly", "flan", "base"):
        message = site.refused(name, HF_HUB_OFFLINE="1")
        assert "not in the cache" in message and "HF_HUB_OFFLINE=0" in message
    message = site.refused("base", HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be read (ConnectError)" in message and "HF_ENDPOINT" in message
    site.edit(f"{site.hub.url}/enwiki", "http://127.0.0.1:9/enwiki")
    assert "check the network" in site.refused("topics")


def test_harness_data_that_cannot_be_had_stops_the_fetch(site: Site) -> None:
    site.switch("small")
    del site.hub.repos["dataset", "allenai/sciq"]
    for inset in (4, 2):  # fetch.benchmarks.tasks, lm_eval.tasks
        before = ("arc_challenge", "arc_easy", "hellaswag", "mmlu", "openbookqa", "piqa", "race")
        site.edit("".join(f"{' ' * inset}- {task}\n" for task in before), "")
    message = site.refused("benchmarks")
    assert "fetch.benchmarks: sciq: its data cannot be loaded" in message
    assert "check the network" in message
    site.edit("- sciq\n", "- sciq_of_mine\n")
    message = site.refused("benchmarks")
    assert "fetch.benchmarks.tasks: sciq_of_mine: no task of lm_eval" in message


def test_pickles_and_programs_are_refused_and_not_downloaded(site: Site) -> None:
    site.switch("paper")
    change(site, LLAMA, model__safetensors=None)
    message = site.refused("base")
    assert "only pickled weights (pytorch_model.bin)" in message and "local/base" in message
    change(site, LLAMA, pytorch_model__bin=None)
    assert "no weights (*.safetensors)" in site.refused("base")
    name = "      - data/mt_bench/question.jsonl\n"
    site.edit(name, f"{name}      - '*.py'\n")
    assert "app.py can run code when it is loaded" in site.refused("mt_bench")
    assert site.hub.fetched == []


def test_a_download_without_a_terminal_says_how_far_it_is(site: Site) -> None:
    change(site, LLAMA, model__safetensors=bytes(40 * 2**20))
    (commit,) = site.hub.repos[LLAMA].commits
    code = (
        "from bezoar import params\nfrom bezoar.work import progress\n"
        "from bezoar.sources import hub\n"
        "progress.SOONEST = 0\n"
        "base = params.load(profile='paper').fetch.base\n"
        f"hub.download(base, {commit!r}, ['model.safetensors'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=site.folder,
        env=site.env,
        capture_output=True,
        text=True,
        check=True,
    )
    first, *_, last = done.stderr.splitlines()
    assert re.match(r"fetch \S+open_llama_3b_v2: MiB: \d+ of 40 \(\d+ %\), .* left$", first)
    assert re.match(r"fetch \S+open_llama_3b_v2: MiB: 40 of 40, \d+ s$", last)


def test_a_model_with_code_of_its_own_or_a_cut_file_is_refused(site: Site) -> None:
    site.switch("paper")
    (files,) = site.hub.repos[LLAMA].commits.values()
    config = json.loads(files["config.json"])
    whole = files["model.safetensors"]
    change(site, LLAMA, model__safetensors=whole[:-1])
    assert "the file is cut" in site.refused("base")
    shutil.rmtree(site.env["HF_HOME"])  # a commit's files never change; the cache relies on it
    code = {**config, "auto_map": {"AutoModelForCausalLM": "modeling.M"}}
    change(site, LLAMA, model__safetensors=whole, config__json=json.dumps(code).encode())
    site.hub.fetched.clear()
    assert "brings its own code" in site.refused("base")
    assert not any(name.endswith(".safetensors") for name in site.hub.fetched)


def test_a_column_that_is_called_otherwise_is_named(site: Site) -> None:
    site.switch("paper")
    rows = [{"input": "a", "targets": "b", "_task_name": "t", "_template_type": "zs_opt"}]
    change(site, FLAN, **{"cot_zsopt_data/part__0__parquet": parquet(*rows)})
    message = site.refused("flan")
    assert "cot_zsopt_data/part.0.parquet: no column inputs of text; has input (string)" in message


HUMAN = "data/human-00000-of-00001-25f4910818759289__parquet"
CAST = vote("expert_1", (81, 1), "a", "b", "tie")


@pytest.mark.parametrize(
    ("rows", "said_of_it"),
    [
        ([{**CAST, "judge": ["gpt-4", "pair-v2"]}], "fetch.mt_bench takes MT-Bench questions"),
        (
            [{**CAST, "conversation_b": said(["x", "y"])[:2]}],
            "row 1: conversation_b: four messages",
        ),
        ([CAST, {**CAST, "turn": 3}], "row 2: turn: 1 or 2 is expected, got 3"),
    ],
)
def test_votes_of_another_form_are_refused(
    site: Site, rows: list[dict[str, Any]], said_of_it: str
) -> None:
    site.switch("paper")
    change(site, VOTES, **{HUMAN: parquet(*rows)})
    assert said_of_it in site.refused("mt_bench")


def test_a_broken_parquet_file_is_named(site: Site) -> None:
    site.switch("small")
    (files,) = site.hub.repos[FLAN].commits.values()
    name = "niv2_zsopt_data/part.0.parquet"
    change(site, FLAN, **{name: files[name][:-200]})
    assert f"{name}: is no whole parquet file" in site.refused("flan")
    change(site, VOTES, **{HUMAN: b"PAR1 and no more"})
    assert "broken after row 0" in site.refused("mt_bench")


def test_a_killed_stream_goes_on_after_its_last_whole_file(site: Site) -> None:
    site.switch("paper")
    last = "Open-Orca/FLAN/t0_zsopt_data/part.0.parquet"
    site.hub.stalled.add(last)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.fetch", "flan"],
        cwd=site.folder,
        env=site.env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        while last not in site.hub.fetched:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
        site.hub.release.set()
    before = {*site.hub.fetched} - {last}
    assert {name.split("/")[2] for name in before} == {"cot_zsopt_data", "niv2_zsopt_data"}
    site.hub.fetched.clear()
    resumed = site.fetched("flan")
    assert not before & {*site.hub.fetched}
    rows = site.rows("flan/queries.jsonl")
    shutil.rmtree(site.env["BEZOAR_WORK"])
    assert site.fetched("flan") == resumed
    assert site.rows("flan/queries.jsonl") == rows


# --- servers that say nothing ---------------------------------------------------------------------


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("source", ["dolly", "base"])
def test_a_mirror_that_announces_xet_and_cannot_serve_it(
    site: Site, nowhere: str, source: str
) -> None:
    """With Xet the same fetch hangs for ever; without it every file comes by plain HTTP."""
    site.switch("small")
    site.hub.xet = nowhere
    account = site.fetched(source)
    assert account["source"] == "hub"
    assert not any("xet-read-token" in request for request in site.hub.requests)


def test_a_server_that_never_answers_is_given_up(
    nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library asks without a limit when it lists files; its five repetitions take 23 s more."""
    import httpx2
    from huggingface_hub import constants, get_session

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.prepare_client.cache_clear()
    hub.prepare_client()
    started = time.monotonic()
    with pytest.raises(httpx2.ReadTimeout):
        get_session().get(f"{nowhere}/api/datasets/a/b", timeout=None)
    assert time.monotonic() - started < 20
    assert constants.HF_HUB_DISABLE_XET


# --- the tokenizer -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"split_digits": True, "allow_whitespace_only_pieces": True},
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
        {"normalization_rule_name": "nfkc"},
        {"add_dummy_prefix": False},
    ],
    ids=["as OpenLLaMA", "whitespace pieces", "nmt_nfkc", "nfkc", "no prefix"],
)
def test_transformers_cuts_text_as_sentencepiece_does(tmp_path: Path, how: dict[str, Any]) -> None:
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer

    sentencepiece(tmp_path / "m", **how)
    assert tokenizer.prove(tmp_path / "m", "m")
    assert not tokenizer.prove(tmp_path / "m", "m")  # proven, nothing left to write
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "m/tokenizer.model"))
    loaded = AutoTokenizer.from_pretrained(tmp_path / "m", local_files_only=True)
    for text in (*TEXT.splitlines(), "  unseen: Ǆ x\u00ad\u2003y  \n z ", "<s>"):
        ids = loaded(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ids == pieces.encode(text), text
    assert loaded("a river")["input_ids"] == [loaded.bos_token_id, *pieces.encode("a river")]
    assert (loaded.eos_token, loaded.model_max_length) == ("</s>", 2048)


def test_a_tokenizer_that_cuts_otherwise_is_written_anew_and_a_broken_one_refused(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "m"
    sentencepiece(folder, model_type="unigram", vocab_size=330)
    assert tokenizer.prove(folder, "m"), "a unigram model is written anew"
    put(folder / "tokenizer.model", text="no model")
    with pytest.raises(BadInput, match="is no sentencepiece model"):
        tokenizer.prove(folder, "m")
    (folder / "tokenizer.model").unlink()
    assert not tokenizer.prove(folder, "m")
