"""The PyTorch bridge: a differentiable nearest ETF, running class means, and classifier heads."""

from etfopt.errors import require_extra

require_extra("torch", "torch")

from etfopt.nn.class_means import ClassMeans
from etfopt.nn.heads import FixedETFHead, LearnedHead, NearestETFHead, UnitFeatures

__all__ = ["ClassMeans", "FixedETFHead", "LearnedHead", "NearestETFHead", "UnitFeatures"]
