"""What the training loops train on: handwritten digits, and clusters that a linear classifier separates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

TEST_SAMPLES = 387


@dataclass(frozen=True)
class Problem:
    """Samples to train and to test on, and a new network with d features below the head."""

    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    network: nn.Module
    d: int
    C: int


def digits(samples: int, relu: bool = False) -> Problem:
    """Return scikit-learn's digits, in an order drawn from the global generator, and a 64-128-64 perceptron.

    Parameters
    ----------
    samples : int
        Training samples: the first so many. The last 387 are for the test.
    relu : bool
        Whether the perceptron ends in a ReLU.

    Returns
    -------
    Problem
    """
    pixels, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    order = torch.randperm(len(labels))
    inputs, labels = pixels[order].float() / 16, labels[order]
    layers = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), *([nn.ReLU()] if relu else [])]
    test = slice(-TEST_SAMPLES, None)
    return Problem(inputs[:samples], labels[:samples], inputs[test], labels[test], nn.Sequential(*layers), 64, 10)


def clusters(d: int = 128, C: int = 100, samples: int = 20) -> Problem:
    """Return Gaussian clusters, as many samples of each to train as to test, and a linear layer.

    Centres are N(0, I), and samples centre + 0.5 N(0, I), drawn from the global generator.

    Parameters
    ----------
    d, C : int
        Dimensions and clusters.
    samples : int
        Of each cluster, to train and to test.

    Returns
    -------
    Problem
    """
    centres, labels = torch.randn(C, d), torch.arange(C).repeat_interleave(samples)
    train, test = (centres[labels] + 0.5 * torch.randn(len(labels), d) for _ in range(2))
    return Problem(train, labels, test, labels, nn.Linear(d, d), d, C)


def logits_of(head: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """Return the logits of a training step; a plain linear layer takes no labels."""
    logits: Tensor = head(features) if isinstance(head, nn.Linear) else head(features, labels)
    return logits
