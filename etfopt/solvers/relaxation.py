"""Deprecated name of `etfopt.solvers.convex_relaxation`."""

from etfopt._deprecated import moved

__getattr__ = moved(
    __name__, dict.fromkeys(("ConvexRelaxation", "RelaxationStats"), "etfopt.solvers.convex_relaxation")
)
