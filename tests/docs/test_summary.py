"""The summary of all published studies agrees with their reports."""

import json
import struct
import sys
from pathlib import Path
from statistics import fmean

import pytest

from tests import ROOT

pytest.importorskip("matplotlib")
sys.path.append(str(ROOT / "docs"))
import summary

RESULTS = ROOT / "notebooks" / "results"
ROWS = summary.differences(RESULTS)


def size(picture: Path) -> tuple[int, ...]:
    """Width and height of a PNG."""
    return struct.unpack(">II", picture.read_bytes()[16:24])


def test_the_committed_page_is_the_one_that_the_reports_give(tmp_path: Path):
    folder = RESULTS / summary.FOLDER
    page = summary.page(ROWS, (folder / summary.ADVICE).read_text())
    assert (folder / summary.PAGE).read_text() == page, "run make summary"
    summary.draw(ROWS, tmp_path / "drawn.png")
    assert size(tmp_path / "drawn.png") == size(folder / summary.PICTURE), "run make summary"


def test_every_study_with_a_learned_head_is_there_or_left_out_with_a_reason():
    published = {path.parent.name for path in RESULTS.glob("*/report.json")}
    assert {row.study for row in ROWS} | summary.LEFT_OUT.keys() == published


@pytest.mark.parametrize("name", sorted({row.study for row in ROWS}))
def test_a_difference_is_that_of_the_runs(name: str):
    report = json.loads((RESULTS / name / "report.json").read_text())
    variants = report["study"]["variants"]
    cells = {v["name"]: (v["head"] or v["name"], v["cell"], v["config"]["head"]["name"]) for v in variants}
    rows = [row for row in ROWS if row.study == name]
    assert len({(row.head, row.place) for row in rows}) == len(rows)
    assert {(row.head, row.place) for row in rows} == {cell[:2] for cell in cells.values() if cell[2] != "learned"}
    learned = [key for key, cell in cells.items() if cell[2] == "learned"]
    for row in rows:
        (ours,) = (key for key, cell in cells.items() if cell[:2] == (row.head, row.place))
        means = []
        for key in learned:
            runs = report["runs"][ours], report["runs"][key]
            shared = runs[0].keys() & runs[1].keys()
            for q in set(summary.ACCURACIES) & next(iter(runs[0].values())).keys():
                means.append(100 * sum(runs[0][seed][q] - runs[1][seed][q] for seed in shared) / len(shared))
        assert any(row.mean == pytest.approx(mean) for mean in means)
        assert row.interval is None or row.interval[0] <= row.mean <= row.interval[1]


def test_the_baseline_is_the_best_learned_head_where_the_study_names_it():
    """Of the temperatures of a head, the learned one's best is what others must beat."""
    rows = [row for row in ROWS if row.study == "omniglot"]
    runs = json.loads((RESULTS / "omniglot" / "report.json").read_text())["runs"]
    accuracy = {name: fmean(row["test_accuracy_second"] for row in rows.values()) for name, rows in runs.items()}
    best = max(accuracy[name] for name in accuracy if name.startswith("learned"))
    for row in rows:
        assert row.mean == pytest.approx(100 * (accuracy[f"{row.head}, {row.place}"] - best))
