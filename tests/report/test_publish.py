"""Publishing: shown before it is sent, refused for a reason, never with a key, whole on the Hub."""

import base64
import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from bezoar import params
from bezoar.report import publish
from bezoar.rows.files import BadInput
from tests.conftest import ROOT

SETTINGS = params.load(ROOT)
NAMES = ["lamini", "evol_instruct", "orca", "sft", "hh_rlhf", "dpo"]


@pytest.fixture
def folder(folder: Path) -> Path:
    """The sets, and checkpoints of a few bytes with cards of a line."""
    for name, weights in (("sft", "merge/sft"), ("hh_rlhf", "sft/hh_rlhf"), ("dpo", "dpo/policy")):
        model = folder / "models" / weights
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(b"weights")
        (model / ".model.safetensors.part").write_bytes(b"half")
        cards = folder / "metrics/report/cards"
        cards.mkdir(parents=True, exist_ok=True)
        (cards / f"{name}.md").write_text(f"---\nlicense: apache-2.0\n---\n# {name}\n")
    return folder


@pytest.fixture
def real(folder: Path) -> Path:
    """The same as if language models had written and judged it."""
    for path in folder.glob("data/filter/*/funnel.json"):
        edit(path, simulated_teacher=False, simulated_judge=False)
    return folder


