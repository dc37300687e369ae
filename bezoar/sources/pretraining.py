"""Grows a tiny Llama from nothing: the base model of a profile that must not download one.

A byte-level BPE tokenizer and a two-layer decoder are trained on a small corpus. One CPU thread
takes about a minute. So short a run learns facts thanks to Muon on the layers' matrices and a wide
initialisation. AdamW alone, at the usual 0.02, was still at chance after as many steps.
"""

import math
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bezoar import arithmetic, work
from bezoar.params import GrownBase
from bezoar.rows import chat
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message
from bezoar.work.progress import bar

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def grow(corpus: Sequence[str], size: GrownBase, seed: int, out: Path) -> None:
    """Train a tokenizer and a Llama on `corpus` (documents) and leave them at `out`, in the layout
    that plain `AutoModelForCausalLM` and `AutoTokenizer` load.

    Equal arguments and library versions give equal bytes, on every CPU where the profile's `cpu`
    is in force. A grown base stays in the work folder, so that the same call only copies it the
    next time. BadInput: a corpus or a size that cannot be trained.
    """
    if size.hidden_size % size.heads:
        raise BadInput(
            f"fetch.base.hidden_size: {size.hidden_size} is no multiple of {size.heads} heads"
        )
    key = work.fingerprint(
        corpus=list(corpus),
        size=size.model_dump(),
        seed=seed,
        template=_template_text(),
        code=work.code(__file__),
        versions=[version(name) for name in ("torch", "transformers", "tokenizers")],
        cpu=arithmetic.in_force(),
    )
    with work.scratch("fetch", key) as folder:
        base = folder / "base"
        if not base.is_dir():
            from transformers.utils import logging

            # Saved under another name first: a run that is killed leaves no half a base behind.
            part = folder / "part"
            shutil.rmtree(part, ignore_errors=True)
            tokenizer = _tokenizer(corpus, size)
            model = _train(_blocks(tokenizer, corpus, size.sequence), tokenizer, size, seed)
            logging.disable_progress_bar()
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            part.replace(base)
        work.publish(base, out)


def _template_text() -> str:
    """Return the chat template with an empty question. The tokenizer learns from it too: these
    words stand in every prompt, so they should be few tokens."""
    return chat.prompt([Message(role="user", content="")])


def _tokenizer(corpus: Sequence[str], size: GrownBase) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    template = [_template_text()] * max(1, len(corpus) // 10)
    tokenizer.train_from_iterator([*corpus, *template], trainer)
    # The tokenizer adds BOS to every text. It adds no EOS, which training puts at the end of an
    # answer, as its learnt end.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        model_max_length=size.positions,
    )
    fast.chat_template = chat.template(fast)
    return fast


def _blocks(tokenizer: Any, corpus: Sequence[str], sequence: int) -> Any:
    """Return the corpus as one stream of token ids, cut into rows: an int64 tensor
    [rows, sequence]. BadInput: it does not fill a row."""
    import torch

    stream = []
    for ids in tokenizer(list(corpus))["input_ids"]:
        stream += [*ids, tokenizer.eos_token_id]
    rows = len(stream) // sequence
    if not rows:
        raise BadInput(
            f"fetch.base.documents: {len(corpus)} documents hold {len(stream)} tokens, fewer than "
            f"one sequence of {sequence}; give more documents"
        )
    return torch.tensor(stream[: rows * sequence]).view(rows, sequence)


def _train(rows: Any, tokenizer: Any, size: GrownBase, seed: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    # Another number of threads would add in another order, and so give other bytes.
    torch.set_num_threads(1)
    arithmetic.products()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=size.positions,
        initializer_range=size.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: Any = LlamaForCausalLM(config)
    # Muon trains the matrices of the layers. AdamW trains the embedding and the norms.
    matrices: list[Any] = []
    others: list[Any] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and ".layers." in name else others).append(parameter)
    momenta = [torch.zeros_like(matrix) for matrix in matrices]
    adamw = torch.optim.AdamW(
        others,
        lr=size.adamw_lr,
        betas=(0.9, size.adamw_beta2),
        weight_decay=size.weight_decay,
        fused=True,
    )

    def pace(step: int) -> float:
        """Return the factor of the learning rate at a step: linear warm-up times half a cosine."""
        rise = min(1.0, (step + 1) / size.warmup_steps)
        return rise * 0.5 * (1 + math.cos(math.pi * step / size.steps))

    scheduler = torch.optim.lr_scheduler.LambdaLR(adamw, pace)
    order = torch.Generator().manual_seed(seed)
    queue = torch.empty(0, dtype=torch.int64)
    with bar("growing the base", size.steps) as advance:
        for step in range(size.steps):
            while len(queue) < size.batch_size:
                queue = torch.cat([queue, torch.randperm(len(rows), generator=order)])
            # The queue has shuffled row numbers. What a pass leaves over comes before the next one.
            taken, queue = queue[: size.batch_size], queue[size.batch_size :]
            batch = rows[taken]
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            if not math.isfinite(loss.item()):
                raise BadInput(
                    f"fetch.base: the loss is {loss.item()} at step {step + 1}; lower "
                    "fetch.base.muon_lr or fetch.base.adamw_lr"
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), size.clip)
            _muon(matrices, momenta, size.muon_lr * pace(step), size.weight_decay)
            adamw.step()
            scheduler.step()
            model.zero_grad(set_to_none=True)
            advance(1)
    return model.eval()


MOMENTUM = 0.95  # the default of torch.optim.Muon
QUINTIC = (3.4445, -4.7750, 2.0315)  # the coefficients of its Newton-Schulz iteration


def _muon(matrices: list[Any], momenta: list[Any], rate: float, decay: float) -> None:
    """Take one step of Muon on `matrices` along their gradients, and update `momenta`.

    It is the step of `torch.optim.Muon`, computed in float32. Torch computes the iteration in
    bfloat16. A CPU without bfloat16 emulates that. Growing the base took three times as long there,
    and gave other weights than on a CPU that has it.
    """
    import torch

    with torch.no_grad():
        for matrix, momentum in zip(matrices, momenta, strict=True):
            momentum.lerp_(matrix.grad, 1 - MOMENTUM)
            # Nesterov's momentum looks one step ahead: it mixes the gradient in once more.
            direction = _orthogonal(matrix.grad.lerp(momentum, MOMENTUM))
            rows, columns = matrix.shape
            matrix.mul_(1 - rate * decay)
            matrix.add_(direction, alpha=-rate * math.sqrt(max(1, rows / columns)))


def _orthogonal(matrix: Any) -> Any:
    """Push every singular value of `matrix` towards 1, by five steps of Newton-Schulz."""
    import torch

    a, b, c = QUINTIC
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
