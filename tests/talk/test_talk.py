"""The chat: which model it takes, what it says, and how an answer is shown as it is written."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bezoar import arithmetic, params
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message
from bezoar.sources import pretraining
from bezoar.talk import __main__ as program
from bezoar.talk import places
from bezoar.talk.__main__ import visible
from bezoar.talk.session import Session, StopText, Stream
from tests.builders import parameters
from tests.builders.micro import CORPUS, SIZE
from tests.conftest import ROOT, SETTLE, environment

SETTINGS = params.load(ROOT)
SLOW = 200  # seconds that a busy machine may take to load a model


@pytest.mark.parametrize("large", [False, True])
def test_it_computes_as_the_stages_do_unless_the_model_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Before a library is loaded, which reads how when it is."""
    monkeypatch.chdir(tmp_path)
    for name in arithmetic.SETTINGS["avx2"]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(arithmetic, "settle", SETTLE)
    parameters.copy(Path())
    with (put("model") / "model.safetensors").open("wb") as file:
        file.truncate(10**9 if large else 10**6)
    monkeypatch.setattr(sys, "argv", ["talk", "model"])
    ways: list[str | None] = []

    def session(*_: object) -> None:
        ways.append(arithmetic.in_force())
        raise BadInput("far enough")

    monkeypatch.setattr(program, "_session", session)
    monkeypatch.setattr(program, "_leave_at_ctrl_c", lambda: None)
    with pytest.raises(BadInput, match="far enough"):
        program.main()
    assert ways == [SETTINGS.cpu if arithmetic.able("avx2") and not large else None]


# --- which model ---------------------------------------------------------------------------------


def put(folder: str, name: str = "config.json", text: str = "{}") -> Path:
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path.parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_name_it_is_the_last_of_the_chain(here: Path) -> None:
    put("models/dpo/policy")
    assert places.find(SETTINGS, "").folder == Path("models/dpo/policy")


@pytest.mark.parametrize(
    ("name", "folder", "base"),
    [
        ("base", "models/fetch/base", "models/fetch/base"),
        ("sft", "models/merge/sft", "models/merge/sft"),
        ("lamini", "models/sft/lamini", "models/fetch/base"),
        ("evol_instruct", "models/sft/evol_instruct", "models/fetch/base"),
    ],
)
def test_checkpoints_links_and_merges_have_names(
    here: Path, name: str, folder: str, base: str
) -> None:
    put(folder, "adapter_config.json" if folder != base else "config.json")
    place = places.find(SETTINGS, name)
    assert (place.folder, place.base) == (Path(folder), Path(base))


def test_a_further_model_has_its_own_ends_and_is_not_the_last(here: Path) -> None:
    assert "redpajama" not in places.all_places(SETTINGS)
    parameters.copy(Path())
    parameters.replace(Path(), "\nothers: []", "\nothers: [redpajama]")
    for folder in ("models/models/redpajama", "models/dpo/policy"):
        put(folder)
    settings = params.load()
    assert places.find(settings, "redpajama").stop == ("<human>:",)
    assert places.find(settings, "").name == "dpo"


def test_a_folder_is_a_model_and_an_adapter_there_finds_its_base(here: Path) -> None:
    put("mine")
    assert places.find(SETTINGS, "mine").folder == Path("mine")
    put("over", "adapter_config.json", json.dumps({"base_model_name_or_path": "mine"}))
    assert places.find(SETTINGS, "over").base == Path("mine")


@pytest.mark.parametrize(
    ("wanted", "there", "error"),
    [
        ("", [], r"models/dpo/policy: there is no model yet; run `make demo` first"),
        ("dpo", ["models/fetch/base"], r"no model yet; there are base; `make demo`"),
        ("nope", ["models/fetch/base"], r"nope: neither a model of the recipe \(base, .*folder"),
        ("empty", ["empty/inner"], r"empty: no model; a model folder in Hugging Face format"),
    ],
)
def test_a_model_that_is_not_there_is_told_with_what_is(
    here: Path, wanted: str, there: list[str], error: str
) -> None:
    for folder in there:
        put(folder)
    with pytest.raises(BadInput, match=error):
        places.find(SETTINGS, wanted)


