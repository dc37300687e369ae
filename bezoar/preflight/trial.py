"""The rehearsal of a base: a small copy of its kind, with its own tokenizer, goes through all later
stages.

It calls the functions that they call, so a kind that cannot work is found here, before hours of
training. `python -m bezoar.preflight.trial` is its process, which preflight/bases.py starts.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bezoar import params, work
from bezoar.models import generation, loading, small
from bezoar.params import ALL_LINEAR, Link, LmEval, MergeStage, Params, arguments
from bezoar.preflight.bases import ANOTHER, CHARACTERS
from bezoar.rows import chat, files
from bezoar.rows.files import BadInput
from bezoar.rows.records import Item, Message
from bezoar.sources import tokenizer as of_tokenizers
from bezoar.sources import weights as of_files

# Standard deviations that logits may be off in float32 where they should be equal.
LARGEST = 4e-3
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "lm_eval", "tokenizers")
# Rows that are learnt in one step, and answered. They are short, because every token of a large
# vocabulary is scored, and longer than a window of the small copy. The questions begin alike.
ROWS = (
    ("Question: Name a river. Answer: ", "The Danube."),
    ("Question: Name a river, and say where it ends. Answer: ", "The Rhine. In the North Sea."),
    ("Question: Count to three. Answer: ", "One, two, three."),
    ("Question: Say yes or no. Answer: ", "No."),
)


def main(folder: str, report: str, home: str, profile: str | None = None) -> None:
    """Rehearse the base at `folder`, and write the notes or the refusal to `report`. Parts that
    passed before are recorded at `home`, and are not repeated."""
    work.die_with_parent()
    outcome: dict[str, Any] = {"refused": "", "notes": []}
    keys = (Path(home, "rehearsals", f"{key}.json") for key in _keys(Path(folder), profile))
    with tempfile.TemporaryDirectory() as scratch:
        try:
            outcome["notes"] = _notes(Path(folder), Path(scratch), profile, *keys)
        except BadInput as error:
            outcome["refused"] = (
                str(error).removeprefix("error: ").replace(f"{scratch}/files: ", "")
            )
    files.write_json(Path(report), outcome)


def _notes(folder: Path, scratch: Path, profile: str | None, trial: Path, weights: Path) -> Any:
    """Return the notes on a base, out of the records `trial` and `weights` where it passed
    before."""
    records = [weights, trial] if any(folder.glob("*.safetensors")) else [trial]
    if not all(path.exists() for path in records):
        loading.quiet()
        rehearsal = Rehearsal(folder, scratch, params.load(profile=profile))
        for path in records:
            if not path.exists():
                files.write_json(path, rehearsal.fit() if path == weights else rehearsal.notes())
    notes: list[str] = []
    for path in records:
        lines: Any = files.read_json(path)
        notes += lines
    return notes


def _keys(folder: Path, profile: str | None) -> tuple[str, str]:
    """Return two keys. The first, of a trial, is equal for equal configurations, tokenizers,
    numbers, code and libraries. The second, of weights that fit, wants equal names and sizes of
    their files too."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    tensors = [path for path in paths if path.suffix == ".safetensors"]
    read = [path for path in paths if path.suffix in (".json", ".model", ".txt", ".jinja")]
    p = params.load(profile=profile)
    content = {
        "files": [work.content(path) for path in read if path.name != "source.json"],
        "numbers": [p.sft.model_dump(), p.merge.model_dump(), p.dpo.model_dump()],
        "code": work.code(*sorted(Path(__file__).parents[1].rglob("*.py"))),
        "versions": [version(name) for name in LIBRARIES],
    }
    sizes = [(path.name, path.stat().st_size) for path in tensors]
    return work.fingerprint(**content), work.fingerprint(**content, weights=sizes)


