"""The state of a head: its precision, checkpoints, pickles and averages."""

import pytest

from etfopt import InputError

torch = pytest.importorskip("torch")
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from etfopt.nn import LearnedHead, NearestETFHead
from tests.tools.head_cases import (
    HEADS,
    LABELS,
    MEANS,
    NEAREST,
    STATEFUL,
    C,
    D,
    batch,
    class_of,
    default_dtype,
    same,
    snapshot,
)


@pytest.mark.parametrize("lower", [lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.to(torch.float16)])
@pytest.mark.parametrize("make", STATEFUL)
def test_the_state_stays_in_single_precision_or_better(make, lower, rng):
    head, features = make(D, C), batch(rng)
    head(features, LABELS)
    before = snapshot(head)
    assert same(lower(head).state_dict(), before)
    wide = lower(make(D, C).double())
    assert {b.dtype for b in wide.buffers()} == {torch.float32}
    assert head(features.half(), LABELS).dtype == torch.float16


def test_the_parameters_of_a_network_go_to_half_precision_all_the_same():
    head = LearnedHead(D, C).half()
    assert head.rows.dtype == torch.float16
    network = nn.Sequential(nn.Linear(3, D), NearestETFHead(D, C)).half()
    assert network[0].weight.dtype == torch.float16


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize(("d", "c"), [(D + 1, C), (D, C + 1)])
def test_a_checkpoint_of_another_size_is_refused_with_both_sizes_and_changes_nothing(make, d, c, rng):
    head = make(D, C)
    head(batch(rng), LABELS)
    before, name = snapshot(head), "rows" if make is LearnedHead else "U"
    shape = tuple(make(d, c).state_dict()[name].shape)
    with pytest.raises(InputError, match=rf"{name} has shape \({shape[0]}, {shape[1]}\) and not .* strict=False"):
        head.load_state_dict(make(d, c).state_dict())
    assert same(head.state_dict(), before)
    with pytest.raises(InputError, match=rf"{class_of(make).__name__}\(dim={D}, num_classes={C}"):
        nn.Sequential(head).load_state_dict(nn.Sequential(make(d, c)).state_dict())


@pytest.mark.parametrize("make", STATEFUL)
def test_there_is_nothing_to_decay(make):
    assert not list(make(D, C).parameters())
    network = nn.Sequential(nn.Linear(3, D), make(D, C))
    assert len(list(network.parameters())) == 2


@pytest.mark.parametrize("make", HEADS)
def test_an_average_without_buffers_evaluates_the_last_classifier(make, rng):
    head = make(D, C)
    network = nn.Sequential(nn.Linear(D, D), head)  # PyTorch's averages need a parameter
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for _ in range(3):
        head(batch(rng), LABELS)
        average.update_parameters(network)
    features = batch(rng)
    assert torch.equal(average.module[1].eval()(features), head.eval()(features))


# --- the dtype of the state --------------------------------------------------------------------------------------


ALL = [*STATEFUL, *MEANS]


def built(make, dtype):
    with default_dtype(dtype):
        return make(D, C)


def loaded(make, dtype, assign):
    module = make(D, C)
    low = {name: value.to(dtype) for name, value in module.state_dict().items()}
    module.load_state_dict(low, assign=assign)
    return module


WAYS = {
    "built": built,
    "built and moved": lambda make, dtype: built(make, dtype).to(dtype),
    "moved": lambda make, dtype: make(D, C).to(dtype),
    "loaded": lambda make, dtype: loaded(make, dtype, False),
    "loaded with assign": lambda make, dtype: loaded(make, dtype, True),
    "loaded with assign and moved": lambda make, dtype: loaded(make, dtype, True).to(dtype),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", ALL)
def test_the_state_is_float32_however_the_module_is_built_moved_or_loaded(make, dtype, way):
    module = WAYS[way](make, dtype)
    assert {value.dtype for value in module.buffers()} == {torch.float32}


@pytest.mark.parametrize("make", [*NEAREST, *MEANS])
def test_running_means_after_2000_steps_in_bfloat16_are_those_of_float32(make, rng):
    low, single = make(D, C).bfloat16(), make(D, C)
    batches = [batch(rng).bfloat16() for _ in range(50)]
    for step in range(2000):
        low(batches[step % 50], LABELS)
        single(batches[step % 50].float(), LABELS)
    a, b = (getattr(module, "means", module).mean for module in (low, single))
    # the head's features are normalised in their own precision
    assert torch.linalg.norm(a - b) < (1e-6 if make in MEANS else 5e-3) * torch.linalg.norm(b)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [*NEAREST, *MEANS])
def test_steps_in_bfloat16_are_the_same_however_the_module_is_built_moved_or_loaded(make, way, rng):
    """To the bit, so that what holds after 2000 steps of one holds of all."""
    module, moved = WAYS[way](make, torch.bfloat16), make(D, C).bfloat16()
    moved.load_state_dict(module.state_dict())
    for _ in range(100):
        x = batch(rng).bfloat16()
        module(x, LABELS)
        moved(x, LABELS)
    assert same(module.state_dict(), moved.state_dict())


@pytest.mark.parametrize("make", STATEFUL)
def test_an_etf_that_was_rounded_to_half_precision_is_an_etf_again(make, rng):
    head = make(D, C)
    head(batch(rng), LABELS)
    other = make(D, C)
    other.load_state_dict({name: value.bfloat16() for name, value in head.state_dict().items()})
    etf = (C * torch.eye(C) - 1) / (C - 1)
    torch.testing.assert_close(other.weight @ other.weight.T, etf, rtol=0, atol=1e-6)


def test_in_double_precision_by_default_the_state_is_double():
    with default_dtype(torch.float64):
        assert {value.dtype for value in NearestETFHead(D, C).buffers()} == {torch.float64}
