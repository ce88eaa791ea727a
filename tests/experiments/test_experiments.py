"""Training runs: fair between heads, repeatable, and measured as they say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from etfopt.errors import ConvergenceError, InputError
from etfopt.experiments.data import batches, load_images
from etfopt.experiments.networks.heads import build_head
from etfopt.experiments.settings import HEADS, DataConfig, TrainConfig
from etfopt.experiments.studies._numbers import Spread, quantities
from etfopt.experiments.training.classifier import Classifier
from etfopt.experiments.training.train import RunResult, _build, train
from etfopt.metrics import NeuralCollapse
from etfopt.plotting import cosines


@pytest.fixture(scope="module")
def images():
    return load_images(DataConfig())


names = {
    **{key: f"training.{key}" for key in ("epochs", "batch_size")},
    **{key: f"optimizer.{key}" for key in ("learning_rate", "momentum", "weight_decay")},
    **{key: f"head.{key}" for key in ("delta", "averaging", "implicit_gradient", "temperature")},
    **{"data": "data.name", "head": "head.name", "dim": "backbone.dim"},
}


def short(**settings) -> TrainConfig:
    named = {names.get(key, key): value for key, value in settings.items()}
    base = {"training.epochs": 2, "backbone.width": 32, "backbone.dim": 16}
    return TrainConfig().with_settings({**base, **named})


def test_digits_are_split_once_and_for_all_with_every_class_in_both(images) -> None:
    train_y, test_y = images.train.tensors[1], images.test.tensors[1]
    assert (len(train_y), len(test_y)) == (1437, 360)
    assert set(train_y.tolist()) == set(test_y.tolist()) == set(range(10))
    again = load_images(DataConfig())
    assert torch.equal(again.test.tensors[0], images.test.tensors[0])


def test_every_head_starts_from_the_same_backbone(images) -> None:
    states = [_build(short(head=head, seed=3), images).backbone.state_dict() for head in HEADS]
    for state in states[1:]:
        for name, value in states[0].items():
            assert torch.equal(value, state[name])
    other = _build(short(seed=4), images).backbone.state_dict()
    assert not torch.equal(states[0]["1.weight"], other["1.weight"])


def test_every_head_sees_the_same_batches_whatever_the_global_generator_does(images) -> None:
    orders = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        loader = batches(images.train, 100, seed=5)
        epochs = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            epochs.append([labels for _, labels in loader])
        orders.append(epochs)
    for first, second in zip(*orders, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(orders[0][0][0], orders[0][1][0])
    assert sum(len(labels) for labels in orders[0][0]) == len(images.train)


def test_every_head_trains_on_the_same_batches(images, tmp_path: Path, monkeypatch) -> None:
    seen: dict[str, list[torch.Tensor]] = {head: [] for head in HEADS}
    step = Classifier.training_step

    def watched(self, batch, batch_idx):
        seen[self.config.head.name].append(batch[0].clone())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", watched)
    for head in HEADS:
        train(short(head=head), tmp_path / head, images=images)
    for head in HEADS:
        assert len(seen[head]) == 2 * 12
        assert all(torch.equal(a, b) for a, b in zip(seen[head], seen["learned"], strict=True))


def test_a_run_leaves_the_global_generator_alone(images, tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    train(short(epochs=1), tmp_path, images=images)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("size", [2, 3, 4, 100, 1436, 1437, 5000])
def test_no_sample_is_left_alone_or_out(images, size: int) -> None:
    loader = batches(images.train, size, seed=0)
    lengths = [len(labels) for _, labels in loader]
    assert sum(lengths) == 1437
    assert min(lengths) > 1
    assert max(lengths) <= size + 1
    assert len(loader) == len(lengths)


@pytest.mark.parametrize("head", [*HEADS])
def test_a_run_repeats_to_the_bit(images, tmp_path: Path, head: str) -> None:
    first, second = (train(short(head=head), tmp_path / name, images=images) for name in "ab")
    assert first.history == second.history
    np.testing.assert_array_equal(first.class_means, second.class_means)


@torch.no_grad()
def measured(model: Classifier, data) -> dict[str, float]:
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
def test_the_record_says_what_the_network_does_before_and_after(images, tmp_path: Path, head: str) -> None:
    result = train(short(head=head), tmp_path, images=images)
    untrained, trained = _build(result.config, images), _build(result.config, images)
    checkpoint = torch.load(tmp_path / "checkpoints" / "epoch-0002.ckpt", weights_only=True)
    trained.load_state_dict(checkpoint["state_dict"])
    for model, record, means in (
        (untrained, result.history[0], result.class_means[0]),
        (trained, result.history[-1], result.class_means[-1]),
    ):
        for split, data in (("train", images.train), ("test", images.test)):
            values = measured(model, data)
            assert record[f"{split}_loss"] == pytest.approx(values["loss"], rel=1e-5)
            assert record[f"{split}_accuracy"] == pytest.approx(values["accuracy"], abs=1e-12)
            assert record[f"{split}_nc1"] == pytest.approx(values["nc1"], rel=1e-5)
        np.testing.assert_allclose(means, measured(model, images.train)["means"], rtol=0, atol=1e-5)
    assert [record["epoch"] for record in result.history] == [0, 1, 2]
    assert result.step_ms > 0.01
    assert json.loads((tmp_path / "config.json").read_text())["config"]["head"]["name"] == head


def test_the_optimiser_is_the_one_configured(images) -> None:
    config = short(learning_rate=0.3, momentum=0.5, weight_decay=0.01, epochs=4)
    made = _build(config, images).configure_optimizers()
    optimiser, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    group = optimiser.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.5, 0.01)
    rates = []
    for _ in range(4):
        optimiser.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    np.testing.assert_allclose(rates, 0.15 * (1 + np.cos(np.pi * np.arange(1, 5) / 4)), atol=1e-15)


def test_the_head_is_the_one_configured() -> None:
    config = short(delta=0.5, averaging=0.25, implicit_gradient=False, temperature=3.0, dim=20)
    head = build_head(config.head, config.backbone.feature_dim, 10, config.seed)
    assert (head.delta, head.means.averaging, head.implicit_gradient) == (0.5, 0.25, False)
    assert (head.temperature, head.dim) == (3.0, 20)


@pytest.mark.parametrize("head", [*HEADS])
def test_a_run_that_diverges_says_when_and_keeps_what_was_finished(images, tmp_path: Path, head: str) -> None:
    with pytest.raises(
        ConvergenceError, match=r"diverged at step \d+, in epoch \d.*Lower optimizer.learning_rate = 1e\+30"
    ):
        train(short(head=head, learning_rate=1e30), tmp_path, images=images)
    assert json.loads((tmp_path / "history.json").read_text())["epochs"][0]["epoch"] == 0
    assert not (tmp_path / "class_means.npy").exists()


def test_a_run_that_replaces_another_leaves_nothing_of_it(images, tmp_path: Path) -> None:
    train(short(), tmp_path, images=images)
    with pytest.raises(ConvergenceError):
        train(short(head="fixed", learning_rate=1e30), tmp_path, images=images, overwrite=True)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["head"]["name"] == "fixed"
    assert not (tmp_path / "class_means.npy").exists()
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("name", ["config.json", "class_means.npy"])
def test_files_of_others_are_never_removed(images, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"mine": true}')
    with pytest.raises(InputError, match=rf"holds {name}, and not of an earlier run; choose another folder"):
        train(short(), tmp_path, images=images)
    assert (tmp_path / name).read_text() == '{"mine": true}'
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("threads", [0, -1, 1.5, 10**6])
def test_a_refused_number_of_threads_leaves_the_folder_alone(images, tmp_path: Path, threads) -> None:
    with pytest.raises(InputError, match="threads"):
        train(short(), tmp_path / "run", images=images, threads=threads)
    assert not (tmp_path / "run").exists()


def test_a_file_is_no_folder(images, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot be used as a folder"):
        train(short(), tmp_path / "file", images=images)


def test_training_learns(images, tmp_path: Path) -> None:
    result = train(short(epochs=4), tmp_path, images=images)
    assert result.history[0]["train_accuracy"] < 0.3
    assert result.history[-1]["train_accuracy"] > 0.95
    assert result.history[-1]["train_nc3"] < 0.5 * result.history[0]["train_nc3"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"data": "cats"}, "data.name = 'cats' is not known; choose one of: digits"),
        ({"head": "last"}, "choose one of: fixed, learned, nearest"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed must be at most"),
        ({"batch_size": 1}, "batch_size must be an integer of at least 2"),
        ({"learning_rate": 1e300}, "learning_rate must be at most"),
        ({"head": "fixed", "delta": -1.0}, "delta"),
        ({"head": "learned", "averaging": "median"}, "averaging"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"dim": 8}, "dim = 8 is smaller than the r = 10 rows"),
        ({"temperature": -5}, "temperature"),
        ({"temperature": 1e30}, "temperature must be at most"),
        ({"delta": -1e-3}, "delta"),
        ({"averaging": 2.0}, "averaging"),
    ],
)
def test_bad_settings_are_refused_when_they_are_made(setting: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig().with_settings({names.get(key, key): value for key, value in setting.items()})


def fake(seed: int, accuracies: list[float]) -> RunResult:
    keys = ("cosine_margin", "nc1", "nc2", "nc3", "equinorm_difference")
    history = [
        {"epoch": e, "train_accuracy": a, "test_accuracy": a / 2, **{f"train_{k}": a + seed for k in keys}}
        for e, a in enumerate(accuracies)
    ]
    return RunResult(
        TrainConfig(seed=seed),
        history,
        np.zeros((len(history), 16, 10)),
        1.0 + seed,
        2e6,
        Path(),
    )


def test_the_spread_takes_medians_and_counts_never_as_infinite() -> None:
    runs = [fake(0, [0.1, 0.995, 1.0]), fake(1, [0.1, 0.2, 0.99]), fake(2, [0.1, 0.2, 0.3])]
    rows = [quantities(run, (0, 2)) for run in runs]
    spreads = {key: Spread.of([row[key] for row in rows]) for key in rows[0]}
    assert spreads["epochs_to_99"] == Spread(2, 1, float("inf"))
    assert spreads["epochs_to_100"] == Spread(float("inf"), 2, float("inf"))
    assert spreads["test_accuracy_second"] == Spread(0.495, 0.15, 0.5)
    assert spreads["nc1"].median == pytest.approx(1.99)
    assert spreads["step_ms"] == Spread(2.0, 1.0, 3.0)


def test_cosines_of_a_simplex_are_its_own_and_a_zero_column_has_none() -> None:
    H = np.eye(4) - 0.25
    np.testing.assert_allclose(cosines(H)[~np.eye(4, dtype=bool)], -1 / 3)
    H[:, 2] = 0
    assert not cosines(H)[2].any()
