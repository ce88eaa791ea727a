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
# # Scaling: processes, GPUs, many classes
#
# A model can outgrow one process, ten classes, or a CPU. The heads have their default options unless we say otherwise.
#
# **What you will see:** training in two processes that agrees with one to rounding; time and memory from 10 to 400
# classes; the temperature for many classes; two options for few samples per class; what you save and lose by solving
# less often; and what differs on a GPU.

# %%
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from etfopt.adjoint import kkt_memory
from etfopt.bench.node import bench_node, growth
from etfopt.certificate import certify
from etfopt.nn import NearestETFHead, collapse_temperature
from etfopt.plotting import STYLE

torch.set_num_threads(1)
plt.rcParams.update(STYLE)
_ = torch.manual_seed(0)

# %% [markdown]
# ## Processes
#
# Under `torch.distributed` the batches of all ranks count as one, and you need no extra code: the head sums class means
# and counts over the ranks, differentiably. We train the same small network twice for 20 steps: in one process with
# whole batches, and in two processes, started by `torchrun`, each with its own part of every batch. The parts have
# different sizes, and neither rank sees all classes.

# %%
SCRIPT = """
import os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch import nn
from etfopt.nn import NearestETFHead

def main(rank, size):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 16)).double()
    head = NearestETFHead(16, 6).double()
    model = nn.parallel.DistributedDataParallel(backbone) if size > 1 else backbone
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(20):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(60, 20, generator=generator, dtype=torch.float64), torch.arange(60) // 10
        whole = len(y)
        if size > 1:
            mine = slice(0, 25) if rank == 0 else slice(25, 60)  # rank 0 sees classes 0 to 2, rank 1 classes 2 to 5
            x, y = x[mine], y[mine]
        # DDP averages over ranks; this weight makes it the mean over all samples
        loss = nn.functional.cross_entropy(head(model(x), y), y) * size * len(y) / whole
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = {"U": head.U, "bias": head.bias, "means": head.means.mean, "weights": backbone[0].weight.detach()}
    torch.save(state, Path(sys.argv[1]) / f"{size}-{rank}.pt")

torch.set_num_threads(1)
rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if size > 1:
    dist.init_process_group("gloo")
main(rank, size)
if size > 1:
    dist.destroy_process_group()  # after main, for a model that is still there keeps the group alive
"""
environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo", "OMP_NUM_THREADS": "1"}
torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
with tempfile.TemporaryDirectory() as folder:
    script = Path(folder) / "two_ranks.py"
    script.write_text(SCRIPT)
    for launcher in ([sys.executable], torchrun):
        command = [*launcher, str(script), folder]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
        assert run.returncode == 0, run.stderr
    alone, first, second = (torch.load(Path(folder) / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))

for name in alone:
    same = torch.equal(first[name], second[name])
    off = float((first[name] - alone[name]).abs().max() / alone[name].abs().max())
    print(f"{name:8s} ranks 0 and 1 equal to the bit: {same}; two processes against one: {off:.1e}")
    assert same
    assert off < 1e-11

# %% [markdown]
# Both ranks hold the same rotation, bias, means and weights *to the bit*, so they cannot drift apart. The difference
# from one process with the whole batch is rounding: a sum of two partial sums is rounded differently from one long
# sum.
#
# ## Cost as the number of classes grows
#
# The layer solves one $d \times C$ problem a step, in $O(dC^2 + C^3)$ operations, forward and backward. We time it
# for $d = 512$ from 10 to 400 classes on one thread, in turn with a linear layer. The ratio of the two depends less on
# the machine than milliseconds do.

# %%
classes = (10, 50, 100, 200, 400)
rows = [row for row in bench_node([(512, C) for C in classes]) if row.spectrum == "random"]
slope = growth(rows, d=512, small=100, large=400)
print("   C   forward ms   forward and backward ms   over nn.Linear(512, C)")
for row in rows:
    print(f"{row.C:4d} {1e3 * row.forward:12.2f} {1e3 * row.total:25.2f} {row.total / row.linear:24.1f}")
print(f"log-log slope from C = 100 to 400: {slope:.2f}")

# %%
paper = [kkt_memory(512, C) for C in classes]
ours = [4 * row.memory * (row.d * row.C + row.C**2) for row in rows]  # float32
figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.7))
left.loglog(classes, [1e3 * row.total for row in rows], "o-", color="#009E73", label="nearest ETF")
left.loglog(classes, [1e3 * row.linear for row in rows], "s--", color="0.5", label="nn.Linear, batch 256")
left.set(xlabel="classes C", ylabel="milliseconds, forward and backward", title=f"time, slope {slope:.1f} from 100 on")
right.loglog(classes, np.array(ours) / 2**20, "o-", color="#009E73", label="closed form (measured)")
right.loglog(classes, np.array(paper) / 2**20, "x-.", color="#D55E00", label="dense formula (computed)")
right.axhline(24 * 2**10, color="0.6", linewidth=0.8, linestyle=":")
right.annotate("24 GiB", (10, 24 * 2**10), xytext=(0, 3), textcoords="offset points", fontsize=8)
right.set(xlabel="classes C", ylabel="MiB", title="peak memory, d = 512")
for axes in (left, right):
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    axes.set_xticks(classes, classes)
    axes.minorticks_off()
