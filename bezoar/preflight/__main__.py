"""`python -m bezoar.preflight [PROFILE...]`: what would stop a run of that profile (none named: of
the active one), and what it will take. Several are looked at one after the other. Exit 1 where
something would stop one of them."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from bezoar import params
from bezoar.params import arguments
from bezoar.preflight import expected, forecast, gpu
from bezoar.preflight.checks import Preflight, preflight
from bezoar.preflight.expected import Duration
from bezoar.preflight.findings import Finding
from bezoar.preflight.forecast import Row
from bezoar.preflight.gpu import GIB
from bezoar.training.runs.memory import MARGIN

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 96
SIGNS = {"ok": "ok", "warning": "warning", "stop": "STOP"}
STYLES = {"ok": "green", "warning": "yellow", "stop": "bold red"}


def main(profiles: Sequence[str]) -> None:
    """Print the preflight of each profile. Exit 1 where something would stop its run."""
    from rich.console import Console

    # No markup, since names and paths may hold brackets.
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    # All names are looked up before the first of them is looked at, so that a wrong one ends this
    # at once.
    checked = [params.load(profile=profile) for profile in dict.fromkeys(profiles)]
    stops = 0
    for number, p in enumerate(checked or [params.load()]):
        # An empty line stands between two profiles, and none before the first.
        console.print(*[""] * bool(number), end="\n" * bool(number))
        result = preflight(p)
        show(result, console)
        stops += result.count("stop")
    if stops:
        sys.exit(1)


def show(result: Preflight, console: "Console") -> None:
    """Print the findings, then the memory, calls and time of a run, then whether it would get to
    its end."""
    console.print(f"Preflight of profile {result.profile}: nothing is run, nothing is bought\n")
    for heading, findings in result.findings.items():
        if findings:
            console.print(heading, style="bold")
            console.print(_findings_table(findings))
            console.print()
        if heading == "Memory" and result.fits:
            console.print(_memory_table(result), "")
        if heading == "Budget" and result.forecast_rows:
            console.print(_calls_table(result.forecast_rows), "")
    durations = [*result.asking, *result.training, *result.answering]
    if durations:
        console.print(_times_table(durations), "")
    for line in assumptions(result):
        console.print(line, style="dim")
    console.print(_summary(result))
    stops, warnings = result.count("stop"), result.count("warning")
    console.print(
        (f"{stops} finding{'s' * (stops > 1)}" if stops else "Nothing")
        + f" would stop this run{f', {warnings} more to look at' * (warnings > 0)}.",
        style=STYLES["stop" if stops else "ok"],
    )


def _findings_table(findings: Iterable[Finding]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(width=9)
    table.add_column(width=18, overflow="fold")
    table.add_column(overflow="fold")
    for finding in findings:
        message = finding.message + (f"\n-> {finding.do}" if finding.do else "")
        sign = Text("  " + SIGNS[finding.level], style=STYLES[finding.level])
        table.add_row(sign, finding.where, message)
    return table


def _columns(title: str, columns: list[str], left: int = 1) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.ASCII2, show_edge=False
    )
    for number, column in enumerate(columns):
        side: Literal["left", "right"] = "left" if number < left else "right"
        table.add_column(column, justify=side, no_wrap=not number, overflow="fold")
    return table


def _memory_table(result: Preflight) -> "Table":
    parts = ["weights", "gradients", "optimizer", "activations", "total"]
    table = _columns("Memory at the peak of a step, GiB", ["stage", *parts, "free", "rows"])
    for fit in result.fits:
        sizes = [f"{getattr(fit.need, part) / GIB:.1f}" for part in parts]
        have = "none" if fit.have is None else f"{fit.have / GIB:.1f}"
        rows = "-" if fit.stage.startswith("merge") else str(fit.rows)
        row = [fit.stage, *sizes, have, rows if fit.fits else "too many"]
        table.add_row(*row, style="" if fit.fits else "red")
    return table


def _calls_table(forecast_rows: Sequence[Row]) -> "Table":
    rows = [*forecast_rows, forecast.total(forecast_rows)]
    columns = ["calls", "tokens in", "tokens out", "$", "$ at most"]
    if rows[-1].too_long:
        columns.append("too long")
    table = _columns("What models are asked for", ["stage", *columns])
    stages = [row.stage for row in rows]
    for row in rows:
        most = "no maximum" if row.most is None else f"{row.most:,.2f}"
        counts = [f"{count:,}" for count in (row.calls, row.tokens_in, row.tokens_out)]
        if row is rows[-1]:
            table.add_section()
        # The judges of a panel have a row each of the same stage, so their models tell them apart.
        of_panel = f", {row.model}" * (stages.count(row.stage) > 1)
        cells = [*counts, f"{row.usd:,.2f}", most, f"{row.too_long:,}"]
        table.add_row(row.stage + of_panel, *cells[: len(columns)])
    return table


def _times_table(durations: Iterable[Duration]) -> "Table":
    table = _columns("Time", ["stage", "goes through", "takes"], left=2)
    for duration in durations:
        table.add_row(
            duration.stage, duration.work, duration.instead or _duration(duration.seconds)
        )
    return table


def _duration(seconds: float) -> str:
    if seconds < 60:
        return "< 1 min"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def assumptions(result: Preflight) -> list[str]:
    """Return the assumptions behind the numbers, a line each."""
    lines = []
    if result.forecast_rows:
        rows = (
            "rows as many and long as the sources hold" if result.estimated else "what is fetched"
        )
        lines.append(f"Calls: planned on {rows}, played against the simulated teacher and judge.")
        if any(row.too_long for row in result.forecast_rows):
            lines.append(forecast.TOO_LONG)
    if result.asking:
        lines.append(f"Replies: `reply_tokens` long, {expected.STREAM} tokens/s each while live.")
    if result.training:
        example = f"; told for one {expected.EXAMPLE}, for want of a GPU"
        lines.append(
            f"Training: {expected.SHARE:.0%} of the GPU's 16-bit peak"
            + ("" if result.machine.gpu else example)
            + "; rows that pass as in the paper; held-out rows and the harness not counted."
        )
    if result.answering:
        lines.append(
            f"MT-Bench: {expected.STEP} s a token for all rows at once; no answer ends early."
        )
    if result.fits:
        lines.append(
            f"Memory: rows at once, in {MARGIN:.0%} of what is free; the harness's texts have "
            f"{gpu.LONGEST:,} tokens at most."
        )
    return [*lines, ""] if lines else []


def _summary(result: Preflight) -> str:
    parts = []
    for subject, durations in (
        ("models' replies", result.asking),
        ("training", result.training),
        ("MT-Bench's answers at most", result.answering),
    ):
        if seconds := [duration.seconds for duration in durations if not duration.instead]:
            rest = " and what has no time above" if len(seconds) < len(durations) else ""
            parts.append(f"{_duration(sum(seconds))} of {subject}{rest}")
    usd = sum(row.usd for row in result.forecast_rows)
    return f"Expected: {', '.join([*parts, f'${usd:,.2f}'])}."


if __name__ == "__main__":
    main(arguments.words("bezoar.preflight", __doc__, 0, "PROFILE", None))
