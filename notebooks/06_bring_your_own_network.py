# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own network
#
# You have a network and a training loop in plain PyTorch. This notebook puts the nearest-ETF head into it, changing
# three lines; then does the same in Lightning; saves, loads and exports the result; asks for a certificate of the
# classifier; measures neural collapse; and hands the network to the library's own experiments.

# %%
import difflib
import importlib.util
import inspect
import io
import logging
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from etfopt.certificate import certify
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.training.machine import quiet_lightning
from etfopt.experiments.training.train import train
from etfopt.metrics import CosineMargin, NeuralCollapse
from etfopt.plotting import cosines, draw_matrix

torch.set_num_threads(1)
digits = load_digits()
images = torch.from_numpy(digits.images[:, None] / 16.0).float()  # 1797 x 1 x 8 x 8
labels = torch.from_numpy(digits.target).long()
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
train_set = TensorDataset(images[order[:1440]], labels[order[:1440]])
test_set = TensorDataset(images[order[1440:]], labels[order[1440:]])

# %% [markdown]
# ## Before: plain PyTorch
#
# A small convolutional network, a linear classifier, a loop. Nothing here knows of this library.


# %%
def make_backbone():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 64),
    )  # fmt: skip


def accuracy(backbone, head):
    backbone.eval(), head.eval()
    with torch.no_grad():
        predicted = [head(backbone(x)).argmax(dim=1) == y for x, y in DataLoader(test_set, 256)]
    return float(torch.cat(predicted).float().mean())


def fit_plain(epochs=8):
    torch.manual_seed(0)
    backbone = make_backbone()
    head = nn.Linear(64, 10)
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for x, y in DataLoader(train_set, 128, shuffle=True):
            logits = head(backbone(x))
            loss = nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return backbone, head


print(f"linear classifier: test accuracy {accuracy(*fit_plain()):.3f}")

# %% [markdown]
# ## After: three lines
#
# The head takes the place of the linear layer, and in training it wants the labels, to follow the class means. It has
# no parameters, so the optimiser needs no change: there is nothing of it to learn.


# %%
def fit_nearest(epochs=8):
    from etfopt.nn import NearestETFHead

    torch.manual_seed(0)
    backbone = make_backbone()
    head = NearestETFHead(64, 10)
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for x, y in DataLoader(train_set, 128, shuffle=True):
            logits = head(backbone(x), y)
            loss = nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return backbone, head


before, after = (
    [line for line in inspect.getsource(f).splitlines()[1:] if line.strip()] for f in (fit_plain, fit_nearest)
)
changes = [line for line in difflib.unified_diff(before, after, lineterm="", n=0) if line[:3] not in ("---", "+++")]
print("\n".join(changes))
assert sum(line.startswith("+") for line in changes) == 3
assert sum(line.startswith("-") for line in changes) == 2

# %%
from etfopt.nn import NearestETFHead, UnitFeatures

backbone, head = fit_nearest()
reached = accuracy(backbone, head)
print(f"nearest ETF: test accuracy {reached:.3f}")
print("parameters of the head:", sum(p.numel() for p in head.parameters()))
print("state of the head:     ", {name: tuple(x.shape) for name, x in head.state_dict().items()})
assert reached > 0.9
assert not list(head.parameters())

# %% [markdown]
# One epoch count on one easy data set says nothing about which classifier is better; notebook 05 is about that.
#
# A batch without labels is refused in training, with the remedy; evaluation needs none.

# %%
head.train()
try:
    head(backbone(images[:8]))
except ValueError as error:
    print("refused:", error)
else:
    raise AssertionError("a training batch without labels must be refused")
head.eval()
with torch.no_grad():
    assert head(backbone(images[:8])).shape == (8, 10)

# %% [markdown]
# ## Save and load
#
# All state is in buffers: rotation, frame, proximal point, the running class means with their counters of samples, and
# the number of steps. So `state_dict` is enough, and training after loading takes the same steps to the bit.

# %%
file = io.BytesIO()
torch.save({"backbone": backbone.state_dict(), "head": head.state_dict()}, file)
file.seek(0)
saved = torch.load(file)
again_backbone, again = make_backbone(), NearestETFHead(64, 10)
again_backbone.load_state_dict(saved["backbone"])
again.load_state_dict(saved["head"])
again_backbone.eval(), again.eval()

with torch.no_grad():
    assert torch.equal(again(again_backbone(images)), head(backbone(images)))
    features = backbone(images[:128])
    head.train(), again.train()
    assert torch.equal(again(features, labels[:128]), head(features, labels[:128]))  # the next training step, too
    assert torch.equal(again.U, head.U)
    head.eval(), again.eval()
print("loaded: same logits to the bit, and the same next step")

# %% [markdown]
# ## A certificate of the classifier
#
# `head.solution()` solves for the current means with the core, in float64, and certifies the answer. The head's own
# float32 rotation can be graded by the same certificate, which trusts no solver. The gaps are zero up to rounding, of
# float64 and float32, and either sign means nothing:

# %%
solution = head.solution()
own = certify(solution.problem, head.U.double().numpy())
print(f"optimal: {solution.converged}, ETF unique: {solution.certificate.etf_unique}")
print(f"relative gap of the core's answer: {solution.certificate.relative_gap:.1e}")
print(f"relative gap of the head's own U:  {own.relative_gap:.1e}")
print(f"distance of the class means to their nearest simplex ETF of any size: {solution.distance:.3f}")
off = np.linalg.norm(solution.weight - head.weight.double().numpy()) / np.linalg.norm(solution.weight)
print(f"head.weight against solution.weight: {off:.1e}")
assert solution.converged
assert solution.certificate.etf_unique
assert abs(own.relative_gap) < 1e-6
assert off < 1e-5