plt.show()
for row in rows:
    print(f"C = {row.C:3d}: at most {row.memory:.1f} (dC + C^2) numbers held at a time")
    assert row.memory < 16

# %% [markdown]
# The dense formula is the paper's: it solves linear systems of the size of all constraints. We compute its curve from
# the sizes of its arrays, and measure that of the closed form. The left panel starts flat, because the overhead of a
# dozen small operations dominates near 10 classes.
#
# ## Temperature for many classes
#
# The head scales features to norm $\tau$, the temperature. At collapse the softmax probability of the right class is
#
# $$p = \frac{1}{1 + (C-1)\, e^{-\tau C/(C-1)}},$$
#
# and with balanced classes no network has a lower mean cross-entropy than $-\log p$. The paper's $\tau = 5$ fits 10
# classes. The default, `temperature="auto"`, gives every number of classes the same $p$ that $\tau = 5$ gives 10
# classes.

# %%
print("    C   tau auto   p at collapse   p at collapse with tau = 5   least loss with tau = 5")
for C in (10, 47, 100, 242, 400, 1000):
    tau = collapse_temperature(C)
    p, p_five = (1 / (1 + (C - 1) * math.exp(-t * C / (C - 1))) for t in (tau, 5.0))
    print(f"{C:5d} {tau:10.2f} {p:15.4f} {p_five:28.4f} {-math.log(p_five):25.3f}")

    # the formula against a head on features that have collapsed: every feature its own class's row
    head = NearestETFHead(C, C).double()
    head(torch.eye(C, dtype=torch.float64), torch.arange(C))
    head.eval()
    found = head(head.weight).softmax(dim=1).diagonal()
    assert torch.allclose(found, torch.full_like(found, p), atol=1e-6)
    assert math.isclose(p, 0.9664, rel_tol=1e-9)

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    NearestETFHead(100, 100, temperature=5.0)
print(f"\n{caught[0].message}")
assert "small for 100 classes" in str(caught[0].message)

# %% [markdown]
# With $\tau = 5$ and 1000 balanced classes no network gets the loss below 2. A head warns if its temperature is too
# small for its classes. If you set the temperature yourself and the loss stops falling, check the temperature first.
#
# ## Many classes of few samples
#
# The nearest ETF gives the same weight to every direction in which the class means differ, even where they hardly
# differ. With few samples of each class, such a direction is mostly noise. `shrinkage` $s$ takes rows between the
# nearest ETF ($s = 1$) and the class means themselves ($s \to 0$) in training, and `evaluation_shrinkage` in
# evaluation.
#
# To see what this does to the classifier alone, we take no network: we draw features around 100 random centres whose
# spread falls off from one direction to the next. On the left the noise is equal in all directions. On the right it
# falls off like the differences between the classes.

# %%
C, d = 100, 128
spread = torch.arange(1, d + 1) ** -0.7
centres = spread * torch.randn(C, d, generator=torch.Generator().manual_seed(1))


def draw(per_class, noise, seed):
    """Features and labels with noise of so large a standard deviation in each direction."""
    y = torch.arange(C).repeat(per_class)
    return centres[y] + noise * torch.randn(len(y), d, generator=torch.Generator().manual_seed(seed)), y


intensities = (1.0, 0.7, 0.5, 0.3, 0.1, 0.03, 0.01)
kinds = {"equal noise in all directions": torch.full((d,), 0.2), "noise like the classes' spread": 0.7 * spread}
accuracies = {}
for kind, noise in kinds.items():
    x_test, y_test = draw(20, noise, 2)
    for per_class in (3, 15, 100):
        for s in intensities:
            head = NearestETFHead(d, C, evaluation_shrinkage=s)
            head(*draw(per_class, noise, 3))  # one batch: the means are those of all samples
            head.eval()
            right = head(x_test).argmax(dim=1) == y_test
            accuracies[kind, per_class, s] = float(right.float().mean())

figure, panels = plt.subplots(1, 2, figsize=(9.2, 3.7), sharey=True)
for axes, kind in zip(panels, kinds, strict=True):
    for per_class, style in ((3, ":"), (15, "--"), (100, "-")):
        curve = [accuracies[kind, per_class, s] for s in intensities]
        axes.semilogx(
            intensities, curve, "o", markersize=3, color="#009E73", linestyle=style, label=f"{per_class} a class"
        )
    axes.set(title=kind, xlabel="evaluation_shrinkage   (1: nearest ETF, 0.01: class means)")
panels[0].set_ylabel("test accuracy")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

alike, shaped = kinds
for kind in kinds:
    etf, means = accuracies[kind, 15, 1.0], accuracies[kind, 15, 0.01]
    print(f"{kind:30s} 15 samples a class: nearest ETF {etf:.3f}, class means {means:.3f}")
assert accuracies[alike, 15, 0.01] > accuracies[alike, 15, 1.0] + 0.05
assert accuracies[shaped, 15, 0.01] < accuracies[shaped, 15, 1.0] - 0.05

