"""Endpoints of servers on loopback, and a client that asks them."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bezoar import llm, params
from bezoar.llm.client import Client
from bezoar.llm.run import Run
from bezoar.params import Anthropic, Budget, OpenAI, Params
from bezoar.rows.records import Ask, Message
from tests.builders import ROOT

KEY = "sk-test-4f1c9d2e7b6a5038"


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scratch folder of the test's own, and a key that means nothing."""
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("TEST_KEY", KEY)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "work"


def settings(**changed: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "terms": "MIT",
        "api_key_env": "TEST_KEY",
        "params": {"max_tokens": 64, "temperature": 0},
        "mode": "live",
        "concurrency": 32,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "timeout": 5,
        "patience": 60,
        "max_failed": 0.0,
        "reply_tokens": 64,
        "price": {"input": 1.0, "cached": 0.1, "output": 2.0, "batch": 0.5},
        **changed,
    }


def openai(url: str, **changed: Any) -> OpenAI:
    more = {"provider": "openai", "style": "chat", "structured": False, "base_url": f"{url}/v1"}
    return OpenAI.model_validate({**more, **settings(**changed)})


def anthropic(url: str, **changed: Any) -> Anthropic:
    more = {"provider": "anthropic", "api_version": "2026-10-21", "base_url": url}
    return Anthropic.model_validate({**more, **settings(**changed)})


@contextlib.contextmanager
def connected(endpoint: OpenAI | Anthropic, **more: Any) -> Iterator[Client]:
    ask = llm.connect(endpoint, **more)
    assert isinstance(ask, Client)
    try:
        yield ask
    finally:
        ask.close()


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def say(prompt: str, ask: Ask) -> str:
    return ask(user(prompt)).text


def run(endpoint: OpenAI | Anthropic, prompts: Sequence[str]) -> Run[str, str]:
    with connected(endpoint) as ask:
        return llm.run_jobs(
            say, prompts, ask, endpoint, prefix="test", name=lambda prompt: prompt[:20]
        )


def capped(stage: float | None, run: float | None) -> Params:
    loaded = params.load(ROOT)
    return loaded.model_copy(update={"budget_usd": Budget(stage=stage, run=run)})
