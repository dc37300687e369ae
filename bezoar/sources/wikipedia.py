"""Reads categories of Wikipedia as topics (OpenBezoar 3.1.1), out of the table of categories that
the Wikimedia Foundation dumps. That is gzipped SQL, as mysqldump writes it."""

import errno
import gzip
import hashlib
import http.client
import re
import urllib.error
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bezoar import work
from bezoar.params import Wikipedia
from bezoar.rows.files import BadInput
from bezoar.rows.records import Topic
from bezoar.sources.tables import Source
from bezoar.work import progress

AGENT = "bezoar (arXiv 2404.12195)"  # Wikimedia turns nameless clients away
TIMEOUT = 60  # ours: seconds without a byte
CHUNK = 2**20  # bytes read at a time
LONGEST = 2**26  # ours: bytes of a line, of which mysqldump's have about a million

INSERT = b"INSERT INTO `category` VALUES"
_COLUMN = re.compile(rb"\s*`(\w+)`\s")
# A value is a string in quotes, in which a backslash escapes the next character, or a bare word.
_VALUE = rb"('[^'\\]*(?:\\.[^'\\]*)*'|[^',()\s]+)"
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED = {b"0": b"\0", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"Z": b"\x1a"}


def read(settings: Wikipedia) -> Source:
    """Return the categories that have sub-categories and are not housekeeping, in the dump's order.
    BadInput: it cannot be downloaded, `sha256` is that of another file, or it holds no table of
    categories."""
    with work.scratch("fetch", f"topics-{work.fingerprint(url=settings.url)}") as folder:
        path = folder / "category.sql.gz"
        if settings.sha256 is None or _digest(path) != settings.sha256:
            _download(settings.url, path)
        digest = _digest(path)
        try:
            if settings.sha256 not in (None, digest):
                raise BadInput(
                    f"{settings.url}: sha256 is {digest}, not fetch.topics.sha256 of the profile; "
                    "the file has changed: name a dated dump, or the new sha256"
                )
            topics, left_out = _topics(path, settings.housekeeping)
        except BadInput:
            # Every further run would otherwise find the bad file, and fail too.
            path.unlink()
            raise
    if not topics:
        raise BadInput(
            f"{settings.url}: no category is usable ({dict(left_out) or 'it holds none'})"
        )
    account = {
        "source": "wikipedia",
        "url": settings.url,
        "sha256": digest,
        "licence": settings.licence,
        "rows": {settings.url.rpartition("/")[2]: len(topics)},
        "left_out": left_out,
    }
    return Source({"topics.jsonl": topics}, account)


