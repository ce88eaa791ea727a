"""Training a study: every run once, whatever happens in between."""

import json
import os
import signal
from pathlib import Path
from unittest import mock

import pytest
from typer.testing import CliRunner

from etfopt.cli import app
from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.studies import runs as study_runs
from etfopt.experiments.studies._progress import State, load_study, progress
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.studies.plan_file import parse_study
from etfopt.experiments.studies.runs import Outcome, run_study
from etfopt.experiments.training._recorder import COST, MARGINS
from etfopt.experiments.training._records import locked, read_lines
from etfopt.files import StorageError
from tests.tools.runs import SMALL

FILE = """
title = "Two heads"
question = "Which?"
seeds = [0, 1]
base = {training.epochs = 1, training.batch_size = 256, backbone = {width = 16, dim = 12}}
[[variants]]
name = "nearest"
[[variants]]
name = "fixed"
head.name = "fixed"
"""
NEAREST, FIXED = ({"name": name, "head.name": name} for name in ("nearest", "fixed"))


def study(*variants: dict, seeds: tuple = (0, 1), **base: object) -> Study:
    given = {"title": "Two", "question": "Which?", "seeds": list(seeds), "variants": list(variants or (FIXED, NEAREST))}
    return parse_study({**given, "base": {**SMALL, "training.epochs": 2, **base}}, "two")


def states(folder: Path, which: Study) -> list[State]:
    return [p.state for p in progress(folder, which.runs())]


def test_a_study_is_trained_once_and_what_is_missing_goes_on(tmp_path: Path, monkeypatch):
    epochs, plan = [], study()
    ended = run_study(plan, tmp_path, on_epoch=lambda: epochs.append(1))
    assert [outcome.run.folder for outcome in ended] == ["fixed-seed0", "nearest-seed0", "fixed-seed1", "nearest-seed1"]
    assert not any(outcome.error for outcome in ended)
    assert len(epochs) == 8
    assert states(tmp_path, plan) == [State.FINISHED] * 4
    assert load_study(tmp_path) == plan
    margins = (tmp_path / "nearest-seed1" / MARGINS).read_bytes()
    history = read_lines(tmp_path / "nearest-seed1" / "metrics.jsonl")
    # as a run is left that was killed in its second epoch, and one that was never started
    for name in ("history.json", "class_means.npy", MARGINS, "checkpoints/epoch-0002.ckpt"):
        (tmp_path / "nearest-seed1" / name).unlink()
    (tmp_path / "fixed-seed0").rename(tmp_path / "away")
    assert states(tmp_path, plan) == [State.NEW, State.FINISHED, State.FINISHED, State.STARTED]
    trained = []
    real = study_runs.train
    monkeypatch.setattr(study_runs, "train", lambda c, path, **o: trained.append(path.name) or real(c, path, **o))
    epochs.clear()
    run_study(plan, tmp_path, on_epoch=lambda: epochs.append(1))
    assert trained == ["fixed-seed0", "nearest-seed1"]
    assert len(epochs) == 3
    assert states(tmp_path, plan) == [State.FINISHED] * 4
    assert (tmp_path / "nearest-seed1" / MARGINS).read_bytes() == margins
    again, free = read_lines(tmp_path / "nearest-seed1" / "metrics.jsonl"), dict.fromkeys(COST, 0)
    assert [{**a, **free} for a in again] == [{**b, **free} for b in history]


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(tmp_path: Path):
    plan = study(FIXED, {**NEAREST, "optimizer.learning_rate": 1e30})
    ended = run_study(plan, tmp_path)
    assert [type(outcome.error) for outcome in ended] == [type(None), ConvergenceError] * 2
    assert "diverged at step" in str(ended[1].error)
    assert states(tmp_path, plan) == [State.FINISHED, State.DIVERGED] * 2
    assert run_study(plan, tmp_path) == []


def test_folders_of_another_configuration_are_refused_by_name(tmp_path: Path):
    new = study(**{"training.epochs": 1, "optimizer.momentum": 0.5})
    run_study(study(FIXED, seeds=(1,)), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"fixed-seed1 is a run of another configuration than the study's"):
        run_study(new, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "fixed-seed0").mkdir()
    (tmp_path / "fixed-seed0" / "class_means.npy").touch()
    with pytest.raises(InputError, match=r"fixed-seed0, fixed-seed1 are runs of another"):
        progress(tmp_path, new.runs())