class Api:
    """Stands in for huggingface_hub.HfApi and keeps what it was asked."""

    def __init__(self) -> None:
        self.created: list[tuple[str, str, bool]] = []
        self.sent: dict[str, dict[str, bytes]] = {}
        self.fails: dict[str, Exception] = {}

    def __call__(self) -> "Api":
        return self

    def create_repo(self, repo: str, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        if repo in self.fails:
            raise self.fails[repo]
        self.created.append((repo, repo_type, private))

    def create_commit(
        self, repo: str, operations: list[Any], commit_message: str, repo_type: str
    ) -> Any:
        assert commit_message
        self.sent[repo] = {o.path_in_repo: Path(o.path_or_fileobj).read_bytes() for o in operations}
        return type("Commit", (), {"commit_url": f"hub://{repo}"})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    found = Api()
    monkeypatch.setattr(huggingface_hub, "HfApi", found)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    return found


def edit(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["publish", *arguments])
    publish.main()


@pytest.mark.slow
def test_nothing_is_sent_unless_asked(
    folder: Path, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "me/bezoar")
    told = capsys.readouterr().out
    assert api.created == [] and api.sent == {}
    for name in NAMES:
        assert f" me/bezoar-{name}: " in told
    assert "Nothing was sent" in told and told.count("REFUSED") == 6
    assert f"{(folder / 'data/filter/orca/train.jsonl').stat().st_size:,}  train.jsonl" in told
    assert "licence Apache-2.0" in told and ".part" not in told and str(folder) not in told


def test_a_push_sends_every_file_and_the_card(
    real: Path, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "me/bezoar", "--push", "--private")
    kinds = ["dataset"] * 3 + ["model"] * 3
    assert api.created == [(f"me/bezoar-{n}", k, True) for n, k in zip(NAMES, kinds, strict=True)]
    sent = api.sent["me/bezoar-lamini"]
    assert sent == {p.name: p.read_bytes() for p in (real / "data/filter/lamini").iterdir()}
    assert sent["README.md"].startswith(b"---\n")
    assert api.sent["me/bezoar-dpo"] == {
        "README.md": (real / "metrics/report/cards/dpo.md").read_bytes(),
        "config.json": b"{}",
        "model.safetensors": b"weights",
    }
    assert "sent: hub://me/bezoar-dpo" in capsys.readouterr().out
    command(monkeypatch, "me/bezoar", "--push")
    assert [private for *_, private in api.created[6:]] == [False] * 6


def test_what_is_simulated_is_refused_as_a_whole_until_forced(
    real: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(real / "data/filter/orca/funnel.json", simulated_judge=True)
    with pytest.raises(BadInput, match=r"bezoar-orca, .*bezoar-dpo: refused.*--force"):
        command(monkeypatch, "me/bezoar", "--push")
    assert api.created == []
    command(monkeypatch, "me/bezoar", "--push", "--force")
    assert len(api.sent) == 6


@pytest.mark.parametrize(
    ("answer", "said"), [("no", "may not be passed on"), ("unknown", "nothing says that it may")]
)
def test_what_may_not_be_passed_on_is_refused(
    real: Path, api: Api, monkeypatch: pytest.MonkeyPatch, answer: str, said: str
) -> None:
    sharing = {"answer": answer, "by": ["CC-BY-ND-4.0"], "reason": "CC-BY-ND-4.0 (seed, 1 row)"}
    edit(real / "data/filter/lamini/licences.json", sharing=sharing, text="CC-BY-ND-4.0")
    uploads = {u.repository: u for u in publish.plan("me/bezoar", SETTINGS)}
    assert any(said in each for each in uploads["me/bezoar-lamini"].against)
    assert uploads["me/bezoar-orca"].against == []
    assert "filter/lamini (CC-BY-ND-4.0)" in uploads["me/bezoar-dpo"].against[0]
    assert uploads["me/bezoar-dpo"].licence == "CC-BY-ND-4.0"
    with pytest.raises(BadInput, match="refused"):
        command(monkeypatch, "me/bezoar", "--push")
    assert api.created == []


def test_licences_that_cannot_be_joined_are_named(
    real: Path, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pairs = [{"licences": ["CC-BY-NC-SA-4.0", "CC-BY-SA-3.0"], "rows": 0}]
    path = real / "data/filter/lamini/licences.json"
    edit(path, unjoinable=pairs, texts={"CC-BY-NC-SA-4.0": 1, "CC-BY-SA-3.0": 1})
    uploads = {u.repository: u for u in publish.plan("me/bezoar", SETTINGS)}
    named = "CC-BY-NC-SA-4.0 with CC-BY-SA-3.0"
    assert uploads["me/bezoar-lamini"].against == []
    assert uploads["me/bezoar-dpo"].against == [f"no licence satisfies {named}"]
    command(monkeypatch, "me/bezoar")
    assert f"NOTE     rows of {named} lie side by side" in capsys.readouterr().out
    edit(path, unjoinable=[{**pairs[0], "rows": 3}])
    (set_,) = [u for u in publish.plan("me/bezoar", SETTINGS) if u.repository.endswith("lamini")]
    assert set_.against == [f"no licence satisfies {named} (3 rows stand under both)"]


@pytest.mark.parametrize("variable", ["HF_TOKEN", "JUDGE_KEY"])
@pytest.mark.parametrize("force", [False, True])
def test_a_key_is_never_sent(
    real: Path, api: Api, monkeypatch: pytest.MonkeyPatch, variable: str, force: bool
) -> None:
    remote = {
        "provider": "openai",
        "style": "chat",
        "model": "m",
        "terms": "MIT",
        "base_url": "http://127.0.0.1:9/v1",
        "api_key_env": "JUDGE_KEY",
        "params": {},
        "mode": "live",
        "concurrency": 1,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "timeout": 5,
        "patience": 5,
        "max_failed": 0.0,
        "reply_tokens": 9,
        "price": {"input": 0, "cached": 0, "output": 0, "batch": 1},
        "structured": False,
    }
    judge = params.OpenAI.model_validate(remote)
    llm = SETTINGS.llm.model_copy(update={"judge": [*SETTINGS.llm.judges, judge]})
    settings = SETTINGS.model_copy(update={"llm": llm})
    monkeypatch.setattr(params, "load", lambda: settings)
    monkeypatch.setenv(variable, "sk-0123456789")
    with open(real / "data/filter/orca/rejected.jsonl", "a") as out:
        out.write('{"text": "my key is sk-0123456789!"}\n')
    flags = ["--push", "--force"] if force else []
    with pytest.raises(BadInput, match=rf"rejected\.jsonl: holds the value of \${variable}") as no:
        command(monkeypatch, "me/bezoar", *flags)
    assert api.created == [] and "sk-0123456789" not in str(no.value)
    monkeypatch.setenv(variable, "sk")  # a placeholder, which any text may hold
    command(monkeypatch, "me/bezoar", *flags)


@pytest.mark.parametrize("name", ["bezoar", "a/b/c", "", "me/be zoar", "../x/y"])
def test_a_name_that_is_no_repository(folder: Path, name: str) -> None:
    with pytest.raises(BadInput, match="is no repository of the Hub"):
        publish.plan(name, SETTINGS)


@pytest.mark.parametrize(
    "path",
    ["data/filter/orca/README.md", "metrics/report/cards/dpo.md", "models/merge/sft"],
)
def test_what_is_not_finished_is_named(folder: Path, path: str) -> None:
    if (folder / path).is_dir():
        shutil.rmtree(path)
    else:
        (folder / path).unlink()
    with pytest.raises(BadInput, match=rf"{path}: (there is no card|is not there); `dvc repro`"):
        publish.plan("me/bezoar", SETTINGS)


def test_what_the_hub_says_is_passed_on(
    real: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.fails["me/bezoar-orca"] = OSError("no room")
    with pytest.raises(BadInput, match=r"bezoar-orca: the Hub did not take it \(2 repos.*no room"):
        command(monkeypatch, "me/bezoar", "--push")
    api.fails["me/bezoar-orca"] = OfflineModeIsEnabled("offline")
    with pytest.raises(BadInput, match="HF_HUB_OFFLINE is set"):
        command(monkeypatch, "me/bezoar", "--push")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(BadInput, match="nobody is logged in"):
        command(monkeypatch, "me/bezoar", "--push")


@contextlib.contextmanager
def taking() -> Iterator[tuple[str, dict[str, Any]]]:
    """A server on 127.0.0.1 that takes commits of small files as the Hub does; (its address, what
    it was given: created repositories, cards to validate, commit -> files, tokens)."""
    got: dict[str, Any] = {"created": [], "files": {}, "tokens": set(), "validated": []}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.say({"sha": "0" * 40, "id": "x"})

        def do_POST(self) -> None:
            size = self.headers.get("Content-Length")
            sent = self.rfile.read(int(size)) if size else self.chunks()
            got["tokens"].add(self.headers.get("Authorization"))
            path = self.path.split("?")[0]
            if path == "/api/repos/create":
                asked = json.loads(sent)
                got["created"].append(asked)
                self.say({"url": f"{address}/datasets/{asked['organization']}/{asked['name']}"})
            elif path == "/api/validate-yaml":
                got["validated"].append(json.loads(sent)["content"])
                self.say({"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(sent)["files"]
                ]
                self.say({"files": files})
            else:
                lines = [json.loads(line) for line in sent.splitlines()]
                got["files"][path] = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                at = path.removeprefix("/api/").removesuffix("/main")
                self.say({"commitUrl": f"{address}/{at}/1", "commitOid": "1" * 40})

        def chunks(self) -> bytes:
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole

        def say(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address, got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
def test_the_real_client_sends_a_set_whole(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    (upload, *_) = publish.plan("me/bezoar", SETTINGS)
    with taking() as (address, got):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            huggingface_hub, "HfApi", lambda: HfApi(endpoint=address, token="hf_loopback")
        )
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_loopback")
        assert publish.push([upload], private=True) == [
            f"{address}/datasets/me/bezoar-lamini/commit/1"
        ]
    (asked,) = got["created"]
    assert (asked["organization"], asked["name"]) == ("me", "bezoar-lamini")
    assert asked["type"] == "dataset" and got["tokens"] == {"Bearer hf_loopback"}
    assert got["validated"] == [upload.files["README.md"].read_text(encoding="utf-8")]
    (path,) = got["files"]
    assert path == "/api/datasets/me/bezoar-lamini/commit/main"
    assert got["files"][path] == {name: file.read_bytes() for name, file in upload.files.items()}
