"""The report of a study: its numbers against slow references, what it says is missing."""

import dataclasses
import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from etfopt.cli import app
from etfopt.errors import InputError
from etfopt.experiments.studies._comparisons import pairs, spread_comparisons
from etfopt.experiments.studies._markdown import markdown
from etfopt.experiments.studies._numbers import QUANTITIES, Collected, collect, two_epochs
from etfopt.experiments.studies._progress import save_study
from etfopt.experiments.studies.pages import LINES, _shares, as_html, write_report
from etfopt.experiments.studies.plan_file import parse_study
from etfopt.experiments.studies.report import Report, make_report
from etfopt.experiments.studies.runs import run_study
from etfopt.experiments.training._records import read_lines
from etfopt.experiments.training.train import train
from tests.tools.promised import keys
from tests.tools.runs import SMALL, small

BASE = {**SMALL, "training.epochs": 4}
STUDY = parse_study(
    {
        **{"title": "Two | heads", "question": "Which <b>one</b>?", "setup": "Small."},
        **{"findings": "Both.\n\nOr none.", "seeds": [0, 1, 2], "base": BASE},
        "variants": [
            {"name": "learned", "head.name": "learned"},
            {"name": "nearest", "head.name": "nearest"},
            {"name": "wild", "head.name": "fixed", "optimizer.learning_rate": 1e30},
        ],
    },
    "two",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which one variant diverged and one run was stopped after its third epoch."""
    path = tmp_path_factory.mktemp("runs") / "two"
    run_study(STUDY, path)
    for name in ("history.json", "class_means.npy", "margins.npz", "checkpoints/epoch-0004.ckpt"):
        (path / "nearest-seed2" / name).unlink()
    lines = (path / "nearest-seed2" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "nearest-seed2" / "metrics.jsonl").write_text("".join(lines[:-1]))
    return path


@pytest.fixture(scope="module")
def written(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its report."""
    path = tmp_path_factory.mktemp("report")
    write_report(make_report(folder, epochs=(2, 4)), path)
    return path


# --- numbers of a study --------------------------------------------------------------------------------------------


def test_the_report_holds_what_the_runs_measured(folder: Path, written: Path):
    numbers = json.loads((written / "report.json").read_text())
    finished = [("learned", 0), ("learned", 1), ("learned", 2), ("nearest", 0), ("nearest", 1)]
    lines = {(name, seed): read_lines(folder / f"{name}-seed{seed}" / "metrics.jsonl") for name, seed in finished}
    for (variant, seed), records in lines.items():
        row = numbers["runs"][variant][str(seed)]
        assert row["test_accuracy_first"] == records[2]["test_accuracy"]
        assert row["train_accuracy_second"] == records[4]["train_accuracy"]
        assert row["nc3"] == records[4]["train_nc3"]
        d, C = 12, 10
        tensors = {"learned": C * d, "nearest": 2 * (C - 1) * d + (C - 1) * C + C * d + C + 1}
        assert row["head_kib"] * 1024 == 4 * tensors[variant]  # rows; U, prox, frame, means and counts
        reached = [record["epoch"] for record in records if record["train_accuracy"] >= 0.99]
        assert row["epochs_to_99"] == (reached[0] if reached else None)
    last = {run: records[4]["test_accuracy"] for run, records in lines.items()}
    spread = numbers["spreads"]["learned"]["test_accuracy_second"]
    assert [spread["low"], spread["median"], spread["high"]] == sorted(last["learned", seed] for seed in range(3))
    wanted = ("nearest", "test_accuracy_second")
    pair = next(p for p in numbers["comparisons"] if (p["variant"], p["quantity"]) == wanted)
    assert (pair["baseline"], pair["seeds"]) == ("learned", [0, 1])
    ours = [last["nearest", seed] - last["learned", seed] for seed in (0, 1)]
    np.testing.assert_allclose(pair["differences"], ours, atol=1e-15)


def test_every_measure_of_every_epoch_of_finished_runs_is_kept(folder: Path, written: Path):
    lines = [json.loads(line) for line in gzip.decompress((written / "metrics.jsonl.gz").read_bytes()).splitlines()]
    runs = [(line["variant"], line["seed"]) for line in lines[::5]]
    assert runs == [("learned", 0), ("learned", 1), ("learned", 2), ("nearest", 0), ("nearest", 1)]
    recorded = [json.loads(line) for line in (folder / "nearest-seed1" / "metrics.jsonl").read_text().splitlines()]
    for line, record in zip(lines[-5:], recorded, strict=True):
        assert line.keys() - record.keys() == {"variant"} | ({"seed"} - record.keys())
        assert line["train_nc1"] == pytest.approx(record["train_nc1"], rel=1e-5)
        assert line["epoch"] == record["epoch"]


def test_the_spread_between_seeds_is_shown_where_there_are_enough():
    plan = {"title": "T", "question": "Q", "seeds": [0, 1, 2, 3]}
    study = parse_study({**plan, "variants": [{"name": "a"}, {"name": "b", "head.name": "fixed"}]}, "s")
    values = {"a": [0.90, 0.92, 0.94, 0.96], "b": [0.91, 0.92, 0.93, 0.935]}
    rows = {n: {i: dict.fromkeys(QUANTITIES, x) for i, x in enumerate(v)} for n, v in values.items()}
    pair = next(p for p in spread_comparisons(study, rows, []) if p.quantity == "test_accuracy_second")
    assert pair.result.ratio == pytest.approx(np.std(values["b"]) / np.std(values["a"]))
    report = Report(Collected(study, {"a": [], "b": []}), {"a": (1, 2), "b": (1, 2)}, rows, {}, [], [pair], [])
    text = markdown(report, {})
    assert "| b | a | test top-1, epoch 2 | 4 | 1.11 | 2.58 | 0.43 | " in text
    assert "## Spread between seeds" not in markdown(dataclasses.replace(report, spread_pairs=[]), {})


def test_the_report_says_what_is_missing_and_what_diverged(folder: Path, written: Path):
    report = make_report(folder)
    assert report.collected.missing == {"nearest-seed2": "3 of 4 epochs"}
    assert sorted(report.collected.diverged) == ["wild-seed0", "wild-seed1", "wild-seed2"]
    text = (written / "report.md").read_text()
    for said in (
        "**Not finished: 1 of 9 runs**, which are left out below: nearest-seed2 (3 of 4 epochs).",
        *("**Diverged: 3 runs**", "- wild-seed1: ", "## Findings\n\nBoth.\n\nOr none.", "\n\nSmall.\n\n"),
        "With 2 pairs of runs the sign-flip test gives no p-value below 0.5",
    ):
        assert said in text
    assert "With 0 pairs" not in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 5
    for table in tables:  # every line has all its cells
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    page = (written / "report.html").read_text()
    assert "<script>" not in as_html("<script>x</script>", "<script>")
    assert "<h1>Two | heads</h1>" in page
    assert "Which &lt;b&gt;one&lt;/b&gt;?" in page
    assert page.count("<table>") == 5
    for picture in re.findall(r'src="([^"]+)"', page):
        assert (written / picture).read_bytes().startswith(b"\x89PNG")


def test_a_second_report_is_the_first_to_the_byte(folder: Path, written: Path, tmp_path: Path):
    write_report(make_report(folder, epochs=(2, 4)), tmp_path)
    for name in ("report.md", "report.html", "report.json", "metrics.jsonl.gz"):
        assert (written / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_baseline_is_the_studys_own_unless_another_is_asked_for(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "two")
    save_study(tmp_path / "two", dataclasses.replace(STUDY, baselines=("nearest",)))
    assert {pair.baseline for pair in make_report(tmp_path / "two").pairs} == {"nearest"}
    assert {pair.baseline for pair in make_report(tmp_path / "two", ["wild"]).pairs} == {"wild"}


def test_a_grid_is_compared_cell_by_cell():
    values = {"title": "T", "question": "Q", "seeds": [0], "base": BASE}
    variants = [{"name": "a", "head.name": "fixed"}, {"name": "b", "head.name": "learned"}]
    grid = {"data.batches": ["shuffled", "stratified"]}
    study = parse_study({**values, "variants": variants, "grid": grid}, "g")
    cells = ["data.batches=shuffled", "data.batches=stratified"]
    assert pairs(study, []) == pairs(study, ["a"]) == [(f"b, {cell}", f"a, {cell}") for cell in cells]
    assert pairs(study, ["b"]) == [(f"a, {cell}", f"b, {cell}") for cell in cells]
    assert pairs(study, ["a", "b"]) == pairs(study, ["a"])  # the mirrored pairs say the same
    assert pairs(study, [cells[0]]) == [(f"{head}, {cells[1]}", f"{head}, {cells[0]}") for head in "ab"]
    whole = f"b, {cells[1]}"
    assert pairs(study, [whole]) == [(v.name, whole) for v in study.variants if v.name != whole]
    alone = parse_study({**values, "grid": grid}, "g")
    assert pairs(alone, []) == [(cells[1], cells[0])]
    with pytest.raises(InputError, match=r"baseline = 'c' is no variant; choose one of: 'a', 'b', 'data\.batches"):
        pairs(study, ["c"])


def test_two_epochs_are_a_quarter_and_all_or_those_asked_for():
    assert two_epochs(STUDY, None)["learned"] == (1, 4)
    assert two_epochs(STUDY, (0, 3))["nearest"] == (0, 3)
    for wrong in ((3, 3), (2, 5), (-1, 2)):
        with pytest.raises(InputError, match="must increase and be at most 4"):
            two_epochs(STUDY, wrong)


def test_loose_runs_are_grouped_by_their_names(folder: Path, tmp_path: Path):
    for name in ("learned-seed0", "learned-seed1", "nearest-seed1"):
        (tmp_path / name).symlink_to(folder / name)
    seeds = {name: [run.config.seed for run in runs] for name, runs in collect(tmp_path).runs.items()}
    assert seeds == {"learned": [0, 1], "nearest": [1]}
    (tmp_path / "learned-seed9").symlink_to(folder / "nearest-seed0")
    with pytest.raises(InputError, match="learned-seed9: differs from the other runs named learned"):
        collect(tmp_path)


def test_what_holds_no_finished_run_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"is not the folder of a study; there are no runs in it"):
        collect(tmp_path)
    with pytest.raises(InputError, match=r"it holds studies: .*two; report one of them"):
        collect(folder.parent)
    (tmp_path / "nearest-seed2").symlink_to(folder / "nearest-seed2")
    with pytest.raises(InputError, match="none of its runs is finished"):
        collect(tmp_path)


# --- command -------------------------------------------------------------------------------------------------------


def call(*arguments: object):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_writes_the_report_beside_the_runs(folder: Path):
    done = call(folder, "--baseline", "nearest", "--epochs", 1, 3)
    assert done.exit_code == 0, done.output
    assert "5 runs, 1 not finished, 3 diverged. Wrote " in done.stdout
    numbers = json.loads((folder / "report" / "report.json").read_text())
    assert numbers["epochs"]["learned"] == [1, 3]
    assert "| learned | nearest | test top-1, epoch 3 | 2 |" in (folder / "report" / "report.md").read_text()
    assert {pair["baseline"] for pair in numbers["comparisons"]} == {"nearest"}
    again = call(folder, "--json")  # the folder of the report is not taken for a run
    assert json.loads(again.stdout)["study"]["title"] == "Two | heads"
    assert keys("report") <= json.loads(again.stdout).keys()
    refused = call(folder, "--baseline", "best")
    assert "baseline = 'best' is no variant" in str(refused.exception)


def test_a_run_of_one_epoch_is_reported(tmp_path: Path):
    train(small(1), tmp_path / "alone-seed0")
    done = call(tmp_path)
    assert done.exit_code == 0, done.output
    assert "Paired" not in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize("count", [1, LINES, LINES + 1, 12, 30])
def test_figures_of_many_curves_are_of_about_one_size_and_share_the_first(count):
    labels = [f"curve {i}" for i in range(count)]
    shares = _shares(labels)
    assert [share[0] for share in shares] == ["curve 0"] * len(shares)
    assert ["curve 0", *(label for share in shares for label in share[1:])] == labels
    sizes = [len(share) for share in shares]
    assert max(sizes) <= LINES
    assert min(sizes) > 1 or count == 1
    assert count > LINES or len(shares) == 1
    assert max(sizes) - min(sizes) <= len(shares)
