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
    command_line = parser(program, doc)
    command_line.add_argument("values", nargs="*", metavar=name)
    values: Sequence[str] = command_line.parse_args().values
    if len(values) < least or (most is not None and len(values) > most):
        command_line.print_usage(sys.stderr)
        expected = (
            f"{least}" if most == least else f"{least} or more" if most is None else f"up to {most}"
        )
        command_line.exit(2, f"error: {len(values)} arguments given, {expected} wanted: {name}\n")
    return list(values)


def label(program: str, doc: str | None) -> str:
    """The instance of a stage: what stands behind the @ of DVC's name for it, or is given alone."""
    (name,) = words(program, doc, 1, "INSTANCE")
    return name.rpartition("@")[2]
