"""What a checkpoint means to a head: the frame is part of it, and those of release 0.1 keep their meaning."""

import copy

import numpy as np
import pytest

from etfopt import InputError, simplex_etf

torch = pytest.importorskip("torch")
from torch import nn

from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead, PaperClassMeans
from tests.tools.head_cases import (
    HEADS,
    LABELS,
    STATEFUL,
    C,
    D,
    batch,
    class_of,
    paper_fixed,
    paper_means,
    paper_nearest,
    same,
    snapshot,
)

PAPER = (paper_fixed, paper_nearest)
"""What can take a state of release 0.1, but for the learned head."""


def frames(rng: np.random.Generator, r: int = 3) -> list[torch.Tensor]:
    return [size * torch.tensor(rng.standard_normal((r, C)), dtype=torch.float32) for size in (1.0, 7.0)]


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("make", STATEFUL)
def test_a_head_takes_the_frame_of_the_state_that_it_loads(make, strict, assign, rng):
    F1, F2 = frames(rng)
    first, second = make(D, C, frame=F1), make(D, C, frame=F2)
    first(batch(rng), LABELS)
    second.load_state_dict(snapshot(first), strict=strict, assign=assign)
    assert torch.equal(second.frame, F1)
    assert torch.equal(second.weight, first.weight)
    x = batch(rng)
    assert torch.equal(second(x, LABELS), first(x, LABELS))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("make", STATEFUL)
def test_a_state_with_a_frame_is_refused_by_a_head_without_and_the_reverse(make, strict, rng):
    frame = torch.tensor(rng.standard_normal((C, C)), dtype=torch.float32)  # of the simplex's shape
    plain, framed = make(D, C, frame="simplex"), make(D, C, frame=frame)
    before = snapshot(plain), snapshot(framed)
    with pytest.raises(InputError, match=rf"{class_of(make).__name__}.*it holds a frame.*pass frame= .*Nothing"):
        plain.load_state_dict(framed.state_dict(), strict=strict)
    with pytest.raises(InputError, match=r"with the simplex, and this head has another frame: pass frame='simplex'"):
        nn.Sequential(framed).load_state_dict(nn.Sequential(plain).state_dict(), strict=strict)
    assert same(plain.state_dict(), before[0])
    assert same(framed.state_dict(), before[1])


@pytest.mark.parametrize(
    ("spoil", "message"), [(lambda F: F.fill_(torch.nan), "frame holds 12 value"), (lambda F: F.zero_(), "is zero")]
)
def test_a_frame_in_a_state_is_checked_as_one_that_is_passed(spoil, message, rng):
    head = NearestETFHead(D, C, frame=frames(rng)[0])
    state, before = snapshot(head), snapshot(head)
    spoil(state["frame"])
    with pytest.raises(InputError, match=message):
        head.load_state_dict(state)
    assert same(head.state_dict(), before)
    state["frame"] = torch.eye(3)[:, [0, 1, 2, 0]]
    with pytest.raises(InputError, match="needs a frame in which the right class has the largest logit"):
        head.load_state_dict(state)
    assert same(head.state_dict(), before)


@pytest.mark.parametrize("make", [FixedETFHead, NearestETFHead])
def test_the_temperature_auto_follows_the_frame_of_a_state(make):
    square, simplex = make(D, C, frame=torch.eye(C)), make(D, C, frame=torch.tensor(simplex_etf(C)).float())
    assert simplex.temperature != square.temperature
    simplex.load_state_dict(square.state_dict())
    assert simplex.temperature == square.temperature
    simplex.reset_parameters()
    assert simplex.temperature == make(D, C).temperature
    fixed = make(D, C, frame=torch.tensor(simplex_etf(C)).float(), temperature=6.0)
    fixed.load_state_dict(square.state_dict())
    assert fixed.temperature == 6.0


@pytest.mark.parametrize("make", STATEFUL)
def test_the_means_of_a_checkpoint_may_be_loaded_without_its_classifier(make, rng):
    framed, plain = make(D, C, frame=frames(rng)[0]), make(D, C, frame="simplex")
    plain(batch(rng), LABELS)
    state = {name: value for name, value in plain.state_dict().items() if name not in ("U", "prox")}
    framed.load_state_dict(state, strict=False)
    assert torch.equal(framed._center(), plain._center())


