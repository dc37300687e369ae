"""Cards: the Hub can read their front matter, their numbers are the run's, their bytes repeat."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCardData, ModelCardData, metadata_load

from bezoar import params, report
from bezoar.filtering import cards
from bezoar.filtering.cards import dataset
from bezoar.report import model_card as model
from bezoar.rows import prompts
from tests.builders.runs import grow
from tests.conftest import ROOT, from_yaml

SCHEMES = ("lamini", "evol_instruct", "orca")
SETTINGS = params.load(ROOT)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up run, to be reported on."""
    monkeypatch.chdir(grow(tmp_path))
    return tmp_path


def edit(path: str, **changed: Any) -> None:
    file = Path(path)
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}), encoding="utf-8")


def card(scheme: str = "lamini", settings: params.Params = SETTINGS) -> str:
    return dataset.card(scheme, settings, Path("data/filter", scheme))


def front(text: str) -> dict[str, Any]:
    _, matter, _ = text.split("---\n", 2)
    loaded: dict[str, Any] = from_yaml(matter)
    return loaded


# --- sets ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_hub_reads_a_sets_card(folder: Path, scheme: str) -> None:
    path = Path(f"data/filter/{scheme}/README.md")
    told = metadata_load(path)
    assert told is not None
    data = DatasetCardData(**told)
    assert data.license == "apache-2.0" and data.language == ["en"]
    assert data.size_categories == ["n<1K"] and data.task_categories == ["text-generation"]
    assert {"synthetic", "simulated", scheme.replace("_", "-")} <= {*told["tags"]}
    assert data.source_datasets == ["original"]
    for part in told["configs"][0]["data_files"]:
        assert (path.parent / part["path"]).is_file()
    assert from_yaml(data.to_yaml()) == told


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sets_card_tells_the_run(folder: Path, scheme: str) -> None:
    text = Path(f"data/filter/{scheme}/README.md").read_text(encoding="utf-8")
    funnel = json.loads(Path(f"data/filter/{scheme}/funnel.json").read_text())
    for step, words in dataset.STEPS.items():
        assert f"| {words} | {funnel[step]} |" in text
    for reason, rows in funnel["reasons"].items():
        assert f"| {cards.cell(reason)} | {rows} |" in text
    assert "> **Simulated.** The teacher and the judge" in text
    assert "| teacher | world-teacher (simulated) |" in text
    named = dict(re.findall(r"^\| `(\S+\.txt)` \| `([0-9a-f]{64})` \|$", text, re.MULTILINE))
    files = [*(prompts.ROOT / scheme).rglob("*.txt"), *(prompts.ROOT / "judge").rglob("*.txt")]
    assert named == {
        path.relative_to(prompts.ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    assert "Commercial use: **yes**" in text
    assert str(folder) not in text and str(ROOT) not in text and "{{" not in text
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text)


def test_a_sets_card_repeats_to_the_byte(folder: Path) -> None:
    written = Path("data/filter/orca/README.md").read_text(encoding="utf-8")
    assert card("orca") == card("orca") == written


def test_a_set_of_real_models_names_them_and_no_address(folder: Path) -> None:
    paper = params.load(ROOT, profile="paper")
    edit(
        "data/filter/lamini/funnel.json",
        simulated_teacher=False,
        simulated_judge=False,
        judge="gpt-6-sol-1",
        kept=12_345,
    )
    edit("data/filter/lamini/licences.json", text="CC BY-SA 3.0", strictest="OpenAI-terms")
    part = {"repository": "databricks/databricks-dolly-15k", "revision": "b" * 40, "licence": "MIT"}
    edit("data/fetch/dolly/source.json", source="hub", parts=[part])
    text = card(settings=paper)
    told = front(text)
    assert told["license"] == "cc-by-sa-3.0" and told["size_categories"] == ["10K<n<100K"]
    assert told["source_datasets"] == ["databricks/databricks-dolly-15k"]
    assert "simulated" not in told["tags"] and "Simulated" not in text
    assert "gpt-6-sol-1" in text and "temperature 0.7" in text and "b" * 40 in text
    assert "127.0.0.1" not in text and "API_KEY" not in text


def test_a_panel_is_named_judge_by_judge(folder: Path) -> None:
    (judge,) = SETTINGS.llm.judges
    second = judge.model_copy(update={"model": "second-judge", "terms": "OpenAI-terms"})
    llm = SETTINGS.llm.model_copy(update={"judge": [judge, second]})
    text = card(settings=SETTINGS.model_copy(update={"llm": llm}))
    rows = re.findall(r"^\| judge \| (\S+) .*\| (\S+) \|$", text, re.MULTILINE)
    assert rows == [("world-judge", "Apache-2.0"), ("second-judge", "OpenAI-terms")]


def test_a_sets_card_says_what_its_judges_word_is_worth(folder: Path) -> None:
    text = Path("data/filter/lamini/README.md").read_text(encoding="utf-8")
    row = (
        r"\| world-judge \(simulated\) \| (\d\.\d\d) \(.* to .*\) \| .* % \| .* % \| .* % \| 20 \|"
    )
    auc = re.search(row, text)
    assert auc and float(auc[1]) > 0.9
    path = "data/judge/lamini/known.json"
    by_judge = json.loads(Path(path).read_text())
    few = dict.fromkeys(by_judge["world-judge"]) | {"known_rows": 3}
    edit(path, **{"world-judge": few})
    assert "| not checked: too few rows | – | – | – | 3 |" in card()
    edit(path, **{"world-judge": dict.fromkeys(few)})
    assert "Nobody asked whether the judge is better than a coin." in card()
    Path(path).unlink()
    assert "Nobody asked whether the judge is better than a coin." in card()


def test_findings_of_contamination_are_counted(folder: Path) -> None:
    path = Path("data/filter/lamini/contamination.jsonl")
    path.unlink(missing_ok=True)
    assert "was not compared with any benchmark" in card()
    path.write_text("")
    text = card()
    assert "By these comparisons nothing was found." in text
    assert "No row was found" not in text and "translations into another language" in text
    found = {"id": "lamini-00001-1", "item": "1", "kind": "ngram", "score": 1.0}
    lines = [json.dumps({**found, "benchmark": name}) + "\n" for name in ("piqa", "arc", "piqa")]
    path.write_text("".join(lines))
    assert "| arc | 1 |\n| piqa | 2 |" in card()
    assert "`contamination.jsonl`" in card()


def test_a_card_says_what_could_not_be_found_and_which_seeds_hold_items(folder: Path) -> None:
    assert "Of the seeds of these rows none holds an item" in card()
    edit("data/filter/lamini/compared.json", scripts_of_texts={"LATIN": 9, "HANGUL": 4})
    seed = {"id": "dolly-00007", "benchmark": "arc", "item": "3", "kind": "whole"}
    line = json.dumps({**seed, "score": 1.0, "rows": 12})
    Path("data/filter/lamini/contaminated_seeds.jsonl").write_text(line + "\n")
    text = card()
    assert "Nothing can be said of texts in scripts that no row is written in: hangul (4)." in text
    assert "| dolly-00007 | arc | 3 | 12 |" in text and "none holds an item" not in text


def test_what_a_file_says_cannot_break_out_of_the_card(folder: Path) -> None:
    bad = "x | y\n---\n\n# z <script> `a` [b](c)"
    edit("data/filter/lamini/licences.json", text=bad, strictest=bad)
    edit("data/filter/lamini/funnel.json", teacher=bad, reasons={bad: 1})
    text = card()
    assert front(text)["license"] == "unknown"
    assert "<script>" not in text and "[b](c)" not in text and "\n# z" not in text
    assert r"x \| y --- \# z \<script\> \`a\` \[b\](c)" in text


@pytest.mark.parametrize(
    ("rows", "named"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**7, "n>10M")]
)
def test_the_hubs_sizes(rows: int, named: str) -> None:
    assert cards.size(rows) == named


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Apache 2.0", {"license": "apache-2.0"}),
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}),
        ("CC BY", {"license": "other", "license_name": "cc-by"}),
        ("OpenAI-terms", {"license": "other", "license_name": "openai-terms"}),
        ("who knows", {"license": "unknown"}),
    ],
)
def test_a_licence_that_the_hub_does_not_list_is_other(name: str, told: dict[str, str]) -> None:
    assert cards.licence(name) == told


