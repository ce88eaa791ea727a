"""Measures of data from another distribution (OOD) beside the training data: NC5 and the NECO score."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from etfopt._scalars import as_integer
from etfopt._torch import require_floats
from etfopt.errors import InputError
from etfopt.metrics._checks import require_values
from etfopt.metrics._moments import rows_at_once

__all__ = ["PrincipalSubspace", "nc5", "neco_score", "principal_subspace"]


class PrincipalSubspace(NamedTuple):
    r"""Where the features of the training data lie, for `neco_score`.

    Attributes
    ----------
    basis : Tensor, shape (d, k)
        Orthonormal columns: the first k principal directions.
    variances : Tensor, shape (d,)
        Variance along all d principal directions, non-increasing.
    mean : Tensor, shape (d,)
        Mean of the training features.
    scale : Tensor, shape (d,)
        What every coordinate is divided by: its standard deviation, or 1 without `standardize`.
    standardized : bool
        Whether it was made with `standardize`. Features to score are centred then.

    References
    ----------
    Ben Ammar, Belkhir, Popescu, Manzanera, Franchi (2024), NECO, arXiv 2310.06823.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import principal_subspace
    >>> features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> principal_subspace(features, 1).variances.tolist()
    [4.5, 0.5]
    """

    basis: Tensor
    variances: Tensor
    mean: Tensor
    scale: Tensor
    standardized: bool


def nc5(class_means: Tensor, ood_mean: Tensor, origin: Tensor | None = None) -> Tensor:
    r"""Return how far class means are from orthogonal to the mean of other data (NC5).

    .. math:: \frac1C \sum_c |\cos(\mu_c, \mu_{OOD})|

    It is 0 where every class mean is orthogonal to the mean of the other data, and at most 1. Cosines are taken from
    the origin of the feature space, as in the paper and in ``neural-collapse``. So an offset of all features changes
    the value, unless `origin` moves with it.

    Parameters
    ----------
    class_means : Tensor, shape (C, d)
        :math:`\mu_c`, not centred, e.g. from `NeuralCollapse.feature_means`. Rows of NaN, of classes that did not
        occur, are left out.
    ood_mean : Tensor, shape (d,)
        :math:`\mu_{OOD}`, the mean feature of the other data.
    origin : Tensor, shape (d,), optional
        Point that the cosines are taken from, e.g. the global mean of the training data. By default zero.

    Returns
    -------
    Tensor, shape (), float64
        NaN where a mean has no direction.

    Raises
    ------
    InputError
        If a shape or a value does not fit, or all class means are NaN.

    References
    ----------
    Ben Ammar, Belkhir, Popescu, Manzanera, Franchi (2024), NECO, arXiv 2310.06823.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import nc5
    >>> float(nc5(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]), torch.tensor([0.0, 3.0])))
    0.0
    """
    means = require_floats(class_means, "class_means", ("C", "d")).detach()
    d = means.shape[1]
    seen = ~means.isnan().all(dim=1)
    if not seen.any():
        raise InputError("class_means holds no mean: every row is NaN; give those of the classes that occurred")
    points = {"class_means": means[seen], "ood_mean": require_floats(ood_mean, "ood_mean", (d,)).detach()}
    if origin is not None:
        points["origin"] = require_floats(origin, "origin", (d,)).detach()
    for name, value in points.items():
        require_values(value, name)
    rows, other = points["class_means"].double(), points["ood_mean"].to(means.device, torch.float64)
    if origin is not None:
        at = points["origin"].to(means.device, torch.float64)
        rows, other = rows - at, other - at
    rows, other = rows / rows.abs().amax(dim=1, keepdim=True), other / other.abs().max()
    cosines = rows @ other / (torch.linalg.vector_norm(rows, dim=1) * torch.linalg.vector_norm(other))
    mean: Tensor = cosines.abs().mean()
    return mean


def principal_subspace(features: Tensor, k: int, standardize: bool = False) -> PrincipalSubspace:
    """Return the first k principal directions of the training features.

    Parameters
    ----------
    features : Tensor, shape (n, d)
        Features of the training data, n >= 2.
    k : int
        Number of directions, 1 to d. The paper takes as many as explain 90 % of the variance; at collapse they are
        C - 1.
    standardize : bool
        Divide each coordinate by its standard deviation first, as the paper's code does for networks that have not
        collapsed. A coordinate that is constant is not divided.

    Returns
    -------
    PrincipalSubspace

    Raises
    ------
    InputError
        If `features` is no finite matrix of at least two rows, or `k` not in range.

    References
    ----------
    Ben Ammar, Belkhir, Popescu, Manzanera, Franchi (2024), NECO, arXiv 2310.06823.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import principal_subspace
    >>> principal_subspace(torch.eye(3)[[0, 0, 1, 2]], 2).basis.shape
    torch.Size([3, 2])
    """
    X = require_floats(features, "features", ("n", "d")).detach()
    require_values(X, "features")
    n, d = X.shape
    if n < 2:
        raise InputError(f"features has {n} row(s); principal directions need at least 2 samples")
    if (k := as_integer(k, "k", at_least=1)) > d:
        raise InputError(f"k is {k}; it must be at most d = {d}, the number of features")
    tiles = torch.split(X, rows_at_once(d))
    near = X[0].double()
    mean = near + torch.stack([(x - near).sum(dim=0) for x in tiles]).sum(dim=0) / n
    covariance = X.new_zeros(d, d, dtype=torch.float64)
    for x in tiles:
        covariance.addmm_((x - mean).T, x - mean)
    covariance /= n
    deviations = covariance.diagonal().sqrt()
    scale = deviations.where(deviations > 0, 1.0) if standardize else torch.ones_like(mean)
    variances, directions = torch.linalg.eigh(covariance / scale / scale[:, None])
    return PrincipalSubspace(directions.flip(1)[:, :k], variances.flip(0).clamp(min=0), mean, scale, standardize)


def neco_score(
    features: Tensor, subspace: PrincipalSubspace, logits: Tensor | None = None, centred: bool = False
) -> Tensor:
    r"""Return the NECO score of every sample: large for data like the training data, small for other data.

    .. math:: \mathrm{NECO}(f) = \frac{\|P'f\|}{\|f\|}

    with the principal directions P of the training features; multiplied by the largest logit where `logits` is given.

    Parameters
    ----------
    features : Tensor, shape (n, d)
        Features of the samples to score.
    subspace : PrincipalSubspace
        From the training features. With `standardize` the features are centred and scaled as those were.
    logits : Tensor, shape (n, C), optional
        Logits of the samples: the score is multiplied by the largest one, which the paper does for vision transformers.
    centred : bool
        Whether to take the mean of the training features off f. The paper's formula does not; its code always projects
        the centred feature, and divides by the norm of the centred one only if it standardises.

    Returns
    -------
    Tensor, shape (n,), float64
        Between 0 and 1 without `logits`; NaN for a feature of norm zero.

    Raises
    ------
    InputError
        If a shape or a value does not fit.

    References
    ----------
    Ben Ammar, Belkhir, Popescu, Manzanera, Franchi (2024), NECO, arXiv 2310.06823.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import neco_score, principal_subspace
    >>> subspace = principal_subspace(torch.tensor([[3.0, 0.0], [-3.0, 0.0]]), 1)
    >>> neco_score(torch.tensor([[5.0, 0.0], [0.0, 2.0]]), subspace).tolist()
    [1.0, 0.0]
    """
    X = require_floats(features, "features", ("n", len(subspace.mean))).detach()
    require_values(X, "features")
    largest = None
    if logits is not None:
        largest = require_floats(logits, "logits", (len(X), "C")).detach().double().amax(dim=1)
        require_values(largest, "logits")
    mean, basis, scale = (x.to(X.device) for x in (subspace.mean, subspace.basis, subspace.scale))
    take_off = mean if centred or subspace.standardized else torch.zeros_like(mean)
    found = []
    for x in torch.split(X, rows_at_once(X.shape[1])):
        f = (x - take_off) / scale
        f = f / f.abs().amax(dim=1, keepdim=True)  # squares of tiny entries do not underflow
        found.append(torch.linalg.vector_norm(f @ basis, dim=1) / torch.linalg.vector_norm(f, dim=1))
    scores = torch.cat(found).clamp(max=1)
    return scores if largest is None else scores * largest.to(scores.device)
