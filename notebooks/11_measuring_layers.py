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
# # Measuring the layers of a network
#
# You have a network of your own, and want to know how far each of its layers has collapsed. You will measure every
# block of a small convolutional network while it trains, without a change to the network; measure saved features on the
# command line; and see what the numbers do not say. The notebook ends with a picture of all layers, on training and on
# test images, for right and for shuffled labels.

# %%
import json
import os
import subprocess
import sys
import tempfile
from collections import OrderedDict
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from etfopt import plotting
from etfopt.metrics import FEATURE_MEASURES, LayerMeasures, NeuralCollapse

torch.set_num_threads(1)
plt.rcParams.update({**plotting.STYLE, "figure.dpi": 150})
digits = load_digits()
images = torch.from_numpy(digits.images[:, None] / 16).float()  # 1797 x 1 x 8 x 8
labels = torch.from_numpy(digits.target).long()
testing = torch.arange(len(labels)) % 5 == 0  # a fifth
test_set = TensorDataset(images[testing], labels[testing])

# %% [markdown]
# ## Name the layers
#
# Any `nn.Module` does. This one has three convolutional and two fully connected blocks, and a linear classifier. It
# uses nothing of `etfopt`.


# %%
def conv(channels_in, channels, stride=1):
    layer = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())


def full(width_in, width):
    return nn.Sequential(nn.Linear(width_in, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())


def make_network():
    torch.manual_seed(0)
    blocks = {"conv1": conv(1, 16), "conv2": conv(16, 32, 2), "conv3": conv(32, 32, 2), "flatten": nn.Flatten()}
    blocks |= {"hidden1": full(128, 64), "hidden2": full(64, 64), "classifier": nn.Linear(64, 10)}
    return nn.Sequential(OrderedDict(blocks))


def layer_measures(network, **options):
    return LayerMeasures(network, ["conv*", "hidden*"], num_classes=10, classifier="classifier", **options)


network = make_network()
layers = layer_measures(network)
found = layers.measure(DataLoader(test_set, 128))
print("width of the features:", layers.dims)
print(f"measures of a layer: {len(found['conv1'])}; {len(FEATURE_MEASURES)} of them need no classifier")
print(f"before training: accuracy {found['classifier']['accuracy']:.3f}, NC1 of hidden2 {found['hidden2']['nc1']:.2f}")
assert layers.dims == {"conv1": 16, "conv2": 32, "conv3": 32, "hidden1": 64, "hidden2": 64, "classifier": 64}
assert all(not module._forward_hooks for module in network.modules())  # nothing is left on the network

# %% [markdown]
# A pattern such as `"conv*"` names several layers. The *output* of a layer is measured, and of the classifier its
# *input*: here that is the output of `hidden2`. Feature maps are averaged over their positions, so that an image is one
# sample with a feature a channel.
#
# `measure` runs a loader in evaluation mode, without gradients, in one pass for all layers. Then it restores the mode
# of every module. The batches may have any size: the values are those of all samples.
#
# ## While it trains
#
# Measure every few epochs, and keep the results in a list. Each time takes one pass over the training images and one
# over the test images.

# %%
EPOCHS = (0, 1, 2, 4, 8, 16, 32)


def fit(train_labels):
    """Train a new network; return it, and the measures of training and test images at some epochs."""
    network, train_set = make_network(), TensorDataset(images[~testing], train_labels)
    layers = layer_measures(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    train, test = [], []
    for epoch in range(EPOCHS[-1] + 1):
        for part in torch.randperm(len(train_set)).split(128) if epoch else ():
            x, y = train_set[part]
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        if epoch in EPOCHS:
            train.append(layers.measure(DataLoader(train_set, 512)))
            test.append(layers.measure(DataLoader(test_set, 512)))
    return network, train, test


network, train, test = fit(labels[~testing])
figure, panels = plt.subplots(1, 2, figsize=(9.6, 3.0), sharey=True)
for axes, (name, results) in zip(panels, {"training images": train, "test images": test}.items(), strict=True):
    plotting.draw_layers(results, "nc1", epochs=EPOCHS, axes=axes).set_title(f"NC1, {name}")
plt.show()
nc1 = {
    name: {layer: float(values["nc1"]) for layer, values in results[-1].items()}
    for name, results in (("training", train), ("test", test))
}
for name, row in nc1.items():
    print(
        f"NC1 after {EPOCHS[-1]} epochs, {name:9s}", "  ".join(f"{layer} {value:.3f}" for layer, value in row.items())
    )
    assert list(row.values())[:5] == sorted(list(row.values())[:5], reverse=True)  # deeper layers collapse further
assert nc1["training"]["hidden2"] < nc1["test"]["hidden2"]

# %% [markdown]
# NC1 is the spread within the classes over the spread between them; 0 is collapse. Read the picture by rows and by
# columns: the last blocks collapse first and most, and the first two do not collapse at all.
#
# The last row repeats the row above, because the classifier's input is the output of `hidden2`. But only this row knows
# the classifier, and so it alone has the measures that compare the two:

# %%
print(f"{'':24s}{'hidden1':>11s}{'hidden2':>11s}{'classifier':>11s}   at collapse")
for key, collapsed in (
    ("accuracy", 1),
    ("nc1", 0),
    ("nc2_means", 0),
    ("etf_distance_means", 0),
    ("nc2", 0),
    ("nc3", 0),
):
    row = [float(train[-1][layer][key]) for layer in ("hidden1", "hidden2", "classifier")]
    print(f"{key:24s}" + "".join(f"{'-' if np.isnan(x) else f'{x:.3f}':>11s}" for x in row) + f"{collapsed:14d}")
assert float(train[-1]["hidden2"]["nc1"]) < 0.1 < float(train[-1]["hidden2"]["nc2_means"])

# %% [markdown]
# The spread within the classes is nearly gone, but the geometry is not that of collapse: neither the class means nor
# the classifier are near a simplex ETF yet (`nc2_means`, `nc2`), nor near each other (`nc3`). `etf_distance_means` is
# squared: 0.014 is a distance of 0.12 times the norm of the class means.
#
# ## What counts as a feature?
#
# NC1 depends on it. The mean over positions throws away where in the image a channel answers. `pool=` takes a function
# of your own; this one keeps every channel at every position. `metrics=` chooses what is measured: naming one
# measure with `partial` saves the time of the others.

# %%
flat = LayerMeasures(
    network,
    "conv*",
    num_classes=10,
    pool=lambda maps: maps.flatten(1),
    metrics=partial(NeuralCollapse, measures=["nc1"]),
)
flattened = flat.measure(DataLoader(TensorDataset(images[~testing], labels[~testing]), 512))
for name, values in flattened.items():
    print(f"{name}: NC1 {float(train[-1][name]['nc1']):6.2f} of the mean over positions,", end=" ")
    print(f"{float(values['nc1']):5.2f} of all {flat.dims[name]} features")
    assert values["nc1"] < train[-1][name]["nc1"]

# %% [markdown]
# Compare a layer with itself at another time, or with layers that are read the same way. Numbers of different
# networks compare only if both sides say what a feature is.
#
# ## Saved features, on the command line
#
# Features may come from anywhere: another framework, another machine. Save them with their labels, and let
# `etfopt measure` read them in parts.

# %%
with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    x = images[testing]
    arrays = {"labels": labels[testing].numpy()}
    network.eval()
    for name, module in network.named_children():
        x = module(x)
        if name.startswith("hidden"):
            arrays[name] = x.numpy()
    np.savez(Path(folder) / "layers.npz", **arrays)
    command = ["measure", "layers.npz", "--measures", "nc1", "--measures", "etf_distance_means", "--out", "now.json"]
    print("$ etfopt", *command)
    done = subprocess.run(
        [sys.executable, "-m", "etfopt", *command, "--quiet"],
        env={key: value for key, value in os.environ.items() if key != "FORCE_COLOR"},  # Jupyter sets it
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    print(done.stdout)
    saved = json.loads((Path(folder) / "now.json").read_text())
for layer in saved["layers"]:  # the same numbers as those measured in the network
    assert np.isclose(layer["measures"]["nc1"], nc1["test"][layer["layer"]], rtol=1e-4)

# %% [markdown]
# `plotting.draw_layers` takes such documents too, one an epoch. Other values of `--measures` are `margin`, `rank` and
# `mismatch`. `--weight` and `--bias` pass the classifier.
#
# ## What small numbers do not say
#
# Train the same network on *shuffled* labels of the same images. Nothing can be learned but the training images
# themselves. Right labels first, shuffled labels second:

# %%
shuffled = labels[~testing][torch.randperm(int((~testing).sum()), generator=torch.Generator().manual_seed(0))]
_, *by_heart = fit(shuffled)
runs = {"right labels": (train, test), "shuffled labels": by_heart}
figure, panels = plt.subplots(1, 2, figsize=(9.6, 3.5), sharey=True)
names = list(train[0])[:5]
for axes, (title, results) in zip(panels, runs.items(), strict=True):
    for split, history, color in zip(("training images", "test images"), results, plotting.COLORS[1::-1], strict=True):
        for k, style in ((0, ":"), (-1, "-")):
            values = [float(history[k][name]["nc1"]) for name in names]
            axes.plot(names, values, style, color=color, marker="o", markersize=4, label=f"{split}, epoch {EPOCHS[k]}")
    axes.set(yscale="log", title=title, ylabel="NC1")
    axes.label_outer()
    accuracies = [float(history[-1]["classifier"]["accuracy"]) for history in results]
    falls = [float(history[0]["hidden2"]["nc1"] / history[-1]["hidden2"]["nc1"]) for history in results]
    print(f"{title:16s} accuracy: training {accuracies[0]:.3f}, test {accuracies[1]:.3f};", end=" ")
    print(f"NC1 of hidden2 divided by {falls[0]:.3g} on training images, by {falls[1]:.2g} on test images")
figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()
assert accuracies[0] > 0.9
assert accuracies[1] < 0.2
assert falls[0] > 50
assert falls[1] < 1

# %% [markdown]
# With shuffled labels NC1 of the training images falls by two orders of magnitude in the last hidden layer, and the
# test accuracy is that of guessing. On test images, NC1 of the same layer is *larger* than before training. Collapse
# is a fact about the images that you measure. So measure both splits, and do not read a small training value as a
# good network. These numbers come from one network and one seed.
#
# ## What to try
#
# - Replace the classifier by `NearestETFHead(64, 10)` and call it with the labels in training.
#   `classifier="classifier"` then measures its normalised input, and `nc2` is 0 by construction.
# - Measure training mode: `with layers.labels(y): network(x)` in the training loop. Batch norm then uses the batch, and
#   the values differ.
# - `metrics=[NumericalRank, partial(NeuralCollapse, measures="all")]` adds the other measures; the page "All measures"
#   of the documentation has their formulas.
# - Name the blocks of a network of timm or Hugging Face: `LayerMeasures(model, "blocks.*", ...)`, with `pool=` for the
#   token that the network classifies.
