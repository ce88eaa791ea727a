"""What each extra is for, tried in a few lines, and what is said where one is missing; run by wheel.py."""

IMPORTS = """
import importlib, json, sys
import etfopt
assert "site-packages" in etfopt.__file__, f"this is not the wheel: {etfopt.__file__}"
promised, absent = json.loads(sys.argv[1])
for name in promised:
    importlib.import_module(name)
for name, extra in absent:
    try:
        importlib.import_module(name)
    except etfopt.MissingExtraError as error:
        assert f"pip install 'etfopt[{extra}]'" in str(error), f"{name} says: {error}"
    else:
        raise AssertionError(f"{name} was imported without the extra {extra!r}")
"""

CORE = """
import numpy as np, etfopt
from etfopt.adjoint import nearest_etf_vjp
problem = etfopt.NearestETF(np.random.default_rng(0).standard_normal((16, 4)), prox=np.eye(16, 4), delta=1e-3)
solution = etfopt.solve(problem)
assert solution.converged and solution.certificate.unique, solution
assert np.isfinite(nearest_etf_vjp(problem, solution.U, np.ones((16, 4))).H).all()
"""

SOLVE = """
import numpy as np, etfopt
from etfopt.solvers.{module} import {solver}
problem = etfopt.NearestETF(np.random.default_rng(0).standard_normal((16, 4)))
assert etfopt.solve(problem, {solver}()).converged
"""

TORCH = """
import torch
from etfopt.nn import NearestETFHead
torch.manual_seed(0)
features = torch.randn(64, 16, requires_grad=True)
labels = torch.arange(64) % 4
torch.nn.functional.cross_entropy(NearestETFHead(16, 4)(features, labels), labels).backward()
assert torch.isfinite(features.grad).all() and features.grad.abs().sum() > 0
"""

METRICS = """
import torch
from etfopt.metrics import NeuralCollapse
torch.manual_seed(0)
measure = NeuralCollapse(num_classes=4, dim=8)
measure.update(torch.randn(64, 8), torch.arange(64) % 4, torch.randn(4, 8))
assert all(torch.isfinite(torch.as_tensor(value)).all() for value in measure.compute().values())
"""

TRAIN = """
from pathlib import Path
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.training.train import train
result = train(TrainConfig().with_settings({"training.epochs": 1}), Path("run"))
assert result.trained == 1 and len(result.history) == 2
"""

IMAGES = """
from pathlib import Path
import numpy as np
from PIL import Image
rng = np.random.default_rng(0)
for name in ("daisy", "tulip"):
    folder = Path("flowers", name)
    folder.mkdir(parents=True)
    for number in range(1, 9):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{number:03d}.jpg")
"""

PYTHON = {
    "": CORE,
    "riemannian": SOLVE.format(module="trust_region", solver="TrustRegion"),
    "convex": SOLVE.format(module="convex_relaxation", solver="ConvexRelaxation"),
    "torch": TORCH,
    "metrics": METRICS,
    "experiments": TRAIN,
}
"""What is run where an extra is there, brought by another or by itself."""

# (arguments of etfopt, exit status, words that standard output or error must have)
Command = tuple[str, int, tuple[str, ...]]

ALWAYS: list[Command] = [
    ("--version", 0, ("etfopt ",)),
    ("--help", 0, ("Usage", "verify")),
    ("doctor", 0, ("passed",)),
    ("solve means.csv", 0, ("certified",)),
    ("compare --quick --problem tight --out quick", 0, ("procrustes", "wrote quick/compare.json")),
    ("lurn", 2, ("No such command",)),
]

WITHOUT: dict[str, list[Command]] = {
    "experiments": [
        ("train --epochs 1", 2, ("pip install 'etfopt[experiments]'",)),
        ("demo --epochs 1", 2, ("pip install 'etfopt[experiments]'",)),
        ("report quick", 2, ("pip install 'etfopt[experiments]'",)),
        ("bench head", 2, ("pip install 'etfopt[experiments]'",)),
        ("bench loops --rows 1408", 2, ("pip install 'etfopt[experiments]'",)),
    ],
    "riemannian": [("bench --largest 10", 2, ("pip install 'etfopt[riemannian]'",))],
    "torch": [("bench node", 2, ("pip install 'etfopt[torch]'",))],
    "theory": [("verify", 2, ("pip install 'etfopt[theory]'",))],
}
"""What the command line says where an extra is missing."""

WITH: dict[str, list[Command]] = {
    "experiments": [("train --epochs 1 --out one", 0, ("Written to one/",))],
    "theory": [("verify --claim certificate --budget 20", 2, ("Clone the repository", "--theory"))],
}
"""What it does where an extra is there; the claims are not part of the wheel."""
