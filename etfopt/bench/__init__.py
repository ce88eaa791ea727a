"""Benchmarks: solvers and gradients timed side by side, in one run, with the conditions they ran under."""
