"""What preflight finds before a run: by servers and a hub on loopback, and machines and disks made
up by the test. Nothing is generated, and no check reads more than it must."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from bezoar import params, preflight, sources, work
from bezoar.llm import budget
from bezoar.llm.ledger import Bill, Ledger
from bezoar.params import Endpoint, Endpoints, Params
from bezoar.preflight import __main__ as command
from bezoar.preflight import checks, data, disk, endpoints, expected, gpu, machine, rehearsal, web
from bezoar.preflight.findings import Finding
from bezoar.preflight.forecast import Row
from bezoar.preflight.machine import Cache, Gpu, Machine, Volume
from bezoar.rows.files import BadInput
from tests.builders import parameters
from tests.builders.bases import BASE_FILES, config
from tests.builders.clients import KEY, anthropic, openai
from tests.builders.hub import Hub, Repo, serve
from tests.builders.machines import GIB, H100, shape
from tests.builders.servers import chat, refusing, serving
from tests.conftest import ROOT, environment

NOTHING = "http://127.0.0.1:9"  # no one listens there
LAPTOP = Machine(None, 16 * GIB)
CONSUMER = Machine(Gpu("NVIDIA GeForce RTX 4090", 1, 24 * GIB, 23 * GIB), 64 * GIB)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No keys, no proxy, a scratch folder and a hub's cache of the test's own, and no hub."""
    from huggingface_hub import constants

    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LOCAL_RANK", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    yield


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml whose addresses lead nowhere, and launch/, as the current one."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for path, text in parameters.texts(parameters.copy(folder)).items():
        nowhere = text.replace("http://127.0.0.1:8000", NOTHING)
        nowhere = nowhere.replace("https://dumps.wikimedia.org", NOTHING)
        (folder / path).write_text(nowhere, encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def profile(name: str) -> Params:
    return params.load(profile=name)


def text(found: checks.Preflight) -> str:
    """As it is printed where there is no terminal, line breaks and runs of spaces as one space."""
    console = Console(width=96, file=open(os.devnull, "w"), record=True)  # noqa: SIM115
    command.show(found, console)
    console.file.close()
    return " ".join(console.export_text().split())


def where(found: list[Finding], name: str) -> Finding:
    return next(finding for finding in found if finding.where == name)


# --- models behind HTTP ---------------------------------------------------------------------------


def asked(endpoint: Endpoint) -> list[Finding]:
    everyone = Endpoints(teacher=endpoint, judge=endpoint, grader=endpoint)
    return endpoints.check(everyone, {})


@pytest.mark.parametrize("make", [openai, anthropic])
def test_a_model_that_is_served_is_found_and_nothing_is_generated(make: Any) -> None:
    with serving(served=("a", "m"), key=KEY, keep_bodies=True) as (server, url):
        found = asked(make(url))
        assert [f.level for f in found] == ["ok"], "one endpoint for three is asked once"
        assert found[0].where == "llm.teacher, judge, grader" and "serves m" in found[0].message
        assert [request for request, _, _ in server.bodies] == ["GET /v1/models"]
        headers = server.bodies[0][1]
        assert headers.get("anthropic-version") == ("2026-10-21" if make is anthropic else None)


def test_another_model_is_a_stop_that_names_what_is_served() -> None:
    with serving(served=("b", "a")) as (_, url):
        (found,) = asked(openai(url, model="org/m"))
        assert found.level == "stop" and f"{url}/v1 serves b, a; wanted org/m" in found.message
    with serving(served=()) as (_, url):
        assert "serves no model" in asked(openai(url))[0].message


def test_an_alias_that_is_not_listed_is_found() -> None:
    with serving(served=("m-2026",), alias="m") as (_, url):
        assert asked(openai(url))[0].level == "ok"


def test_a_server_without_a_list_is_a_warning_and_a_closed_door_a_stop() -> None:
    with serving(served=None) as (_, url):
        (found,) = asked(openai(url))
        assert found.level == "warning" and "lists no models (HTTP 404)" in found.message
    with serving(key="another") as (_, url):
        (found,) = asked(anthropic(url))
        assert found.level == "stop" and "refuses the key in $TEST_KEY (HTTP 401)" in found.message
        assert KEY not in found.text
        (found,) = asked(openai(url, api_key_env=None))
        assert found.level == "stop" and "wants a key" in found.message
    (found,) = asked(openai(f"{url}/redirect"))  # the server is gone by now
    assert found.level == "stop" and "does not answer" in found.message


def test_a_redirect_is_not_followed_with_the_key() -> None:
    with serving(keep_bodies=True) as (server, url):
        (found,) = asked(openai(f"{url}/redirect"))
        assert found.level == "stop" and "HTTP 307" in found.message
        assert len(server.bodies) == 1


def test_each_of_several_addresses_is_asked() -> None:
    with serving() as (_, one), serving(served=("other",)) as (_, two):
        found = asked(openai("", base_url=[f"{one}/v1", f"{two}/v1", f"{NOTHING}/v1"]))
        assert [f.level for f in found] == ["ok", "stop", "stop"]
        assert "serves other" in found[1].message and NOTHING in found[2].message


@pytest.mark.slow
@pytest.mark.parametrize("answer", [b"[1]", b'{"data": 1}', b"<html>"])
def test_an_answer_that_is_no_list_of_models_is_said(answer: bytes) -> None:
    hub = Hub(plain={"/v1/models": answer})
    with serve(hub):
        (found,) = asked(openai(hub.url))
        assert found.level == "stop" and hub.url in found.message


def test_a_key_that_is_not_set_is_named_and_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TEST_KEY")
    with serving(keep_bodies=True) as (server, url):
        (found,) = asked(openai(url))
        assert found.level == "stop" and "$TEST_KEY is not set" in found.message
        assert "export TEST_KEY=..." in found.do and not server.bodies


@pytest.mark.parametrize("content", [None, "{}", "binary \x00"])
def test_a_tokenizer_to_count_by_is_read_before_a_run(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with serving() as (_, url):
        (found,) = asked(openai(url, tokenizer=str(file)))
    assert found.level == "stop" and "tokenizer" in found.message and "or null" in found.do


def free(url: str, **changed: Any) -> Any:
    price = {"input": 0, "cached": 0, "output": 0, "batch": 1}
    return openai(url, price=price, api_key_env=None, **changed)


def test_a_free_server_is_put_a_short_question_and_a_paid_one_is_not() -> None:
    with serving(keep_bodies=True) as (server, url):
        assert [f.level for f in asked(free(url))] == ["ok", "ok"]
        assert [f.level for f in asked(openai(url, api_key_env=None))] == ["ok"]
        (body,) = [json.loads(body) for what, _, body in server.bodies if what.startswith("POST")]
    assert [m["role"] for m in body["messages"]] == ["system", "user"] and body["max_tokens"] == 16


@pytest.mark.parametrize(
    ("changed", "script", "level", "words"),
    [
        ({}, refusing("system", 400, "no system role"), "stop", "set system_role: false"),
        ({"system_role": False}, refusing("system", 400, "no system role"), "ok", ""),
        (
            {"structured": True},
            refusing("response_format", 500, "unknown field"),
            "stop",
            "unknown field.*set structured: false",
        ),
        ({}, refusing("response_format", 500, "unknown field"), "ok", ""),
        ({}, lambda *_: (500, {"error": "out of memory"}, ""), "warning", "out of memory"),
        ({}, lambda *_: (200, chat("blue", None), ""), "stop", "without a finish_reason"),
        ({}, lambda *_: (200, chat("blue", "abort"), ""), "stop", "abort"),
        ({}, lambda *_: (200, {"error": {"message": "no"}}, ""), "stop", "an error instead"),
        ({}, lambda *_: (200, chat("<think>sky</think>blue"), ""), "ok", "thoughts"),
        ({}, lambda *_: (200, b"<html>", ""), "warning", "broke off"),
    ],
)
def test_what_a_free_server_does_not_know_is_found_by_a_question(
    changed: dict[str, Any], script: Any, level: str, words: str
) -> None:
    with serving(script=script) as (_, url):
        endpoint = free(url, **changed)
        found = rehearsal.findings("llm.judge", endpoint)
    assert [f.level for f in found] == [level] and re.search(words, found[0].text)


def test_a_base_url_without_v1_is_told_the_right_one() -> None:
    with serving() as (_, url):
        (found,) = asked(free(url, base_url=url))
    assert found.level == "stop" and found.do == f"base_url: {url}/v1"


@pytest.mark.slow
def test_a_busy_server_is_not_an_absent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that computes for a run that was killed takes a connection and says nothing."""
    monkeypatch.setattr(web.get, "__defaults__", (None, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (found,) = asked(free(f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert found.level == "warning" and "did not answer in time" in found.message
    assert "busy" in found.do


@pytest.mark.slow
def test_a_server_that_is_full_of_connections_is_not_an_absent_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that computes one request at a time takes a few connections and lets the next wait."""
    monkeypatch.setattr(web.get, "__defaults__", (None, 0.3))
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as silent,
        contextlib.ExitStack() as all_,
    ):
        place = silent.getsockname()
        for _ in range(4):
            waiting = all_.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(place)
        (found,) = asked(free(f"http://127.0.0.1:{place[1]}"))
    assert found.level == "warning" and "busy" in found.do


# --- sources --------------------------------------------------------------------------------------

COMMIT = "4293833c" + "0" * 32


def stand_in(p: Params) -> Hub:
    """Every repository of a profile, with a file for every pattern."""
    hub = Hub(plain={"/enwiki/latest/enwiki-latest-category.sql.gz": b"x" * 100})
    for name in type(p.fetch).model_fields:
        for part in data._parts(getattr(p.fetch, name)):
            wanted = part.repository
            commit = wanted.revision.ljust(40, "0")
            files = {pattern.replace("*", "x"): b"row\n" * 10 for pattern in part.files}
            files = BASE_FILES if name == "base" else files
            refs = {wanted.ref: commit} if wanted.ref else {}
            hub.repos[wanted.kind, wanted.repository] = Repo({commit: files}, refs)
    return hub


@pytest.fixture
def online(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The paper's sources on loopback."""
    from huggingface_hub import constants

    with serve(stand_in(params.load(ROOT, "paper"))) as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.split("/{", 1)[1]
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{{template}")
        for name in ("paper", "small"):
            path = tree / f"profiles/{name}.yaml"
            path.write_text(path.read_text().replace(f"{NOTHING}/enwiki", f"{hub.url}/enwiki"))
        yield hub


@pytest.mark.slow
def test_sources_that_can_be_reached_are_told_with_their_size(online: Hub) -> None:
    found = data.look(profile("paper"))
    assert {name: looked.finding.level for name, looked in found.items()} == dict.fromkeys(
        ["dolly", "flan", "topics", "hh_rlhf", "mt_bench 1", "mt_bench 2", "benchmarks", "base"],
        "ok",
    )
    assert found["hh_rlhf"].fetch == 4 * 40 and found["flan"].fetch == 0, "streamed, not kept"
    sizes = {name: len(content) for name, content in BASE_FILES.items()}
    assert found["base"].fetch == sum(sizes.values()) - sizes["pytorch_model.bin"]
    assert found["base"].config and found["base"].config.name == "config.json"
    fetched = [path for path in online.fetched if "config.json" not in path]
    assert fetched == [], "nothing is downloaded but the base's configuration"


@pytest.mark.slow
def test_what_is_gone_gated_moved_or_empty_is_a_stop(online: Hub) -> None:
    p = profile("paper")
    base = ("model", "openlm-research/open_llama_3b_v2")
    online.repos[base] = Repo({"f" * 40: BASE_FILES}, {"refs/pr/16": "f" * 40})
    online.repos["dataset", "Anthropic/hh-rlhf"].gated = True
    del online.repos["dataset", "Open-Orca/FLAN"]
    dolly = online.repos["dataset", "databricks/databricks-dolly-15k"]
    dolly.commits[p.fetch.dolly.parts[0].revision] = {"other.txt": b"x"}  # type: ignore[union-attr]
    found = {name: looked.finding for name, looked in data.look(p).items()}
    for name, said in {
        "base": "moved",
        "hh_rlhf": "terms accepted",
        "flan": "no such dataset",
        "dolly": "holds none of databricks-dolly-15k.jsonl",
    }.items():
        assert found[name].level == "stop" and said in found[name].text, found[name]
    assert found["mt_bench 1"].level == "ok"


def test_offline_only_what_is_cached_or_fetched_will_do(tree: Path, tmp_path: Path) -> None:
    p = profile("small")
    folder = tmp_path / "hub/models--HuggingFaceTB--SmolLM2-360M/snapshots"
    config(folder / p.fetch.base.revision, hidden_size=960)  # type: ignore[union-attr]
    found = data.look(p)
    assert found["base"].finding.level == "stop", "a configuration is no model"
    (folder / p.fetch.base.revision / "model.safetensors").write_bytes(b"w" * 10)  # type: ignore[union-attr]
    assert data.look(p)["base"].finding.level == "ok"
    assert found["dolly"].finding.level == "stop"
    assert "HF_HUB_OFFLINE forbids" in found["dolly"].finding.text
    record(p, "dolly")
    assert data.look(p)["dolly"].finding == Finding("ok", "dolly", "fetched")
    again = p.model_copy(update={"profile": "paper"})
    assert data.look(again)["dolly"].finding.level == "stop", "another profile's rows"


def record(p: Params, *names: str) -> None:
    """Let dvc.lock say that sources were fetched, and rows generated, under `p`."""
    section = p.llm.teacher.model_dump()
    endpoints = {"llm.endpoints": {"t": section}, "llm.teacher": "t"}
    teacher = {"params": {f"profiles/{p.profile}.yaml": endpoints}}
    stages = {"generate@lamini": teacher}
    for name in names:
        folder = Path("data/fetch", name)
        folder.mkdir(parents=True, exist_ok=True)
        source = {"source": getattr(p.fetch, name).source}
        (folder / "source.json").write_text(json.dumps(source))
        # as DVC records it: what the profile leaves to its default is not there
        section = getattr(p.fetch, name).model_dump(exclude_unset=True)
        recorded = {f"profiles/{p.profile}.yaml": {"cpu": p.cpu, f"fetch.{name}": section}}
        stages[f"fetch@{name}"] = {"params": recorded}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
    data._lock.cache_clear()


def test_the_users_own_files_are_looked_for(tree: Path) -> None:
    found = data.look(profile("local"))
    assert found["dolly"].finding.level == "stop" and "make local" in found["dolly"].finding.do
    assert found["flan"].finding.level == "ok"
    (tree / "local/dolly").mkdir(parents=True)
    (tree / "local/dolly/rows.jsonl").write_text("{}\n")
    assert data.look(profile("local"))["dolly"].finding.level == "ok"


# --- memory ---------------------------------------------------------------------------------------


def test_the_papers_stages_fit_a_gpu_of_80_gb(tree: Path, tmp_path: Path) -> None:
    p, size = profile("paper"), shape(tmp_path)
    fits = {fit.stage: fit for fit in gpu.fits(p, size, H100)}
    assert all(fit.fits for fit in fits.values())
    assert list(fits)[:5] == [
        "sft lamini",
        "sft orca",
        "sft evol_instruct",
        "sft hh_rlhf",
        "merge sft",
    ]
    whole = fits["sft hh_rlhf"].need
    assert 55 * GIB < whole.total < 70 * GIB
    assert whole.gradients == 4 * size.parameters == whole.optimizer // 2
    assert fits["sft lamini"].need.weights < 3 * GIB
    assert all(64 % fit.rows == 0 for name, fit in fits.items() if name.startswith(("sft", "dpo")))
    assert gpu.check(size, H100, [*fits.values()]) == [
        Finding("ok", "GPU", "NVIDIA H100 80GB HBM3, 79.0 of 80.0 GiB free")
    ]


def test_what_does_not_fit_says_how_large_a_gpu_would_do(tree: Path, tmp_path: Path) -> None:
    p, size = profile("paper"), shape(tmp_path)
    found = gpu.check(size, CONSUMER, gpu.fits(p, size, CONSUMER))
    stops = [finding for finding in found if finding.level == "stop"]
    assert [finding.where for finding in stops] == ["sft hh_rlhf", "dpo"]
    assert "23.0 are free" in stops[0].message and "launch: fsdp" in stops[0].do
    assert "sft.optimizer" in stops[0].do and "dpo.optimizer" in stops[1].do


def test_a_merge_wants_the_machines_memory_and_little_of_it(tree: Path, tmp_path: Path) -> None:
    p, size = profile("paper"), shape(tmp_path)
    found = gpu.fit(p, "merge sft", size, LAPTOP)
    # the adapter, and twenty bytes a number of the largest matrix
    matrix = size.hidden * size.intermediate
    assert (
        found.need.total
        == 4 * size.lora_parameters(p.sft.lora_r, p.sft.target_modules) + 20 * matrix
        < GIB
    )
    assert (
        found.have == LAPTOP.ram == gpu.fit(p, "merge sft", size, replace(H100, ram=16 * GIB)).have
    )
    both = p.merges["sft"].model_copy(update={"second": "sft/orca"})
    ties = p.merge.model_copy(update={"method": "ties"})
    p = p.model_copy(update={"merges": {"sft": both}, "merge": ties})
    need = gpu.fit(p, "merge sft", size, LAPTOP).need
    assert need.activations == (17 + 2 * 21) * matrix and need.weights == 2 * found.need.weights


def test_several_gpus_share_what_fsdp_cuts_up(tree: Path, tmp_path: Path) -> None:
    p = profile("paper").model_copy(update={"launch": "fsdp"})
    assert CONSUMER.gpu
    eight = replace(CONSUMER, gpu=replace(CONSUMER.gpu, count=8))
    fits = {fit.stage: fit for fit in gpu.fits(p, shape(tmp_path), eight)}
    assert fits["sft hh_rlhf"].fits and fits["dpo"].fits


@pytest.mark.slow
def test_a_number_of_rows_that_someone_wrote_is_only_doubted(tree: Path, tmp_path: Path) -> None:
    p, size = profile("paper"), shape(tmp_path)
    orca = p.sft.links["orca"].model_copy(update={"micro_batch_size": 64})
    links = {**p.sft.links, "orca": orca}
    p = p.model_copy(update={"sft": p.sft.model_copy(update={"links": links})})
    found = gpu.check(size, CONSUMER, gpu.fits(p, size, CONSUMER))
    assert where(found, "sft orca").level == "warning"
    assert where(found, "sft orca").do == "set sft.links.orca.micro_batch_size: auto"


def test_without_a_gpu_a_large_base_stops_and_a_small_one_does_not(
    tree: Path, tmp_path: Path
) -> None:
    p, size = profile("paper"), shape(tmp_path)
    (found,) = gpu.check(size, LAPTOP, gpu.fits(p, size, LAPTOP))
    assert found.level == "stop" and "3.4 billion" in found.message and "GPU of about 6" in found.do
    blind = replace(LAPTOP, why="the driver lists one that torch cannot use")
    assert "cannot use" in gpu.check(size, blind, gpu.fits(p, size, blind))[0].message
    middling = shape(tmp_path, hidden_size=960, intermediate_size=2560, num_attention_heads=15)
    desktop = Machine(None, 64 * GIB)
    (found,) = gpu.check(middling, desktop, gpu.fits(profile("small"), middling, desktop))
    assert found.level == "warning" and "slowly" in found.message
    (found,) = gpu.check(middling, LAPTOP, gpu.fits(profile("small"), middling, LAPTOP))
    assert found.level == "stop" and found.where == "memory"


# --- disks ----------------------------------------------------------------------------------------


def test_room_is_added_up_by_file_system(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, size = profile("paper"), shape(tmp_path)
    model = 4 * size.parameters
    kept = Cache(tmp_path / "cache", "copy")
    rooms = {r.folder: r for r in disk.rooms(p, size, 7 * disk.GB, 7 * disk.GB, kept)}
    # three whole models beside the base, and three adapters
    assert 3 * model + 7 * disk.GB < rooms[Path("models")].needed < 3.1 * model + 7 * disk.GB
    assert rooms[kept.folder].needed == rooms[Path("models")].needed
    # three checkpoints of weights and AdamW's two moments, and two models that stay
    assert rooms[work.home()].needed == 3 * 3 * model + 2 * model
    linked = disk.rooms(p, size, 7 * disk.GB, 0, Cache(tmp_path / "cache", "hardlink"))
    assert kept.folder not in [room.folder for room in linked]

    monkeypatch.setattr(machine, "volume", lambda path: Volume(1, 200 * disk.GB))
    (found,) = disk.check([*rooms.values()], kept)
    assert found.level == "stop" and "cache.type hardlink" in found.do
    apart = {Path("models"): 1, kept.folder: 1, work.home(): 2}
    monkeypatch.setattr(machine, "volume", lambda path: Volume(apart.get(path, 1), 160 * disk.GB))
    assert [finding.level for finding in disk.check([*rooms.values()], kept)] == ["ok", "ok"]


@pytest.mark.slow
def test_the_models_of_table_8_count_on_disks_and_in_time(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tree / "params.yaml"
    on = path.read_text().replace("others: []", "others: [redpajama, minichat, phi_2]")
    monkeypatch.setattr(machine, "volume", lambda path: Volume(1, 10**12))
    monkeypatch.setattr(machine, "cache", lambda path: Cache(tmp_path / "cache", "copy"))

    def sources(p: Params) -> dict[str, data.Looked]:
        there = Finding("ok", "x", "is there")
        found = {"base": data.Looked(there, 7 * disk.GB, 0, config(tmp_path / "base"))}
        return found | {
            f"models/{n}": data.Looked(there, 6 * disk.GB, 6 * disk.GB) for n in p.models
        }

    monkeypatch.setattr(data, "look", sources)

    def told(p: Params) -> tuple[float, list[str]]:
        found = checks.preflight(p, H100)
        (disks,) = [f for f in found.findings["Disks"] if f.where == "disk"]
        wanted = re.search(r"([\d.]+) wanted", disks.message)
        assert wanted
        return float(wanted[1]), [each.stage for each in found.answering]

    ours, answering = told(profile("paper"))
    assert answering == [f"mt_answer {name}" for name in ("base", "sft", "hh_rlhf", "dpo")]
    path.write_text(on)
    params.forget()
    together, more = told(profile("paper"))
    # the download, the model and DVC's copy of it
    assert together - ours == pytest.approx(3 * 3 * 6, abs=0.2)
    assert more == [*answering, *(f"mt_answer {n}" for n in ("redpajama", "minichat", "phi_2"))]
    said = text(checks.preflight(profile("paper"), H100))
    assert "mt_answer phi_2 | 160 answers of up to 2,048 tokens | 10 min" in said
    assert "1.2 h of MT-Bench's answers at most" in said


def test_the_cache_is_where_and_how_dvc_is_told(tree: Path, tmp_path: Path) -> None:
    (tree / ".dvc").mkdir()
    (tree / ".dvc/config").write_text("[core]\n    analytics = false\n")
    found = machine.cache(tree)
    assert found.folder == tree / ".dvc/cache" and found.link in ("reflink", "copy")
    (tree / ".dvc/config").write_text(
        f"[cache]\n    dir = {tmp_path}/elsewhere\n    type = hardlink,copy\n"
    )
    assert machine.cache(tree) == Cache(tmp_path / "elsewhere", "hardlink")
    assert [path.name for path in (tree / ".dvc").iterdir()] == ["config"], "probes leave nothing"


# --- money and time -------------------------------------------------------------------------------


def test_a_forecast_beside_the_budget(tree: Path) -> None:
    p = profile("paper").model_copy(update={"budget_usd": params.Budget(stage=10.0, run=12.0)})
    rows = [Row("judge lamini", "m", 1, 1, 1, 8.0, 11.0), Row("agreement", "m", 1, 1, 1, 5.0, 6.0)]
    stage, run = expected.money(p, rows)
    assert stage.level == "warning" and "$8.00 for judge lamini, $11.00 at most" in stage.message
    assert run.level == "stop" and run.do.startswith("raise budget_usd.run in profiles/paper.yaml")
    endless = [rows[0]._replace(most=None)]
    assert "no maximum" in expected.money(p, endless)[0].message
    free = p.model_copy(update={"budget_usd": params.Budget(stage=None, run=None)})
    assert [finding.level for finding in expected.money(free, endless)] == ["ok", "ok"]
    nothing, _ = expected.money(p, [])  # own rows alone: no model is asked
    assert nothing.message.startswith("nothing is paid for")


def test_what_was_spent_under_the_name_counts_against_the_cap_of_a_run(tree: Path) -> None:
    p = profile("paper").model_copy(update={"budget_usd": params.Budget(stage=None, run=12.0)})
    rows = [Row("agreement", "m", 1, 1, 1, 5.0, 6.0)]
    assert expected.money(p, rows)[1].level == "ok"
    ledger = Ledger()
    ledger.put("0" * 64, {"at": 0}, Bill(budget.run_id(p), "judge", "lamini", "m"), 6.5)
    ledger.close()
    run = expected.money(p, rows)[1]
    assert run.level == "warning" and "$6.50 are spent under the name 'first'" in run.message


def unbounded(name: str) -> Params:
    """A profile whose teacher has room for everything."""
    p = profile(name)
    teacher = p.llm.teacher.model_copy(update={"context_tokens": None})
    return p.model_copy(update={"llm": p.llm.model_copy(update={"teacher": teacher})})


@pytest.mark.slow
def test_an_estimate_comes_near_the_papers_counts(tree: Path) -> None:
    calls = {row.stage: row.calls for row in checks.forecast.estimate(unbounded("paper"))}
    # 301 calls and 1,505 answers, less what a teacher spoils (OpenBezoar 3.1.1)
    assert calls["generate lamini"] == pytest.approx(301 + 1505, rel=0.05)
    # 3 x (1,560 + 193 + 18) + 210: the paper's tasks with fewer rows make 5,507 of it (paper 3.1.3)
    assert calls["generate orca"] == 5523
    # 3,100 evolutions of at most three calls each; the paper judged some 2,304 of its own (3.1.2),
    # and the judge is checked on twenty known rows, two answers each
    assert 2 * 3100 < calls["generate evol_instruct"] < 3 * 3100
    assert calls["judge evol_instruct"] == pytest.approx(2304 + 2 * 20, rel=0.1)
    # two turns of 80 questions, a grading in fifty once more; the grader is checked on twenty known
    # rows, two answers each. Its reference answers to all turns are bought once, by the first
    graded = 160 * 1.02 + 2 * 20
    assert calls["mt_grade sft"] == pytest.approx(graded, rel=0.05)
    assert calls["mt_grade base"] == pytest.approx(graded + 160, rel=0.05)
    # what people, GPT-4's pairs and its single grades have of five models, a turn each in both
    # orders: 616 and 613 in the released votes (appendix D)
    assert calls["agreement"] == pytest.approx(2 * (616 + 613) * 1.02, rel=0.05)
    small = {row.stage: row.calls for row in checks.forecast.estimate(profile("small"))}
    assert small["generate orca"] == pytest.approx(5523 / 10, rel=0.05)
    assert small["mt_grade base"] == pytest.approx(graded + 2 * 50, rel=0.1), "30 are given"
    # 200 pairs of answers, two turns of each in both orders
    assert small["agreement"] == pytest.approx(4 * 200 * 1.02, rel=0.05)


@pytest.mark.slow
def test_preflight_tells_what_does_not_fit_the_papers_teacher(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = checks.forecast.estimate(profile("paper"))
    lamini = next(row for row in rows if row.stage == "generate lamini")
    # measured: 8-11 % of the calls for instructions and 768 tokens exceed the teacher's 2,048
    assert 0.07 < lamini.too_long / 301 < 0.14
    assert sum(row.too_long for row in rows if row.model != lamini.model) == 0
    found = expected.too_long(profile("paper"), rows)
    assert "generate lamini" in [finding.where for finding in found]
    for finding in found:
        assert finding.level == "warning" and "do not fit h2oai/" in finding.message
        assert "context_tokens" in finding.do and "max_tokens" in finding.do
        assert ("fewer_examples" in finding.do) is (finding.where == "generate lamini")
    Console(width=96).print(command._calls_table(rows))
    assert "too long" in capsys.readouterr().out
    fitting = checks.forecast.estimate(unbounded("paper"))
    assert not expected.too_long(profile("paper"), fitting)
    Console(width=96).print(command._calls_table(fitting))
    assert "too long" not in capsys.readouterr().out


@pytest.mark.slow
def test_time_follows_from_the_work_and_the_kind_of_gpu(tree: Path, tmp_path: Path) -> None:
    p, size = profile("paper"), shape(tmp_path)
    asked = checks.forecast.estimate(p)

    def seconds(here: Machine) -> dict[str, float]:
        fits = gpu.fits(p, size, here)
        return {d.stage: d.seconds for d in expected.training(p, size, here, fits, asked)}

    fast, slow = seconds(H100), seconds(CONSUMER)
    assert slow["sft hh_rlhf"] / fast["sft hh_rlhf"] == pytest.approx(989 / 165, rel=0.01)
    assert 600 < fast["sft hh_rlhf"] < 7200 and fast["dpo"] > 1.5 * fast["sft hh_rlhf"]
    assert H100.gpu
    odd = replace(H100, gpu=replace(H100.gpu, name="Some Other GPU"))
    told = expected.training(p, size, odd, gpu.fits(p, size, odd), asked)
    assert all("not known" in duration.instead for duration in told)
    links = {name: each.model_copy(update={"runs": 1}) for name, each in p.sft.links.items()}
    single = p.model_copy(update={"sft": p.sft.model_copy(update={"links": links})})
    once = expected.training(single, size, H100, gpu.fits(p, size, H100), asked)
    most = expected.training(p, size, H100, gpu.fits(p, size, H100), asked)
    assert most[0].stage == "sft lamini" and most[0].work.startswith("up to 2 x 10 x ")
    assert once[0].work.startswith("10 x ")
    assert [m.seconds / o.seconds for m, o in zip(most, once, strict=True)] == pytest.approx(
        [2, 2, 1, 1, 1], rel=1e-6
    )
    teacher, judge, _ = expected.asking(p, asked)
    replies = sum(row.tokens_out for row in asked if row.stage.startswith("generate"))
    assert teacher.seconds == replies / (64 * expected.STREAM)
    assert "24 h" in judge.instead


@pytest.mark.slow
def test_what_is_there_already_counts_instead_of_what_is_assumed(
    tree: Path, tmp_path: Path
) -> None:
    p = profile("embedded")
    assert checks.preflight(p, LAPTOP).estimated
    for name in checks.FORECAST_SOURCES:
        source = sources.collect(name, getattr(p.fetch, name), p.fetch.seed)
        source.write(Path("data/fetch", name))
    record(p, *checks.FORECAST_SOURCES)
    found = checks.preflight(p, LAPTOP)
    assert not found.estimated and "planned on what is fetched" in text(found)

    train = Path("data/filter/lamini/train.jsonl")
    train.parent.mkdir(parents=True)
    train.write_text(json.dumps({"id": "x" * 99, "instruction": "a" * 40, "response": "b" * 360}))
    size = shape(tmp_path)
    (lamini, *_) = expected.training(p, size, H100, gpu.fits(p, size, H100), found.forecast_rows)
    assert f"4 x 1 rows of {expected.TEMPLATE + 100} tokens" in lamini.work


@pytest.mark.slow
def test_a_mixed_set_and_what_is_replayed_count(tree: Path, tmp_path: Path) -> None:
    p, size = profile("paper"), shape(tmp_path)
    planned = checks.preflight(p, LAPTOP).forecast_rows

    def rows(p: Params) -> dict[str, int]:
        told = expected.training(p, size, H100, gpu.fits(p, size, H100), planned)
        counted = (d.work.split(" of ")[0].split(" x ")[-1].split()[0] for d in told)
        return {d.stage: int(n.replace(",", "")) for d, n in zip(told, counted, strict=True)}

    plain = rows(p)
    orca = p.chain["orca"].model_copy(update={"data": ["filter/lamini", "filter/orca"]})
    mixed = rows(p.model_copy(update={"chain": {**p.chain, "orca": orca}}))
    assert mixed == {**plain, "sft orca": plain["sft lamini"] + plain["sft orca"]}
    mix = p.mix.model_copy(update={"replay": 0.1})
    replayed = rows(p.model_copy(update={"mix": mix}))
    assert replayed["sft lamini"] == plain["sft lamini"] and replayed["dpo"] == plain["dpo"]
    assert replayed["sft orca"] == round(1.1 * plain["sft orca"])


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("Tesla T4", 65),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA A10G", None),
    ],
)
def test_a_gpu_is_known_by_its_drivers_name(name: str, tflops: int | None) -> None:
    assert expected.peak(name) == tflops


# --- all of it ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_paper_profile_with_everything_missing(tree: Path) -> None:
    found = checks.preflight(profile("paper"), LAPTOP)
    said = text(found)
    for line in (
        "Preflight of profile paper: nothing is run, nothing is bought",
        "ok parameters valid, under every profile",
        f"STOP llm.teacher {NOTHING}/v1 does not answer",
        "STOP llm.judge $OPENAI_API_KEY is not set, the key for gpt-6-sol",
        "-> export OPENAI_API_KEY=..., or api_key_env: null where no key is wanted",
        "STOP llm.grader $ANTHROPIC_API_KEY is not set",
        "STOP dolly databricks/databricks-dolly-15k: not in the cache",
        "STOP topics http://127.0.0.1:9/enwiki",
        "STOP base openlm-research/open_llama_3b_v2",
        "warning base what it needs is not known yet",
        "the cap is $80.00",
        "generate orca | 5,523 |",
        "Expected:",
        "findings would stop this run",
    ):
        assert line in said, said
    assert found.estimated and not found.fits
    assert not (tree / "data").exists() and not work.home().exists(), "nothing is written"


@pytest.mark.slow
def test_the_paper_profile_where_all_is_well(
    online: Hub, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setattr(machine, "volume", lambda path: Volume(1, 10**12))
    p = profile("paper")
    models = tuple(getattr(p.llm, who).model for who in Endpoints.model_fields)
    with serving(served=models) as (_, url):
        llm = Endpoints(
            teacher=p.llm.teacher.model_copy(update={"base_url": f"{url}/v1"}),
            judge=p.llm.judge.model_copy(update={"base_url": f"{url}/v1"}),
            grader=p.llm.grader.model_copy(update={"base_url": url}),
        )
        found = checks.preflight(p.model_copy(update={"llm": llm}), H100)
    said = text(found)
    assert found.count("stop") == 0, said
    for line in (
        "ok GPU NVIDIA H100 80GB HBM3, 79.0 of 80.0 GiB free",
        "| weights | gradients | optimizer | activations | total | free | rows",
        "sft hh_rlhf | 1 x 55,556 rows",
        "Training: 30% of the GPU's 16-bit peak",
        "Nothing would stop this run",
    ):
        assert line in said, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
        ("gemma", {"vocab_size": 64_000, "num_key_value_heads": 1, "head_dim": 256}),
    ],
)
def test_a_base_of_another_kind_is_counted_to_the_end(
    kind: str, parameters: dict[str, Any], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig

    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12}
    made = AutoConfig.for_model(kind, num_attention_heads=8, **sizes, **parameters)
    made.save_pretrained(tree / "local/base")
    for name in ("tokenizer.json", "model.safetensors"):  # what a rehearsal reads, left out here
        (tree / "local/base" / name).write_text("{}")
    monkeypatch.setattr(checks.bases, "findings", lambda *_: [])
    p = profile("small")
    own = p.fetch.model_copy(update={"base": profile("local").fetch.base})
    assert {link.micro_batch_size for link in p.sft.links.values()} == {"auto"}
    found = checks.preflight(p.model_copy(update={"fetch": own}), CONSUMER)
    assert where(found.findings["Memory"], "GPU").level == "ok", text(found)
    trained = [fit for fit in found.fits if fit.stage.startswith(("sft", "dpo"))]
    assert len(trained) == len(p.chain) + 1 and all(fit.fits for fit in trained)
    assert {each.stage for each in found.training} == {fit.stage for fit in trained}
    assert "wanted (models" in where(found.findings["Disks"], "disk").message


@pytest.mark.slow
def test_the_embedded_profile_wants_nothing(tree: Path) -> None:
    said = text(checks.preflight(profile("embedded"), LAPTOP))
    assert "none wanted: the base is small" in said and "Expected: $0.00." in said
    assert said.endswith("Nothing would stop this run.")


@pytest.mark.slow
def test_a_launch_file_that_is_not_there_stops(tree: Path) -> None:
    p = profile("embedded").model_copy(update={"launch": "nowhere"})
    found = checks.preflight(p, LAPTOP)
    assert where(found.findings["Params, and models that are asked"], "launch").level == "stop"


def test_another_profile_is_looked_at_without_switching_to_it(tree: Path) -> None:
    before = Path("params.yaml").read_bytes()
    assert params.load(profile="small").profile == "small"
    assert params.load().profile == "embedded" and Path("params.yaml").read_bytes() == before
    with pytest.raises(BadInput, match="there is no profile 'papers'"):
        params.load(profile="papers")


@pytest.mark.slow
def test_the_command_ends_with_1_where_something_would_stop_the_run(tree: Path) -> None:
    env = environment(tree / "work", PYTHONPATH=str(ROOT), HF_HOME=str(tree / "hf"))
    env = {name: value for name, value in env.items() if not name.endswith("API_KEY")}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "bezoar.preflight", *arguments],
            cwd=tree,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    good, bad = run(), run("paper")
    assert good.returncode == 0 and "profile embedded" in good.stdout, good.stderr
    assert bad.returncode == 1 and "STOP" in bad.stdout and "Traceback" not in bad.stderr
    assert max(map(len, bad.stdout.splitlines())) <= 100


# --- at the start of a stage ----------------------------------------------------------------------


@pytest.fixture
def active(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes params of a profile, with one endpoint for all, what a stage loads."""
    load = params.load

    def make(name: str, endpoint: Endpoint | None = None) -> Params:
        p = load(profile=name)
        if endpoint:
            llm = Endpoints(teacher=endpoint, judge=endpoint, grader=endpoint)
            p = p.model_copy(update={"llm": llm})
        monkeypatch.setattr(params, "load", lambda: p)
        return p

    return make


@pytest.mark.slow
def test_the_embedded_profile_imports_nothing_and_looks_at_nothing(tree: Path) -> None:
    code = (
        "import sys, bezoar.preflight as p\n"
        "for s in ('generate', 'judge', 'mt_grade', 'mt_compare', 'sft', 'merge', 'lm_eval',\n"
        "          'mt_answer'):\n"
        "    p.stage(s, 'lamini')\n"
        "p.stage('agreement'), p.stage('dpo')\n"
        "print([m for m in sys.modules if m.startswith(('bezoar.preflight.', 'bezoar.training', "
        "'bezoar.ledger', 'torch', 'urllib.request', 'huggingface_hub'))])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_stage_stops_where_its_model_is_not_served(active: Any) -> None:
    with serving(served=("other",)) as (_, url):
        active("embedded", openai(url))
        with pytest.raises(BadInput, match=r"llm\.judge: .*serves other; wanted m; serve that one"):
            preflight.stage("judge", "lamini")
    with serving(keep_bodies=True) as (server, url):
        active("embedded", openai(url))
        preflight.stage("agreement")
        assert [request for request, _, _ in server.bodies] == ["GET /v1/models"]


def test_a_stage_that_bought_answers_goes_on_with_them(
    active: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    active("embedded", openai(NOTHING, model="org/m"))
    Ledger().put("0" * 64, {"reply": {}}, Bill("run", "judge", "lamini", "org/m"), 0.0)
    preflight.stage("judge", "lamini")
    assert "warning: llm.judge: " in capsys.readouterr().err
    with pytest.raises(BadInput, match="does not answer"):
        preflight.stage("judge", "orca")


def test_a_stage_stops_where_its_model_does_not_fit(
    active: Any, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    active("paper")
    for name in ("fetch/base", "merge/sft", "sft/hh_rlhf"):
        config(tree / "models" / name)
    monkeypatch.setattr(machine, "look", lambda: CONSUMER)
    monkeypatch.setattr(machine, "volume", lambda path: Volume(1, 10**12))
    for stage, label in (("sft", "lamini"), ("merge", "sft"), ("lm_eval", "base")):
        preflight.stage(stage, label)
    preflight.stage("mt_answer", "sft")
    assert capsys.readouterr().err == ""
    with pytest.raises(BadInput, match=r"sft hh_rlhf: needs .* GiB for 1 row"):
        preflight.stage("sft", "hh_rlhf")
    with pytest.raises(BadInput, match=r"^error: dpo: needs"):
        preflight.stage("dpo", "policy")
    monkeypatch.setenv("LOCAL_RANK", "0")  # the process that launched this one has looked
    preflight.stage("dpo", "policy")
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(machine, "look", lambda: LAPTOP)
    with pytest.raises(BadInput, match="GPU: none here"):
        preflight.stage("lm_eval", "base")
    preflight.stage("merge", "sft")  # it goes through the base matrix by matrix, on the CPU
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(machine, "look", lambda: Machine(None, GIB // 2))
    with pytest.raises(BadInput, match=r"memory: .*merge sft needs 1; use"):
        preflight.stage("merge", "sft")
    monkeypatch.setattr(machine, "look", lambda: replace(CONSUMER, ram=GIB // 4))
    with pytest.raises(BadInput, match=r"merge sft: needs 0\.5 GiB, and the machine has 0\.2; use"):
        preflight.stage("merge", "sft")


def test_a_killed_stages_checkpoints_are_room_that_is_there(
    active: Any, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = active("paper")
    size = gpu.Shape.read(config(tree / "models/sft/hh_rlhf"))
    monkeypatch.setattr(machine, "look", lambda: H100)
    model = 4 * size.parameters
    # RMSprop keeps one moment: three checkpoints of twice the model, its out and DVC's copy
    wanted = disk.scratch(p, "dpo", size)
    assert wanted == 6 * model
    monkeypatch.setattr(machine, "volume", lambda path: Volume(1, 4 * model))
    with pytest.raises(BadInput, match=r"disk: .* GB free, .* wanted .*; free some"):
        preflight.stage("dpo", "policy")
    there = {work.home() / "dpo": 4 * model}
    monkeypatch.setattr(machine, "size", lambda path: there.get(path, 0))
    preflight.stage("dpo", "policy")


def test_a_small_model_or_one_of_no_known_kind_stops_nothing(
    active: Any, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> Machine:
        raise AssertionError("nothing to look for")

    active("local")
    monkeypatch.setattr(machine, "look", never)
    config(tree / "models/fetch/base", model_type="of_no_known_kind")
    preflight.stage("lm_eval", "base")
    config(tree / "models/fetch/base", hidden_size=64, intermediate_size=128, vocab_size=512)
    preflight.stage("sft", "lamini")
    shutil.rmtree(tree / "models")
    preflight.stage("merge", "sft")
