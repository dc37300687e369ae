"""The arguments of a command: `--help` prints its docstring, and an argument that it does not know
is an error."""

import argparse
import sys
from collections.abc import Sequence


def parser(program: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of `python -m program`, whose help is the module's docstring as it is
    written."""
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
    """Return the arguments, called `name` in messages: at least `least`, at most `most` (None: any
    number). With fewer or more the command ends with exit status 2."""
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
    """Return the instance of a stage: the part behind the @ of DVC's name for it, or the argument
    itself."""
    (name,) = words(program, doc, 1, "INSTANCE")
    return name.rpartition("@")[2]
