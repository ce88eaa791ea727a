"""The node with held classes: vertices that stay, the best place for the others, derivatives, and bad input."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt import InputError, NearestETF, certify, simplex_etf, solve
from etfopt.adjoint import nearest_etf_vjp
from tests.tools import oracles
from tests.tools.blind import blind
from tests.tools.strategies import orthonormal

torch = pytest.importorskip("torch")
from torch.autograd import gradcheck, gradgradcheck

from etfopt.nn.functional import frame_tensor, nearest_etf, polar_factor
from etfopt.nn.minimiser._held import as_held
from tests.tools.node_cases import DTYPES, METHODS, looking, norm, numpy

Tensor = torch.Tensor
CROSS = np.concatenate([np.eye(4), -np.eye(4)], axis=1) / np.sqrt(8)  # opposite vertices depend on each other


def frames(C: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"simplex": simplex_etf(C), "reduced": simplex_etf(C, reduced=True), "any": orthonormal(C, C - 1, rng).T}


@st.composite
def problems(draw):
    """A problem of the core with weights and held classes, of any size and shape with room for it."""
    C, rng = draw(st.integers(3, 7)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind, dtype = draw(st.sampled_from(["simplex", "reduced", "any"])), draw(st.sampled_from([np.float32, np.float64]))
    F = frames(C, rng)[kind]
    d = len(F) + draw(st.sampled_from([0, 1, 6]))
    hold = rng.permutation(C)[: draw(st.integers(1, C - 2))].tolist()
    U0 = np.linalg.svd(rng.standard_normal((d, len(F))), full_matrices=False)
    scale, proximal = 10.0 ** draw(st.sampled_from([0, -4, 4])), draw(st.booleans())
    prox, delta = (orthonormal(d, len(F), rng), 0.3 * scale) if proximal else (None, None)
    weights = draw(st.sampled_from([None, np.append(rng.uniform(0.3, 2, C - 1), 0.7)]))
    H = scale * rng.standard_normal((d, C))
    return NearestETF(
        H.astype(dtype),
        prox,
        delta,
        None if kind == "simplex" else F,
        weights=weights,
        hold=hold,
        hold_at=U0[0] @ U0[2],
    )


def arguments(problem: NearestETF) -> dict:
    dtype = torch.float32 if problem.dtype == np.float32 else torch.float64
    H, prox, weights = (
        None if X is None else torch.tensor(np.array(X), dtype=dtype, requires_grad=True)
        for X in (problem.H, problem.prox, problem.weights)
    )
    frame = None if problem.r == problem.C else torch.tensor(np.array(problem.F))
    held = {"hold": problem.held.classes, "hold_at": torch.tensor(np.array(problem.held.U0))}
    return {"H": H, "prox": prox, "delta": problem.delta, "frame": frame, "weights": weights, **held}


@pytest.mark.parametrize("method", METHODS)
@given(problems())
def test_held_vertices_stay_the_others_are_the_best_and_gradients_are_those_of_the_core(method, problem):
    given, unit, C = arguments(problem), problem.unit, problem.C
    U = nearest_etf(**given, method=method)
    moved = ((numpy(U) - problem.held.U0) @ problem.F)[:, list(problem.held.classes)]
    assert norm(moved) <= 10 * C * unit
    assert norm(numpy(U).T @ numpy(U) - np.eye(problem.r)) <= 10 * C * unit
    assert certify(problem, numpy(U)).relative_gap <= 10 * C * unit
    solution, G = solve(problem), np.random.default_rng(1).standard_normal((problem.d, C)) @ problem.F.T
    exact = nearest_etf_vjp(problem, solution.U, G)
    names = [name for name in ("H", "prox", "weights") if given[name] is not None]
    slopes = torch.autograd.grad(U, [given[name] for name in names], torch.tensor(G, dtype=U.dtype))
    s = np.linalg.svd(problem.free.linear_term, compute_uv=False)
    s = s[:-1] if problem.prox is None and problem.r == C else s  # no term sees the last direction
    unit *= C * (np.linalg.norm(problem.linear_term, 2) / s[-1]) * norm(G) / s[-1]
    sizes = {"H": 4 * norm(problem.F), "prox": problem.delta, "weights": 4 * norm(problem.H) * norm(problem.F)}
    for name, slope in zip(names, slopes, strict=True):
        assert norm(numpy(slope) - getattr(exact, name)) <= 20 * unit * sizes[name]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_minimiser_is_that_of_the_smaller_problem_to_sixty_digits_rounded(dtype, method, rng):
    F, hold = np.float32(simplex_etf(5, reduced=True)), [3, 0]
    H, U0 = np.float32(rng.standard_normal((7, 5))), torch.tensor(orthonormal(7, 4, rng), dtype=dtype)
    given = torch.tensor(H, dtype=dtype), torch.tensor(F, dtype=dtype)
    U = nearest_etf(given[0], frame=given[1], hold=hold, hold_at=U0, method=method)
    # by Gram-Schmidt, and a projection in place of a basis
    Q_held, Q_free = _bases(oracles.exact(F), hold)
    V = oracles.exact(numpy(U0)) * Q_held
    A = 2 * oracles.exact(H) * oracles.exact(F).T * Q_free
    free, _, s = oracles.exact_polar(A - V * (V.T * A))
    exact = oracles.rounded(V * Q_held.T + free * Q_free.T)
    assert norm(numpy(U) - exact) <= 10 * 5 * torch.finfo(dtype).eps * float(s[-1] / s[0])


def _bases(F, hold):
    order = [*hold, *(c for c in range(F.cols) if c not in hold)][: F.rows]
    Q = oracles.mp.qr(oracles.mp.matrix([[F[i, c] for c in order] for i in range(F.rows)]))[0]
    return Q[:, : len(hold)], Q[:, len(hold) :]


@pytest.mark.parametrize("shape", [(9, 9, 3), (12, 5, 5), (4, 2, 1), (64, 40, 17)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_basis_that_is_never_formed_is_one_of_the_complement(shape, dtype, rng):
    d, r, k = shape
    if r == k:
        r += 1
    F, U0 = torch.tensor(orthonormal(r, r, rng), dtype=dtype), torch.tensor(orthonormal(d, r, rng), dtype=dtype)
    held = as_held(tuple(range(k)), U0, F, r, dtype)
    eye = torch.eye(d - k, dtype=dtype)
    B = (held.assembled(torch.eye(d - k, r - k, dtype=dtype)) - held.V @ held.Q_held.mT) @ held.Q_free
    tolerance = 20 * r * torch.finfo(dtype).eps
    torch.testing.assert_close(B.mT @ B, eye[: r - k, : r - k], rtol=0, atol=tolerance)
    torch.testing.assert_close(held.V.mT @ B, torch.zeros(k, r - k, dtype=dtype), rtol=0, atol=tolerance)
    X = torch.tensor(rng.standard_normal((d, r)), dtype=dtype)
    # part is the adjoint of what assembled adds
    Y = torch.tensor(rng.standard_normal((d - k, r - k)), dtype=dtype)
    added = held.assembled(Y) - held.V @ held.Q_held.mT
    torch.testing.assert_close((held.part(X) * Y).sum(), (X * added).sum(), rtol=0, atol=10 * d * tolerance)
    torch.testing.assert_close(held.part(added), Y, rtol=0, atol=10 * d * tolerance)


def test_vertices_may_be_held_in_any_place(rng):
    """The first rows of V vanish, or are a reflection, or V is its first axes."""
    H = torch.tensor(rng.standard_normal((6, 4)))
    F = frame_tensor(4, H, reduced=True)
    for rows, sign in itertools.product(([0, 1, 2], [3, 4, 5], [1, 0, 5]), (1, -1)):
        U0 = torch.zeros(6, 3, dtype=torch.float64)
        U0[rows, [0, 1, 2]] = sign
        U = nearest_etf(H, frame=F, hold=[0, 1], hold_at=U0)
        torch.testing.assert_close((U @ F)[:, :2], (U0 @ F)[:, :2], rtol=0, atol=1e-15)
        torch.testing.assert_close(U.mT @ U, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("hold", [[0, 4], [0, 4, 1, 5], [2, 6, 0]])
@pytest.mark.parametrize("seen", [True, False])
def test_held_columns_that_depend_on_each_other_count_once_and_unseen_are_nan(seen, hold, rng):
    H, U0 = torch.tensor(rng.standard_normal((6, 8))), torch.tensor(orthonormal(6, 4, rng))
    with looking(seen):
        if len(hold) == 4 and not seen:  # four columns would span all there is
            with pytest.raises(InputError, match="nothing is left free"):
                nearest_etf(H, frame=torch.tensor(CROSS), hold=hold, hold_at=U0)
            return
        U = nearest_etf(H, frame=torch.tensor(CROSS), hold=hold, hold_at=U0)
    if not seen:
        assert U.isnan().all()
        return
    problem = NearestETF(numpy(H), frame=CROSS, hold=hold, hold_at=numpy(U0))
    np.testing.assert_allclose(numpy(U), solve(problem).U, rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("framed", [False, True])
def test_derivatives_pass_the_checks_at_collapse_too(framed, method, rng):
    U0 = torch.tensor(orthonormal(6, 4, rng))
    F = frame_tensor(5, U0, reduced=True)
    collapsed = (U0 @ F).requires_grad_()  # the free vertices are where the held ones want them
    weights = torch.tensor([1.0, 2.0, 0.5, 1.5, 1.0], dtype=torch.float64, requires_grad=True)
    prox = torch.tensor(orthonormal(6, 4, rng), requires_grad=True)
    held = {"hold": [1, 4], "hold_at": U0, "method": method}
    if framed:
        cases = [(lambda H, w: nearest_etf(H, frame=F, weights=w, **held), (collapsed, weights))]
        cases += [(lambda H, P: nearest_etf(H, P, 0.2, F, **held), (collapsed, prox))]
    else:
        held["hold_at"] = torch.tensor(orthonormal(6, 5, rng))
        etf = frame_tensor(5, U0)
        cases = [(lambda H, w: nearest_etf(H, weights=w, **held) @ etf, (collapsed, weights))]
    for function, inputs in cases:
        assert gradcheck(function, inputs, check_forward_ad=True, fast_mode=True, atol=1e-4, rtol=1e-4)
        assert gradgradcheck(function, inputs, fast_mode=True, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("shapes", [((2, 6, 4), (6, 3)), ((6, 4), (2, 6, 3)), ((2, 1, 6, 4), (3, 6, 3))])
def test_a_batch_is_its_members_mapped_or_not(shapes, rng):
    H, U0 = torch.tensor(rng.standard_normal(shapes[0])), polar_factor(torch.tensor(rng.standard_normal(shapes[1])))
    F, hold = frame_tensor(4, H, reduced=True), torch.tensor([2, 0])
    found = nearest_etf(H, frame=F, hold=hold, hold_at=U0)
    whole = found.shape[:-2]
    H, U0 = H.expand(*whole, 6, 4), U0.expand(*whole, 6, 3)
    for index in np.ndindex(*whole):
        member = nearest_etf(H[index], frame=F, hold=[2, 0], hold_at=U0[index])
        torch.testing.assert_close(found[index], member, rtol=0, atol=1e-13)
    flat = H.reshape(-1, 6, 4), U0.reshape(-1, 6, 3)
    mapped = torch.vmap(lambda H, U0: nearest_etf(H, frame=F, hold=[2, 0], hold_at=U0))(*flat)
    torch.testing.assert_close(mapped, found.reshape(-1, 6, 3), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("framed", [False, True])
def test_the_means_of_held_classes_do_not_matter_however_large(framed, dtype, rng):
    H, F = (
        torch.tensor(rng.standard_normal((6, 5)), dtype=dtype),
        frame_tensor(5, torch.zeros(1, dtype=dtype), reduced=True),
    )
    U0 = torch.tensor(orthonormal(6, 4 if framed else 5, rng), dtype=dtype)
    given = {"frame": F if framed else None, "hold": [1, 3], "hold_at": U0}
    G, etf = torch.tensor(rng.standard_normal((6, 5)), dtype=dtype), F if framed else frame_tensor(5, H)
    found = []
    for size in (0.0, 1.0, 1e20):
        leaf = torch.where(torch.tensor([0, 1, 0, 1, 0]) == 1, size * H, H).requires_grad_()
        E = nearest_etf(leaf, **given) @ etf
        found.append((E, torch.autograd.grad(E, leaf, G)[0]))
    for E, slope in found[1:]:
        torch.testing.assert_close(E, found[0][0], rtol=0, atol=0)
        torch.testing.assert_close(slope, found[0][1], rtol=0, atol=0)
        assert not slope[:, [1, 3]].any()
    # with every free class masked nothing depends on H
    w = torch.tensor([0.0, 1, 0, 2, 0], dtype=dtype, requires_grad=True)
    leaf = H.clone().requires_grad_()
    for slope in torch.autograd.grad(nearest_etf(leaf, weights=w, **given) @ etf, (leaf, w), G):
        assert not slope.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_coarser_place_is_held_to_its_own_digits_and_u_is_on_the_manifold(dtype, rng):
    H, U0 = torch.tensor(rng.standard_normal((20, 8))), torch.tensor(orthonormal(20, 7, rng)).to(dtype)
    F = frame_tensor(8, H, reduced=True)
    for seen in (True, False):
        with looking(seen):
            U = nearest_etf(H, frame=F, hold=range(4), hold_at=U0)
        torch.testing.assert_close(U.mT @ U, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-14)
        moved = ((U - U0.double()) @ F)[:, :4]
        assert moved.norm() <= 10 * 8 * torch.finfo(dtype).eps
        assert moved.norm() >= 1e-9


def test_unseen_a_place_off_the_manifold_gives_nan_for_its_own_item(rng):
    H = torch.tensor(rng.standard_normal((2, 6, 4)), requires_grad=True)
    U0 = torch.stack([torch.tensor(orthonormal(6, 3, rng)), torch.tensor(rng.standard_normal((6, 3)))])
    with blind():
        U = nearest_etf(H, frame=frame_tensor(4, H, reduced=True), hold=[0], hold_at=U0)
        slope = torch.autograd.grad(U, H, torch.ones_like(U))[0]
    assert U[1].isnan().all()
    assert slope[1, :, 1:].isnan().all()
    assert U[0].isfinite().all()
    assert slope[0].isfinite().all()


H, U0 = torch.arange(24.0).reshape(6, 4).cos(), torch.eye(6, 4)
F = frame_tensor(4, H, reduced=True)
REFUSED = {
    "no place": ({"hold": [0]}, r"hold names 1 classes, and hold_at is missing; pass U_0 of shape \(6, 4\)"),
    "no classes": ({"hold_at": U0}, r"hold_at is given without hold; name the classes"),
    "none": ({"hold": [], "hold_at": U0}, r"hold names no class; leave out"),
    "out of range": ({"hold": [0, 4], "hold_at": U0}, r"hold names class 4, and H has the classes 0 to 3"),
    "negative": ({"hold": [-1], "hold_at": U0}, r"hold must be an integer of at least 0; got -1"),
    "twice": ({"hold": [1, 2, 1], "hold_at": U0}, r"hold names a class twice"),
    "a number": ({"hold": 1, "hold_at": U0}, r"hold must be a sequence of class indices; got 1"),
    "a mask": ({"hold": torch.ones(4) > 0, "hold_at": U0}, r"hold must be a 1-D tensor of class indices.*nonzero"),
    "too many": ({"hold": [0, 1, 2], "hold_at": U0}, r"the 3 classes of hold span .* nothing is left free"),
    "all": ({"hold": range(4), "hold_at": U0[:, :3], "frame": F}, r"the 4 classes of hold span"),
    "a shape": ({"hold": [0], "hold_at": U0.mT}, r"hold_at has shape \(4, 6\); it must end in \(6, 4\)"),
    "batches": (
        {"hold": [0], "hold_at": U0.expand(2, 6, 4), "prox": U0.expand(3, 6, 4)},
        r"prox has shape \(3, 6, 4\) and hold_at \(2, 6, 4\): the batches do not fit",
    ),
    "off the manifold": (
        {"hold": [0], "hold_at": 1.1 * U0},
        r"hold_at is off the manifold: \|\|U'U - I\|\| = 4\.2e-01.*pass .*polar_factor\(hold_at\)",
    ),
    "NaN": ({"hold": [0], "hold_at": U0 * torch.nan}, r"hold_at holds 24 value\(s\)"),
    "a gradient": ({"hold": [0], "hold_at": U0.clone().requires_grad_()}, r"hold_at requires a gradient"),
    "a learned frame": (
        {"hold": [0], "hold_at": U0[:, :3], "frame": F.clone().requires_grad_()},
        r"frame requires a gradient, and with hold it is a constant",
    ),
    "a column of zeros": (
        {"hold": [0], "hold_at": U0[:, :3], "frame": F * torch.tensor([0.0, 1, 1, 1])},
        r"columns of the frame are zero; leave them out",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_classes_that_cannot_be_held_are_refused(case):
    options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        nearest_etf(H, **options)
