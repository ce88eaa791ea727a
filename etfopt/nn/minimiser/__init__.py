"""The minimiser of nearest-ETF problems given as tensors: linear term, held classes, distance, one node for it all."""

from etfopt.nn.minimiser._minimiser import minimiser

__all__ = ["minimiser"]
