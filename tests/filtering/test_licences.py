"""Licences: known by any usual spelling, never guessed; the strictest counts; a mix is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.filtering import licences
from bezoar.filtering.spdx import find_licence, split, strictest, unjoinable
from bezoar.rows.files import BadInput
from bezoar.rows.records import Kept, Sample
from bezoar.world.sources import LICENCE
from stages import filter
from tests.builders import parameters
from tests.conftest import ROOT

LLM = params.load(ROOT).llm


def row(id: str, licence: str, **changed: Any) -> Kept:
    told = {
        "id": id,
        "scheme": "lamini",
        "system": "",
        "instruction": "Do it.",
        "context": "",
        "response": "Done.",
        "expected": "",
        "category": "open_qa",
        "details": {},
        "seeds": ["s1"],
        "licence": licence,
        "teacher": "t",
        "simulated": False,
        "sources": ["a.jsonl"],
        "teacher_terms": "Apache-2.0",
        "judge_terms": "Apache-2.0",
        **changed,
    }
    return Kept.model_validate(told)


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("Apache 2.0", "Apache-2.0"),
        ("apache-2.0", "Apache-2.0"),
        ("Apache License Version 2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache 2", "Apache-2.0"),
        ("ASL 2.0", "Apache-2.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0.txt", "Apache-2.0"),
        ("MIT License", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("Licensed under the MIT License", "MIT"),
        ("https://opensource.org/license/mit/", "MIT"),
        ("BSD 3-Clause", "BSD-3-Clause"),
        ('BSD 3-Clause "New" or "Revised" License', "BSD-3-Clause"),
        ("Creative Commons Attribution 4.0 International (CC BY 4.0)", "CC-BY-4.0"),
        ("https://creativecommons.org/licenses/by-sa/4.0/legalcode", "CC-BY-SA-4.0"),
        ("http://creativecommons.org/licenses/by-nc-sa/3.0/us/", "CC-BY-NC-SA-3.0-US"),
        ("[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)", "CC-BY-4.0"),
        ("CC BY-NC", "CC-BY-NC"),
        ("ccby4.0", "CC-BY-4.0"),
        ("ＣＣ ＢＹ ４．０", "CC-BY-4.0"),
        ("CC BY-SA 3.0 IGO", "CC-BY-SA-3.0-IGO"),
        ("CC0 1.0 Universal", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("GPLv3", "GPL-3.0-only"),
        ("GNU General Public License, version 2, or any later version", "GPL-2.0-or-later"),
        ("ODbL v1.0", "ODbL-1.0"),
        ("llama3.1", "llama3.1"),
        ("Llama 3.1 Community License", "llama3.1"),
        ("bigscience-bloom-rail-1.0", "bigscience-bloom-rail-1.0"),
        ("gemma", "gemma"),
        ("not MIT licensed", "not MIT licensed"),
        ("no licence", "no licence"),
        ("cc", "cc"),
        ("Apache", "Apache"),
        ("Attribution", "Attribution"),
        ("other", "other"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("CC-BY-SA-3.0", "CC-BY-SA-3.0"),
        ("cc by-nc-sa 4.0", "CC-BY-NC-SA-4.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International", "CC-BY-SA-4.0"),
        ("Attribution-NonCommercial-ShareAlike 3.0", "CC-BY-NC-SA-3.0"),
        ("CC BY", "CC-BY"),
        ("CC0 1.0", "CC0-1.0"),
        ("AFL 3.0", "AFL-3.0"),
        ("LibriVox: Public Domain (https://librivox.org/pages/public-domain/)", "public-domain"),
        ("openai terms", "OpenAI-terms"),
        ("not stated in the file", "not stated in the file"),
        ("this is not CC BY 4.0", "this is not CC BY 4.0"),
        ("MIT or worse", "MIT or worse"),
        ("MIT (non-commercial use alone)", "MIT (non-commercial use alone)"),
        ("not free: MIT", "not free: MIT"),
        ("MIT нет", "MIT нет"),
        ("CC BY Non-Commercial No-Derivatives 4.0", "CC-BY-NC-ND-4.0"),
        ("", "not stated"),
        ("  ", "not stated"),
        ("(" * 5000, "(" * 5000),
    ],
)
def test_a_licence_is_known_by_its_usual_spellings_and_by_nothing_else(
    stated: str, name: str
) -> None:
    assert find_licence(stated).name == name


@pytest.mark.parametrize(
    ("name", "commercial", "sharing", "share_alike"),
    [
        ("CC0-1.0", "yes", "yes", False),
        ("CC-BY-4.0", "yes", "yes", False),
        ("CC-BY-SA-4.0", "yes", "yes", True),
        ("CC-BY-NC-4.0", "no", "yes", False),
        ("CC-BY-NC-SA-4.0", "no", "yes", True),
        ("CC-BY-ND-4.0", "yes", "no", False),
        ("CC-BY-NC-ND-4.0", "no", "no", False),
        ("OpenAI-terms", "unknown", "yes", False),
        ("whatever", "unknown", "unknown", False),
    ],
)
def test_what_a_licence_allows(name: str, commercial: str, sharing: str, share_alike: bool) -> None:
    found = find_licence(name)
    assert (found.commercial, found.sharing, found.share_alike) == (
        commercial,
        sharing,
        share_alike,
    )
    assert bool(found.reason) == (commercial != "yes" or sharing != "yes")


@pytest.mark.parametrize(
    ("stated", "names"),
    [
        ("MIT, CC BY 4.0", ["MIT", "CC-BY-4.0"]),
        ("MIT, Apache License, Version 2.0, MIT", ["MIT", "Apache-2.0"]),
        ("CC BY 4.0; MIT", ["CC-BY-4.0", "MIT"]),
        ("Apache-2.0 AND CC-BY-SA-3.0", ["Apache-2.0", "CC-BY-SA-3.0"]),
        ("MIT/CC-BY-NC-4.0", ["MIT", "CC-BY-NC-4.0"]),
        ("MIT OR GPL-3.0-only", ["MIT"]),
        ("(MIT OR GPL-3.0-only) AND CC-BY-4.0", ["MIT", "CC-BY-4.0"]),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["GPL-2.0-only"]),
        ("MIT WITH Commons-Clause", ["MIT WITH Commons-Clause"]),
        ("MIT (https://creativecommons.org/licenses/by-nc/4.0/)", ["MIT", "CC-BY-NC-4.0"]),
        ("CC-BY-4.0 and others", ["CC-BY-4.0 and others"]),
        ("MIT, not for sale", ["MIT", "not for sale"]),
        ("", ["not stated"]),
        (",", ["not stated"]),
    ],
)
def test_a_list_or_an_expression_is_read_part_by_part(stated: str, names: list[str]) -> None:
    assert [licence.name for licence in split(stated)] == names


@pytest.mark.parametrize(
    ("stated", "apart"),
    [
        ("CC-BY-SA-3.0, CC-BY-SA-4.0", []),
        ("CC-BY-SA-1.0, CC-BY-SA-4.0", [("CC-BY-SA-1.0", "CC-BY-SA-4.0")]),
        ("CC-BY-SA-4.0, GPL-3.0", []),
        ("CC-BY-SA-3.0, GPL-3.0", [("CC-BY-SA-3.0", "GPL-3.0-only")]),
        ("GPL-2.0-only, GPL-3.0", [("GPL-2.0-only", "GPL-3.0-only")]),
        ("GPL-2.0-or-later, GPL-3.0", []),
        ("CC-BY-NC-SA-4.0, CC-BY-SA-4.0", [("CC-BY-NC-SA-4.0", "CC-BY-SA-4.0")]),
        ("CC-BY-NC-4.0, CC-BY-SA-4.0", [("CC-BY-NC-4.0", "CC-BY-SA-4.0")]),
        ("CC-BY-NC-4.0, CC-BY-NC-SA-4.0", []),
        ("ODbL, CC-BY-SA-4.0", [("CC-BY-SA-4.0", "ODbL-1.0")]),
        ("GFDL, CDLA-Sharing-1.0", [("CDLA-Sharing-1.0", "GFDL")]),
        ("MPL-2.0, GPL-3.0", []),
        ("MIT, Apache-2.0, CC-BY-SA-4.0, not stated", []),
    ],
)
def test_share_alike_licences_that_cannot_be_joined(
    stated: str, apart: list[tuple[str, str]]
) -> None:
    assert unjoinable(split(stated)) == apart
    assert unjoinable(split(stated)[::-1]) == apart


def test_a_set_counts_what_is_unknown_and_what_cannot_be_joined() -> None:
    rows = [
        row("1", "CC BY-SA 3.0"),
        row("2", "CC BY-SA 3.0, CC BY-NC-SA 4.0"),
        row("3", "not stated in the file"),
        row("4", "Apache License, Version 2.0"),
        row("5", "apache-2.0"),
    ]
    sheet = licences.sheet("lamini", rows)
    assert sheet["text"] == sheet["strictest"] == "not stated in the file"
    assert sheet["unknown"] == 1 and sheet["texts"]["CC-BY-SA-3.0"] == 2
    pair = ["CC-BY-NC-SA-4.0", "CC-BY-SA-3.0"]
    assert sheet["unjoinable"] == [{"licences": pair, "rows": 1}]
    assert [each["rows"] for each in sheet["combinations"] if each["seed"] == "Apache-2.0"] == [2]
    base = licences.of_source({"source": "hub", "parts": [{"licence": "GPL-3.0"}]})
    whole = licences.combine({"base": base, "filter/lamini": sheet})
    assert whole["text"] == "not stated in the file"
    assert ["CC-BY-SA-3.0", "GPL-3.0-only"] in [p["licences"] for p in whole["unjoinable"]]


def test_the_strictest_forbids_before_it_asks_for_anything() -> None:
    order = ["CC0-1.0", "Apache-2.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "OpenAI-terms"]
    order += ["CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "what?"]
    for at in range(1, len(order) + 1):
        assert strictest(split(", ".join(reversed(order[:at])))).name == order[at - 1]


def test_a_set_is_as_free_as_its_least_free_row() -> None:
    rows = [row("1", "CC-BY-SA-3.0"), row("2", "MIT, CC BY 4.0"), row("3", "CC-BY-SA-3.0")]
    sheet = licences.sheet("lamini", rows)
    assert sheet["rows"] == 3 and [each["rows"] for each in sheet["combinations"]] == [2, 1]
    assert sheet["strictest"] == sheet["text"] == "CC-BY-SA-3.0"
    assert sheet["share_alike"] == ["CC-BY-SA-3.0"]
    assert sheet["attribution"] == ["Apache-2.0", "CC-BY-4.0", "CC-BY-SA-3.0", "MIT"]
    assert sheet["commercial"]["answer"] == sheet["sharing"]["answer"] == "yes"
    assert sheet["sources"] == {"a.jsonl": 3}

    unstated = licences.sheet("lamini", [*rows, row("4", "not stated in the file")])
    assert unstated["commercial"]["answer"] == unstated["sharing"]["answer"] == "unknown"
    assert "(seed, 1 row)" in unstated["commercial"]["reason"]

    barred = licences.sheet("lamini", [*rows, row("4", "what?"), row("5", "CC BY-NC 4.0")])
    assert barred["commercial"]["answer"] == "no" and barred["strictest"] == "what?"
    assert barred["commercial"]["by"] == ["CC-BY-NC-4.0"]
    assert barred["sharing"]["answer"] == "unknown" and barred["sharing"]["by"] == ["what?"]


def test_a_judges_terms_bind_the_set_and_are_no_licence_of_its_text() -> None:
    rows = [row("1", "CC-BY-SA-3.0", judge_terms="OpenAI-terms, Apache-2.0")]
    sheet = licences.sheet("lamini", rows)
    assert (sheet["text"], sheet["strictest"]) == ("CC-BY-SA-3.0", "OpenAI-terms")
    assert sheet["commercial"]["answer"] == "unknown"
    assert "OpenAI-terms (judge, 1 row)" in sheet["commercial"]["reason"]


def test_the_same_rows_in_any_order_make_the_same_sheet() -> None:
    rows = [row(str(n), name) for n, name in enumerate(["MIT", "CC BY 4.0", "what?", "why?"])]
    told = json.dumps(licences.sheet("orca", rows), sort_keys=True)
    assert told == json.dumps(licences.sheet("orca", rows[::-1]), sort_keys=True)


def test_a_mix_that_is_not_allowed_is_refused_by_source_and_number() -> None:
    rows = [
        row("1", "CC BY 4.0"),
        row("2", "CC BY-NC 4.0", sources=["flan/task1.json"]),
        row("3", "CC BY-NC 4.0, MIT", sources=["flan/task1.json"], judge_terms="OpenAI-terms"),
    ]
    licences.check("orca", rows, None)
    everything = ["CC-BY-4.0", "cc by nc 4.0", "MIT", "Apache 2.0", "OpenAI-terms"]
    licences.check("orca", rows, everything)
    with pytest.raises(BadInput) as refused:
        licences.check("orca", rows, ["CC-BY-4.0", "MIT", "Apache-2.0"])
    said = str(refused.value)
    assert "filter@orca: 2 of 3 rows" in said and "filter.licences.allow" in said
    assert "CC-BY-NC-4.0 (seed): 2 rows from flan/task1.json" in said
    assert "OpenAI-terms (judge): 1 row from flan/task1.json" in said
    many = [row(str(n), f"licence {n}") for n in range(40)]
    with pytest.raises(BadInput, match=r"40 of 40 rows[\s\S]*and 32 more$"):
        licences.check("orca", many, ["Apache-2.0"])


def test_a_row_carries_its_sources_and_both_models_terms() -> None:
    sample = Sample.model_validate(
        row("1", "MIT", seeds=["s2", "s1", "s3"]).model_dump(include=set(Sample.model_fields))
    )
    sources = {"s1": "b.jsonl", "s2": "a.jsonl", "s3": "b.jsonl"}
    (kept,) = licences.trace([sample], sources, LLM)
    assert kept.sources == ["a.jsonl", "b.jsonl"] and kept.instruction == sample.instruction
    assert (kept.teacher_terms, kept.judge_terms) == ("Apache-2.0", "Apache-2.0")
    strict = LLM.judge.model_copy(update={"model": "other", "terms": "OpenAI-terms"})  # type: ignore[union-attr]
    panel = LLM.model_copy(update={"judge": [*LLM.judges, strict, strict]})
    (kept,) = licences.trace([sample], sources, panel)
    assert kept.judge_terms == "Apache-2.0, OpenAI-terms"
    with pytest.raises(BadInput, match="made from s2, which data/fetch does not hold"):
        licences.trace([sample], {"s1": "b.jsonl"}, LLM)


def test_weights_are_as_free_as_the_least_free_part() -> None:
    world = licences.of_source({"source": "world"})
    assert world["text"] == find_licence(LICENCE).name
    assert licences.of_source({"source": "grown"})["text"] == "Apache-2.0"
    assert licences.of_source({"source": "local", "rows": {}})["sharing"]["answer"] == "unknown"
    hub = licences.of_source({"source": "hub", "parts": [{"licence": "MIT"}]})
    sheet = licences.sheet("lamini", [row("1", "CC BY-NC 4.0")])
    whole = licences.combine({"base": hub, "filter/lamini": sheet, "fetch/hh_rlhf": world})
    assert whole["text"] == "CC-BY-NC-4.0" and whole["sharing"]["answer"] == "yes"
    assert whole["commercial"]["answer"] == "no"
    assert whole["commercial"]["by"] == ["filter/lamini (CC-BY-NC-4.0)"]


def test_terms_are_one_name_in_params(tmp_path: Path) -> None:
    parameters.copy(tmp_path)
    parameters.replace(tmp_path, "terms: Apache-2.0", "terms: 'MIT, GPL'")
    with pytest.raises(BadInput, match=r"llm\.endpoints\.world_teacher\.terms: not one licence"):
        params.load(tmp_path)


@pytest.mark.slow
def test_the_filter_stage_writes_the_sheet_and_obeys_allow(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sets, folder)
    monkeypatch.chdir(folder)
    sheet = json.loads(Path("data/filter/lamini/licences.json").read_text())
    rows = [
        Kept.model_validate_json(line)
        for side in ("train", "eval")
        for line in Path(f"data/filter/lamini/{side}.jsonl").read_text().splitlines()
    ]
    assert sheet["rows"] == len(rows) == sum(each["rows"] for each in sheet["combinations"])
    assert sheet["strictest"] == "Apache-2.0" and sheet["commercial"]["answer"] == "yes"
    shutil.rmtree("data/filter/lamini")
    parameters.replace(Path(), "licences: {allow: null}", "licences: {allow: [Apache-2.0, MIT]}")
    with pytest.raises(BadInput, match=r"CC0-1\.0 \(seed\): \d+ rows from bezoar world"):
        filter.main("lamini")
    assert not Path("data/filter/lamini/train.jsonl").exists()