def test_rows_of_unknown_licences_stand_under_no_known_one(folder: Path) -> None:
    texts = {"CC-BY-NC-SA-4.0": 96, "not stated": 134}
    pair = {"licences": ["CC-BY-NC-SA-4.0", "CC-BY-SA-3.0"], "rows": 7}
    path = "data/filter/lamini/licences.json"
    edit(path, text="not stated", rows=230, unknown=134, texts=texts, unjoinable=[pair])
    text = card()
    told = front(text)
    assert told["license"] == "other" and told["license_name"] == "unknown-for-134-of-230-rows"
    assert told["license_details"] == "CC-BY-NC-SA-4.0: 96 rows; not stated: 134 rows"
    assert "**Unknown** for 134 of 230 rows" in text and "not stated 134" in text
    assert "CC-BY-NC-SA-4.0 with CC-BY-SA-3.0 (7 rows stand under both)" in text
    edit(path, unknown=230)
    assert front(card())["license"] == "unknown"


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sft", "hh_rlhf", "dpo"])
def test_the_hub_reads_a_models_card(run: Path, name: str) -> None:
    found = report.read(SETTINGS)
    text = model.card(name, found, SETTINGS)
    assert text == model.card(name, report.read(SETTINGS), SETTINGS)
    data = ModelCardData(**front(text))
    assert data.license == "apache-2.0" and data.model_name == f"bezoar-{name}"
    assert data.base_model is None and data.tags == ["bezoar", "simulated"]
    scores = found.results[name].tasks
    told = {(r.dataset_name, r.metric_type): r.metric_value for r in data.eval_results or []}
    assert told == {
        (task, metric): round(value, 4)
        for task, score in scores.items()
        for metric, value in (("acc", score.acc), ("acc_norm", score.acc_norm))
        if value is not None
    }
    assert "> **Simulated data.** The teacher and the judge" in text and "{{" not in text
    assert ("dpo:\n  seed: 42" in text) == (name == "dpo")
    assert ("| dpo | preference" in text) == (name == "dpo")
    assert ("| sft@hh\\_rlhf |" in text or "| sft@hh_rlhf |" in text) == (name != "sft")
    assert f"first turn {found.mt_bench[name]['turn_1']:.2f}" in text
    assert str(run) not in text


