"""Has x86-64 CPUs of several kinds and makers compute the same bits.

The libraries choose their instructions by the CPU they find: MKL by its maker too, others by the
width of its vectors. Each choice adds up in another order, and training carries the last bit of a
sum into every weight. `cpu: avx2` of a profile has them choose alike on every CPU with AVX2.
"""

import os
import platform
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

Instructions = Literal["avx2"]

# A library reads its variable when it is loaded, so all are set before any library is.
SETTINGS: Mapping[Instructions, Mapping[str, str]] = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels and random numbers
        # MKL has AVX2 kernels for Intel's CPUs and others for AMD's, where it ignores "AVX2". This
        # is the one way of computing that it has on both. It knows no more than SSE2, so that
        # `products` gives most of its work to OpenBLAS.
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",  # float32 is never rounded to bfloat16 on the way
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "OPENBLAS_CORETYPE": "Haswell",  # numpy and scipy bring one each
        # Another number of threads adds up a shared sum in another order.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
}
# numpy takes either its list of features to leave out or one of those to use, and stops at both.
CONTRARY = {"NPY_ENABLE_CPU_FEATURES"}
_WHY = "the profile says `cpu: {}`; leave `cpu` empty there to choose yourself"
# The names that Linux has for the instructions that code for AVX2 uses.
NEEDED = {"avx2": {"avx2", "bmi2", "f16c", "fma"}}


def settle(instructions: Instructions | None) -> None:
    """Have this process and its children compute by `instructions`, before a library is loaded.

    Each library chooses for itself if the CPU has no such instructions, or `instructions` is None.

    The parameter wins over a variable of the user's, and a line says so, because results are stored
    under the parameter's name.
    """
    if instructions is None or not able(instructions):
        return
    for name in CONTRARY & os.environ.keys():
        print(f"{name} is set aside: {_WHY.format(instructions)}", file=sys.stderr)
        del os.environ[name]
    for name, value in SETTINGS[instructions].items():
        current = os.environ.get(name, value)
        if current != value:
            print(f"{name}={current} is set aside: {_WHY.format(instructions)}", file=sys.stderr)
        os.environ[name] = value


def in_force() -> Instructions | None:
    """Return the instructions of this process, or None where each library chooses for itself."""
    for instructions, settings in SETTINGS.items():
        if able(instructions) and settings.items() <= os.environ.items():
            return instructions
    return None


@cache
def products() -> None:
    """Have torch multiply float32 matrices on a CPU by numpy's OpenBLAS, where `cpu` is in force.

    OpenBLAS has the same kernels for AVX2 on every maker's CPU. It is three times as fast as the
    one way that torch's MKL has on all of them. Other work of MKL's, such as attention, stays with
    MKL.
    """
    if in_force() is None:
        return
    import numpy
    import torch

    def product(left: Any, right: Any) -> Any:
        # Anything but float32 matrices that fit is left to torch, which also says what is wrong.
        if not _multipliable(left, right):
            return torch.ops.aten.mm.out(left, right, out=left.new_empty(0))
        result = left.new_empty(left.shape[0], right.shape[1])
        numpy.matmul(_array(left), _array(right), out=result.numpy())
        return result

    def sum_and_product(term: Any, left: Any, right: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
        result = product(left, right)
        if alpha != 1:
            result.mul_(alpha)
        return result.add_(term, alpha=beta)

    make: Any = torch.library.Library
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        for name, kernel in (("mm", product), ("addmm", sum_and_product)):
            _LIBRARIES.append(library := make("aten", "IMPL"))
            library.impl(name, kernel, "CPU")


_LIBRARIES: list[Any] = []  # torch takes a kernel back when its library is freed


def _multipliable(left: Any, right: Any) -> bool:
    """Say whether two tensors are float32 matrices that fit each other, and hold numbers at all."""
    numbers = str(left.dtype) == str(right.dtype) == "torch.float32"
    matrices = left.ndim == right.ndim == 2 and left.shape[1] == right.shape[0]
    return numbers and matrices and left.numel() > 0 and right.numel() > 0


def _array(matrix: Any) -> Any:
    """Return the numbers of a tensor [rows, columns] as numpy's, laid out as BLAS can read them."""
    packed = matrix.is_contiguous() or matrix.t().is_contiguous()
    return (matrix if packed else matrix.contiguous()).detach().numpy()


def able(instructions: Instructions) -> bool:
    """Say whether this machine has these instructions.

    A library that is told to use instructions which the CPU lacks dies.
    """
    return NEEDED[instructions] <= flags()


def flags() -> set[str]:
    """Return the features of an x86-64 CPU under Linux, as the system names them, or none."""
    if platform.machine() != "x86_64":
        return set()
    return set(_line("flags").split())


def model() -> str:
    """Return the CPU's name for itself."""
    return _line("model name") or platform.processor() or platform.machine()


def _line(name: str) -> str:
    """Return what the system says of the first CPU under `name`, or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
