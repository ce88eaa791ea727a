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
# You have a network and a training loop in plain PyTorch, and you want a nearest-ETF head instead of the last linear
# layer.
#
# **What you will see:** the three lines that change; a table of what goes wrong in first attempts, and what no longer
# does; saving, loading and export; a certificate of the classifier; measures of collapse; the same network in Lightning
# and in the library's own experiments.

# %%
import difflib
import importlib.util
import inspect
import io
import logging
import math
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from etfopt.certificate import certify
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.training.machine import quiet_lightning
from etfopt.experiments.training.train import train
from etfopt.metrics import CosineMargin, NeuralCollapse
from etfopt.plotting import STYLE, cosines, draw_matrix

torch.set_num_threads(1)
plt.rcParams.update(STYLE)
digits = load_digits()
images = torch.from_numpy(digits.images[:, None] / 16.0).float()  # 1797 x 1 x 8 x 8
labels = torch.from_numpy(digits.target).long()
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
train_set = TensorDataset(images[order[:1440]], labels[order[:1440]])
test_set = TensorDataset(images[order[1440:]], labels[order[1440:]])

# %% [markdown]
# ## Before: plain PyTorch
#
# A small convolutional network, a linear classifier, and a loop. Nothing here knows this library.


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


def fit_plain(epochs=6):
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
# The head takes the place of the linear layer. In training it also takes the labels, because it tracks the class means.
# It has no parameters, so the optimiser needs no change.


# %%
def fit_nearest(epochs=6):
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
# One number of epochs on one easy data set does not say which classifier is better; notebook `05_training` compares
# them.
#
# In training the head refuses a batch without labels, and the error says what to write. Evaluation needs no labels.
# Call `head.eval()` before it, as for batch normalisation.

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
# ## What goes wrong in first attempts, and what no longer does
#
# We train the same network for three epochs in ways that are easy to choose by accident, once each. A linear layer
# beside the head shows which traps are not the head's.


# %%
def fit(head, size=1440, relu=False, decay=False, epochs=3):
    """Return test accuracy, mean loss of the last epoch, and the mean norm of the features of the test images."""
    torch.manual_seed(0)
    backbone = make_backbone()
    if relu:
        backbone.append(nn.ReLU())
    data = Subset(train_set, range(size))
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs) if decay else None
    for _ in range(epochs):
        losses = []
        for x, y in DataLoader(data, 128, shuffle=True):
            f = backbone(x)
            logits = head(f) if isinstance(head, nn.Linear) else head(f, y)
            loss = nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(len(y) * loss.item())
        if decay:
            schedule.step()
    reached = accuracy(backbone, head)
    with torch.no_grad():
        norm = torch.cat([backbone(x) for x, _ in DataLoader(test_set, 256)]).norm(dim=1).mean().item()
    return reached, sum(losses) / size, norm


warnings.filterwarnings("ignore", "PaperClassMeans: labels hold one class")  # it warns of the small batch below
torch.manual_seed(0)
tried = {
    "nn.Linear": fit(nn.Linear(64, 10)),
    "nn.Linear, last batch of one image": fit(nn.Linear(64, 10), size=1409),
    "nearest": fit(NearestETFHead(64, 10)),
    "nearest, last batch of one image": fit(NearestETFHead(64, 10), size=1409),
    'the same, statistics="paper"': fit(NearestETFHead(64, 10, statistics="paper"), size=1409),
    "nearest, temperature=1": fit(NearestETFHead(64, 10, temperature=1.0)),
    "nn.Linear behind a ReLU": fit(nn.Linear(64, 10), relu=True),
    "nearest behind a ReLU": fit(NearestETFHead(64, 10), relu=True),
    "the same, learning rate decays": fit(NearestETFHead(64, 10), relu=True, decay=True),
}
print("                                      test accuracy   loss of the last epoch   norm of features")
for name, (reached, loss, norm) in tried.items():
    print(f"{name:36s} {reached:14.3f} {loss:24.3f} {norm:18.2f}")


def least_loss(tau, C=10):
    """The least mean cross-entropy of balanced classes, reached at collapse."""
    return math.log(1 + (C - 1) * math.exp(-tau * C / (C - 1)))


print(f"least loss: {least_loss(5.0):.3f} with the default temperature of 10 classes, 5; {least_loss(1.0):.3f} with 1")
assert tried["nearest, last batch of one image"][0] > 0.9
assert tried['the same, statistics="paper"'][0] < tried["nearest, last batch of one image"][0] - 0.05
assert least_loss(1.0) < tried["nearest, temperature=1"][1]
assert tried["nearest behind a ReLU"][2] < 0.2 * tried["nn.Linear behind a ReLU"][2]

