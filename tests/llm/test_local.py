"""`provider: local`: a real model in this process, on the code that answers MT-Bench."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks import local as benchmark
from bezoar import llm, params
from bezoar.llm import local
from bezoar.llm.ledger import Ledger
from bezoar.models import generation, loading
from bezoar.params import Endpoints, InProcess
from bezoar.preflight import endpoints
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.rows.records import Ask, Message, Reply
from bezoar.sources import pretraining
from tests.builders import warm
from tests.builders.micro import CORPUS, SIZE
from tests.conftest import ROOT, from_yaml

pytestmark = pytest.mark.slow

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
PROMPTS = [
    *("The fox is", "Is the hen white", "The cow", "A", "The fox is red.\nThe cow is", "Red"),
    *(f"The {animal} is{' not' * n}" for n in range(1, 5) for animal in ("fox", "cow", "hen")),
]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEZOAR_WORK", str(folder / "work"))
        pretraining.grow(CORPUS, SIZE, 7, folder / "base")
    return folder / "base"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / "work"))


@pytest.fixture
def folder(grown: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be spoilt."""
    return shutil.copytree(grown, tmp_path / "model")


def endpoint(folder: Path, **changed: Any) -> InProcess:
    usual: dict[str, Any] = {
        "provider": "local",
        "model": str(folder),
        "terms": "MIT",
        "style": "completion",
        "params": {"max_new_tokens": 30},
        "concurrency": 8,
        "batch_size": 4,
    }
    return InProcess.model_validate({**usual, **changed})


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def say(prompt: str, ask: Ask) -> Reply:
    return ask(user(prompt))


def replies(wanted: InProcess, prompts: Sequence[str]) -> list[Reply]:
    ask = llm.connect(wanted)
    assert isinstance(ask, local.Client)
    try:
        done = llm.run_jobs(say, prompts, ask, wanted, prefix="test", name=str).done
    finally:
        ask.close()
    return [reply for _, reply in done]


def told(reply: Reply) -> tuple[str, str, int, int]:
    return reply.text, reply.finish_reason, reply.tokens_in, reply.tokens_out


# --- what it says --------------------------------------------------------------------------------


def test_it_says_what_the_code_that_answers_mt_bench_says(grown: Path) -> None:
    model = loading.plain(grown, "float32", loading.device()).eval()
    tokenizer = loading.own_tokenizer(grown)
    ids = chat.ids(tokenizer, PROMPTS)
    wanted = generation.generate(model, tokenizer, ids, max_new_tokens=30, batch_size=4)
    found = replies(endpoint(grown), PROMPTS)
    assert [(reply.text, reply.finish_reason) for reply in found] == wanted
    assert [reply.tokens_in for reply in found] == [len(each) for each in ids]
    assert all(0 < reply.tokens_out <= 30 and reply.usd == 0 for reply in found)
    assert {reply.model for reply in found} == {"base"}


