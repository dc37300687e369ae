"""docs/own-data.md from its first command to its last: German tickets, a base and a server of one's
own."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bezoar.rows import languages
from bezoar.rows.files import read_json, read_jsonl
from bezoar.rows.records import Kept
from tests.builders import parameters, servers, tickets, warm
from tests.builders.pages import FENCE, joined
from tests.conftest import ROOT, copy, environment

PAGE = FENCE.findall((ROOT / "docs/own-data.md").read_text(encoding="utf-8"))
ROWS = 60
FEW: dict[str, Any] = {
    "schemes": {"lamini": {"calls": 6}, "evol_instruct": {"per_category": 3}},
    "sft": {"links": {name: {"epochs": 1} for name in ("lamini", "evol_instruct")}},
}


def write_base(folder: Path) -> None:
    """Write a tiny Llama that knows nothing, with a tokenizer learnt from tickets."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    cutter = Tokenizer(models.BPE())
    cutter.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cutter.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "</s>", "<pad>"], initial_alphabet=letters
    )
    cutter.train_from_iterator(
        [tickets.reply(f"#Created Prompt#: {n}") for n in range(99)], trainer
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=cutter, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_params(folder: Path, url: str) -> None:
    """Write what the page tells to write, with few rows and the address of this server."""
    document = parameters.read(folder)
    for info, block in PAGE:
        if info == "yaml":
            document = joined(document, parameters.of_page(block))
    local = joined(document["profiles"]["local"], FEW)
    local["llm"]["teacher"] |= {"base_url": f"{url}/v1"}
    local["llm"]["judge"] = local["llm"]["teacher"] | {"params": {"max_tokens": 768}}
    document["profiles"]["local"] = local
    parameters.write(folder, document)


def typed(data: Path) -> Iterator[list[str]]:
    """Give the page's commands, with the user's folder for `folder`."""
    for info, block in PAGE:
        for line in block.splitlines() if not info else ():
            words = shlex.split(line, comments=True)
            if words and words[0] in ("make", "python", "dvc"):
                yield [re.sub("^(DATA=)?folder$", rf"\g<1>{data}", word) for word in words]


@pytest.mark.slow
def test_german_tickets_become_a_model_by_the_page_alone(tmp_path: Path) -> None:
    data = tmp_path / "Meine Tickets"
    data.mkdir()
    tickets.write(data / "Tickets 2026.csv", ROWS)
    write_base(data / "base")
    folder = copy(tmp_path / "project")
    (folder / ".venv").symlink_to(warm.python().parents[1])
    said = {}
    with servers.serving(speak=tickets.reply, served=("qwen2.5:7b",)) as (_, url):
        write_params(folder, url)
        for words in typed(data):
            old = ["--old-file=install"] if words[0] == "make" else []
            done = subprocess.run(
                [*words, *old],
                cwd=folder,
                env=environment(tmp_path / "work", PATH=warm.path()),
                input="Guten Tag\n",
                capture_output=True,
                text=True,
                check=False,
            )
            said[" ".join(words[:4])] = done.stdout + done.stderr
            assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
    assert len(said) == 9, [*said]
    _look(folder, said)


def _look(folder: Path, said: dict[str, str]) -> None:
    """Assert what the user sees of it."""
    fetched = said["dvc repro fetch@dolly"]
    assert all(f"{name} (" in fetched for name in tickets.SUBJECTS), fetched
    assert f"{ROWS} seeds in German" in " ".join(said["make preflight PROFILE=local"].split())
    for name in ("lamini", "evol_instruct", "dolly"):
        filtered = folder / "data/filter" / name
        rows = list(read_jsonl(filtered / "train.jsonl", Kept))
        spoken: Any = read_json(filtered / "languages.json")
        assert rows and {*spoken["rows"]["kept"]} == {"de"}, name
        assert {*languages.of_texts([row.response for row in rows])} == {"de"}
        assert {row.category for row in rows} <= {*tickets.SUBJECTS}
        shown = [str(row.details.get("answers_shown", "")).count("dolly-") for row in rows]
        assert {*shown} == ({0} if name == "dolly" else {2}), name
        card = (filtered / "README.md").read_text(encoding="utf-8")
        assert "language:\n- de\n" in card and "CC-BY-4.0" in card
    report = folder / "metrics/report"
    page = (report / "report.html").read_text(encoding="utf-8")
    model_card = (report / "cards/sft.md").read_text(encoding="utf-8")
    assert "language:\n- de\n" in model_card and 'href="cards/sft.md"' in page
    for text in (page, model_card):
        assert "invented by this project" not in text and "is a simulation" not in text
    told = " ".join(said["python -m bezoar.report"].split())
    assert "Simulated" not in told
    counts: Any = read_json(folder / "data/filter/dolly/funnel.json")
    summary: Any = read_json(report / "summary.json")
    share = summary["own"]["dolly"]["shares"]["lamini"]
    assert 0.1 < share < 0.9
    kept = f"{counts['kept']} of {ROWS}"
    assert f"Your own rows (dolly): {kept} kept" in told and f"{share:.0%}".strip("%") in told
    assert f"(`filter/dolly`): {kept} were kept" in model_card
    assert f"{100 * share:.1f} % in lamini." in model_card
    assert "<h3>Your own rows</h3>" in page and f"{100 * share:.1f} %" in page
    assert "Model: models/merge/sft\n" in said["python -m bezoar.report"]
    assert (folder / "models/merge/sft/model.safetensors").is_file()
    found = said["python -m bezoar.lineage lamini-00001-1"]
    assert re.search(r"seed dolly-\d+ \(T-\d{4}\)", found) and "models/merge/sft" in found
