"""What two processes do together, and one alone: each case returns values that test_ranks.py compares."""

import contextlib
import copy
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from etfopt import InputError
from etfopt.nn import FixedETFHead, NearestETFHead
from etfopt.nn.functional import nearest_etf
from tests.tools.blind import blind
from tests.tools.head_cases import MEANS, STATEFUL, class_means, paper_fixed, paper_means

C, D, WIDTH, STEPS = 4, 6, 5, 3
# class 3 lives on the second rank only, and is absent from the last batch
LABELS = [[0, 1, 2, 0, 3, 3, 1, 0], [0, 0, 1, 2, 2, 1, 3, 0], [0, 1, 1, 2, 0, 1, 2, 2]]


class Network(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh(), nn.Linear(7, D))
        self.head = head

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.head(self.backbone(x), labels)


def held_nearest(dim: int, num_classes: int) -> NearestETFHead:
    """A head with places for later, and two classes whose vertices stay."""
    head = NearestETFHead(dim, num_classes, capacity=num_classes + 2)
    head.hold([0, 2])
    return head


def network(head: Callable[..., nn.Module] = NearestETFHead, **options) -> Network:
    model = Network(head(D, C, **options)).double()
    rng = np.random.default_rng(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.tensor(rng.standard_normal(tuple(parameter.shape))) / 2)
    return model


def batches(labels: list[list[int]] | None = None) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(8)
    return [
        (torch.tensor(rng.standard_normal((len(y), WIDTH)) + 0.3), torch.tensor(y, dtype=torch.int64))
        for y in (LABELS if labels is None else labels)
    ]


def share(x: torch.Tensor, rank: int, size: int, cut: int | None = None) -> torch.Tensor:
    """The part of a batch that a rank holds; with `cut`, the first rank holds so many."""
    cut = len(x) // 2 if cut is None else cut
    return x if size == 1 else (x[:cut], x[cut:])[rank]


def state(model: nn.Module) -> dict:
    return {name: value.clone() for name, value in model.state_dict().items()}


def reduce(leaves: Iterable[torch.Tensor], size: int, mean: bool = True) -> None:
    """Add the gradients of all ranks, or take their mean, as a wrapper would."""
    for leaf in leaves if size > 1 else ():
        dist.all_reduce(leaf.grad)
        leaf.grad /= size if mean else 1


def told(f: Callable[[], object]) -> str:
    """What a call is refused with."""
    try:
        f()
    except InputError as error:
        return str(error)
    return "nothing"


def train(rank: int, size: int, *, wrap: str = "ddp", cut: int | None = None, weigh: bool = False, **options) -> dict:
    """Take three steps of gradient descent; return the gradients of each and the state of the head at the end."""
    plain = network(**options)
    model: nn.Module = plain
    if size > 1 and wrap.startswith("ddp"):
        with warnings.catch_warnings():  # newer versions call the option forward_sync_buffers, and say so
            warnings.simplefilter("ignore", FutureWarning)
            model = DistributedDataParallel(plain, **({} if wrap == "ddp" else {"broadcast_buffers": False}))
    if size > 1 and wrap == "fsdp":
        fully_shard(plain.backbone[0])
        model = fully_shard(plain)
    gradients, values = [], []
    for whole, y in batches():
        x, labels = share(whole, rank, size, cut), share(y, rank, size, cut)
        loss = cross_entropy(model(x, labels), labels, reduction="sum")
        # the mean over this rank's samples, or its share in the mean over all
        loss = loss * size / len(y) if weigh or size == 1 else loss / len(labels)
        loss.backward()
        if size > 1 and wrap == "manual":
            reduce(plain.parameters(), size)
        grads = [parameter.grad for parameter in plain.parameters()]
        gradients.append([g.full_tensor() if hasattr(g, "full_tensor") else g.clone() for g in grads])
        values.append(state(plain.head))
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter.sub_(0.3 * parameter.grad)
                parameter.grad = None
    return {"gradients": gradients, "states": values}


def mean_of_means(rank: int, size: int, **options) -> dict:
    """Unequal parts with plain means: the gradient of the mean of the ranks' losses."""
    if size > 1:
        return train(rank, size, cut=3, **options)
    plain = network(**options)
    gradients = []
    for x, y in batches():
        logits = plain(x, y)
        loss = (cross_entropy(logits[:3], y[:3]) + cross_entropy(logits[3:], y[3:])) / 2
        gradients.append([g.clone() for g in torch.autograd.grad(loss, list(plain.parameters()))])
        with torch.no_grad():
            for parameter, g in zip(plain.parameters(), gradients[-1], strict=True):
                parameter.sub_(0.3 * g)
    return {"gradients": gradients, "states": [state(plain.head)]}


