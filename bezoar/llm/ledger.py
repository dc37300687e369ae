"""Paid answers, never paid twice: an append-only store under `$BEZOAR_WORK/ledger/`.

One answer is one line, `{"crc":"..","key":"..","bill":"..","value":{..}}`, appended by a single
write before anybody sees the answer. Each process appends to a segment (a file) of its own and
reads all segments. So any number of stages, experiments and clones share the answers that one of
them bought. A torn tail or a flipped bit spoils one line and nothing else. That line is counted,
warned about, and its request is asked again.

`bill` is "run/stage/label/model dollars": what an answer cost, and to whom. A line whose value is
`{"charge": ..}` charges without answering: `lost` for a billed reply that was of no use, `pruned`
for answers that `prune` forgot. Caps count all three.

    python -m bezoar.ledger stats           answers, tokens, dollars, time by stage; what was lost
    python -m bezoar.ledger verify          read every line; exit 1 when one is damaged
    python -m bezoar.ledger export FILE     all answers as one file, sorted by key
    python -m bezoar.ledger import PATH...  answers out of exports, replies.jsonl, folders of them
    python -m bezoar.ledger prune DAYS      forget what was bought longer ago, not what it cost
"""

import fcntl
import json
import os
import re
import secrets
import sys
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from bezoar import work
from bezoar.params import arguments
from bezoar.rows.files import BadInput, numbered, write
from bezoar.rows.records import Exchange
from bezoar.work import times

LINE = re.compile(
    rb'\{"crc":"([0-9a-f]{8})","key":"([0-9a-f]{64})","bill":"([^"\\\n]*)","value":(\{.*\})\}\n',
    re.DOTALL,
)
LOOK_AGAIN = 1.0  # seconds between looks at what other processes bought meanwhile
SEGMENT = 256 * 2**20  # bytes at which a process opens a new segment instead of taking one over

LOST = b'{"charge":"lost"'
CHARGE = b'{"charge":'  # the value of a line that answers nothing begins so


class Bill(NamedTuple):
    """The account that an answer is charged to.

    `run` is the profile and the name of its budget. `label` is the stage's scheme or checkpoint.
    """

    run: str
    stage: str
    label: str
    model: str

    def plain(self) -> "Bill":
        """Return the bill as it stands in a line, without the characters that part fields there."""
        return _plain(self)


@cache
def _plain(bill: Bill) -> Bill:
    return Bill(*(re.sub(r'[/"\\\n]', "_", part) for part in bill))


class _Line(NamedTuple):
    key: str
    bill: Bill
    usd: float
    payload: bytes


