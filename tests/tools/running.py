"""The statistics of the heads as plain loops over classes and samples, with nothing of the package in them."""

import math

import numpy as np

Matrix = np.ndarray
PRIOR = 4


class RunningAccount:
    """`ClassMeans` with its rules, and what a head centres by."""

    def __init__(self, d: int, C: int, memory: float = 64.0) -> None:
        self.mean, self.samples, self.memory = np.zeros((d, C)), np.zeros(C), memory

    def add(self, f: Matrix, y: Matrix) -> Matrix:
        """Take in features (n, d) and labels (n,), or probabilities (n, C); return what a training step centres by."""
        P = np.eye(len(self.samples))[y] if y.ndim == 1 else y
        past = self.mean.copy()
        for c, n in enumerate(P.sum(axis=0)):
            if n == 0:
                continue
            mu, N = P[:, c] @ f / n, self.samples[c]
            kept = min((N / (N + n)) ** 2, math.exp(-n / self.memory))
            self.mean[:, c] = kept * self.mean[:, c] + (1 - kept) * mu
            self.samples[c] = N + n
            if N == 0:
                past[:, c] = mu
        residual = np.zeros(len(past))
        for x, p in zip(f, P, strict=True):
            for c in range(len(p)):
                residual += p[c] * (x - past[:, c])
        n = P.sum()
        return past @ self.samples / self.samples.sum() + n / (n + PRIOR) * residual / n

    @property
    def center(self) -> Matrix:
        """What evaluation centres by: the mean of all samples by the means of their classes."""
        return self.mean @ self.samples / max(self.samples.sum(), 1e-300)

    @property
    def centred(self) -> Matrix:
        """The class means minus the mean of those seen so far, each alike; 0 for a class never seen."""
        seen = self.samples > 0
        balanced = self.mean[:, seen].mean(axis=1) if seen.any() else np.zeros(len(self.mean))
        return np.where(seen, self.mean - balanced[:, None], 0)


class LastBatch:
    """What a head centres by that keeps the statistics of the paper's release."""

    def __init__(self, d: int) -> None:
        self.center = np.zeros(d)

    def add(self, f: Matrix, _: Matrix) -> Matrix:
        self.center = f.mean(axis=0)
        return self.center
