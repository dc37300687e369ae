"""The merge: what it merges onto, how adapters are combined, and what it holds in memory."""

import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bezoar import params, work
from bezoar.models import loading
from bezoar.params import MergeStage, Params
from bezoar.preflight import gpu
from bezoar.preflight.machine import Machine
from bezoar.rows.files import BadInput
from bezoar.sources import pretraining
from bezoar.training import merge
from bezoar.training.runs.memory import Shape
from tests.builders import ROOT, parameters, warm
from tests.builders.micro import (
    CORPUS,
    MODELS,
    SETTINGS,
    SFT,
    SIZE,
    asks,
    enter,
    grown,
    link,
    place,
)
from tests.conftest import environment

pytestmark = pytest.mark.slow

__all__ = ["grown", "place"]  # fixtures
HOW: MergeStage = SETTINGS.merge
BASE, ONE, TWO = MODELS / "fetch/base", MODELS / "sft/one", MODELS / "sft/two"
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapter(to: Path, r: int = 4, base: Path = BASE, **config: Any) -> Path:
    """An adapter of `base` that nobody trained and that changes every layer."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = loading.plain(base, "float32", loading.device())
    torch.manual_seed(r)
    lora = LoraConfig(
        r=r, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", **config
    )
    made = get_peft_model(model, lora)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.05)
    made.save_pretrained(to)
    return to


def merged(
    adapters: Sequence[Path] = (ONE,), base: Path = BASE, out: str = "out", **how: Any
) -> dict[str, Any]:
    """The weights that a merge leaves at models/merge/`out`."""
    to = MODELS / "merge" / out
    merge.merge(base, adapters, HOW.model_copy(update=how), SFT, to)
    return weights(to)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of any two numbers."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# --- what is merged onto -------------------------------------------------------------------------


def logits(model: Any, tokenizer: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(**tokenizer([asks("fox"), asks("hen")], return_tensors="pt")).logits


def test_the_merged_model_is_the_trained_one(place: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    link(epochs=4)
    trained = logits(*loading.load(ONE, BASE, SFT))
    off = {}
    for onto in ("dequantized", "reloaded"):
        out = MODELS / "merge" / onto
        merge.merge(BASE, [ONE], HOW.model_copy(update={"onto": onto}), SFT, out)
        plain = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
        assert "quantization_config" not in json.loads((out / "config.json").read_text())
        off[onto] = float((logits(*plain) - trained).abs().max())
    assert off["dequantized"] < 1e-4
    # the base before quantisation is another model, by about as much as 4 bits lose
    assert 1e-2 < off["reloaded"] < 10


def stood_for(base: Path, sft: Any, device: loading.Device) -> dict[str, Any]:
    """What the layers of the 4-bit base stand for, read from the model that is trained on."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    return {
        f"{name}.weight": dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        for name, layer in loading.quantised(base, sft, device).named_modules()
        if isinstance(layer, Linear4bit)
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_dequantized_is_the_4_bit_base_bit_for_bit(
    place: Path, monkeypatch: pytest.MonkeyPatch, *, dtype: Any, quantization: str, double: bool
) -> None:
    device = loading.Device("cpu", dtype)
    monkeypatch.setattr(loading, "device", lambda: device)
    sft = SFT.model_copy(update={"quantization": quantization, "double_quantization": double})
    how = HOW.model_copy(update={"weights": [0.0] * 3})
    merge.merge(BASE, [adapter(ONE)], how, sft, MODELS / "out")
    found, before, layers = weights(MODELS / "out"), weights(BASE), stood_for(BASE, sft, device)
    assert sorted(name.split(".")[-2] for name in layers) == sorted(LAYERS)
    for name, values in found.items():
        assert values.equal(layers.get(name, before[name])), name
        assert name not in layers or not values.equal(before[name])


