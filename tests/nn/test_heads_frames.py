"""Any frame in a head: by name, as a Frame, a matrix or a pair, with more classes than dimensions, through its life."""

import copy
import pickle

import numpy as np
import pytest

from etfopt import InputError, frames, simplex_etf

torch = pytest.importorskip("torch")
from torch.nn.functional import cross_entropy

from etfopt.nn import FixedETFHead, NearestETFHead
from tests.tools.head_cases import paper_fixed, paper_nearest, same, snapshot

BOTH = (FixedETFHead, NearestETFHead)
PAIR = frames.seli([40, 20, 10, 5])
CASES = {
    "more classes than dimensions": (6, 9, {}, frames.orthoplex(6, 9).F),
    "a plane": (2, 5, {}, frames.polygon(5).F),
    "room for a simplex": (6, 4, {}, simplex_etf(4, reduced=True)),
    "a name": (6, 7, {"frame": "polygon"}, frames.polygon(7).F),
    "a name that needs d": (5, 8, {"frame": "orthoplex"}, frames.orthoplex(5, 8).F),
    "an import path": (6, 5, {"frame": "etfopt.frames.polygon:polygon"}, frames.polygon(5).F),
    "a Frame": (6, 8, {"frame": frames.orthoplex(5, 8)}, frames.orthoplex(5, 8).F),
    "an array": (6, 4, {"frame": np.eye(4)}, np.eye(4)),
    "a pair": (6, 4, {"frame": PAIR}, PAIR.F_H.F),
    "a pair of arrays": (6, 4, {"frame": (PAIR.F_H.F, PAIR.F_W.F)}, PAIR.F_H.F),
    "counts": (6, 4, {"frame": "seli", "counts": torch.tensor([40, 20, 10, 5])}, PAIR.F_H.F),
    "best of counts": (6, 4, {"frame": "best", "counts": [40, 20, 10, 5]}, PAIR.F_H.F),
    "places for later": (6, 4, {"capacity": 9}, frames.orthoplex(6, 9).F),
}


def batch(d: int, C: int, seed: int = 0, n: int = 36) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) + 0.3, torch.arange(n) % C


