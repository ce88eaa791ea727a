"""Classes that come in sessions: their data, what heads do, what is trained and measured, and exact resumption."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from etfopt.errors import InputError
from etfopt.experiments.data import Images
from etfopt.experiments.data.sessions import sessions_of
from etfopt.experiments.networks.growth import grow
from etfopt.experiments.networks.nearest_mean import NearestMeanHead
from etfopt.experiments.settings import HeadConfig, TrainConfig
from etfopt.experiments.training._checkpoints import load
from etfopt.experiments.training._sessions import freeze, session_accuracies
from etfopt.experiments.training.train import train
from etfopt.nn.heads import FixedETFHead, Head, LearnedHead, NearestETFHead
from tests.tools.runs import Stopped, small, stop_after

NEAREST_MEAN = "etfopt.experiments.networks.nearest_mean:NearestMeanHead"
THREE = {"sessions__count": 2, "sessions__classes": 3, "sessions__images": 6, "sessions__epochs": 2}


def in_sessions(epochs: int = 2, **settings: object) -> TrainConfig:
    return small(epochs, **{**THREE, **settings})


# --- data ----------------------------------------------------------------------------------------------------------


def test_a_session_has_the_images_of_its_classes_and_the_buffer_of_older_ones(digits: Images):
    sessions = sessions_of(digits, in_sessions(sessions__buffer=2))
    assert [(s.old, s.classes, s.start, s.end, s.epochs) for s in sessions] == [
        (0, 4, 0, 2, 2),
        (4, 7, 2, 4, 2),
        (7, 10, 4, 6, 2),
    ]
    for session in sessions:
        train, test = session.splits()
        wanted = [2] * session.old + [6] * 3 if session.number else sorted(torch.bincount(train.labels).tolist())
        assert sorted(torch.bincount(train.labels).tolist()) == sorted(wanted)
        assert set(test.labels.tolist()) == set(range(session.classes))
    # what a class is rehearsed with is part of what it came with
    came, later = (set(s.train[s.images.train.labels[s.train] < 4].tolist()) for s in sessions[:2])
    assert later < came
    first, last = (set(s.train[s.images.train.labels[s.train] == 5].tolist()) for s in sessions[1:])
    assert last < first


def test_classes_are_numbered_as_they_come_and_images_keep_their_class(digits: Images):
    seen = {}
    for seed in (0, 1):
        session = sessions_of(digits, in_sessions(seed=seed))[-1]
        pairs = {(int(a), int(b)) for a, b in zip(digits.train.labels, session.images.train.labels, strict=True)}
        tested = {(int(a), int(b)) for a, b in zip(digits.test.labels, session.images.test.labels, strict=True)}
        assert len(pairs) == 10
        assert pairs == tested
        seen[seed] = pairs
    assert seen[0] != seen[1]
    given = sessions_of(digits, in_sessions(sessions__order="given"))[0]
    assert torch.equal(given.images.train.labels, digits.train.labels)
    part, whole = given.splits()[0], digits.train
    assert torch.equal(part[0:3][0], whole[given.train[:3].tolist()][0])  # standardised alike


def test_a_run_without_sessions_has_one_with_the_data_as_they_are(digits: Images):
    (only,) = sessions_of(digits, small())
    assert only.splits()[0].pixels is digits.train.pixels
    assert (only.start, only.end, only.ends) == (0, 2, (10,))
    assert "sessions" not in small().to_dict()
    config = in_sessions(head__growth="held")
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert config.epochs == 6
    assert config.digest() != small().digest()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sessions.classes": 2}, "sessions.count too"),
        ({"head.growth": "held"}, "sessions.count too"),
        ({"sessions.count": 3, "sessions.classes": 3}, "leave 1 of C = 10"),
        ({"sessions.count": 1, "schedule.warmup": 1}, "warm-up"),
        ({"sessions.count": 1, "head.statistics": "paper"}, "statistics"),
        ({"sessions.count": 1, "data.label_noise": 0.1}, "label noise"),
        ({"sessions.count": 1, "head.name": "learned", "head.growth": "held"}, "heads with a frame"),
        ({"sessions.count": 1, "head.name": "fixed", "head.growth": "random"}, "the nearest head"),
        ({"sessions.count": 1, "head.growth": "held", "head.growth_weight": 0.5}, "head.growth_weight"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict, said: str):
    with pytest.raises(InputError, match=said):
        TrainConfig().with_settings(settings)


def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path: Path, digits: Images):
    with pytest.raises(InputError, match=r"sessions\.images = 1000"):
        train(in_sessions(sessions__images=1000), tmp_path / "run", images=digits)
    with pytest.raises(InputError, match="one device"):
        train(in_sessions(), tmp_path / "run", images=digits, devices=2)
    assert not (tmp_path / "run").exists()


# --- heads ---------------------------------------------------------------------------------------------------------


def trained(head: Head, seed: int = 0) -> Head:
    """A head that has seen some batches of all its classes."""
    torch.manual_seed(seed)
    means = torch.randn(head.num_classes, head.dim)
    for _ in range(3):
        labels = torch.arange(head.num_classes).repeat(4)
        head(means[labels] + 0.1 * torch.randn(len(labels), head.dim), labels)
    return head


@pytest.mark.parametrize("kind", [NearestETFHead, FixedETFHead])
def test_held_classes_keep_their_rows(kind: type[Head]):
    head = trained(kind(16, 4, capacity=10))
    before = head.weight
    grow(head, 3, HeadConfig(growth="held"), 0)
    trained(head, 1)
    assert torch.equal(head.weight[:4], before)


def test_random_vertices_leave_the_old_ones_at_their_best_places_and_no_vertex_moves_after():
    places = []
    for seed in (0, 1):
        head = trained(NearestETFHead(16, 5))
        before = head.weight
        grow(head, 3, HeadConfig(growth="random"), seed)
        best = math.sqrt(4 * 8 / (5 * 7))  # sqrt((K1 - 1) K2/(K1 (K2 - 1)))
        assert (before * head.weight[:5]).sum(dim=1).mean() == pytest.approx(best, abs=1e-5)
        gram = head.weight @ head.weight.mT
        assert torch.allclose(gram, (8 * torch.eye(8) - 1) / 7, atol=1e-5)
        places.append(head.weight)
        assert torch.equal(trained(head, 3).weight, places[-1])
        grow(head, 2, HeadConfig(growth="random"), seed)  # and again
        assert head.num_classes == 10
    assert torch.allclose(places[0][:5], places[1][:5], atol=1e-5)
    assert not torch.allclose(places[0][5:], places[1][5:], atol=0.1)


def test_a_small_growth_weight_lets_the_old_classes_decide():
    stayed, reached = {}, {}
    for weight in (1e-4, 0.999):
        head = trained(NearestETFHead(16, 5))
        before = head.weight
        grow(head, 3, HeadConfig(growth_weight=weight), 0)
        torch.manual_seed(7)
        means, labels = functional.normalize(torch.randn(3, 16)), torch.arange(3).repeat(4)
        for _ in range(3):
            head(means[labels], labels + 5)
        stayed[weight] = float((before * head.weight[:5]).sum(dim=1).mean())
        reached[weight] = float((means * head.weight[5:]).sum(dim=1).mean())
    assert stayed[1e-4] > stayed[0.999] + 0.01
    assert reached[1e-4] < reached[0.999] - 0.01


def test_new_rows_of_a_learned_head_depend_on_the_seed_alone():
    heads = [LearnedHead(8, 3) for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    for head in heads:
        torch.rand(3)
        state = torch.get_rng_state()
        grow(head, 2, HeadConfig(name="learned"), 4)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(heads[0].rows, heads[1].rows)


@pytest.mark.parametrize("kind", ["plain", "fixed"])
def test_heads_that_cannot_grow_so_say_so(kind: str, tmp_path: Path, digits: Images):
    if kind == "fixed":
        with pytest.raises(InputError, match="random"):
            grow(FixedETFHead(8, 3), 1, HeadConfig(growth="random"), 0)
    else:
        with pytest.raises(InputError, match="cannot take new classes"):
            train(in_sessions(head__name="torch.nn:Linear", sessions__epochs=1), tmp_path / "run", images=digits)


def test_the_nearest_mean_head_classifies_by_the_nearest_running_mean():
    head = trained(NearestMeanHead(6, 4))
    grow(head, 2, HeadConfig(name=NEAREST_MEAN), 0)
    trained(head, 5).eval()
    x = torch.randn(200, 6)
    unit = head.normalize(x) / head.temperature
    assert torch.equal(head(x).argmax(dim=1), torch.cdist(unit, head.means.mean.mT).argmin(dim=1))
    assert torch.allclose(head(x), head.linear()(head.normalize(x)), atol=1e-5)


# --- what is trained and measured ----------------------------------------------------------------------------------


def test_what_is_frozen():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    freeze(net, "fine-tuned")
    assert all(p.requires_grad for p in net.parameters())
    assert net[1].training
    freeze(net, "last-layer")
    assert [p.requires_grad for p in net.parameters()] == [False] * 4 + [True] * 2
    assert not net[1].training
    freeze(net, "frozen")
    assert not any(p.requires_grad for p in net.parameters())
    with pytest.raises(InputError, match="no linear layer"):
        freeze(nn.Sequential(nn.ReLU()), "last-layer")


def test_accuracies_of_sessions_by_hand(digits: Images):
    middle = sessions_of(digits, in_sessions())[1]
    right, counts = torch.tensor([4, 4, 2, 2, 1, 0, 0]), torch.full((7,), 4)
    found = session_accuracies(middle, right, counts)
    assert found["accuracy_old"] == found["accuracy_session_0"] == 12 / 16
    assert found["accuracy_new"] == found["accuracy_session_1"] == 1 / 12
    assert math.isnan(found["accuracy_session_2"])


RULES = {  # and the epoch after which the run is stopped: the end of a session, or amid one
    "held": (2, {"head__growth": "held", "sessions__backbone": "last-layer", "sessions__buffer": 2}),
    "random": (3, {"head__growth": "random", "sessions__backbone": "frozen"}),
    "weighted": (4, {"head__growth_weight": 1e-3, "sessions__backbone": "fine-tuned"}),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_run_that_is_stopped_ends_as_one_that_is_not(rule: str, tmp_path: Path, digits: Images):
    stop, settings = RULES[rule]
    config = in_sessions(**settings, sessions__learning_rate=0.02)
    path, whole = tmp_path / "stopped", train(config, tmp_path / "whole", images=digits)
    with pytest.raises(Stopped):
        train(config, path, images=digits, on_epoch=stop_after(stop))
    assert train(config, path, images=digits, resume=True).trained == 6 - stop
    wanted, found = (load(p / "checkpoints" / "epoch-0006.ckpt") for p in (tmp_path / "whole", path))
    assert found["state_dict"].keys() == wanted["state_dict"].keys()
    assert all(torch.equal(found["state_dict"][k], x) for k, x in wanted["state_dict"].items())
    assert str(found["optimizer_states"]) == str(wanted["optimizer_states"])
    means = [(p / "class_means_by_epoch.npy").read_bytes() for p in (path, tmp_path / "whole")]
    assert means[0] == means[1]
    _check_records(whole.history)
    if rule == "random":
        first = load(path / "checkpoints" / "epoch-0005.ckpt")["state_dict"]
        below = [k for k in wanted["state_dict"] if k.startswith("backbone.")]
        assert all(torch.equal(first[k], wanted["state_dict"][k]) for k in below)


def _check_records(history: list[dict[str, float]]) -> None:
    for record in history:
        number = 0 if record["epoch"] <= 2 else math.ceil(record["epoch"] / 2) - 1
        parts = [record[f"test_accuracy_session_{j}"] for j in range(3)]
        assert [math.isnan(x) for x in parts] == [j > number for j in range(3)]
        assert record["test_accuracy_new"] == parts[number]
        assert 0 <= record["test_accuracy"] <= 1
        assert min(parts[: number + 1]) - 1e-12 <= record["test_accuracy"] <= max(parts[: number + 1]) + 1e-12
    last = history[-1]
    assert min(last["test_accuracy_old"], last["test_accuracy_new"]) <= last["test_accuracy"]
