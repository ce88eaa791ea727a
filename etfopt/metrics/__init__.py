"""Neural-collapse measures as torchmetrics metrics: one pass over a data loader, exact under any split of it."""

from etfopt.errors import require_extra

# before the imports below, so that a missing extra is named and not a module
require_extra("metrics", "torch", "torchmetrics")

from etfopt._catalog import CATALOG, FEATURE_MEASURES, MEASURES, Measure
from etfopt.metrics._pairs import PairMeasures
from etfopt.metrics.collapse import NeuralCollapse
from etfopt.metrics.layers import LayerMeasures
from etfopt.metrics.margin import CosineMargin
from etfopt.metrics.nearest_mean import NCCAgreement, NearestMeanMismatch
from etfopt.metrics.ood import PrincipalSubspace, nc5, neco_score, principal_subspace
from etfopt.metrics.rank import NumericalRank

__all__ = [
    "CATALOG",
    "FEATURE_MEASURES",
    "MEASURES",
    "CosineMargin",
    "LayerMeasures",
    "Measure",
    "NCCAgreement",
    "NearestMeanMismatch",
    "NeuralCollapse",
    "NumericalRank",
    "PairMeasures",
    "PrincipalSubspace",
    "nc5",
    "neco_score",
    "principal_subspace",
]
