"""Rows as people have them: seeds, pairs and queries in many forms, and names of one's own."""

import json
from pathlib import Path
from typing import Any

import pytest

from bezoar import params
from bezoar.rows.files import BadInput
from bezoar.rows.records import Message
from bezoar.sources import link, local, shapes
from tests.builders import parameters
from tests.builders.files import DOLLY, TASK, adds_up, fails, pair, put, read, spread, table
from tests.conftest import DATA

TALK = [("user", "Hi?"), ("assistant", "Hello."), ("user", "More?"), ("assistant", "No.")]
CHAT = [{"role": role, "content": text} for role, text in TALK]
SHARED = [
    {"from": {"user": "human", "assistant": "gpt"}[role], "value": text} for role, text in TALK
]
PARTS = [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in TALK]
THOUGHT = {
    "role": "assistant",
    "content": [
        {"type": "reasoning", "text": "Hm."},
        {"type": "text", "text": "Hello."},
    ],
}
TOOL = {"role": "tool", "content": "12"}
SEEDS: list[tuple[dict[str, Any], tuple[str, str, str]]] = [
    ({"instruction": "Hi?", "input": "", "output": "Hello."}, ("Hi?", "", "Hello.")),
    ({"instruction": "Hi?", "input": "x", "output": "Hello."}, ("Hi?", "x", "Hello.")),
    ({"instruction": "Hi?", "input": None, "output": "Hello."}, ("Hi?", "", "Hello.")),
    ({"instruction": "Hi?", "output": "Hello."}, ("Hi?", "", "Hello.")),
    ({"instruction": "Hi?", "response": "Hello."}, ("Hi?", "", "Hello.")),
    ({"question": "Hi?", "answer": "Hello."}, ("Hi?", "", "Hello.")),
    ({"prompt": "Hi?", "response": "Hello."}, ("Hi?", "", "Hello.")),
    ({"query": "Hi?", "response": "Hello.", "type": "x"}, ("Hi?", "", "Hello.")),
    ({"problem": "Hi?", "solution": "Hello.", "level": "1"}, ("Hi?", "", "Hello.")),
    ({"system_prompt": "Be.", "question": "Hi?", "response": "Hello."}, ("Hi?", "", "Hello.")),
    (
        {"instruction": "Hi?", "instances": [{"input": "x", "output": "Hello."}]},
        ("Hi?", "x", "Hello."),
    ),
    ({"messages": CHAT}, ("Hi?", "", "Hello.")),
    ({"messages": PARTS}, ("Hi?", "", "Hello.")),
    ({"messages": [CHAT[0], THOUGHT]}, ("Hi?", "", "Hello.")),
    ({"prompt": "Hi?", "messages": CHAT}, ("Hi?", "", "Hello.")),
    ({"conversations": SHARED}, ("Hi?", "", "Hello.")),
    ({"conversations": SHARED, "tools": "[]"}, ("Hi?", "", "Hello.")),
    ({"id": "1", "data": ["Hi?", "Hello.", "More?", "No."]}, ("Hi?", "", "Hello.")),
    ({"conversations": ["Hi?", "Hello."], "source": "x"}, ("Hi?", "", "Hello.")),
    ({"text": "### Human: Hi?### Assistant: Hello.### Human: More?"}, ("Hi?", "", "Hello.")),
    ({"prompt": "Hi?", "completion": "Hello.", "label": True}, ("Hi?", "", "Hello.")),
    ({"conversation": {"id": 3, "messages": CHAT}}, ("Hi?", "", "Hello.")),
    ({"data": {"conversations": SHARED}}, ("Hi?", "", "Hello.")),
    ({"messages": [{"role": "system", "content": ""}, *CHAT]}, ("Hi?", "", "Hello.")),
    ({"messages": [{"role": "system", "content": None}, *CHAT]}, ("Hi?", "", "Hello.")),
    ({"messages": [{"role": "developer", "content": "Be brief."}, *CHAT]}, ("Hi?", "", "Hello.")),
    ({"messages": CHAT[:2], "label": True}, ("Hi?", "", "Hello.")),
]