class Ledger:
    """Answers by request key (sha256 hex of the final request). Values are JSON objects.

    Use an instance in one thread, and a folder in any number of processes. `spent` holds all
    dollars by Bill, and `lost` those of them that bought no answer.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or work.home() / "ledger"
        self.damaged = 0
        self.spent: dict[Bill, float] = {}
        self.lost: dict[Bill, float] = {}
        self._charges: set[str] = set()  # keys of lines that answer nothing
        self._where: dict[str, tuple[int, int, int]] = {}  # key -> descriptor, start, size
        self._open: dict[Path, tuple[int, int, int]] = {}  # path -> inode, descriptor, bytes read
        self._own: tuple[Path, int, int] | None = None  # path, descriptor, end
        self._warned: set[tuple[Path, int]] = set()
        self._dirty = False
        self._looked = 0.0
        self.look()

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: str) -> bool:
        """Say whether an answer to `key` was there at the last look."""
        return key in self._where

    def look(self) -> None:
        """Read the lines that any process has appended since the last look."""
        self._looked = time.monotonic()
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                status = path.stat()
                inode, size = status.st_ino, status.st_size
                opened = self._open.get(path)
                # another file under a name that is known: prune rewrote the segment
                if opened and opened[0] != inode:
                    self._forget()
                    self.look()
                    return
                if opened is None:
                    opened = (inode, os.open(path, os.O_RDONLY), 0)
                if size > opened[2]:
                    opened = (*opened[:2], self._index(path, opened[1], opened[2]))
                self._open[path] = opened
            except FileNotFoundError:
                continue  # pruned away since the folder was listed
            except OSError as error:
                raise BadInput(
                    f"{path}: cannot be read ({error.strerror}); what it holds would be paid for "
                    "again: make it readable, or let BEZOAR_WORK name another folder"
                ) from None

    def _forget(self) -> None:
        """Forget all segments. A rewritten one would otherwise be charged twice: for its pruned
        answers, and for the line that `prune` put in their place."""
        for _, descriptor, _ in self._open.values():
            os.close(descriptor)
        self.spent, self.lost, self._charges, self._where, self._open = {}, {}, set(), {}, {}

    def _index(self, path: Path, descriptor: int, start: int) -> int:
        """Take in the lines of a segment from byte `start` on. Returns the byte where the last
        whole line ends."""
        with open(os.dup(descriptor), "rb") as lines:
            lines.seek(start)
            for line in lines:
                if not line.endswith(b"\n"):
                    # A line without an end is still being written, or a kill tore it. Where no
                    # living process appends here it is torn, and the next owner cuts it off.
                    if _unowned(descriptor):
                        self._warn(path, start, f"{len(line)} bytes of a torn line")
                    break
                if entry := _parse(line):
                    self._take_in(entry, (descriptor, start, len(line)))
                else:
                    self._warn(path, start, "a damaged line")
                start += len(line)
        return start

    def _take_in(self, entry: _Line, place: tuple[int, int, int]) -> None:
        if not entry.payload.startswith(CHARGE):
            if entry.key not in self._where:
                self._charge(entry.bill, entry.usd)
            self._where[entry.key] = place
        elif entry.key not in self._charges:
            self._charges.add(entry.key)
            self._charge(entry.bill, entry.usd)
            if entry.payload.startswith(LOST):
                self.lost[entry.bill] = self.lost.get(entry.bill, 0.0) + entry.usd

    def _warn(self, path: Path, start: int, damage: str) -> None:
        if (path, start) in self._warned:
            return
        self._warned.add((path, start))
        self.damaged += 1
        message = f"{path}: {damage} at byte {start}; if that answer is wanted, it is asked again"
        warnings.warn(message, stacklevel=2)

    def catch_up(self) -> None:
        """Look, unless the last look was less than LOOK_AGAIN seconds ago."""
        if time.monotonic() - self._looked > LOOK_AGAIN:
            self.look()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the value bought for `key`, or None."""
        if key not in self._where:
            self.catch_up()
        if (place := self._where.get(key)) is None:
            return None
        entry = _parse(os.pread(place[0], place[2], place[1]))
        # the line was whole when it was indexed, and is damaged now
        if entry is None or entry.key != key:
            del self._where[key]
            self.damaged += 1
            return None
        value: dict[str, Any] = json.loads(entry.payload)
        return value

    def put(self, key: str, value: dict[str, Any], bill: Bill, usd: float) -> None:
        """Append an answer that cost `usd`. BadInput: it cannot be kept (a full disk), and the run
        must stop before it buys another."""
        self._add(_Line(key, bill.plain(), usd, _compact(value)))

    def charge(
        self, bill: Bill, usd: float, kind: str, reason: str, key: str | None = None
    ) -> None:
        """Append dollars that bought no answer. `kind` is lost or pruned. Repeated calls with one
        `key` charge once."""
        if key in self._charges:
            return
        value = {"charge": kind, "reason": reason, "at": int(time.time())}
        self._add(_Line(key or secrets.token_hex(32), bill.plain(), usd, _compact(value)))

    def ready(self) -> None:
        """Open the segment that answers are appended to. OSError: that cannot be done."""
        if self._own is None:
            self._own = self._segment()

    def _add(self, entry: _Line) -> None:
        line = _line(entry)
        try:
            self.ready()
            assert self._own
            path, descriptor, end = self._own
            _append(descriptor, line, end)
        except OSError as error:
            raise BadInput(
                f"{self.folder}: a paid answer cannot be kept ({error.strerror}); free some "
                "space or mend the folder, then run the same command again: everything bought "
                "before is kept"
            ) from None
        self._own = (path, descriptor, end + len(line))
        inode, reader, _ = self._open[path]
        self._open[path] = (inode, reader, end + len(line))
        self._take_in(entry, (reader, end, len(line)))
        self._dirty = True

    def _charge(self, bill: Bill, usd: float) -> None:
        self.spent[bill] = self.spent.get(bill, 0.0) + usd

    def _segment(self) -> tuple[Path, int, int]:
        """Take over a segment that no living process appends to, or make a new one.

        Returns its path, a locked descriptor, and the byte at which its whole lines end.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self.folder.glob("*.jsonl")):
            if (descriptor := _take(path)) is not None:
                self.look()
                end = self._open[path][2]
                os.ftruncate(descriptor, end)  # a torn line at the end is of no use to anyone
                return path, descriptor, end
        path = self.folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}.jsonl"
        # made under a name that nobody looks for, so that nobody takes it over before it is locked
        hidden = path.with_suffix(".new")
        descriptor = os.open(hidden, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        hidden.rename(path)
        self.look()
        return path, descriptor, 0

    def sync(self) -> None:
        """Write the appended lines through to the disk.

        Without that a kill loses nothing, but a power cut may. Another thread than the one that
        appends may call it.
        """
        if self._dirty and self._own:
            self._dirty = False
            os.fsync(self._own[1])

    def close(self) -> None:
        """Sync, and close all segments."""
        self.sync()
        for _, descriptor, _ in self._open.values():
            os.close(descriptor)
        if self._own:
            os.close(self._own[1])
        self._where, self._open, self._own = {}, {}, None

    def lines(self) -> Iterator[tuple[str, Bill, float, dict[str, Any]]]:
        """Yield every answer once, sorted by key: (key, bill, dollars, value)."""
        for key in sorted(self._where):
            descriptor, start, size = self._where[key]
            if entry := _parse(os.pread(descriptor, size, start)):
                yield key, entry.bill, entry.usd, json.loads(entry.payload)


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def dollars(usd: float) -> str:
    """Format dollars for a message: to 6 digits after the point, and to 9 below a cent.

    They are never rounded to less than what a user may set as a cap.
    """
    digits = f"{usd:,.{6 if abs(usd) >= 0.01 else 9}f}".rstrip("0")
    units, _, cents = digits.partition(".")
    return f"${units}.{cents:0<2}"


def about(usd: float) -> str:
    """Format estimated dollars: to cents, and below a dollar to two significant digits."""
    return f"${usd:,.2f}" if usd >= 1 or usd <= 0 else dollars(float(f"{usd:.2g}"))


def _compact(value: dict[str, Any]) -> bytes:
    # a lone surrogate in a reply is no UTF-8: written as an escape it does not lose the reply
    return _JSON.encode(value).encode("utf-8", "backslashreplace")


def _line(entry: _Line) -> bytes:
    bill = f"{'/'.join(entry.bill)} {entry.usd!r}"
    rest = b'"key":"%s","bill":"%s","value":%s' % (entry.key.encode(), bill.encode(), entry.payload)
    return b'{"crc":"%08x",%s}\n' % (zlib.crc32(rest), rest)


def _parse(line: bytes) -> _Line | None:
    if not (match := LINE.fullmatch(line)):
        return None
    # the checksum covers all that follows it, up to the closing brace
    if zlib.crc32(line[len(b'{"crc":"00000000",') : -2]) != int(match[1], 16):
        return None
    bill, usd = match[3].decode().rsplit(" ", 1)
    return _Line(match[2].decode(), Bill(*bill.split("/")), float(usd), match[4])


def _take(path: Path) -> int | None:
    """Open a segment to append to: a locked descriptor. None when it is full or another's."""
    try:
        if path.stat().st_size > SEGMENT:
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:  # pruned since the folder was listed
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # prune may have put another file in its place before it was locked
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _append(descriptor: int, line: bytes, end: int) -> None:
    written = 0
    try:
        while written < len(line):
            written += os.write(descriptor, line[written:])
    except OSError:
        os.ftruncate(descriptor, end)  # half a line would swallow the next one
        raise