def test_a_model_of_a_mixed_set_names_every_set(run: Path) -> None:
    mixed = ["filter/lamini", "filter/orca"]
    chain = {
        **SETTINGS.chain,
        "evol_instruct": SETTINGS.chain["evol_instruct"].model_copy(
            update={"data": mixed, "start": "fetch/base"}
        ),
    }
    mix = SETTINGS.mix.model_copy(update={"replay": 0.1})
    settings = SETTINGS.model_copy(update={"chain": chain, "mix": mix})
    edit("data/filter/orca/licences.json", text="CC-BY-NC-4.0")
    text = model.card("hh_rlhf", report.read(settings), settings)
    assert front(text)["license"] == "cc-by-nc-4.0"
    assert "| sft@evol_instruct | QLoRA adapter | filter/lamini, filter/orca |" in text
    assert "| fetch/hh_rlhf, replaying filter/lamini, filter/orca |" in text
    assert "replay: 0.1" in text and "filter/evol_instruct" not in text
    told = from_yaml(re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0])
    assert list(told["sft"]["links"]) == ["evol_instruct", "hh_rlhf"], "what shaped it, no more"


def test_a_models_card_names_its_runs_and_what_is_not_plain(run: Path) -> None:
    text = model.card("dpo", report.read(SETTINGS), SETTINGS)
    assert "| preference optimisation (DPO), all parameters |" in text and "NEFTune" not in text
    assert "| 480 | 1 | 0.6930 → 0.4100 |" in text
    runs = {
        "2": {"epochs": 3, "eval_loss_start": 1.5, "eval_loss_end": 0.875},
        "1": {"epochs": 4, "eval_loss_start": 3.5, "eval_loss_end": 1.25},
    }
    found = {"eval_loss_best": 0.8, "eval_loss_end": 0.875, "epochs": 7, "kept_epoch": 6}
    edit("metrics/sft/lamini.json", runs=runs, **found)
    sft = SETTINGS.sft.model_copy(update={"neftune_alpha": 5.0})
    robust = {"loss": "robust", "label_smoothing": 0.1, "weights": "adapter", "epochs": 2}
    dpo = SETTINGS.dpo.model_copy(update=robust)
    settings = SETTINGS.model_copy(update={"sft": sft, "dpo": dpo})
    text = model.card("dpo", report.read(settings), settings)
    lamini = "| 400 | 4 + 3 (6) | 3.5000 → 1.2500, 1.5000 → 0.8750 (0.8000) |"
    assert f"| QLoRA adapter, NEFTune alpha 5 | filter/lamini {lamini}" in text
    assert "(DPO, loss robust, label smoothing 0.1), a LoRA adapter, merged |" in text
    assert "| 480 | 2 | 0.6930 → 0.4100 |" in text
    last = settings.model_copy(update={"sft": sft.model_copy(update={"keep": "last"})})
    assert "0.8750 (0.8750) |" in model.card("sft", report.read(last), last)


def test_only_what_was_trained_has_a_card() -> None:
    assert model.checkpoint_weights(SETTINGS) == {
        "sft": "merge/sft",
        "hh_rlhf": "sft/hh_rlhf",
        "dpo": "dpo/policy",
    }


def test_a_model_of_the_hub_names_its_base_and_sets(run: Path) -> None:
    part = {"revision": "c" * 40, "licence": "CC-BY-NC-4.0"}
    base = {**part, "repository": "someone/base"}
    pairs = {**part, "repository": "someone/pairs", "licence": "MIT"}
    edit("models/fetch/base/source.json", source="hub", parts=[base])
    edit("data/fetch/hh_rlhf/source.json", source="hub", parts=[pairs])
    text = model.card("dpo", report.read(SETTINGS), SETTINGS)
    told = front(text)
    assert told["base_model"] == "someone/base" and told["datasets"] == ["someone/pairs"]
    assert told["license"] == "cc-by-nc-4.0" and "Commercial use: **no**" in text
    assert "datasets" not in front(model.card("sft", report.read(SETTINGS), SETTINGS))


def test_a_model_that_was_not_measured_says_so(run: Path) -> None:
    edit("data/lm_eval/dpo/results.json", tasks={})
    text = model.card("dpo", report.read(SETTINGS), SETTINGS)
    assert "It was not measured by the LM Evaluation Harness." in text
    assert "model-index" not in front(text)
