"""What comes from elsewhere runs nothing here: weights, repositories, answers, names, parameters.

A trap leaves a mark where it is sprung. Each kind of trap is sprung once on purpose, so that a test
which finds no mark has shown something. Pickles: only torch's reader of plain values (weights_only)
sees any, in the trainer's own checkpoints. Keys: what the client does with them is in
test_client.py; here whole stages run with one.
"""

import ast
import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bezoar import llm, params, report
from bezoar.filtering.cards import dataset
from bezoar.llm.client import Stopped
from bezoar.models import loading
from bezoar.params import InProcess, Repository
from bezoar.report import model_card as model
from bezoar.rows import files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message
from bezoar.sources import hub, link, local, weights
from bezoar.training import merge
from bezoar.training.runs import fitting
from tests.builders import parameters
from tests.builders.bases import llama
from tests.builders.cutting import beside
from tests.builders.hub import Hub, Repo, serve
from tests.builders.micro import (
    ALL,
    enter,
    grown,  # noqa: F401  (a fixture)
)
from tests.builders.micro import link as train
from tests.builders.paid import point, speak
from tests.builders.runs import Outline, grow
from tests.builders.servers import Faults, serving
from tests.conftest import BIN, ROOT, environment, from_yaml

SETTINGS = params.load(ROOT)
CODE = [p for top in ("bezoar", "stages", "benchmarks") for p in sorted((ROOT / top).rglob("*.py"))]
STAGES: dict[str, Any] = from_yaml((ROOT / "dvc.yaml").read_text())["stages"]


# --- what the code never does --------------------------------------------------------------------

LOADERS_OF_CODE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
ARCHIVES = {"tarfile", "zipfile"}  # whose members name where they go
STREAMS = "bezoar/sources/containers.py"  # reads the one member of a zip, and extracts none
ALWAYS = {
    r"Auto\w+\.from_pretrained": {"trust_remote_code": False},
    r"AutoModel\w+\.from_pretrained": {"use_safetensors": True},
    r"torch\.load": {"weights_only": True},
}
NEVER = r"(eval|exec|os\.system|os\.popen|yaml\.(unsafe|full)_load|shutil\.unpack_archive)"