@pytest.mark.parametrize(("row", "seed"), SEEDS, ids=lambda value: str(value)[:60])
def test_a_row_of_any_form_is_a_seed(
    tmp_path: Path, row: dict[str, Any], seed: tuple[str, str, str]
) -> None:
    path = put(tmp_path / "dolly/a.json", row)
    found = shapes.recognise(path)
    assert found and found.shape.source == "dolly"
    source = read("dolly", tmp_path)
    (made,) = source.tables["seeds.jsonl"]
    told: Any = made
    assert (told.instruction, told.context, told.response) == seed
    assert told.category == "open_qa"
    partly: Any = source.account["partly_used"]
    assert partly["no category: taken for open_qa"] == 1
    put(tmp_path / "dolly/a.json", {**row, "category": "mine"})
    assert table("dolly", "seeds.jsonl", tmp_path)[0].category == "mine"


def test_what_of_a_dialogue_is_not_used_is_counted(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    put(
        tmp_path / "dolly/chat.jsonl",
        {"messages": [system, *CHAT]},
        {"messages": CHAT[:2]},
        {"messages": [CHAT[0], TOOL, CHAT[1]]},
        {"messages": CHAT, "tools": [{"name": "sum"}]},
        {"messages": CHAT[1:]},
        {"messages": [CHAT[0]]},
        {"messages": [{"role": "user", "content": " "}, CHAT[1]]},
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, CHAT[1]]},
        {"messages": [CHAT[0], {"role": "narrator", "content": "He left."}, CHAT[1]]},
        {"messages": CHAT[:2], "label": False},
    )
    source = read("dolly", tmp_path)
    adds_up(source)
    assert source.account["rows"] == {"chat.jsonl": 3}
    assert source.account["left_out"] == {
        "a dialogue with tools": 2,
        "a dialogue that does not begin with a question and its answer": 1,
        "empty turn": 1,
        "content that is not text": 1,
        "a turn of narrator": 1,
        "an answer that is marked as a bad one": 1,
    }
    assert source.account["partly_used"] == {
        "turns after the first exchange are not used": 1,
        "a system message is not used": 1,
        "what the model says before the first question is not used": 1,
        "no category: taken for open_qa": 3,
    }


def test_rows_with_tools_before_others_hide_none_of_them(tmp_path: Path) -> None:
    with_tool = {"messages": [CHAT[0], TOOL, CHAT[1]]}
    put(tmp_path / "dolly/chat.jsonl", *[with_tool] * 40, {"messages": CHAT})
    source = read("dolly", tmp_path)
    assert source.account["rows"] == {"chat.jsonl": 1}
    assert source.account["left_out"] == {"a dialogue with tools": 40}
    call = {"role": "assistant", "tool_calls": [{"id": "1"}]}  # without content, as OpenAI has it
    for talk in (with_tool, {"messages": [CHAT[0], call, TOOL, CHAT[1]]}):
        put(tmp_path / "dolly/chat.jsonl", talk, talk)
        assert "dialogues with tools, which no stage learns from" in fails("dolly", tmp_path)
    put(tmp_path / "dolly/chat.jsonl", with_tool, with_tool)
    assert "dialogues with tools, which no stage learns from" in fails("dolly", tmp_path)


@pytest.mark.parametrize("lines", [True, False])
def test_lists_of_messages_are_rows(tmp_path: Path, lines: bool) -> None:
    talks = [CHAT, CHAT[:2]]
    text = "\n".join(map(json.dumps, talks)) if lines else json.dumps(talks)
    put(tmp_path / "dolly/a.json", text=text)
    assert read("dolly", tmp_path).account["rows"] == {"a.json": 2}