def plain_way(onto: str, out: Path) -> None:
    """The whole model in memory, by peft."""
    import torch

    device = loading.device()
    model = loading.plain(BASE, "float32", device)
    if onto == "dequantized":
        with torch.no_grad():
            for name, values in stood_for(BASE, SFT, device).items():
                model.get_parameter(name).copy_(values)
    whole = loading.attach(model, ONE, BASE).merge_and_unload(safe_merge=True)
    whole.save_pretrained(out)
    loading.tokenizer(BASE).save_pretrained(out)


@pytest.mark.parametrize("onto", ["dequantized", "reloaded"])
def test_one_adapter_gives_the_bytes_of_the_plain_way(place: Path, onto: str) -> None:
    adapter(ONE, rank_pattern={"q_proj": 2}, alpha_pattern={"up_proj": 3})
    merged(onto=onto)
    plain_way(onto, MODELS / "plain")
    assert work.content(MODELS / "merge/out") == work.content(MODELS / "plain")


def test_the_sum_is_not_quantised_again(place: Path) -> None:
    """peft's own merge into a 4-bit model leaves sixteen values a block, and another model."""
    from bitsandbytes.nn import Linear4bit

    adapter(ONE)
    found, layers = merged(), stood_for(BASE, SFT, loading.device())
    into = loading.attach(loading.quantised(BASE, SFT, loading.device()), ONE, BASE)
    spoilt = into.merge_and_unload()
    assert any(isinstance(layer, Linear4bit) for layer in spoilt.modules())
    for name, values in layers.items():
        lora = merge._lora(ONE, BASE).delta(name.removesuffix(".weight"), values)
        assert float((found[name] - values - lora).abs().max()) < 1e-6
        assert len(found[name].flatten()[:64].unique()) > 16
    assert float((logits(spoilt, loading.tokenizer(BASE)) - logits(*evaluated())).abs().max()) > 0.1


def evaluated() -> tuple[Any, Any]:
    return loading.load(MODELS / "merge/out", BASE, SFT)


# --- how adapters are combined -------------------------------------------------------------------


def test_methods_meet_where_they_must(place: Path) -> None:
    adapter(ONE)
    base, linear = merged(weights=[0.0] * 3), merged()
    assert apart(base, linear) > 1e-2
    for how in (
        {"method": "ties", "density": 1.0},
        {"method": "dare_linear", "density": 1.0},
        {"method": "dare_ties", "density": 1.0},
        {"method": "slerp", "t": 1.0},
    ):
        assert apart(merged(**how), linear) == 0, how
    assert apart(merged(method="slerp", t=0.0), base) == 0
    for method in ("ties", "dare_linear", "dare_ties", "slerp"):
        there = merged(method=method)
        assert apart(there, linear) > 1e-3 and apart(there, base) > 1e-3, method


def test_two_adapters_of_different_ranks_add_up(place: Path) -> None:
    adapter(ONE), adapter(TWO, r=2)
    base, one, two = merged(weights=[0.0] * 3), merged([ONE]), merged([TWO])
    both = {name: one[name] + two[name] - base[name] for name in base}
    assert apart(merged([ONE, TWO]), both) < 1e-6
    assert apart(merged([ONE, TWO], weights=[1.0, 0.0, 9.0]), one) == 0
    less = {name: base[name] + (two[name] - base[name]) / 2 for name in base}
    assert apart(merged([ONE, TWO], weights=[0.0, 0.5, 9.0]), less) < 1e-6
    assert apart(merged([ONE, TWO], method="slerp", t=0.0), one) == 0
    assert apart(merged([ONE, TWO], method="slerp", t=1.0), two) == 0


def test_an_adapter_leaves_alone_what_it_has_no_factors_for(place: Path) -> None:
    adapter(ONE), adapter(TWO, r=2, exclude_modules=["down_proj"])
    base, one, both = merged(weights=[0.0] * 3), merged([ONE]), merged([ONE, TWO])
    two = merged([TWO])
    for name in base:
        assert both[name].equal(one[name]) == (two[name].equal(base[name])), name
    assert two["model.layers.0.mlp.down_proj.weight"].equal(
        base["model.layers.0.mlp.down_proj.weight"]
    )


