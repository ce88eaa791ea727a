"""NC5 and the NECO score are their formulas, whatever the offset, the dtype and the tiles."""

import numpy as np
import pytest
import torch

from etfopt.errors import InputError
from etfopt.metrics import nc5, neco_score, principal_subspace
from tests.tools.metric_cases import draw, simplex


def test_nc5_is_the_mean_absolute_cosine() -> None:
    g = torch.Generator().manual_seed(0)
    means, other = torch.randn(2, 6, 5, generator=g, dtype=torch.float64)
    other = other[0]
    expected = np.mean(
        [abs(m @ o) / np.linalg.norm(m) / np.linalg.norm(o) for m in means.numpy() for o in [other.numpy()]]
    )
    assert float(nc5(means, other)) == pytest.approx(expected, rel=1e-12)
    holes = means.clone()
    holes[2] = torch.nan
    assert float(nc5(holes, other)) == pytest.approx(float(nc5(means[[0, 1, 3, 4, 5]], other)), rel=1e-14)
    shift = 1e8 * torch.ones(5, dtype=torch.float64)
    assert float(nc5(means + shift, other + shift, shift)) == pytest.approx(expected, rel=1e-6)
    assert nc5(means, torch.zeros(5)).isnan()
    assert float(nc5(1e-200 * means, 1e-30 * other)) == pytest.approx(expected, rel=1e-12)


def test_at_collapse_other_data_that_is_orthogonal_has_nc5_and_neco_of_zero() -> None:
    vertices = torch.cat([simplex(4, 6), torch.zeros(4, 2)], dim=1)
    other = torch.tensor([0.0] * 6 + [2.0, -1.0], dtype=torch.float64)
    assert float(nc5(vertices, other)) == 0
    subspace = principal_subspace(vertices.repeat(3, 1), 3)
    assert float(subspace.variances[3:].sum()) < 1e-14
    assert neco_score(other[None], subspace).tolist() == pytest.approx([0.0], abs=1e-12)
    assert neco_score(vertices, subspace).tolist() == pytest.approx([1.0] * 4, rel=1e-12)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_neco_score_is_its_formula(standardize: bool, centred: bool, dtype: torch.dtype) -> None:
    X = draw(5, 8, 400, dtype=dtype)[0]
    Z = draw(5, 8, 30, seed=1, dtype=dtype)[0]
    logits = torch.randn(30, 5, generator=torch.Generator().manual_seed(2), dtype=dtype)
    x, z = X.double().numpy(), Z.double().numpy()
    deviation = x.std(axis=0) if standardize else np.ones(8)
    directions = np.linalg.svd((x - x.mean(axis=0)) / deviation, full_matrices=False)[2][:3]
    f = (z - (x.mean(axis=0) if standardize or centred else 0)) / deviation
    expected = np.linalg.norm(f @ directions.T, axis=1) / np.linalg.norm(f, axis=1)
    subspace = principal_subspace(X, 3, standardize=standardize)
    found = neco_score(Z, subspace, centred=centred)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
    calibrated = neco_score(Z, subspace, logits=logits, centred=centred)
    np.testing.assert_allclose(calibrated.numpy(), expected * logits.double().numpy().max(axis=1), rtol=1e-10)


def test_features_of_deviation_one_are_centred_where_the_subspace_was_standardised() -> None:
    X = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]) + 5
    subspace = principal_subspace(X, 1, standardize=True)
    assert subspace.scale.tolist() == [1.0, 1.0]
    f = X[:1] + torch.tensor([3.0, 0.0])
    found, centred = (neco_score(f, subspace, centred=c) for c in (False, True))
    assert torch.equal(found, centred)


def test_a_tiny_feature_beside_a_huge_one_has_its_score() -> None:
    X, Z = (draw(5, 8, n, seed=n, dtype=torch.float64)[0] for n in (50, 8))
    subspace = principal_subspace(X, 3)
    sizes = torch.tensor([[1e90], [1e-90], [1e-250], *[[1.0]] * 5], dtype=torch.float64)
    np.testing.assert_allclose(neco_score(sizes * Z, subspace).numpy(), neco_score(Z, subspace).numpy(), rtol=1e-12)


def test_an_offset_costs_the_subspace_no_digits() -> None:
    X = draw(5, 8, 400, dtype=torch.float64)[0]
    near, far = principal_subspace(X, 3), principal_subspace(X + 1e8, 3)
    torch.testing.assert_close(far.variances, near.variances, rtol=1e-6, atol=0)
    torch.testing.assert_close(far.basis @ far.basis.T, near.basis @ near.basis.T, rtol=0, atol=1e-6)


def test_a_constant_coordinate_and_a_zero_feature_are_no_error() -> None:
    X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    X[:, 1] = 7.0
    subspace = principal_subspace(X, 2, standardize=True)
    assert subspace.scale[1] == 1
    assert neco_score(torch.zeros(1, 3), principal_subspace(X, 2)).isnan().all()
    assert neco_score(torch.zeros(0, 3), subspace).shape == (0,)


def test_bad_input_is_refused() -> None:
    X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    subspace = principal_subspace(X, 2)
    for call, message in (
        (lambda: nc5(torch.full((2, 3), torch.nan), X[0]), "class_means holds no mean"),
        (lambda: nc5(X, X[0, :2]), r"ood_mean has shape \(2,\); it must be \(3,\)"),
        (lambda: nc5(X, X[0], torch.tensor([0.0, torch.inf, 0.0])), "origin holds 1 value"),
        (lambda: principal_subspace(X, 4), "k is 4; it must be at most d = 3"),
        (lambda: principal_subspace(X[:1], 1), r"features has 1 row\(s\)"),
        (lambda: principal_subspace(X, 0), "k must be"),
        (lambda: neco_score(X[:, :2], subspace), r"features has shape \(20, 2\); it must be \(n, 3\)"),
        (lambda: neco_score(X, subspace, logits=X[:3]), r"logits has shape \(3, 3\); it must be \(20, C\)"),
    ):
        with pytest.raises(InputError, match=message):
            call()
