"""The polar factor U = PQ' of a matrix A = PSQ', by an SVD, by the Gram matrix, or by matrix products alone."""

from etfopt.polar._products import feasibility, sym, tall_product  # noqa: F401 - for deprecated names in geometry
from etfopt.polar._svd import SVD, polar_factor, thin_svd  # noqa: F401 - what the package offers

__all__ = ["polar_factor"]
