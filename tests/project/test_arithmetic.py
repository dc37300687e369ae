"""The same bits on every x86-64 CPU with AVX2, whatever it can beyond that."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bezoar import arithmetic, params
from tests.builders import parameters
from tests.conftest import ROOT, SETTLE, from_yaml

RECORDED = ROOT / "tests/bits/hashes.json"
able = pytest.mark.skipif(not arithmetic.able("avx2"), reason="the CPU has no AVX2")
# What a user may have set: each of them changes the bits where `cpu` is left empty
CONTRARY = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "AVX512",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "NPY_ENABLE_CPU_FEATURES": "X86_V4",
    "OPENBLAS_CORETYPE": "Nehalem",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "2",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512DQ",
}


def bits(*which: str, **environment: str) -> dict[str, str]:
    """The hashes of what a fresh process computes."""
    own = {name: value for name, value in os.environ.items() if name not in CONTRARY}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bits", *which],
        cwd=ROOT,
        env=own | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hashes: dict[str, str] = json.loads(done.stdout)
    return hashes


def same(computed: dict[str, str]) -> None:
    """Fail with the kinds of arithmetic whose bits are not the recorded ones."""
    recorded = json.loads(RECORDED.read_text())
    off = sorted(kind for kind, value in computed.items() if recorded["hashes"][kind] != value)
    assert not off, (
        f"other bits than recorded in {', '.join(off)}: on {arithmetic.model()}, recorded on "
        f"{recorded['cpu']}. Where libraries were updated: python -m tests.bits record"
    )


@able
@pytest.mark.slow
def test_each_kind_of_arithmetic_gives_the_recorded_bits() -> None:
    computed = bits()
    same(computed)
    assert set(computed) == set(json.loads(RECORDED.read_text())["hashes"])


@able
@pytest.mark.slow
def test_what_a_user_has_set_changes_no_bit() -> None:
    same(bits("quick", **CONTRARY))


@able
@pytest.mark.slow
def test_left_to_themselves_libraries_compute_other_bits_on_old_instructions() -> None:
    """The comparison can fail: what `cpu` sets is what makes the bits equal."""
    computed = bits("own", ATEN_CPU_CAPABILITY="default")
    recorded = json.loads(RECORDED.read_text())["hashes"]
    assert computed["random_numbers"] != recorded["random_numbers"]
    assert computed["functions"] != recorded["functions"]


@able
def test_numpy_takes_the_settings_without_a_word() -> None:
    code = (
        "from bezoar import arithmetic; arithmetic.settle('avx2'); import numpy;"
        "from numpy._core._multiarray_umath import __cpu_features__ as features;"
        "assert features['AVX2'] and not features['X86_V4'] and not features['AVX512F']"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


PRODUCTS = """
from bezoar import arithmetic
arithmetic.settle("avx2")
import torch
from torch.nn.functional import linear

def results(kind):
    weights = [torch.arange(n, dtype=kind).sin().view(*shape).requires_grad_()
               for n, shape in ((60, (2, 5, 6)), (42, (7, 6)), (7, (7,)))]
    rows, matrix, bias = weights
    sums = [linear(rows, matrix, bias), linear(rows, matrix), rows[0] @ rows[1].T]
    sums += [rows[0, :, 1:3] @ rows[1, :2]]
    sums += [torch.addmm(bias, rows[0], matrix.T, beta=0.5, alpha=2), matrix[:, :0] @ matrix[:0]]
    sum(part.square().sum() for part in sums).backward()
    return [*sums, *(each.grad for each in weights)]

plain, exact = results(torch.float32), results(torch.float64)
arithmetic.products()
for mine, torchs, right in zip(results(torch.float32), plain, exact, strict=True):
    assert mine.dtype == torchs.dtype and mine.shape == torchs.shape
    torch.testing.assert_close(mine.double(), right, rtol=1e-4, atol=1e-5)
assert all(map(torch.equal, results(torch.float64), exact))
for right in (torch.ones(2, 3), torch.ones(3, 2).double()):
    try:
        torch.ones(2, 3) @ right
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.slow
@able
def test_products_by_openblas_are_those_of_torch_and_so_are_its_errors() -> None:
    command = [sys.executable, "-W", "error", "-c", PRODUCTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)",
        "expected m1 and m2 to have the same dtype, but got: float != double",
    ]


@pytest.fixture(autouse=True)
def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What conftest.py takes from all other tests."""
    monkeypatch.setattr(arithmetic, "settle", SETTLE)


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing, and that `settle` may fill."""
    for name in {*arithmetic.SETTINGS["avx2"], *arithmetic.CONTRARY}:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@able
def test_the_parameter_wins_over_a_variable_and_a_line_says_so(
    unset: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX512")
    monkeypatch.setenv("NPY_ENABLE_CPU_FEATURES", "X86_V4")
    arithmetic.settle(None)
    assert os.environ["MKL_CBWR"] == "AVX512" and arithmetic.in_force() is None
    arithmetic.settle("avx2")
    assert arithmetic.in_force() == "avx2" and "NPY_ENABLE_CPU_FEATURES" not in os.environ
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("the profile says `cpu: avx2`" in line for line in lines)
    arithmetic.settle("avx2")  # as a child does
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("machine", "flags"), [("x86_64", "fpu sse2 avx"), ("aarch64", "avx2")])
def test_a_cpu_that_lacks_the_instructions_is_left_alone(
    machine: str, flags: str, unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(arithmetic, "_line", lambda _: flags)
    arithmetic.settle("avx2")
    assert "ATEN_CPU_CAPABILITY" not in os.environ and arithmetic.in_force() is None


def test_a_system_without_cpuinfo_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.setattr(Path, "read_text", absent)
    assert arithmetic.flags() == set() and arithmetic.model()
    arithmetic.settle("avx2")


@pytest.mark.slow
def test_no_stage_loads_a_library_before_it_begins() -> None:
    """They read their variables when they are loaded."""
    libraries = {"torch", "numpy", "scipy", "sklearn", "bitsandbytes", "transformers", "pyarrow"}
    names = sorted(path.stem for path in (ROOT / "stages").glob("[a-z]*.py"))
    assert len(names) > 10
    code = f"import sys; from stages import {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert libraries & set(done.stdout.split()) == set()
    for name in names:
        source = (ROOT / "stages" / f"{name}.py").read_text()
        assert re.search(r"^def main\(.*\n(?:    \"\"\".*\n)?    work\.begin\(\)", source, re.M), (
            name
        )


def test_a_stage_that_computes_depends_on_how() -> None:
    stages: dict[str, Any] = from_yaml((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        does = stage.get("do", stage)
        module = "bezoar/arithmetic.py" in does["deps"]
        assert module == ("profiles/${profile}.yaml:cpu" in parameters.names(does)), name
        computes = {"bezoar/training/runs", "bezoar/evaluating"} & {*does["deps"]}
        computes = computes or name == "fetch"  # grows a base
        computes = computes or name.startswith("filter")  # contamination's vectors
        assert module or not computes, name


def test_the_profiles_of_a_cpu_alone_have_it() -> None:
    wanted = {"embedded": "avx2", "local": "avx2", "paper": None, "small": None}
    for profile, cpu in wanted.items():
        assert params.load(ROOT, profile).cpu == cpu
