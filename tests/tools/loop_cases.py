"""What the tests of training loops share: images, a network with a head, and the plain loop."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead

HEADS = (LearnedHead, FixedETFHead, NearestETFHead)
STATEFUL = (FixedETFHead, NearestETFHead)
C, D, WIDTH = 4, 6, 12
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def images(n: int = 257) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes that a small network separates; the last batch of 32 holds a single image."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randperm(n, generator=generator) % C
    return torch.randn(n, WIDTH, generator=generator) + 5 * torch.eye(C, WIDTH)[y], y


def batches(epochs: int = 3, size: int = 32, n: int = 257) -> Batches:
    x, y = images(n)
    return list(zip(x.split(size), y.split(size), strict=True)) * epochs


def network(make: Callable[..., nn.Module], norm: bool = False, **options: object) -> nn.Sequential:
    """Return a backbone and a head, the same for the same arguments."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        middle = nn.BatchNorm1d(32) if norm else nn.Identity()
        backbone = nn.Sequential(nn.Linear(WIDTH, 32), middle, nn.Tanh(), nn.Linear(32, D))
        return nn.Sequential(backbone, make(D, C, **options))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def accuracy(model: nn.Module) -> float:
    x, y = images()
    with torch.no_grad():
        return float((model.eval()(x).argmax(dim=1) == y).float().mean())


def trained(model: nn.Sequential, data: Batches, after: Callable[[], object] = lambda: None) -> nn.Sequential:
    """Train by the plain loop, the reference of every other."""
    optimizer = sgd(model)
    for x, y in data:
        optimizer.zero_grad()
        cross_entropy(model[1](model[0](x), y), y).backward()
        optimizer.step()
        after()
    return model


def refit(model: nn.Sequential, data: Batches) -> None:
    """Set the statistics of the head anew, by the network as it is."""
    head = model[1].train()
    if not list(head.parameters()):
        head.reset_parameters()
    with torch.no_grad():
        for x, y in data:
            head(model[0](x), y)