def test_messages_that_lie_elsewhere_are_named_and_read_by_a_mapping(tmp_path: Path) -> None:
    put(tmp_path / "dolly/a.jsonl", {"custom_id": "T-1", "body": {"messages": CHAT}})
    assert "name the messages: `fields: {messages: body.messages}`" in fails("dolly", tmp_path)
    names = {"messages": "body.messages", "id": "custom_id"}
    (row,) = read("dolly", tmp_path, fields=names).tables["seeds.jsonl"]
    made: Any = row
    assert (made.instruction, made.response, made.own_id) == ("Hi?", "Hello.", "T-1")


def test_characters_that_an_export_broke_are_counted(tmp_path: Path) -> None:
    text = "Wie ändere ich für 5 € meine Größe?"
    twice = text.encode().decode("cp1252")
    lost = text.encode("cp1252").decode(errors="replace")
    rows = [{"instruction": asked, "response": "So."} for asked in (text, twice, lost)]
    put(tmp_path / "dolly/a.jsonl", *rows)
    partly: Any = read("dolly", tmp_path).account["partly_used"]
    assert partly[shapes.DECODED_TWICE] == 2


@pytest.mark.parametrize("marks", [(True, False), ("True", "False"), (1, 0)])
def test_an_answer_marked_as_bad_is_no_answer(tmp_path: Path, marks: tuple[Any, Any]) -> None:
    rows = [
        {"prompt": f"{n}?", "completion": f"{n}.", "label": mark} for n, mark in enumerate(marks)
    ]
    put(tmp_path / "dolly/kto.csv", text=spread(rows))
    put(tmp_path / "dolly/kto.jsonl", *[{**row, "completion": "Another."} for row in rows])
    for path in (tmp_path / "dolly").iterdir():
        recognised = shapes.recognise(path)
        assert recognised and recognised.shape.name == "answers marked good or bad"
    source = read("dolly", tmp_path)
    adds_up(source)
    assert source.account["rows"] == {"kto.csv": 1, "kto.jsonl": 1}
    assert source.account["left_out"] == {"an answer that is marked as a bad one": 2}


def test_gsm8k_is_a_chain_of_thought_and_a_seed_where_it_is_put_among_them(tmp_path: Path) -> None:
    row = {"question": "Two hens?", "answer": "Each has 2: 2*2=<<2*2=4>>4 legs.\n#### 4"}
    put(tmp_path / "flan/gsm8k/train.jsonl", row)
    put(tmp_path / "dolly/gsm8k.jsonl", row)
    (query,) = table("flan", "queries.jsonl", tmp_path)
    told = "Each has 2: 2*2=4 legs.\nThe answer is 4."
    assert (query.mixture, query.task, query.target) == ("cot", "gsm8k", told)
    (seed,) = table("dolly", "seeds.jsonl", tmp_path)
    assert (seed.instruction, seed.response) == ("Two hens?", told)


def test_xp3_is_a_prompt_with_its_target(tmp_path: Path) -> None:
    put(tmp_path / "flan/xp3.jsonl", {"inputs": "Sí?", "targets": "No", "language": "es"})
    (query,) = table("flan", "queries.jsonl", tmp_path)
    assert (query.query, query.target, query.task) == ("Sí?", "No", "xp3")


