"""Classifier heads on normalised features: learned, fixed ETF, nearest ETF. One interface, so that they swap.

Each head has a module of its own, which offers it by name: "learned", "fixed", "nearest".
"""

from etfopt.nn.heads._features import UnitFeatures
from etfopt.nn.heads.base import Head
from etfopt.nn.heads.fixed import FixedETFHead
from etfopt.nn.heads.learned import LearnedHead
from etfopt.nn.heads.nearest import NearestETFHead

__all__ = ["FixedETFHead", "Head", "LearnedHead", "NearestETFHead", "UnitFeatures"]
