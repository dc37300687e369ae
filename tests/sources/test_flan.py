"""Which rows of the FLAN collection stay."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bezoar.params import HubFlan
from bezoar.sources import flan

WANTED = {
    "source": "hub",
    "repository": "some/flan",
    "kind": "dataset",
    "revision": "a" * 40,
    "ref": None,
    "licence": "MIT",
    "mixtures": {"cot": [], "niv2": [], "t0": [], "flan2021": []},
    "shards": None,
}


def draw(tmp_path: Path, rows: list[tuple[str, str]], most: int = 3, share: float = 1.0) -> Any:
    """What stays of (task, query) rows, in files of 50."""
    wanted = HubFlan.model_validate({**WANTED, "per_task": most, "task_share": share})
    state = tmp_path / "draw.json"
    state.unlink(missing_ok=True)
    for start in range(0, len(rows), 50):
        part = rows[start : start + 50]
        batch = {
            "inputs": [query for _, query in part],
            "targets": ["yes"] * len(part),
            "_task_name": [task for task, _ in part],
            "_template_type": ["zs_opt"] * len(part),
        }
        one = flan._Draw(wanted, "niv2", 7, state)
        one.take(f"part.{start}", iter([batch]))
    return {task: [r.query for t, r in one.rows() if t == task] for task, _ in one.rows()}


def test_what_stays_depends_on_a_task_s_rows_alone(tmp_path: Path) -> None:
    rows = [("a", f"question {n}") for n in range(200)]
    alone = draw(tmp_path, rows)
    others = [(f"task {n % 7}", f"other {n}") for n in range(300)]
    assert draw(tmp_path, [*others, *reversed(rows)])["a"] == alone["a"]
    assert draw(tmp_path, rows * 3) == alone  # equal rows are one
    assert len(alone["a"]) == 3 and alone["a"] != ["question 0", "question 1", "question 2"]
    assert sorted(draw(tmp_path, rows[:2])["a"]) == ["question 0", "question 1"]
    assert draw(tmp_path, rows, most=5)["a"][:3] == alone["a"]


@pytest.mark.slow
def test_rows_and_tasks_are_drawn_evenly(tmp_path: Path) -> None:
    rows = [(f"task {t}", f"{t} {n}") for t in range(400) for n in range(10)]
    kept = Counter(
        int(query.split()[1]) for each in draw(tmp_path, rows).values() for query in each
    )
    assert sum(kept.values()) == 1200 and all(80 < n < 160 for n in kept.values())
    assert 20 < len(draw(tmp_path, rows, share=0.1)) < 65


def test_files_are_spread_over_a_folder() -> None:
    names = [f"part.{n}" for n in range(10)]
    assert flan._spread(names, None) == flan._spread(names, 10) == names
    assert flan._spread(names, 3) == ["part.0", "part.3", "part.6"]
