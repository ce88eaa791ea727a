"""A run that is continued to more epochs is the run that was planned so, or it is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.training._checkpoints import load
from etfopt.experiments.training.results import load_run
from etfopt.experiments.training.train import resume, train
from tests.tools.runs import Stopped, small, stop_after

STEPS = {
    "schedule__name": "step",
    "schedule__milestones": [1],
    "schedule__interval": "step",
    "schedule__warmup": 0.5,
}


def killed() -> None:
    raise Stopped


def test_a_prolonged_run_is_the_run_that_was_planned_so_even_if_it_is_killed_at_once(tmp_path: Path, digits) -> None:
    long, short = tmp_path / "long", tmp_path / "short"
    whole = train(small(3, **STEPS), long, images=digits)
    train(small(2, **STEPS), short, images=digits)
    with pytest.raises(Stopped):
        resume(short, epochs=3, images=digits, on_epoch=killed)
    result = resume(short, images=digits)
    assert (result.trained, result.history) == (1, whole.history)
    np.testing.assert_array_equal(result.class_means, whole.class_means)
    for file in ("config.json", "class_means.npy", "margins.npz"):
        assert (short / file).read_bytes() == (long / file).read_bytes()
    found, expected = (load(path / "checkpoints" / "epoch-0003.ckpt") for path in (short, long))
    assert all(torch.equal(found["state_dict"][key], value) for key, value in expected["state_dict"].items())
    assert found["lr_schedulers"] == expected["lr_schedulers"]
    starts = json.loads((short / "environment.json").read_text())["starts"]
    assert [(start["epoch"], start["epochs"]) for start in starts] == [(0, 2), (2, 3), (2, 3)]


def test_an_unfinished_run_takes_another_number_of_epochs_too(tmp_path: Path, digits) -> None:
    config = small(9, schedule__name="constant")
    with pytest.raises(Stopped):
        train(config, tmp_path, images=digits, on_epoch=stop_after(1))
    for epochs in (1, 0):
        with pytest.raises(InputError, match="pass a number above 1" if epochs else "at least 1"):
            resume(tmp_path, epochs=epochs, images=digits)
    assert load_run(tmp_path).config == config
    assert resume(tmp_path, epochs=2, images=digits).finished
    assert load_run(tmp_path).config == config.prolonged(2)


def test_a_schedule_that_ends_with_the_run_is_refused_and_nothing_changes(tmp_path: Path, digits) -> None:
    train(small(1), tmp_path, images=digits)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"training.epochs = 2: .* 'cosine' falls .*; train anew with .*'step'"):
        resume(tmp_path, epochs=2, images=digits)
    assert resume(tmp_path, epochs=1, images=digits).trained == 0
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_runs_of_one_course_differ_in_their_epochs_alone() -> None:
    constant = TrainConfig().with_settings({"schedule.name": "constant", "training.epochs": 10})
    assert constant.course() == constant.prolonged(20).course() != constant.prolonged(20).digest()
    assert constant.course() != constant.with_settings({"seed": 1}).course()
    assert TrainConfig().course() == TrainConfig().digest()
    with pytest.raises(InputError, match="the schedule still changes at epoch 5"):
        constant.with_settings({"schedule.name": "step", "schedule.milestones": [5]}).prolonged(5)
