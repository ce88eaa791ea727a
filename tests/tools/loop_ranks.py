"""Loops of two processes, and of one, whose head takes its labels from a block."""

import functools

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from etfopt import InputError
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead

HEADS = {"learned": LearnedHead, "fixed": FixedETFHead, "nearest": NearestETFHead}
C, D, WIDTH = 4, 6, 5


def network(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, D), HEADS[name](D, C)).double()


def trained(model: nn.Module, head: nn.Module, rank: int, size: int) -> dict[str, torch.Tensor]:
    """Train for six steps, on the share of a rank; return the state, whole."""
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 16, WIDTH, generator=draw, dtype=torch.float64), torch.arange(16) % C
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for images in x[:, rank::size]:
        labels = y[rank::size]
        with head.labels(labels):
            loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value.clone()
        for name, value in model.state_dict().items()
    }


def by_ddp(name: str, rank: int, size: int) -> dict[str, torch.Tensor]:
    model = network(name)
    wrapped = DistributedDataParallel(model) if size > 1 else model
    state = trained(wrapped, model[-1], rank, size)
    return {key.removeprefix("module."): value for key, value in state.items()}


def by_fsdp(name: str, rank: int, size: int) -> dict[str, torch.Tensor] | str:
    """Return the state, or what the head refuses."""
    model = network(name)
    if size > 1:
        for part in (model[0], model[2], model):
            fully_shard(part)
    try:
        return trained(model, model[-1], rank, size)
    except InputError as error:
        return str(error)


def by_fsdp_of_the_backbone(name: str, rank: int, size: int) -> dict[str, torch.Tensor]:
    backbone, head = (model := network(name))[:-1], model[-1]
    if size > 1:
        fully_shard(backbone)
        if name == "learned":
            wrapped = DistributedDataParallel(head)
            return trained(nn.Sequential(backbone, wrapped), head, rank, size)
    return trained(nn.Sequential(backbone, head), head, rank, size)


WAYS = {"DDP": by_ddp, "FSDP2": by_fsdp, "FSDP2 of the backbone": by_fsdp_of_the_backbone}
CASES = {f"{way}, {name}": functools.partial(run, name) for way, run in WAYS.items() for name in HEADS}
