"""A run whose teacher and judge are a server that is paid."""

from pathlib import Path
from typing import Any

from bezoar.llm import embedded
from bezoar.rows.records import Message
from tests.builders import parameters

CONCURRENCY = 6
CALLS = 8


def speak(prompt: str) -> str:
    """The embedded teacher and judge, behind HTTP."""
    judged = "<status>" in prompt
    ask = embedded.connect("world-judge" if judged else "world-teacher")
    return ask([Message(role="user", content=prompt)]).text


def point(project: Path, url: str, **changed: Any) -> None:
    """Let the active profile's teacher and judge be the server at `url`."""
    document = parameters.read(project)
    endpoint = {
        "provider": "openai",
        "style": "chat",
        "model": "m",
        "base_url": f"{url}/v1",
        "structured": False,
        "terms": "MIT",
        "api_key_env": None,
        "params": {"max_tokens": 512, "temperature": 0},
        "mode": "live",
        "concurrency": CONCURRENCY,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "timeout": 5,
        "patience": 60,
        "max_failed": 0.0,
        "reply_tokens": 60,
        "price": {"input": 1.0, "cached": 0.1, "output": 2.0, "batch": 0.5},
        **changed,
    }
    profile = document["profiles"]["embedded"]
    profile["llm"] = {**profile["llm"], "teacher": endpoint, "judge": endpoint}
    profile["schemes"]["lamini"]["calls"] = CALLS
    parameters.write(project, document)
