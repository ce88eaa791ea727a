"""No gradient passes through an operation whose derivative at a tie or a kink is a matter of convention.

PyTorch may change the convention (2.14 did for the bounds of clamp), and what relies on it is wrong without a word.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from etfopt import simplex_etf
from etfopt._options import METHODS

torch = pytest.importorskip("torch")
from torch.nn.functional import cross_entropy

from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead, UnitFeatures
from etfopt.nn import functional as etf
from tests.tools.head_cases import LABELS, C, D, batch

KINKS = (
    *("Abs", "Amax", "Amin", "Ceil", "Clamp", "Cummax", "Cummin", "Floor", "Fmax", "Fmin", "Fmod", "Hard", "Kthvalue"),
    *("Max", "Median", "Min", "Relu", "Remainder", "Round", "Sgn", "Sign", "Sort", "Topk", "Trunc"),
)


def nodes(result: torch.Tensor) -> set[str]:
    """Return the names of the operations that the gradient of `result` passes through."""
    found, waiting = set(), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting.extend(earlier for earlier, _ in node.next_functions)
    return {type(node).__name__ for node in found}


def kinks(result: torch.Tensor) -> set[str]:
    return {name for name in nodes(result) if name.startswith(KINKS)}


def functions() -> Iterator[tuple[str, Callable[..., torch.Tensor]]]:
    yield "UnitFeatures", lambda x, _: UnitFeatures(5.0)(x)
    frame = torch.tensor(np.array(simplex_etf(C, reduced=True)), dtype=torch.float64)
    for method, F in itertools.product(METHODS, (None, frame)):
        prox = torch.eye(D, C if F is None else len(F), dtype=torch.float64)
        yield (
            f"nearest_etf-{method}-{'square' if F is None else 'reduced'}",
            lambda x, _, method=method, F=F, prox=prox: etf.nearest_etf(x[:C].mT, prox, 1e-3, F, method=method),
        )
    for method in METHODS:
        yield f"polar_factor-{method}", lambda x, _, method=method: etf.polar_factor(x[:C].mT, method=method)
    options = {
        "learned": LearnedHead(D, C),
        "fixed": FixedETFHead(D, C),
        "nearest": NearestETFHead(D, C),
        "shrunk": NearestETFHead(D, C, shrinkage=0.5, evaluation_shrinkage=0.01),
        "classify-first": NearestETFHead(D, C, classify_first=True),
    }
    for name, head in options.items():
        yield name, lambda x, y, head=head: head.double()(x, y)


@pytest.mark.parametrize("function", [pytest.param(function, id=name) for name, function in functions()])
def test_no_derivative_of_first_or_second_order_passes_through_a_kink(function, rng):
    x = batch(rng, dtype=torch.float64).requires_grad_()
    result = function(x, LABELS)
    assert not kinks(result)
    loss = cross_entropy(result, LABELS) if result.shape == (len(x), C) else result.square().sum() + result.sum()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    assert not kinks(first)


def test_the_walk_sees_a_kink_wherever_it_stands():
    x = torch.eye(3, requires_grad=True)
    assert kinks((x.clamp(min=1) * x).sum()) == {"ClampBackward1"}
    assert kinks(x.abs().amax(dim=1).sum()) == {"AbsBackward0", "AmaxBackward0"}