def of_kind(folder: Path, kind: str, **changed: Any) -> Path:
    """A model of another family with random weights, and this one's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    sizes = {
        "vocab_size": SIZE.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    set_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **changed}))
    model.generation_config.eos_token_id = 2
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)  # far from ties
    for file in ("model.safetensors", "config.json", "generation_config.json"):
        (folder / file).unlink(missing_ok=True)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
        ("qwen2", {}),
        ("mistral", {"sliding_window": 8, "head_dim": 8}),
        ("gemma2", {"sliding_window": 8, "head_dim": 8, "query_pre_attn_scalar": 8}),
        ("gemma3_text", {"sliding_window": 8, "head_dim": 8, "query_pre_attn_scalar": 8}),
        ("phi", {}),
        ("olmo2", {}),
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}),
        ("mamba", {"state_size": 8}),
        (
            "jamba",
            {
                "attn_layer_period": 2,
                "attn_layer_offset": 1,
                "num_experts": 2,
                "mamba_d_state": 8,
                "mamba_dt_rank": 4,
            },
        ),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    ],
)
def test_other_kinds_of_models_say_what_transformers_generates(
    folder: Path, kind: str, changed: dict[str, Any]
) -> None:
    import torch

    of_kind(folder, kind, **changed)
    found = replies(endpoint(folder, params={"max_new_tokens": 20}), PROMPTS[:6])
    model = loading.plain(folder, "float32", loading.device()).eval()
    tokenizer = loading.own_tokenizer(folder)
    for prompt, reply in zip(PROMPTS, found, strict=False):
        ids = torch.tensor(chat.ids(tokenizer, [prompt]))
        # the start of another text ends an answer too
        stops = [tokenizer.eos_token_id, tokenizer.bos_token_id]
        ends = {"eos_token_id": stops, "pad_token_id": 0}
        (written,) = model.generate(ids, max_new_tokens=20, do_sample=False, **ends).tolist()
        own = written[ids.shape[1] :]
        assert tokenizer.decode(own, skip_special_tokens=True) == reply.text


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_reply_depends_on_its_request_alone(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    drawn = {"max_new_tokens": 30, "temperature": temperature}
    found = replies(endpoint(grown, params=drawn), PROMPTS)
    first = dict(zip(PROMPTS, map(told, found), strict=True))
    for size, at_once, order in ((1, 1, 1), (3, 8, -1), (16, 16, -1)):
        monkeypatch.setenv("BEZOAR_WORK", str(tmp_path / f"work {size}"))
        prompts = PROMPTS[::order]
        wanted = endpoint(grown, params=drawn, batch_size=size, concurrency=at_once)
        assert dict(zip(prompts, map(told, replies(wanted, prompts)), strict=True)) == first


def test_a_further_sample_is_another_draw_and_the_same_one_again(grown: Path) -> None:
    ask = llm.connect(endpoint(grown, params={"max_new_tokens": 20, "temperature": 2}))
    texts = [ask(user("The"), sample).text for sample in (0, 1, 2)]
    assert len(set(texts)) == 3
    Path(os.environ["BEZOAR_WORK"]).rename(Path(os.environ["BEZOAR_WORK"]).with_name("elsewhere"))
    other = llm.connect(endpoint(grown, params={"max_new_tokens": 20, "temperature": 2}))
    assert [other(user("The"), sample).text for sample in (2, 0, 1)] == [texts[2], *texts[:2]]


@pytest.mark.parametrize("params", [{"max_tokens": 9}, {"max_tokens": 9, "temperature": 0}])
def test_asking_again_is_done_where_it_can_give_another_text(grown: Path, params: Any) -> None:
    same = llm.connect(endpoint(grown, params=params))
    assert same(user("The"), sample=1) == same(user("The"))
    assert getattr(same, "bought") == 1  # noqa: B009
    other = llm.connect(endpoint(grown, params=params, again={"temperature": 2}))
    assert len({other(user("The"), sample).text for sample in (0, 1, 2)}) == 3


@pytest.mark.parametrize("text", ["", " ", "\ud83d", "</s>", "\x00", "中文" * 9])
@pytest.mark.parametrize("style", ["completion", "chat"])
def test_it_takes_whatever_a_row_holds(folder: Path, text: str, style: str) -> None:
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (reply,) = replies(endpoint(folder, style=style, params={"max_tokens": 3}), [text])
    assert reply.finish_reason in ("stop", "length") and reply.tokens_out <= 3


def test_weights_kept_in_bfloat16_are_computed_in_what_the_machine_is_quick_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    model.save_pretrained(folder)
    monkeypatch.setenv("BEZOAR_DEVICE", "cpu")
    _, batch = local.load(endpoint(folder))
    assert {str(each.dtype) for each in batch._model.parameters()} == {"torch.float32"}


def test_the_benchmark_gives_both_sides_the_same_to_say(
    grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "MORE", " saw the sun")  # this model's context is short
    found = benchmark.measure(grown, rows=6, most=8, size=2, repeats=1)
    assert found["equal"] == 1 and found["kept_now"] >= 0 and found["speedup"] > 0


# --- what it keeps -------------------------------------------------------------------------------


CHILD = """
import sys, time
from bezoar import llm
from bezoar.models.generation import Batch
from tests.llm.test_local import PROMPTS, endpoint, say

step = Batch.step
def slow(batch):
    time.sleep(0.1)
    return step(batch)
