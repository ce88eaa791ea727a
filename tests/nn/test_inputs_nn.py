"""Bad input to the bridge and the heads is refused before any state changes."""

import copy
import math

import numpy as np
import pytest

from etfopt import InputError, simplex_etf

torch = pytest.importorskip("torch")
from etfopt.nn import NearestETFHead
from etfopt.nn.functional import nearest_etf, on_frame, polar_factor
from tests.tools.head_cases import HEADS, MEANS, NEAREST, STATEFUL, paper_means, paper_nearest

H = torch.arange(12.0).reshape(4, 3) % 5


def refused(message: str, function, *arguments, **options) -> None:
    with pytest.raises(InputError, match=message) as caught:
        function(*arguments, **options)
    assert type(caught.value) is InputError


def holding(value: float) -> torch.Tensor:
    X = H.clone()
    X[1, 2] = value
    return X


FUNCTIONAL = {
    "an array": ({"H": H.numpy()}, r"H must be a .*tensor; got ndarray"),
    "a vector": ({"H": torch.ones(3)}, r"H has shape \(3,\).*\(\.\.\., d, C\)"),
    "no columns": ({"H": torch.ones(3, 0)}, r"H has shape \(3, 0\).*\(\.\.\., d, C\)"),
    "one class": ({"H": torch.ones(4, 1)}, r"H has shape \(4, 1\).*C >= 2"),
    "integers": ({"H": H.long()}, r"H has dtype torch\.int64; pass real.*H\.float\(\)"),
    "complex": ({"H": H + 0j}, r"H has dtype torch\.complex64; pass real"),
    "booleans": ({"H": H > 2}, r"H has dtype torch\.bool; pass real"),
    "NaN": ({"H": holding(math.nan)}, r"H holds 1 value\(s\).*first at \(1, 2\)"),
    "infinity": ({"H": torch.stack([H, holding(math.inf)])}, r"H holds 1 value\(s\).*first at \(1, 1, 2\)"),
    "d = C - 1": ({"H": torch.ones(3, 4)}, r"d = 3 .*r = 4 .*C-1.* works with .*reduced=True.*pass H\.mT"),
    "d too small": ({"H": torch.ones(2, 7)}, r"d = 2 .*r = 7 .*pass H\.mT"),
    "prox of another shape": ({"H": H, "prox": torch.eye(4)}, r"prox has shape \(4, 4\); it must end in \(4, 3\)"),
    "prox a list": ({"H": H, "prox": [[1.0]]}, r"prox must be a .*tensor; got list"),
    "prox NaN": ({"H": H, "prox": holding(math.nan)}, r"prox holds 1 value\(s\)"),
    "delta negative": ({"H": H, "prox": H, "delta": -1.0}, r"delta must be finite and at least 0; got -1\.0"),
    "delta alone": ({"H": H, "delta": 0.1}, r"delta = 0\.1 needs a proximal point; pass prox of shape \(4, 3\)"),
    "frame an array": ({"H": H, "frame": simplex_etf(3)}, r"frame must be a .*tensor; got ndarray"),
    "frame with other columns": ({"H": H, "frame": torch.eye(4)}, r"frame has shape \(4, 4\); it must be .*\b3\b"),
    "frame a batch": ({"H": H, "frame": torch.ones(2, 3, 3)}, r"frame has shape \(2, 3, 3\)"),
    "frame NaN": ({"H": H, "frame": torch.full((2, 3), torch.nan)}, r"frame holds 6 value\(s\)"),
}


@pytest.mark.parametrize("case", FUNCTIONAL)
def test_tensors_that_cannot_be_used_are_refused(case):
    options, message = FUNCTIONAL[case]
    refused(message, nearest_etf, **options)


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (torch.ones(2, 5), r"A has shape \(2, 5\).*at least as many rows"),
        (torch.ones(3), r"A has shape \(3,\)"),
        (torch.ones(3, 2, dtype=torch.int32), r"A has dtype torch\.int32"),
        (holding(math.inf), r"A holds 1 value\(s\).*\(1, 2\)"),
        ([[1.0]], r"A must be a .*tensor; got list"),
    ],
)
def test_matrices_without_a_polar_factor_are_refused(A, message):
    refused(message, polar_factor, A)


