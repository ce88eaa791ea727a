"""Figures of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from etfopt.bench.pipelines import Row

__all__ = ["plot_pipelines"]


def plot_pipelines(rows: Sequence[Row], path: Path) -> None:
    """Draw seconds a step against C, forward and backward together, for both pipelines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.loglog([r.C for r in rows], [r.forward + r.backward for r in rows], "o-", color="#009E73", label="closed form")
    ran = [(r.C, r.paper_forward + r.paper_backward) for r in rows if r.paper_forward and r.paper_backward]
    if ran:
        axes.loglog(*zip(*ran, strict=True), "s--", color="#D55E00", label="trust region and dense gradient")
    axes.loglog([r.C for r in rows], [r.linear for r in rows], "^:", color="0.4", label="linear layer, batch 256")
    axes.set(xlabel="classes C", ylabel="seconds a step, forward and backward")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
