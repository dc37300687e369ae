"""What a reply says and how it ended: thoughts, endings, errors in the guise of replies, keys."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from bezoar import llm
from bezoar.llm import batch, client
from bezoar.llm import openai as openai_wire
from bezoar.llm.ledger import Ledger
from bezoar.llm.mask import MASK, Mask
from bezoar.llm.wire import Unusable, problem
from bezoar.rows import thoughts
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message
from tests.builders.clients import KEY, anthropic, connected, openai, run, say, user, work
from tests.builders.servers import Faults, chat, refusing, serving
from tests.conftest import ROOT, from_yaml

assert work  # the fixture of a scratch folder

FORMS = from_yaml((ROOT / "tests/reading/forms/thoughts.yaml").read_text("utf-8"))


# --- thoughts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=[form["name"] for form in FORMS])
def test_thoughts_are_parted_from_what_is_said(form: dict[str, Any]) -> None:
    parted = thoughts.part(form["reply"])
    assert parted.text == form["text"]
    assert parted.thoughts == form.get("thoughts", "")
    assert parted.closed is not form.get("cut", False)
    assert thoughts.leftover_mark(parted.text) == form.get("left")


def test_there_are_sixty_forms_of_thoughts() -> None:
    assert len(FORMS) >= 60 and len({form["name"] for form in FORMS}) == len(FORMS)


@pytest.mark.parametrize("piece", ["<think>", "</think>", "`<think>", "<think ", "```", "< ", "◁"])
def test_no_reply_is_slow_to_part(piece: str) -> None:
    began = time.perf_counter()
    thoughts.part(piece * (100_000 // len(piece)))
    assert time.perf_counter() - began < 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "text", "thought", "finish"),
    [
        ({"content": "Paris.", "reasoning_content": "a"}, "Paris.", "a", "stop"),
        ({"content": "Paris.", "reasoning": "a"}, "Paris.", "a", "stop"),
        ({"content": "Paris.", "thinking": "a"}, "Paris.", "a", "stop"),
        ({"content": "<think>b</think>Paris.", "reasoning": None}, "Paris.", "b", "stop"),
        ({"content": None, "reasoning_content": "all of it"}, "", "all of it", "length"),
        ({"content": "", "reasoning": "all of it"}, "", "all of it", "length"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
                    {"type": "text", "text": "Paris."},
                ]
            },
            "Paris.",
            "a",
            "stop",
        ),
        ({"content": ["Par", "is."]}, "Paris.", "", "stop"),
    ],
)
def test_fields_of_the_protocol_hold_thoughts_too(
    message: dict[str, Any], text: str, thought: str, finish: str
) -> None:
    answer = chat("", **message)
    with serving(script=lambda *_: (200, answer, "")) as (_, url), connected(openai(url)) as ask:
        reply = ask(user("Capital?"))
        assert ask(user("Capital?")) == reply, "the ledger gives the same"
    assert (reply.text, reply.thoughts, reply.finish_reason) == (text, thought, finish)


def test_the_raw_reply_is_kept_and_parted_anew_when_it_is_read() -> None:
    raw = "<think>It is equal.</think>Not equal."
    with serving(speak=lambda _: raw) as (model, url):
        for endpoint in (openai(url), anthropic(url)):
            with connected(endpoint) as ask:
                bought, remembered = ask(user("a")), ask(user("a"))
            assert bought == remembered and bought.raw == raw and bought.text == "Not equal."
        assert sum(model.paid.values()) == 2
    stored = [value["reply"] for *_, value in Ledger().lines()]
    assert [reply["text"] for reply in stored] == [raw, raw]


def test_an_answer_that_was_bought_before_thoughts_were_parted_is_parted_too() -> None:
    value = {
        "reply": {
            "text": "<think>a</think>b",
            "finish_reason": "stop",
            "tokens_in": 1,
            "tokens_out": 1,
            "model": "m",
            "simulated": False,
        }
    }
    assert client.from_ledger("0" * 64, value).text == "b"


# --- endings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["chat", "completion"])
@pytest.mark.parametrize("reason", ["abort", "error", None, "", "tool_calls", "unknown", 7, "load"])
def test_only_a_known_ending_is_an_end(
    reason: Any, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.0)
    document = chat("Half a sen", reason)
    document["choices"][0]["text"] = "Half a sen"
    asked: list[str] = []

    def script(prompt: str, _: Any) -> Any:
        asked.append(prompt)
        return (200, document, "") if prompt == "half" or len(asked) < 3 else None

    with serving(script=script) as (_, url):
        endpoint = openai(url, style=style, max_failed=1)
        assert run(endpoint, ["x"]).done[0][1].startswith("reply "), "asked again until it ends"
        result = run(endpoint, ["half"])
    assert result.done == [("half", "")] and "finish_reason" in result.failures[0].reason
    assert result.failures[0].attempts == client.SPOILT


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("content_filter", "refused"),
        ("SAFETY", "refused"),
        ("content_filter: PROHIBITED_CONTENT", "refused"),
        ("guardrail_intervened", "refused"),
        ("content_filtered", "refused"),
        ("ERROR_TOXIC", "refused"),
        ("ERROR_LIMIT", "length"),
        ("token_limit", "length"),
    ],
)
def test_endings_go_where_they_belong(reason: str, finish: str) -> None:
    wire = openai_wire.Wire(openai("http://127.0.0.1"), None)
    assert wire.parse(chat("x", reason)).finish == finish


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refused"),
        ("pause_turn", None),
        ("tool_use", None),
        (None, None),
        ("surprise", None),
    ],
)
def test_anthropics_endings_go_where_they_belong(reason: Any, finish: str | None) -> None:
    from bezoar.llm.anthropic import Wire

    content = [{"type": "thinking", "thinking": "a"}, {"type": "text", "text": "x"}]
    document = {"type": "message", "content": content, "stop_reason": reason}
    wire = Wire(anthropic("http://127.0.0.1"), None)
    if finish is None:
        with pytest.raises(Unusable, match="stop_reason"):
            wire.parse(document)
    else:
        parsed = wire.parse(document)
        assert (parsed.finish, parsed.text, parsed.thoughts) == (finish, "x", "a")


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"error": {"message": "no", "code": 429}}, 429),
        ({"error": {"message": "no", "code": "429"}}, 429),
        ({"error": {"message": "no", "type": "rate_limit_error"}}, 429),
        ({"error": {"message": "no", "code": "rate_limit_exceeded"}}, 429),
        ({"error": {"message": "no", "type": "invalid_request_error", "code": None}}, 400),
        ({"error": {"message": "no", "status": "RESOURCE_EXHAUSTED"}}, 429),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, 529),
        ({"object": "error", "message": "no", "type": "BadRequestError", "code": 400}, 400),
        ({"choices": [{"error": {"code": 502, "message": "no"}, "finish_reason": "error"}]}, 502),
        ([{"error": {"message": "no", "code": 429}}], 429),
        ({"error": "no"}, None),
        ({"error": {"message": "no", "code": 1234}}, None),
        ({"error": {"message": "no", "code": True}}, None),
    ],
)
def test_an_error_in_a_200_is_that_error(document: dict[str, Any], status: int | None) -> None:
    error = problem(document)
    assert error is not None and (error.status, error.words) == (status, "no")


@pytest.mark.parametrize("document", [{"error": None, **chat("x")}, chat("error"), {}, None, []])
def test_what_is_no_error_is_none(document: Any) -> None:
    assert problem(document) is None


@pytest.mark.slow
def test_an_error_in_a_200_waits_or_fails_as_its_class_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.0)
    seen: list[str] = []

    def script(prompt: str, _: Any) -> Any:
        seen.append(prompt)
        if prompt == "bad":
            return 200, {"error": {"message": "not with this prompt", "code": 400}}, ""
        if prompt == "busy" and seen.count("busy") < 4:
            return 200, {"error": {"message": "slow down", "code": 429}}, ""
        return None

    with serving(script=script) as (model, url):
        result = run(openai(url, max_failed=1), ["bad", "busy"])
    assert seen.count("bad") == 1 and seen.count("busy") == 4 and model.paid == {"busy": 1}
    (failure,) = result.failures
    assert failure.reason == "HTTP 400: not with this prompt" and failure.status == 400


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            400,
            {
                "message": "This model's maximum context length is 2048 tokens. However, you ..",
                "code": "context_length_exceeded",
            },
        ),
        (
            400,
            {
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "code": 400,
            },
        ),
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"}),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048"),
        (500, {"message": "Requested tokens (4200) exceed context window of 4096"}),
        (413, {"message": "Input is too long for requested model."}),
        (422, {"message": "Input validation error: `inputs` must have less than 4096 tokens."}),
        (400, {"message": "litellm.ContextWindowExceededError: litellm.BadRequestError"}),
        (500, {"message": "input is too large to process. increase the physical batch size"}),
        (
            400,
            {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": "This model's maximum context length is 4096 tokens"},
            },
        ),
    ],
)
def test_a_server_that_has_no_room_says_so_and_no_job_fails(status: int, error: Any) -> None:
    with serving(script=lambda *_: (status, {"error": error}, "")) as (model, url):
        with connected(openai(url)) as ask:
            assert ask(user("x")).finish_reason == "too_long"
        result = run(openai(url), ["x"])
    assert result.done == [("x", "")] and not result.failures and not result.exchanges
    assert model.statuses == {str(status): 2}, "each time asked once, and never remembered"


@pytest.mark.parametrize(
    "error",
    [
        {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's "
            "content management policy.",
            "code": "content_filter",
        },
        {"message": "Your request was rejected by our safety system.", "type": "invalid_request"},
        {"message": "Your input was flagged as potentially violating our usage policy"},
        {"message": "The response was stopped.", "code": "content_filter"},
        {
            "message": "Input data may contain inappropriate content.",
            "code": "data_inspection_failed",
        },
        {"message": "The request was rejected because it was considered high risk"},
        {"message": "Input was flagged", "metadata": {"flagged_input": "x"}},
    ],
)
def test_a_prompt_that_a_filter_refuses_is_refused_and_no_failure(error: Any) -> None:
    with serving(script=lambda *_: (400, {"error": error}, "")) as (model, url):
        result = run(openai(url), ["x"])
        assert [e.reply.finish_reason for e in result.exchanges] == ["refused"]
        assert not result.failures and run(openai(url), ["x"]).exchanges == result.exchanges
    assert model.statuses == {"400": 1}


@pytest.mark.parametrize(
    "words",
    [
        "Your account was flagged for a violation of our usage policies.",
        "The organization has been disabled by moderation.",
    ],
)
def test_a_refusal_of_the_account_is_no_answer_to_the_prompt(words: str) -> None:
    with serving(script=lambda *_: (403, {"error": {"message": words}}, "")) as (_, url):
        result = run(openai(url, max_failed=1), ["x"])
    assert words in result.failures[0].reason and not result.exchanges


def test_a_limit_of_tokens_a_minute_is_no_context() -> None:
    words = "Too many tokens, please wait before trying again."
    with serving(script=lambda *_: (400, {"message": words}, "")) as (_, url):
        result = run(openai(url, max_failed=1), ["x"])
    assert words in result.failures[0].reason


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "refusal", "refusal": "No."}]},
        {"content": None, "refusal": "No."},
        {"content": "", "refusal": "No."},
    ],
)
def test_a_refusal_in_a_place_of_its_own_is_one(message: dict[str, Any]) -> None:
    wire = openai_wire.Wire(openai("http://127.0.0.1"), None)
    reply = client.read_reply(wire, chat("", **message))
    assert (reply.finish_reason, reply.text) == ("refused", "No.")


@pytest.mark.parametrize("choice", [{}, {"message": None}, {"message": {"role": "assistant"}}])
def test_a_filter_may_leave_no_message(choice: dict[str, Any]) -> None:
    wire = openai_wire.Wire(openai("http://127.0.0.1"), None)
    document = {"choices": [{**choice, "finish_reason": "content_filter"}]}
    assert wire.parse(document).finish == "refused"


@pytest.mark.parametrize("page", ["<html>Sign in first</html>", '{"detail": "Sign in first"}'])
def test_what_is_no_reply_at_all_is_quoted(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.0)
    with serving(script=lambda *_: (200, page, "")) as (_, url):
        result = run(openai(url, max_failed=1), ["x"])
    assert "Sign in first" in result.failures[0].reason


def test_what_cannot_fit_is_not_asked() -> None:
    with serving() as (model, url):
        endpoint = openai(url, context_tokens=200)  # 64 of them for the reply
        result = run(endpoint, ["short", "long " * 200])
    assert [bool(text) for _, text in result.done] == [True, False]
    assert list(model.paid) == ["short"] and not result.failures and len(result.exchanges) == 1


# --- what a server does not know -----------------------------------------------------------------


SCHEMA = {"type": "object"}


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 422, 500, 501])
def test_a_schema_that_the_server_does_not_know_is_found_at_the_first_reply(status: int) -> None:
    script = refusing("response_format", status, "unexpected keyword")
    with serving(script=script) as (model, url):
        endpoint = openai(url, structured=True, concurrency=1)
        ask = llm.connect(endpoint, schema=SCHEMA)
        with pytest.raises(BadInput, match=r"unexpected keyword.*structured: false"):
            llm.run_jobs(say, ["a", "b"], ask, endpoint, prefix="judge@x", name=str)
    assert 2 < sum(model.attempts.values()) <= 2 + client.DOUBTS


def test_a_system_role_that_the_server_refuses_is_found_at_the_first_reply() -> None:
    script = refusing("system", 400, "System role not supported")
    talk = [Message(role="system", content="Be brief."), *user("a")]
    with serving(script=script) as (model, url):
        endpoint = openai(url)
        with connected(endpoint) as ask, pytest.raises(BadInput, match="system_role: false"):
            llm.run_jobs(lambda job, ask: ask(talk), ["a"], ask, endpoint, prefix="x", name=str)
        with connected(openai(url, system_role=False)) as ask:
            ask(talk)
    assert [p for p in model.paid if p == "Be brief.\n\na"]


@pytest.mark.parametrize("status", [400, 422])
def test_what_is_refused_side_by_side_is_no_failure_before_the_server_was_asked_why(
    status: int,
) -> None:
    with serving(script=refusing("system", status, "Template error")) as (_, url):
        endpoint = openai(url, concurrency=4)
        with connected(endpoint) as ask, pytest.raises(BadInput, match="system_role: false"):
            asked = lambda job, ask: ask([Message(role="system", content="s"), *user(job)])  # noqa: E731
            llm.run_jobs(asked, list("abcdefgh"), ask, endpoint, prefix="x", name=str)


@pytest.mark.slow
def test_a_refused_system_role_is_found_behind_replies_to_requests_without_one() -> None:
    script = refusing("system", 500, "Conversation roles must alternate user/assistant")
    talk = [Message(role="system", content="Be brief."), *user("a")]
    with serving(script=script) as (_, url):
        endpoint = openai(url, concurrency=1)
        with connected(endpoint) as ask, pytest.raises(BadInput, match="system_role: false"):
            asked = lambda job, ask: ask(user("b")) and ask(talk)  # noqa: E731
            llm.run_jobs(asked, ["a"], ask, endpoint, prefix="x", name=str)


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("stumbles", [1, 2, 3])
def test_a_server_that_stumbles_at_first_is_not_taken_for_one_that_does_not_know(
    monkeypatch: pytest.MonkeyPatch, status: int, structured: bool, stumbles: int
) -> None:
    """What it refused at first it answers now, with a schema and with a system message."""
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.01)
    tries: list[int] = []

    def script(*_: Any) -> Any:
        tries.append(1)
        return (
            (status, {"error": {"message": "warming up"}}, "") if len(tries) <= stumbles else None
        )

    talk = [Message(role="system", content="Be brief."), *user("a")]
    with serving(script=script) as (_, url):
        endpoint = openai(url, structured=structured, concurrency=1)
        ask = llm.connect(endpoint, schema=SCHEMA)
        result = llm.run_jobs(
            lambda job, ask: ask(talk).text, ["a"], ask, endpoint, prefix="judge@x", name=str
        )
    assert not result.failures and result.done[0][1]


def test_a_server_that_is_broken_is_not_taken_for_one_that_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "backoff", lambda attempts: 0.01)
    tries: list[int] = []

    def script(*_: Any) -> Any:
        tries.append(1)
        return (500, {"error": {"message": "starting"}}, "") if len(tries) < 5 else None

    with serving(script=script) as (_, url):
        endpoint = openai(url, structured=True)
        ask = llm.connect(endpoint, schema=SCHEMA)
        assert llm.run_jobs(say, ["a"], ask, endpoint, prefix="x", name=str).done


@pytest.mark.parametrize(
    ("turns", "folded"),
    [
        ([("system", "s"), ("user", "u")], [("user", "s\n\nu")]),
        ([("user", "u")], [("user", "u")]),
        ([("system", "s")], [("user", "s")]),
        (
            [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v")],
            [("user", "s\n\nu"), ("assistant", "a"), ("user", "v")],
        ),
        (
            [("system", "s"), ("assistant", "a"), ("user", "u")],
            [("user", "s"), ("assistant", "a"), ("user", "u")],
        ),
    ],
)
def test_a_system_message_opens_the_users_first(turns: Any, folded: Any) -> None:
    wire = openai_wire.Wire(openai("http://127.0.0.1", system_role=False), None)
    sent = wire.body([Message(role=role, content=content) for role, content in turns])["messages"]
    assert [(turn["role"], turn["content"]) for turn in sent] == folded


def test_a_base_url_without_v1_is_said() -> None:
    with serving() as (_, url):
        result = run(openai(url, base_url=url, max_failed=1), ["x"])
    assert "base_url ends without /v1" in result.failures[0].reason


@pytest.mark.slow
@pytest.mark.parametrize("form", range(15))
def test_a_key_that_a_batch_api_echoes_is_said_nowhere(
    form: int, work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "POLL", 0.01)
    monkeypatch.setattr(batch, "LINGER", 0.02)
    echo = escapes(KEY)[form]
    messages = []
    for faults in ({"batch_words": echo, "batch_end": "failed"}, {"batch_refusal": echo}):
        with serving(**faults) as (_, url), pytest.raises(BadInput) as raised:
            run(openai(url, mode="batch"), ["a", "b"])
        messages.append(str(raised.value))
    said = "".join(messages) + capfd.readouterr().err
    assert KEY not in said and echo not in said and said.count(MASK) >= 2


# --- asked again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "again", "bodies"),
    [
        ({"temperature": 0}, {}, 1),
        ({"temperature": 0.0, "max_tokens": 5}, {}, 1),
        ({"temperature": 0}, {"temperature": 0.7}, 2),
        ({"temperature": 0, "seed": 7}, {}, 2),
        ({"temperature": 0.7}, {}, 2),
        ({}, {}, 2),
        ({"top_k": 1}, {}, 1),
    ],
)
def test_a_reply_is_asked_for_again_where_it_can_be_another(
    params: dict[str, Any], again: dict[str, Any], bodies: int
) -> None:
    with (
        serving(keep_bodies=True) as (model, url),
        connected(openai(url, params=params, again=again)) as ask,
    ):
        keys = {ask(user("x"), sample).key for sample in (0, 1)}
    assert len(keys) == bodies == sum(model.paid.values())
    sent = [json.loads(body) for what, _, body in model.bodies if what.startswith("POST")]
    if again or "seed" in params:
        assert sent[0] != sent[1]


# --- keys ----------------------------------------------------------------------------------------


def escapes(key: str) -> list[str]:
    """The key in every way that a server may write it."""
    import base64
    import html
    import urllib.parse

    return [
        key,
        "".join(f"\\u{ord(c):04x}" for c in key),
        "".join(f"\\u{ord(c):04X}" for c in key),
        "".join(f"%{ord(c):02X}" for c in key),
        "".join(f"%25{ord(c):02x}" for c in key),
        "".join(f"&#{ord(c)};" for c in key),
        "".join(f"&#x{ord(c):x};" for c in key),
        "".join(f"\\x{ord(c):02x}" for c in key),
        urllib.parse.quote(key, safe=""),
        html.escape(key),
        json.dumps(json.dumps(key)),
        key.replace("/", "\\/").replace("-", "\\-"),
        base64.b64encode(key.encode()).decode(),
        base64.b64encode(f"Bearer {key}".encode()).decode(),
        key[::-1],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("key", [KEY, 'sk/a+b&c"d<e=%', "a" * 200])
def test_a_key_is_masked_however_it_is_written(key: str) -> None:
    mask = Mask(key)
    for form in escapes(key):
        hidden = mask.text(f"You sent {form} as your key")
        assert MASK in hidden and form not in hidden


def test_what_is_no_key_stays() -> None:
    text = "100 % of R&D \\u00e9 sk-test"
    assert Mask(KEY).text(text) == text and Mask("").text(text) == text


@pytest.mark.slow
@pytest.mark.parametrize("form", range(15))
def test_a_key_that_a_server_echoes_is_written_nowhere(
    form: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    echo = escapes(KEY)[form]

    def script(prompt: str, _: Any) -> Any:
        if prompt == "bad":
            return 400, {"error": {"message": f"who is {echo}"}}, ""
        if prompt == "end":
            return 200, chat("it is", finish=echo[:60]), ""
        return 200, chat(f"<think>{echo}</think>it is {echo}"), ""

    with serving(Faults(), script=script) as (_, url):
        result = run(openai(url, max_failed=1, patience=1), ["good", "bad", "end"])
        with pytest.raises(BadInput) as raised:
            run(openai(url), ["bad"])
    output = capfd.readouterr()
    written = [str(raised.value), output.out, output.err, str(result)]
    written += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    for plain in (KEY, echo):
        assert not any(plain in text for text in written)
