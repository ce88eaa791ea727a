"""Training logits have seen the labels: the figures of the guide on training accuracy."""

import re

import pytest

from tests import ROOT

torch = pytest.importorskip("torch")
from torch import nn

from etfopt.nn import NearestETFHead

CLASSES, SAMPLES, DIM = 50, 2000, 256


def accuracies(**options: object) -> tuple[float, float]:
    """Train on noise; return the accuracy of the training logits of the last pass, and that of evaluation after it."""
    torch.manual_seed(0)
    x, y = torch.randn(SAMPLES, 32), torch.randint(CLASSES, (SAMPLES,))
    backbone = nn.Sequential(nn.Linear(32, 256), nn.Tanh(), nn.Linear(256, DIM))
    head = NearestETFHead(DIM, CLASSES, **options)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        hits = 0
        for rows in torch.randperm(SAMPLES).split(100):
            logits = head(backbone(x[rows]), y[rows])
            hits += int((logits.argmax(dim=1) == y[rows]).sum())
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return hits / SAMPLES, float((head.eval()(backbone(x)).argmax(dim=1) == y).float().mean())


def test_the_figures_of_the_guide_on_training_accuracy():
    text = (ROOT / "docs" / "howto" / "plain_loop.md").read_text(encoding="utf-8")
    section = text.partition("## Training accuracy")[2].partition("##")[0]
    told = [float(number) for number in re.findall(r"\b0\.\d\d\b", section)]
    forgetful, first = accuracies(memory=4.0), accuracies(memory=4.0, classify_first=True)
    found = [*accuracies(), *forgetful, first[0]]
    assert told == pytest.approx(found, abs=0.03)
