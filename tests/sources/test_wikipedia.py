"""The table of categories: downloaded, read, refused."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from bezoar.params import Wikipedia
from bezoar.rows.files import BadInput
from bezoar.sources import wikipedia
from tests.builders.hub import Hub, dump, serve, tag


def topics(url: str, sha256: str | None = None) -> Any:
    told = {"source": "wikipedia", "url": url, "sha256": sha256, "licence": "x", "housekeeping": []}
    return wikipedia.read(Wikipedia.model_validate(told))


def read_dump(tmp_path: Path, text: str | bytes) -> list[tuple[bytes, int]]:
    data = gzip.compress(text.encode()) if isinstance(text, str) else text
    (tmp_path / "category.sql.gz").write_bytes(data)
    return list(wikipedia.categories(tmp_path / "category.sql.gz"))


HEAD = """CREATE TABLE `category` (
  `cat_id` int,
  `cat_title` varbinary,
  `cat_subcats` int
);
"""


def test_a_dump_is_read_in_either_layout(tmp_path: Path) -> None:
    one = HEAD + "INSERT INTO `category` VALUES (1,'a_(b),(c',2),(3,'d\\\\',NULL),(4,'e;',5);\n"
    with pytest.raises(BadInput, match="not a row"):  # NULL is no number
        read_dump(tmp_path, one)
    one = one.replace("NULL", "-7")
    read = [(b"a_(b),(c", 2), (b"d\\", -7), (b"e;", 5)]
    assert read_dump(tmp_path, one) == read
    many = HEAD + "INSERT INTO `category` VALUES\n(1,'a',2),\n(3,'b\\'\\n\\0',4);\nUNLOCK TABLES;\n"
    assert read_dump(tmp_path, many) == [(b"a", 2), (b"b'\n\0", 4)]


@pytest.mark.parametrize(
    ("text", "said_of_it"),
    [
        ("<html>not found</html>", "holds no categories"),
        (HEAD, "holds no categories"),
        ("INSERT INTO `category` VALUES (1,'a',2);\n", "no columns cat_title and cat_subcats"),
        (HEAD + "INSERT INTO `category` VALUES (1,'a',2),\n", "ends within a statement"),
        (HEAD + "INSERT INTO `category` VALUES (1,'a',2),(3,'b\n", "not a row of the table"),
        (HEAD + "INSERT INTO `category` VALUES (1,'a',2,4);\n", "not a row of the table"),
        (HEAD + "INSERT INTO `category` VALUES (1,7,2);\n", "not a row of the table"),
        (b"no gzip at all", "no whole gzip file"),
        (gzip.compress(HEAD.encode() * 99)[:-20], "no whole gzip file"),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path: Path, text: str | bytes, said_of_it: str) -> None:
    with pytest.raises(BadInput, match=said_of_it):
        read_dump(tmp_path, text)


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikipedia, "LONGEST", 1000)
    with pytest.raises(BadInput, match="no end of line in 1,000 bytes"):
        read_dump(tmp_path, HEAD + "INSERT INTO `category` VALUES " + "(1,'a',2)," * 999)


@pytest.mark.slow
def test_a_download_goes_on_where_it_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEZOAR_WORK", str(tmp_path))
    names = "".join(f"({n},'{tag(str(n).encode())}',{n})," for n in range(1, 2000))
    data = gzip.compress((HEAD + f"INSERT INTO `category` VALUES {names[:-1]};\n").encode())
    with serve(Hub(plain={"/a.sql.gz": data})) as on_hub:
        url = f"{on_hub.url}/a.sql.gz"
        on_hub.cut["/a.sql.gz"] = 5_000
        with pytest.raises(BadInput, match=f"ended after 5,000 of {len(data):,} bytes"):
            topics(url)
        source = topics(url)
        assert source.account["rows"] == {"a.sql.gz": 1999}
        assert source.account["sha256"] == tag(data)
        sent = len(on_hub.fetched)
        assert topics(url).tables == source.tables and len(on_hub.fetched) == sent  # whole: 416
        asked = len(on_hub.requests)
        assert topics(url, tag(data)).tables == source.tables and len(on_hub.requests) == asked
        with pytest.raises(BadInput, match=f"sha256 is {tag(data)}, not fetch.topics.sha256"):
            topics(url, "0" * 64)
        on_hub.cut["/a.sql.gz"] = 5_000
        with pytest.raises(BadInput, match="run the same command again"):
            topics(url)
        on_hub.plain["/a.sql.gz"] = dump()  # another version: nothing of the old one stays
        assert topics(url).account["sha256"] == tag(dump())
        with pytest.raises(BadInput, match="the server answers 404"):
            topics(f"{on_hub.url}/b.sql.gz")