def accumulated(rank: int, size: int, **options) -> dict:
    """All batches before one optimiser step, without synchronising the gradients until the last."""
    plain = network(frame="reduced", **options)
    model = plain if size == 1 else DistributedDataParallel(plain)
    for i, (whole, y) in enumerate(batches()):
        quiet = contextlib.nullcontext() if size == 1 or i == 2 else model.no_sync()
        with quiet:
            x, labels = share(whole, rank, size), share(y, rank, size)
            cross_entropy(model(x, labels), labels).backward()
    return {"gradients": [[p.grad for p in plain.parameters()]], "states": [state(plain.head)]}


def several_forwards(rank: int, size: int, **options) -> dict:
    """Two forwards before one backward; the buffers move in between."""
    plain = network(frame="reduced", implicit_gradient=True, **options)
    losses = [
        cross_entropy(plain(share(x, rank, size), share(y, rank, size)), share(y, rank, size)) for x, y in batches()
    ]
    torch.stack(losses).sum().backward()
    reduce(plain.parameters(), size)
    return {"gradients": [[p.grad for p in plain.parameters()]], "states": [state(plain.head)]}


def ignored(rank: int, size: int, **options) -> dict:
    """Every label of the first rank is the ignored one, of some batches."""
    labels = [[-100] * 4 + [0, 1, 2, 3], [0, 1, -100, 2, -100, -100, 3, 1], [0, 1, 2, 3, 0, 1, 2, 3]]
    plain = network(**options)
    for x, y in batches(labels):
        loss = cross_entropy(plain(share(x, rank, size), share(y, rank, size)), share(y, rank, size), reduction="sum")
        (loss / (y != -100).sum()).backward()
    reduce(plain.parameters(), size, mean=False)
    return {"gradients": [[p.grad for p in plain.parameters()]], "states": [state(plain.head)]}


def without_gradient(rank: int, size: int) -> dict:
    """One rank's features carry no gradient: it must still take its part in the other's backward pass."""
    head = NearestETFHead(D, C).double()
    x, y = torch.tensor(np.random.default_rng(3).standard_normal((8, D))), torch.tensor(LABELS[0])
    leaf = x.clone().requires_grad_()
    used = torch.cat([leaf[:4], x[4:]]) if size == 1 else share(x, rank, size)
    if size > 1 and rank == 0:
        used = leaf[:4]
    cross_entropy(head(used, share(y, rank, size)), share(y, rank, size), reduction="sum").backward()
    return {"gradients": [[leaf.grad if rank == 0 else None]], "states": [state(head)]}


def any_split(rank: int, size: int, make: Callable[..., nn.Module] = class_means) -> dict:
    """Many small batches, cut and ordered at random, so that a rank may hold none, one class, or ignored labels."""
    rng, means, gradients = np.random.default_rng(11), make(D, C).double(), []
    for n in range(1, 25):
        y = torch.tensor(rng.choice([*range(C), -100], n))
        y[0] = n % C  # some sample counts
        leaf = torch.tensor(rng.standard_normal((n, D)), requires_grad=True)
        order, cut = torch.tensor(rng.permutation(n)), int(rng.integers(0, n + 1))
        order = order if size == 1 else (order[:cut], order[cut:])[rank]
        (means(leaf[order], y[order]) * torch.arange(1.0, D * C + 1).reshape(D, C)).sum().backward()
        reduce([leaf], size)  # every rank pulls back its own copy of the same value: their mean is the gradient of one
        gradients.append([leaf.grad])
    return {"gradients": gradients, "states": [state(means)]}


def refused(rank: int, _size: int) -> dict:
    """A batch that only the second rank refuses, of every kind: the message and the state on each rank."""
    found = {}
    good, y = torch.linspace(-1, 2, 4 * D).reshape(4, D).cos(), torch.tensor([0, 1, 2, 3])
    bad = {
        "NaN": (good * torch.nan, y),
        "label": (good, y + 1),
        "shape": (good[:, :2], y),
        "labels' shape": (good, y[:2]),
        "no labels": (good, None),
        "integers": (good.long(), y),
    }
    for make in (*STATEFUL, *MEANS):
        module = make(D, C)
        module(good + rank, y)
        before = state(module)
        for name, batch in bad.items():
            if name == "no labels" and isinstance(module, FixedETFHead):
                continue
            said = told(partial(module, *(batch if rank else (good, y))))
            same = all(torch.equal(value, before[key]) for key, value in state(module).items())
            found[f"{make.__name__}, {name}"] = (said, same)
        module(good, y)  # the ranks are still in step
    return found


def refused_unseen(rank: int, _size: int) -> dict:
    """The same where values cannot be looked at: nothing is raised in the step, and all ranks keep their state."""
    found = {}
    good, y = torch.linspace(-1, 2, 4 * D).reshape(4, D).cos(), torch.tensor([0, 1, 2, 3])
    for make in STATEFUL:
        module = make(D, C)
        module(good + rank, y)
        before = state(module)
        with blind():
            module(good if rank else good * torch.nan, y)
            kept = {name: value.clone() for name, value in module.named_buffers()}
        same = all(torch.equal(kept[key], value) for key, value in before.items())
        found[make.__name__] = (told(module.eval), same)
    return found


