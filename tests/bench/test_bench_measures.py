"""What an update of the metrics costs is measured beside a plain sum, and beside neural-collapse where it is there."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")
from etfopt.bench import measures
from etfopt.bench.measures import bench_measures


def test_every_shape_is_measured_with_both_kinds_of_labels() -> None:
    calls: list[int] = []
    rows = bench_measures([(5, 8, 40), (30, 4, 60)], rounds=2, on_step=lambda: calls.append(1))
    assert [(row.C, row.labels) for row in rows] == [(5, "uniform"), (5, "zipf"), (30, "uniform"), (30, "zipf")]
    runs = 4 if rows[0].peer is None else 5
    assert len(calls) == 4 * runs * 3
    for row in rows:
        assert min(row.index_add, row.index_add_double, row.means, row.whole) > 0


def test_labels_fall_like_one_over_the_rank() -> None:
    labels = measures._labels("zipf", 100, 20_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(labels, minlength=100)
    assert 8 < counts[0] / counts[9] < 12.5
    assert labels.max() < 100


def test_the_command_prints_and_writes_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = pytest.importorskip("typer.testing").CliRunner()
    from etfopt.cli import app
    from tests.tools.promised import keys

    options = ["--largest", "10", "--rounds", "1", "--out", str(tmp_path / "bench")]
    # the console keeps the width that it was made with, in whichever test came first: 80 columns fold a heading
    monkeypatch.setattr("etfopt.cli._app.console.width", 200)
    done = runner.invoke(app, ["bench", "measures", *options])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert keys("bench measures") <= written.keys()
    assert [row["labels"] for row in written["rows"]] == ["uniform", "zipf"]
    assert "index_add_" in done.output
