"""Print our measures beside those of two other programs on the same arrays; explanation/measures_elsewhere.md has it.

By hand, with checkouts on PYTHONPATH: `neural_collapse` (rhubarbwu/neural-collapse)
and `nc` (evanmarkou/Guiding-Neural-Collapse, which imports torchvision). What cannot be imported is left out.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etfopt.metrics import CosineMargin, NCCAgreement, NeuralCollapse, NumericalRank, nc5

Values = dict[str, float]
"""By the names of our measures."""

DEVICE = SimpleNamespace(device=torch.device("cpu"), debug=False)
"""What the release's functions ask of its options."""


class Case:
    """Features around class means, their labels, a classifier, and features of other data."""

    def __init__(self, counts: list[int], d: int, *, offset: float = 0.0, noise: float = 1.5) -> None:
        g = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        self.C, self.d = len(counts), d
        self.y = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
        means = normal(self.C, d) + offset
        self.f = means[self.y] + noise * normal(len(self.y), d)
        order = torch.randperm(len(self.y), generator=g)
        self.f, self.y = self.f[order], self.y[order]
        self.W = means - means.mean(dim=0) + 0.3 * normal(self.C, d)
        self.b = normal(self.C) - self.W @ means.mean(dim=0)
        self.ood = 3 * normal(50, d) + 1

    def single(self) -> Case:
        """Return the same numbers, rounded to float32."""
        for name in ("f", "W", "b", "ood"):
            setattr(self, name, getattr(self, name).float())
        return self


def ours(case: Case) -> Values:
    sizes = {"num_classes": case.C, "dim": case.d}
    collapse = NeuralCollapse(**sizes, measures="all")
    others = {"cosine margin": CosineMargin(**sizes), "NCC agreement": NCCAgreement(**sizes)}
    rank = NumericalRank(**sizes)
    for metric in (collapse, rank, *others.values()):
        metric.update(case.f, case.y, case.W, case.b)
    values = {**collapse.compute(), "numerical rank": rank.compute()}
    values |= {name: metric.compute() for name, metric in others.items()}
    values["nc5"] = nc5(collapse.feature_means(), case.ood.double().mean(dim=0))
    return {name: float(value) for name, value in values.items()}


def package(case: Case, centred_by_samples: bool = False) -> Values:
    """The package of Wu: accumulators in the dtype of the features, then its measures in the way of its example."""
    from neural_collapse import accumulate as acc
    from neural_collapse import kernels, measure

    options: dict[str, Any] = {"dtype": case.f.dtype}
    means = acc.MeanAccumulator(case.C, case.d, **options)
    means.accumulate(case.f, case.y)
    M, mG = means.compute()  # the mean of the class means; with weighted=True it raises
    mG = case.f.mean(dim=0) if centred_by_samples else mG
    covariance = acc.CovarAccumulator(case.C, case.d, M=M, **options)
    variances = acc.VarNormAccumulator(case.C, case.d, M=M, **options)
    decisions = acc.DecAccumulator(case.C, case.d, M=M, W=case.W, **options)
    ood = acc.MeanAccumulator(1, case.d, **options)
    for metric in (covariance, variances):
        metric.accumulate(case.f, case.y, M)
    decisions.accumulate(case.f, case.y, case.W, M)
    ood.accumulate(case.ood, torch.zeros(len(case.ood), dtype=torch.int64))
    norms, products = measure.mean_norms(M, mG), measure.similarities(case.W, M, mG)
    return {
        "nc1": measure.covariance_ratio(covariance.compute(), M, mG),
        "nc2": measure.structure_error(case.W, case.W),
        "nc2_means": measure.simplex_etf_error(M, mG),
        "nc3": measure.self_duality_error(case.W, M, mG),
        "equinorm_means": float(norms.std() / norms.mean()),
        "equinorm_log_means": float(norms.log().std()),
        "cdnv": measure.variability_cdnv(variances.compute()[0], M),
        "gnc2": math.sqrt(kernels.kernel_stats(M, mG, kernel=kernels.log_kernel)[1]),
        "unc3": float(products.std() / products.mean().abs()),
        "self_duality": float(measure.distance_norms(case.W, M, mG).mean()),
        "NCC agreement": measure.clf_ncc_agreement(decisions),
        "nc5": measure.orthogonality_deviation(M, ood.compute()[1]),
    }


