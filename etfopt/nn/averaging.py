r"""Rules of running means: the weight :math:`a_t` of batch t, from t = 1, as a tensor.

A rule of your own is a function from t, a tensor without dimensions, to a rate in (0, 1]. `ClassMeans` takes its import
path as ``averaging``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from etfopt._options import AVERAGINGS
from etfopt.errors import InputError

__all__ = ["cumulative", "paper", "rule_of"]

RATE_FLOOR = 1e-4
"""Smallest rate of the "paper" rule: the release stops shrinking its rate there."""

Rule = Callable[[Tensor], Tensor]


def paper(t: Tensor) -> Tensor:
    r"""Return :math:`\max(2/(t+1), 10^{-4})`, the rule of the paper's release."""
    return (2 / (t + 1)).clamp(min=RATE_FLOOR)


def cumulative(t: Tensor) -> Tensor:
    """Return 1/t: the mean over all batches."""
    return 1 / t


def _constant(t: Tensor, rate: float) -> Tensor:
    return torch.where(t > 1, torch.full_like(t, rate), torch.ones_like(t))


@functools.cache
def rule_of(averaging: str | float) -> Rule:
    """Return the rule of a name, an import path or a constant rate."""
    if isinstance(averaging, str):
        rule: Rule = AVERAGINGS.load(averaging)
        if not callable(rule):
            raise InputError(f"averaging = {averaging!r} is {rule!r}; name a function from t to a rate in (0, 1]")
        return rule
    return functools.partial(_constant, rate=averaging)