def changed(method: str, *deltas: Sequence[float], **how: Any) -> list[float]:
    """What becomes of [1, 1, ...] by hand-made changes of it."""
    import torch

    base = torch.ones(1, len(deltas[0]))
    made = [torch.tensor([delta]) for delta in deltas]
    settings = HOW.model_copy(update={"method": method, **how})
    return [round(x, 5) for x in merge.combine(base, made, settings, "w").flatten().tolist()]


def test_ties_keeps_the_largest_and_what_agrees() -> None:
    one, two = [4.0, -3.0, 0.5, 0.1], [2.0, 5.0, 0.2, -0.3]
    assert changed("ties", one, density=0.5) == [5.0, -2.0, 1.0, 1.0]
    # of the two largest each: 4 and 2 agree, 5 outweighs -3
    assert changed("ties", one, two, density=0.5) == [4.0, 6.0, 1.0, 1.0]
    assert changed("ties", one, two, density=0.5, weights=[1.0, 2.0, 0.0]) == [5.0, 11.0, 1.0, 1.0]
    assert changed("linear", one, two) == [7.0, 3.0, 1.7, 0.8]


def test_dare_drops_at_random_and_makes_up_for_it() -> None:
    found = changed("dare_linear", [1.0] * 4000, density=0.25)
    assert {*found} == {1.0, 5.0}
    assert sum(x == 5.0 for x in found) == pytest.approx(1000, rel=0.1)
    assert found == changed("dare_linear", [1.0] * 4000, density=0.25)
    assert found != changed("dare_linear", [1.0] * 4000, density=0.25, seed=8)


def test_slerp_goes_along_the_arc() -> None:
    import torch

    start, end = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    third = merge.slerp(start, end, 1 / 3)
    assert third.tolist()[0] == pytest.approx([3 * math.cos(math.pi / 6), 1.5])
    assert merge.slerp(start, start * 2, 0.5).tolist()[0] == pytest.approx([4.5, 0])


# --- files ---------------------------------------------------------------------------------------


def sharded(to: Path, dtype: str, size: str) -> Path:
    """The base again, in several files of another type."""
    shutil.copytree(BASE, to)
    loading.plain(to, dtype, loading.device()).save_pretrained(to, max_shard_size=size)
    (to / "model.safetensors").unlink()
    return to


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_in_several_files_gives_as_many(place: Path, dtype: str) -> None:
    from transformers import AutoModelForCausalLM

    adapter(ONE)
    base = sharded(MODELS / "fetch/sharded", dtype, "60KB")
    whole = MODELS / "fetch/whole"
    shutil.copytree(BASE, whole)
    loading.plain(base, dtype, loading.device()).save_pretrained(whole)
    # the draws of DARE are those of the matrix's name, not of the order
    for how in ({"method": "linear"}, {"method": "dare_linear"}):
        one, several = merged(base=whole, out="whole", **how), merged(base=base, out="parts", **how)
        assert apart(one, several) == 0 and {str(x.dtype) for x in one.values()} == {
            "torch.float32"
        }
    out, index = MODELS / "merge/parts", "model.safetensors.index.json"
    told, had = (json.loads((folder / index).read_text()) for folder in (out, base))
    assert len({*told["weight_map"].values()}) > 2 and told["weight_map"] == had["weight_map"]
    assert told["metadata"] == {
        "total_parameters": had["metadata"]["total_parameters"],
        "total_size": sum(4 * values.numel() for values in several.values()),
    }
    loaded = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert all(loaded[name].equal(values) for name, values in several.items())