def categories(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield (title, number of sub-categories) of every row of a dump of MediaWiki's table
    `category`. BadInput, which names the line: it is no such dump, or is cut or broken."""
    columns: list[bytes] = []
    rows = 0
    inserting = False
    for number, line in _lines(path):
        if line.startswith(b"CREATE TABLE "):
            columns = []
        elif line.startswith(INSERT):
            inserting, position = True, len(INSERT)
        # Some servers put every row on a line of its own, below the statement.
        elif inserting:
            position = 0
        elif name := _COLUMN.match(line):
            columns.append(name[1])
        if not inserting:
            continue
        if not {b"cat_title", b"cat_subcats"} <= {*columns}:
            raise BadInput(f"{path}:{number}: no columns cat_title and cat_subcats; have {columns}")
        values = rb"\s*,\s*".join([_VALUE] * len(columns))
        row = re.compile(rb"\s*\(\s*" + values + rb"\s*\)\s*([,;])", re.DOTALL)
        while inserting and (match := row.match(line, position)):
            # The last group is the mark behind the row, a comma or a semicolon.
            cells = dict(zip(columns, match.groups(), strict=False))
            try:
                yield _text(cells[b"cat_title"]), int(cells[b"cat_subcats"])
            except ValueError:
                break
            rows, position = rows + 1, match.end()
            inserting = line[position - 1 : position] == b","
        if line[position:].strip():
            raise BadInput(
                f"{path}:{number}: not a row of the table `category`: "
                f"{line[position : position + 60]!r}; fetch it again"
            )
    if inserting or not rows:
        raise BadInput(
            f"{path}: {'ends within a statement' if inserting else 'holds no categories'}; "
            "fetch.topics.url wants a whole ...-category.sql.gz"
        )


def _topics(path: Path, housekeeping: list[str]) -> tuple[list[Topic], Counter[str]]:
    left_out: Counter[str] = Counter()
    topics = []
    words = {word.casefold() for word in housekeeping}
    for title, count in categories(path):
        if count < 1:
            left_out["no sub-categories"] += 1
            continue
        try:
            name = title.decode().replace("_", " ")
        except UnicodeDecodeError:
            left_out["a name that is not UTF-8"] += 1
            continue
        if words & {*re.findall(r"\w+", name.casefold())}:
            left_out["housekeeping"] += 1
            continue
        topics.append(Topic(name=name, subcategories=count))
    return topics, left_out


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path) as dump:
            while line := dump.readline(LONGEST):
                number += 1
                if len(line) == LONGEST:
                    raise BadInput(f"{path}:{number}: no end of line in {LONGEST:,} bytes")
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(
            f"{path}:{number}: no whole gzip file ({error}); run the same command again"
        ) from None


def _text(quoted: bytes) -> bytes:
    """Return the text of a string literal of MySQL. ValueError: it is no such literal."""
    if not quoted.startswith(b"'"):
        raise ValueError
    return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), quoted[1:-1])


def _digest(path: Path) -> str | None:
    if not path.exists():
        return None
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _download(url: str, path: Path) -> None:
    """Fetch a file, or the rest of it where a part of it is there.

    The file's ETag or date is kept beside it. If it has changed on the server, all of the file is
    fetched anew. BadInput: the server refuses, cannot be reached, or ends too early.
    """
    note = path.with_name(f"{path.name}.version")
    downloaded = path.stat().st_size if path.exists() else 0
    headers = {"User-Agent": AGENT}
    if downloaded and note.exists():
        headers |= {"Range": f"bytes={downloaded}-", "If-Range": note.read_text()}
    expected: int | None = None
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            # Only status 206 means that the rest is sent. Any other reply begins from the start.
            if reply.status != 206:
                downloaded = 0
                path.unlink(missing_ok=True)
                note.unlink(missing_ok=True)
                tag = reply.headers["ETag"] or ""
                # A weak tag (W/...) stands for the content, not for its bytes. A range needs these.
                version = reply.headers["Last-Modified"] if tag[:2] in ("", "W/") else tag
                if version:
                    note.write_text(version)
            if length := reply.headers["Content-Length"]:
                expected = downloaded + int(length)
            with (
                path.open("ab") as out,
                progress.bar("fetch topics: MiB", (expected or downloaded) / CHUNK) as advance,
            ):
                advance(downloaded / CHUNK)
                while chunk := reply.read(CHUNK):
                    out.write(chunk)
                    advance(len(chunk) / CHUNK)
    except urllib.error.HTTPError as error:
        # 416: no bytes follow. If the file has the size that is here, it is whole already.
        if error.code == 416 and error.headers["Content-Range"] == f"bytes */{downloaded}":
            return
        path.unlink(missing_ok=True)
        raise BadInput(
            f"{url}: the server answers {error.code} {error.reason}; mend fetch.topics.url"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BadInput(
            f"{url}: cannot be read ({getattr(error, 'reason', None) or error}); check the "
            "network, then run the same command again: it continues"
        ) from None
    if expected is not None and path.stat().st_size != expected:
        raise BadInput(
            f"{url}: ended after {path.stat().st_size:,} of {expected:,} bytes; run the same "
            "command again: it continues"
        )