@pytest.mark.slow
@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_loaded_that_could_run(path: Path) -> None:
    text = path.read_text()
    refused = LOADERS_OF_CODE | (ARCHIVES if str(path.relative_to(ROOT)) != STREAMS else set())
    assert not re.search(r"\.extract(all)?\(", text)
    assert not re.search(r"\b(Unsafe|Full)Loader\b|yaml\.C?Loader\b", text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {n.split(".")[0] for n in names} & refused
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        said = {word.arg: ast.unparse(word.value) for word in node.keywords}
        for pattern, wanted in ALWAYS.items():
            if re.search(rf"\b{pattern}$", called):
                assert all(said.get(k) == str(v) for k, v in wanted.items()), ast.unparse(node)
        assert said.get("trust_remote_code", "False") == "False", ast.unparse(node)
        assert not re.fullmatch(NEVER, called) and said.get("shell", "False") == "False", called


# --- pickles -------------------------------------------------------------------------------------


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def trapped(path: Path, mark: Path) -> None:
    """Write a pickle as torch.save does; loading it leaves `mark`."""
    import torch

    torch.save(Trap(mark), path)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Where a trap leaves its mark; the test ends without one."""
    path = tmp_path / "sprung"
    yield path
    assert not path.exists()


@pytest.mark.slow
def test_the_traps_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoConfig, dynamic_module_utils

    trapped(tmp_path / "x.bin", tmp_path / "sprung")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "sprung").exists()
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    with_code(tmp_path / "model", tmp_path / "sprung too")
    with pytest.raises(Exception, match="trapped"):
        AutoConfig.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert (tmp_path / "sprung too").exists()


def in_process(folder: Path) -> None:
    """Ask the model at `folder`, run in this process."""
    endpoint = InProcess(
        provider="local",
        model=str(folder),
        terms="MIT",
        style="completion",
        params={"max_new_tokens": 2},
        concurrency=1,
        batch_size=1,
    )
    ask = llm.connect(endpoint)
    ask([Message(role="user", content="hello")])


def skeleton(folder: Path) -> None:
    """What merge reads of a base."""
    merge._skeleton(folder, dtype="float32")


MODELS: list[Callable[[Path], Any]] = [
    lambda folder: loading.plain(folder, "float32", loading.device()),
    lambda folder: loading.load(folder, folder, SETTINGS.sft),
    merge._parts,
    weights.model_files,
    in_process,
]


@pytest.mark.slow
@pytest.mark.parametrize("load", MODELS, ids=["plain", "load", "merge", "fetch", "in process"])
def test_a_model_of_pickles_is_refused(
    tmp_path: Path, mark: Path, load: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    llama(tmp_path / "model", 64)
    (tmp_path / "model/model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        trapped(tmp_path / "model" / name, mark)
    with pytest.raises((BadInput, OSError), match="safetensors"):
        load(tmp_path / "model")


@pytest.mark.slow
def test_an_adapter_of_pickles_is_refused(tmp_path: Path, mark: Path) -> None:
    llama(tmp_path / "base", 64)
    files.write_json(tmp_path / "adapter/adapter_config.json", {"peft_type": "LORA", "r": 4})
    trapped(tmp_path / "adapter/adapter_model.bin", mark)
    base = loading.plain(tmp_path / "base", "float32", loading.device())
    with pytest.raises(BadInput, match=r"has no adapter_model\.safetensors"):
        loading.attach(base, tmp_path / "adapter", tmp_path / "base")


@pytest.mark.slow
def test_what_lies_beside_a_users_model_is_not_taken_along(tmp_path: Path, mark: Path) -> None:
    theirs = tmp_path / "theirs"
    llama(theirs, 64)
    beside(theirs)
    for name in ("pytorch_model.bin", "tokenizer.pkl", "tokenizer.bin"):
        trapped(theirs / name, mark)
    (theirs / "tokenizer.py").write_text("")
    weights.copy(list(theirs.iterdir()), tmp_path / "ours", "local/base")
    taken = {path.name for path in (tmp_path / "ours").iterdir()}
    assert taken == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.fixture(scope="module")
def stopped(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A project in which a training was stopped after its first epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "project"
    with pytest.MonkeyPatch.context() as patch:
        enter(grown, folder, patch)
        patch.setattr(fitting, "_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(of=ALL)
    *_, last = sorted(folder.rglob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    shutil.rmtree(last)
    return folder


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_trap_in_a_checkpoint_ends_the_training_that_goes_on_from_it(
    stopped: Path, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BEZOAR_WORK", str(folder / "work"))
    (checkpoint,) = folder.rglob("checkpoint-*")
    assert (checkpoint / name).exists()
    trapped(checkpoint / "training_args.bin", mark)  # is not read at all
    trapped(checkpoint / name, mark)
    with pytest.raises(Exception, match="weights_only"):
        train(of=ALL)


# --- code of a model's own -----------------------------------------------------------------------


def with_code(folder: Path, mark: Path) -> None:
    """A model of a kind of its own, and the code for it; the code leaves `mark`."""
    llama(folder, 64)
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    config = json.loads((folder / "config.json").read_text())
    files.write_json(folder / "config.json", {**config, "model_type": "own", "auto_map": own})
    files.write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
    )
    (folder / "tokenizer.json").write_text("{}")
    (folder / "own.py").write_text(
        f"import os\nos.mkdir({str(mark)!r})\nraise ImportError('trapped')\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "load",
    [*MODELS[:2], weights.model_files, in_process, loading.positions, loading.tokenizer, skeleton],
    ids=["plain", "load", "fetch", "in process", "positions", "tokenizer", "merge"],
)
def test_code_that_a_model_brings_is_not_run(
    tmp_path: Path, mark: Path, load: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    with_code(tmp_path / "model", mark)
    # as at a terminal, where transformers asks whether to run it unless told that it must not
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises((BadInput, ValueError, OSError, KeyError, Stopped)):
        load(tmp_path / "model")


def test_code_of_a_tokenizer_is_refused_where_it_is_fetched(tmp_path: Path) -> None:
    files.write_json(tmp_path / "config.json", {"model_type": "llama"})
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}}
    files.write_json(tmp_path / "tokenizer_config.json", own)
    with pytest.raises(BadInput, match=r"its own code \(tokenizer_config\.json"):
        weights.refuse_code(tmp_path)


@pytest.mark.parametrize("name", ["trust_remote_code", "custom_generate"])
def test_parameters_cannot_ask_for_code_of_a_models_own(name: str) -> None:
    with pytest.raises(ValueError, match="run code of its own"):
        InProcess(
            provider="local",
            model="m",
            terms="MIT",
            style="chat",
            params={name: "x/y"},
            concurrency=1,
            batch_size=1,
        )


# --- files from elsewhere ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../rows.jsonl", "/rows.jsonl", "a/../../../rows.jsonl"])
def test_a_repository_cannot_name_a_file_outside_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from huggingface_hub import constants

    commit = "c" * 40
    part = Repository(
        repository="some/rows", kind="dataset", revision=commit, ref=None, licence="MIT"
    )
    held = Hub(repos={("dataset", "some/rows"): Repo({commit: {name: b"{}", "a.jsonl": b"{}"}})})
    with serve(held):
        monkeypatch.setattr(constants, "ENDPOINT", held.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        for pattern in ("*.jsonl", "*/*.jsonl"):
            with pytest.raises(BadInput, match="outside of its folder"):
                hub.select(part, commit, [pattern])
    assert held.requests and held.fetched == []


ODD = ["; touch sprung", "$(touch sprung)", "a\ntouch sprung", "`touch sprung`", "-rf", "<b>x"]


def test_a_users_files_may_be_called_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    seed = {"instruction": "Say a.", "context": "", "response": "a", "category": "open_qa"}
    for name in ODD:
        (theirs / name).mkdir(parents=True)
        row = {**seed, "response": name}
        (theirs / name / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        (theirs / name / f"{name}.txt").write_text("not rows\n")
    here = tmp_path / "project"
    here.mkdir()
    monkeypatch.chdir(here)
    link.main([str(theirs)])
    assert len(local.list_files("dolly")) == len(ODD)
    assert len(Path("local/unread.txt").read_text().splitlines()) == len(ODD)
    source = local.read("dolly", None, 1)
    assert source and len(source.tables["seeds.jsonl"]) == len(ODD)
    assert not list(tmp_path.rglob("sprung"))
    assert all(path.is_relative_to(here) for path in here.rglob("*"))


# --- the shell -----------------------------------------------------------------------------------

NAMES = ["x; touch sprung", "x$(touch sprung)", 'x"; touch sprung; "', "x\ntouch sprung"]
ODDER = ["x`touch sprung`", "x'; touch sprung; '", "x|y", "x>y", "$HOME", "-c", "${key}", "x y"]


@pytest.mark.parametrize("name", STAGES)
def test_no_name_of_params_stands_in_a_command(name: str) -> None:
    named = STAGES[name]
    command = named.get("do", named)["cmd"]
    # the names of `sources` stand in dvc.yaml itself
    assert "$" not in command.replace('"$DVC_STAGE"', "") or named["foreach"] == "${sources}"


def entitle(folder: Path, names: list[str]) -> None:
    """Add further models of these names."""
    document = parameters.read(folder)
    document["models"] |= {name: {"source": "local", "chat_template": None} for name in names}
    document["others"] = names
    parameters.write(folder, document)


@pytest.mark.slow
def test_a_name_never_reaches_the_shell_as_code(project: Path, tmp_path: Path) -> None:
    def repro(*options: str) -> str:
        done = subprocess.run(
            [BIN / "dvc", "repro", *options, "models"],
            cwd=project,
            env=environment(tmp_path / "work"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode
        return done.stdout + done.stderr

    entitle(project, NAMES)
    told = repro("--keep-going")
    assert told.count("Running stage 'models@") == len(NAMES)
    assert told.count("not usable as a name; one is made of letters, digits") >= len(NAMES)
    assert not (project / "sprung").exists() and not list((project / "models").glob("*/"))
    # the same name where it is part of the command
    recipe = (project / "dvc.yaml").read_text()
    assert 'stages.models "$DVC_STAGE"' in recipe
    (project / "dvc.yaml").write_text(
        recipe.replace('stages.models "$DVC_STAGE"', "stages.models ${item}")
    )
    # with all of them: DVC may begin with any, and to a shell one is only a missing quote
    repro("--keep-going")
    assert (project / "sprung").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "section", ["chain", "merges", "evaluated", "checkpoints", "compared", "models"]
)
def test_a_name_is_letters_and_digits(tmp_path: Path, section: str) -> None:
    document = parameters.read()
    example = next(iter(document[section].values()), {"source": "local", "chat_template": None})
    names = [*NAMES, *ODDER, "../../../x", "/x", "a.b", ""]
    document[section] |= dict.fromkeys(names, example)
    told = refused(tmp_path, document)
    why = "not usable as a name; one is made of letters, digits"
    assert all(f"{section}.{name}: {why}" in told for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("chain.lamini.base", "../.."),
        ("chain.lamini.start", "/etc"),
        ("chain.lamini.data", "../../../x"),
        ("merges.sft.adapter", "sft/../../.."),
        ("evaluated.base.model", "../../../x"),
        ("checkpoints.base.model", "; touch x"),
        ("compared.dpo.model", "../../../x"),
        ("schemes.lamini.seeds", "../../../x"),
        ("profiles.embedded.launch", "../x"),
    ],
)
def test_a_value_that_becomes_a_path_is_one_that_a_stage_makes(
    tmp_path: Path, where: str, value: str
) -> None:
    document = parameters.read()
    *above, last = where.split(".")
    inside = document
    for key in above:
        inside = inside[key]
    inside[last] = value
    assert f": {where.removeprefix('profiles.embedded.')}: " in refused(tmp_path, document)


def refused(folder: Path, document: dict[str, Any]) -> str:
    """What is said of the document, which must not be usable."""
    parameters.write(parameters.copy(folder), document)
    with pytest.raises(BadInput) as told:
        params.load(folder)
    return str(told.value)


@pytest.fixture
def makefile(tmp_path: Path) -> Path:
    """The Makefile, in a folder whose python tells its arguments and does nothing."""
    bin = tmp_path / ".venv/bin"
    bin.mkdir(parents=True)
    (bin / "python").write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 3\n")
    (bin / "python").chmod(0o755)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / ".venv/installed").touch()
    return tmp_path


GIVEN = ["x; touch sprung", 'x"; touch sprung; "', "$(shell touch sprung)", "$$(touch sprung)"]
GIVEN += ["`touch sprung`", "'; touch sprung; '", "a\ntouch sprung", "${HOME}", "*"]


@pytest.mark.parametrize("given", GIVEN)
def test_what_make_is_given_is_an_argument_and_no_more(makefile: Path, given: str) -> None:
    def make(target: str, *variables: str) -> str:
        done = subprocess.run(
            ["make", "--no-print-directory", target, *variables],
            cwd=makefile,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2 and not list(makefile.rglob("sprung"))
        return done.stdout

    assert make("local", f"DATA={given}") == f"<-m><bezoar.sources.link><{given}>"
    assert make("publish", f"REPO={given}") == f"<-m><bezoar.publish><{given}>"
    make("publish", "REPO=a/b", f"ARGS={given}")
    make("preflight", f"PROFILE={given}")


# --- pages ---------------------------------------------------------------------------------------

SCRIPT = (
    "</script></style></title><script>document.title='sp'+'rung'</script>"
    "<img src=x onerror=\"document.title='sp'+'rung'\"><svg onload=\"document.title='sp'+'rung'\">"
    '" onmouseover="document.title=\'sp\'+\'rung\'" <a href="javascript:alert(1)">x</a>'
)
# fields that hold one of a few words, which their readers hold them to
CLOSED = {"by", "source", "bias", "field", "set", "unit", "finish", "status", "answer"}
CHOICES = ("not_wanted", "given", "asked", "missing")  # of a grade, its reference
CHOICES += ("pairs", "single", "intersection", "all")  # of the agreement study


def poisoned(value: Any, name: str = "") -> Any:
    """`value` with SCRIPT at the end of every text in it."""
    if isinstance(value, dict):
        return {key: poisoned(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner, name) for inner in value]
    closed = name in CLOSED or value in CHOICES
    return value + SCRIPT if isinstance(value, str) and not closed else value


@pytest.fixture
def poisonous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> params.Params:
    """The test stands in a run in which every text of every file holds SCRIPT: answers, verdicts,
    questions, categories, models, judges, licences. Returns its params, poisoned too."""
    monkeypatch.chdir(grow(tmp_path / "run"))
    part = {"repository": "a/b", "revision": "c" * 40, "licence": "MIT"}
    account = {"source": "hub", "parts": [part], "rows": {"a": 3}, "left_out": {"why": 1}}
    for name in ("dolly", "mt_bench"):
        files.write_json(f"data/fetch/{name}/source.json", account)
    for path in Path().rglob("*.json"):
        path.write_text(json.dumps(poisoned(json.loads(path.read_text()))))
    for path in Path().rglob("*.jsonl"):
        rows = [poisoned(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = {"model": f"m{SCRIPT}", "terms": f"t{SCRIPT}"}
    speakers = {
        who: getattr(SETTINGS.llm, who).model_copy(update=named)
        for who in ("teacher", "judge", "grader")
    }
    return SETTINGS.model_copy(
        update={"profile": f"p{SCRIPT}", "llm": SETTINGS.llm.model_copy(update=speakers)}
    )


def pages(settings: params.Params) -> dict[str, str]:
    """Every page of the report, by name."""
    run = report.read(settings)
    return {
        "report": report.page(run, 32),
        **{name: report.answers(run, name) for name in run.checkpoints},
    }


@pytest.mark.slow
def test_no_text_of_a_run_becomes_an_element(poisonous: params.Params) -> None:
    for name, page in pages(poisonous).items():
        assert page.count("&lt;script&gt;") > 20, name
        outline = Outline(page)
        assert not outline.open
        assert not {tag for tag, _ in outline.tags} & {
            "script",
            "img",
            "iframe",
            "embed",
            "base",
            "form",
            "link",
        }
        framed = [a["data"] for tag, a in outline.tags if tag == "object"]
        assert framed == (["times.html"] if name == "report" else [])
        for tag, attributes in outline.tags:
            assert not any(key.startswith("on") for key in attributes), tag
            address = attributes.get("href") or attributes.get("src") or "#"
            assert re.match(r"#|((\.\./|answers/)?\w+\.html|cards/\w+\.md)$", address), address
        policies = [a["content"] for t, a in outline.tags if t == "meta" and "http-equiv" in a]
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        framing = "; object-src 'self' file:; frame-src 'self' file:"
        assert policies == [policy + framing * (name == "report")]


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_no_script_runs_in_a_browser(poisonous: params.Params, tmp_path: Path) -> None:
    def title(page: str) -> str:
        path = tmp_path / "page.html"
        path.write_text(page)
        done = subprocess.run(
            [
                str(CHROMIUM),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--dump-dom",
                f"--user-data-dir={tmp_path / 'profile'}",
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return re.findall(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[0]

    every = pages(poisonous)
    for name in ("report", next(reversed(every))):
        page = every[name]
        assert "sprung" not in title(page)
        # were a text not escaped, the policy would still stop it; without both the script runs
        bare = page.replace("</body>", f"{SCRIPT}</body>")
        assert bare != page and "sprung" not in title(bare)
        assert title(re.sub(r"<meta http-equiv[^>]*>", "", bare)) == "sprung"


def test_no_text_of_a_run_becomes_an_element_of_a_checkpoints_card(
    poisonous: params.Params,
) -> None:
    run = report.read(poisonous)
    for name in model.checkpoint_weights(poisonous):
        inert(model.card(name, run, poisonous))


@pytest.mark.slow
def test_nor_of_a_sets_card(folder: Path) -> None:
    settings = SETTINGS.model_copy(
        update={
            "llm": SETTINGS.llm.model_copy(
                update={
                    who: getattr(SETTINGS.llm, who).model_copy(update={"model": SCRIPT})
                    for who in ("teacher", "judge")
                }
            )
        }
    )
    for name in ("funnel", "distributions"):
        path = folder / f"data/filter/lamini/{name}.json"
        told = json.loads(path.read_text())
        told = {**told, "reasons": {SCRIPT: 3}} if name == "funnel" else told
        path.write_text(json.dumps(told))
    inert(dataset.card("lamini", settings, folder / "data/filter/lamini"))


def inert(card: str) -> None:
    """The card's front matter is read, and no tag in it is unescaped outside of code."""
    _, front, body = card.split("---\n", 2)
    assert isinstance(from_yaml(front), dict)
    body = re.sub(r"```.*?```|`[^`\n]*`", "", body, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<\s*/?\s*(script|img|svg|a|style|title)\b", body)


# --- keys ----------------------------------------------------------------------------------------

KEY = "-".join(["sk", "test", "0123456789abcdefghij"])  # this file is part of what is looked at


def everywhere(*tops: Path) -> Iterator[tuple[Path, bytes]]:
    for top in tops:
        for path in top.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


@pytest.mark.slow
def test_a_run_writes_its_key_nowhere_not_even_as_it_fails(project: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    env = environment(work, TEST_KEY=KEY)
    told = b""
    # every reply and every error repeats the key; some requests are always refused
    faults = Faults(echo_key=True, error=0.1, bad="Category: brainstorming")
    with serving(faults, speak=speak, key=KEY) as (served, url):
        for most in (0.0, 1.0):
            point(project, url, api_key_env="TEST_KEY", max_failed=most)
            done = subprocess.run(
                [BIN / "dvc", "repro", "--verbose", "judge@lamini"],
                cwd=project,
                env=env,
                capture_output=True,
                timeout=300,
                check=False,
            )
            told += done.stdout + done.stderr
            assert (done.returncode == 0) == (most > 0), told[-3000:]
    assert served.statuses["400"] and served.statuses["error"] and b"never this prompt" in told
    said = (project / "data/generate/lamini/replies.jsonl").read_bytes()
    assert b"***" in said, "the server did not repeat the key"
    lock = (project / "dvc.lock").read_bytes()
    assert b"judge@lamini" in lock
    seen = dict(everywhere(project, work))
    assert any("ledger" in path.parts for path in seen)
    for form in (KEY, base64.b64encode(KEY.encode()).decode().rstrip("="), quote(KEY, safe="")):
        assert form.encode() not in told
        assert not [path for path, content in seen.items() if form.encode() in content]
