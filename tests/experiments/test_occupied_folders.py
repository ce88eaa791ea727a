"""No command removes or replaces what its user did not name: it refuses, and says what is there and what to do."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from etfopt import nearest_etf
from etfopt.cli import app
from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.studies.demo import run_demo
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.studies.plan_file import parse_study
from etfopt.experiments.training._records import locked
from etfopt.experiments.training.train import resume, train
from etfopt.files import refuse_as_output, save_solution
from tests.tools import runs

small = partial(runs.small, data__subset=20)
SETTINGS = {**runs.SMALL, "data.subset": 20, "training.epochs": 2}  # of the same run, for the command line


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(*arguments: object) -> str:
    """Return with which InputError a command ends."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


def set_to(**settings: object) -> list[str]:
    return [word for name, value in {**SETTINGS, **settings}.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(small(), folder)
    return folder


@pytest.mark.parametrize("head", ["nearest", "fixed"])
def test_a_finished_run_is_not_removed_by_another_or_by_the_same(finished: Path, head: str):
    before = snapshot(finished)
    said = refused("train", *set_to(**{"head.name": head}), "--out", finished)
    described = "holds an earlier run, digits, head nearest, seed 0, 2 epochs planned, with 2 f"
    assert said.startswith(f"{finished}: {described}")
    for remedy in ("another folder with --out", f"--resume {finished}", "replace it with --overwrite"):
        assert remedy in said
    assert snapshot(finished) == before


def test_the_default_folder_is_protected_alike(finished: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits-nearest-seed0").symlink_to(finished)
    monkeypatch.chdir(tmp_path)
    before = snapshot(finished)
    assert "runs/digits-nearest-seed0: holds an earlier run" in refused("train", *set_to())
    assert snapshot(finished) == before


def test_overwrite_replaces_a_run_and_nothing_else(tmp_path: Path):
    """The second run diverges, so that every file is the first's or its own."""
    train(small(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConvergenceError):
        train(small(head__name="fixed", optimizer__learning_rate=1e30), tmp_path, overwrite=True)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["head"]["name"] == "fixed"
    assert [record["epoch"] for record in json.loads((tmp_path / "history.json").read_text())["epochs"]] == [0]
    assert not (tmp_path / "class_means.npy").exists()
    assert not list((tmp_path / "checkpoints").iterdir())
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["config.json", "class_means.npy", "history.json"])
def test_files_that_are_of_no_run_are_never_removed(digits, tmp_path: Path, name: str, overwrite: bool):
    (tmp_path / name).write_text('{"mine": true}')
    with pytest.raises(InputError, match=rf"holds {name}, and not of an earlier run; choose another folder"):
        train(small(), tmp_path, images=digits, overwrite=overwrite)
    assert snapshot(tmp_path) == {str(tmp_path / name): b'{"mine": true}'}


def test_a_run_is_not_both_continued_and_replaced_nor_with_other_settings_nor_by_two_at_once(finished: Path):
    before = snapshot(finished)
    with locked(finished), pytest.raises(InputError, match="another process is at work on this run"):
        train(small(), finished, overwrite=True)
    with pytest.raises(InputError, match="continue the run, or replace it"):
        train(small(), finished, overwrite=True, resume=True)
    assert "--overwrite has no meaning with --resume" in refused("train", "--resume", finished, "--overwrite")
    with pytest.raises(InputError, match=r"is a run of another configuration, digits, head nearest.*--overwrite"):
        train(small(head__name="fixed"), finished, resume=True)
    assert snapshot(finished) == before


def test_a_run_of_which_no_epoch_was_finished_makes_room(tmp_path: Path):
    """A run that was killed at once, or whose first step diverged, has nothing to lose."""
    train(small(), tmp_path)
    for path in [*tmp_path.glob("checkpoints/*"), tmp_path / "class_means.npy", tmp_path / "margins.npz"]:
        path.unlink()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text(lines[0])
    assert len(train(small(head__name="fixed"), tmp_path).history) == 3


def test_a_finished_run_without_its_checkpoints_is_not_trained_again(tmp_path: Path):
    """To save room, say: --resume began at epoch 0 and removed the results."""
    whole = train(small(), tmp_path)
    for path in tmp_path.glob("checkpoints/*"):
        path.unlink()
    before = snapshot(tmp_path)
    again = resume(tmp_path)
    assert (again.trained, again.history) == (0, whole.history)
    assert snapshot(tmp_path) == before
    (tmp_path / "margins.npz").unlink()  # now it is not finished
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"the records of 2 finished epochs and no checkpoint.*another folder"):
        resume(tmp_path)
    assert snapshot(tmp_path) == before


def demo(**settings: object) -> Study:
    plan = {"title": "t", "question": "q", "seeds": [0, 1], "variants": [{"name": "nearest"}]}
    return parse_study({**plan, "base": {**SETTINGS, **settings}}, "demo")


def test_a_demonstration_resumes_and_replaces_runs_of_other_settings_only_if_asked(tmp_path: Path):
    ticks: list[int] = []
    first = run_demo(demo(), tmp_path)
    again = run_demo(demo(), tmp_path, on_epoch=lambda: ticks.append(1))
    assert again.report.values == first.report.values
    assert not ticks
    before, shorter = snapshot(tmp_path), demo(**{"training.epochs": 1})
    with pytest.raises(InputError, match=r"nearest-seed0, nearest-seed1 are runs of another configuration"):
        run_demo(shorter, tmp_path)
    assert snapshot(tmp_path) == before
    run_demo(shorter, tmp_path, overwrite=True)
    assert len((tmp_path / "nearest-seed1" / "metrics.jsonl").read_text().splitlines()) == 2
    other = tmp_path / "other" / "report" / "cosines.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds cosines\.png, and not of an earlier report"):
        run_demo(demo(), tmp_path / "other")
    assert snapshot(tmp_path / "other") == {str(other): b"mine"}


