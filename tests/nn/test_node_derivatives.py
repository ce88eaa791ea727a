"""The node by each method: the direction that the simplex does not see, derivatives, batches, dtypes and heads."""

import functools

import numpy as np
import pytest

from etfopt.adjoint import polar_derivative
from tests.tools.blind import blind
from tests.tools.strategies import means_with, orthonormal, with_spectrum

torch = pytest.importorskip("torch")
from etfopt.nn import NearestETFHead
from etfopt.nn.functional import frame_tensor, nearest_etf, polar_factor
from tests.tools.node_cases import DTYPES, METHODS, SPECTRA, looking, norm, numpy

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]

# --- the direction that the simplex does not see ------------------------------------------------------------------


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("d", [4, 5, 9])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_without_a_proximal_term_u_is_on_the_manifold_and_the_etf_is_the_nearest(method, dtype, d, seen, rng):
    H = torch.tensor(means_with(with_spectrum(d, np.array([1.0, 0.7, 0.2]), rng)), dtype=dtype, requires_grad=True)
    G, u = torch.tensor(rng.standard_normal((d, 4)), dtype=dtype), torch.finfo(dtype).eps
    reduced = frame_tensor(4, H, reduced=True)

    def etf_and_slope(F: torch.Tensor, *arguments, **options) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        U = nearest_etf(H, *arguments, **options)
        return U, U @ F, torch.autograd.grad(U @ F, H, G)[0]

    _, etf, slope = etf_and_slope(reduced, frame=reduced, method="svd")
    find = functools.partial(etf_and_slope, frame_tensor(4, H), method=method)
    for arguments in ((), (torch.eye(d, 4, dtype=dtype), 0.0)):
        with looking(seen):
            U, found, found_slope = find(*arguments)
        assert torch.linalg.matrix_norm(U.mT @ U - torch.eye(4, dtype=dtype)) <= 10 * 4 * u
        torch.testing.assert_close(found, etf, rtol=0, atol=100 * u)
        torch.testing.assert_close(found_slope, slope, rtol=0, atol=2000 * u)


@pytest.mark.parametrize("d", [4, 9])
def test_means_on_the_axes_leave_room_for_the_hidden_direction(d):
    for k in range(2, 5):
        # the centred means span the first k - 1 axes, so that the first one leaves no room; or the last k together
        for H in (means_with(np.eye(d, k - 1)), np.eye(d, k)[::-1].copy()):
            with blind():
                U = nearest_etf(torch.tensor(H), method="newton-schulz")
            assert torch.linalg.matrix_norm(U.mT @ U - torch.eye(k, dtype=torch.float64)) <= 1e-14


UNSEEN, SEEN = (1e-1, 1e-2, 1e-3), (1e-1, 1e-3, 1e-5, 1e-8, 1e-11)  # unseen, a method may refuse the faintest ones


