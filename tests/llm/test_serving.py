"""The client against real models: behind `transformers serve`, and in this process."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bezoar import llm
from bezoar.params import InProcess
from bezoar.sources import pretraining
from tests.builders.clients import (
    connected,
    openai,
    say,
    work,  # noqa: F401  (a fixture)
)
from tests.builders.micro import CORPUS, SIZE
from tests.conftest import BIN, environment

PROMPTS = ["The fox is", "The cow", "Once upon a time there was", "The"]


@contextlib.contextmanager
def served(model: Path, scratch: Path) -> Iterator[str]:
    """`transformers serve` on a free port of loopback, ended with the block, and its children."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (scratch / "hub").mkdir(parents=True)
    command = [BIN / "transformers", "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    with open(scratch / "log", "w") as log:
        process = subprocess.Popen(
            [*command, "--device", "cpu"],
            env=environment(scratch, HF_HOME=str(scratch)),
            stdout=log,
            stderr=log,
            start_new_session=True,  # it outlives its parent otherwise
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (
                scratch / "log"
            ).read_text()[-3000:]
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5),
            ):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base grown as `fetch@base` grows the embedded profile's, only smaller."""
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEZOAR_WORK", str(folder / "work"))
        pretraining.grow(CORPUS, SIZE, 7, folder / "base")
    return folder / "base"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None,
    reason="transformers serve wants fastapi, starlette and uvicorn (the dev group)",
)
def test_a_real_model_behind_a_real_server(base: Path, tmp_path: Path) -> None:
    with served(base, tmp_path / "serve") as url:
        endpoint = openai(
            url,
            model=str(base),
            style="completion",
            params={"max_tokens": 12},
            timeout=60,
            concurrency=4,
        )
        with connected(endpoint) as ask:
            first = llm.run_jobs(say, PROMPTS, ask, endpoint, prefix="test", name=str)
            assert ask.bought == len(PROMPTS)
        replies = [exchange.reply for exchange in first.exchanges]
        assert all(reply.text.strip() and 0 < reply.tokens_out <= 12 for reply in replies)
        with connected(endpoint) as ask:
            assert (
                llm.run_jobs(say, PROMPTS, ask, endpoint, prefix="test", name=str).done
                == first.done
            )
            assert ask.bought == 0


@pytest.mark.slow
def test_a_model_in_this_process_over_the_same_ledger(base: Path) -> None:
    endpoint = InProcess(
        provider="local",
        model=str(base),
        style="completion",
        concurrency=4,
        batch_size=3,
        terms="MIT",
        params={"max_new_tokens": 12},
    )
    ask = llm.connect(endpoint)
    first = llm.run_jobs(say, PROMPTS, ask, endpoint, prefix="test", name=str)
    assert len({text for _, text in first.done}) == len(PROMPTS)
    reply = first.exchanges[0].reply
    assert reply.model == base.name and 0 < reply.tokens_out <= 12 and reply.usd == 0
    again = llm.connect(endpoint)
    assert (
        llm.run_jobs(say, PROMPTS, again, endpoint, prefix="test", name=str).exchanges
        == first.exchanges
    )
    assert getattr(again, "bought") == 0  # noqa: B009