def alone(rank: int, size: int) -> dict:
    """Ways not to be reduced over the default group."""
    x, y = torch.ones(2, D) * (1 + rank) + torch.eye(2, D), torch.tensor([0, 1])
    found = {}
    for make in STATEFUL:
        apart, expected = make(D, C, synchronize=False), make(D, C)
        apart(x, y)
        with mock.patch("torch.distributed.is_initialized", return_value=False):
            expected(x, y)
        found[f"off {make.__name__}"] = torch.equal(apart.bias, expected.bias)
        subgroups = [dist.new_group([r]) for r in range(size)]
        mine = make(D, C, synchronize=subgroups[rank])
        mine(x, y)
        found[f"own group {make.__name__}"] = torch.equal(mine.bias, expected.bias)
        other = told(lambda make=make, group=subgroups[1 - rank]: make(D, C, synchronize=group)(x, y))
        found[f"other group {make.__name__}"] = other
    # evaluation waits for nobody: one rank alone would hang
    if rank == 0:
        found["eval"] = bool(mine.eval()(x).isfinite().all())
    return found


def copies(_rank: int, _size: int) -> dict:
    """Copies of a module with a group of its own run on the same group; a pickle is refused."""
    group = dist.new_group([0, 1])
    x, y = torch.arange(4.0 * D).reshape(4, D).sin(), torch.tensor([0, 1, 2, 3])
    head = NearestETFHead(D, C, synchronize=group)
    head(x, y)
    twin = copy.deepcopy(head)
    same = torch.equal(twin(x + 1, y), head(x + 1, y))
    return {"same": same, "pickle": told(lambda: pickle.dumps(head))}


def resumed_on_one(rank: int, _size: int) -> dict:
    """Only the first rank loads a checkpoint; DistributedDataParallel hands its buffers on."""
    plain, other = network(), network()
    for x, y in batches():
        with mock.patch("torch.distributed.is_initialized", return_value=False):
            other(x, y)
    if rank == 0:
        plain.load_state_dict(other.state_dict())
    model = DistributedDataParallel(plain)
    (x, y), *_ = batches()
    model(share(x, rank, 2), share(y, rank, 2))
    return {"states": [state(plain.head)]}


def rounded_otherwise(rank: int, _size: int) -> dict:
    """The ranks' factorisations differ in the last digit, as on unlike processors."""
    head = NearestETFHead(D, C)
    x, y = torch.arange(4.0 * D).reshape(4, D).sin().requires_grad_(), torch.tensor([0, 1, 2, 3])

    def rounded(*given, **options):
        return nearest_etf(*given, **options) * (1 + rank * 2**-22)

    with mock.patch("etfopt.nn.heads._following.nearest_etf", rounded):
        logits = head(x, y)
    logits.square().sum().backward()
    return {"states": [state(head)], "slope": float(x.grad.norm())}


def saved(rank: int, _size: int) -> dict:
    """A state dict under FSDP goes round."""
    plain = network()
    model = fully_shard(plain)
    (x, y), *_ = batches()
    model(share(x, rank, 2), share(y, rank, 2))
    fresh = fully_shard(network())
    with tempfile.TemporaryFile() as file:
        torch.save(model.state_dict(), file)
        file.seek(0)
        fresh.load_state_dict(torch.load(file, weights_only=False))
    return {"same": all(torch.equal(a, b) for a, b in zip(fresh.head.buffers(), plain.head.buffers(), strict=True))}


SAME_AS_ONE = {
    "ddp": train,
    "ddp_own_buffers": partial(train, wrap="ddp, own buffers"),
    "manual": partial(train, wrap="manual", memory=2.0, delta=0.1),
    "manual_paper": partial(train, wrap="manual", statistics="paper", averaging="cumulative", delta=0.1),
    "fsdp": partial(train, wrap="fsdp"),
    "unequal": partial(train, cut=3, weigh=True),
    "empty": partial(train, cut=0, weigh=True),
    "direct": partial(train, implicit_gradient=False),
    "frozen": partial(train, freeze_after=2),
    "every_other": partial(train, solve_every=2),
    "shrunk": partial(train, shrinkage=0.5),
    "classify_first": partial(train, shrinkage=0.7, classify_first=True),
    "counts": partial(train, class_weights="counts"),
    "more_classes": partial(train, capacity=9),
    "held": partial(train, head=held_nearest),
    "fixed": partial(train, head=FixedETFHead),
    "ddp_paper": partial(train, statistics="paper"),
    "empty_paper": partial(train, cut=0, weigh=True, statistics="paper"),
    "fixed_paper": partial(train, head=paper_fixed),
    "any_split_paper": partial(any_split, make=paper_means),
    **{
        case.__name__: case
        for case in (mean_of_means, accumulated, several_forwards, ignored, without_gradient, any_split)
    },
    **{
        f"{case.__name__}_paper": partial(case, statistics="paper")
        for case in (mean_of_means, accumulated, several_forwards, ignored)
    },
}
OTHERS = {
    case.__name__: case for case in (refused, refused_unseen, rounded_otherwise, alone, copies, resumed_on_one, saved)
}
