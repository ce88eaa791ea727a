"""Backbone, data, head, loss and optimiser of one's own, by import path, from a folder outside the checkout."""

import json
import sys
from pathlib import Path

import pytest
import torch

from etfopt.errors import InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.networks.heads import build_head
from etfopt.experiments.settings import DataConfig, HeadConfig, TrainConfig
from etfopt.experiments.training.train import train
from tests.tools.terminal import run_forked

PARTS = '''
import numpy as np, torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, channels, dim, hidden=8):
        super().__init__(nn.Flatten(), nn.LazyLinear(hidden), nn.ReLU(), nn.Linear(hidden, dim))

def blobs(seed, classes=3, n=60):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    rows = np.eye(classes, 6)[labels] * 4 + rng.normal(size=(n, 6))
    return (rows[: n // 2], labels[: n // 2]), (rows[n // 2 :], labels[n // 2 :])

class Scaled(nn.Linear):
    """A head that is no head of ours: a linear layer with a factor."""
    def __init__(self, dim, num_classes, scale=1.0):
        super().__init__(dim, num_classes)
        self.scale = scale
    def forward(self, features):
        return super().forward(self.scale * features)

def nothing(dim, num_classes):
    return None

def hinge(logits, labels, margin=1.0):
    return nn.functional.multi_margin_loss(logits, labels, margin=margin)
'''

STUDY = """
title = "Own"
question = "Do they plug in?"
seeds = [0]
baselines = ["fixed"]
[base]
training.epochs = 2
backbone = {name = "mine.parts:Net", dim = 5, options = {hidden = 12}}
data = {name = "mine.parts:blobs", options = {n = 90}}
[[variants]]
name = "fixed"
head.name = "fixed"
[[variants]]
name = "own"
head = {name = "mine.parts:Scaled", options = {scale = 3.0}}
"""

OPTIONS = """
--data mine.parts:blobs --backbone mine.parts:Net --dim 5 --head mine.parts:Scaled --loss mine.parts:hinge
--optimizer torch.optim:RMSprop --learning-rate 0.01 --set backbone.options.hidden=16 --set head.options.scale=2
--set loss.options.margin=0.5 --epochs 12 --out run --quiet
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "parts.py").write_text(PARTS)
    return tmp_path


@pytest.fixture
def parts(folder: Path, monkeypatch) -> str:
    monkeypatch.syspath_prepend(str(folder))
    for name in ("mine", "mine.parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "mine.parts"


def etfopt_train(*arguments: str, cwd: Path) -> str:
    done = run_forked("train", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_trains_them_all_from_the_folder_that_they_lie_in(folder: Path):
    etfopt_train(*OPTIONS.split(), cwd=folder)
    written = json.loads((folder / "run" / "config.json").read_text())["config"]
    assert written["backbone"]["options"] == {"hidden": 16}
    history = json.loads((folder / "run" / "history.json").read_text())
    assert history["epochs"][-1]["test_accuracy"] > 0.8


def test_a_study_has_them_with_options_from_its_file(folder: Path):
    (folder / "own.toml").write_text(STUDY)
    assert "2 runs: 2 trained now" in etfopt_train("own.toml", "--quiet", cwd=folder)
    assert (folder / "runs" / "own" / "report" / "report.html").exists()


NET = {"backbone.name": "mine.parts:Net", "backbone.dim": 5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone.name": "mine.parts:Net"}, "needs backbone.dim"),
        ({**NET, "backbone.name": "mine.nets:Net"}, "there is no module mine.nets; install it"),
        ({**NET, "backbone.name": "mine.parts:Network"}, "has no attribute 'Network'"),
        ({**NET, "backbone.options.depth": 3}, "argument 'depth'; its arguments are to be given in backbone.options"),
        ({"backbone.options.depth": 3}, "backbone.options are for a backbone named by import path"),
        ({**NET, "backbone.name": "mine.parts:blobs"}, "missing a required argument: 'seed'"),
        ({"head.name": "mine.parts:nothing"}, "makes no torch.nn.Module, but a NoneType"),
        ({"head.name": "torch.nn:Bilinear", "head.options.out_features": 3}, "has no weight of shape"),
        ({"data.name": "mine.parts:Net"}, "missing a required argument|must return"),
        ({"head.options.speed": 3}, "unexpected keyword argument 'speed'"),
        ({"optimizer.name": "torch.optim:SGD", "optimizer.options.speed": 2}, "unexpected keyword argument 'speed'"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(parts: str, tmp_path: Path, settings, message: str):
    base = {"training.epochs": 1, "data.name": f"{parts}:blobs", "head.name": "learned"}
    with pytest.raises(InputError, match=message):
        train(TrainConfig().with_settings({**base, **settings}), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_arrays_tensors_and_data_sets_of_pairs_are_data(parts: str):
    """What they hold is what the batches hold, standardised by the training split."""
    images = load_images(DataConfig(name=f"{parts}:blobs"))
    x, y = images.train.tensors
    assert (images.num_classes, x.shape) == (3, (30, 6, 1, 1))
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(6, 1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(dim=0), torch.ones(6, 1, 1), atol=1e-5, rtol=0)
    assert y.tolist() == [i % 3 for i in range(30)]
    fewer = load_images(DataConfig(name=f"{parts}:blobs", subset=4, options={"classes": 2}))
    assert (len(fewer.train), fewer.num_classes) == (8, 2)


def test_any_linear_layer_stands_for_a_head():
    head = build_head(HeadConfig(name="torch.nn:Linear", options={"bias": False}), 5, 3, seed=0)
    features = torch.randn(4, 5)
    torch.testing.assert_close(head(features, torch.zeros(4)), features @ head.weight.T + head.bias)
    assert torch.equal(head.normalize(features), features)


def test_a_frame_is_chosen_by_name_and_leaves_older_digests_as_they_are():
    """The reduced simplex needs one dimension less, and spans the same ETF."""
    config = TrainConfig().with_settings({"backbone.dim": 9, "head.frame": "reduced"})
    assert build_head(config.head, 9, 10, seed=0).frame.shape == (9, 10)
    assert config.digest() != TrainConfig().with_settings({"backbone.dim": 10}).digest()
    assert "frame" not in TrainConfig().to_dict()["head"]
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", ["fixed", "nearest"])
def test_a_frame_of_more_classes_than_dimensions_is_asked_for_by_name(name):
    config = TrainConfig().with_settings({"backbone.dim": 6, "head.frame": "best", "head.name": name})
    head = build_head(config.head, 6, 10, seed=0)
    assert head.frame.shape == (6, 10)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_class_weights_are_a_setting_of_the_nearest_head():
    config = TrainConfig().with_settings({"head.class_weights": "counts"})
    assert build_head(config.head, 12, 10, seed=0).class_weights == "counts"
    assert "class_weights" not in TrainConfig().to_dict()["head"]
    assert TrainConfig.from_dict(config.to_dict()) == config