class Rehearsal:
    """One base, and the models that are made of its small copy below `models`."""

    def __init__(self, folder: Path, scratch: Path, p: Params) -> None:
        self.folder, self.files = folder, scratch / "files"
        self.models, self.p = scratch / "models", p
        self.files.mkdir()
        for path in folder.iterdir():
            if path.is_file() and path.name != "source.json" and "safetensors" not in path.name:
                shutil.copyfile(path, self.files / path.name)
        of_files.mend(self.files)  # as fetch does
        self.base = self.models / "fetch/base"
        self.note_lines: list[str] = []
        self.config = look(self.files)
        self.kind = self.config.model_type
        self.link = Link(weights="adapter", base="fetch/base", start="fetch/base", data="fetch/x")
        first = next(iter(p.sft.links.values()))
        self.amount = first.model_copy(
            update={
                "runs": 1,
                "epochs": 1,
                "batch_size": 4,
                "micro_batch_size": 2,
                # High, so that one step shows in the logits.
                "learning_rate": 1e-2,
                "warmup_steps": 0,
                "eval_limit": None,
            }
        )

    def notes(self) -> list[str]:
        """Go through all steps, and return notes on the base, a line each."""
        of_tokenizers.account(self.files, str(self.files))  # as fetch does
        with self._step("its small copy cannot be made"):
            self.copy()
        with self._step("it cannot be read as text is read"):
            self.read()
        with self._step("4-bit loading and LoRA fail"):
            self.quantise()
        with self._step("a step of QLoRA fails"):
            self.learn()
        with self._step("its merge fails"):
            self.merge()
        with self._step("a step on all of its weights fails"):
            self.learn_all()
        with self._step("a step of DPO fails"):
            self.prefer()
        with self._step("it cannot write answers"):
            self.answer()
        with self._step("the harness cannot score it"):
            self.score()
        return self.note_lines

    def fit(self) -> list[str]:
        """See that the files hold the tensors that the configuration wants, and return notes on
        them."""
        # Beside the small copy, which must not get these weights.
        full_copy = self.models / "whole"
        shutil.copytree(self.files, full_copy)
        for path in self.folder.glob("*.safetensors*"):
            (full_copy / path.name).symlink_to(path.resolve())
        with self._step("its weights cannot be loaded"):
            return fit(full_copy, self.p)

    @contextmanager
    def _step(self, failed: str) -> Iterator[None]:
        """Turn any error that a kind of model causes into one line."""
        started = time.monotonic()
        try:
            yield
        except BadInput as error:
            words = str(error).removeprefix("error: ")
            for folder in (self.base, self.models / "whole"):
                words = words.replace(str(folder), "").strip(": ")
            reason, _, do = words.replace(f"{self.models}/", "models/").partition("; ")
            raise BadInput(f"{_a(self.kind)}: {failed} ({reason}); {do or ANOTHER}") from None
        except Exception as error:
            if "BEZOAR_DEBUG" in os.environ:
                raise
            words = " ".join(str(error).split())[:CHARACTERS] or type(error).__name__
            raise BadInput(f"{_a(self.kind)}: {failed} ({words}); {ANOTHER}") from None
        finally:
            if "BEZOAR_DEBUG" in os.environ:
                print(f"{failed}: {time.monotonic() - started:.1f} s", file=sys.stderr)

    # --- the steps -------------------------------------------------------------------------------

    def copy(self) -> None:
        """Save a small copy with the base's own tokenizer, as fetch leaves a base."""
        config = small.shrink(self.config)
        small.build(config).save_pretrained(self.base)
        for path in self.files.iterdir():
            if path.name != "config.json":
                shutil.copyfile(path, self.base / path.name)
        self.tokenizer = loading.tokenizer(self.base)
        self.rows = list(ROWS)
        self.prompts = chat.ids(self.tokenizer, [prompt for prompt, _ in ROWS])
        talk = chat.prompt([Message(role="user", content=ROWS[0][0])])
        tokens = len(chat.ids(self.tokenizer, [talk])[0])
        if (room := loading.context(config)) < 2 * tokens:
            raise BadInput(
                f"it takes {room} tokens at once, and a short question has {tokens} in the chat "
                "template; choose a base with a longer context"
            )

    def read(self) -> None:
        """See that the later part of a text does not change the logits of the earlier part."""
        import torch

        model = loading.plain(self.base, "float32", loading.device()).eval()
        ids = self.prompts[-1]
        # Only the last three tokens differ, so the logits before them must not.
        altered = [*ids[:-3], *ids[:3]]
        with torch.inference_mode():
            first, second = (
                model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, :-4]
                for sequence in (ids, altered)
            )
        if _distance(first, second) > LARGEST:
            raise BadInput(
                "what stands later in a text changes what comes before: no causal language model"
            )

    def quantise(self) -> None:
        """Note the linear layers that are not in 4 bits, and those that should have adapters and
        have none."""
        from bitsandbytes.nn import Linear4bit
        from peft.tuners.lora import LoraLayer
        from torch.nn import Linear
        from transformers.pytorch_utils import Conv1D

        from bezoar.training import sft

        device = loading.device()
        model = sft.starting_model(self.link, self.base, self.base, self.p.sft, device)
        causal = model.get_base_model()
        head = causal.get_output_embeddings()
        adapted = [m for m in causal.modules() if isinstance(m, LoraLayer)]
        layers = {id(m.base_layer) for m in adapted} | {id(head)}
        of_adapters = {
            id(part) for m in adapted for part in m.modules() if part is not m.base_layer
        }
        linear = {
            name: m
            for name, m in causal.named_modules()
            if isinstance(m, Linear | Conv1D) and id(m) not in of_adapters | {id(head)}
        }
        plain = [name for name, m in linear.items() if not isinstance(m, Linear4bit)]
        bare = [name for name, m in linear.items() if id(m) not in layers]
        # Not all layers are to have an adapter then, but some of each block.
        if self.p.sft.target_modules != ALL_LINEAR:
            with_one = {_block(name) for name in linear.keys() - set(bare)}
            bare = [name for name in bare if _block(name) not in with_one]
        four = [m for m in causal.modules() if isinstance(m, Linear4bit)]
        if not four:
            raise BadInput("none of its layers is a linear one that bitsandbytes quantises")
        for names, state in ((plain, "stay in 16 bits"), (bare, "have no adapter")):
            if names:
                kinds = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
                self.note_lines.append(f"of {_a(self.kind)}, linear layers {state}: {kinds}")
        self._note_share()

    def _note_share(self) -> None:
        """Note the share of the layers that QLoRA neither quantises nor trains, where it is
        large."""
        import torch
        from torch.nn import Embedding, Linear
        from transformers import AutoModelForCausalLM
        from transformers.pytorch_utils import Conv1D

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config)
        linear = {
            id(m.weight): m.weight.numel()
            for m in model.modules()
            if isinstance(m, Linear | Conv1D)
        }
        tables = {id(m.weight) for m in model.modules() if isinstance(m, Embedding)}
        tables.add(id(getattr(model.get_output_embeddings(), "weight", None)))
        total = sum(p.numel() for p in model.parameters() if id(p) not in tables)
        share = 1 - sum(n for key, n in linear.items() if key not in tables) / total
        if share > 0.2:
            self.note_lines.append(
                f"{share:.0%} of {_a(self.kind)}'s layers are no linear layers (experts, or a "
                "state's): QLoRA leaves them in 16 bits and does not train them"
            )

    def learn(self) -> None:
        """Train an adapter by one step, and compare the loss with that of plain logits."""
        from bezoar.training import sft

        run = sft.sft(
            "adapter",
            self.link,
            self.rows,
            self.rows[:2],
            settings=self.p.sft,
            amount=self.amount,
            models=self.models,
        )
        assert run is not None
        model = loading.quantised(self.base, self.p.sft, loading.device()).eval()
        right = self._loss(model, self.rows[:2])
        start = run.metrics["eval_loss_start"]
        if abs(start - right) > 1e-3 * max(1.0, right):
            raise BadInput(
                f"the loss that TRL trains on is {start:.4g}, and that of its logits {right:.4g}"
            )

    def _loss(self, model: Any, rows: list[tuple[str, str]]) -> float:
        """Return the mean loss of the answers' tokens, each row read alone."""
        import torch

        total, count = 0.0, 0
        limit = min(self.amount.max_length, loading.context(model.config))
        with torch.inference_mode():
            for prompt, answer in chat.answer_ids(self.tokenizer, rows, "its rows"):
                ids = torch.tensor([(prompt + answer)[:limit]])
                logits = model(input_ids=ids, use_cache=False).logits[0].float()
                log_probabilities = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
                learnt = log_probabilities[len(prompt) - 1 :]
                total, count = total - float(learnt.sum()), count + len(learnt)
        return total / max(1, count)

    def merge(self) -> None:
        """Merge the adapter, and compare the merged model's logits with the trained one's."""
        from bezoar.training import merge

        adapter, out = self.models / "sft/adapter", self.models / "merge/sft"
        # The weights are merged onto the dequantised base, on which the adapter was trained. The
        # merged model should then compute what the trained one does.
        exact = self.p.merge.model_copy(update={"onto": "dequantized", "method": "linear"})
        settings = MergeStage.model_validate(exact.model_dump() | {"weights": [1.0, 1.0, 1.0]})
        merge.merge(self.base, [adapter], settings, self.p.sft, out)
        device = loading.device()
        trained, _ = loading.load(adapter, self.base, self.p.sft)
        start = loading.quantised(self.base, self.p.sft, device).eval()
        merged = loading.plain(out, "float32", device).eval()
        ids = self.prompts[0]
        after, before, after_merge = (_logits(m, ids) for m in (trained, start, merged))
        if _distance(after, before) == 0:
            raise BadInput("a step of QLoRA changes nothing")
        if (apart := _distance(after, after_merge)) > LARGEST:
            raise BadInput(
                f"the merged model's logits are {apart:.2g} standard deviations off the trained "
                "one's"
            )

    def learn_all(self) -> None:
        """Train every weight by one step, with its checkpoint."""
        from bezoar.training import sft

        link = Link(weights="all", base="merge/sft", start="merge/sft", data="fetch/x")
        amount = self.amount.model_copy(update={"learning_rate": 1e-4})
        sft.sft(
            "all",
            link,
            self.rows,
            self.rows[:2],
            settings=self.p.sft,
            amount=amount,
            models=self.models,
        )

    def prefer(self) -> None:
        """Train by one step of DPO."""
        from bezoar.training import dpo

        pairs = [(prompt, answer, "Perhaps.") for prompt, answer in self.rows]
        settings = self.p.dpo.model_copy(
            update={
                "epochs": 1,
                "batch_size": 2,
                "micro_batch_size": 2,
                "learning_rate": 1e-4,
                "warmup_steps": 0,
                "eval_limit": None,
            }
        )
        self.policy = self.models / "dpo/policy"
        dpo.dpo(self.models / "sft/all", pairs[:2], pairs[2:], settings=settings, out=self.policy)

    def answer(self) -> None:
        """Answer several questions at once, and compare the answers with those given one by one."""
        device = loading.device()
        self.model = model = loading.plain(self.policy, "float32", device).eval()
        method = generation.fastest(model)
        if method in generation.SLOWER:
            self.note_lines.append(
                f"{_a(self.kind)} writes answers {generation.SLOWER[method]}: others at once would "
                "change each other"
            )
        together = generation.generate(
            model, self.tokenizer, self.prompts, batch_size=4, max_new_tokens=6
        )
        alone = [
            generation.generate(model, self.tokenizer, [prompt], batch_size=1, max_new_tokens=6)[0]
            for prompt in self.prompts
        ]
        if together != alone:
            raise BadInput("answers in a batch are others than one by one")

    def score(self) -> None:
        """Score two items of the harness, together and one by one."""
        from bezoar.evaluating import harness

        items = [
            Item(id=str(n), question=question, choices=[answer, "Blue, I think."], label=0)
            for n, (question, answer) in enumerate(ROWS[:2])
        ]
        scores = []
        for batch in (4, 1):
            settings = LmEval(
                num_fewshot=0, chat_template=False, tasks=None, limit=None, batch_size=batch
            )
            result = harness.run(self.model, self.tokenizer, {"rehearsal": items}, settings)
            scores.append(result.items)
        if scores[0] != scores[1]:
            raise BadInput("an item's score depends on the others of its batch")


