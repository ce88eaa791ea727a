"""Every row of the table of training loops (docs/howto/training_loops.md) is what happens."""

import copy
from collections.abc import Callable

import pytest

from etfopt import InputError

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.checkpoint import checkpoint

from etfopt.nn import LearnedHead, NearestETFHead
from tests.tools.head_cases import same
from tests.tools.loop_cases import HEADS, STATEFUL, Batches, C, D, accuracy, batches, network, refit, sgd, trained


def same_as_plain(model: nn.Sequential, make: Callable[..., nn.Module], data: Batches, atol: float = 1e-5) -> None:
    plain = trained(network(make), data)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=atol, msg=name)


# --- one function a row; it raises where the row is not what happens


def plain(make: type[nn.Module]) -> None:
    assert accuracy(trained(network(make), batches())) > 0.95


def inputs_only(make: type[nn.Module]) -> None:
    model = network(make)
    optimizer = sgd(model)
    for x, y in batches():
        with model[1].labels(y):
            loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    same_as_plain(model, make, batches(), atol=0)


def accumulation(make: type[nn.Module], pieces: int = 8) -> None:
    model = network(make)
    optimizer = sgd(model)
    for x, y in batches(6):
        optimizer.zero_grad()
        for part, labels in zip(x.chunk(pieces), y.chunk(pieces), strict=True):
            (cross_entropy(model[1](model[0](part), labels), labels) * len(part) / len(x)).backward()
        optimizer.step()
    assert accuracy(model) > 0.95


def average(make: type[nn.Module], **options: object) -> None:
    model = network(make)
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), **options)
    trained(model, batches(), lambda: mean.update_parameters(model))
    assert accuracy(mean) > 0.95


def averages(make: type[nn.Module]) -> None:
    average(make, use_buffers=True)
    average(make, use_buffers=False)  # the buffers are then those of the last step


def batch_norm_update(make: type[nn.Module]) -> None:
    model = network(make, norm=True)
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    trained(model, batches(n=258), lambda: mean.update_parameters(model))
    if make is NearestETFHead:
        before = copy.deepcopy(mean.module[1].state_dict())
        with pytest.raises(InputError, match="pass the backbone alone to what runs a network without labels"):
            update_bn(batches(1, n=258), mean)
        assert same(mean.module[1].state_dict(), before)
    else:
        update_bn(batches(1, n=258), mean)
    update_bn(batches(1, n=258), mean.module[0])
    refit(mean.module, batches(1, n=258))
    assert accuracy(mean) > 0.95


def sharpness_aware(make: type[nn.Module], radius: float = 0.0) -> nn.Sequential:
    model = network(make)
    optimizer = sgd(model)
    for x, y in batches():
        with model[1].uncounted():
            cross_entropy(model[1](model[0](x), y), y).backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        moves = [radius * p.grad / norm.clamp(min=1e-12) for p in model.parameters()]
        shift(model, moves, 1)
        optimizer.zero_grad()
        cross_entropy(model[1](model[0](x), y), y).backward()
        shift(model, moves, -1)
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def shift(model: nn.Module, moves: list[torch.Tensor], sign: int) -> None:
    for parameter, move in zip(model.parameters(), moves, strict=True):
        parameter.add_(move, alpha=sign)


def sam(make: type[nn.Module]) -> None:
    same_as_plain(sharpness_aware(make), make, batches())  # of radius zero it is the plain loop
    assert accuracy(sharpness_aware(make, 0.05)) > 0.95


def lbfgs(make: type[nn.Module]) -> None:
    model, data = network(make), batches(5)
    optimizer, asked = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe"), []
    for x, y in data:

        def closure(x=x, y=y) -> torch.Tensor:
            optimizer.zero_grad()
            with model[1].uncounted():
                loss = cross_entropy(model[1](model[0](x), y), y)
                loss.backward()
            asked.append(loss)
            return loss

        optimizer.step(closure)
        with torch.no_grad():
            model[1](model[0](x), y)
    assert len(asked) > 2 * len(data)
    if make is NearestETFHead:
        assert int(model[1].means.steps) == len(data)
    assert accuracy(model) > 0.95


def checkpointing(make: type[nn.Module]) -> None:
    model = network(make)
    optimizer = sgd(model)
    for x, y in batches():
        with model[1].labels(y):
            loss = cross_entropy(model[1](checkpoint(model[0], x, use_reentrant=False)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    same_as_plain(model, make, batches())


def compiled(make: type[nn.Module]) -> None:
    torch.compiler.reset()
    model = network(make)
    backbone, optimizer = torch.compile(model[0], backend="aot_eager", fullgraph=True), sgd(model)
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(model[1](backbone(x), y), y).backward()
        optimizer.step()
    same_as_plain(model, make, batches())
    torch.compiler.reset()


def autocast(make: type[nn.Module]) -> None:
    model = network(make)
    optimizer = sgd(model)
    for x, y in batches():
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model[1](model[0](x), y), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert accuracy(model) > 0.95


def data_parallel(make: type[nn.Module]) -> None:
    """What spreads a module over several GPUs asks it for replicas; test_labels_block.py has the rest."""
    if make is LearnedHead:
        make(D, C)._replicate_for_data_parallel()
        return
    with pytest.raises(InputError, match=r"Wrap the backbone only, or use DistributedDataParallel"):
        make(D, C)._replicate_for_data_parallel()


LOOPS = {
    "plain loop": plain,
    "`model(x)` only": inputs_only,
    "gradient accumulation": accumulation,
    "EMA, SWA (`AveragedModel`)": averages,
    "`update_bn`": batch_norm_update,
    "SAM": sam,
    "`torch.optim.LBFGS`": lbfgs,
    "activation checkpointing": checkpointing,
    "`torch.compile`": compiled,
    "bf16 autocast": autocast,
    "`DataParallel`": data_parallel,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("loop", LOOPS)
def test_every_loop_of_the_table_is_as_it_says(loop, make):
    LOOPS[loop](make)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("make", STATEFUL)
def test_a_checkpointed_head_counts_no_batch_twice(make, reentrant):
    model, (x, y) = network(make), batches()[0]
    loss = cross_entropy(checkpoint(model[1], model[0](x), y, use_reentrant=reentrant), y)
    once = copy.deepcopy(model[1].state_dict())
    with pytest.raises(InputError, match="Checkpoint the backbone only, and leave the head outside"):
        loss.backward()
    assert same(model[1].state_dict(), once)
