"""Neural-collapse measures as torchmetrics metrics: one pass over a data loader, exact under any split of it."""

from etfopt.errors import require_extra

# before the imports below, so that a missing extra is named and not a module
require_extra("metrics", "torch", "torchmetrics")

from etfopt.metrics.collapse import FEATURE_MEASURES, MEASURES, NeuralCollapse
from etfopt.metrics.layers import LayerMeasures
from etfopt.metrics.margin import CosineMargin
from etfopt.metrics.nearest_mean import NearestMeanMismatch
from etfopt.metrics.rank import NumericalRank

__all__ = [
    "FEATURE_MEASURES",
    "MEASURES",
    "CosineMargin",
    "LayerMeasures",
    "NearestMeanMismatch",
    "NeuralCollapse",
    "NumericalRank",
]
