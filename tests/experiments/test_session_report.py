"""The report of runs in sessions: its numbers against a reference written out, its tables and its picture."""

import json
from pathlib import Path

import numpy as np
import pytest

from etfopt.errors import InputError
from etfopt.experiments.studies._comparisons import SESSION_COMPARED, comparisons, spread_comparisons
from etfopt.experiments.studies._markdown import markdown
from etfopt.experiments.studies._numbers import Collected, Spread, quantities
from etfopt.experiments.studies._sessions import accuracy_curves, last_epochs, session_quantities
from etfopt.experiments.studies.pages import write_report
from etfopt.experiments.studies.plan_file import parse_study
from etfopt.experiments.studies.report import Report
from etfopt.experiments.training.results import RunResult
from etfopt.plotting import draw_session_page, draw_sessions

STUDY = parse_study(
    {
        **{"title": "Sessions", "question": "Which?", "seeds": [0, 1]},
        "base": {"training.epochs": 3, "sessions.count": 2, "sessions.classes": 3, "sessions.epochs": 2},
        "variants": [{"name": "learned", "head.name": "learned"}, {"name": "held", "head.growth": "held"}],
        "grid": {"sessions.backbone": ["frozen", "fine-tuned"]},
    },
    "sessions",
)
AFTER = np.array([[0.9, np.nan, np.nan], [0.8, 0.5, np.nan], [0.6, 0.7, 0.3]])
"""Row l, column j: the accuracy on the classes of session j after session l."""


def fake(variant: int, seed: int, path: Path) -> RunResult:
    """A run whose records hold the table, with a shift by the seed and the variant."""
    config = STUDY.variants[variant].config.with_settings({"seed": seed})
    shift, history = 0.01 * seed + 0.05 * variant, []
    for epoch in range(8):
        after = 0 if epoch <= 3 else (epoch - 2) // 2
        row = AFTER[after] + shift if epoch in (3, 5, 7) else np.zeros(3)
        parts = {f"test_accuracy_session_{j}": float(x) for j, x in enumerate(row)}
        old = float(np.mean(row[:after])) if after else np.nan
        accuracy = float(np.nanmean(row))
        record = {"epoch": epoch, "test_accuracy": accuracy, "test_accuracy_old": old, "test_accuracy_new": row[after]}
        history.append({**record, **parts})
    return RunResult(config, history, np.zeros((1, 12, 10)), 1.0, 2.0**20, path)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    runs = {v.name: [fake(i, seed, tmp_path) for seed in (0, 1)] for i, v in enumerate(STUDY.variants)}
    epochs = dict.fromkeys(runs, (1, 7))
    values = {name: {r.config.seed: quantities(r, (1, 7)) for r in group} for name, group in runs.items()}
    spreads = {
        name: {q: Spread.of([row[q] for row in rows.values()]) for q in rows[0]} for name, rows in values.items()
    }
    pairs = comparisons(STUDY, values, []), spread_comparisons(STUDY, values, [])
    return Report(Collected(STUDY, runs), epochs, values, spreads, *pairs, [])


def test_the_quantities_of_a_run_by_hand(tmp_path: Path):
    run = fake(0, 0, tmp_path)
    assert last_epochs(run.config) == [3, 5, 7]
    assert session_quantities(run) == pytest.approx(
        {
            "average_accuracy": (0.9 + 0.65 + 1.6 / 3) / 3,
            "last_accuracy": 1.6 / 3,
            "base_accuracy": 0.6,
            "later_accuracy": 0.5,
            "old_accuracy": (0.8 + 0.65) / 2,
            "new_accuracy": 0.4,
            "forgetting": ((0.9 - 0.6) + (0.5 - 0.7)) / 2,  # of the last session nothing can be forgotten
        }
    )
    assert quantities(run, (1, 7)).keys() == {*session_quantities(run), "step_ms", "step_mib", "head_kib"}


def test_the_page_has_the_sessions_and_no_epochs_to_reach(report: Report):
    text = markdown(report, {})
    assert "| learned, sessions.backbone=frozen | 90.50 % | 65.50 % | 53.83 % |" in text
    assert "Epochs to reach" not in text
    assert (
        "| held, sessions.backbone=frozen | learned, sessions.backbone=frozen | average | 2 | +5.00 | +5.00 |" in text
    )
    assert {pair.quantity for pair in report.pairs} == {*SESSION_COMPARED}
    assert report.spread_pairs == []


def test_it_is_written_with_one_picture_of_all_cells(report: Report, tmp_path: Path):
    files = write_report(report, tmp_path / "report")
    assert [file.name for file in files if file.suffix == ".png"] == ["curves-1.png"]
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    assert numbers["runs"]["learned, sessions.backbone=frozen"]["0"]["base_accuracy"] == 0.6


def test_a_panel_shows_median_and_range_over_runs(report: Report):
    curves = accuracy_curves(report.collected.runs)
    axes = draw_sessions({"one": curves["learned, sessions.backbone=frozen"]})
    assert axes.lines[0].get_ydata() == pytest.approx([0.905, 0.655, 1.6 / 3 + 0.005])
    panels = draw_session_page({"a": curves, "b": curves})
    assert [panel.get_title() for panel in panels] == ["a", "b"]
    with pytest.raises(InputError, match="curves"):
        draw_sessions({"one": [[0.5, np.nan]]})
