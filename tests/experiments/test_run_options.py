"""Every option reaches the run: losses, optimisers, schedules, data, backbones, and what diverges says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.data import EpochBatches, load_images
from etfopt.experiments.data.augment import augmented
from etfopt.experiments.networks.optimizers import AGD
from etfopt.experiments.settings import HEADS, DataConfig
from etfopt.experiments.training import classifier
from etfopt.experiments.training.classifier import Classifier
from etfopt.experiments.training.train import train
from tests.tools import runs

small = partial(runs.small, data__subset=8, training__batch_size=32)  # three batches an epoch
ADAMW = {"optimizer.name": "adamw", "optimizer.learning_rate": 0.01}


@pytest.fixture(scope="module")
def images():
    return load_images(DataConfig(subset=8))


@contextmanager
def watching(method: str, watch: Callable) -> Iterator[None]:
    """Call a function with the classifier, and what it is given, before one of its methods."""
    inner = getattr(Classifier, method)
    with mock.patch.object(Classifier, method, lambda self, *args: [watch(self, *args), inner(self, *args)][1]):
        yield


@pytest.mark.parametrize("head", [*HEADS])
@pytest.mark.parametrize(
    "settings",
    [
        {"loss.name": "dot-regression", "head.temperature": 1},
        {"optimizer.name": "agd", "schedule.name": "constant"},
        {**ADAMW, "schedule.warmup": 0.5, "schedule.interval": "step"},
        {"data.augmentation": "affine-crop", "data.batches": "stratified", "backbone.name": "convnet"},
    ],
)
def test_every_option_trains_every_head_and_repeats_to_the_bit(images, tmp_path: Path, head: str, settings):
    config = small(**{"head.name": head, **settings})
    first, again = (train(config, tmp_path / name, images=images) for name in "ab")
    assert first.history == again.history
    np.testing.assert_array_equal(first.class_means, again.class_means)
    assert first.history[-1]["train_cosine_margin"] > first.history[0]["train_cosine_margin"]


def test_the_unconstrained_features_model_collapses(tmp_path: Path):
    data = {"data.name": "ufm", "data.classes": 4, "data.samples": 5, "data.subset": None, "backbone.dim": 6}
    steps = {"training.batch_size": 20, "optimizer.learning_rate": 1, "schedule.warmup": 2}
    first, *_, last = train(runs.small(30, **data, **steps, backbone__width=None), tmp_path).history
    assert last["train_accuracy"] == 1
    assert last["train_nc1"] < 0.1 * first["train_nc1"]
    assert last["train_nc3"] < 0.1 * first["train_nc3"]
    assert last["test_nc1"] == last["train_nc1"]


def test_dot_regression_at_a_temperature_above_one_warns_and_at_one_does_not(images, tmp_path: Path):
    """Warnings are errors here, so the second run has none."""
    said = r"head\.temperature = 5 with dot-regression: .*cone.*use head\.temperature = 1"
    with pytest.warns(UserWarning, match=said):
        train(small(1, loss__name="dot-regression", head__temperature=5.0), tmp_path / "cone", images=images)
    train(small(1, loss__name="dot-regression"), tmp_path / "row", images=images)


def test_every_head_sees_the_same_augmented_batches(images, tmp_path: Path, monkeypatch):
    keys, seen = [], []

    def watched(batch, kind, *key):
        keys.append(key)
        seen.append(augmented(batch, kind, *key))
        return seen[-1]

    monkeypatch.setattr(classifier, "augmented", watched)
    for head in HEADS:
        train(small(head__name=head, data__augmentation="affine-crop", seed=9), tmp_path / head, images=images)
    assert keys == [(9, epoch, batch, 0) for _ in HEADS for epoch in range(2) for batch in range(3)]
    assert all(torch.equal(batch, seen[i % 6]) for i, batch in enumerate(seen))


@pytest.mark.parametrize("kind", ["shuffled", "stratified"])
def test_a_run_takes_the_batches_of_its_seed_and_epoch(images, tmp_path: Path, kind: str):
    seen, expected = [], []
    with watching("training_step", lambda _, batch, __: seen.append(batch[1].clone())):
        train(small(seed=3, data__batches=kind), tmp_path, images=images)
    sampler = EpochBatches(images.train.labels, 32, 3, kind)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        expected += [images.train.labels[batch] for batch in sampler]
    assert len(seen) == len(expected) == 6
    assert all(map(torch.equal, seen, expected))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"schedule.warmup": 0.5, "schedule.interval": "step"},
            [1 / 3, 2 / 3, 1, 0.8535533905932737, 0.5, 0.146446609],
        ),
        ({"schedule.name": "step", "schedule.milestones": "1"}, [1, 1, 1, 0.1, 0.1, 0.1]),
        ({"schedule.name": "constant"}, [1] * 6),
    ],
)
def test_a_run_follows_its_schedule(images, tmp_path: Path, settings, expected: list[float]):
    rates = []
    with watching("training_step", lambda self, *_: rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])):
        train(small(**{"optimizer.learning_rate": 1, **settings}), tmp_path, images=images)
    assert rates == pytest.approx(expected)


def test_a_module_of_ones_own_is_trained(images, tmp_path: Path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    before = module[1].weight.detach().clone()
    result = train(small(backbone__name="custom"), tmp_path, images=images, backbone=module)
    assert result.history[-1]["train_accuracy"] > 0.3
    assert not torch.equal(before, module[1].weight)


def test_a_module_that_does_not_fit_is_refused_before_the_folder_is_touched(images, tmp_path: Path):
    with pytest.raises(InputError, match=r"features of 2 images are \(2, 64\)"):
        train(small(backbone__name="custom"), tmp_path / "run", images=images, backbone=nn.Flatten())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("head", [*HEADS])
def test_agd_starts_from_orthogonal_weights_under_every_head(images, tmp_path: Path, head: str):
    def watch(self, *_: object) -> None:
        assert type(self.trainer.optimizers[0]) is AGD
        weight = self.backbone[1].weight.detach()  # 16 x 64
        torch.testing.assert_close(weight @ weight.T, 16 / 64 * torch.eye(16))
        for rows in self.head.parameters():
            torch.testing.assert_close(rows.detach() @ rows.detach().T, torch.eye(10))
        seen.append(self)

    seen: list[Classifier] = []
    agd = {"optimizer.name": "agd", "schedule.name": "constant", "training.batch_size": 80}  # one step
    with watching("training_step", watch):
        train(runs.small(1, head__name=head, **agd), tmp_path, images=images)
    assert len(seen) == 1


def test_a_run_with_agd_that_diverges_names_its_gain(images, tmp_path: Path):
    class Broken(nn.Linear):
        """Has no features in training."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(1)) / (0 if self.training else 1)

    config = small(backbone__name="custom", optimizer__name="agd", schedule__name="constant")
    said = r"at step 1, in epoch 1.*Lower optimizer.gain = 10 or head.temperature = auto"
    with pytest.raises(ConvergenceError, match=said):
        train(config, tmp_path, images=images, backbone=Broken(64, 12, bias=False))


def test_data_of_a_folder_need_as_many_dimensions_as_classes(tmp_path: Path):
    for c in range(12):
        (tmp_path / "images" / f"c{c:02d}").mkdir(parents=True)
        for i in range(2):
            Image.new("L", (4, 4), 20 * c + i).save(tmp_path / "images" / f"c{c:02d}" / f"{i}.png")
    config = runs.small(data__name=f"imagefolder:{tmp_path / 'images'}", backbone__dim=10)
    with pytest.raises(InputError, match=r"dim = 10 is smaller than the r = 11 rows"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
