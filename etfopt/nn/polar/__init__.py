"""The polar factor of tensors, differentiable, and the routes that compute it."""

from etfopt.nn.polar._node import polar

__all__ = ["polar"]