def trained(make: type, case: str, steps: int = 3, **options: object):
    d, C, given, _ = CASES[case]
    head = make(d, C, **given, **options)
    for seed in range(steps):
        head(*batch(d, C, seed))
    return head


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("case", CASES)
def test_the_classifier_is_the_rotated_frame(make, case):
    C, F = CASES[case][1], CASES[case][3]
    head = trained(make, case, dtype=torch.float64)
    np.testing.assert_allclose(head.frame.numpy(), F, rtol=0, atol=1e-15)
    rows = F if "pair" not in case and "counts" not in case else PAIR.F_W.F
    W = np.sqrt(F.shape[1]) * (head.U.numpy() @ rows)[:, :C].T / np.linalg.norm(rows)
    np.testing.assert_allclose(head.weight, W, rtol=0, atol=1e-12)
    if head.capacity is None:
        assert float(head.weight.square().sum(dim=1).mean()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_solution_is_that_of_the_frame_that_the_means_are_fitted_with(case):
    head = trained(NearestETFHead, case, dtype=torch.float64)
    solution = head.solution()
    assert solution.converged
    C = head.num_classes
    np.testing.assert_allclose(solution.etf, (head.U @ head.frame)[:, :C], rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("case", CASES)
def test_a_head_lives_on_in_states_copies_and_pickles(make, case):
    head = trained(make, case)
    d, C, given, _ = CASES[case]
    twins = [copy.deepcopy(head), pickle.loads(pickle.dumps(head)), make(d, C, **given), make(d, C, **given).to("meta")]
    twins[2].load_state_dict(snapshot(head))
    twins[3].load_state_dict(snapshot(head), assign=True)
    x, y = batch(d, C, 9)
    wanted = head(x, y)
    for twin in twins:
        assert twin.temperature == head.temperature
        assert torch.equal(twin(x, y), wanted)
        assert same(snapshot(twin), snapshot(head))


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("case", CASES)
def test_from_the_meta_device_and_from_low_precision_the_frame_has_all_its_digits(make, case):
    d, C, given, F = CASES[case]
    with torch.device("meta"):
        head = make(d, C, **given)
    head.to_empty(device="cpu").reset_parameters()
    assert same(snapshot(head), snapshot(make(d, C, **given)))
    for twin in (head.bfloat16().double(), make(d, C, **given, dtype=torch.bfloat16).double()):
        np.testing.assert_allclose(twin.frame, F, rtol=0, atol=1e-15)
        np.testing.assert_allclose((twin.U.mT @ twin.U).numpy(), np.eye(len(F)), rtol=0, atol=1e-14)
    state = {name: value.bfloat16() for name, value in trained(make, case).state_dict().items()}
    low = make(d, C, **given)
    low.load_state_dict(state)
    assert torch.equal(low.frame, make(d, C, **given).frame)


@pytest.mark.parametrize("make", BOTH)
def test_classes_that_come_and_go_take_the_frame_of_their_number(make):
    head = make(5, 5)
    cosines = []
    for change in (lambda: head.add_classes(1), lambda: head.add_classes(2), lambda: head.keep([3, 0, 7])):
        head(*batch(5, head.num_classes))
        change()
        gram = head.weight @ head.weight.mT
        cosines.append(round(float((gram - 2 * torch.eye(head.num_classes)).max()), 5))
        head(*batch(5, head.num_classes))
    assert cosines == pytest.approx([-1 / 5, 0, -1 / 2], abs=1e-5)
    assert head.frame.shape == (2, 3)
    assert head.temperature == make(5, 3).temperature


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", BOTH)
def test_a_state_with_its_vertices_in_another_order_keeps_what_is_known_of_the_frame(make, dtype):
    head, fresh = make(8, 5, capacity=12), make(8, 3, capacity=12)
    head(*batch(8, 5))
    head.keep([4, 1, 3])
    fresh.load_state_dict({name: X.to(dtype) for name, X in head.state_dict().items()})
    assert torch.equal(fresh.frame, head.frame)
    assert fresh.certificate == head.certificate
    assert (fresh.temperature, repr(fresh)) == (head.temperature, repr(head))


@pytest.mark.parametrize("make", BOTH)
def test_a_frame_that_a_state_brings_grows_only_if_it_is_that_of_the_name(make):
    frame = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    own, named = make(6, 4, frame=frame), make(6, 4)
    named.load_state_dict(own.state_dict())
    before = snapshot(named)
    with pytest.raises(InputError, match="by counts or by a checkpoint, which do not say what it is for 5 classes"):
        named.add_classes(1)
    assert same(before, snapshot(named))
    state = make(6, 4).state_dict()
    state["frame"] *= 1 + 1e-6  # an earlier release may have had other last digits
    named.load_state_dict(state)
    named.add_classes(1)
    assert named.frame.shape == (4, 5)


@pytest.mark.parametrize("make", BOTH)
def test_a_head_says_which_frame_it_chose(make):
    assert "frame='orthoplex' of largest cosine 0" in repr(make(12, 20))
    assert make(12, 20).certificate.proven
    assert "frame" not in repr(make(12, 5)).partition("\n")[2]
    assert "capacity=9" in repr(make(12, 5, capacity=9))


@pytest.mark.parametrize("make", BOTH)
def test_beyond_twice_the_dimensions_the_frame_is_a_code_with_its_certificate(make, tmp_path, monkeypatch):
    monkeypatch.setenv("ETFOPT_CACHE", str(tmp_path))
    head = make(5, 16)
    gram = 16 * head.frame.mT @ head.frame - 2 * torch.eye(16)
    assert float(gram.max()) == pytest.approx(1 / 5, abs=1e-6)
    assert head.certificate.proven
    assert "frame='code' of largest cosine 0.2" in repr(head)
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("make", BOTH)
def test_a_state_of_one_frame_is_no_state_of_a_pair(make):
    one, two = make(6, 4), make(6, 4, frame=PAIR)
    for first, second, message in ((one, two, "one frame, and this head has a pair"), (two, one, "pass the pair")):
        before = snapshot(second)
        with pytest.raises(InputError, match=message):
            second.load_state_dict(first.state_dict())
        assert same(before, snapshot(second))


def pair_of(C: int) -> tuple:
    """A pair for any number of classes, by its import path."""
    return tuple(frames.seli(np.arange(1, C + 1)))


@pytest.mark.parametrize("make", BOTH)
def test_a_pair_that_is_named_grows(make):
    head = make(8, 4, frame=f"{__name__}:pair_of")
    head.add_classes(2)
    wanted = frames.seli(np.arange(1, 7))
    np.testing.assert_allclose(head.frame, wanted.F_H.F, rtol=0, atol=1e-7)
    np.testing.assert_allclose(head.classifier_frame, wanted.F_W.F, rtol=0, atol=1e-7)
    assert head(*batch(8, 6)).shape == (36, 6)


REFUSED = {
    "counts for a simplex": (6, 4, {"frame": "reduced", "counts": [1, 2, 3, 4]}, "counts is for frame='seli' or"),
    "counts of others": (6, 4, {"frame": "seli", "counts": [1, 2, 3]}, r"counts has shape \(3,\); it must be \(4,\)"),
    "a class without samples": (6, 4, {"frame": "seli", "counts": [1, 2, 3, 0]}, "counts must be above 0"),
    "a line": (1, 4, {}, "d = 1 has room for 2"),
    "three frames": (6, 4, {"frame": (np.eye(4),) * 3}, "a sequence of 3; pass a pair"),
    "no room": (4, 4, {"capacity": 3}, "capacity = 3 is smaller than num_classes = 4"),
    "places in the square simplex": (6, 4, {"capacity": 5, "frame": "simplex"}, "pass frame='reduced'"),
    "an ignored label that may come": (6, 4, {"capacity": 9, "ignore_index": 7}, r"integer outside \[0, 9\)"),
}


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("case", REFUSED)
def test_frames_that_make_no_head_are_refused(make, case):
    dim, C, options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make(dim, C, **options)


@pytest.mark.parametrize("make", [paper_fixed, paper_nearest])
def test_the_rules_of_the_paper_have_no_places_for_later(make):
    with pytest.raises(InputError, match="capacity is for statistics='running'"):
        make(6, 4, capacity=5)
    with pytest.raises(InputError, match="dim = 4 is smaller than the r = 6 rows"):
        make(4, 6)


def features_of(make: type, d: int, C: int, steps: int = 120) -> tuple:
    """Free features, trained by gradient descent with a head: what a large network can do."""
    torch.manual_seed(0)
    H, labels = torch.nn.Parameter(torch.randn(4 * C, d)), torch.arange(4 * C) % C
    frame = frames.code(d, C, starts=1, cache=False) if 2 * d < C else None
    head, optimizer = make(d, C, frame=frame), torch.optim.SGD([H], lr=20.0, momentum=0.9)
    order = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for rows in torch.randperm(4 * C, generator=order).split(C + 1):  # the last batch is small
            optimizer.zero_grad()
            cross_entropy(head(H[rows], labels[rows]), labels[rows]).backward()
            optimizer.step()
    return head.eval(), H.detach(), labels


@pytest.mark.parametrize(("d", "C", "mu"), [(12, 20, 0.0), (16, 40, 0.1)])
def test_features_collapse_to_a_frame_of_more_classes_than_dimensions(d, C, mu):
    head, H, labels = features_of(NearestETFHead, d, C)
    assert (head(H).argmax(dim=1) == labels).all()
    f = torch.nn.functional.normalize(H)
    assert float((f * head.weight[labels]).sum(dim=1).min()) > 0.9
    gram = head.weight @ head.weight.mT - 2 * torch.eye(C)
    assert float(gram.max()) < mu + 1e-6