def test_a_run_that_another_process_holds_is_left_out_and_said(tmp_path: Path):
    plan = study(FIXED)
    (tmp_path / "fixed-seed0").mkdir()
    with locked(tmp_path / "fixed-seed0"):
        held, free = run_study(plan, tmp_path)
    assert "another process is at work" in str(held.error)
    assert free.error is None


def test_a_full_disk_ends_the_study(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(study_runs, "train", mock.Mock(side_effect=StorageError("No space left on device")))
    with pytest.raises(StorageError, match="No space left"):
        run_study(study(), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "jobs must be an integer of at least 1"),
        ({"jobs": 10**6}, "jobs = 1000000 is more than the"),
        ({"jobs": 2, "threads": 2}, "jobs = 2 goes with one thread"),
    ],
)
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor")
def test_impossible_jobs_are_refused(tmp_path: Path, options: dict[str, int], message: str):
    with pytest.raises(InputError, match=message):
        run_study(study(), tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_data_that_cannot_be_read_end_the_study_before_it_starts(tmp_path: Path):
    plan = study(**{"data.name": f"imagefolder:{tmp_path}/nowhere"})
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        run_study(plan, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor")
def test_two_at_a_time_stopped_and_taken_up_again_give_what_one_gives(tmp_path: Path):
    short, long, third = ({**FIXED, "name": name} for name in ("short", "long", "third"))
    plan = study(short, {**long, "training.epochs": 60}, {**third, "head.name": "learned"}, seeds=(0,))
    folder, ended, epochs = tmp_path / "two", [], []

    def stop(outcome: Outcome) -> None:
        ended.append(outcome)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run_study(plan, folder, jobs=2, on_run=stop, on_epoch=lambda: epochs.append(1))
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert [(outcome.run.variant, outcome.error) for outcome in ended] == [("short", None)]
    assert len(epochs) >= 2
    first, second, third = progress(folder, plan.runs())
    assert first.state is State.FINISHED
    assert second.epochs < 60
    assert third.state is State.NEW  # a run that waited is not taken up
    (folder / "long-seed0").mkdir(exist_ok=True)
    with locked(folder / "long-seed0"):  # nobody is at work on it any more
        pass
    for name in ("one", "two"):
        assert not any(outcome.error for outcome in run_study(plan, tmp_path / name))
    for run in plan.runs():
        one, two = (tmp_path / name / run.folder / MARGINS for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def call(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_the_command_lists_trains_and_skips(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("two.toml").write_text(FILE)
    listed = call("two.toml", "--dry-run")
    assert listed.exit_code == 0, listed.output
    assert listed.stdout.count(" new ") == 4
    assert not Path("runs").exists()
    done = call("two.toml", "--quiet", "--out", "here")
    assert done.exit_code == 0, done.output
    assert "4 runs: 4 trained now, 0 finished before, 0 failed. Written to here/two/" in done.stdout
    assert "4 runs, 0 not finished, 0 diverged. Wrote here/two/report/report.md" in done.stdout
    assert json.loads(Path("here/two/study.json").read_text())["study"]["title"] == "Two heads"
    assert not done.stderr
    done = call("two.toml", "--out", "here")
    assert "0 trained now, 4 finished before" in done.stdout
    assert "1 of 1" in call("two.toml", "--dry-run", "--out", "here").stdout


def test_the_command_ends_with_status_1_after_a_divergence_however_often(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = FILE.replace("seeds = [0, 1]", "seeds = [0]")
    Path("two.toml").write_text(text + "optimizer.learning_rate = 1e30")
    for counts in ("1 trained now, 0 finished before, 1 failed", "0 trained now, 1 finished before, 1 failed"):
        done = call("two.toml")
        assert done.exit_code == 1, done.output
        assert counts in done.stdout
        assert "fixed-seed0: " in done.stderr
        assert "diverged at step" in done.stderr


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_stop_says_how_to_go_on(tmp_path: Path, monkeypatch, stop: BaseException, status: int):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_runs, "train", mock.Mock(side_effect=stop))
    Path("two.toml").write_text(FILE)
    result = call("two.toml")
    assert result.exit_code == status
    assert "To go on: the same command" in result.stderr


def test_options_that_a_study_does_not_take_are_refused(tmp_path: Path):
    for arguments, message in (
        (("two.toml", "--head", "fixed"), "--head has no meaning with a study: the settings are those of two.toml"),
        (("--jobs", 2), "--jobs has no meaning without a study"),
        (("--dry-run",), "--dry-run has no meaning without a study"),
    ):
        result = call(*arguments, "--out", tmp_path / "runs")
        assert isinstance(result.exception, InputError)
        assert message in str(result.exception)
    assert not (tmp_path / "runs").exists()