# %% [markdown]
# ## Export
#
# For deployment a trained head is a normalisation of the features and a plain linear layer.

# %%
deployed = nn.Sequential(backbone, UnitFeatures(head.temperature), head.linear()).eval()
with torch.no_grad():
    difference = float((deployed(images) - head(backbone(images))).abs().max())
program = torch.export.export(deployed, (images[:4],))
with torch.no_grad():
    exported = float((program.module()(images[:4]) - deployed(images[:4])).abs().max())
print(f"{head.linear()}: largest difference of a logit {difference:.1e}; after torch.export {exported:.1e}")
assert difference < 1e-5
assert exported < 1e-5

if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells that torchvision is not there
    model = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter of PyTorch 2.13 warns of its own parts
        torch.onnx.export(deployed, (images[:4],), dynamo=True).save(model)
    session = onnxruntime.InferenceSession(model.getvalue())
    (logits,) = session.run(None, {session.get_inputs()[0].name: images[:4].numpy()})
    print(f"ONNX: largest difference of a logit {np.abs(logits - deployed(images[:4]).detach().numpy()).max():.1e}")
else:
    print("ONNX: onnx, onnxscript and onnxruntime are not installed here, so this is skipped")

# %% [markdown]
# ## Measures of collapse
#
# `etfopt.metrics` are torchmetrics: one pass over a loader, any batch size, several processes. They take what the
# classifier multiplies, `head.normalize(features)`.


# %%
def measures(backbone, head, data):
    """Return the measures of collapse and the mean cosine margin."""
    collapse, margin = NeuralCollapse(num_classes=10, dim=64), CosineMargin(num_classes=10, dim=64)
    backbone.eval(), head.eval()
    with torch.no_grad():
        for x, y in DataLoader(data, 256):
            f = head.normalize(backbone(x))
            collapse.update(f, y, head.weight, head.bias)
            margin.update(f, y, head.weight, head.bias)
    return {**collapse.compute(), "cosine margin": margin.compute()}, collapse.class_means()


untrained = make_backbone(), NearestETFHead(64, 10)
rows = {"untrained": measures(*untrained, train_set)[0]}
for name, data in (("training", train_set), ("test", test_set)):
    rows[name], means = measures(backbone, head, data)
for key in ("accuracy", "nc1", "nc2", "nc3", "nc4", "cosine margin", "etf_distance_means"):
    print(f"{key:20s}" + "".join(f"{name:>12s} {float(row[key]):8.4f}" for name, row in rows.items()))
assert rows["training"]["nc1"] < rows["untrained"]["nc1"] / 5
assert rows["training"]["nc2"] < 1e-6  # the classifier is an ETF by construction
assert rows["training"]["cosine margin"] > 0.5  # 10/9 at collapse

# %%
figure, panels = plt.subplots(1, 3, figsize=(8.4, 2.9), layout="constrained")
shown = {
    "class means, untrained": measures(*untrained, train_set)[1],
    "class means, trained": measures(backbone, head, train_set)[1],
    "classifier": head.weight.T.double(),
}
for axes, (title, H) in zip(panels, shown.items(), strict=True):
    draw_matrix(cosines(H.numpy()), title, axes=axes)
figure.colorbar(panels[0].images[0], ax=panels, shrink=0.8, label="cosine")
plt.show()

# %% [markdown]
# ## In Lightning
#
# The same two lines: the head in the constructor, the labels in `training_step`.


# %%
class Network(pl.LightningModule):
    """A backbone with the nearest-ETF head."""

    def __init__(self):
        super().__init__()
        self.backbone = make_backbone()
        self.head = NearestETFHead(64, 10)  # here

    def training_step(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.backbone(x), y), y)  # and here

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


torch.manual_seed(0)
network = Network()
with quiet_lightning():
    trainer = pl.Trainer(
        max_epochs=8, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(network, DataLoader(train_set, 128, shuffle=True))
reached = accuracy(network.backbone, network.head)
print(f"Lightning: test accuracy {reached:.3f} after {trainer.global_step} steps")
assert reached > 0.9

# %% [markdown]
# ## In the library's experiments
#
# To have everything that a study offers (all three heads on the same batches, records of every epoch, checkpoints that
# resume to the same bits, reports), hand the module in: `backbone.name = "custom"` and the dimension of its features.
# The images of `etfopt.experiments` are 1 x 8 x 8 as well, so that the same network fits.

# %%
settings = {"data.name": "digits", "backbone.name": "custom", "backbone.dim": 64, "training.epochs": 4}
with tempfile.TemporaryDirectory() as folder:
    for name in ("learned", "fixed", "nearest"):
        torch.manual_seed(0)  # the same initial weights under every head
        config = TrainConfig().with_settings({**settings, "head.name": name})
        run = train(config, Path(folder) / name, backbone=make_backbone(), accelerator="cpu")
        last = run.history[-1]
        print(f"{name:8s} test accuracy {last['test_accuracy']:.3f}  margin {last['train_cosine_margin']:.3f}")
        assert run.finished
        assert last["test_accuracy"] > 0.9
