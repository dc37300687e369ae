"""Whatever holds the rows: formats, encodings and packings, told by content; what is refused."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bezoar.sources import link
from tests.builders.files import DOLLY, fails, parquet, piqa, put, read, spread, table

ROWS = [
    {
        "instruction": f'Say "{n}"; in\ntwo lines, näive 中文 \U0001f600.',
        "context": "" if n % 2 else "a, b\tc | d",
        "response": f"Answer\r\n{n}.\u2028End",
        "category": "open_qa",
    }
    for n in range(7)
]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def arrow(stream: bool, *rows: Any) -> bytes:
    from pyarrow import BufferOutputStream, Table, ipc

    out = BufferOutputStream()
    made = Table.from_pylist(list(rows))
    with (ipc.new_stream if stream else ipc.new_file)(out, made.schema) as writer:
        writer.write_table(made, max_chunksize=3)
    return bytes(out.getvalue().to_pybytes())


def compressed(codec: str, data: bytes) -> bytes:
    from pyarrow import BufferOutputStream, CompressedOutputStream

    out = BufferOutputStream()
    with CompressedOutputStream(out, codec) as packed:
        packed.write(data)
    return bytes(out.getvalue().to_pybytes())


def zipped(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


PLAIN: dict[str, bytes] = {
    "jsonl": TEXT.encode(),
    "array": json.dumps(ROWS, indent=1).encode(),
    "objects one after another": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "data": json.dumps({"version": 1, "data": ROWS}).encode(),
    "rows, spread": json.dumps({"rows": ROWS, "features": [{"name": "x"}]}, indent=2).encode(),
    "a list of any name": json.dumps({"seed_tasks": ROWS, "about": "mine"}).encode(),
    "the viewer's rows": json.dumps(
        {"features": [{"a": 1}], "rows": [{"row_idx": n, "row": r} for n, r in enumerate(ROWS)]}
    ).encode(),
    "pandas by columns": json.dumps(
        {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}
    ).encode(),
    "pandas by rows": json.dumps({str(n): row for n, row in enumerate(ROWS)}).encode(),
    "pandas, split": json.dumps(
        {"columns": list(ROWS[0]), "index": [], "data": [list(row.values()) for row in ROWS]}
    ).encode(),
    "csv": spread(ROWS).encode(),
    "csv as Excel marks it": b"sep=;\r\n" + spread(ROWS, ";").encode(),
    "csv with LF": spread(ROWS, end="\n").encode(),
    "csv with a mark": b"\xef\xbb\xbf" + spread(ROWS).encode(),
    "csv with titles": spread([{k.title(): v for k, v in row.items()} for row in ROWS]).encode(),
    "semicolons": spread(ROWS, ";").encode(),
    "tabs": spread(ROWS, "\t").encode(),
    "bars": spread(ROWS, "|").encode(),
    "parquet": parquet(*ROWS),
    "arrow file": arrow(False, *ROWS),
    "arrow stream": arrow(True, *ROWS),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "CR": TEXT.replace("\n", "\r").encode(),
    **{
        name: ("\ufeff" + TEXT).encode(name)
        for name in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le")
    },
    "csv as utf-16": ("\ufeff" + spread(ROWS, "\t")).encode("utf-16-le"),
    "array as utf-16": ("\ufeff" + json.dumps(ROWS, indent=1)).encode("utf-16-be"),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: compressed("zstd", data),
    "lz4": lambda data: compressed("lz4", data),
    "zip": lambda data: zipped(("a/rows", data), ("README.md", b"about"), ("__MACOSX/._r", b"\0")),
    "two gzip members": lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:]),
}


def said(folder: Path) -> list[tuple[str, str, str]]:
    seeds = table("dolly", "seeds.jsonl", folder)
    return [(seed.instruction, seed.context, seed.response) for seed in seeds]


WANTED = [(row["instruction"], row["context"], row["response"]) for row in ROWS]


@pytest.mark.parametrize("name", PLAIN)
def test_rows_are_the_same_whatever_holds_them(tmp_path: Path, name: str) -> None:
    put(tmp_path / "dolly/some file").write_bytes(PLAIN[name])
    assert said(tmp_path) == WANTED


@pytest.mark.parametrize("name", ["jsonl", "array", "csv", "parquet", "arrow stream", "utf-16-le"])
@pytest.mark.parametrize("packing", PACKED)
def test_a_packed_file_is_what_it_holds(tmp_path: Path, name: str, packing: str) -> None:
    put(tmp_path / "dolly/rows.jsonl").write_bytes(PACKED[packing](PLAIN[name]))
    assert said(tmp_path) == WANTED


@pytest.mark.parametrize("packing", PACKED)
def test_a_packed_file_that_is_cut_is_no_shorter_file(tmp_path: Path, packing: str) -> None:
    whole = PACKED[packing](TEXT.encode() * 50)
    put(tmp_path / "dolly/a").write_bytes(whole[: len(whole) // 2])
    assert "dolly/a: cannot be read" in fails("dolly", tmp_path)


@pytest.mark.parametrize("name", ["parquet", "arrow file", "arrow stream"])
@pytest.mark.parametrize("cut", [8, 40, 200])
def test_a_table_that_is_cut_is_no_shorter_table(tmp_path: Path, name: str, cut: int) -> None:
    put(tmp_path / "dolly/a").write_bytes(PLAIN[name][:-cut])
    assert "dolly/a: broken after row" in fails("dolly", tmp_path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (spread(ROWS[:2]).encode() + b"only,three,cells\r\n", "a.csv:8: 4 cells are expected"),
        (spread(ROWS[:2]).encode() + b'"never closed,b,c,d', "a.csv:8: no row of a table"),
        (b'instruction\tresponse\n"Hi" he said\tHi.\n', "a.csv:2: no row of a table"),
        (b"instruction,response\nOne, two,three\n", "a.csv:2: 2 cells are expected, as the first"),
        (spread(ROWS[:2]).encode() + b"gr\xfcn,b,c,d\r\n", "a.csv:8: not UTF-8"),
        (
            b"instruction,instruction,response,category\r\na,b,c,d",
            "column instruction stands there twice",
        ),
        (TEXT.encode("utf-16")[:-1], "broken utf-16"),
        (b'{"instruction": "a"}\n{"instruction": ' + b"\n" * 3, "a.csv:2: not JSON"),
    ],
)
def test_a_fault_in_a_file_is_named_with_its_line(tmp_path: Path, data: bytes, reason: str) -> None:
    put(tmp_path / "dolly/a.csv").write_bytes(data)
    assert reason in fails("dolly", tmp_path)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 3\n"
REFUSED: dict[str, tuple[bytes, str]] = {
    "pointer.jsonl": (LFS.encode(), "a Git LFS pointer, not the data"),
    "annex.jsonl": (b"/annex/objects/SHA256E-s3--0a.jsonl\n", "run `git annex get`"),
    "page.json": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page (HTML)"),
    "denied.parquet": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "XML, as a server"),
    "paper.pdf": (b"%PDF-1.7\n\0", "a PDF file"),
    "sheet.xlsx": (zipped(("[Content_Types].xml", b""), ("xl/a", b"")), "as CSV (UTF-8)"),
    "sheet.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "an old Word or Excel file"),
    "rows.pkl": (b"\x80\x04\x95\0", "a Python pickle, which can run code"),
    "model.pt": (zipped(("model/data.pkl", b"")), "a Python pickle, which can run code"),
    "rows.npy": (b"\x93NUMPY\x01\0", "a NumPy array"),
    "rows.db": (b"SQLite format 3\0", "an SQLite database"),
    "rows.h5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "rows.7z": (b"7z\xbc\xaf\x27\x1c\0", "a 7z archive"),
    "rows.tar.gz": (gzip.compress(tarred("rows.jsonl", TEXT.encode())), "a tar archive"),
    "two.zip": (zipped(("a.jsonl", b"{}"), ("b.jsonl", b"{}")), "an archive of 2 files (a.j"),
    "empty.jsonl": (b"", "empty"),
    "blank.jsonl": (b" \n\n", "empty"),
    "wide.jsonl": (TEXT.encode("utf-16-le"), "UTF-16 without a byte order mark"),
    "weights.bin": (bytes(range(256)), "binary data of no kind that is known"),
    "strange.jsonl": (b'{"title": "a", "body": "b"}\n', "their fields are title, body"),
    "strange.csv": (b"title,body\na,b\n", "its columns are title, body"),
    "notes.txt": (b"Buy milk.\n", "text that holds no rows"),
}


def test_what_is_not_read_says_what_it_is_and_all_of_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (data, _) in REFUSED.items():
        put(tmp_path / "mine" / name).write_bytes(data)
    put(tmp_path / "mine/seeds.jsonl", DOLLY)
    (tmp_path / "mine/gone.jsonl").symlink_to("../.git/annex/objects/0a/gone.jsonl")
    monkeypatch.chdir(tmp_path)
    link.main([str(tmp_path / "mine")])
    listed = dict(line.split(": ", 1) for line in Path("local/unread.txt").read_text().splitlines())
    assert listed.pop("gone.jsonl").startswith("a git-annex link without its data")
    for name, (_, reason) in REFUSED.items():
        assert reason in listed.pop(name), name
    assert not listed
    shown = capsys.readouterr().out
    assert f"not used: {len(REFUSED) + 1} files" in shown
    assert "more; local/unread.txt names them all" in shown and "pointer.jsonl: a Git LFS" in shown


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["gzip", "bzip2", "xz", "zstd", "zip"])
def test_an_archive_that_would_fill_a_disk_is_stopped(tmp_path: Path, packing: str) -> None:
    bomb = PACKED[packing](TEXT.encode() + b" " * 2**28)
    assert len(bomb) < 2**20
    put(tmp_path / "dolly/a").write_bytes(bomb)
    assert "unpacks to more than 256 MiB" in fails("dolly", tmp_path)


def test_cells_of_a_table_are_lists_and_numbers_where_their_column_is(tmp_path: Path) -> None:
    rows = [
        {"question": "1?", "choices": "['a', \"b's\"]", "answer": "1"},
        {"question": "2?", "choices": "['a' 'b, c'\n 'd']", "answer": "0"},  # as NumPy prints it
        {"question": "3?", "choices": '["a", "b"]', "answer": "1"},
        {"question": "4?", "choices": "array(['x', 'y'], dtype=object)", "answer": "0"},
    ]
    put(tmp_path / "benchmarks/quiz.csv", text=spread(rows))
    items = table("benchmarks", "tasks/quiz.jsonl", tmp_path)
    assert [(item.choices, item.label) for item in items] == [
        (["a", "b's"], 1),
        (["a", "b, c", "d"], 0),
        (["a", "b"], 1),
        (["x", "y"], 0),
    ]
    put(tmp_path / "dolly/a.csv", text=spread([{**DOLLY, "response": "[1, 2]"}]))
    assert table("dolly", "seeds.jsonl", tmp_path)[0].response == "[1, 2]"


def test_mmlu_as_its_authors_write_it_has_no_header(tmp_path: Path) -> None:
    text = 'Two and two?,3,4,"5, or so",6,B\n"A quote ""x""?",a,b,c,d,D\n'
    put(tmp_path / "benchmarks/test/sums_test.csv", text=text)
    put(tmp_path / "benchmarks/dev/sums_dev.csv", text=text)
    items = table("benchmarks", "tasks/sums.jsonl", tmp_path)
    assert [(i.question, i.choices[i.label]) for i in items] == [
        ("Two and two?", "4"),
        ('A quote "x"?', "d"),
    ]


def test_a_folder_of_datasets_save_to_disk_is_read_with_its_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list([piqa(n, n % 2) for n in numbers])
            for split, numbers in (("train", range(9)), ("validation", range(20, 25)))
        }
    )
    made.save_to_disk(tmp_path / "mine/piqa")
    for path in (tmp_path / "mine/piqa").rglob("*.arrow"):
        target = tmp_path / "benchmarks" / path.relative_to(tmp_path / "mine")
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    source = read("benchmarks", tmp_path)
    items: Any = source.tables["tasks/piqa.jsonl"]
    assert [(i.question, i.label) for i in items] == [(f"Goal {n}?", n % 2) for n in range(20, 25)]


def test_a_file_without_a_row_is_told(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", DOLLY)
    put(tmp_path / "b.json", text="[]")
    put(tmp_path / "c.json", text="{}")
    put(tmp_path / "d.csv", text="instruction;response\n")
    told = {unused.path.name: unused.why for unused in link.find(tmp_path).unused}
    assert told == {
        "b.json": "a table without a row",
        "c.json": "an object without a field",
        "d.csv": "a table without a row; its columns are instruction, response",
    }


def test_several_lists_of_rows_in_one_object_are_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path / "dolly/a.json", text=json.dumps({"data": [DOLLY], "test": [DOLLY]}))
    message = fails("dolly", tmp_path)
    assert "holds several lists of rows (data, test); give each" in message
    put(tmp_path / "dolly/a.json", text=json.dumps({"meta": [{"by": "me"}], "data": [DOLLY]}))
    assert len(read("dolly", tmp_path).tables["seeds.jsonl"]) == 1


def test_columns_as_lists_are_rows(tmp_path: Path) -> None:
    put(
        tmp_path / "dolly/a.json", text=json.dumps({"question": ["A?", "B?"], "answer": ["C", "D"]})
    )
    assert len(read("dolly", tmp_path).tables["seeds.jsonl"]) == 2


def test_empty_columns_of_a_spreadsheet_do_no_harm(tmp_path: Path) -> None:
    put(tmp_path / "dolly/a.csv", text="question;answer;;\nA?;B;;\nC?;D;;seen\nE?;F;;;;\n")
    seeds: Any = read("dolly", tmp_path).tables["seeds.jsonl"]
    assert [seed.response for seed in seeds] == ["B", "D", "F"]


def test_a_markdown_table_is_a_table(tmp_path: Path) -> None:
    put(tmp_path / "dolly/a.txt", text="| Question | Answer |\n|---|:--:|\n| A? | B. |\n")
    seeds: Any = read("dolly", tmp_path).tables["seeds.jsonl"]
    assert [(seed.instruction, seed.response) for seed in seeds] == [("A?", "B.")]


@pytest.mark.parametrize(
    ("encoding", "name", "text"),
    [
        ("cp1252", "WINDOWS-1252", "Wie ändere ich für 5 € meine Größe?"),
        ("cp1250", "WINDOWS-1250", "Jak zmienić hasło, żeby się zalogować?"),
        ("cp1251", "WINDOWS-1251", "Как изменить пароль?"),
        ("cp1256", "WINDOWS-1256", "كيف أغير كلمة المرور؟"),
        ("shift_jis", "SHIFT_JIS", "パスワードを変更するには？"),
    ],
)
def test_an_encoding_that_is_not_utf_8_is_named_with_the_way_out(
    tmp_path: Path, encoding: str, name: str, text: str
) -> None:
    rows = f"instruction;response\n{text};{text.replace('?', '.')}\n" + f"{text};So.\n" * 9
    put(tmp_path / "dolly/a.csv").write_bytes(rows.encode(encoding))
    told = fails("dolly", tmp_path)
    assert "a.csv:2: not UTF-8 (" in told and f"by its looks {name}, in which it reads" in told
    assert text in told and f"iconv -f {name} -t UTF-8" in told


def test_a_file_of_two_encodings_is_told_as_one(tmp_path: Path) -> None:
    rows = "instruction;response\nGröße?;Groß.\n".encode() + "Höhe?;Hoch.\n".encode("cp1252")
    put(tmp_path / "dolly/a.csv").write_bytes(rows)
    told = fails("dolly", tmp_path)
    assert "a.csv:3: not UTF-8, as lines before it are; put the parts" in told
    assert "iconv" not in told