def test_a_report_replaces_an_earlier_report_and_no_file_of_another_origin(finished: Path, tmp_path: Path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "nearest-seed0").symlink_to(finished)
    for _ in range(2):
        result = CliRunner().invoke(app, ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")])
        assert not result.exit_code, result.output
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.md").write_text("mine")
    said = refused("report", tmp_path / "runs", "--out", tmp_path / "mine")
    assert "holds report.md, and not of an earlier report; choose another folder with --out" in said
    assert f"it is a run itself; report the folder that holds it, {finished.parent}" in refused("report", finished)
    assert snapshot(tmp_path / "mine") == {str(tmp_path / "mine" / "report.md"): b"mine"}


def test_a_comparison_is_replaced_only_if_asked(tmp_path: Path):
    compare = ["compare", "--problem", "tight-3x4", "--solver", "procrustes", "--quick", "--out", str(tmp_path)]
    assert not CliRunner().invoke(app, compare).exit_code
    before = snapshot(tmp_path)
    said = refused(*compare)
    assert "holds an earlier comparison (compare.json, convergence.png, profiles.png)" in said
    assert "another folder with --out, or replace it with --overwrite" in said
    assert snapshot(tmp_path) == before
    assert not CliRunner().invoke(app, [*compare, "--overwrite"]).exit_code
    (tmp_path / "compare.json").write_text("[1]")
    assert "and not of an earlier comparison" in refused(*compare, "--overwrite")


@pytest.mark.parametrize("command", [["bench"], ["bench", "node"], ["bench", "head"]])
def test_a_benchmark_is_replaced_only_if_asked(tmp_path: Path, command: list[str]):
    (tmp_path / "bench.json").write_text('{"conditions": {}, "rows": []}')
    assert "holds an earlier benchmark (bench.json)" in refused(*command, "--out", tmp_path)
    (tmp_path / "bench.json").write_text('{"mine": 1}')
    assert "holds bench.json, and not of an earlier benchmark" in refused(*command, "--out", tmp_path, "--overwrite")
    assert snapshot(tmp_path) == {str(tmp_path / "bench.json"): b'{"mine": 1}'}


def test_a_solution_does_not_replace_its_problem(tmp_path: Path):
    problem, prox = tmp_path / "means.npz", tmp_path / "prox.npz"
    np.savez(problem, H=np.eye(4, 3)), np.savez(prox, P=np.eye(4, 3))
    before = snapshot(tmp_path)
    for out in (problem, prox):
        said = refused("solve", problem, "--prox", prox, "--delta", 1, "--out", out)
        assert "is a file that the problem is read from; choose another name with --out" in said
    assert "ends in .npz" in refused("solve", problem, "--out", tmp_path / "x.npy")
    assert "its folder is not there" in refused("solve", problem, "--out", tmp_path / "no" / "x.npz")
    assert snapshot(tmp_path) == before


def test_a_solution_replaces_an_earlier_solution_and_no_other_archive(tmp_path: Path):
    out = tmp_path / "nearest.npz"
    for _ in range(2):
        refuse_as_output(out, [])
        save_solution(nearest_etf(np.eye(4, 3)), out)
    np.savez(out, precious=np.ones(3))
    with pytest.raises(InputError, match="holds other data than a solution; choose another name with --out"):
        refuse_as_output(out, [])
    assert np.load(out)["precious"].tolist() == [1, 1, 1]
