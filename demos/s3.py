"""Shows what goes to S3 and what comes back: `make s3-demo`.

The embedded run of this folder is pushed to a bucket. A fresh clone with a cache, a ledger and a
scratch folder of its own takes back what it asks for. The server is moto's, on loopback, and DVC
speaks to it as to Amazon's. The project is only read. All of it happens in a copy and a clone of
the copy in a temporary folder, and the bucket ends with the program."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bezoar import interrupts
from bezoar.llm.ledger import Ledger
from bezoar.params import arguments
from bezoar.rows.files import BadInput
from tests.builders import ROOT
from tests.builders.s3 import S3, s3
from tests.conftest import BIN, copy, environment

# An experiment that stands for another profile: how much is asked, no key of the recipe. The local
# profile, the other one that needs no key, would take minutes.
VARIANT = "profiles/embedded.yaml:mt_compare.limit=40"


@dataclass(frozen=True)
class Step:
    """A command and its effects. `fetched` and `stored` are bytes by object. `ran` and `restored`
    are stages, and `asking` are those of `ran` that may ask a model."""

    says: str
    command: str
    output: str
    seconds: float
    fetched: dict[str, int]
    stored: dict[str, int]
    ran: list[str]
    restored: list[str]
    asking: list[str]

    def __str__(self) -> str:
        return (
            f"{self.says}\n$ {self.command}\n"
            f"  stored {size(self.stored)}, fetched {size(self.fetched)}, {self.seconds:.1f} s\n"
            f"  ran: {names(self.ran)}; from the run cache: {names(self.restored)}; "
            f"asked a model: {names(self.asking)}\n"
        )


def size(objects: dict[str, int]) -> str:
    """Write the number and the size of objects as a person says it."""
    return f"{len(objects)} objects ({sum(objects.values()) / 1e6:.1f} MB)" if objects else "none"


def names(stages: list[str]) -> str:
    """Write a list of stages as a person says it."""
    return ", ".join(stages) or "none"


@dataclass(frozen=True)
class Clone:
    """A repository with the bucket as its remote, which shares nothing with the machine but the
    programs."""

    folder: Path
    server: S3

    @property
    def work(self) -> Path:
        """Its $BEZOAR_WORK."""
        return self.folder.with_name(f"{self.folder.name}-work")

    @property
    def replies(self) -> int:
        """The number of answers in its ledger, all of which it has bought."""
        ledger = Ledger(self.work / "ledger")
        try:
            return len(ledger)
        finally:
            ledger.close()

    def run(self, program: str, *words: str) -> str:
        """Run a command and return its output. BadInput: it fails."""
        # DVC's hashes by inode and its settings are not shared with the rest of the machine.
        dvc_folders = {
            f"DVC_{name}": str(self.work / name.lower())
            for name in ("SITE_CACHE_DIR", "GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR")
        }
        process = subprocess.run(
            [BIN / "dvc" if program == "dvc" else program, *words],
            cwd=self.folder,
            env=environment(self.work, **self.server.environment, **dvc_folders),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if process.returncode:
            raise BadInput(f"{program} {' '.join(words)}: failed\n{process.stdout[-2000:]}")
        return process.stdout

    def dvc(self, says: str, *words: str) -> Step:
        """Run a dvc command, and count the objects and stages on both sides."""
        self.server.fetched.clear()
        self.server.stored.clear()
        began = time.perf_counter()
        output = self.run("dvc", *words)
        seconds = time.perf_counter() - began
        sizes = self.server.sizes()
        ran = re.findall(r"^Running stage '(.+)':", output, re.MULTILINE)
        return Step(
            says=says,
            command=" ".join(("dvc", *words)),
            output=output,
            seconds=seconds,
            fetched={key: sizes[key] for key in self.server.fetched if key in sizes},
            stored={key: sizes[key] for key in self.server.stored},
            ran=ran,
            restored=re.findall(r"^Stage '(.+)' is cached", output, re.MULTILINE),
            asking=[stage for stage in ran if self._asks(stage)],
        )

    def _asks(self, stage: str) -> bool:
        """Say whether the stage depends on the code that asks models."""
        deps = read(self.folder / "dvc.lock")["stages"][stage]["deps"]
        return any(dep["path"] == "bezoar/llm" for dep in deps)


def read(path: Path) -> Any:
    """Read a YAML document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def copy_run(project: Path, scratch: Path, server: S3) -> Clone:
    """Copy the finished run in `project`, with its files, its DVC cache and no link to either.
    BadInput: there is no finished embedded run."""
    missing = BadInput(f"{project}: holds no finished embedded run; run `make demo` first")
    lock = project / "dvc.lock"
    report = read(lock)["stages"].get("report") if lock.exists() else None
    if not report or report["params"]["params.yaml"]["profile"] != "embedded":
        raise missing
    process = subprocess.run(
        [BIN / "dvc", "cache", "dir"], cwd=project, capture_output=True, text=True, check=True
    )
    cache = project / process.stdout.strip()
    if not cache.is_dir():
        raise missing
    clone = Clone(copy(scratch / "ours", project), server)
    shutil.copytree(cache, clone.folder / ".dvc/cache")
    try:
        clone.run("dvc", "checkout", "--quiet")
        clone.run("dvc", "status", "--quiet")
    except BadInput:
        raise missing from None
    # Not earlier, or the checkout would ask the server for files that the cache lacks.
    server.be_remote_of(clone.folder)
    return clone