MISFITS = {
    "H and prox": (
        nearest_etf,
        ((2, 8, 4), (3, 8, 4)),
        r"H has shape \(2, 8, 4\) and prox \(3, 8, 4\): the batches do",
    ),
    "of two axes": (nearest_etf, ((5, 2, 8, 4), (3, 8, 4)), r"H has shape \(5, 2, 8, 4\) and prox \(3, 8, 4\)"),
    "X and frame": (on_frame, ((2, 8, 4), (3, 5)), r"X has shape \(2, 8, 4\) and frame \(3, 5\).* 4 rows"),
    "a batch of frames": (on_frame, ((2, 8, 4), (2, 4, 4)), r"X has shape \(2, 8, 4\) and frame \(2, 4, 4\)"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_batches_that_do_not_fit_are_refused_with_both_shapes(case):
    function, shapes, message = MISFITS[case]
    refused(message, function, *(torch.ones(shape).tril() for shape in shapes))


def test_one_column_has_no_simplex():
    refused(r"X has shape \(3, 1\); the simplex has C >= 2", on_frame, torch.ones(3, 1), None)


@pytest.mark.parametrize("method", ["auto", "svd", "gram", "newton-schulz"])
@pytest.mark.parametrize("shapes", [((8, 4), (3, 8, 4)), ((3, 8, 4), (8, 4)), ((2, 1, 8, 4), (3, 8, 4))])
def test_batches_that_can_be_broadcast_are(shapes, method, rng):
    many, prox = (torch.tensor(rng.standard_normal(shape)) for shape in shapes)
    found = nearest_etf(many, prox, 5.0, method=method)
    for index in np.ndindex(*found.shape[:-2]):
        one, start = (X.expand(found.shape)[index] for X in (many, prox))
        torch.testing.assert_close(found[index], nearest_etf(one, start, 5.0, method=method), rtol=0, atol=1e-10)


SIZES = {
    "one class": ((4, 1), {}, r"num_classes must be .*at least 2.*got 1"),
    "a fraction of a class": ((4, 2.5), {}, r"num_classes must be an integer.*got 2\.5"),
    "no dimension": ((0, 3), {}, r"dim must be an integer of at least 1; got 0"),
    "a name for a dimension": (("4", 3), {}, r"dim must be an integer.*got '4'"),
    "a boolean dimension": ((True, 3), {}, r"dim must be an integer.*got True"),
    "a cold temperature": ((4, 3), {"temperature": 0.0}, r"temperature must be .*above 0.*got 0\.0"),
    "an infinite temperature": ((4, 3), {"temperature": math.inf}, r"temperature must be .*finite.*got inf"),
    "no temperature": ((4, 3), {"temperature": None}, r"temperature must be .*got None"),
}


@pytest.mark.parametrize("head", [*HEADS])
@pytest.mark.parametrize("case", SIZES)
def test_sizes_that_make_no_head_are_refused(case, head):
    arguments, options, message = SIZES[case]
    refused(message, head, *arguments, **options)


@pytest.mark.parametrize("head", STATEFUL)
@pytest.mark.parametrize(
    ("dim", "frame", "message"),
    [
        (3, "simplex", r"dim = 3 .*r = 4 .*C-1 works with frame='reduced'"),
        (2, "simplex", r"dim = 2 .*r = 4 .*\b3\b"),
        (2, "reduced", r"dim = 2 .*r = 3 rows"),
        (4, torch.zeros(3, 4), r"frame .*\(3, 4\).* zero"),
        (4, torch.eye(3), r"frame has shape \(3, 3\); it must be .*\b4\b"),
        (4, torch.full((3, 4), torch.nan), r"frame holds 12 value\(s\)"),
        (4, torch.ones(3, 4, dtype=torch.int64), r"frame .*int64"),
        (4, [[1, "a"]], r"frame is a sequence of 1; pass a pair"),
        (4, (simplex_etf(4), 3 * [[0.0]]), r"frame has shape \(3, 1\); it must be .*\b4\b"),
        (4, (simplex_etf(4), simplex_etf(4, reduced=True)), r"pair of shapes \(4, 4\) and \(3, 4\)"),
        (4, {}, r"frame must be a matrix, a Frame, a pair of them or a name; got dict"),
        (4, "seli", r"depends on the numbers of samples; pass counts="),
    ],
)
def test_frames_that_do_not_fit_a_head_are_refused(dim, frame, message, head):
    refused(message, head, dim, 4, frame=frame)


@pytest.mark.parametrize("delta", [-1.0, math.nan, math.inf, "1", None, True])
def test_a_head_with_no_usable_delta_is_refused(delta):
    refused(r"delta must be", NearestETFHead, 4, 3, delta=delta)


@pytest.mark.parametrize("averaging", ["Paper", "", 0, -0.1, 1.5, math.nan, True, ["paper"]])
@pytest.mark.parametrize("make", [paper_means, paper_nearest])
def test_an_unknown_averaging_rule_is_refused_with_the_known_ones(make, averaging):
    refused("averaging (=|must be) .*paper.*cumulative", make, 4, 3, averaging=averaging)


def test_class_means_without_a_rule_are_refused():
    refused("averaging must be", paper_means, 4, 3, averaging=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"averaging": 0.5}, r"averaging = 0\.5 is a rule of statistics='paper'; pass that too, or memory="),
        ({"statistics": "paper", "memory": 9.0}, r"memory = 9\.0 is an option of statistics='running'; leave it out"),
        ({"statistics": "both"}, r"statistics = 'both' is not known; choose one of: running, paper"),
        ({"statistics": None}, r"statistics = None is not known"),
        *(({"memory": m}, "memory must be") for m in (0, -1.0, math.nan, -math.inf, "64", True)),
    ],
)
def test_statistics_that_make_no_sense_are_refused(options, message):
    refused(message, NearestETFHead, 4, 3, **options)