def release(case: Case, on_cpu: bool) -> Values:
    """The paper's release, `validate_NC.py`, with the features as its path for the CPU leaves them or as for a GPU."""
    import nc.validate_NC as nc

    args = SimpleNamespace(**vars(DEVICE), num_classes=case.C)
    f, W, b = case.f.clone(), case.W, case.b

    def model(rows: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        return rows @ W.T + b, rows.clone()

    batches = list(zip(f.split(64), case.y.split(64), strict=True))
    mu_G, means, held, _, top1, _, mismatch = nc.compute_info(args, model, None, batches)
    if not on_cpu:  # there a copy of every feature is kept
        held = {c: [row.numpy() for row in case.f[case.y == c]] for c in range(case.C)}
    within, between = nc.compute_Sigma_W(args, held, means), nc.compute_Sigma_B(means, mu_G)
    nc3, H = nc.compute_W_H_relation(W, means, mu_G, args.device)
    equinorm = nc.compute_W_H_equinorm(W, H)
    return {
        "accuracy": top1 / 100,
        "nc1": float(np.trace(within @ nc.scilin.pinv(between)) / case.C),
        "vci": float(nc.compute_Variability_Collapse_index(within, between, case.C)),
        "nc2": nc.compute_ETF(W, args.device),
        "nc3": nc3,
        "nc4": nc.compute_Wh_b_relation(W, mu_G, b, args.device),
        "equinorm_weights": equinorm[0],
        "equinorm_means": equinorm[1],
        "equinorm_difference": float(equinorm[2]),
        "numerical rank": float(nc.compute_numerical_rank(held)),
        "cosine margin": nc.compute_margin(args, held, W, mu_G)[0],
        "NCC agreement": 1 - mismatch / 100,
    }


CASES: dict[str, Callable[[], Case]] = {
    "Balanced classes, float64": lambda: Case([40] * 10, 32),
    "Imbalanced classes, float64": lambda: Case([5, 10, 20, 40, 80, 160], 32),
    "A class without samples, float64": lambda: Case([40] * 5 + [0], 32),
    "Balanced classes, float32, offset 10,000": lambda: Case([40] * 10, 32, offset=1e4).single(),
}
PROGRAMS: dict[str, Callable[[Case], Values]] = {
    "neural-collapse": package,
    "with our centre": partial(package, centred_by_samples=True),
    "release": partial(release, on_cpu=False),
    "release, CPU": partial(release, on_cpu=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=int, default=6, help="of the values")
    digits = parser.parse_args().digits
    for title, make in CASES.items():
        found: dict[str, Values] = {"etfopt": ours(make())}
        missing = []
        for name, program in PROGRAMS.items():
            try:
                case = make()
                torch.set_default_dtype(case.f.dtype)  # in which the release makes H
                found[name] = program(case)
            except ModuleNotFoundError as error:
                missing.append(f"{name} ({error.name} is not installed)")
            except Exception as error:  # a program that cannot is named
                missing.append(f"{name}: {type(error).__name__}")
            finally:
                torch.set_default_dtype(torch.float32)
        print(f"\n{title}{'; left out: ' * bool(missing)}{', '.join(missing)}.\n")
        print(f"| {' | '.join(['measure', *found])} |\n|{' --- |' * (1 + len(found))}")
        for key, value in found["etfopt"].items():
            others = [_cell(values.get(key), value, digits) for name, values in found.items() if name != "etfopt"]
            if any(others) or len(found) == 1:
                print(f"| {key} | {value:.{digits}g} | {' | '.join(others)} |")


def _cell(value: float | None, right: float, digits: int) -> str:
    """A value, and how far it is from ours where that is more than 1e-6 of it."""
    if value is None:
        return ""
    error = abs(value - right) / max(abs(right), 1e-300)
    return f"{value:.{digits}g}" if error <= 1e-6 else f"{value:.{digits}g} ({error:.1g})"


if __name__ == "__main__":
    main()