# %% [markdown]
# - *A small last batch* is no longer a trap of the head. The default statistics weight a batch by its samples, so one
#   image moves one class mean a little. With the paper's statistics the last batch decides how the head evaluates, and
#   the accuracy falls. One step of SGD on a single image can still harm any network, `nn.Linear` included:
#   `drop_last=True` in the loader avoids it.
# - *The temperature* is the norm to which the head scales features. Leave it at its default, which fits the number of
#   classes. The loss cannot reach zero: with ten balanced classes its lower bound is 0.034. With `temperature=1` the
#   bound is 1.377, so training seems stuck although it works. That value is for dot-regression only.
# - *A constant learning rate behind a bare ReLU.* The head scales features to one norm, so the gradient of a feature
#   is divided by its norm. A ReLU directly behind the last linear layer leaves small features, and a learning rate
#   that is right for `nn.Linear` becomes a large one. With a constant rate, six seeds of eight epochs ended at 0.64 to
#   0.99: an epoch that ends in a bad step evaluates badly. With a rate that decays they ended at 0.98 to 0.99,
#   `nn.Linear` at 0.96 to 0.98. Let the rate decay, or put batch normalisation before this ReLU. Networks that end in
#   convolution, batch normalisation, ReLU and pooling, as those of torchvision and timm, do not need either.

# %% [markdown]
# ## Save and load
#
# Buffers hold all state: rotation, frame, proximal point, the running class means with their counters of samples, and
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
# `head.solution()` solves the problem for the current means in float64, and certifies the answer. The certificate can
# also judge the head's own float32 rotation, because it trusts no solver. Both gaps are zero up to rounding, of either
# sign.

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
# For deployment a trained head is a normalisation of the features and a plain linear layer. Keep both.

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
# The classes of `etfopt.metrics` are torchmetrics: one pass over a loader, with any batch size, in one or several
# processes. Pass the features that the classifier sees, `head.normalize(features)`.


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
before, trained, tested = (
    measures(*network, data)
    for network, data in ((untrained, train_set), ((backbone, head), train_set), ((backbone, head), test_set))
)
rows = {"untrained": before[0], "training": trained[0], "test": tested[0]}
for key in ("accuracy", "nc1", "nc2", "nc3", "nc4", "cosine margin", "etf_distance_means"):
    print(f"{key:20s}" + "".join(f"{name:>12s} {float(row[key]):8.4f}" for name, row in rows.items()))
assert rows["training"]["nc1"] < rows["untrained"]["nc1"] / 5
assert rows["training"]["nc2"] < 1e-6  # the classifier is an ETF by construction
assert rows["training"]["cosine margin"] > 0.5  # 10/9 at collapse

# %%
figure, panels = plt.subplots(1, 3, figsize=(8.4, 2.9))
shown = {
    "class means, untrained": before[1],
    "class means, trained": trained[1],
    "classifier": head.weight.T.double(),
}
for axes, (title, H) in zip(panels, shown.items(), strict=True):
    draw_matrix(cosines(H.numpy()), title, axes=axes)
figure.colorbar(panels[0].images[0], ax=panels, shrink=0.8, label="cosine")
plt.show()

# %% [markdown]
# ## In Lightning
#
# The same two lines change: the head in the constructor, and the labels in `training_step`.


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
        max_epochs=3, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(network, DataLoader(train_set, 128, shuffle=True))
reached = accuracy(network.backbone, network.head)
print(f"Lightning: test accuracy {reached:.3f} after {trainer.global_step} steps")
assert reached > 0.9

# %% [markdown]
# ## In the library's experiments
#
# A run of the library adds records of every epoch, checkpoints that resume to the same bits, and reports. Pass your
# module under the name `backbone.name = "custom"`, with the dimension of its features. The digits of
# `etfopt.experiments` are 1 x 8 x 8 as well, so the same network fits.

# %%
settings = {"data.name": "digits", "backbone.name": "custom", "backbone.dim": 64, "training.epochs": 3}
with tempfile.TemporaryDirectory() as folder:
    config = TrainConfig().with_settings(settings)
    run = train(config, Path(folder) / "run", backbone=make_backbone(), accelerator="cpu")
    print("files:", *sorted(path.name for path in run.path.glob("[!.]*")))
last = run.history[-1]
print(f"{config.head.name}: test accuracy {last['test_accuracy']:.3f}, margin {last['train_cosine_margin']:.3f}")
assert run.finished
assert last["test_accuracy"] > 0.9

# %% [markdown]
# ## Try it
#
# - Put your own network into `make_backbone`, and the dimension of its features into `NearestETFHead(dim,
#   num_classes)`.
# - Replace the head by `etfopt.nn.FixedETFHead(64, 10)` or `etfopt.nn.LearnedHead(64, 10)`: they take the same calls.
# - Set `drop_last=True` in the loader of `fit`. What changes in the rows with a last batch of one image?
# - Measure inner layers of your network too: `docs/howto/measure.md`.
# - If your loop calls the network with its inputs only, pass the labels by `with head.labels(y): model(x)`.
#   `docs/howto/training_loops.md` lists which loops work.
