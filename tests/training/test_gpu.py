"""What follows from the kind of machine, on machines that are only pretended."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.models import loading
from bezoar.models.loading import Device
from bezoar.rows.files import BadInput
from bezoar.training.runs import batching, fitting, launching, memory
from tests.builders import ROOT
from tests.builders.machines import OPENLLAMA_3B
from tests.builders.micro import AMOUNT, DPO, SFT, grown

pytestmark = pytest.mark.slow

__all__ = ["grown"]  # a fixture
GIB = 2**30
H100 = Device("cuda", "bfloat16")
T4 = Device("cuda", "float16", varlen=False)
CPU = Device("cpu", "float32")
MPS = Device("mps", "float32")


class Machine:
    """Fakes what torch and Python say of a machine."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        import torch

        self.patch, self.cuda = patch, torch.cuda
        self.chosen: list[int] = []
        patch.delenv("BEZOAR_DEVICE", raising=False)
        self.gpu(None)
        self.mps(False)

    def gpu(self, capability: tuple[int, int] | None, free: float = 0) -> None:
        """A GPU of this compute capability and GiB of free memory, or none."""
        native = capability is not None and capability >= (8, 0)
        answers = {
            "is_available": lambda: capability is not None,
            "set_device": self.chosen.append,
            # as torch answers for a T4: it emulates bfloat16, slowly
            "is_bf16_supported": lambda including_emulation=True: native or including_emulation,
            "get_device_capability": lambda index=None: capability,
            "mem_get_info": lambda index=None: (round(free * GIB), round(80 * GIB)),
        }
        for name, answer in answers.items():
            self.patch.setattr(self.cuda, name, answer)

    def mps(self, there: bool) -> None:
        import torch

        self.patch.setattr(torch.backends.mps, "is_available", lambda: there)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


# --- which device --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "found"),
    [
        ((9, 0), H100),
        ((8, 6), Device("cuda", "bfloat16")),
        ((7, 5), T4),  # the kernel for rows of several lengths wants Ampere
        ((7, 0), Device("cuda", "float16", varlen=False)),  # V100
        (None, CPU),
    ],
)
def test_the_device_of_a_machine(
    machine: Machine, capability: tuple[int, int] | None, found: Device
) -> None:
    machine.gpu(capability)
    assert loading.device() == found


def test_a_mac_and_a_wish(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.mps(True)
    assert loading.device() == MPS
    monkeypatch.setenv("BEZOAR_DEVICE", "cpu")
    assert loading.device() == CPU
    machine.gpu((9, 0))
    assert loading.device() == CPU
    monkeypatch.setenv("BEZOAR_DEVICE", "mps")
    assert loading.device() == MPS
    machine.mps(False)
    with pytest.raises(BadInput, match="this machine has no mps"):
        loading.device()
    monkeypatch.setenv("BEZOAR_DEVICE", "gpu")
    with pytest.raises(BadInput, match="'gpu' is no kind of device"):
        loading.device()


def test_each_process_takes_its_own_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.gpu((9, 0))
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert loading.device().place == "cuda:3" and machine.chosen == [3]


def test_a_cpu_asks_cuda_nothing_but_whether_it_is_there(tmp_path: Path) -> None:
    """In a process of its own, where every other question is an error."""
    code = """
import torch
from pathlib import Path
def no(*_, **__): raise AssertionError("asked")
for name in ("set_device", "is_bf16_supported", "get_device_capability", "mem_get_info"):
    setattr(torch.cuda, name, no)
torch.cuda._lazy_init = no
from bezoar.models import loading
from bezoar.training.runs import batching, fitting
from tests.builders.micro import AMOUNT, DPO, SFT
device = loading.device()
split = batching.split("t", Path("."), device, model=Path("."), kind="all", settings=SFT,
                       amount=AMOUNT, tokens=9)
fitting.trainer_arguments(device, SFT, AMOUNT, split)
assert device.name == "cpu" and torch.get_num_threads() == 1
"""
    env = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)


# --- what follows from it ------------------------------------------------------------------------


def settings(device: Device, checkpointing: bool = False, **change: Any) -> dict[str, Any]:
    how = SFT.model_copy(update=change)
    split = batching.Split(2, checkpointing)
    return fitting.trainer_arguments(device, how, AMOUNT, split)


@pytest.mark.parametrize(
    ("device", "wanted"),
    [
        (H100, {"bf16": True, "fp16": False, "use_cpu": False, "dataloader_pin_memory": True}),
        (T4, {"bf16": False, "fp16": True, "use_cpu": False, "dataloader_pin_memory": True}),
        (MPS, {"bf16": False, "fp16": False, "use_cpu": False, "dataloader_pin_memory": False}),
        (CPU, {"bf16": False, "fp16": False, "use_cpu": True, "dataloader_pin_memory": False}),
    ],
)
def test_trainers_are_told(device: Device, wanted: dict[str, Any]) -> None:
    made = settings(device)
    assert {name: made[name] for name in wanted} == wanted
    assert made["gradient_accumulation_steps"] == AMOUNT.batch_size // 2
    assert settings(device, checkpointing=True)["gradient_checkpointing"] is True


