"""Classifier heads on normalised features: learned, fixed ETF, nearest ETF. One interface, so that they swap."""

from typing import TypeAlias

from etfopt.nn.heads.base import Head, LearnedHead, UnitFeatures
from etfopt.nn.heads.fixed import FixedETFHead
from etfopt.nn.heads.nearest import NearestETFHead
from etfopt.nn.heads.temperature import collapse_temperature

__all__ = ["AnyHead", "FixedETFHead", "Head", "LearnedHead", "NearestETFHead", "UnitFeatures", "collapse_temperature"]

AnyHead: TypeAlias = LearnedHead | FixedETFHead | NearestETFHead
"""The heads that swap for one another."""