# %% [markdown]
# The best value depends on the noise. On the left the weak directions hold mostly noise, and the ETF gives them weight.
# On the right they separate the classes as well as the strong ones do, and the class means neglect them. A network
# shapes the noise of its own features while it trains, so the value is an option and not a constant. The docstring of
# `NearestETFHead` has the numbers of a real case, 242 classes of 15 images of Omniglot, and
# `notebooks/studies/omniglot.toml` is its study.
#
# The second option for few samples is `classify_first`. By default, as in the paper, a head updates the class means
# with a training batch and then classifies it: it compares a sample with a mean that contains the sample. So the
# training accuracy is too high. Two samples of each class in a batch of pure noise show it best:

# %%
chance = {}
for first in (False, True):
    head = NearestETFHead(d, C, classify_first=first)
    generator = torch.Generator().manual_seed(4)
    right = []
    for _ in range(20):
        y = torch.arange(C).repeat(2)
        right.append((head(torch.randn(len(y), d, generator=generator), y).argmax(dim=1) == y).float().mean())
    chance[first] = [float(x) for x in right]
    print(f"classify_first={first!s:5s}  training accuracy on pure noise: step 2 {chance[first][1]:.3f},", end=" ")
    print(f"step 20 {chance[first][-1]:.3f}, mean of 20 steps {np.mean(chance[first]):.3f}; chance is {1 / C}")
assert chance[False][1] > 0.3
assert np.mean(chance[True]) < 3 / C

# %% [markdown]
# ## Solving less often
#
# `solve_every=k` solves at every $k$-th step, and `freeze_after=n` stops after $n$ steps. The means and the bias still
# follow the batches, but the rotation lags behind the means. The gap of the certificate for the current means says by
# how much.

# %%
C, d, steps = 100, 512, 40
generator = torch.Generator().manual_seed(5)
start, drift = torch.randn(2, C, d, generator=generator)
y = torch.arange(C).repeat(3)
batches = [start[y] + k / steps * drift[y] + 0.5 * torch.randn(len(y), d, generator=generator) for k in range(steps)]
options = ({}, {"solve_every": 5}, {"solve_every": 20}, {"freeze_after": 10}, {"implicit_gradient": False})
gaps = {}
print("                            ms a step (median, mean)   relative gap of the classifier after 40 steps")
for option in options:
    head, taken = NearestETFHead(d, C, **option), []
    for x in batches:
        x.grad = None
        begin = time.perf_counter()
        nn.functional.cross_entropy(head(x.requires_grad_(), y), y).backward()
        taken.append(1e3 * (time.perf_counter() - begin))
    name = ", ".join(f"{key}={value}" for key, value in option.items()) or "default"
    gaps[name] = certify(head.solution().problem, head.U.double().numpy()).relative_gap
    print(f"{name:26s} {np.median(taken):12.2f} {np.mean(taken):12.2f} {gaps[name]:28.1e}")
assert gaps["default"] < 1e-6
assert gaps["default"] < gaps["solve_every=5"] < gaps["freeze_after=10"]
assert gaps["implicit_gradient=False"] == gaps["default"]

# %% [markdown]
# In these 40 steps the centres of the classes drift by as much as they differ, which is a hard case on purpose.
# `implicit_gradient=False` changes only the backward pass, so its gap is that of the default.
#
# ## On a GPU
#
# The same code runs on CUDA after `head.to("cuda")`. Two things differ. There the factorisation of a small matrix is
# slow, and products are fast: the default tries products, then checks their accuracy, which waits for the device.
# `method="newton-schulz"` never waits. Reading a value waits too, so a training step of a head does not check the
# batch. A bad batch (NaN, a label out of range) leaves the state as it was, and the error comes later, at the next
# `eval()`, `state_dict()` or `solution()`.

# %%
if torch.cuda.is_available():
    x, y = torch.randn(256, 64), torch.arange(256) % 10
    heads = {device: NearestETFHead(64, 10).to(device) for device in ("cpu", "cuda")}
    logits = [head(x.to(device), y.to(device)).cpu() for device, head in heads.items()]
    off = float((logits[0] - logits[1]).abs().max())
    print(f"{torch.cuda.get_device_name()}: logits off those of the CPU by {off:.1e}")
    assert torch.allclose(*logits, atol=1e-4)
    for row in bench_node([(512, 100), (2048, 1000)], device="cuda", methods=("auto", "newton-schulz")):
        print(
            f"d = {row.d}, C = {row.C}, {row.spectrum}, {row.method}: {1e3 * row.total:.2f} ms forward and backward,"
            f" {row.total / row.linear:.1f} linear layers"
        )
else:
    print("no CUDA device here")

# %% [markdown]
# ## Try it
#
# - Give rank 0 a single sample in the two-process script. Do the ranks still agree?
# - Extend the list of classes to 1000. Which part of the time is the solve? `etfopt bench node` prints more shapes.
# - Draw 1000 samples of each class for the shrinkage. Does it still help?
# - Add `{"solve_every": 2}` to the options of the last table. Is the saved time worth the gap?
# - On a machine with a GPU, run the last cell: it compares with the CPU and times both methods.
