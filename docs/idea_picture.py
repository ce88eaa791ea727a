"""Draw images/idea-light.svg and images/idea-dark.svg: class means move to their nearest ETF, in a real run.

Three digits of scikit-learn, a perceptron with two features, and `etfopt.nn.NearestETFHead`. `make pictures` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.datasets import load_digits
from torch import Tensor, nn

from etfopt.nn import NearestETFHead

IMAGES = Path(__file__).parent / "images"
SHOWN = {0: "before training", 12: "after 12 steps", 120: "after 120 steps"}
INK = {"light": "#24292f", "dark": "#e6edf3"}
COLOURS = {"light": ("#0072b2", "#d55e00", "#009e73"), "dark": ("#56b4e9", "#f0883e", "#3fc38e")}
SAMPLES = 60
"""Of each class, so that the files stay small."""


class Moment(NamedTuple):
    """Features of norm 1 (n, 2), labels (n,), class means (3, 2) and the nearest ETF (3, 2), one row a class."""

    features: Tensor
    labels: Tensor
    means: Tensor
    etf: Tensor


def training() -> Iterator[Moment]:
    """Yield the moments of `SHOWN`, from one training run on all images of three digits."""
    torch.manual_seed(4)
    pixels, digits = load_digits(n_class=3, return_X_y=True)
    images, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)
    backbone = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 2))
    head = NearestETFHead(dim=2, num_classes=3, memory=1.0)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, momentum=0.9)
    for step in range(max(SHOWN) + 1):
        features = backbone(images)
        loss = nn.functional.cross_entropy(head(features, labels), labels)
        if step in SHOWN:
            yield moment(nn.functional.normalize(features.detach()), labels, head.weight.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def moment(features: Tensor, labels: Tensor, etf: Tensor) -> Moment:
    """Return what is drawn: all class means, and the first samples of each class."""
    means = torch.stack([features[labels == c].mean(dim=0) for c in range(3)])
    first = torch.cat([(labels == c).nonzero()[:SAMPLES, 0] for c in range(3)])
    return Moment(features[first], labels[first], means, etf)


def draw(axes: Axes, shown: Moment, title: str, theme: str) -> None:
    """Draw one moment: features on the circle, arrows to the class means, the ETF as a dashed triangle."""
    ink = INK[theme]
    axes.add_patch(mpl.patches.Circle((0, 0), 1, fill=False, color=ink, alpha=0.25, linewidth=0.8))
    corners = torch.cat([shown.etf, shown.etf[:1]])
    axes.plot(*corners.T, color=ink, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
    for c, colour in enumerate(COLOURS[theme]):
        axes.scatter(*shown.features[shown.labels == c].T, s=9, color=colour, alpha=0.5, linewidth=0)
        axes.plot(*torch.stack([torch.zeros(2), shown.means[c]]).T, color=colour, linewidth=2, zorder=2)
        axes.scatter(*shown.means[c], s=70, color=colour, zorder=3)
        axes.scatter(*shown.etf[c], s=130, facecolor="none", edgecolor=colour, linewidth=1.8, zorder=3)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    axes.set_title(title, color=ink, fontsize=12)
    axes.axis("off")


def legend(figure: Figure, ink: str) -> None:
    """Say what the marks are, below the panels."""
    marks = {"samples": (3, "full", ""), "class means": (7, "full", "-"), "nearest ETF": (9, "none", "--")}
    lines = [
        Line2D([], [], color=ink, marker="o", markersize=size, fillstyle=fill, linestyle=style, label=label)
        for label, (size, fill, style) in marks.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False, labelcolor=ink, fontsize=11)


def main() -> None:
    moments = dict(zip(SHOWN.values(), training(), strict=True))
    with mpl.rc_context({"svg.hashsalt": "etfopt"}):
        for theme in INK:
            figure = Figure(figsize=(9, 3.6), layout="constrained")
            for number, (title, shown) in enumerate(moments.items(), 1):
                draw(figure.add_subplot(1, 3, number), shown, title, theme)
            legend(figure, INK[theme])
            figure.savefig(IMAGES / f"idea-{theme}.svg", transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()