def test_an_adapter_without_its_base_and_a_model_elsewhere_are_refused(here: Path) -> None:
    put("over", "adapter_config.json", json.dumps({"base_model_name_or_path": "gone"}))
    with pytest.raises(BadInput, match="over: an adapter on gone, where there is no model"):
        places.find(SETTINGS, "over")
    endpoint = SETTINGS.llm.grader.model_dump_json()
    put("models/dpo/policy", "endpoint.json", endpoint)
    with pytest.raises(BadInput, match="dpo: is behind an endpoint"):
        places.find(SETTINGS, "dpo")


def probe(name: str, skill: str, system: str = "") -> dict[str, Any]:
    return {"id": name, "skill": skill, "system": system, "instruction": name, "answers": ["x"]}


def test_its_examples_are_questions_that_it_answered_of_several_skills(here: Path) -> None:
    rows = [probe("a", "look"), probe("b", "look"), probe("c", "two"), probe("d", "no", "Be kind.")]
    put("data/fetch/benchmarks", "probes.jsonl", "\n".join(map(json.dumps, rows)))
    assert places.examples(SETTINGS, "sft") == (["a", "c", "b"], False)
    attempts = [
        {"id": row["id"], "skill": row["skill"], "answer": "x", "right": row["id"] != "a"}
        for row in rows
    ]
    put("data/lm_eval/sft", "probes.jsonl", "\n".join(map(json.dumps, attempts)))
    assert places.examples(SETTINGS, "sft") == (["b", "c"], True)


# --- an answer as it is written ------------------------------------------------------------------


class Bytes:
    """A tokenizer whose tokens are single bytes."""

    def batch_decode(self, rows: list[list[int]], **_: Any) -> list[str]:
        return [bytes(row).decode("utf-8", "replace") for row in rows]


class Token:
    """A token as transformers hands it over."""

    def __init__(self, *ids: int) -> None:
        self.ids = ids

    def flatten(self) -> "Token":
        return self

    def tolist(self) -> list[int]:
        return list(self.ids)


def streamed(text: str, *stop: str) -> list[str]:
    shown: list[str] = []
    stream = Stream(Bytes(), stop, shown.append)
    stream.put(Token(1, 2, 3))  # the prompt
    try:
        for byte in text.encode():
            stream.put(Token(byte))
        stream.end()
    except StopText:
        shown.append("STOP")
    return shown


def test_no_half_of_a_character_is_shown() -> None:
    assert streamed("aé日😀.") == ["a", "é", "日", "😀", "."]


def test_what_may_become_a_stop_text_is_held_back() -> None:
    assert streamed("ab<c<end>d", "<end>") == ["a", "b", "<c", "STOP"]
    assert streamed("ab<e", "<end>") == ["a", "b", "<e"]
    assert streamed("abc", "") == ["a", "b", "c"]