SIDES = {"chosen": "Good.", "rejected": "Bad."}
ANSWERS = [{"role": "assistant", "content": text} for text in ("Good.", "Bad.")]
GPT = [{"from": "gpt", "value": text} for text in ("Good.", "Bad.")]
PAIRS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"prompt": "Hi?", **SIDES}, TALK[:1]),
    ({"question": "Hi?", **SIDES}, TALK[:1]),
    ({"prompt": "Hi?", "chosen": "Hi? Good.", "rejected": "Hi? Bad."}, TALK[:1]),
    ({"instruction": "Hi?", **SIDES}, TALK[:1]),
    ({"system": "Be.", "question": "Hi?", **SIDES}, [("user", "Be.\n\nHi?")]),
    ({"prompt": "\n\nHuman: Hi?\n\nAssistant:", **SIDES}, TALK[:1]),
    ({"prompt": "Hi?", **pair("Hi?", "Good.", "Bad.")}, TALK[:1]),
    ({"prompt": CHAT[:3], "chosen": ANSWERS[:1], "rejected": ANSWERS[1:]}, TALK[:3]),
    ({"prompt": CHAT[:3], **SIDES}, TALK[:3]),
    (
        {"prompt": "Hi?", "chosen": [CHAT[0], ANSWERS[0]], "rejected": [CHAT[0], ANSWERS[1]]},
        TALK[:1],
    ),
    ({"chosen": [*CHAT[:3], ANSWERS[0]], "rejected": [*CHAT[:3], ANSWERS[1]]}, TALK[:3]),
    ({"conversations": SHARED[:1], "chosen": GPT[0], "rejected": GPT[1]}, TALK[:1]),
    (
        {
            "chosen_messages": [*PARTS[:1], ANSWERS[0]],
            "rejected_messages": [*PARTS[:1], ANSWERS[1]],
        },
        TALK[:1],
    ),
    (
        {"prompt": "Hi?", "response_1": "Good.", "response_2": "Bad.", "preference_strength": -2},
        TALK[:1],
    ),
    (
        {"context": CHAT[:1], "response1": "Bad.", "response2": "Good.", "overall_preference": 1},
        TALK[:1],
    ),
    (
        {"prompt": "Hi?", "response_0": "Bad.", "response_1": "Good.", "better_response_id": 1},
        TALK[:1],
    ),
]


@pytest.mark.parametrize(("row", "prompt"), PAIRS, ids=lambda value: str(value)[:60])
def test_a_row_of_any_form_is_a_preference_pair(
    tmp_path: Path, row: dict[str, Any], prompt: list[tuple[str, str]]
) -> None:
    path = put(tmp_path / "hh_rlhf/a.jsonl", row)
    found = shapes.recognise(path)
    assert found and found.shape.source == "hh_rlhf"
    put(tmp_path / "hh_rlhf/b.jsonl", pair("Another?"))
    tables: Any = read("hh_rlhf", tmp_path).tables
    (made,) = [p for part in tables.values() for p in part if p.source == "a.jsonl"]
    assert made.prompt == [Message.model_validate({"role": r, "content": t}) for r, t in prompt]
    assert (made.chosen, made.rejected) == ("Good.", "Bad.")


# --- names of one's own --------------------------------------------------------------------------


def test_fields_of_other_names_are_read_by_a_mapping(tmp_path: Path) -> None:
    own = {"ask": "Name a sea.", "meta": {"reply": "Baltic.", "kind": "open_qa"}, "extra": 1}
    fields = {"instruction": "ask", "response": "meta.reply", "category": "meta.kind"}
    put(tmp_path / "dolly/mine.json", text=json.dumps({"version": 2, "seeds": [own, own]}))
    put(tmp_path / "dolly/usual.jsonl", DOLLY)
    seeds = read("dolly", tmp_path, fields=fields).tables["seeds.jsonl"]
    assert [getattr(seed, "response") for seed in seeds] == ["Baltic.", "Baltic.", "Oder."]  # noqa: B009
    assert (
        "no shape that is known; their fields are ask, meta (an object), extra (a number)"
        in fails("dolly", tmp_path)
    )
    (tmp_path / "dolly/mine.json").unlink()
    with pytest.raises(BadInput, match=r"no file has the fields asked, meta\.reply"):
        read("dolly", tmp_path, fields={"instruction": "asked", "response": "meta.reply"})