def _a(kind: str) -> str:
    """Return a kind of model as a sentence names it."""
    return f"a model of kind {kind}"


def _block(name: str) -> str:
    """Return the block of a model that a layer is part of, by the first number in its name."""
    parts = name.split(".")
    index = next((n for n, part in enumerate(parts) if part.isdigit()), -1)
    return ".".join(parts[: index + 1])


def _logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def _distance(first: Any, second: Any) -> float:
    """Return the largest difference of two sets of logits, in standard deviations."""
    return float((first - second).abs().max() / second.std())


# --- its files -----------------------------------------------------------------------------------


def look(folder: Path) -> Any:
    """Return the configuration of a base that can be a causal language model here. BadInput names
    the kind that it is instead."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    raw_config: Any = files.read_json(folder / "config.json")
    kind = raw_config.get("model_type")
    if quantised := raw_config.get("quantization_config"):
        method = quantised.get("quant_method", "?") if isinstance(quantised, dict) else "?"
        raise BadInput(
            f"its weights are quantised ({method}), and QLoRA and the links that train all weights "
            "start from plain ones; choose the unquantised model that it was made from"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # transformers raises errors of several classes.
    except Exception as error:
        why = " ".join(str(error).split())[:CHARACTERS]
        raise BadInput(
            f"transformers {version('transformers')} cannot read its config.json, model_type "
            f"{kind!r} ({why}); {ANOTHER}"
        ) from None
    if config.is_encoder_decoder:
        raise BadInput(
            f"{_a(kind)} has an encoder and a decoder, and the chain trains decoders alone; "
            f"{ANOTHER}"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise BadInput(
            f"{_a(kind)} is no causal language model in transformers {version('transformers')}; "
            f"{ANOTHER}"
        )
    _check_heads(raw_config)
    _check_tokens(folder, config)
    return config


def _check_heads(raw_config: dict[str, Any]) -> None:
    """Refuse a model whose head gives classes, not tokens."""
    for name in raw_config.get("architectures") or []:
        if str(name).endswith(("Classification", "QuestionAnswering", "RewardModel")):
            raise BadInput(
                f"its architecture is {name}, whose head gives no tokens; choose the language "
                "model that it was made from"
            )


def _check_tokens(folder: Path, config: Any) -> None:
    """Refuse a tokenizer that writes ids for which the embedding has no row."""
    tokenizer = loading.own_tokenizer(folder)
    rows = config.get_text_config().vocab_size
    beyond = {name: n for name, n in tokenizer.get_vocab().items() if n >= rows}
    if beyond:
        first = min(beyond, key=lambda name: beyond[name])
        raise BadInput(
            f"its tokenizer has {len(tokenizer)} ids and its embedding {rows} rows, none for "
            f"{first!r} ({beyond[first]}); load the model in transformers, "
            "resize_token_embeddings(len(tokenizer)), and save both"
        )


def fit(folder: Path, p: Params) -> list[str]:
    """Check, without reading a weight, that the files at `folder` hold the tensors that its
    configuration wants, and that a merge finds them by name. Return a note on tensors that the
    model has no use for. BadInput: it wants others."""
    import torch
    from transformers import AutoModelForCausalLM

    from bezoar.training import merge

    with torch.device("meta"):
        _, loading_info = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map={"": "meta"},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    if missing := sorted(loading_info["missing_keys"]):
        raise BadInput(
            f"its files hold no {missing[0]} ({len(missing)} tensors are missing), which would "
            "start from random numbers; fetch the model again, or another revision"
        )
    if wrong := sorted(loading_info["mismatched_keys"]):
        name, have, want = wrong[0]
        raise BadInput(
            f"{name} is of shape {list(have)} in its files, and its config.json wants "
            f"{list(want)}; fetch both from one revision"
        )
    merge.check_names(folder, p.sft)
    more = sorted(loading_info["unexpected_keys"])
    return [f"its files hold {len(more)} tensors that are not used, as {more[0]}"] if more else []


if __name__ == "__main__":
    # Ctrl-C ends this process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main(*arguments.words("bezoar.preflight.trial", __doc__, 3, "FOLDER REPORT HOME [PROFILE]", 4))
