"""Names that are known on both sides of PyTorch: where it is imported, and where that would cost seconds."""

from __future__ import annotations

__all__ = ["AVERAGINGS", "METHODS"]

METHODS = ("auto", "svd", "gram", "newton-schulz")
"""Routes to a polar factor."""

AVERAGINGS = ("paper", "cumulative")
"""Rules of running means that have a name; a rate is another."""
