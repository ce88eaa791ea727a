"""Which samples and which steps count in a head's training, and the certified solution that comes of it."""

import copy

import numpy as np
import pytest

from etfopt import InputError

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.functional import cross_entropy

from etfopt.nn import NearestETFHead, UnitFeatures
from tests.tools.head_cases import HEADS, LABELS, MEANS, NEAREST, STATEFUL, C, D, batch, same, snapshot

# --- ignored labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore_index", [-100, -1, 255])
@pytest.mark.parametrize("make", STATEFUL)
def test_ignored_samples_count_nowhere_and_get_their_logits(make, ignore_index, rng):
    with_them, without = (make(D, C, ignore_index=ignore_index).double() for _ in range(2))
    for _ in range(3):
        features, labels = batch(rng, dtype=torch.float64), LABELS.clone()
        labels[[1, 2, 3, 10, 23]] = ignore_index
        kept = labels != ignore_index
        logits, expected = with_them(features, labels), without(features[kept], labels[kept])
        torch.testing.assert_close(logits[kept], expected, rtol=0, atol=1e-12)
        assert logits.shape == (24, C)
        assert logits.isfinite().all()
    for name, value in without.state_dict().items():
        torch.testing.assert_close(with_them.state_dict()[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", NEAREST)
def test_ignored_samples_receive_the_gradient_of_their_logits_only(make, rng):
    head, features, labels = make(D, C), batch(rng).requires_grad_(), LABELS.clone()
    labels[5:9] = -100
    cross_entropy(head(features, labels), labels).backward()
    assert not features.grad[5:9].any()
    assert features.grad[:5].abs().amax(dim=1).all()


@pytest.mark.parametrize("make", STATEFUL)
def test_a_batch_of_ignored_samples_changes_nothing(make, rng):
    head = make(D, C)
    head(batch(rng), LABELS)
    before = snapshot(head)
    assert head(batch(rng), torch.full((24,), -100)).isfinite().all()
    assert same(head.state_dict(), before)


@pytest.mark.parametrize("ignored", [0, 3, None, True, 1.5])
@pytest.mark.parametrize("make", [*HEADS, *MEANS])
def test_a_class_cannot_be_the_ignored_label(make, ignored):
    with pytest.raises(InputError, match=r"ignore_index must be an integer outside \[0, 4\)"):
        make(D, C, ignore_index=ignored)


# --- solving less often -------------------------------------------------------------------------------------------


def slope(head: nn.Module, features: torch.Tensor) -> torch.Tensor:
    leaf = features.clone().requires_grad_()
    cross_entropy(head(leaf, LABELS), LABELS).backward()
    return leaf.grad


@pytest.mark.parametrize(
    ("options", "solved"),
    [
        ({"freeze_after": 3}, [0, 1, 2]),
        ({"freeze_after": 0}, []),
        ({"solve_every": 3}, [0, 3, 6]),
        ({"solve_every": 2, "freeze_after": 3}, [0, 2]),
    ],
)
@pytest.mark.parametrize("make", NEAREST)
def test_u_moves_in_the_steps_that_solve_and_carries_a_gradient_there_only(options, solved, make, rng):
    head, direct = (make(D, C, implicit_gradient=g, **options).double() for g in (True, False))
    for step in range(8):
        features, before = batch(rng, dtype=torch.float64), head.U.clone()
        twin = copy.deepcopy(head)
        both, one = slope(head, features), slope(direct, features)
        assert torch.equal(head.U, before) == (step not in solved)
        assert torch.equal(both, one) == (step not in solved)
        assert int(head.means.steps) == step + 1
        norm = 1 if head.statistics == "paper" else head.temperature
        torch.testing.assert_close(head.bias, -head.weight @ (norm * head.means.center()))
        # counted in the state: a copy goes on where it was
        assert torch.equal(slope(twin, features), both)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_after": -1}, r"freeze_after must be an integer of at least 0; got -1"),
        ({"freeze_after": 1.5}, r"freeze_after must be an integer"),
        ({"solve_every": 0}, r"solve_every must be an integer of at least 1; got 0"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        NearestETFHead(D, C, **options)


# --- the certified solution, and the layer to deploy ----------------------------------------------------------------


@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("make", NEAREST)
def test_the_solution_certifies_the_step_that_was_taken(make, steps, reduced, delta, rng):
    head = make(D, C, delta=delta, frame="reduced" if reduced else "simplex").double()
    for _ in range(steps):
        head(batch(rng, dtype=torch.float64), LABELS)
    solution = head.solution()
    assert solution.converged
    np.testing.assert_allclose(solution.weight, head.weight, rtol=0, atol=1e-10)
    H = head.means.centred().numpy()
    np.testing.assert_allclose(solution.problem.H, H / np.linalg.norm(H), rtol=0, atol=1e-14)
    assert solution.problem.delta == delta
    if delta or reduced:
        np.testing.assert_allclose(solution.U, head.U, rtol=0, atol=1e-9)


def test_the_solution_between_solves_is_what_a_solve_would_find_now(rng):
    head, features = NearestETFHead(D, C, solve_every=5).double(), batch(rng, dtype=torch.float64)
    head(features, LABELS)
    head(features.flip(0), LABELS)
    solution = head.solution()
    assert solution.converged
    assert np.linalg.norm(solution.weight - head.weight.numpy()) > 0.1


def test_a_solution_in_half_or_single_precision_is_certified_in_double(rng):
    head = NearestETFHead(D, C)
    head(batch(rng), LABELS)
    assert head.solution().problem.dtype == np.float64
    assert head.solution().certificate.relative_gap < 1e-14


def test_a_head_that_has_seen_nothing_has_no_solution():
    with pytest.raises(InputError, match="the head has seen no batch"):
        NearestETFHead(D, C).solution()


@pytest.mark.parametrize("make", HEADS)
def test_the_exported_layer_on_normalised_features_gives_the_logits_of_evaluation(make, rng):
    head, features = make(D, C), batch(rng)
    head(features, LABELS)
    generator = torch.random.get_rng_state()
    layer = head.linear()
    assert torch.equal(torch.random.get_rng_state(), generator)
    expected = head.eval()(features)
    assert type(layer) is nn.Linear
    assert not any(p.requires_grad for p in layer.parameters())
    torch.testing.assert_close(layer(head.normalize(features)), expected, rtol=0, atol=1e-6)
    network = nn.Sequential(UnitFeatures(head.temperature), layer)
    traced = torch.jit.trace(network, features[:3])
    exported = torch.export.export(network, (features,), dynamic_shapes=[{0: torch.export.Dim.AUTO}]).module()
    for deployed in (network, traced, exported):
        torch.testing.assert_close(deployed(features[:8]), expected[:8], rtol=0, atol=1e-6)
    head.train()(batch(rng), LABELS)  # what was exported stays
    torch.testing.assert_close(network(features), expected, rtol=0, atol=1e-6)