def test_each_file_is_as_safetensors_writes_it(place: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter(ONE)
    merged(base=sharded(MODELS / "fetch/sharded", "float16", "60KB"))
    files = sorted((MODELS / "merge/out").glob("*.safetensors"))
    assert len(files) > 2
    for file in files:
        save_file(load_file(file), place / "again", {"format": "pt"})
        assert (place / "again").read_bytes() == file.read_bytes()


def test_the_same_bytes_again_and_in_another_place(
    place: Path, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for folder in (place, place, enter(grown, place / "another place", monkeypatch)):
        monkeypatch.chdir(folder)
        merged([adapter(ONE)], method="dare_ties")
        contents.append(work.content(MODELS / "merge/out"))
        assert not [*(Path("work/merge")).rglob("*.safetensors")], "nothing is left behind"
    assert len({*contents}) == 1


CHILD = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.training import test_merge as t
combine, done = t.merge.combine, []
def torn(*args):
    done.append(1)
    if len(done) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return combine(*args)
t.merge.combine = torn
t.merged()
"""


def test_a_killed_merge_leaves_no_out_and_the_next_one_is_whole(place: Path) -> None:
    adapter(ONE)
    merged()
    content = work.content(MODELS / "merge/out")
    shutil.rmtree(MODELS / "merge")
    done = subprocess.run(
        [warm.python(settled=False), "-c", CHILD.format(root=str(ROOT))],
        cwd=place,
        env=environment(place / "work"),
        check=False,
    )
    assert done.returncode == -signal.SIGKILL and not (MODELS / "merge").exists()
    assert [*Path("work/merge").rglob("part/model.safetensors")], "killed before it wrote"
    merged()
    assert work.content(MODELS / "merge/out") == content


# --- memory --------------------------------------------------------------------------------------

MEASURE = """
import gc, sys, threading, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.training import test_merge as t

def anonymous():
    line = next(x for x in open("/proc/self/status") if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

def peak(call):
    gc.collect()
    before = most = anonymous()
    ended = threading.Event()
    def watch():
        nonlocal most
        while not ended.wait(0.001):
            most = max(most, anonymous())
    thread = threading.Thread(target=watch)
    thread.start()
    call()
    ended.set()
    thread.join()
    return most - before

def plain():
    device = t.loading.device()
    model = t.loading.plain(Path("large"), "float32", device)
    model = t.loading.attach(model, Path("of_large"), Path("large"))
    model.merge_and_unload(safe_merge=True).save_pretrained("plain")

t.merged()  # whatever is imported late, is by now
for method in ("linear", "ties"):
    print(peak(lambda: t.merged([Path("of_large")], Path("large"), method=method)))
print(peak(plain))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_stays_below_two_files_of_the_base(place: Path) -> None:
    """A bfloat16 base in files of 40 MB, merged in a process of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=4000,
        hidden_size=640,
        intermediate_size=1728,
        num_hidden_layers=15,
        num_attention_heads=10,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    large = model.to(torch.bfloat16).to_empty(device="cpu")
    torch.manual_seed(0)
    for weight in large.parameters():
        weight.data.normal_(0, 0.02)
    large.save_pretrained("large", max_shard_size="40MB")
    for file in BASE.glob("*token*"):
        shutil.copy(file, "large")
    adapter(ONE), adapter(Path("of_large"), base=Path("large"))
    del model, large
    files = [file.stat().st_size for file in Path("large").glob("*.safetensors")]
    assert len(files) >= 4 and max(files) > 35e6

    measure = MEASURE.format(root=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", measure], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    linear, ties, plain = map(int, done.stdout.split())
    assert linear < ties < 2 * max(files) < plain
    # and they are what preflight tells
    shape, machine = Shape.read(Path("large/config.json")), Machine(None, 16 * 2**30)
    for method, held in (("linear", linear), ("ties", ties)):
        how = {"merge": HOW.model_copy(update={"method": method}), "sft": SFT}
        told = gpu.fit(SETTINGS.model_copy(update=how), "merge sft", shape, machine).need.total
        assert 0.8 * told < held < 1.1 * told + 12e6, method


# --- what a user can get wrong -------------------------------------------------------------------


def edit(file: Path, **change: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


@pytest.mark.parametrize(
    ("change", "what"), [({"hidden_size": 128}, "shapes differ"), ({"layers": 1}, "layers differ")]
)
def test_an_adapter_of_another_base(place: Path, change: dict[str, int], what: str) -> None:
    for size in ({"layers": 2}, change):
        grown = SIZE.model_copy(update={"steps": 1, "layers": 2, **size})
        pretraining.grow(CORPUS, grown, 7, BASE)
        if size != change:
            adapter(ONE)
    with pytest.raises(BadInput, match=f"models/sft/one: made for another base .*{what}"):
        merged()


def test_adapters_of_two_bases(place: Path) -> None:
    adapter(ONE), adapter(TWO)
    edit(TWO / "adapter_config.json", base_model_name_or_path="models/merge/sft")
    with pytest.raises(
        BadInput, match="models/sft/two: trained on models/merge/sft, and models/sft/one on models/"
    ):
        merged([ONE, TWO])


@pytest.mark.parametrize(
    "config",
    [{"use_dora": True}, {"use_rslora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}],
)
def test_an_adapter_that_is_no_plain_lora(place: Path, config: dict[str, Any]) -> None:
    adapter(ONE, **config)
    named = next(iter(config))
    with pytest.raises(BadInput, match=rf"one/adapter_config\.json: {named}: .* no plain LoRA"):
        merged()


def test_an_adapter_of_another_kind(place: Path) -> None:
    adapter(ONE)
    edit(ONE / "adapter_config.json", peft_type="LOHA")
    with pytest.raises(BadInput, match=r"peft_type: .*LOHA.*: no plain LoRA"):
        merged()


def test_what_is_no_adapter_and_what_is_no_base(place: Path) -> None:
    with pytest.raises(BadInput, match="models/sft/one: not an adapter; a link with"):
        merged()
    adapter(ONE)
    with pytest.raises(BadInput, match="models/sft/one: no full model, which has config"):
        merged(base=ONE)
    (BASE / "config.json").unlink()
    with pytest.raises(BadInput, match="models/fetch/base: no full model"):
        merged()


def test_a_base_that_names_its_weights_without_a_prefix(place: Path) -> None:
    from safetensors.torch import save_file

    adapter(ONE)
    usual = merged()
    names = {name: name.removeprefix("model.") for name in weights(BASE)}
    renamed = {names[name]: values for name, values in weights(BASE).items()}
    save_file(renamed, BASE / "model.safetensors", {"format": "pt"})
    found = merged(out="renamed")
    assert apart({names[name]: values for name, values in usual.items()}, found) == 0


def test_an_adapter_that_is_broken(place: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = adapter(ONE) / "adapter_model.safetensors"
    factors = load_file(file)
    next(iter(factors.values()))[:] = math.nan
    save_file(factors, file, {"format": "pt"})
    with pytest.raises(BadInput, match=r"models/sft/one: model\.layers\.0\..* is not finite"):
        merged()
    assert not (MODELS / "merge").exists()


def test_an_adapter_that_is_named_again_adds_nothing() -> None:
    again = SETTINGS.merges["sft"]
    assert again.adapters == ["sft/evol_instruct"]
    assert again.model_copy(update={"third": "sft/orca"}).adapters == [
        "sft/evol_instruct",
        "sft/orca",
    ]


def changed_params(folder: Path, old: str, new: str) -> Params:
    parameters.replace(folder, old, new)
    return params.load(folder)


def test_an_arc_has_two_ends(tmp_path: Path) -> None:
    parameters.copy(tmp_path)
    three = "second: sft/orca\n    third: sft/lamini"
    same = "second: sft/evol_instruct\n    third: sft/evol_instruct"
    assert len(changed_params(tmp_path, same, three).merges["sft"].adapters) == 3
    with pytest.raises(BadInput, match=r"merges\.sft: .*slerp goes between two adapters"):
        changed_params(tmp_path, "method: linear", "method: slerp")
