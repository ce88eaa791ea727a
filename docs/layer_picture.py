"""Draw images/layers.png: collapse over layers and epochs of a small network on scikit-learn's digits."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from etfopt.metrics import LayerMeasures
from etfopt.plotting import draw_layers, save

EPOCHS = (0, 1, 2, 4, 8, 16, 32, 64, 128)


def main() -> None:
    torch.manual_seed(0)
    pixels, digits = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits))
    blocks = {f"block{i + 1}": nn.Sequential(nn.Linear(96 if i else 64, 96), nn.ReLU()) for i in range(5)}
    model = nn.Sequential(OrderedDict(**blocks, classifier=nn.Linear(96, 10)))
    layers = LayerMeasures(model, list(blocks), num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    results = []
    for epoch in range(max(EPOCHS) + 1):
        if epoch in EPOCHS:
            results.append(layers.measure(DataLoader(data, 512)))
        for images, labels in DataLoader(data, 64, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    save(draw_layers(results, "nc1", epochs=EPOCHS), Path(__file__).parent / "images" / "layers.png")


if __name__ == "__main__":
    main()
