"""Where a factorisation fails, a value cannot be looked at or a disk is full: the same answer, or one plain error."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from etfopt import InputError, NearestETF, nearest_etf, simplex_etf, solve
from etfopt.adjoint import nearest_etf_vjp
from etfopt.files import StorageError, save_solution
from etfopt.polar._gram import Unsuitable
from etfopt.solvers.procrustes import Procrustes
from tests.tools.strategies import orthonormal, with_spectrum


def test_a_gradient_needs_no_eigendecomposition_of_the_gram_matrix(monkeypatch, rng):
    problem, G = NearestETF(rng.standard_normal((9, 5)), orthonormal(9, 5, rng), 0.3), rng.standard_normal((9, 5))
    expected = nearest_etf_vjp(problem, solve(problem).U, G).H
    monkeypatch.setattr("etfopt.problem.gram_spectrum", mock.Mock(side_effect=Unsuitable("LAPACK's syevd")))
    other = problem.fresh()
    np.testing.assert_allclose(nearest_etf_vjp(other, solve(other).U, G).H, expected, rtol=0, atol=1e-12)


def test_means_that_are_all_zero_are_no_case_for_products_alone():
    problem = NearestETF(np.zeros((70, 65), dtype=np.float32), frame=simplex_etf(65, reduced=True))
    assert solve(problem, Procrustes("auto")).stats.method == "gram"


def test_an_objective_of_points_out_of_range_is_infinite():
    assert NearestETF(np.eye(4, 3), frame=10 * np.eye(3)).objective(np.full((4, 3), 1.7e308)) == np.inf


def test_a_disk_that_is_full_leaves_no_half_written_file(monkeypatch, tmp_path: Path):
    solution = nearest_etf(np.eye(5, 3))
    save_solution(solution, tmp_path / "etf.npz")
    before = (tmp_path / "etf.npz").read_bytes()
    monkeypatch.setattr(np, "savez", mock.Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match=r"etf\.npz: cannot be written: No space left on device"):
        save_solution(solution, tmp_path / "etf.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["etf.npz"]
    assert (tmp_path / "etf.npz").read_bytes() == before


# --- the bridge ---------------------------------------------------------------------------------------------------

torch = pytest.importorskip("torch")
from torch.utils.checkpoint import checkpoint

from etfopt import _torch
from etfopt.nn import ClassMeans, NearestETFHead, PaperClassMeans, UnitFeatures
from etfopt.nn.functional import polar_factor
from etfopt.nn.polar import _node as node


def test_a_node_whose_eigensolver_fails_takes_the_svd(monkeypatch, rng):
    A = torch.tensor(rng.standard_normal((9, 4)), requires_grad=True)
    G = torch.tensor(rng.standard_normal((9, 4)))
    expected = torch.autograd.grad((polar_factor(A) * G).sum(), A)[0]
    monkeypatch.setattr(torch.linalg, "eigh", mock.Mock(side_effect=RuntimeError("linalg.eigh: did not converge")))
    U = polar_factor(A)
    np.testing.assert_allclose((U.mT @ U).detach(), np.eye(4), rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.autograd.grad((U * G).sum(), A)[0], expected, rtol=0, atol=1e-12)


def test_many_columns_whose_squares_lose_too_much_go_through_the_svd(rng):
    A = torch.tensor(with_spectrum(90, np.geomspace(1, 1e-3, 70), rng).astype(np.float32))
    U, double = polar_factor(A), polar_factor(A.double())
    assert torch.equal(U, polar_factor(A, "svd"))
    torch.testing.assert_close(U.double(), double, rtol=0, atol=1e-5)


def test_the_rule_of_compiled_graphs_is_the_eager_one(rng):
    A, G = torch.tensor(rng.standard_normal((9, 4)), requires_grad=True), torch.tensor(rng.standard_normal((9, 4)))
    eager, compiled = (torch.autograd.grad((f(A) * G).sum(), A)[0] for f in (node.polar, compiled_rule))
    torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(compiled_rule, A)


def test_only_a_single_gradient_is_left_to_the_compiler(rng):
    A = torch.tensor(rng.standard_normal((5, 3)))
    seen = []

    def noted(X: torch.Tensor) -> torch.Tensor:
        seen.append(_torch.transforms())
        return X.sum()

    torch.func.grad(noted)(A)
    torch.func.grad(lambda X: torch.func.grad(noted)(X).sum())(A)
    assert seen == [("Grad",), ("Grad", "Grad")]
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        torch.testing.assert_close(node.polar(A), compiled_rule(A), rtol=0, atol=0)


def compiled_rule(A: torch.Tensor) -> torch.Tensor:
    return node._CompiledPolar.apply(A, "auto")[0]


def test_a_change_of_mode_inside_a_compiled_graph_leaves_the_report_for_later():
    head = NearestETFHead(5, 3)
    head.count_rejected(torch.tensor(True))
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        head.train()
    with pytest.raises(InputError, match=r"1 batch\(es\) could not be used"):
        head.train()


def test_modules_say_how_they_were_made():
    assert repr(UnitFeatures(2.5)) == "UnitFeatures(temperature=2.5)"
    paper = PaperClassMeans(num_classes=3, dim=5, averaging=0.5)
    assert repr(paper) == "PaperClassMeans(num_classes=3, dim=5, averaging=0.5)"
    assert repr(ClassMeans(num_classes=3, dim=5)) == "ClassMeans(num_classes=3, dim=5, memory=64.0)"


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_head_under_checkpointing_refuses_its_second_run(reentrant, rng):
    head, x = NearestETFHead(5, 3), torch.tensor(rng.standard_normal((6, 5)), dtype=torch.float32, requires_grad=True)
    logits = checkpoint(head, x, torch.arange(6) % 3, use_reentrant=reentrant)
    with pytest.raises(InputError, match=r"inside a backward pass"):
        logits.sum().backward()
    assert int(head.means.steps) == 1