def test_an_answer_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[2Jb\x07\n\tc") == "a[2Jb\n\tc"


# --- with a real model ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml and a base, grown as that of the demo, only smaller."""
    folder = tmp_path_factory.mktemp("talk")
    parameters.copy(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEZOAR_WORK", str(folder / "work"))
        pretraining.grow(CORPUS, SIZE, 7, folder / "models/fetch/base")
    return folder


@pytest.fixture(scope="module")
def loaded(project: Path) -> tuple[Any, Any]:
    from bezoar.models import loading

    base = project / "models/fetch/base"
    return loading.load(base, base, SETTINGS.sft, further=True)


@pytest.mark.slow
def test_what_is_streamed_is_what_generation_writes(loaded: tuple[Any, Any]) -> None:
    from bezoar.models import generation
    from bezoar.rows import chat

    pieces: list[str] = []
    answer = Session(*loaded, tokens=12).say("The fox", pieces.append)
    talk = [Message(role="user", content="The fox")]
    ids = chat.prompts(loaded[1], [talk])
    [written] = generation.generate(*loaded, ids, max_new_tokens=12, batch_size=1)
    assert "".join(pieces) == answer.text == written.text and len(pieces) > 3
    assert answer.finish == written.finish


@pytest.mark.slow
def test_old_exchanges_give_way_at_a_turn_s_boundary(loaded: tuple[Any, Any]) -> None:
    session = Session(*loaded, tokens=8)
    answers = [session.say(f"The fox is red {n}.", lambda piece: None) for n in range(12)]
    left_out = [answer.left_out for answer in answers]
    assert left_out[0] == 0 and any(left_out)
    assert session.turns[0].role == "user" and session.turns[-1].role == "assistant"
    assert all(answer.tokens + 8 <= session.positions for answer in answers)
    too_long = session.say("fox " * 2 * session.positions, lambda piece: None)
    assert too_long.finish == "no_room" and session.turns == []


@pytest.mark.slow
def test_settings_change_the_answer_and_a_seed_repeats_it(loaded: tuple[Any, Any]) -> None:
    import torch

    def drawn(seed: int, temperature: float, system: str = "") -> str:
        torch.manual_seed(seed)
        session = Session(*loaded, tokens=20, temperature=temperature, system=system)
        return session.say("The", lambda piece: None).text

    assert drawn(1, 1.5) == drawn(1, 1.5) != drawn(2, 1.5)
    assert drawn(1, 0) == drawn(2, 0)


def command(project: Path, *arguments: str) -> dict[str, Any]:
    return {
        "args": [sys.executable, "-m", "bezoar.talk", "base", "--tokens", "6", *arguments],
        "cwd": project,
        "env": environment(project / "work", PYTHONPATH=str(ROOT)),
    }


@pytest.mark.slow
def test_a_question_in_a_pipe_gets_its_answer_on_standard_output(project: Path) -> None:
    asked = "The fox\n\n/nope\n//usr\n/temperature 7\nA cow \\\nand a fox\n/quit\nnever asked\n"
    done = subprocess.run(
        **command(project),
        input=asked.encode() + b"\xff",
        capture_output=True,
        check=True,
        timeout=SLOW,
    )
    told = done.stderr.decode()
    assert len(done.stdout.decode().splitlines()) >= 3
    assert "/nope: no such command" in told and "no temperature; a number from 0 to 5" in told
    assert "Traceback" not in told and "Loading" not in told


@pytest.mark.slow
def test_a_model_that_is_missing_is_one_line(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bezoar.talk"],
        cwd=project,
        capture_output=True,
        text=True,
        env=environment(project / "work", PYTHONPATH=str(ROOT)),
        check=False,
        timeout=SLOW,
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "models/dpo/policy: there is no model yet; there are base" in done.stderr


class Terminal:
    """A chat in a terminal of 80 columns."""

    def __init__(self, project: Path) -> None:
        master, slave = pty.openpty()
        self.master, self.screen = master, ""
        self.written = select.poll()  # unlike select(), it takes file descriptors above 1,023
        self.written.register(master, select.POLLIN)
        self.process = subprocess.Popen(
            **command(project, "--temperature", "2"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def until(self, pattern: str, again: Callable[[], None] = lambda: None) -> str:
        """What stands on the screen up to `pattern`, which is then cleared. `again` is called every
        five seconds till then."""
        deadline, at = time.monotonic() + SLOW, time.monotonic() + 5
        while not (found := re.search(pattern, self.screen)):
            assert time.monotonic() < deadline, self.screen
            if time.monotonic() > at:
                at += 5
                again()
            if self.written.poll(100):
                try:
                    self.screen += os.read(self.master, 4096).decode(errors="replace")
                except OSError as error:  # the chat has ended
                    raise AssertionError(self.screen) from error
        self.screen = self.screen[found.end() :]
        return found[0]

    def type(self, text: str) -> None:
        """Type, where the prompt is there: what comes before it, the terminal may lose."""
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C. Python misses one that comes just as it begins to wait for a key."""
        self.process.send_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("under_make", [False, True])
def test_a_chat_in_a_terminal_ends_answers_at_ctrl_c_and_itself_at_ctrl_d(
    project: Path, monkeypatch: pytest.MonkeyPatch, under_make: bool
) -> None:
    monkeypatch.delenv("MAKELEVEL", raising=False)
    if under_make:  # which the tests themselves may run under
        monkeypatch.setenv("MAKELEVEL", "1")
    chat = Terminal(project)
    try:
        opening = chat.until(r"(?s)base \(models/fetch/base\).*> $")
        assert "the recipe's chat template" in opening and "Commands: /help" in opening
        assert "invented world of animals" in opening
        assert max(map(len, opening.splitlines())) <= 80
        chat.type("/tokens 100\n")
        chat.until(r"at most 100 tokens an answer.*\n.*> $")
        chat.interrupt()
        chat.until(r"(?s)\(Ctrl-D or /quit ends the chat\).*> $", again=chat.interrupt)
        chat.type("/help\n")
        chat.until(r"(?s)Ctrl-C ends an answer.*> $")
        chat.type("\x04")
        assert chat.process.wait(SLOW) == 0
    finally:
        chat.process.kill()
        chat.process.wait()
        os.close(chat.master)