def _unowned(descriptor: int) -> bool:
    """Say whether no living process appends to this segment."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


# --- the command line ----------------------------------------------------------------------------

IMPORTED = Bill("imported", "", "", "")


def stats(ledger: Ledger) -> dict[str, Any]:
    """Sum up the store and the times of the stages.

    The store has counts, bytes, and dollars in all and by run, stage, label and model. Dollars that
    bought no answer stand apart. Tokens are by stage. The times are those of the stages on this
    machine: seconds, CPU seconds and memory where the outs are whole, and seconds of those that did
    not finish.
    """
    segments = list(ledger.folder.glob("*.jsonl"))
    return {
        "answers": len(ledger),
        "segments": len(segments),
        "bytes": sum(path.stat().st_size for path in segments),
        "damaged": ledger.damaged,
        "usd": sum(ledger.spent.values()),
        "usd_lost": sum(ledger.lost.values()),
        **{f"usd_by_{part}": _by(part, ledger.spent) for part in Bill._fields},
        "usd_lost_by_run": _by("run", ledger.lost),
        "usd_lost_by_stage": _by("stage", ledger.lost),
        **_tokens_by_stage(ledger),
        **_times_by_stage(),
    }


def _tokens_by_stage(ledger: Ledger) -> dict[str, dict[str, int]]:
    sums: dict[str, dict[str, int]] = {"tokens_in_by_stage": {}, "tokens_out_by_stage": {}}
    for _, bill, _, value in ledger.lines():
        for kind in ("tokens_in", "tokens_out"):
            by_stage = sums[f"{kind}_by_stage"]
            stage = bill.stage or "-"
            by_stage[stage] = by_stage.get(stage, 0) + int(value.get("reply", {}).get(kind) or 0)
    return sums


def _times_by_stage() -> dict[str, dict[str, float]]:
    """Return seconds, CPU seconds and the most bytes of memory at once, by stage."""
    finished, unfinished = times.of_machine(work.home())
    return {
        "seconds_by_stage": {stage: spent.seconds for stage, spent in finished.items()},
        "cpu_seconds_by_stage": {stage: spent.cpu for stage, spent in finished.items()},
        "memory_by_stage": {stage: spent.memory for stage, spent in finished.items()},
        "seconds_unfinished_by_stage": {n: spent.seconds for n, spent in unfinished.items()},
    }


def _by(part: str, dollars: dict[Bill, float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for bill, usd in sorted(dollars.items()):
        to = getattr(bill, part) or "-"
        sums[to] = sums.get(to, 0.0) + usd
    return sums


def export(ledger: Ledger, path: Path) -> int:
    """Write every answer to one file that `import` reads. Returns their number."""
    rows = (
        _line(_Line(key, bill, usd, _compact(value))).decode("utf-8", "replace")
        for key, bill, usd, value in ledger.lines()
    )
    write(path, rows)
    return len(ledger)


def import_answers(ledger: Ledger, paths: list[Path]) -> int:
    """Take over answers from exports, from replies.jsonl (`Exchange` rows) of pulled outs, and from
    folders of those. Returns the number of new ones. Nothing is charged to any run.

    BadInput: a path that is not there, a folder without replies.jsonl, or a line of another form.
    """
    before = len(ledger)
    for top in paths:
        if not top.exists():
            raise BadInput(f"{top}: there is no such file or folder; pull it first (dvc pull)")
        files = sorted(top.rglob("replies.jsonl")) if top.is_dir() else [top]
        if not files:
            raise BadInput(f"{top}: holds no replies.jsonl; generate and judge write them")
        for path in files:
            for number, text in numbered(path):
                key, value = _read_foreign(path, number, text)
                if key and ledger.get(key) is None:
                    ledger.put(key, value, IMPORTED, 0.0)
    ledger.sync()
    return len(ledger) - before


def _read_foreign(path: Path, number: int, text: str) -> tuple[str, dict[str, Any]]:
    if line := _parse(text.encode()):
        # dollars that another machine lost are not charged on this one
        key = "" if line.payload.startswith(CHARGE) else line.key
        return key, json.loads(line.payload)
    try:
        reply = Exchange.model_validate_json(text).reply
    except ValidationError:
        raise BadInput(
            f"{path}:{number}: neither an Exchange nor a whole line of an export; import takes "
            "replies.jsonl of generate and judge, and what export wrote"
        ) from None
    if reply.key and not re.fullmatch("[0-9a-f]{64}", reply.key):
        raise BadInput(f"{path}:{number}: {reply.key!r} is no request key (64 hex digits)")
    return reply.key, {"reply": reply.model_dump(exclude={"key"})}


def prune(folder: Path, days: float) -> tuple[int, int]:
    """Rewrite every segment that no process appends to: (answers kept, lines dropped).

    Left out are the answers bought more than `days` ago, damaged lines and second copies. The cost
    of an answer stays charged, so that no cap is lifted.
    """
    oldest = time.time() - days * 86400
    keys: set[str] = set()
    dropped = 0
    for path in sorted(folder.glob("*.jsonl")):
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{path.name}: in use, left as it is", file=sys.stderr)
            os.close(descriptor)
            continue
        with open(descriptor, "rb") as segment:
            lines, gone = _sift(segment, oldest, keys)
            dropped += gone
            # Other processes go on reading the old file, which they have open, until they see that
            # another has its name (look).
            if lines:
                write(path, lines)
            else:
                path.unlink()
    return len(keys), dropped


def _sift(segment: Iterable[bytes], oldest: float, keys: set[str]) -> tuple[list[str], int]:
    """Return the lines that a segment keeps, and the number of those it loses.

    The keys of the answers that it keeps are added to `keys`. For each bill that lost answers were
    charged to, one more line keeps their dollars charged.
    """
    lines: list[str] = []
    charged: dict[Bill, float] = {}
    dropped = 0
    for line in segment:
        entry = _parse(line)
        if entry is None or entry.key in keys:
            dropped += 1
        elif entry.payload.startswith(CHARGE):
            lines.append(line.decode())
        elif json.loads(entry.payload).get("at", oldest) < oldest:
            dropped += 1
            charged[entry.bill] = charged.get(entry.bill, 0.0) + entry.usd
        else:
            keys.add(entry.key)
            lines.append(line.decode())
    for bill, usd in charged.items():
        if usd:
            value = _compact({"charge": "pruned", "at": int(time.time())})
            lines.append(_line(_Line(secrets.token_hex(32), bill, usd, value)).decode())
    return lines, dropped


def main() -> None:
    """Carry out the command line, which the module's docstring describes."""
    run(arguments.words("bezoar.ledger", __doc__, 1, "COMMAND", None))


def run(command: list[str]) -> None:
    """Carry out one command. BadInput: there is no such command."""
    match command:
        case ["stats"]:
            print(json.dumps(stats(Ledger()), indent=2))
        case ["verify"]:
            ledger = Ledger()
            answers = sum(1 for _ in ledger.lines())
            print(f"{answers} answers whole, {ledger.damaged} lines damaged")
            if ledger.damaged:
                raise BadInput(
                    f"{ledger.folder}: {ledger.damaged} damaged lines; they are asked again when "
                    "wanted, and `python -m bezoar.ledger prune 36500` clears them away"
                )
        case ["export", path]:
            print(f"{export(Ledger(), Path(path))} answers written to {path}")
        case ["import", _, *_]:
            print(f"{import_answers(Ledger(), [Path(path) for path in command[1:]])} new answers")
        case ["prune", days] if re.fullmatch(r"\d+(\.\d+)?", days):
            remaining, dropped = prune(work.home() / "ledger", float(days))
            print(f"{remaining} answers kept, {dropped} lines dropped")
        case _:
            usage = (__doc__ or "").split("\n\n")[-1].rstrip()
            raise BadInput(f"bezoar.ledger: no such command; one of\n{usage}")
