"""Reads any file as bytes or lines of text. Its first bytes say its kind, not its name.

A packed file (gzip, zstd, xz, bzip2, lz4, zip) is unpacked as it is read. A file that holds no rows
is refused. The message says what it is and what to do instead.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

from bezoar.rows.files import BadInput

EMPTY = "is empty; leave the file out, or put rows in it"
GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"
PACKED = {
    GZIP: "gzip",
    ZIP: "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\0": "xz",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
}
# Encodings by byte order mark. UTF-32 comes before UTF-16, whose little-endian mark begins its own.
TEXTS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
UNPACK = "unpack it, and give the folder that holds its files"
EXPORT = "export its rows as JSON Lines, CSV or parquet"
REFUSED = {
    b"version https://git-lfs": (
        "a Git LFS pointer, not the data it stands for",
        "run `git lfs pull` in its repository, or download the file itself",
    ),
    b"/annex/objects/": ("a git-annex pointer, not the data", "run `git annex get` on it"),
    b"%PDF": ("a PDF file", "rows cannot be read out of it; " + EXPORT),
    b"\xd0\xcf\x11\xe0": ("an old Word or Excel file", "save its sheet as CSV (UTF-8)"),
    b"SQLite format 3": ("an SQLite database", EXPORT),
    b"\x89HDF": ("an HDF5 file", EXPORT),
    b"\x93NUMPY": ("a NumPy array", EXPORT),
    b"Obj\x01": ("an Avro file", EXPORT),
    b"ORC": ("an ORC file", EXPORT),
    b"FEA1": ("a Feather file of the first version", EXPORT),
    b"GGUF": ("GGUF weights", "a base model is a folder with config.json and *.safetensors"),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!": ("a RAR archive", UNPACK),
    b"\x89PNG": ("a picture", "leave it out"),
    b"\xff\xd8\xff": ("a picture", "leave it out"),
    b"GIF8": ("a picture", "leave it out"),
    **{
        b"\x80" + bytes([protocol]): (
            "a Python pickle, which can run code when it is loaded",
            EXPORT,
        )
        for protocol in range(2, 6)
    },
}
PAGES = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body)\b", re.I | re.S)
LOOKED_AT = 2**16  # ours: bytes from which an encoding is guessed
# Ours: a packed file may unpack to 256 MiB, or to 250 times its size where that is more. Text
# seldom shrinks to a fiftieth.
UNPACKED, RATIO = 2**28, 250

Kind = Literal["parquet", "arrow", "stream", "text"]
TABLES: dict[bytes, Kind] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "stream"}
FAULTS = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)


def kind(path: Path) -> Kind:
    """Return what a file holds: parquet, an Arrow file, an Arrow stream, or text. BadInput: it is
    known to hold no rows. The message says what it is and what to do."""
    with open_unpacked(path) as source:
        head = source.peek(2**16)
    for magic, table in TABLES.items():
        if head.startswith(magic):
            return table
    _refuse(path, head)
    return "text"


@contextmanager
def open_unpacked(path: Path) -> Iterator["io.BufferedReader[Any]"]:
    """Open a file as the bytes that it holds once it is unpacked. BadInput: it cannot be read, or
    unpacks to far more than any text does."""
    try:
        with contextlib.ExitStack() as opened:
            source = opened.enter_context(io.BufferedReader(path.open("rb", buffering=0), 2**17))
            head = source.read(16)
            source.seek(0)
            packed = next((name for magic, name in PACKED.items() if head.startswith(magic)), "")
            if not packed:
                yield source
                return
            inner = opened.enter_context(_unpack(path, source, packed))
            bounded = _Bounded(path, inner)
            yield opened.enter_context(io.BufferedReader(bounded, 2**17))
    except FileNotFoundError:
        raise BadInput(
            f"{path}: a link to a file that is gone; run `make local DATA=folder` again"
        ) from None
    except FAULTS as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise BadInput(f"{path}: cannot be read ({why}); fetch it again, or unpack it") from None


@contextmanager
def open_seekable(path: Path) -> Iterator[Any]:
    """Open a file for pyarrow, which seeks in it. A packed file becomes a temporary one."""
    import pyarrow

    with open_unpacked(path) as source:
        if source.seekable():  # not packed
            with pyarrow.OSFile(str(path)) as plain:
                yield plain
            return
        with tempfile.TemporaryFile() as copy:
            while chunk := source.read(2**20):
                copy.write(chunk)
            copy.seek(0)
            yield copy


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a text file. Blank lines are counted but
    left out. Lines end in LF, CR LF or, in a file without LF, in CR. BadInput: a line that is not
    in the file's encoding."""
    number = 0
    try:
        with open_unpacked(path) as source:
            for number, line in enumerate(_split(source), 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise _not_text(path, number + 1, error) from None


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file and keep its line ends, as the csv module wants it."""
    with open_unpacked(path) as source:
        encoding = _encoding(source.peek(4)) or "utf-8"
        with io.TextIOWrapper(source, encoding=encoding, newline="") as stream:
            yield stream


class NotText(BadInput):
    """A BadInput for bytes that are no text in the file's encoding. `likely` is the encoding that
    they seem to be in, "" where none does."""

    def __init__(self, place: str, error: UnicodeDecodeError, likely: str = "") -> None:
        kind, remedy = f"broken {error.encoding} ({error.reason})", "save the file as UTF-8"
        if error.encoding.startswith("utf-8"):
            kind = f"not UTF-8 ({error.reason})"
            shell = f"; a shell: iconv -f {likely} -t UTF-8" if likely else ""
            remedy += f" (Excel: CSV UTF-8{shell})"
        if likely:
            line = error.object[:2000].decode(likely, "replace").strip()
            kind += f", by its looks {likely}, in which it reads {line[:60]!r}"
        super().__init__(f"{place}: {kind}; {remedy}")


class Mixed(NotText):
    """A BadInput for a file of which some lines are UTF-8 and others are not."""

    def __init__(self, place: str) -> None:
        BadInput.__init__(
            self,
            f"{place}: not UTF-8, as lines before it are; put the parts of the file together anew, "
            "each saved as UTF-8",
        )


def _not_text(path: Path, number: int, error: UnicodeDecodeError) -> BadInput:
    """Return the error for a text that is not in its file's encoding, with the likely one."""
    import chardet

    place = f"{path}:{number}"
    if not error.encoding.startswith("utf-8"):
        return NotText(place, error)
    with open_unpacked(path) as source:
        head = source.read(LOOKED_AT)
    # Lines before the broken one were decoded. One that is not ASCII was therefore truly UTF-8.
    if any(not line.isascii() for line in head.splitlines()[: number - 1]):
        return Mixed(place)
    name = chardet.detect(head)["encoding"] or ""
    return NotText(place, error, "" if name.upper() in ("ASCII", "UTF-8") else name)


class _Bounded(io.RawIOBase):
    """A stream that raises BadInput once it has unpacked to more than a file of rows would. It
    stops archives that are made to fill a disk."""

    def __init__(self, path: Path, source: Any) -> None:
        self.path, self.source, self.count = path, source, 0
        self.most = max(UNPACKED, RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self.source.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self.count += len(chunk)
        if self.count > self.most:
            raise BadInput(
                f"{self.path}: unpacks to more than {self.most // 2**20:,} MiB, over {RATIO} times "
                "its size, as an archive does that is made to fill a disk; if it is meant, unpack "
                "it yourself"
            )
        return len(chunk)


def _unpack(path: Path, source: BinaryIO, packed: str) -> Any:
    if packed == "gzip":
        return gzip.open(source)
    if packed == "bzip2":
        return bz2.open(source)
    if packed == "xz":
        return lzma.open(source)
    if packed == "zip":
        return _member(path, zipfile.ZipFile(source))
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(source, mode="r"), packed)


def _member(path: Path, archive: zipfile.ZipFile) -> IO[bytes]:
    """Open the one file of rows in a zip archive. BadInput: it holds none or several, is locked, or
    is an office document or a pickle."""
    names = archive.namelist()
    # Office documents and the checkpoints of torch.save are zip archives too.
    if "[Content_Types].xml" in names or "mimetype" in names:
        raise BadInput(
            f"{path}: is a Word, Excel or other office file; save its sheet as CSV (UTF-8)"
        )
    if any(name.endswith("/data.pkl") for name in names):
        raise BadInput(
            f"{path}: holds a Python pickle, which can run code when it is loaded; {EXPORT}"
        )
    members = [
        name
        for name in names
        if not name.endswith("/")
        and not re.search(r"(?:^|/)(?:__MACOSX/|\.|readme|license|licence)", name, re.IGNORECASE)
    ]
    if len(members) != 1:
        listing = (", ".join(members[:4]) or "none of rows") + (", ..." if len(members) > 4 else "")
        raise BadInput(f"{path}: an archive of {len(members)} files ({listing}); {UNPACK}")
    # The first flag bit of a zip member says that it is encrypted.
    if archive.getinfo(members[0]).flag_bits & 1:
        raise BadInput(f"{path}: is locked with a password; {UNPACK}")
    return archive.open(members[0])


def _refuse(path: Path, head: bytes) -> None:
    if not head.strip():
        raise BadInput(f"{path}: {EMPTY}")
    refusal = next((why for magic, why in REFUSED.items() if head.startswith(magic)), None)
    # A tar header has its magic bytes at offset 257.
    if head[257:262] == b"ustar":
        refusal = ("a tar archive", UNPACK)
    elif re.match(rb"(?:\.\./)*\.git/annex/objects/", head):
        refusal = REFUSED[b"/annex/objects/"]
    elif PAGES.match(head.removeprefix(codecs.BOM_UTF8)):
        refusal = ("a web page (HTML), not the file it tells of", "download the file itself")
    elif head.startswith(b"<?xml"):
        refusal = (
            "XML, as a server writes it for an error",
            "download the file itself, or " + EXPORT,
        )
    # Text has no zero byte, unless it is UTF-16 or UTF-32, which a byte order mark announces.
    elif refusal is None and b"\0" in head[:4096] and not _encoding(head):
        utf16 = len(head) > 3 and (head[1] == head[3] == 0 or head[0] == head[2] == 0)
        refusal = (
            ("UTF-16 without a byte order mark", "save the file as UTF-8")
            if utf16
            else ("binary data of no kind that is known here", EXPORT)
        )
    if refusal:
        raise BadInput(f"{path}: is {refusal[0]}; {refusal[1]}")


def _encoding(head: bytes) -> str:
    return next((name for mark, name in TEXTS.items() if head.startswith(mark)), "")


def _split(source: "io.BufferedReader[Any]") -> Iterator[str]:
    head = source.peek(2**16)
    encoding = _encoding(head)
    # Old Macintosh programs ended lines with CR alone.
    old = b"\r" in head and b"\n" not in head
    if encoding in ("", "utf-8-sig") and not old:
        if encoding:
            source.read(len(codecs.BOM_UTF8))
        # Three times as fast as a TextIOWrapper. An error also knows its line.
        for raw in source:
            yield raw.decode("utf-8").rstrip("\r\n")
        return
    # Not str.splitlines: it also splits at breaks such as U+2028, which a JSON string may hold.
    end = "\r" if old else "\n"
    with io.TextIOWrapper(source, encoding=encoding or "utf-8", newline=end) as stream:
        for line in stream:
            yield line.rstrip("\r\n")
