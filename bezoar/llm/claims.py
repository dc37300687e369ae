"""Claims on requests: they keep processes that share a ledger from buying one answer twice.

A request is claimed right before it is sent, with the dollars that it may cost at most. A process
that wants an equal request (one with the same key) finds the claim. It sends nothing, waits until
the answer is in the ledger, and reads it there (elsewhere.py).

Claims are lines of one file, `claims/lines` in the ledger's folder, written and read under one
lock:

    o OWNER BILL                  an owner begins
    c OWNER KEY NANODOLLARS l     it has this request under way (b: in a batch)
    r OWNER KEY                   it no longer has

Example: processes 7 and 8 want the request `ab..`, and process 8 wants `cd..` too. 8 waits for the
answer to `ab..` and sends `cd..` meanwhile (here with short names and keys):

    o 7 embedded run/generate/lamini/gpt
    c 7 ab 1500000 l              7 sends it, for $0.0015 at most
    o 8 embedded run/generate/orca/gpt
    c 8 cd 900000 l               8 found the claim of 7 on ab, and sends cd
    r 7 ab                        the answer to ab is in the ledger: 8 reads it there

An owner is a file that its process keeps locked for as long as it lives, so a claim ends with its
process. A request that a dead process had under way may be billed all the same, and is charged as
lost. A request in a batch is not charged, because the batch goes on and its journal is found.
"""

import fcntl
import hashlib
import os
import re
import secrets
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bezoar.llm.ledger import Bill, Ledger, dollars
from bezoar.rows.files import BadInput

LINE = re.compile(
    r"o (?P<new>\d+-[0-9a-f]{8}) (?P<bill>[^/]*/[^/]*/[^/]*/[^/]*)"
    r"|c (?P<taker>\d+-[0-9a-f]{8}) (?P<claimed>[0-9a-f]{64}) (?P<nano>\d{1,18}) (?P<kind>[lb])"
    r"|r (?P<giver>\d+-[0-9a-f]{8}) (?P<dropped>[0-9a-f]{64})"
)
LIMIT = 32 * 2**20  # bytes at which the file is written anew with the open claims alone
# Seconds after which the lock counts as stuck. It is needed for microseconds at a time.
LOCKED = 30.0
# Nanodollars in a dollar. Amounts are whole numbers of them here, so that their sums are exact.
NANO = 1e9


class Claim(NamedTuple):
    """A request under way: its owner, the nanodollars set aside for it, and whether it is in a
    batch."""

    owner: str
    nano: int
    batch: bool