@pytest.mark.parametrize(("delta", "seen"), [*((x, False) for x in UNSEEN), *((x, True) for x in SEEN)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_a_small_proximal_weight_does_not_leak_into_losses_of_the_etf(method, dtype, delta, seen, rng):
    H = torch.tensor(means_with(with_spectrum(6, SPECTRA["generic"], rng)), dtype=dtype)
    H /= torch.linalg.matrix_norm(H)
    prox, T = nearest_etf(H), torch.tensor(rng.standard_normal((6, 4)), dtype=dtype)

    def slope(*arguments) -> torch.Tensor:
        leaf = H.clone().requires_grad_()
        F = arguments[-1] if arguments else frame_tensor(4, leaf)
        with looking(seen):
            ((nearest_etf(leaf, *arguments, method=method) @ F) * T).sum().backward()
        return leaf.grad.double()

    plain, pulled = slope(None, 0.0, frame_tensor(4, H, reduced=True)), slope(prox, delta, frame_tensor(4, H))
    allowed = 30 * delta + (1e-6 if dtype == torch.float64 else 1e-4)
    assert torch.linalg.matrix_norm(pulled - plain) <= allowed * torch.linalg.matrix_norm(plain)


# --- batches, dtypes, layouts, modes ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_members(method, batch, rng):
    H = torch.tensor(rng.standard_normal((*batch, 6, 4)))
    prox = torch.tensor(orthonormal(6, 4, rng))
    for arguments in ((), (prox, 0.1)):
        with blind():
            U = nearest_etf(H, *arguments, method=method)
            members = [nearest_etf(h, *arguments, method=method) for h in H.reshape(-1, 6, 4)]
        assert U.shape == (*batch, 6, 4)
        for u, member in zip(U.reshape(-1, 6, 4), members, strict=True):
            torch.testing.assert_close(u, member, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_mapped_matrices_give_the_members_and_their_gradients(method, rng):
    A = torch.tensor(with_spectrum(6, np.array([1.0, 0.6, 0.3]), rng)) * torch.tensor([1.0, 2.0])[:, None, None]
    A = A + 0.1 * torch.tensor(rng.standard_normal((2, 6, 3)))

    def loss(X: torch.Tensor) -> torch.Tensor:
        return polar_factor(X, method).pow(3).sum()

    expected = torch.stack([torch.func.grad(loss)(X) for X in A])
    torch.testing.assert_close(torch.vmap(torch.func.grad(loss))(A), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_low_precision_is_computed_in_single_under_autocast_too(method, dtype, rng):
    H = torch.tensor(rng.standard_normal((6, 4)), dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        U = nearest_etf(H, torch.eye(6, 4, dtype=dtype), 0.1, method=method)
        slope = torch.autograd.grad(U.sum(), H)[0]
    assert U.dtype == slope.dtype == dtype
    leaf = H.detach().float().requires_grad_()
    single = nearest_etf(leaf, torch.eye(6, 4), 0.1, method=method)
    assert torch.equal(U, single.to(dtype))
    torch.testing.assert_close(slope, torch.autograd.grad(single, leaf, torch.ones(6, 4))[0].to(dtype))


@pytest.mark.parametrize("method", METHODS)
def test_the_memory_layout_does_not_matter(method, rng):
    X = torch.tensor(rng.standard_normal((4, 6)))
    for H in (X.mT, torch.stack([X.mT, X.mT], dim=-1)[..., 0], X.mT.expand(3, 6, 4)[1]):
        plain = H.clone(memory_format=torch.contiguous_format)
        expected = nearest_etf(plain, method=method)
        torch.testing.assert_close(nearest_etf(H, method=method), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_a_head_takes_the_method_and_trains_as_by_any_other(method, rng):
    features, labels = torch.tensor(rng.standard_normal((3, 24, 7)) + 0.3), torch.arange(24) % 4
    head, twin = (NearestETFHead(7, 4, delta=0.05, method=name).double() for name in (method, "svd"))
    for x in features:
        leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        with blind():
            torch.nn.functional.cross_entropy(head(leaf, labels), labels).backward()
        torch.nn.functional.cross_entropy(twin(other, labels), labels).backward()
        torch.testing.assert_close(leaf.grad, other.grad, rtol=0, atol=1e-10)
    torch.testing.assert_close(head.weight, twin.weight, rtol=0, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_a_device_gives_the_factor_and_gradient_of_the_core(method, dtype, device, rng):
    A = numpy(torch.tensor(with_spectrum(20, np.geomspace(1, 0.1, 8), rng), dtype=dtype))
    leaf = torch.tensor(A, dtype=dtype, device=device, requires_grad=True)
    G = rng.standard_normal((20, 8))
    U = polar_factor(leaf, method)
    slope = torch.autograd.grad(U, leaf, torch.tensor(G, dtype=dtype, device=device))[0]
    P, _, Qh = np.linalg.svd(A, full_matrices=False)
    u = torch.finfo(dtype).eps
    assert norm(numpy(U) - P @ Qh) <= 10 * 8 * u * 10
    exact = polar_derivative(A, P @ Qh, G)
    assert norm(numpy(slope) - exact) <= 20 * 8 * u * 10 * norm(exact)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_products_alone_do_not_wait(rng):
    H = torch.tensor(rng.standard_normal((9, 4)), device="cuda", requires_grad=True)
    nearest_etf(H, method="newton-schulz").sum().backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        nearest_etf(H, method="newton-schulz").sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