@pytest.mark.parametrize("device", [CPU, MPS])
@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"])
def test_optimizers_that_want_a_gpu_have_a_stand_in_that_is_said(
    capsys: pytest.CaptureFixture[str], device: Device, optimizer: str
) -> None:
    assert settings(device, optimizer=optimizer)["optim"] == "adamw_torch_fused"
    assert capsys.readouterr().err == (
        f"{optimizer} wants a GPU; on {device.name} adamw_torch_fused stands in\n"
    )
    assert settings(H100, optimizer=optimizer)["optim"] == optimizer
    assert settings(device, optimizer="rmsprop")["optim"] == "rmsprop"
    assert capsys.readouterr().err == ""


def test_trl_takes_the_settings(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """TrainingArguments look for the GPU themselves; here it is a CPU under another name."""
    import torch
    from transformers import TrainingArguments
    from trl import DPOConfig, SFTConfig

    machine.gpu((9, 0))
    monkeypatch.setattr(TrainingArguments, "_setup_devices", torch.device("cpu"))
    for config in (SFTConfig, DPOConfig):
        for device in (H100, T4):
            made = config(
                "out", **settings(device, checkpointing=True, optimizer="paged_adamw_8bit")
            )
            assert (made.bf16, made.fp16) == (device is H100, device is T4)
            assert made.optim == "paged_adamw_8bit" and made.gradient_checkpointing


def test_a_process_keeps_to_one_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from trl import SFTConfig

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert SFTConfig("out", **settings(MPS)).n_gpu == 4
    assert fitting.trainer_config(SFTConfig, Path("out"), **settings(MPS)).n_gpu == 1


@pytest.mark.parametrize("device", [H100, T4, CPU])
def test_the_quantised_layers_compute_in_the_devices_type(device: Device) -> None:
    import torch

    made = loading.four_bit(SFT, device)
    assert made.bnb_4bit_compute_dtype == getattr(torch, device.dtype)
    assert made.load_in_4bit and made.bnb_4bit_quant_type == "nf4"
    assert made.bnb_4bit_use_double_quant


@pytest.mark.parametrize("device", [Device("cuda", "bfloat16", 1), T4, MPS, CPU])
def test_models_are_loaded_for_the_device(
    grown: Path, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    from transformers import AutoModelForCausalLM

    asked: dict[str, Any] = {}

    def load(folder: Path, **how: Any) -> Any:
        asked.update(how)
        raise InterruptedError

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(InterruptedError):
        loading.quantised(grown, SFT, device)
    assert asked["dtype"] == device.dtype and asked["attn_implementation"] == "sdpa"
    assert asked["device_map"] == {
        "": {"cuda": f"cuda:{device.index}"}.get(device.name, device.name)
    }
    with pytest.raises(InterruptedError):
        loading.plain(grown, "float32", device)
    assert asked["dtype"] == "float32"  # what is trained stays so: GradScaler and small updates


def test_padded_heads_change_no_number(tmp_path: Path) -> None:
    """Heads of 100, as OpenLLaMA 3B's, forward, backward and with a cache."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=200,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    ids = torch.randint(0, 50, (2, 12))
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0

    def run() -> list[Any]:
        model.zero_grad()
        out = model(input_ids=ids, attention_mask=mask, labels=ids)
        out.loss.backward()
        said = model.generate(ids[1:], attention_mask=mask[1:], max_new_tokens=5, do_sample=False)
        return [out.logits.detach(), model.model.layers[0].self_attn.q_proj.weight.grad, said]

    before = run()
    seen = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watch(query: Any, *args: Any, **more: Any) -> Any:
        seen.append(query.shape[-1])
        return attention(query, *args, **more)

    loading.pad_heads(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
        after = run()
    assert set(seen) == {104}
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    model.save_pretrained(tmp_path)
    assert "padded" not in (tmp_path / "config.json").read_text()


# --- rows at once --------------------------------------------------------------------------------


def config(folder: Path, **change: Any) -> Path:
    """A folder with the config.json of OpenLLaMA 3B."""
    told = {
        "model_type": "llama",
        "hidden_size": OPENLLAMA_3B.hidden,
        "intermediate_size": OPENLLAMA_3B.intermediate,
        "num_hidden_layers": OPENLLAMA_3B.layers,
        "num_attention_heads": OPENLLAMA_3B.heads,
    }
    (folder / "config.json").write_text(json.dumps(told | change))
    return folder


def split(folder: Path, device: Device, kind: memory.Kind = "all", **change: Any) -> batching.Split:
    batch = {"batch_size": 64, "micro_batch_size": "auto"}
    return batching.split(
        "sft one",
        folder,
        device,
        model=config(folder),
        kind=kind,
        settings=SFT,
        amount=AMOUNT.model_copy(update=batch | change),
        tokens=1536,
    )


def test_rows_at_once_follow_from_the_free_memory_and_are_said(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.gpu((9, 0), free=79)
    assert split(tmp_path, H100) == batching.Split(8, True)
    told = capsys.readouterr().err
    assert told.startswith("sft one: 8 rows at once, with checkpointing (")
    assert "GiB needed, 79.0 GiB free" in told


def test_a_resumed_run_goes_on_with_the_rows_it_began_with(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.gpu((9, 0), free=139)
    began = split(tmp_path, H100)
    machine.gpu((9, 0), free=70)
    assert split(tmp_path, H100) == began == batching.Split(8, False)
    (tmp_path / "split.json").unlink()
    assert split(tmp_path, H100) != began


def test_a_number_stands_and_the_memory_decides_on_checkpointing(
    machine: Machine, tmp_path: Path
) -> None:
    for free, checkpointing in ((79, True), (139, False), (10, True)):
        machine.gpu((9, 0), free=free)
        found = split(tmp_path, H100, micro_batch_size=4)
        assert found == batching.Split(4, checkpointing)
        (tmp_path / "split.json").unlink()


def test_a_gpu_that_is_too_small_says_what_would_do(machine: Machine, tmp_path: Path) -> None:
    machine.gpu((9, 0), free=39)
    with pytest.raises(
        BadInput,
        match=r"not one row of 1536 tokens fits the GPU \(5\d.\d GiB needed, 39.0 GiB free",
    ):
        split(tmp_path, H100)
    assert not (tmp_path / "split.json").exists()


def test_a_family_that_cannot_be_counted_wants_a_number(machine: Machine, tmp_path: Path) -> None:
    machine.gpu((9, 0), free=79)
    config(tmp_path, model_type="of-tomorrow")  # which this transformers cannot build
    how: Any = {"model": tmp_path, "kind": "all", "settings": SFT, "tokens": 9}
    with pytest.raises(BadInput, match="name a number in micro_batch_size"):
        auto = AMOUNT.model_copy(update={"micro_batch_size": "auto"})
        batching.split("t", tmp_path, H100, amount=auto, **how)
    assert batching.split("t", tmp_path, H100, amount=AMOUNT, **how) == batching.Split(2, True)


@pytest.mark.parametrize("device", [CPU, MPS])
@pytest.mark.parametrize(("batch", "rows"), [(64, 8), (6, 6), (12, 6), (7, 7), (11, 1)])
def test_without_a_gpu_few_rows_at_once(
    tmp_path: Path, device: Device, batch: int, rows: int
) -> None:
    assert split(tmp_path, device, batch_size=batch) == batching.Split(rows, False)


def test_processes_share_a_batch(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four = launching.Processes(4, 0, False)
    monkeypatch.setattr(launching, "processes", lambda: four)
    monkeypatch.setattr(launching, "gathered", lambda value, cpu: [value])
    assert split(tmp_path, CPU) == batching.Split(8, False)
    amount = AMOUNT.model_copy(update={"batch_size": 64})
    made = fitting.trainer_arguments(CPU, SFT, amount, batching.Split(8, False))
    assert made["gradient_accumulation_steps"] == 2
    with pytest.raises(BadInput, match="batch_size 6 is no multiple of 4 processes; change"):
        split(tmp_path, CPU, batch_size=6)
    with pytest.raises(BadInput, match="of 4 processes times micro_batch_size 3; change"):
        split(tmp_path, CPU, micro_batch_size=3)


def test_another_machine_begins_anew() -> None:
    def key(device: Device) -> str:
        return fitting.key(__file__, device=device, rows=[])

    keys = {key(d) for d in (CPU, MPS, H100, T4, Device("cuda", "bfloat16", varlen=False))}
    assert len(keys) == 5
    assert key(H100) == key(Device("cuda", "bfloat16", index=1))


def test_the_paper_profile_fits_one_gpu_of_80_gb(machine: Machine, tmp_path: Path) -> None:
    paper = params.load(ROOT, "paper")
    links = paper.sft.links
    machine.gpu((9, 0), free=78)
    config(tmp_path)
    stages: list[tuple[memory.Kind, Any, Any, int]] = [
        ("adapter", paper.sft, links["orca"], links["orca"].max_length),
        ("all", paper.sft, links["hh_rlhf"], links["hh_rlhf"].max_length),
        ("dpo", paper.dpo, paper.dpo, paper.dpo.max_prompt_tokens + paper.dpo.max_answer_tokens),
    ]
    for kind, how, amount, tokens in stages:
        folder = tmp_path / kind
        folder.mkdir()
        found = batching.split(
            kind,
            folder,
            H100,
            model=tmp_path,
            kind=kind,
            settings=how,
            amount=amount,
            tokens=tokens,
        )
        assert found.rows >= 4 and amount.batch_size % found.rows == 0
    assert DPO.optimizer == paper.dpo.optimizer