class Claims:
    """The claims of one client, and its view of everybody's.

    Call all methods but `locked`, `rest`, `release`, `flush` and `close` inside `locked`. OSError:
    the folder cannot be written or locked. Nothing may be sent then.
    """

    def __init__(self, ledger: Ledger, bill: Bill) -> None:
        self.name = _owner()
        self.changed_keys: set[str] = set()  # keys in others' lines since the ledger was last read
        self._ledger = ledger
        self._bill = bill.plain()
        self._folder = ledger.folder / "claims"
        self._open: dict[str, Claim] = {}
        self._bills: dict[str, Bill] = {}
        self._set_aside: dict[str, int] = {}  # nanodollars by owner
        self._count = 0  # claims of this owner
        self._lines: list[str] = []  # lines of this owner that are not written yet
        self._lock = self._file = self._own = -1
        self._at = 0  # bytes of the file that were read
        self._limit = LIMIT
        self._torn = False
        self._inside = False
        self._living: set[str] = set()  # owners seen alive since `locked` began
        self._taken: list[str] = []  # keys claimed since then
        _ALL.add(self)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock all other processes out, having read all that they wrote.

        Claims that are made inside are written at the end. A block inside another is part of it.
        """
        if self._inside:
            yield
            return
        if self._lock < 0:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        _acquire(self._lock)
        self._inside = True
        self._living, self._taken = {self.name}, []
        try:
            if self._own < 0:
                self._begin()
            self._read()
            yield
            self._write()
        except BaseException:
            # nothing that was claimed in this block is sent, so none of it stays claimed
            self._lines = [line for line in self._lines if not line.startswith("c ")]
            for key in self._taken:
                self._drop(key)
            raise
        finally:
            self._inside = False
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    # --- what a client asks ----------------------------------------------------------------------

    def holder(self, key: str) -> str | None:
        """Return the other owner, still alive, that has `key` under way. None where nobody has."""
        claim = self._open.get(key)
        if claim is None or claim.owner == self.name:
            return None
        if self._lives(claim.owner):
            return claim.owner
        self._end_claims(claim.owner)
        return None

    def take(self, key: str, usd: float, batch: bool) -> None:
        """Claim `key`, or set other dollars aside for one that is claimed already."""
        self._put(key, Claim(self.name, round(usd * NANO), batch))
        self._taken.append(key)

    def mine(self, key: str) -> bool:
        """Say whether this client has `key` under way."""
        claim = self._open.get(key)
        return claim is not None and claim.owner == self.name

    def in_batch(self, key: str) -> bool:
        """Say whether `key` is claimed as part of a batch."""
        claim = self._open.get(key)
        return claim is not None and claim.batch

    def rest(self, key: str) -> None:
        """Keep the claim on `key` between two attempts, with nothing set aside."""
        if self.mine(key):
            self._put(key, Claim(self.name, 0, False))

    def release(self, key: str) -> None:
        """End the claim on `key`: its answer is in the ledger, or there will be none.

        That is written with the next claim, or at once where nothing else is under way. Until then
        others see too much set aside, and never too little.
        """
        if not self.mine(key):
            return
        self._drop(key)
        self._lines.append(f"r {self.name} {key}\n")
        if not self._count:
            self.flush()

    def flush(self) -> None:
        """Write the releases. A folder that cannot be written is an error only of the next claim,
        so it is passed over here."""
        if self._lines and not self._inside:
            try:
                with self.locked():
                    pass
            except (OSError, BadInput):
                pass

    def end_dead(self) -> None:
        """End the claims of all dead owners."""
        for owner in list(self._bills):
            if not self._lives(owner):
                self._end_claims(owner)

    def set_aside(self, place: tuple[str, ...]) -> float:
        """Return the dollars set aside by all owners whose bill begins with `place`: a run, or a
        run, a stage and a label."""
        return sum(self._at_place(place).values()) / NANO

    def others(self, run: str) -> bool:
        """Say whether another owner has dollars of `run` set aside."""
        aside = self._at_place((run,))
        return any(nano for owner, nano in aside.items() if owner != self.name)

    def batches(self) -> bool:
        """Say whether another owner has a request in a batch, which may take a day."""
        return any(claim.batch and claim.owner != self.name for claim in self._open.values())

    def _at_place(self, place: tuple[str, ...]) -> dict[str, int]:
        return {
            owner: nano
            for owner, nano in self._set_aside.items()
            if (bill := self._bills.get(owner)) and bill[: len(place)] == place
        }

    def close(self) -> None:
        """End all claims. Requests still under way are charged as lost, as after a kill."""
        if self._own >= 0:
            with self.locked():
                self._end_claims(self.name)
        self.leave()

    def leave(self) -> None:
        """Close the files. The next owner ends the claims that are still open."""
        self._lines.clear()
        for descriptor in (self._own, self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._file = self._own = -1
        self.name = _owner()

    # --- owners ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Become an owner, after the claims of all dead owners are ended."""
        descriptor = os.open(self._owner(self.name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._ledger.ready()
            self._reopen()
            for path in self._folder.glob("*.owner"):
                if not self._lives(path.stem):
                    self._end_claims(path.stem)
            self.end_dead()
            self._bills[self.name] = self._bill
            self._compact()
        except BaseException:
            self._owner(self.name).unlink(missing_ok=True)
            os.close(descriptor)
            raise
        self._own = descriptor
        # answers that were bought and released before this owner began stand in no line, because
        # _compact dropped their lines
        self.refresh()

    def refresh(self) -> None:
        """Read the answers that others have bought, so that no key counts as changed any more."""
        self._ledger.look()
        self.changed_keys.clear()

    def _owner(self, name: str) -> Path:
        return self._folder / f"{name}.owner"

    def _lives(self, name: str) -> bool:
        """Say whether an owner's process is alive: its file is locked then."""
        if name in self._living:
            return True
        try:
            descriptor = os.open(self._owner(name), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self._living.add(name)
            return True
        finally:
            os.close(descriptor)
        return False

    def _end_claims(self, name: str) -> None:
        """End an owner's claims. Doing that twice does no harm: each loss has a key of its own and
        is charged once."""
        self.refresh()
        bill = self._bills.get(name)
        ended = {key: claim for key, claim in self._open.items() if claim.owner == name}
        lost = {
            key: claim.nano / NANO
            for key, claim in ended.items()
            if bill and claim.nano and not claim.batch and key not in self._ledger
        }
        for key, usd in lost.items():
            assert bill
            loss_key = hashlib.sha256(f"{name} {key}".encode()).hexdigest()
            self._ledger.charge(bill, usd, "lost", "its process ended", key=loss_key)
        if name != self.name and lost:
            print(
                f"{len(lost)} requests were under way when process {process(name)} ended; "
                f"{dollars(sum(lost.values()))} that they may have cost are counted as lost",
                file=sys.stderr,
            )
        for key in ended:
            self._drop(key)
            self._lines.append(f"r {name} {key}\n")
        self._bills.pop(name, None)
        self._set_aside.pop(name, None)
        self._owner(name).unlink(missing_ok=True)

    # --- the file --------------------------------------------------------------------------------

    def _put(self, key: str, claim: Claim) -> None:
        self._apply_claim(key, claim)
        kind = "b" if claim.batch else "l"
        self._lines.append(f"c {claim.owner} {key} {claim.nano} {kind}\n")

    def _apply_claim(self, key: str, claim: Claim) -> None:
        self._drop(key)
        self._open[key] = claim
        self._set_aside[claim.owner] = self._set_aside.get(claim.owner, 0) + claim.nano
        self._count += claim.owner == self.name

    def _drop(self, key: str) -> None:
        if claim := self._open.pop(key, None):
            self._set_aside[claim.owner] -= claim.nano
            self._count -= claim.owner == self.name

    def _reopen(self) -> None:
        """Open the file that has the name now and read it from its first byte."""
        if self._file >= 0:
            os.close(self._file)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._file = os.open(self._folder / "lines", flags, 0o600)
        self._open, self._bills, self._set_aside = {}, {}, {}
        self._at = self._count = 0
        self._read()
        for line in self._lines:
            self._apply(line.rstrip("\n"))

    def _read(self) -> None:
        now = os.fstat(self._file)
        # A file that lost its name, or is shorter than what was read of it, was written anew by
        # another process. If this owner's file has lost its name too, the folder was removed.
        if now.st_nlink == 0 or now.st_size < self._at:
            if self._own >= 0 and os.fstat(self._own).st_nlink == 0:
                raise FileNotFoundError(2, "the folder was removed", str(self._folder))
            self._reopen()
            self.refresh()
        elif now.st_size > self._at:
            text = os.pread(self._file, now.st_size - self._at, self._at)
            self._at += len(text)
            self._torn = not text.endswith(b"\n")
            for line in text.decode("utf-8", "replace").split("\n"):
                self._apply(line)
        if now.st_size > self._limit and self._own >= 0:
            self._compact()

    def _apply(self, line: str) -> None:
        """Take in a line. One of another form (torn, or another program's) is passed over."""
        if not (match := LINE.fullmatch(line)):
            return
        if match["new"]:
            self._bills[match["new"]] = Bill(*match["bill"].split("/"))
        elif key := match["claimed"]:
            claim, taker = self._open.get(key), match["taker"]
            # A claim counts only where nobody else has the request: the other owner must release
            # it first, or be found dead.
            if taker in self._bills and (claim is None or claim.owner == taker):
                self._apply_claim(key, Claim(taker, int(match["nano"]), match["kind"] == "b"))
            self.changed_keys.add(key)
        elif key := match["dropped"]:
            if (claim := self._open.get(key)) and claim.owner == match["giver"]:
                self._drop(key)
            self.changed_keys.add(key)

    def _write(self) -> None:
        if not self._lines:
            return
        # if a kill or a full disk tore the last line of the file, a newline comes first: the torn
        # line would otherwise swallow the first of these
        text = ("\n" * self._torn + "".join(self._lines)).encode()
        written = 0
        try:
            while written < len(text):
                written += os.write(self._file, text[written:])
        except OSError:
            os.ftruncate(self._file, self._at)
            raise
        self._lines.clear()
        self._at += len(text)
        self._torn = False

    def _compact(self) -> None:
        """Write the file anew, with owners and open claims alone. Others notice that the file that
        they have open lost its name, and open the new one."""
        lines = [f"o {owner} {'/'.join(bill)}\n" for owner, bill in self._bills.items()]
        for key, (owner, nano, batch) in self._open.items():
            lines.append(f"c {owner} {key} {nano} {'b' if batch else 'l'}\n")
        part = self._folder / "lines.part"
        with part.open("w", encoding="utf-8") as out:
            out.writelines(lines)
        part.rename(self._folder / "lines")
        self._lines.clear()
        self._reopen()
        self._limit = max(LIMIT, 2 * self._at)


def _owner() -> str:
    return f"{os.getpid()}-{secrets.token_hex(4)}"


# A forked child would inherit the open owner files and with them their locks. So it closes them:
# the claims of its parent must not outlive the parent.
_ALL: "weakref.WeakSet[Claims]" = weakref.WeakSet()


def _leave_all() -> None:
    for claims in list(_ALL):
        claims.leave()


os.register_at_fork(after_in_child=_leave_all)


def process(owner: str) -> str:
    """Return the number of the process that an owner belongs to."""
    return owner.partition("-")[0]


def _acquire(lock: int) -> None:
    """Wait for the lock, LOCKED seconds at most: a process may be halted while it has the lock.
    TimeoutError then."""
    until = time.monotonic() + LOCKED
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(110, "locked by another process (halted?)") from None
            time.sleep(0.0002)