def test_a_mapping_counts_before_what_the_fields_look_like(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": "A", "explanation": "So."} for n in range(2)]
    put(tmp_path / "dolly/a.jsonl", *rows)
    fields = {"instruction": "question", "response": "explanation"}
    seeds: Any = read("dolly", tmp_path, fields=fields).tables["seeds.jsonl"]
    assert [(seed.instruction, seed.response) for seed in seeds] == [("0?", "So."), ("1?", "So.")]
    items = {"stem": "Sea?", "alternatives": ["a", "b"], "gold": "B"}
    put(tmp_path / "benchmarks/own.jsonl", items)
    fields = {"question": "stem", "choices": "alternatives", "answer": "gold"}
    (item,) = read("benchmarks", tmp_path, fields=fields).tables["tasks/own.jsonl"]
    assert getattr(item, "label") == 1  # noqa: B009


def test_a_mapping_of_a_field_that_is_none_is_refused_with_those_that_are(tmp_path: Path) -> None:
    parameters.copy(tmp_path)
    parameters.replace(tmp_path, "fields: {}\n", "fields: {instrution: ask}\n")
    with pytest.raises(BadInput, match=r"dolly.fields.instrution: .*have instruction, context"):
        params.load(tmp_path)


def test_linking_takes_the_mapping_of_profile_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "mine/a.csv", text="ask,reply\nName a sea.,Baltic.\n")
    monkeypatch.chdir(tmp_path)
    finds = link.find(Path("mine"), {"dolly": {"instruction": "ask", "response": "reply"}})
    assert [name for _, name, _ in finds.used] == ["seeds"]
    assert not link.find(Path("mine")).used


# --- licences ------------------------------------------------------------------------------------


def test_a_licence_of_ones_own_files_stands_on_every_row(tmp_path: Path) -> None:
    put(tmp_path / "dolly/a/x.jsonl", DOLLY)
    put(tmp_path / "dolly/b/c/x.jsonl", {**DOLLY, "response": "Elbe."})
    put(tmp_path / "dolly/x.jsonl", {**DOLLY, "response": "Ems."})
    card = "---\nlicense: cc-by-4.0\ntags: [a]\n---\n# Mine\n"
    put(tmp_path / "dolly/b/README.md", text=card)
    put(tmp_path / "dolly/LICENSE", text="All rights reserved.\n")
    told = {s.source: s.licence for s in table("dolly", "seeds.jsonl", tmp_path)}
    assert told == {
        "a/x.jsonl": shapes.NOT_STATED,
        "b/c/x.jsonl": "cc-by-4.0",
        "x.jsonl": shapes.NOT_STATED,
    }
    put(tmp_path / "flan/a.json", TASK, {**TASK, "Instance License": []})
    tasks = local.read("flan", None, 7, tmp_path, licence="CC0-1.0")
    assert tasks is not None
    assert [getattr(q, "licence") for q in tasks.tables["queries.jsonl"]] == ["MIT", "CC0-1.0"]  # noqa: B009
    source = local.read("dolly", None, 7, tmp_path, licence="MIT")
    assert source and {getattr(s, "licence") for s in source.tables["seeds.jsonl"]} == {"MIT"}  # noqa: B009


def test_a_readme_that_states_a_licence_is_linked_with_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "mine/README.md", text="---\nlicense: [mit]\n---\n")
    put(tmp_path / "mine/deep/seeds.jsonl", DOLLY)
    put(tmp_path / "mine/deep/readme.md", text="# Words\n")
    monkeypatch.chdir(tmp_path)
    link.main(["mine"])
    source = local.read("dolly", None, 7)
    assert source and {getattr(s, "licence") for s in source.tables["seeds.jsonl"]} == {"mit"}  # noqa: B009


# --- the real thing ------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")
def test_real_rows_of_many_forms_are_read_as_their_files_say(tmp_path: Path) -> None:
    for name in ("alpaca_en_demo.json", "kto_en_demo.json", "v1_sft_demo.jsonl"):
        put(tmp_path / "dolly" / name).write_bytes((DATA / "shapes" / name).read_bytes())
    source = read("dolly", tmp_path)
    adds_up(source)
    kto = json.loads((DATA / "shapes/kto_en_demo.json").read_text())
    good = sum(row["label"] for row in kto)
    rows: Any = source.account["rows"]
    assert rows["kto_en_demo.json"] == good < len(kto)
    alpaca = json.loads((DATA / "shapes/alpaca_en_demo.json").read_text())
    told: Any = source.tables["seeds.jsonl"]
    read_rows = [(s.instruction, s.context, s.response) for s in told if "alpaca" in s.source]
    assert read_rows == [(row["instruction"], row["input"], row["output"]) for row in alpaca]
    for name in ("dpo_en_demo.json", "v1_dpo_demo.jsonl"):
        put(tmp_path / "hh_rlhf" / name).write_bytes((DATA / "shapes" / name).read_bytes())
    pairs = read("hh_rlhf", tmp_path)
    adds_up(pairs)
    made: Any = [pair for part in pairs.tables.values() for pair in part]
    chosen = {pair.chosen for pair in made if pair.source.startswith("dpo")}
    wanted = json.loads((DATA / "shapes/dpo_en_demo.json").read_text())
    assert chosen == {row["chosen"]["value"].strip() for row in wanted}