Batch.step = slow
wanted = endpoint(sys.argv[1], batch_size=len(PROMPTS), concurrency=len(PROMPTS))
llm.run_jobs(say, PROMPTS, llm.connect(wanted), wanted, prefix="test", name=str)
"""


def stopping_at_full_stops(folder: Path) -> Path:
    """The model, whose answers end at different times."""
    ids = loading.own_tokenizer(folder)("</s>.", add_special_tokens=False)["input_ids"]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    return folder


def test_a_kill_amidst_a_batch_keeps_every_row_that_had_ended(folder: Path, tmp_path: Path) -> None:
    stopping_at_full_stops(folder)
    wanted = endpoint(folder, batch_size=len(PROMPTS), concurrency=len(PROMPTS))
    with subprocess.Popen(
        [warm.python(settled=False), "-c", CHILD, str(folder)], cwd=ROOT
    ) as child:
        until = time.monotonic() + 60
        while not len(Ledger()) and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
    kept = len(Ledger())
    assert 0 < kept < len(PROMPTS), "a batch of all, of which some had ended"
    ask = llm.connect(wanted)
    after = llm.run_jobs(say, PROMPTS, ask, wanted, prefix="test", name=str).exchanges
    assert getattr(ask, "bought") == len(PROMPTS) - kept  # noqa: B009
    shutil.rmtree(tmp_path / "work")
    clean = llm.run_jobs(
        say, PROMPTS, llm.connect(wanted), wanted, prefix="test", name=str
    ).exchanges
    assert after == clean


def test_two_processes_compute_no_request_twice(folder: Path) -> None:
    wanted = endpoint(folder, batch_size=len(PROMPTS), concurrency=len(PROMPTS))
    with subprocess.Popen(
        [warm.python(settled=False), "-c", CHILD, str(folder)], cwd=ROOT
    ) as child:
        until = time.monotonic() + 60
        while not len(Ledger()) and time.monotonic() < until:
            time.sleep(0.05)
        ask = llm.connect(wanted)
        done = llm.run_jobs(say, PROMPTS, ask, wanted, prefix="test", name=str).done
        assert child.wait(60) == 0
    assert len(done) == len(PROMPTS) == len(list(Ledger().lines()))
    assert getattr(ask, "bought") == 0  # noqa: B009


ENDING = """
import sys, threading, time
from bezoar import llm
from bezoar.models.generation import Batch
from tests.llm.test_local import endpoint, user

begun = threading.Event()
def never(batch):
    begun.set()
    time.sleep(600)
