"""Classes that come and go: what stays to the bit, how far a simplex moves, and a head made of a trained layer."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import nn

from etfopt import InputError, nearest_etf, simplex_etf
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead
from tests.tools.head_cases import HEADS, same, snapshot

C, D = 5, 12


def trained(make: type, seed: int = 0, **options: object) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    head = make(D, C, **options)
    for _ in range(3):
        head(torch.randn(40, D, generator=generator), torch.arange(40) % C)
    return head


def ready(classes: int) -> tuple:
    features = torch.randn(30, D, generator=torch.Generator().manual_seed(1))
    return features, torch.arange(30) % classes


@pytest.mark.parametrize("make", HEADS)
def test_a_head_with_more_classes_is_a_head_of_that_many(make):
    head = trained(make)
    head.add_classes(3)
    fresh = make(D, C + 3)
    assert {name: value.shape for name, value in head.state_dict().items()} == {
        name: value.shape for name, value in fresh.state_dict().items()
    }
    assert all(parameter.is_contiguous() for parameter in head.parameters())
    features, labels = ready(C + 3)
    assert head(features, labels).shape == (30, C + 3)
    fresh.load_state_dict(head.state_dict())
    assert torch.equal(fresh.eval()(features), head.eval()(features))
    assert head.linear().weight.shape == (C + 3, D)
    head.reset_parameters()
    assert head.weight.shape == (C + 3, D)


@pytest.mark.parametrize("make", HEADS)
def test_what_is_added_and_dropped_again_leaves_the_head_as_it_was(make):
    head = trained(make)
    before, weight = snapshot(head), head.weight
    head.add_classes(2)
    head.keep(range(C))
    after = snapshot(head)
    moving = {"U", "prox"}  # another rotation of the same vertices, when the frame has a direction that it cannot see
    assert same(
        {k: v for k, v in before.items() if k not in moving}, {k: v for k, v in after.items() if k not in moving}
    )
    torch.testing.assert_close(head.weight, weight, rtol=0, atol=2e-6)


@pytest.mark.parametrize("statistics", ["running", "paper"])
def test_the_statistics_of_old_classes_stay_to_the_bit_and_new_ones_are_empty(statistics):
    head = trained(NearestETFHead, statistics=statistics)
    mean, seen = head.means.mean.clone(), head.means.occurred.clone()
    head.add_classes(2)
    assert torch.equal(head.means.mean[:, :C], mean)
    assert not head.means.mean[:, C:].any()
    assert head.means.occurred.tolist() == [*seen.tolist(), False, False]
    assert head.temperature == NearestETFHead(D, C + 2, statistics=statistics).temperature
    head.keep([6, 3, 0])
    assert torch.equal(head.means.mean[:, 1:], mean[:, [3, 0]])
    assert head.means.occurred.tolist() == [False, True, True]


@given(old=st.integers(2, 6), new=st.integers(1, 6), seed=st.integers(0, 99))
def test_old_vertices_turn_as_little_as_any_simplex_allows(old, new, seed):
    head = FixedETFHead(D, old, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before = head.weight
    head.add_classes(new)
    cosine = (before * head.weight[:old]).sum(dim=1).mean()
    K = old + new
    assert float(cosine) == pytest.approx(np.sqrt((old - 1) * K / (old * (K - 1))), abs=1e-12)
    gram = head.weight @ head.weight.T
    torch.testing.assert_close(gram, (K * torch.eye(K, dtype=torch.float64) - 1) / (K - 1), rtol=0, atol=1e-12)


def test_a_class_that_comes_late_is_learnt_from_its_first_samples():
    head = trained(NearestETFHead)
    head.add_classes(1)
    centre = torch.zeros(D)
    centre[-1] = 9.0
    features = centre + 0.1 * torch.randn(20, D, generator=torch.Generator().manual_seed(2))
    head(features, torch.full((20,), C))
    assert (head.eval()(features).argmax(dim=1) == C).all()


REFUSED = {
    "no class": (lambda head: head.add_classes(0), "k must be an integer of at least 1"),
    "half a class": (lambda head: head.add_classes(1.5), "k must be an integer"),
    "one left": (lambda head: head.keep([2]), r"classes = \[2\] must name two or more"),
    "twice": (lambda head: head.keep([0, 0, 1]), "different classes"),
    "unknown": (lambda head: head.keep([0, C]), r"in \[0, 5\)"),
}


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_changed_is_refused_before_anything_changes(make, case):
    change, message = REFUSED[case]
    head = trained(make)
    before = snapshot(head)
    with pytest.raises(InputError, match=message):
        change(head)
    assert head.num_classes == C
    assert same(before, snapshot(head))


@pytest.mark.parametrize("make", [FixedETFHead, NearestETFHead])
def test_a_frame_needs_room_and_a_name(make):
    head = trained(make, frame="reduced")
    before = snapshot(head)
    with pytest.raises(InputError, match="dim = 12 is smaller than the r = 13 rows"):
        head.add_classes(D + 2 - C)
    assert same(before, snapshot(head))
    own = make(D, C, frame=torch.from_numpy(simplex_etf(C)))
    with pytest.raises(InputError, match="frame was given as a tensor"):
        own.add_classes(1)


def test_an_ignored_label_does_not_become_a_class():
    for make in (LearnedHead, FixedETFHead, NearestETFHead):
        head = make(D, C, ignore_index=C + 1)
        head.add_classes(1)
        with pytest.raises(InputError, match="ignore_index"):
            head.add_classes(1)
        assert head.num_classes == C + 1


def test_a_temperature_that_is_too_small_for_more_classes_warns():
    head = FixedETFHead(300, 10, temperature=5.0)
    with pytest.warns(UserWarning, match="is small for 210 classes"):
        head.add_classes(200)
    assert head.temperature == 5.0


def test_more_classes_do_not_disturb_a_copy():
    head = trained(NearestETFHead)
    other = copy.deepcopy(head)
    before = snapshot(other)
    head.add_classes(2)
    assert same(before, snapshot(other))


def test_a_head_from_a_layer_is_the_simplex_nearest_to_its_rows():
    torch.manual_seed(0)
    linear = nn.Linear(D, C)
    head = NearestETFHead.from_linear(linear)
    rows = linear.weight.detach().double().numpy().T
    wanted = nearest_etf(rows - rows.mean(axis=1, keepdims=True), reduced=True).etf
    np.testing.assert_allclose(head.weight.numpy().T / np.sqrt(C), wanted, rtol=0, atol=1e-6)
    assert not head.bias.abs().max() > 1e-6
    assert head.training
    assert linear.weight.requires_grad


def test_a_head_from_a_layer_may_have_places_and_weights():
    torch.manual_seed(0)
    linear = nn.Linear(D, C)
    head = NearestETFHead.from_linear(linear, capacity=C + 3, class_weights=[5, 1, 1, 1, 0])
    rows, w = linear.weight.detach().double().numpy().T, np.array([5, 1, 1, 1, 0])
    F = simplex_etf(C + 3, reduced=True)[:, :C]
    A = (rows - (rows @ w / w.sum())[:, None]) * w @ F.T
    fitted = float((A * head.U.double().numpy()).sum())
    assert fitted == pytest.approx(np.linalg.svd(A, compute_uv=False).sum(), rel=1e-6)


def test_features_bring_their_means():
    torch.manual_seed(1)
    linear, features = nn.Linear(D, C), torch.randn(400, D) + 1.0
    head = NearestETFHead.from_linear(linear, features)
    f, predicted = nn.functional.normalize(features), linear(features).argmax(dim=1)
    torch.testing.assert_close(head.means.center(), f.mean(dim=0), rtol=0, atol=0.02)  # a row counts as one sample
    often = [c for c in range(C) if (predicted == c).sum() > 50]
    wanted = torch.stack([f[predicted == c].mean(dim=0) for c in often], dim=1)
    assert len(often) > 1
    torch.testing.assert_close(head.means.mean[:, often], wanted, rtol=0, atol=0.02)


def test_a_head_from_a_layer_that_separates_predicts_as_it_does():
    torch.manual_seed(2)
    centres = torch.randn(C, D)
    labels = torch.arange(200) % C
    features = centres[labels] + 0.05 * torch.randn(200, D)
    linear = nn.Linear(D, C)
    with torch.no_grad():
        linear.weight.copy_(centres)
        linear.bias.copy_(-centres.square().sum(dim=1) / 2)
    head = NearestETFHead.from_linear(linear, features, temperature=6.0).eval()
    assert head.temperature == 6.0
    assert torch.equal(head(features).argmax(dim=1), labels)
    assert torch.equal(linear(features).argmax(dim=1), labels)


@pytest.mark.parametrize("classes", [[True, False], "01", [0.5, 1], 3, None])
def test_what_is_kept_is_named_by_integers(classes):
    with pytest.raises(InputError, match="classes must be a sequence of integers"):
        trained(NearestETFHead).keep(classes)


def test_a_layer_must_be_a_finite_linear_one():
    with pytest.raises(InputError, match=r"linear must be a torch\.nn\.Linear"):
        NearestETFHead.from_linear(nn.Identity())
    linear = nn.Linear(D, C)
    with pytest.raises(InputError, match=r"features has shape \(4, 3\)"):
        NearestETFHead.from_linear(linear, torch.zeros(4, 3))
    nn.init.constant_(linear.weight, torch.nan)
    with pytest.raises(InputError, match=r"linear\.weight holds"):
        NearestETFHead.from_linear(linear)