def clone_again(clone: Clone) -> Clone:
    """Make a fresh clone of `clone` in another folder, with git's files alone."""
    folder = clone.folder.with_name("theirs")
    clone.run("git", "clone", "--quiet", str(clone.folder), str(folder))
    clone.server.be_remote_of(folder)
    return Clone(folder, clone.server)


def evaluate_more(clone: Clone) -> None:
    """Change an evaluation parameter: have the harness look at the first link, too."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(clone.folder / "recipes/openbezoar.yaml") as document:
        document["evaluated"]["lamini"]["link"] = False


def push(clone: Clone) -> Iterator[Step]:
    """Run the variant, on a branch as a paper run would be, and push both."""
    yield clone.dvc("A variant runs here", "exp", "run", "-n", "variant", "-S", VARIANT)
    clone.run("dvc", "exp", "branch", "variant", "variant")
    clone.run("git", "checkout", "--quiet", ".")
    yield clone.dvc("Both runs go to the bucket", "push", "--run-cache", "--all-branches")


def pull(clone: Clone) -> Iterator[Step]:
    """Take back the last checkpoint and the report, then more as it is needed, then the variant."""
    yield clone.dvc(
        "A fresh clone takes the last checkpoint and the report",
        *("pull", "models/dpo/policy", "report"),
    )
    yield clone.dvc("It has no data, and nothing to do", "repro", "--allow-missing")
    evaluate_more(clone)
    yield clone.dvc(
        "One more model goes to the harness: it is fetched, and evaluated",
        *("repro", "--pull", "--allow-missing", "lm_eval"),
    )
    clone.run("git", "checkout", "--quiet", ".")
    yield clone.dvc("Back at the run that was pushed, the rest is fetched", "pull")
    yield clone.dvc("It has all the data, and nothing to do", "repro")
    yield clone.dvc("The variant comes out of the run cache", "exp", "run", "--pull", "-S", VARIANT)


def main() -> None:
    """Play the demo and print each step."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, s3() as server:
        pushed = copy_run(ROOT, Path(scratch), server)
        for step in push(pushed):
            print(step, flush=True)
        fresh = clone_again(pushed)
        for step in pull(fresh):
            print(step, flush=True)
        print(f"Replies bought by the clone, as its ledger says: {fresh.replies}")
    seconds = time.perf_counter() - began
    print(f"Played in {seconds:.0f} s; the bucket and the clones are gone")


if __name__ == "__main__":
    arguments.none("demos.s3", __doc__)
    try:
        # On a signal the server and the clones are removed before this process ends.
        with interrupts.as_exception():
            main()
    except KeyboardInterrupt:
        interrupts.end_with("error: interrupted; the bucket and the clones are gone")
        sys.exit(130)