def test_null_and_nan_are_an_empty_answer_and_a_number_is_its_digits(tmp_path: Path) -> None:
    rows = [{"question": "Sum?", "answer": value} for value in ("four", 4, 4.5, None, "")]
    folder = put(tmp_path / "dolly/a.jsonl", *rows, {"question": "Nan?", "answer": float("nan")})
    source = read("dolly", tmp_path)
    seeds: Any = source.tables["seeds.jsonl"]
    assert [seed.response for seed in seeds] == ["four", "4", "4.5"], folder
    assert source.account["left_out"] == {"empty instruction or response": 3}
    put(
        tmp_path / "hh_rlhf/a.jsonl",
        *(pair(f"Why {n}?") for n in range(4)),
        {
            **pair("Null?"),
            "chosen": None,
        },
    )
    assert read("hh_rlhf", tmp_path).account["left_out"] == {"empty answer": 1}


def test_a_mapping_holds_where_the_first_row_has_null(tmp_path: Path) -> None:
    names = {"instruction": "Frage", "response": "Antwort", "context": "Kontext"}
    rows = [
        dict(zip(names.values(), each, strict=True))
        for each in (("A?", "B", None), ("C?", "D", "E"))
    ]
    put(tmp_path / "dolly/a.jsonl", *rows)
    seeds: Any = read("dolly", tmp_path, fields=names).tables["seeds.jsonl"]
    assert [seed.context for seed in seeds] == ["", "E"]


def test_a_mapping_names_the_columns_of_a_table_as_it_writes_them(tmp_path: Path) -> None:
    put(tmp_path / "dolly/a.csv", text="Question,Answer\nWhat?,That.\n")
    seeds: Any = read("dolly", tmp_path, fields={"instruction": "Question", "response": "Answer"})
    assert [seed.instruction for seed in seeds.tables["seeds.jsonl"]] == ["What?"]
    put(
        tmp_path / "benchmarks/b.csv",
        text='frage;wahl;richtig\nEins?;["x", "y"];B\n'.replace('["x", "y"]', '"[""x"", ""y""]"'),
    )
    names = {"question": "frage", "choices": "wahl", "answer": "richtig"}
    (item,) = read("benchmarks", tmp_path, fields=names).tables["tasks/b.jsonl"]
    assert getattr(item, "choices") == ["x", "y"]  # noqa: B009


def test_the_split_of_pairs_is_not_kept_and_that_is_told(tmp_path: Path) -> None:
    put(tmp_path / "hh_rlhf/train.jsonl", *(pair(f"Train {n}?") for n in range(5)))
    put(
        tmp_path / "hh_rlhf/more.jsonl",
        *({**pair(f"More {n}?"), "split": "test"} for n in range(4)),
    )
    told = read("hh_rlhf", tmp_path).account["partly_used"]
    assert told == {"its split is not kept: all pairs are parted anew": 9}


def test_a_test_whose_choices_cannot_be_read_is_no_seed(tmp_path: Path) -> None:
    put(tmp_path / "quiz.csv", text="question;choices;answer\nOne?;x|y|z;x\n")
    put(tmp_path / "seeds.jsonl", DOLLY)
    finds = link.find(tmp_path)
    assert [path.name for path, _, _ in finds.used] == ["seeds.jsonl"]
    assert "its columns are question, choices, answer" in finds.unused[0].why
