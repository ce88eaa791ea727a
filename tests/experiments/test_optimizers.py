"""Optimisers and schedules: AGD against a reference, decay where it belongs, rates as announced."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from etfopt.errors import InputError
from etfopt.experiments.networks.optimizers import AGD, build_optimizer, build_schedule, orthogonal_
from etfopt.experiments.settings import OptimizerConfig, ScheduleConfig


def reference_step(weights: list[np.ndarray], gradients: list[np.ndarray], gain: float) -> list[np.ndarray]:
    """Algorithm 1 of Bernstein et al. (2023); a convolution is one matrix for each place in its kernel."""
    moved, L, summary, steps = [weight.copy() for weight in weights], len(weights), 0.0, []
    for new, gradient in zip(moved, gradients, strict=True):
        out, inside, *kernel = new.shape
        scale = math.sqrt(out / inside / math.prod(kernel))
        for place in np.ndindex(*kernel):
            at = (slice(None), slice(None), *place)
            norm = math.sqrt((gradient[at] ** 2).sum())
            summary += norm * scale / L
            if norm > 0:
                steps.append((new[at], scale / L * gradient[at] / norm))
    eta = math.log((1 + math.sqrt(1 + 4 * summary)) / 2)
    for matrix, step in steps:
        matrix[:] = matrix - gain * eta * step  # a view of the weight
    return moved


@pytest.mark.parametrize("gain", [1.0, 10.0])
def test_agd_is_the_algorithm_of_the_paper(rng: np.random.Generator, gain: float):
    shapes = [(6, 4), (3, 6), (5, 2, 3, 3), (4, 4, 1, 1)]
    weights = [rng.standard_normal(shape) for shape in shapes]
    parameters = [nn.Parameter(torch.tensor(weight)) for weight in weights]
    optimizer = AGD(parameters, gain=gain)
    for scale in (1.0, 1e-3, 1e3):
        gradients = [scale * rng.standard_normal(shape) for shape in shapes]
        gradients[2][:, :, 1, 2] = 0  # a matrix without a gradient stays
        weights = reference_step(weights, gradients, gain)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
        for parameter, weight in zip(parameters, weights, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-12, atol=1e-14)


def test_agd_leaves_out_what_has_no_gradient_and_returns_the_closures_loss():
    used, unused = nn.Parameter(torch.eye(3)), nn.Parameter(torch.eye(2))
    optimizer = AGD([used, unused])
    assert optimizer.step() is None

    def closure() -> float:
        optimizer.zero_grad()
        loss = (used**2).sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 3.0
    assert torch.equal(unused, torch.eye(2))
    G = 2 * math.sqrt(3)  # one weight that has a gradient
    eta = math.log((1 + math.sqrt(1 + 4 * G)) / 2)
    torch.testing.assert_close(used.detach(), torch.eye(3) * (1 - eta / math.sqrt(3)))


def test_agd_spreads_nan_instead_of_hiding_it():
    parameters = [nn.Parameter(torch.eye(2)), nn.Parameter(torch.eye(3))]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    parameters[0].grad[0, 0] = torch.nan
    AGD(parameters).step()
    assert all(parameter.isnan().all() for parameter in parameters)


def test_agd_is_built_with_its_gain_and_comes_back_from_its_state():
    first, second = (build_optimizer(nn.Linear(3, 2, bias=False), OptimizerConfig(name="agd", gain=g)) for g in (3, 1))
    assert type(first) is AGD
    second.load_state_dict(first.state_dict())
    assert first.param_groups[0]["gain"] == second.param_groups[0]["gain"] == 3.0


@pytest.mark.parametrize("module", [nn.Linear(3, 2), nn.BatchNorm1d(3)])
def test_agd_refuses_vectors_and_a_bad_gain(module: nn.Module):
    with pytest.raises(InputError, match=r"a parameter has shape \(\d,\): build the network without biases"):
        AGD(module.parameters())
    for gain in (0, -1, math.inf, "much"):
        with pytest.raises(InputError, match="gain must be"):
            AGD([nn.Parameter(torch.eye(2))], gain=gain)


def test_agd_trains_without_a_learning_rate():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 32, bias=False), nn.ReLU(), nn.Linear(32, 3, bias=False))
    orthogonal_(network)
    x = torch.randn(60, 4)
    y = (x @ torch.randn(4, 3)).argmax(dim=1)
    optimizer = AGD(network.parameters(), gain=1.0)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_weights_start_semi_orthogonal_with_their_singular_values():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 10, bias=False), nn.Conv2d(8, 4, (3, 2), bias=False), nn.BatchNorm2d(4))
    orthogonal_(network)
    tall, kernel = network[0].weight.detach(), network[1].weight.detach()
    torch.testing.assert_close(tall.T @ tall, 10 / 6 * torch.eye(6))
    for y in range(3):
        for x in range(2):
            matrix = kernel[:, :, y, x]
            torch.testing.assert_close(matrix @ matrix.T, 4 / 8 / 6 * torch.eye(4))
    assert torch.equal(network[2].weight, torch.ones(4))
    assert not torch.allclose(kernel[:, :, 0, 0], kernel[:, :, 0, 1])


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.LayerNorm(3))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_the_optimisers_of_torch_get_their_settings(kind: type):
    name = kind.__name__.lower()
    settings = {"momentum": 0.7, "nesterov": name == "sgd", "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.01}
    optimizer = build_optimizer(network(), OptimizerConfig(name=name, learning_rate=0.3, **settings))
    (group,) = optimizer.param_groups
    assert type(optimizer) is kind
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.3, 0.01, 8)
    wanted = {"momentum": 0.7, "nesterov": True} if name == "sgd" else {"betas": (0.8, 0.95)}
    assert {key: group[key] for key in wanted} == wanted


def test_biases_and_normalisation_can_be_spared_the_decay():
    module = network()
    frozen = module[3].weight.requires_grad_(False)
    decayed, spared = build_optimizer(module, OptimizerConfig(weight_decay=0.1, decay="matrices")).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 1, 3, 3)]
    assert len(spared["params"]) == 6
    assert all(p is not frozen for group in (decayed, spared) for p in group["params"])
    plain = nn.Linear(3, 2, bias=False)
    assert len(build_optimizer(plain, OptimizerConfig(decay="matrices")).param_groups) == 1


def cosine(n: int) -> np.ndarray:
    return 1 + np.cos(np.pi * np.arange(n) / n)


@pytest.mark.parametrize(
    ("settings", "epochs", "epoch_steps", "expected"),
    [
        ({"name": "constant"}, 3, 1, [2] * 3),
        ({}, 5, 1, cosine(5)),
        ({"name": "step", "milestones": (2, 4), "decay": 0.5}, 6, 1, [2, 2, 1, 1, 0.5, 0.5]),
        # a warm-up rises linearly, and the rest follows
        ({"name": "constant", "warmup": 3}, 5, 1, [0.5, 1, 1.5, 2, 2]),
        ({"name": "cosine", "warmup": 2}, 6, 1, [2 / 3, 4 / 3, *cosine(4)]),
        ({"name": "step", "warmup": 1, "milestones": (3,)}, 5, 1, [1, 2, 2, 0.2, 0.2]),
        # rates that change after every batch
        ({"name": "cosine", "warmup": 0.5, "interval": "step"}, 3, 4, [2 / 3, 4 / 3, *cosine(10)]),
        ({"name": "step", "milestones": (0.5,), "interval": "step"}, 2, 4, [2, 2, *[0.2] * 6]),
    ],
)
def test_rates_are_as_announced(settings, epochs: int, epoch_steps: int, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_schedule(optimizer, ScheduleConfig(**settings), epochs, epoch_steps)
    found = []
    for _ in range(epochs * epoch_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule:
            schedule.step()
    np.testing.assert_allclose(found, expected, atol=1e-14)
