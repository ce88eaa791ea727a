"""One problem on the CPU, whose linear term, polar factor and derivative are one node of autograd.

A batch of one goes the long way, through a node for each, and is the reference here.
"""

import numpy as np
import pytest

from etfopt import InputError
from tests.tools.strategies import orthonormal

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode

from etfopt.nn.functional import frame_tensor, nearest_etf, on_frame
from etfopt.nn.minimiser import _single
from etfopt.nn.polar._few import FEW
from tests.tools.node_cases import DTYPES

SHAPES = {"few": (9, 4), "square": (5, 5), "some": (60, 40), "many": (130, 100)}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> tuple[int, int]:
    return SHAPES[request.param]


def draw(shape: tuple[int, int], rng: np.random.Generator, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Class means, a proximal point that is their U up to a turn, and a cotangent."""
    H, G = (torch.tensor(rng.standard_normal(shape), dtype=dtype) for _ in range(2))
    prox = nearest_etf(H, torch.tensor(orthonormal(*shape, rng), dtype=dtype), 0.1)
    return [H / torch.linalg.matrix_norm(H), prox, G]


def both(function, H: torch.Tensor, prox: torch.Tensor, *arguments) -> tuple[list, list]:
    """What a function returns for the node of one problem, and for a batch of one."""
    found = []
    for batch in ((), (1,)):
        leaf, pull = (X.detach().expand(*batch, *X.shape).clone().requires_grad_() for X in (H, prox))
        found.append([X.reshape(H.shape) for X in function(leaf, pull, *arguments)])
    return found[0], found[1]


def slopes(H: torch.Tensor, prox: torch.Tensor, frame: torch.Tensor | None, G: torch.Tensor) -> tuple:
    U = nearest_etf(H, prox, 0.05, frame)
    return U, *torch.autograd.grad(U, (H, prox), G.expand(U.shape))


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_problem_is_a_batch_of_one_in_value_and_gradients(shape, dtype, framed, rng):
    H, prox, G = draw(shape, rng, dtype)
    frame = torch.tensor(orthonormal(shape[1], shape[1], rng).T.copy(), dtype=dtype) if framed else None
    for single, batched in zip(*both(slopes, H, prox, frame, G), strict=True):
        rounding = 200 * shape[1] * torch.finfo(dtype).eps * float(batched.detach().norm())
        torch.testing.assert_close(single, batched, rtol=0, atol=rounding)


def slopes_of_means(H: torch.Tensor, prox: torch.Tensor, pulled: bool, frame: torch.Tensor | None) -> tuple:
    """The first and second derivatives where the proximal point has none, or is not there."""
    U = nearest_etf(H, *((prox.detach(), 0.05) if pulled else (None, None)), frame)
    loss = on_frame(U, frame).pow(3).sum()  # blind to the direction that means without a proximal point leave open
    first, (plain,) = (
        torch.autograd.grad(loss, H, create_graph=True)[0],
        torch.autograd.grad(loss, H, retain_graph=True),
    )
    return plain, first, *torch.autograd.grad(first.pow(2).sum(), H)


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("pulled", [False, True])
def test_the_means_alone_have_the_derivatives_of_a_batch_of_one(shape, pulled, framed, rng):
    H, prox, _ = draw(shape, rng)
    frame = torch.tensor(orthonormal(shape[1], shape[1], rng).T.copy()) if framed else None
    for single, batched in zip(*both(slopes_of_means, H, prox, pulled, frame), strict=True):
        torch.testing.assert_close(single, batched, rtol=0, atol=1e-9 * float(batched.detach().norm()))


def turns(H: torch.Tensor, prox: torch.Tensor, G: torch.Tensor) -> tuple:
    U = nearest_etf(H, prox, 0.3)
    inner = torch.autograd.grad(U.pow(3).sum(), (H, prox), create_graph=True)
    return torch.autograd.grad(sum((X * G).sum() for X in inner), (H, prox))


def test_second_derivatives_are_those_of_a_batch_of_one(shape, rng):
    H, prox, G = draw(shape, rng)
    for single, batched in zip(*both(turns, H, prox, G), strict=True):
        torch.testing.assert_close(single, batched, rtol=0, atol=1e-9 * float(batched.norm()))


def test_mapped_cotangents_give_the_gradients_of_each(shape, rng):
    H, prox, G = draw(shape, rng)
    H.requires_grad_()
    U, cotangents = nearest_etf(H, prox, 0.3), torch.stack([G, G.flip(0), G * G])
    mapped = torch.autograd.grad(U, H, cotangents, is_grads_batched=True, retain_graph=True)[0]
    each = [torch.autograd.grad(U, H, cotangent, retain_graph=True)[0] for cotangent in cotangents]
    torch.testing.assert_close(mapped, torch.stack(each), rtol=0, atol=1e-13 * float(mapped.norm()))


def test_gradients_of_a_batch_of_many_columns_are_those_of_its_members(rng):
    drawn = [draw(SHAPES["some"], rng) for _ in range(2)]
    H, prox, G = (torch.stack(X) for X in zip(*drawn, strict=True))
    H.requires_grad_()
    batch = torch.autograd.grad(nearest_etf(H, prox, 0.3), H, G)[0]
    for slope, (means, pull, cotangent) in zip(batch, drawn, strict=True):
        means.requires_grad_()
        member = torch.autograd.grad(nearest_etf(means, pull, 0.3, method="svd"), means, cotangent)[0]
        torch.testing.assert_close(slope, member, rtol=0, atol=1e-12 * float(member.norm()))


def test_a_frame_that_is_learned_gets_its_gradient(rng):
    H, prox, G = draw((9, 4), rng)
    frame = frame_tensor(4, H).requires_grad_()
    slope = torch.autograd.grad(nearest_etf(H, prox, 0.3, frame), frame, G)[0]
    torch.testing.assert_close(slope, torch.autograd.grad(nearest_etf(H[None], prox, 0.3, frame), frame, G[None])[0])
    assert slope.abs().max() > 0


@pytest.mark.parametrize("create_graph", [False, True])
def test_what_went_in_may_be_overwritten_before_the_backward_pass(create_graph, rng):
    H, prox, G = draw((9, 4), rng)
    leaf = H.clone().requires_grad_()
    expected = torch.autograd.grad(nearest_etf(leaf, prox, 0.3), leaf, G)[0]
    given = 1 * leaf
    U = nearest_etf(given, prox, 0.3)
    prox.zero_()
    given.detach().zero_()
    torch.testing.assert_close(torch.autograd.grad(U, leaf, G, create_graph=create_graph)[0], expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_value_that_is_not_finite_is_overlooked(shape, dtype, bad, rng):
    frame = torch.eye(shape[1], dtype=dtype)
    for position, name in enumerate(("H", "prox", "frame")):
        given = [*draw(shape, rng, dtype)[:2], frame.clone()]
        given[position][3, 2] = bad  # LAPACK has returned finite eigenvalues for matrices with one such column
        for F in (None, given[2])[name == "frame" :]:
            with pytest.raises(InputError, match=rf"{name} holds 1 value\(s\) .* first at \(3, 2\)"):
                nearest_etf(given[0], given[1], 0.1, F)


@pytest.mark.parametrize("dtype", DTYPES)
def test_means_of_any_size_have_the_same_minimiser_and_a_gradient_that_is_inverse_to_it(shape, dtype, rng):
    H, prox, G = draw(shape, rng, dtype)

    def found(size: float) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = (size * H).requires_grad_()
        U = nearest_etf(leaf, prox, 0.05 * size)
        return U.detach(), size * torch.autograd.grad(U, leaf, G)[0]

    (U, slope), rounding = found(1.0), 200 * shape[1] * torch.finfo(dtype).eps
    for size in (2.0**-100, 2.0**-24, 2.0**24, 2.0**100):
        other, other_slope = found(size)
        torch.testing.assert_close(other, U, rtol=0, atol=rounding)
        torch.testing.assert_close(other_slope, slope, rtol=0, atol=rounding * float(slope.norm()))


class Dispatched(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_one_problem_takes_one_node_and_few_operations(shape, rng):
    H, prox, G = draw(shape, rng, torch.float32)
    H.requires_grad_()
    with Dispatched() as dispatched:
        U = nearest_etf(H, prox, 0.05)
        torch.autograd.grad(U, H, G)
    assert U.grad_fn.name() == f"{_single._Node.__name__}Backward"
    assert dispatched.count <= (20 if shape[1] < FEW else 95)  # few columns are a matter of NumPy


def test_one_set_of_means_may_have_many_proximal_points(rng):
    H, prox, _ = draw((9, 4), rng)
    U = nearest_etf(H, torch.stack([prox, prox.flip(1)]), 0.3)
    torch.testing.assert_close(U, torch.stack([nearest_etf(H, pull, 0.3) for pull in (prox, prox.flip(1))]))