X, Y = torch.linspace(-1, 2, 24).reshape(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])


def spoiled(X: torch.Tensor, value: float) -> torch.Tensor:
    return X.index_fill(0, torch.tensor([2]), value)


BATCHES = {
    "features too wide": (torch.ones(6, 5), Y, r"features ha(s|ve) shape \(6, 5\).*\(n, 4\)"),
    "one feature vector": (torch.ones(5), torch.tensor(0), r"features ha(s|ve) shape \(5,\).*\(\.\.\., 4\)"),
    "no axis": (torch.ones(()), torch.tensor(0), r"features ha(s|ve) shape \(\).*\(\.\.\., 4\)"),
    "tokens with labels of images": (X.reshape(2, 3, 4), Y[:2], r"labels has shape \(2,\); it must be \(2, 3\), one"),
    "images": (torch.ones(6, 4, 1, 1), Y, r"features ha(s|ve) shape \(6, 4, 1, 1\).*movedim\(1, -1\)"),
    "integer features": (torch.ones(6, 4, dtype=torch.int64), Y, r"features .*int64.*\.float\(\)"),
    "complex features": (torch.ones(6, 4) + 0j, Y, r"features .*complex64"),
    "an array of features": (X.numpy(), Y, r"features must be a .*tensor; got ndarray"),
    "NaN": (spoiled(X, math.nan), Y, r"features holds 4 value\(s\) .*NaN or infinite, the first at \(2, 0\)"),
    "infinity": (spoiled(X, -math.inf), Y, r"features holds 4 value\(s\) .*the first at \(2, 0\)"),
    "a label too large": (X, torch.tensor([0, 1, 2, 3, 1, 2]), r"labels holds .*3\b"),
    "a negative label": (X, torch.tensor([0, 1, 2, 0, -1, 2]), r"labels holds .*-1\b"),
    "too few labels": (X, Y[:5], r"labels ha(s|ve) shape \(5,\).*\(6,\)"),
    "a list of labels": (X, Y.tolist(), r"labels must be a .*tensor.*list"),
}


@pytest.mark.parametrize("head", [*HEADS, *MEANS])
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("case", BATCHES)
def test_a_batch_that_cannot_be_used_is_refused_and_changes_no_bit(case, steps, head):
    features, labels, message = BATCHES[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = head(4, 3)
    for _ in range(steps):
        module(X, Y)
    before = copy.deepcopy(module.state_dict())
    refused(message, module, features, labels)
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("make", [*NEAREST, *MEANS])
def test_training_without_labels_is_refused_with_the_remedy(make):
    refused(r"labels are required in training.*head\.eval\(\)", make(4, 3), X)


@pytest.mark.parametrize("head", [*HEADS])
def test_labels_are_checked_in_evaluation_too_where_given(head):
    refused(r"labels ha(s|ve) shape", head(4, 3).eval(), X, Y[:5])
