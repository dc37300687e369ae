"""Rows of other languages from seeds to a link's rows, with a server that writes them: French,
Arabic, and both at once."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bezoar import params, work
from bezoar.rows import languages
from bezoar.rows.files import read_json, read_jsonl
from bezoar.rows.records import Kept, Rejected, Verdict
from stages import fetch, filter, generate, judge, mix
from tests.builders import parameters, servers, shops
from tests.builders.bases import write_tokenizer

SERVED: dict[str, Any] = {
    "provider": "openai",
    "style": "chat",
    "structured": False,
    "model": "m",
    "terms": "MIT",
    "api_key_env": None,
    "params": {"max_tokens": 512, "temperature": 0},
    "mode": "live",
    "concurrency": 4,
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "timeout": 5,
    "patience": 60,
    "max_failed": 0.0,
    "reply_tokens": 60,
    "price": {"input": 0.0, "cached": 0.0, "output": 0.0, "batch": 1.0},
}


def write(folder: Path, url: str, seeds: Sequence[dict[str, str]], **gates: Any) -> None:
    """Write the files of a user: rows of local/, and params.yaml."""
    parameters.copy(folder)
    own = folder / "local/dolly/tickets.jsonl"
    own.parent.mkdir(parents=True)
    own.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in seeds), "utf-8")
    document: Any = parameters.read()
    document |= {"profile": "local", "own": ["dolly"], "stand_ins": "allow"}
    document["filter"]["gates"] |= gates
    document["chain"]["lamini"]["data"] = ["filter/lamini", "filter/dolly"]
    local = document["profiles"]["local"]
    local["llm"] |= {who: SERVED | {"base_url": f"{url}/v1"} for who in ("teacher", "judge")}
    local["schemes"]["lamini"]["calls"] = 20
    local["schemes"]["evol_instruct"]["per_category"] = 12
    local["fetch"]["dolly"]["licence"] = "CC-BY-4.0"
    parameters.write(folder, document)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the stages from fetch to the rows of the first link."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BEZOAR_WORK", str(folder / "work"))
    monkeypatch.setattr(work, "die_with_parent", lambda: None)
    params.forget()
    for source in ("dolly", "topics", "hh_rlhf", "mt_bench", "benchmarks"):
        fetch.main(source)
    write_tokenizer(folder / "models/fetch/base/tokenizer.json")
    for name in ("lamini", "evol_instruct"):
        generate.main(name)
        judge.main(name)
    for name in ("lamini", "evol_instruct", "dolly"):
        filter.main(name)
    mix.main("lamini")


@pytest.mark.slow
@pytest.mark.parametrize("spoken", [["ar"], ["fr"], ["fr", "ar"]], ids="+".join)
def test_rows_of_other_languages_go_the_whole_way(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoken: list[str],
) -> None:
    seeds = [row for language in spoken for row in shops.rows(language, 60)]
    with servers.serving(speak=shops.reply) as (_, url):
        write(tmp_path, url, seeds)
        run(tmp_path, monkeypatch)
    told = capsys.readouterr().out
    for name in ("lamini", "evol_instruct", "dolly"):
        folder = tmp_path / "data/filter" / name
        account: Any = read_json(folder / "languages.json")
        rows = list(read_jsonl(folder / "train.jsonl", Kept))
        dropped = list(read_jsonl(folder / "rejected.jsonl", Rejected))
        assert {*account["allowed"]} == {*spoken} == {*account["rows"]["kept"]}, name
        assert {*languages.of_texts([row.response for row in rows])} == {*spoken}
        wrong = [row for row in dropped if row.reason in ("wrong_language", "truncated", "loop")]
        assert not wrong, (name, wrong[:2])
        card = (folder / "README.md").read_text("utf-8")
        assert all(f"- {language}\n" in card for language in spoken)
        assert ("the check `refusal` knows no Arabic" in told) == ("ar" in spoken)
    for name in ("lamini", "evol_instruct"):
        verdicts = list(read_jsonl(tmp_path / f"data/judge/{name}/verdicts.jsonl", Verdict))
        assert verdicts and all(v.status != "undecided" and v.rating in (2, 6) for v in verdicts)
        summary: Any = read_json(tmp_path / f"data/generate/{name}/summary.json")
        assert summary["replies_read"] > 0.8
        assert summary["undecided_checks"] == 0
    counts: Any = read_json(tmp_path / "metrics/mix/lamini.json")
    assert all(counts["sets"][f"filter/{name}"] > 20 for name in ("lamini", "dolly"))
    text = (tmp_path / "data/mix/lamini/train.jsonl").read_text("utf-8")
    assert shops.SHOPS[spoken[0]].thanks in text
