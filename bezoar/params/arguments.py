"""What a command is given: `--help` prints what it does, and what it does not know is an error."""

import argparse
import sys
from collections.abc import Sequence


def parser(program: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser of `python -m program`, whose help is the module's docstring as it is written."""
    return argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def none(program: str, doc: str | None) -> None:
    """Take no argument."""
    parser(program, doc).parse_args()


def words(program: str, doc: str | None, least: int, name: str, most: int | None = 1) -> list[str]:
    """The arguments, from `least` on to `most` (None: as many as there are), called `name`."""
    asking = parser(program, doc)
    asking.add_argument("given", nargs="*", metavar=name)
    given: Sequence[str] = asking.parse_args().given
    if len(given) < least or (most is not None and len(given) > most):
        asking.print_usage(sys.stderr)
        wanted = (
            f"{least}" if most == least else f"{least} or more" if most is None else f"up to {most}"
        )
        asking.exit(2, f"error: {len(given)} arguments given, {wanted} wanted: {name}\n")
    return list(given)


def label(program: str, doc: str | None) -> str:
    """The instance of a stage: what stands behind the @ of DVC's name for it, or is given alone."""
    (name,) = words(program, doc, 1, "INSTANCE")
    return name.rpartition("@")[2]