Batch.step = never
ask = llm.connect(endpoint(sys.argv[1]))
threading.Thread(target=ask, args=(user("The"),), daemon=True).start()
begun.wait()
"""


def test_a_process_that_ends_waits_for_no_reply(grown: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING, str(grown)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"max_new_tokens": 1},
        {"max_tokens": 100},
        {"max_new_tokens": 8, "max_tokens": None},
        {"max_new_tokens": 8, "temperature": 0},
        {"max_new_tokens": 8, "temperature": None},
        {"max_new_tokens": 8, "temperature": 2},
        {"max_new_tokens": 8, "temperature": 1e-9},
    ],
    ids=str,
)
def test_params_that_it_takes(grown: Path, given: dict[str, Any]) -> None:
    (reply,) = replies(endpoint(grown, params=given), ["The fox is"])
    assert 0 < reply.tokens_out <= max(value or 0 for value in given.values())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, r"sets no maximum of a reply; max_new_tokens: 512, say"),
        ({"temperature": 0.7}, r"sets no maximum"),
        ({"max_tokens": None}, r"sets no maximum"),
        ({"max_new_tokens": 8, "max_tokens": 8}, r"say the same; leave one out"),
        ({"max_new_tokens": 0}, r"max_new_tokens: 0; tokens of a reply, 1 or more"),
        ({"max_new_tokens": -1}, r"max_new_tokens: -1"),
        ({"max_new_tokens": 8.5}, r"max_new_tokens: 8\.5"),
        ({"max_new_tokens": True}, r"max_new_tokens: True"),
        ({"max_tokens": "many"}, r"max_tokens: 'many'"),
        ({"max_new_tokens": 8, "temperature": -0.1}, r"temperature: -0\.1; from 0, .* to 2"),
        ({"max_new_tokens": 8, "temperature": 2.5}, r"temperature: 2\.5"),
        ({"max_new_tokens": 8, "temperature": float("nan")}, r"temperature: nan"),
        ({"max_new_tokens": 8, "temperature": float("inf")}, r"temperature: inf"),
        ({"max_new_tokens": 8, "temperature": True}, r"temperature: True"),
        ({"max_new_tokens": 8, "temperature": "hot"}, r"temperature: 'hot'"),
        ({"max_new_token": 8}, r"'max_new_token' .*did you mean 'max_new_tokens'\?"),
        ({"max_new_tokens": 8, "temprature": 1}, r"'temprature' .*did you mean 'temperature'\?"),
        ({"max_new_tokens": 8, "do_sample": True}, r"'do_sample' .*temperature alone decides"),
        ({"max_new_tokens": 8, "top_p": 0.9}, r"'top_p' .*by temperature alone"),
        ({"max_new_tokens": 8, "top_k": 50}, r"'top_k' .*by temperature alone"),
        ({"max_new_tokens": 8, "seed": 1}, r"'seed' .*follows from the request"),
        ({"max_new_tokens": 8, "num_beams": 4}, r"'num_beams' .*it takes max_new_tokens, max_tok"),
        ({"max_length": 99}, r"'max_length' .*max_new_tokens, which counts the reply alone"),
        ({"max_completion_tokens": 9}, r"'max_completion_tokens' .*; max_new_tokens"),
        ({"max_new_tokens": 8, "custom_generate": "x/y"}, r"run code of its own"),
        ({"max_new_tokens": 8, "messages": []}, r"set by the client"),
    ],
    ids=str,
)
def test_params_that_it_refuses_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        endpoint(Path("m"), params=given)
    if given and "no maximum" not in words:
        with pytest.raises(ValidationError, match=words):
            endpoint(Path("m"), again=given)


def test_what_does_not_fit_with_its_reply_is_too_long_and_costs_nothing(grown: Path) -> None:
    tokenizer = loading.own_tokenizer(grown)
    prompt = "The fox is red.\n" * 9
    size = len(chat.ids(tokenizer, [prompt])[0])
    room = SIZE.positions - size
    fits, not_quite = (endpoint(grown, params={"max_tokens": room + more}) for more in (0, 1))
    short, long = replies(not_quite, ["The", prompt])
    assert short.finish_reason in ("stop", "length") and long.finish_reason == "too_long"
    assert (long.text, long.tokens_in, long.tokens_out, long.key) == ("", 0, 0, "")
    assert len(Ledger()) == 1, "what was not asked is not kept"
    (reply,) = replies(fits, [prompt])
    assert reply.finish_reason in ("stop", "length") and reply.tokens_in == size


def change(file: Path, **changed: Any) -> None:
    """Set keys of a JSON file; None takes one away."""
    settings = {**json.loads(file.read_text()), **changed}
    file.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def linked(folder: Path) -> None:
    folder.rename(folder.with_name("there"))
    folder.symlink_to(folder.with_name("there"))


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("token*"):
        file.unlink()


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    change(folder / "tokenizer_config.json", chat_template=None)


def writes(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


PART = json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
# The states that people's folders are in, and what is said of each
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (shutil.rmtree, "no config.json in there; model is the folder of a transformers"),
    "empty": (emptied, "no config.json in there"),
    "a link": (linked, "a link to a folder, into which DVC does not look"),
    "an adapter": (writes("adapter_config.json", "{}"), "an adapter, .*; merge it first"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        r"no \*\.safetensors in there",
    ),
    "pickled weights": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "pickled weights, which can run code.* safe_serialization=True",
    ),
    "a part is missing": (
        writes(local.INDEX, PART),
        r"model-2\.safetensors is missing, which model\.safetensors\.index\.json",
    ),
    "a torn index": (writes(local.INDEX, "{"), "is no JSON; copy it again"),
    "no tokenizer": (without_tokenizer, r"no tokenizer in there; put tokenizer\.json"),
    "a torn tokenizer": (writes("tokenizer.json", "{"), r"transformers cannot load it \("),
    "no context": (
        lambda folder: change(folder / "config.json", max_position_embeddings=None),
        "does not say how many tokens",
    ),
    "a torn config": (writes("config.json", '{"model_type"'), "does not say how many tokens"),
    "no template": (without_template, "no chat template; style: completion sends the bare prompt"),
    "no system role": (
        writes("chat_template.jinja", NO_SYSTEM),
        "takes no system, user messages .System role not supported.*system_role: false",
    ),
    "a broken template": (
        writes("chat_template.jinja", "{% for m in messages %}"),
        "its chat template takes no user messages",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_folder_that_cannot_be_asked_is_told_by_preflight_and_by_the_stage(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    place = tmp_path / "local/llm/mine"
    place.parent.mkdir(parents=True)
    folder.rename(place)
    (place / "chat_template.jinja").write_text(TEMPLATE)
    monkeypatch.chdir(tmp_path)
    wanted = endpoint(Path("local/llm/mine"), style="chat")
    everyone = Endpoints(teacher=wanted, judge=wanted, grader=wanted)
    assert [finding.level for finding in endpoints.check(everyone, {})] == ["ok"]
    spoil, words = REFUSED[what]
    spoil(place)
    (found,) = endpoints.check(everyone, {})
    assert found.level == "stop" and found.do
    with pytest.raises(BadInput, match=f"llm: local/llm/mine: .*{words}"):
        replies(wanted, ["Hello"])
    assert found.text.endswith(str(found.do)) and not len(Ledger())


def test_a_model_whose_template_takes_no_system_message_is_asked_without_one(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(NO_SYSTEM)
    wanted = endpoint(folder, style="chat", system_role=False)
    local.prove(wanted)
    ask = llm.connect(wanted)
    system = Message(role="system", content="Be brief.")
    assert ask([system, *user("The fox is")]) == ask(user("Be brief.\n\nThe fox is"))


def test_a_reply_that_fills_the_context_leaves_no_room_to_ask(grown: Path) -> None:
    for given in ({"max_new_tokens": SIZE.positions}, {"max_tokens": 9999}):
        with pytest.raises(BadInput, match="leaves no room for a prompt; lower max_new_tokens"):
            llm.connect(endpoint(grown, params=given))
    llm.connect(endpoint(grown, params={"max_new_tokens": SIZE.positions - 1}))


@pytest.mark.parametrize(
    "path",
    [
        "/models/mine",
        "models/sft/orca",
        "local/mine",
        "local/llm",
        "local/llm/../x/y",
        "local/llm/..",
        "local/llm/a/b",
        "~/model",
        "Qwen/Qwen2.5-0.5B",
    ],
)
def test_a_model_that_dvc_would_not_see_change_is_refused_with_the_way_there(path: str) -> None:
    p = params.load(ROOT)
    with pytest.raises(ValidationError, match=r"outside of local/llm/.* cp -r"):
        Endpoints(teacher=endpoint(Path(path)), judge=p.llm.judge, grader=p.llm.grader)
    with pytest.raises(ValidationError, match=r"judge\.1\.model: .* outside of local/llm/"):
        panel = [p.llm.grader, endpoint(Path(path))]
        Endpoints(teacher=p.llm.teacher, judge=panel, grader=p.llm.grader)
    mine = endpoint(Path("local/llm/mine"))
    Endpoints(teacher=mine, judge=[p.llm.grader, mine], grader=mine)


def test_other_weights_are_another_model(folder: Path) -> None:
    first = llm.connect(endpoint(folder))
    first(user("The fox is"))
    stopping_at_full_stops(folder)
    other = llm.connect(endpoint(folder))
    other(user("The fox is"))
    assert getattr(other, "bought") == 1  # noqa: B009


def test_every_stage_that_asks_runs_again_for_other_weights() -> None:
    stages = from_yaml((ROOT / "dvc.yaml").read_text())["stages"]
    for name in ("generate", "judge", "mt_grade", "mt_compare", "agreement"):
        deps = stages[name].get("do", stages[name])["deps"]
        needed = {"local/llm", "bezoar/models", "bezoar/rows"}
        assert needed <= set(deps), name