@pytest.mark.parametrize("classes", [C, C + 1])
@pytest.mark.parametrize("make", HEADS)
def test_the_state_of_the_linear_layer_that_a_head_replaced_leaves_it_as_it_was(make, classes, rng):
    head, layer = make(D, C), nn.Linear(D, classes)
    before = snapshot(head)
    found = head.load_state_dict(layer.state_dict(), strict=False)
    assert same(head.state_dict(), before)
    assert set(found.missing_keys) == set(before)
    assert "weight" in found.unexpected_keys
    x = batch(rng)
    head.eval()
    torch.testing.assert_close(head.linear()(head.normalize(x)), head(x))


# --- release 0.1: no frame, a bias, `seen` of bool and `steps` of int64 -------------------------------------------


def as_of_0_1(module: nn.Module) -> dict:
    """The state as release 0.1 would have written it."""
    state = {}
    for name, value in snapshot(module).items():
        last = name.rpartition(".")[2]
        if last == "frame" or (last == "global_mean" and isinstance(module, FixedETFHead)):
            continue
        state[name] = value > 0 if last == "seen" else value.long() if last == "steps" else value
    if not isinstance(module, PaperClassMeans):
        state["bias"] = module.bias.clone()
    return state


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("make", [LearnedHead, *PAPER, paper_means])
def test_a_checkpoint_of_release_0_1_loads_with_its_meaning(make, assign, framed, rng):
    if framed and make not in PAPER:
        pytest.skip("has no frame")
    options = {"frame": frames(rng)[1]} if framed else {}
    old, new = make(D, C, **options), make(D, C, **options)
    for _ in range(3):
        old(batch(rng), LABELS % (C - 1))
    new.load_state_dict(as_of_0_1(old), assign=assign)
    assert {value.dtype for value in new.state_dict().values()} == {torch.float32}
    x = batch(rng)
    twins = copy.deepcopy(old), copy.deepcopy(new)
    torch.testing.assert_close(twins[1].eval()(x), twins[0].eval()(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(new(x, LABELS), old(x, LABELS), rtol=0, atol=1e-5)


def test_the_bias_of_a_checkpoint_of_release_0_1_must_fit():
    head = paper_fixed(D, C)
    state = as_of_0_1(head) | {"bias": torch.zeros(C + 1)}
    with pytest.raises(InputError, match=r"bias has shape \(5,\) and not \(4,\)"):
        head.load_state_dict(state)


@pytest.mark.parametrize("make", PAPER)
def test_a_fixed_bias_of_release_0_1_comes_back_for_many_classes(make, rng):
    head, other = (make(40, 30, temperature="auto") for _ in range(2))
    head(torch.tensor(rng.standard_normal((60, 40)) + 0.4, dtype=torch.float32), torch.arange(60) % 30)
    other.load_state_dict(as_of_0_1(head))
    torch.testing.assert_close(other.bias, head.bias, rtol=0, atol=1e-5)


def test_a_checkpoint_of_release_0_1_needs_a_head_that_knows_the_frame():
    trained = paper_fixed(D, C, frame=torch.eye(3, C))
    with torch.device("meta"):
        head = paper_fixed(D, C, frame=torch.eye(3, C))
    with pytest.raises(InputError, match=r"release 0\.1, which stored no frame"):
        head.load_state_dict(as_of_0_1(trained), assign=True)


def test_a_simplex_frame_that_was_rounded_to_bfloat16_is_still_one():
    head = NearestETFHead(D, C, temperature="auto", frame=torch.tensor(simplex_etf(C, reduced=True)))
    head.load_state_dict({name: value.bfloat16() for name, value in head.state_dict().items()})
    assert head.weight.isfinite().all()


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("make", STATEFUL)
def test_a_checkpoint_of_low_precision_does_not_round_the_frame_that_the_head_was_built_with(make, assign, rng):
    frame = torch.tensor(np.array(simplex_etf(C, reduced=True)), dtype=torch.float32)
    first, second = make(D, C, frame=frame), make(D, C, frame=frame)
    first(batch(rng), LABELS)
    second.load_state_dict({name: X.bfloat16() for name, X in first.state_dict().items()}, assign=assign)
    assert torch.equal(second.frame, frame)
    second(batch(rng), LABELS)
    gram = (C * torch.eye(C) - 1) / (C - 1)
    torch.testing.assert_close(second.weight @ second.weight.T, gram, rtol=0, atol=1e-5)
