"""The closed form against the paper's pipeline: time against the number of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes

from etfopt.plotting._style import GRID, axes_or_new

__all__ = ["PipelineTimes", "draw_pipelines"]


class PipelineTimes(Protocol):
    """Seconds a step for one shape; `etfopt.bench.pipelines.Row` has them."""

    @property
    def d(self) -> int:
        """Rows of the class means."""

    @property
    def C(self) -> int:
        """Columns of the class means."""

    @property
    def forward(self) -> float:
        """Of the closed form."""

    @property
    def backward(self) -> float:
        """Of its gradient."""

    @property
    def paper_forward(self) -> float | None:
        """Of the trust region; None where it cannot run."""

    @property
    def paper_backward(self) -> float | None:
        """Of the dense gradient; None where it cannot run."""

    @property
    def linear(self) -> float:
        """Of a linear layer, to compare with."""


def draw_pipelines(rows: Sequence[PipelineTimes], *, axes: Axes | None = None) -> Axes:
    """Draw seconds a step against C, forward and backward together, for the closed form and the paper's pipeline.

    Parameters
    ----------
    rows : sequence of PipelineTimes
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes
    """
    axes = axes_or_new(axes, (6, 4))
    axes.loglog([r.C for r in rows], [r.forward + r.backward for r in rows], "o-", color="#009E73", label="closed form")
    ran = [(r.C, r.paper_forward + r.paper_backward) for r in rows if r.paper_forward and r.paper_backward]
    if ran:
        axes.loglog(*zip(*ran, strict=True), "s--", color="#D55E00", label="trust region, dense gradient")
    axes.loglog([r.C for r in rows], [r.linear for r in rows], "^:", color="0.4", label="linear layer, batch 256")
    axes.set(xlabel="classes C", ylabel="seconds a step, forward and backward")
    axes.set_xticks([r.C for r in rows], [f"{r.C}\nd = {r.d}" for r in rows])
    axes.minorticks_off()
    axes.grid(**GRID)
    axes.legend(frameon=False, loc="upper right")
    return axes
