"""Products of float32 in the node are products in float32, or better, whatever PyTorch allows the network."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch.utils._python_dispatch import TorchDispatchMode

from etfopt import _torch
from etfopt.nn.functional import frame_tensor, nearest_etf, polar_factor
from tests.tools.node_cases import METHODS


class Precisions(TorchDispatchMode):
    """Notes what float32 is allowed to be in every product of matrices of float32."""

    def __init__(self):
        super().__init__()
        self.seen: list[tuple[str, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "mm" in func.overloadpacket.__name__ and args[0].dtype == torch.float32:
            self.seen.append(_torch._precisions())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def medium() -> Iterator[tuple[str, ...]]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield _torch._precisions()
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("columns", [4, 70])
@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_products_are_those_of_float32_whatever_the_network_allows(method, framed, columns, medium, rng):
    H, prox, G = (torch.tensor(rng.standard_normal((90, columns)), dtype=torch.float32) for _ in range(3))
    H.requires_grad_()
    frame = frame_tensor(columns, H.detach()) if framed else None
    with Precisions() as noted:
        U = nearest_etf(H, polar_factor(prox, method), 0.3, frame, method=method)
        torch.autograd.grad(U, H, G)
    assert set(noted.seen) == {_torch.EXACT}
    assert _torch._precisions() == medium


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("columns", [4, 70])
@pytest.mark.parametrize("kind", ["with a proximal point", "with a frame", "with a null direction"])
@pytest.mark.parametrize("method", METHODS)
def test_so_are_those_of_second_derivatives_which_are_as_exact(method, kind, columns, rng):
    H = torch.tensor(rng.standard_normal((90, columns)), dtype=torch.float32)
    prox = polar_factor(H.flip(0)) if kind == "with a proximal point" else None
    frame = frame_tensor(columns, H, reduced=True) if kind == "with a frame" else None

    def turned() -> torch.Tensor:
        leaf = H.clone().requires_grad_()
        U = nearest_etf(leaf, prox, None if prox is None else 3.0, frame, method=method)
        (slope,) = torch.autograd.grad(U.pow(3).sum(), leaf, create_graph=True)
        return torch.autograd.grad(slope.pow(2).sum(), leaf)[0]

    with Precisions() as noted:
        found = turned()
    assert set(noted.seen) <= {_torch.EXACT}
    torch.set_float32_matmul_precision("highest")
    exact = turned()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-4 * columns * float(exact.norm()))


# tracers and compilers warn of what they meet on the way, differently from version to version
@pytest.mark.usefixtures("medium")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_graph_computes_in_float64_where_float32_would_be_rounded(method, rng):
    products: list[torch.dtype] = []

    def note(graph, _inputs):
        products.extend(node.meta["val"].dtype for node in graph.graph.nodes if "mm" in str(node.target))
        return make_boxed_func(graph.forward)

    H = torch.tensor(rng.standard_normal((9, 4)), dtype=torch.float32, requires_grad=True)
    frame = frame_tensor(4, H.detach(), reduced=True)
    compiled = torch.compile(
        lambda X: nearest_etf(X, frame=frame, method=method),
        backend=aot_autograd(fw_compiler=note, bw_compiler=note),
        fullgraph=True,
    )
    U = compiled(H)
    U.sum().backward()
    assert U.dtype == H.grad.dtype == torch.float32
    assert set(products) == {torch.float64}


@pytest.mark.usefixtures("medium")
@pytest.mark.filterwarnings("ignore")
def test_so_does_one_that_is_traced(rng):
    H = torch.tensor(rng.standard_normal((9, 4)), dtype=torch.float32)
    traced = torch.jit.trace(lambda X: nearest_etf(X, prox=torch.eye(9, 4), delta=1.0), H, check_trace=False)
    assert re.search(r"Double\(9, 4[^)]*\).* = \^_Polar", str(traced.inlined_graph))
    torch.testing.assert_close(traced(H), nearest_etf(H, prox=torch.eye(9, 4), delta=1.0), rtol=0, atol=1e-5)


def test_what_was_allowed_is_allowed_again_after_an_error_and_after_nested_regions(medium):
    X = torch.ones(2, 2)
    with _torch.full_precision(X):
        with pytest.raises(ZeroDivisionError), _torch.full_precision(X):
            1 / 0  # noqa: B018 - to leave by an error
        assert _torch._precisions() == _torch.EXACT
    assert _torch._precisions() == medium
    assert torch.get_float32_matmul_precision() == "medium"


def test_a_backend_that_follows_the_setting_of_all_follows_it_afterwards():
    # in a process of its own, for what a backend was told by name cannot be untold
    program = """
import torch
from etfopt import _torch
from etfopt.nn.functional import polar_factor
torch.backends.fp32_precision = "tf32"
assert _torch._precisions() == ("tf32", "tf32")
with _torch.full_precision(torch.ones(2)):
    assert _torch._precisions() == ("ieee", "ieee")
polar_factor(torch.eye(3))
assert _torch._precisions() == ("tf32", "tf32")
torch.backends.fp32_precision = "ieee"
assert _torch._precisions() == ("ieee", "ieee")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
