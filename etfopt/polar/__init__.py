"""The polar factor U = PQ' of a matrix A = PSQ', by an SVD, by the Gram matrix, or by matrix products alone."""

from etfopt.polar._products import TALL, feasibility, tall_product
from etfopt.polar._svd import SVD, polar_factor, thin_svd

__all__ = ["SVD", "TALL", "feasibility", "polar_factor", "tall_product", "thin_svd"]
