"""Time, memory and cost of each stage, as a page beside the report. The page is no out of a stage,
for its numbers differ between machines."""

from pathlib import Path
from typing import Any

from bezoar import work
from bezoar.report.words import STYLE, render, size
from bezoar.rows.files import write
from bezoar.work import times
from bezoar.work.progress import duration

FILE = "times.html"


def write_beside(folder: Path, summary: dict[str, Any]) -> str:
    """Write the page into `folder`, where report.html shows it, and return its sums as a line. ""
    where this machine made nothing of the run."""
    rows = list(times.rows(work.home(), summary["spending"]))
    total = _total(rows)
    write(
        folder / FILE,
        [render("times.html", style=STYLE, rows=rows, total=total, gpu=total["gpu"])],
    )
    if not total["timed"]:
        return ""
    return (
        f"Time: {duration(total['seconds'])} in all stages ({duration(total['cpu'])} of CPU), "
        f"{size(total['memory'])} of memory"
    )


def _total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    total = dict.fromkeys(("seconds", "cpu", "tokens_in", "tokens_out", "usd", "timed"), 0)
    total |= {key: sum(row[key] for row in rows) for key in total}
    # stages run one after the other: their memory is that of the largest, not a sum
    return total | {key: max((row[key] for row in rows), default=0) for key in ("memory", "gpu")}
