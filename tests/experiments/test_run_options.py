"""Every option reaches the run: losses, optimisers, schedules, data, backbones, and what diverges says so."""

from pathlib import Path

import pytest
import torch
from torch import nn

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.data import EpochBatches, load_images
from etfopt.experiments.data.augment import augmented
from etfopt.experiments.networks.optimizers import AGD
from etfopt.experiments.settings import HEADS, DataConfig, TrainConfig
from etfopt.experiments.training import classifier
from etfopt.experiments.training.classifier import Classifier
from etfopt.experiments.training.train import train

SMALL = {"data.subset": 8, "backbone.width": 12, "backbone.dim": 11, "training.epochs": 2, "training.batch_size": 32}


def small(**settings) -> TrainConfig:
    return TrainConfig().with_settings({**SMALL, **{key.replace("__", "."): value for key, value in settings.items()}})


@pytest.fixture(scope="module")
def images():
    return load_images(DataConfig(subset=8))


@pytest.mark.parametrize("head", [*HEADS])
@pytest.mark.parametrize(
    "settings",
    [
        {"loss.name": "dot-regression", "head.temperature": 1},
        {"optimizer.name": "agd", "schedule.name": "constant"},
        {
            "optimizer.name": "adamw",
            "optimizer.learning_rate": 0.01,
            "schedule.warmup": 0.5,
            "schedule.interval": "step",
        },
        {"data.augmentation": "affine-crop", "data.batches": "stratified", "backbone.name": "convnet"},
    ],
)
def test_every_option_trains_every_head_and_repeats(images, tmp_path: Path, head: str, settings) -> None:
    config = small(**{"head.name": head, **settings})
    first, again = (train(config, tmp_path / name, images=images) for name in "ab")
    assert first.history == again.history
    assert first.history[-1]["train_cosine_margin"] > first.history[0]["train_cosine_margin"]


def test_the_unconstrained_features_model_collapses(tmp_path: Path) -> None:
    config = TrainConfig().with_settings(
        {
            **{"data.name": "ufm", "data.classes": 4, "data.samples": 5, "backbone.name": "free", "backbone.dim": 6},
            **{"training.batch_size": 20, "training.epochs": 30, "optimizer.learning_rate": 1, "schedule.warmup": 2},
        }
    )
    first, *_, last = train(config, tmp_path).history
    assert last["train_accuracy"] == 1
    assert last["train_nc1"] < 0.1 * first["train_nc1"]
    assert last["train_nc3"] < 0.1 * first["train_nc3"]
    assert last["test_nc1"] == last["train_nc1"]


def test_dot_regression_at_a_temperature_above_one_warns_and_at_one_does_not(images, tmp_path: Path) -> None:
    """Warnings are errors here, so the second run has none."""
    config = small(loss__name="dot-regression", head__temperature=5.0, training__epochs=1)
    with pytest.warns(
        UserWarning, match=r"head\.temperature = 5 with dot-regression: .*cone.*use head\.temperature = 1"
    ):
        train(config, tmp_path / "cone", images=images)
    train(small(loss__name="dot-regression", training__epochs=1), tmp_path / "row", images=images)


def test_every_head_sees_the_same_augmented_batches(images, tmp_path: Path, monkeypatch) -> None:
    seen: dict[str, list[torch.Tensor]] = {head: [] for head in HEADS}
    keys = []

    def watched(batch, kind, *key):
        keys.append(key)
        seen[head].append(augmented(batch, kind, *key))
        return seen[head][-1]

    monkeypatch.setattr(classifier, "augmented", watched)
    for head in HEADS:
        train(small(head__name=head, data__augmentation="affine-crop", seed=9), tmp_path / head, images=images)
    assert keys == [(9, epoch, batch, 0) for _ in HEADS for epoch in range(2) for batch in range(3)]
    for head in HEADS:
        assert all(torch.equal(a, b) for a, b in zip(seen[head], seen["learned"], strict=True))


@pytest.mark.parametrize("kind", ["shuffled", "stratified"])
def test_a_run_takes_the_batches_of_its_seed_and_epoch(images, tmp_path: Path, monkeypatch, kind: str) -> None:
    seen = []
    step = Classifier.training_step

    def watched(self, batch, batch_idx):
        seen.append(batch[1].clone())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", watched)
    train(small(seed=3, data__batches=kind), tmp_path, images=images)
    sampler = EpochBatches(images.train.labels, 32, 3, kind)
    expected = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        expected += [images.train.labels[batch] for batch in sampler]
    assert len(seen) == len(expected) == 6
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


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
def test_a_run_follows_its_schedule(images, tmp_path: Path, monkeypatch, settings, expected: list[float]) -> None:
    rates = []
    step = Classifier.training_step

    def watched(self, batch, batch_idx):
        rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", watched)
    train(small(**{"optimizer.learning_rate": 1, **settings}), tmp_path, images=images)
    assert rates == pytest.approx(expected)


def test_a_module_of_ones_own_is_trained(images, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 11))
    before = module[1].weight.detach().clone()
    result = train(small(backbone__name="custom"), tmp_path, images=images, backbone=module)
    assert result.history[-1]["train_accuracy"] > 0.3
    assert not torch.equal(before, module[1].weight)


def test_a_module_that_does_not_fit_is_refused_before_the_folder_is_touched(images, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"features of 2 images are \(2, 64\)"):
        train(small(backbone__name="custom"), tmp_path / "run", images=images, backbone=nn.Flatten())


def test_agd_starts_from_orthogonal_weights_under_every_head(images, monkeypatch, tmp_path: Path) -> None:
    found = {}
    configure = Classifier.configure_optimizers

    def watched(self):
        weight = self.backbone[1].weight.detach()  # 12 x 64
        found[self.config.head.name] = weight @ weight.T
        if self.config.head.name == "learned":
            rows = self.head.rows.detach()
            found["rows"] = rows @ rows.T
        made = configure(self)
        assert type(made) is AGD
        return made

    monkeypatch.setattr(Classifier, "configure_optimizers", watched)
    for name in HEADS:
        config = small(head__name=name, optimizer__name="agd", schedule__name="constant", training__epochs=1)
        train(config, tmp_path / name, images=images)
        torch.testing.assert_close(found[name], 12 / 64 * torch.eye(12))
    torch.testing.assert_close(found["rows"], torch.eye(10))


class Broken(nn.Linear):
    """Has no features in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(1)) / (0 if self.training else 1)


def test_a_run_with_agd_that_diverges_names_its_gain(images, tmp_path: Path) -> None:
    config = small(backbone__name="custom", optimizer__name="agd", schedule__name="constant")
    with pytest.raises(
        ConvergenceError, match=r"at step 1, in epoch 1.*Lower optimizer.gain = 10 or head.temperature = 5"
    ):
        train(config, tmp_path, images=images, backbone=Broken(64, 11, bias=False))


def test_data_of_a_folder_need_as_many_dimensions_as_classes(tmp_path: Path) -> None:
    from PIL import Image

    for c in range(12):
        (tmp_path / "images" / f"c{c:02d}").mkdir(parents=True)
        for i in range(2):
            Image.new("L", (4, 4), 20 * c + i).save(tmp_path / "images" / f"c{c:02d}" / f"{i}.png")
    config = small(data__name=f"imagefolder:{tmp_path / 'images'}", data__subset=None)
    with pytest.raises(InputError, match=r"dim = 11 is smaller than the r = 12 rows"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
