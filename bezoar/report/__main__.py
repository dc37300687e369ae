"""`python -m bezoar.report`: the run's main numbers as a short table, where the report lies, and
whether the run is the recorded one."""

from pathlib import Path
from typing import Any

from bezoar import params
from bezoar.params import arguments
from bezoar.report import recorded, took
from bezoar.rows.files import BadInput, read_json

FOLDER = Path("metrics/report")
WIDTH = 80


def main() -> None:
    """Print metrics/report/summary.json in 80 columns of plain characters, and write beside the
    report what each stage took."""
    from rich.console import Console

    summary = read_json(FOLDER / "summary.json")
    if not isinstance(summary, dict):
        raise BadInput(f"{FOLDER}/summary.json: not a mapping; `dvc repro -f report` makes it anew")
    # names of tasks and skills may hold brackets, which rich would read as its markup
    console = Console(width=WIDTH, markup=False, highlight=False, emoji=False)
    for block in (_skills(summary), _checkpoints(summary), _funnels(summary)):
        if block is not None:
            console.print(block, "")
    # only a run that has rows of the user's own has this key
    for source, rows in summary.get("own", {}).items():
        console.print(_own_rows_line(source, rows))
    if dpo := summary["dpo"]:
        console.print(
            f"DPO, held-out pairs: accuracy {_share(dpo['accuracy_before'])} -> "
            f"{_share(dpo['accuracy'])}, reward margin {dpo['margin']:.3f}"
        )
    if words := _trust(summary):
        console.print(f"Right from wrong (AUC, a coin 0.50): {words}")
    spent = [row for instances in summary["spending"].values() for row in instances.values()]
    if calls := sum(row["calls"] for row in spent):
        console.print(f"Bought: {calls:,} answers for ${sum(row['usd'] for row in spent):,.2f}")
    if simulated := [
        speaker for speaker, is_simulated in sorted(summary["simulated"].items()) if is_simulated
    ]:
        console.print(f"Simulated in this run: {', '.join(simulated)}")
    if time := took.write_beside(FOLDER, summary):
        console.print(time)
    console.print(f"Report: {FOLDER.as_posix()}/report.html (profile {summary['profile']})")
    for line in _next_steps(params.load()):
        console.print(line)
    # a path or a command in this line would be broken in two at WIDTH
    console.print(recorded.line(), soft_wrap=True)


def _next_steps(settings: params.Params) -> list[str]:
    """Return lines on the model that the chain ends with: its place, and what can be done with
    it."""
    return [
        f"Model: models/{settings.final_model}",
        "  make chat                      talk with it, or with another: MODEL=NAME",
        "  docs/use.md                    serve it: transformers, vLLM, Ollama, llama.cpp",
        "  make publish REPO=user/name    what would go to the Hugging Face Hub",
    ]


def _table(title: str, columns: list[str]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.ASCII2, show_edge=False
    )
    # "fold" breaks a long name over several lines, where rich's default cuts its end off
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    return table


def _skills(summary: dict[str, Any]) -> Any:
    points = summary["order"]["points"]
    if not summary["order"]["skills"]:
        return None
    table = _table("Held-out questions answered right, by skill", ["skill", *points])
    for skill in summary["order"]["skills"]:
        table.add_row(skill, *(_share(summary["skills"][point].get(skill)) for point in points))
    return table


def _checkpoints(summary: dict[str, Any]) -> Any:
    if not summary["order"]["checkpoints"]:
        return None
    table = _table(
        "Checkpoints: harness (mean of acc, acc_norm), MT-Bench",
        ["checkpoint", "harness", "turn 1", "turn 2", "average", "coverage"],
    )
    for checkpoint in summary["order"]["checkpoints"]:
        grades = summary["mt_bench"].get(checkpoint, {})
        table.add_row(
            checkpoint,
            _share(summary["harness"].get(checkpoint)),
            *(_grade(grades.get(key)) for key in ("turn_1", "turn_2", "average")),
            _share(grades.get("coverage")),
        )
    return table


def _funnels(summary: dict[str, Any]) -> Any:
    if not summary["order"]["schemes"]:
        return None
    steps = ["asked", "accepted", "rejected", "undecided", "copies", "kept"]
    table = _table("From asked to kept", ["scheme", *steps])
    for scheme in summary["order"]["schemes"]:
        table.add_row(scheme, *(f"{summary['funnel'][scheme][step]:,}" for step in steps))
    return table


def _own_rows_line(source: str, rows: dict[str, Any]) -> str:
    """Return a line that says what became of the user's own rows, and which links learn from
    them."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in rows["reasons"].items())
    dropped = f" (dropped: {reasons})" if reasons else ""
    shares = ", ".join(f"{_share(share)} of {link}'s" for link, share in rows["shares"].items())
    learnt = f"they are {shares} rows" if shares else "no link learns from them"
    return f"Your own rows ({source}): {rows['kept']:,} of {rows['own']:,} kept{dropped}; {learnt}"


def _trust(summary: dict[str, Any]) -> str:
    """Return the lowest AUC of the run's judges, of its graders and of its graders of pairs, as
    words. "" where none of them was asked about rows with known answers."""
    everyone = {
        "judge": [judge for judges in summary["known"].values() for judge in judges.values()],
        "grader": list(summary["mt_bench"].values()),
        "pairs": list(summary["mt_compare"].values()),
    }
    # an AUC may be missing (an older run has no such key) or None (too few rows)
    aucs = {
        kind: [value for row in rows if (value := row.get("known_auc")) is not None]
        for kind, rows in everyone.items()
    }
    return ", ".join(f"{kind} {min(values):.2f}" for kind, values in aucs.items() if values)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _grade(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    arguments.none("bezoar.report", __doc__)
    main()
