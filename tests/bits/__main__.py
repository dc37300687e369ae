"""Run a small piece of each kind of arithmetic of the pipeline, and print a hash of each as JSON.

`python -m tests.bits` runs all, `quick` those that train nothing, `own` the same with each library
as it chooses; `record` writes hashes.json, where the pinned libraries have changed. Run it from the
project's folder. A CPU that computes other bits prints other hashes.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bezoar import arithmetic
from bezoar.rows import files
from tests.builders import ROOT

HASHES = Path(__file__).parent / "hashes.json"
# rows, inner length and columns of products in the demo, and some that fill no vector
SHAPES = [(1, 128, 384), (7, 128, 768), (33, 65, 129), (64, 128, 128), (512, 384, 128)]


def digest(*parts: Any) -> str:
    """16 hex digits over the bytes of tensors and arrays, or of what JSON can say."""
    total = hashlib.sha256()
    for part in parts:
        array = part.detach().contiguous().numpy() if hasattr(part, "detach") else part
        total.update(array.tobytes() if hasattr(array, "tobytes") else json.dumps(part).encode())
    return total.hexdigest()[:16]


def even(*shape: int) -> Any:
    """A tensor of numbers spread over -0.5 to 0.5, drawn by no generator."""
    import torch

    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return ((count * 0.754877666 % 1) - 0.5).float().view(shape)


def random_numbers() -> str:
    import torch

    torch.manual_seed(7)
    drawn = [torch.randn(64, 64), torch.randn(5), torch.rand(77), torch.randperm(50)]
    return digest(*drawn, torch.empty(99).exponential_(), torch.multinomial(torch.rand(50), 9))


def dropout() -> str:
    import torch

    torch.manual_seed(7)
    return digest(
        torch.nn.functional.dropout(even(123, 45), 0.1), torch.full((99,), 0.3).bernoulli()
    )


def products() -> str:
    results = []
    for rows, inner, columns in SHAPES:
        left, right = even(rows, inner), even(inner, columns)
        results += [left @ right, left @ even(columns, inner).T, even(inner, rows).T @ right]
    return digest(*results, even(16, 64, 16) @ even(16, 16, 64), even(300, 50) @ even(50))


def attention() -> str:
    import torch

    heads = even(4, 8, 64, 16).requires_grad_()
    attended = torch.nn.functional.scaled_dot_product_attention(
        heads, heads * 1.3, heads * 0.7, is_causal=True
    )
    attended.square().sum().backward()
    return digest(attended, heads.grad)


def functions() -> str:
    import torch

    x = even(37, 129) * 8
    several = [x.exp(), x.abs().log(), x.tanh(), x.sin(), x.cos(), x.sigmoid()]
    several += [
        torch.nn.functional.silu(x),
        x.softmax(-1),
        x.log_softmax(-1),
        x.erf(),
        x.abs().rsqrt(),
    ]
    return digest(*several, x.sum(), x.sum(0), x.mean(1), x.norm(), x.var(), x.cumsum(1))


def optimizers() -> str:
    import torch

    from bezoar.sources import pretraining
    from bezoar.training.runs import fitting

    matrix = torch.nn.Parameter(even(128, 384))
    momenta = [torch.zeros(128, 384)]
    others = [torch.nn.Parameter(even(129) * scale) for scale in (1.0, 2.0)]
    steppers = [
        torch.optim.AdamW(others[:1], lr=0.01, fused=True),
        fitting.rmsprop()(others[1:], lr=0.01),
    ]
    for step in range(3):
        matrix.grad = even(128, 384) * (step + 1)
        pretraining._muon([matrix], momenta, 0.02, 0.01)
        for other in others:
            other.grad = even(129) ** (step + 1)
        torch.nn.utils.clip_grad_norm_([matrix, *others], 1.0)
        for stepper in steppers:
            stepper.step()
    return digest(matrix, *others)


def four_bits() -> str:
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(
        even(128, 384), quant_type="nf4", compress_statistics=True
    )
    return digest(packed, state.absmax, functional.dequantize_4bit(packed, state))


def arrays() -> str:
    import numpy
    from scipy.special import expit

    x = even(500).numpy().astype(numpy.float64)
    square = x[:400].reshape(20, 20)
    drawn = numpy.random.default_rng(7).standard_normal(99)
    several = [numpy.exp(x), numpy.log(numpy.abs(x)), numpy.sin(x), expit(x), square @ square]
    return digest(*several, drawn, x.sum(), x.mean(), numpy.linalg.solve(square, x[:20]))


QUICK: list[Callable[[], str]] = [
    random_numbers,
    dropout,
    products,
    attention,
    functions,
    optimizers,
    four_bits,
    arrays,
]


def trained() -> dict[str, str]:
    """Each link of a chain that is grown, trained, merged, aligned and asked, all in small."""
    from bezoar import work
    from bezoar.models import generation, loading
    from bezoar.sources import pretraining
    from bezoar.training import dpo, merge, sft
    from tests.builders import micro as small
    from tests.builders.micro import CORPUS, SIZE

    models, results = Path("models"), {}
    pretraining.grow(CORPUS, SIZE.model_copy(update={"steps": 20}), 7, models / "fetch/base")
    results["base"] = work.content(models / "fetch/base/model.safetensors")
    rows, held_out, amount = small.ROWS, small.HELD_OUT, small.AMOUNT
    for name, link in (("adapter", small.ADAPTER), ("all", small.ALL)):
        sft.sft(name, link, rows, held_out, settings=small.SFT, amount=amount, models=models)
        (weights,) = (models / "sft" / name).glob("*.safetensors")
        results[f"sft_{name}"] = work.content(weights)
    base = models / "fetch/base"
    adapters, how = [models / "sft/adapter"], small.SETTINGS.merge
    merge.merge(base, adapters, how, small.SFT, models / "merge")
    results["merge"] = work.content(models / "merge/model.safetensors")
    dpo.dpo(
        models / "sft/all", small.PAIRS, small.PAIRS[::4], settings=small.DPO, out=models / "dpo"
    )
    results["dpo"] = work.content(models / "dpo/model.safetensors")
    model, tokenizer = loading.load(models / "dpo", base, small.SFT)
    prompts = [tokenizer(text)["input_ids"] for text, *_ in rows[::3]]
    draws = [generation.Draw(0.7, str(seed)) for seed in range(len(prompts))]
    told = generation.generate(
        model, tokenizer, prompts, max_new_tokens=12, batch_size=4, draws=draws
    )
    return results | {"answers": digest([each.text for each in told])}


def counted() -> dict[str, str]:
    """What no weight is: the cosines of contamination, redrawn intervals, the fit over lengths."""
    from bezoar import params, world
    from bezoar.filtering import contamination
    from bezoar.filtering.contamination import Text
    from bezoar.judging import differences, pairwise

    steps = params.load(ROOT).filter.contamination.fuzzy
    seeds = world.seeds(60, 7)
    texts = [Text("quiz", seed.id, seed.instruction, ()) for seed in seeds[:20]]
    cosines = list(contamination._reworded_matches(seeds, texts, steps))
    worths = [(n % 9, n * 0.37 % 1) for n in range(200)]
    points = [[(float(n % 2), (n * 0.77 % 2) - 1), (0.5, None)] for n in range(40)]
    fit = pairwise._at_equal_length(points)
    return {
        "cosines": digest([(row, at, cosine.hex()) for row, at, cosine in cosines]),
        "intervals": digest(differences.bootstrap(worths, 7)),
        "lengths": digest(fit.hex()),
    }


def main(which: str = "all") -> None:
    if which != "own":
        arithmetic.settle("avx2")
    import torch

    torch.set_num_threads(1)
    arithmetic.products()
    hashes = {piece.__name__: piece() for piece in QUICK}
    if which in ("all", "record"):
        os.environ["BEZOAR_WORK"] = tempfile.mkdtemp()
        os.chdir(os.environ["BEZOAR_WORK"])
        hashes |= counted() | trained()
    if which == "record":
        files.write_json(HASHES, {"cpu": arithmetic.model(), "hashes": hashes})
    print(json.dumps(hashes))


if __name__ == "__main__":
    main(*sys.argv[1:])
