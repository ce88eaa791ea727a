"""Bad input to the core is refused before anything is computed, naming the argument, the value and the remedy."""

import decimal
import fractions
import math
import re

import numpy as np
import pytest
import scipy.sparse

import etfopt
from etfopt import EtfoptError, InputError, NearestETF, certify, nearest_etf, polar_factor, random_stiefel, simplex_etf
from etfopt.adjoint import kkt_vjp, nearest_etf_jvp, nearest_etf_vjp, polar_derivative

H = np.arange(12.0).reshape(4, 3) % 5
PROX = np.eye(4, 3)


def holding(value: float, *where: tuple[int, int]) -> np.ndarray:
    X = H.copy()
    for index in where:
        X[index] = value
    return X


def refused(message: str, function, *arguments, **options) -> str:
    """Call the function and return the message of the exact class InputError, which must match."""
    with pytest.raises(InputError, match=message) as caught:
        function(*arguments, **options)
    assert type(caught.value) is InputError
    assert isinstance(caught.value, EtfoptError)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


class NotAnArray:
    """Fails in its conversion, in two lines and with an exception that nobody expects there, and has no repr."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise KeyboardError("the disk\nis gone.")

    def __repr__(self) -> str:
        raise KeyboardError("again")


class KeyboardError(Exception):
    pass


MEANS = {
    "a vector": (np.ones(4), r"H must be a matrix \(2-D\); got 1-D of shape \(4,\)"),
    "a number": (3.0, r"H must be a matrix \(2-D\); got 0-D"),
    "a stack": (np.ones((2, 4, 3)), r"H must be a matrix \(2-D\); got 3-D of shape \(2, 4, 3\)"),
    "no rows": (np.ones((0, 3)), r"H must not be empty; got shape \(0, 3\)"),
    "one class": (np.ones((4, 1)), r"H has shape \(4, 1\), so C = 1.*C >= 2"),
    "d = C - 1": (np.ones((3, 4)), r"d = 3 .*r = 4.*d = C-1 works with frame='reduced'.*pass H\.T"),
    "d much smaller": (
        np.ones((2, 7)),
        r"d = 2 .*r = 7 .*C = 7 vectors needs d >= C-1 = 6.*if its rows are, pass H\.T",
    ),
    "one nan": (holding(np.nan, (2, 1)), r"H holds 1 value\(s\).* first at \(2, 1\): nan; remove or replace"),
    "three infinities": (
        holding(-np.inf, (3, 0), (0, 2), (1, 1)),
        r"H holds 3 value\(s\).*first at \(0, 2\): -inf; remove or replace",
    ),
    "complex": (H + 1j, r"H has dtype complex128; pass real numbers of float32 or float64"),
    "objects": (H.astype(object), r"H has dtype object; pass real.*astype\(float\)"),
    "strings": (H.astype(str), r"H has dtype <U\d+; pass real"),
    "booleans": (H > 2, r"H has dtype bool; pass real"),
    "dates": (H.astype("datetime64[D]"), r"H has dtype datetime64\[D\]; pass real"),
    "nothing": (None, r"H has dtype object; got None of type NoneType; pass real numbers"),
    "nothing among numbers": (
        [[1.0, 2.0], [3.0, None]],
        r"H has dtype object.*the entry at \(1, 1\) is None of type No",
    ),
    "fractions": ([[fractions.Fraction(1, 3)] * 2] * 3, r"H has dtype object.*e\.g\. numpy\.array\(H, dtype=float\)"),
    "a list of strings": ([["1", "2"]] * 3, r"H has dtype <U1; pass real.*numpy\.array\(H, dtype=float\)"),
    "a string": ("means.npy", r"H has dtype <U9; got 'means\.npy' of type str; pass real numbers"),
    "a list of complex numbers": ([[1j, 2]] * 3, r"H has dtype complex128; pass real numbers.*numpy\.real\(H\)"),
    "no representation": (
        NotAnArray(),
        r"H cannot be read as an array: the disk is gone; got .*NotAnArray; pass a NumPy array",
    ),
    "ragged rows": ([[1.0, 2.0], [3.0]], r"H cannot be read as an array.*rows of equal length"),
    "masked": (np.ma.masked_equal(H, 0.0), r"H is a masked array; fill or drop.*H\.filled"),
    "sparse matrix": (scipy.sparse.csr_matrix(H), r"H is a sparse csr_matrix; pass H\.toarray\(\)"),
    "sparse array": (scipy.sparse.coo_array(H), r"H is a sparse coo_array; pass H\.toarray\(\)"),
}
if np.finfo(np.longdouble).bits > 64:
    MEANS["extended precision"] = (H.astype(np.longdouble), r"H has dtype float128; pass real.*astype\(float\)")


@pytest.mark.parametrize("function", [NearestETF, nearest_etf])
@pytest.mark.parametrize("case", MEANS)
def test_means_that_cannot_be_used_are_refused(case, function):
    assert "\n" not in refused(MEANS[case][1], function, MEANS[case][0])


@pytest.mark.parametrize(
    "case", ["a vector", "complex", "one nan", "masked", "sparse array", "strings", "no representation"]
)
def test_every_array_argument_is_checked_alike_under_its_own_name(case):
    bad, message = MEANS[case]
    problem = NearestETF(H)
    calls = {
        "A": lambda: polar_factor(bad),
        "V": lambda: problem.hessian_vector_product(bad),
        "X": lambda: polar_derivative(np.eye(4, 3), np.eye(4, 3), bad),
        "tangent": lambda: nearest_etf_jvp(problem, etfopt.solve(problem).U, bad),
        "prox": lambda: NearestETF(H, prox=bad, delta=1.0),
        "frame": lambda: NearestETF(H, frame=bad),
        "U": lambda: certify(problem, bad),
        "initial_point": lambda: nearest_etf(H, initial_point=bad),
        "cotangent": lambda: nearest_etf_vjp(problem, etfopt.solve(problem).U, bad),
    }
    calls_for_U = [lambda: problem.objective(bad), lambda: problem.gradient(bad), lambda: kkt_vjp(problem, bad, PROX)]
    for name, call in [*calls.items(), *(("U", call) for call in calls_for_U)]:
        refused(re.sub(r"\bH\b", name, message), call)


WRONG = np.ones((3, 4))
SHAPED = {
    "U": (certify, NearestETF.objective, NearestETF.gradient, lambda p, X: nearest_etf_vjp(p, X, PROX)),
    "V": (NearestETF.hessian_vector_product,),
    "cotangent": (lambda p, X: nearest_etf_vjp(p, PROX, X), lambda p, X: kkt_vjp(p, PROX, X)),
    "tangent": (lambda p, X: nearest_etf_jvp(p, PROX, X),),
    "initial_point": (lambda p, X: etfopt.solve(p, initial_point=X),),
}


@pytest.mark.parametrize("name", SHAPED)
def test_every_point_has_the_shape_of_its_problem(name):
    for call in SHAPED[name]:
        refused(rf"{name} has shape \(3, 4\); it must be \(4, 3\)", call, NearestETF(H), WRONG)


OPTIONS = {
    "prox of another shape": ({"prox": np.eye(4), "delta": 1.0}, r"prox has shape \(4, 4\); it must be \(4, 3\)"),
    "prox unused but wrong": ({"prox": np.eye(2)}, r"prox has shape \(2, 2\); it must be \(4, 3\)"),
    "delta without prox": ({"delta": 1e-3}, r"delta = 0\.001 needs a proximal point; pass prox of shape \(4, 3\)"),
    "delta negative": ({"prox": PROX, "delta": -1e-3}, r"delta must be finite and at least 0; got -0\.001"),
    "delta nan": ({"prox": PROX, "delta": math.nan}, r"delta must be finite and at least 0; got nan"),
    "delta infinite": ({"prox": PROX, "delta": math.inf}, r"delta must be finite and at least 0; got inf"),
    "delta too large an integer": ({"prox": PROX, "delta": 10**400}, r"delta must be finite"),
    "delta too large a fraction": ({"prox": PROX, "delta": fractions.Fraction(10**400, 3)}, r"delta must be finite"),
    "delta a string": ({"prox": PROX, "delta": "1e-3"}, r"delta must be a real number; got '1e-3' of type str"),
    "delta complex": ({"prox": PROX, "delta": 1j}, r"delta must be a real number; got 1j"),
    "delta a boolean": ({"prox": PROX, "delta": True}, r"delta must be a real number; got True of type bool"),
    "delta an array": ({"prox": PROX, "delta": np.ones(1)}, r"delta must be a real number"),
    "delta a decimal": ({"prox": PROX, "delta": decimal.Decimal(1)}, r"delta must be a real number.*Decimal"),
    "frame with other columns": ({"frame": np.eye(4)}, r"frame has shape \(4, 4\); it needs C = 3 columns"),
    "frame of zeros": ({"frame": np.zeros((2, 3))}, r"frame of shape \(2, 3\) is zero"),
    "weights of another length": ({"weights": [1, 2]}, r"weights has shape \(2,\); it must be \(3,\), one number a c"),
    "weights a matrix": ({"weights": np.ones((3, 1))}, r"weights has shape \(3, 1\); it must be"),
    "weights negative": ({"weights": [1, -2, -3]}, r"weights holds negative.*first of class 1: -2; pass 0 to leave a"),
    "weights nan": ({"weights": [1, np.nan, 1]}, r"weights holds 1 value\(s\) that are NaN.*first at 1: nan"),
    "weights infinite": ({"weights": [1, 1, np.inf]}, r"weights holds 1 value\(s\) that are NaN or infinite"),
    "weights all zero": ({"weights": [0, 0, 0]}, r"weights is zero for every class; give one class a positive"),
    "weights words": ({"weights": ["a", "b", "c"]}, r"weights has dtype <U1; pass real numbers"),
    "hold without a point": ({"hold": [0]}, r"hold = \[0\] needs a point to hold at; pass hold_at=U_0, .*solution\.U"),
    "a point without hold": ({"hold_at": PROX}, r"hold_at is given without hold; name the classes to hold"),
    "hold of no class": ({"hold": [], "hold_at": PROX}, r"hold names no class; leave it out"),
    "hold a class too large": ({"hold": [3], "hold_at": PROX}, r"hold names class 3, and H has the classes 0 to 2"),
    "hold a negative class": ({"hold": [-1], "hold_at": PROX}, r"hold must be an integer of at least 0; got -1"),
    "hold a class twice": ({"hold": [1, 1], "hold_at": PROX}, r"hold names a class twice"),
    "hold a fraction": ({"hold": [0.5], "hold_at": PROX}, r"hold must be an integer of at least 0; got 0\.5"),
    "hold a mask": ({"hold": [True, False, False], "hold_at": PROX}, r"hold must be an integer.*True \(bool\)"),
    "hold a number": ({"hold": 1, "hold_at": PROX}, r"hold must be a sequence of classes; got 1; pass e\.g\. range"),
    "hold an array of no axis": (
        {"hold": np.array(1), "hold_at": PROX},
        r"hold must be a sequence of classes; got arr",
    ),
    "hold a word": ({"hold": "01", "hold_at": PROX}, r"hold must be a sequence of classes; got '01'"),
    "hold every class": (
        {"hold": [0, 1, 2], "hold_at": PROX},
        r"the vertices of hold = \[0, 1, 2\] span what the frame spans",
    ),
    "hold all but one": ({"hold": [0, 1], "hold_at": PROX}, r"span what the frame spans: nothing is left.*hold fewer"),
    "hold a vertex of size zero": (
        {"hold": [2], "hold_at": np.eye(4, 2), "frame": np.eye(2, 3)},
        r"the vertices of hold = \[2\] span nothing; leave hold out",
    ),
    "hold at another shape": ({"hold": [0], "hold_at": np.eye(3)}, r"hold_at has shape \(3, 3\); it must be \(4, 3\)"),
    "hold off the manifold": (
        {"hold": [0], "hold_at": 1.01 * PROX},
        r"hold_at is not on the manifold: \|\|U'U - I\|\| = 3\.\de-02, and \d.* is allowed; pass etfopt\.polar_factor",
    ),
    "hold at nan": ({"hold": [0], "hold_at": np.full((4, 3), np.nan)}, r"hold_at holds 12 value\(s\) that are NaN"),
    "frame with too many rows": ({"frame": np.eye(5, 3)}, r"d = 4 .*r = 5 .*a frame with at most 4 rows is needed"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_cannot_be_used_are_refused(case):
    options, message = OPTIONS[case]
    refused(message, nearest_etf, H, **options)


def test_whatever_names_different_classes_can_be_held():
    at = np.eye(5, 4)
    for hold in ([0, 2], (0, 2), {0, 2}, range(0, 3, 2), np.array([0, 2]), iter([0, 2]), np.array([0, 2], np.uint8)):
        held = NearestETF(np.eye(5, 5), reduced=True, hold=hold, hold_at=at).held
        assert held is not None
        assert held.classes == (0, 2)


def test_a_tangent_of_the_weights_has_one_number_a_class():
    U = etfopt.solve(NearestETF(H)).U
    refused(r"weights_tangent has shape \(2,\); it must be \(3,\)", nearest_etf_jvp, NearestETF(H), U, H, [1, 2])


@pytest.mark.parametrize("delta", [0, 1, 0.5, np.float32(0.25), np.int64(2), fractions.Fraction(1, 3)])
def test_any_real_number_serves_as_delta(delta):
    assert NearestETF(H, prox=PROX, delta=delta).delta == float(delta)


@pytest.mark.parametrize("C", [1, 0, -3, 3.0, "3", True, None])
def test_a_number_of_classes_that_makes_no_simplex_is_refused(C):
    refused(rf"C must be an? integer.* at least 2.*got {re.escape(repr(C))}", simplex_etf, C)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, complex, "no such dtype", object()])
def test_a_frame_of_another_dtype_is_refused(dtype):
    refused(r"dtype must be float32 or float64", simplex_etf, 3, dtype=dtype)


@pytest.mark.parametrize(("d", "r"), [(2, 3), (3, 0), (0, 0), (3, -1)])
def test_sizes_of_no_stiefel_manifold_are_refused(d, r, rng):
    refused(rf"needs d >= r >= 1; got d = {d}, r = {r}", random_stiefel, d, r, rng)


@pytest.mark.parametrize("sizes", [(3.0, 2), (3, 2.0), ("3", 2), (None, 1)])
def test_sizes_that_are_no_integers_are_refused(sizes, rng):
    refused(r"St\(d, r\)|[dr] must be an integer", random_stiefel, *sizes, rng)


def test_a_wide_matrix_has_no_polar_factor_here():
    refused(r"A has shape \(2, 5\).*at least as many rows.*pass A\.T", polar_factor, np.ones((2, 5)))


@pytest.mark.parametrize(
    "call",
    [
        etfopt.solve,
        lambda H: certify(H, PROX),
        lambda H: nearest_etf_vjp(H, PROX, PROX),
        lambda H: nearest_etf_jvp(H, PROX, H),
        lambda H: kkt_vjp(H, PROX, PROX),
    ],
)
def test_a_matrix_in_place_of_a_problem_is_redirected(call):
    refused(r"problem must be a NearestETF; got ndarray.*use etfopt\.nearest_etf\(H\)", call, H)


@pytest.mark.parametrize("seed", [0, np.int64(0), [1, 2], np.random.SeedSequence(3), np.random.PCG64(4), None])
def test_anything_that_seeds_a_generator_draws_a_point(seed):
    U = random_stiefel(4, 3, seed)
    np.testing.assert_allclose(U.T @ U, np.eye(3), atol=1e-14)


def test_a_seed_repeats_and_a_generator_goes_on():
    generator = np.random.default_rng(7)
    first, second = random_stiefel(4, 3, rng=generator), random_stiefel(4, 3, rng=generator)
    np.testing.assert_array_equal(random_stiefel(4, 3, rng=7), first)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("seed", ["0", -1, 0.5, True, object()])
def test_what_seeds_no_generator_is_refused(seed):
    refused(r"rng must be a numpy\.random\.Generator or a seed, e\.g\. .*; got ", random_stiefel, 4, 3, seed)


def test_every_argument_that_draws_takes_a_seed():
    from etfopt.bench.problems import drifting_means
    from etfopt.bench.timing import linear_layer
    from etfopt.bench.units import means_and_prox

    np.testing.assert_array_equal(next(drifting_means(5, 3, 0)), next(drifting_means(5, 3, np.random.default_rng(0))))
    np.testing.assert_array_equal(means_and_prox(5, 3, "random", 0)[0], means_and_prox(5, 3, "random", 0)[0])
    assert linear_layer(5, 3, 0)()
    for call in (lambda s: next(drifting_means(5, 3, s)), lambda s: linear_layer(5, 3, s)):
        refused(r"rng must be a numpy\.random\.Generator or a seed", call, "zero")


def test_a_torch_tensor_is_sent_to_the_bridge():
    torch = pytest.importorskip("torch")

    class Subclass(torch.Tensor):
        pass

    for tensor in (torch.eye(3), torch.nn.Parameter(torch.eye(3)), torch.eye(3).as_subclass(Subclass)):
        refused(r"H is a torch tensor; use etfopt\.nn\.functional", nearest_etf, tensor)


def test_a_list_of_tensors_with_a_gradient_is_refused_with_the_remedy():
    torch = pytest.importorskip("torch")
    X = torch.eye(4, 3, requires_grad=True)
    for rows in (list(X), tuple(X), [X[0], [1.0, 2.0, 3.0]], [list(row) for row in X]):
        refused(
            r"H cannot be read.*e\.g\. \[x\.detach\(\)\.cpu\(\) for x in H\], or use etfopt\.nn\.f", nearest_etf, rows
        )
    assert nearest_etf([x.detach().cpu() for x in X]).converged


def test_tensors_on_another_device_are_refused_with_the_remedy():
    torch = pytest.importorskip("torch")
    refused(r"H cannot be read.*\.cpu\(\) for x in H", nearest_etf, list(torch.ones(4, 3, device="meta")))


def test_a_table_of_numbers_is_read_and_one_of_other_things_says_which():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(H)
    np.testing.assert_array_equal(nearest_etf(table).U, nearest_etf(H).U)
    table[1] = table[1].astype("Int64")
    np.testing.assert_array_equal(NearestETF(np.array(table, dtype=float)).H, H)
    table[0] = ["a", "b", "c", "d"]
    refused(r"H has dtype object.*the entry at \(0, 0\) is 'a' of type str", nearest_etf, table)
