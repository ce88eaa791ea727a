"""Training runs: fair between heads, and measured as they say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.networks.heads import build_head
from etfopt.experiments.settings import HEADS, DataConfig, HeadConfig
from etfopt.experiments.training._checkpoints import checkpoints
from etfopt.experiments.training.classifier import Classifier
from etfopt.experiments.training.results import load_run
from etfopt.experiments.training.train import _build, train
from etfopt.metrics import NeuralCollapse
from etfopt.nn import FixedETFHead
from tests.tools.runs import small

WIDE = {"backbone.width": 32, "backbone.dim": 16}  # features of full rank, whose NC1 is well determined


def test_digits_are_split_once_and_for_all_with_every_class_in_both(digits):
    train_y, test_y = digits.train.tensors[1], digits.test.tensors[1]
    assert (len(train_y), len(test_y)) == (1437, 360)
    assert set(train_y.tolist()) == set(test_y.tolist()) == set(range(10))
    assert torch.equal(load_images(DataConfig()).test.tensors[0], digits.test.tensors[0])


def test_every_head_starts_from_the_same_backbone(digits):
    first, *others = (_build(small(head__name=head, seed=3), digits).backbone.state_dict() for head in HEADS)
    assert all(torch.equal(value, state[name]) for state in others for name, value in first.items())
    assert not torch.equal(first["1.weight"], _build(small(seed=4), digits).backbone.state_dict()["1.weight"])


def test_a_run_leaves_the_global_generator_alone(digits, tmp_path: Path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    train(small(1), tmp_path, images=digits)
    assert torch.equal(torch.rand(3), expected)


@torch.no_grad()
def measured(model: Classifier, data) -> dict:
    """Loss, accuracy, NC1 and class means of a network on a split, in one go."""
    model.eval()
    x, y = data.tensors
    metric = NeuralCollapse(num_classes=10, dim=16)
    metric.update(model.head.normalize(model.backbone(x)), y, model.head.weight, model.head.bias)
    logits = model(x)
    return {
        "loss": float(torch.nn.functional.cross_entropy(logits, y)),
        "accuracy": float((logits.argmax(dim=1) == y).double().mean()),
        "nc1": float(metric.compute()["nc1"]),
        "means": metric.class_means().numpy(),
    }


@pytest.mark.parametrize("head", [*HEADS])
def test_the_record_says_what_the_network_does_before_and_after(digits, tmp_path: Path, head: str):
    result = train(small(head__name=head, **WIDE), tmp_path, images=digits)
    untrained, trained = _build(result.config, digits), _build(result.config, digits)
    checkpoint = torch.load(tmp_path / "checkpoints" / "epoch-0002.ckpt", weights_only=True)
    trained.load_state_dict(checkpoint["state_dict"])
    for model, epoch in ((untrained, 0), (trained, -1)):
        for split, data in (("train", digits.train), ("test", digits.test)):
            values = measured(model, data)
            for name, tolerance in (("loss", 1e-5), ("accuracy", 1e-12), ("nc1", 1e-5)):
                assert result.history[epoch][f"{split}_{name}"] == pytest.approx(values[name], rel=tolerance)
        means = measured(model, digits.train)["means"]
        np.testing.assert_allclose(result.class_means[epoch], means, rtol=0, atol=1e-5)
    assert [record["epoch"] for record in result.history] == [0, 1, 2]
    assert result.step_ms > 0.01
    assert json.loads((tmp_path / "config.json").read_text())["config"]["head"]["name"] == head


def test_the_head_is_the_one_configured():
    options = {"delta": 0.5, "averaging": 0.25, "implicit_gradient": False, "temperature": 6.0}
    config = small(**{f"head.{name}": value for name, value in options.items()}, head__statistics="paper")
    head = build_head(config.head, 20, 10, config.seed)
    assert {name: getattr(head.means if name == "averaging" else head, name) for name in options} == options
    assert head.dim == 20


@pytest.mark.parametrize("head", [*HEADS])
def test_a_run_that_diverges_says_when_and_keeps_what_was_finished(digits, tmp_path: Path, head: str):
    said = r"diverged at step \d+, in epoch \d.*Lower optimizer.learning_rate = 1e\+30"
    with pytest.raises(ConvergenceError, match=said):
        train(small(head__name=head, optimizer__learning_rate=1e30), tmp_path, images=digits)
    assert json.loads((tmp_path / "history.json").read_text())["epochs"][0]["epoch"] == 0
    assert not (tmp_path / "class_means.npy").exists()


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        *(({"threads": threads}, "threads") for threads in (0, -1, 1.5, 10**6)),
        *[({"accelerator": "abacus"}, "abacus"), ({"precision": "8"}, "8"), ({"devices": 0}, "devices")],
        ({"progress_bar": True}, "progress_bar is no argument; those of the machine: accelerator, devices, strategy"),
        ({"thread": 1}, "thread is no argument; did you mean 'threads'"),
    ],
)
def test_a_machine_that_is_not_there_is_refused_and_the_folder_left_alone(digits, tmp_path: Path, machine, message):
    with pytest.raises(InputError, match=message):
        train(small(), tmp_path / "run", images=digits, **machine)
    assert not (tmp_path / "run").exists()


def test_a_file_is_no_folder(digits, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot be used as a folder"):
        train(small(), tmp_path / "file", images=digits)


def test_training_learns(digits, tmp_path: Path):
    first, *_, last = train(small(4, **WIDE, training__batch_size=128), tmp_path, images=digits).history
    assert first["train_accuracy"] < 0.3
    assert last["train_accuracy"] > 0.95
    assert last["train_nc3"] < 0.5 * first["train_nc3"]


def test_a_random_rotation_is_drawn_from_the_seed():
    def made(seed: int, rotation: str = "random") -> FixedETFHead:
        return build_head(HeadConfig(name="fixed", rotation=rotation), 12, 10, seed)

    first, again, other = made(1), made(1), made(2)
    assert torch.equal(first.U, again.U)
    assert not torch.allclose(first.U, other.U, atol=0.1)
    torch.testing.assert_close(first.U.T @ first.U, torch.eye(9), atol=1e-6, rtol=0)
    cosines = first.weight @ first.weight.T
    torch.testing.assert_close(cosines, (10 * torch.eye(10) - 1) / 9, atol=1e-6, rtol=0)
    assert not torch.equal(made(1, "canonical").U, first.U)


def test_a_loss_that_is_no_number_names_epoch_step_batch_and_samples(tmp_path: Path):
    images, config = load_images(DataConfig()), small(4, training__batch_size=8)
    images.train.pixels, images.train.mean = images.train.tensors[0], None  # what is to be NaN must be a float

    def poison() -> None:
        if (tmp_path / "checkpoints" / "epoch-0001.ckpt").exists():
            images.train.pixels[17] = float("nan")

    said = r"diverged at step (\d+), in epoch 3, in batch (\d+) \(samples ([\d, ]+)\): .*Kept: .*checkpoint of epoch 2"
    with pytest.raises(ConvergenceError, match=said) as caught:
        train(config, tmp_path, images=images, on_epoch=poison)
    step, batch, samples = re.search(said, str(caught.value)).groups()
    assert "17" in samples.split(", ")
    assert len(samples.split(", ")) == 8
    assert int(step) == 2 * 180 + int(batch)  # 1437 samples in batches of 8
    assert list(checkpoints(tmp_path / "checkpoints")) == [2, 1]
    assert [record["epoch"] for record in load_run(tmp_path).history] == [0, 1, 2]
