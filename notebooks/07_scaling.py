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
# Three ways to outgrow a notebook: more processes, more classes, a GPU. For each, what the library promises, measured.

# %%
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from etfopt.adjoint import kkt_memory
from etfopt.bench.node import bench_node, growth
from etfopt.nn import NearestETFHead, collapse_temperature

torch.set_num_threads(1)
torch.manual_seed(0)

# %% [markdown]
# ## Processes
#
# Under `torch.distributed` the batches of all ranks count as one. Nothing is to be done for it: class sums and counts
# are reduced over the ranks, differentiably. We train the same small network twice for 20 steps: in one process with
# whole batches, and in two, started by `torchrun`, each with its own part of every batch. The parts are of unequal size
# and one rank never sees some of the classes.

# %%
SCRIPT = '''
import os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch import nn
from etfopt.nn import NearestETFHead

torch.set_num_threads(1)
rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if size > 1:
    dist.init_process_group("gloo")
torch.manual_seed(0)
backbone = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 16)).double()
head = NearestETFHead(16, 6).double()
if size > 1:
    backbone = nn.parallel.DistributedDataParallel(backbone)
optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
for step in range(20):
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(60, 20, generator=generator, dtype=torch.float64), torch.arange(60) // 10
    whole = len(y)
    if size > 1:
        mine = slice(0, 25) if rank == 0 else slice(25, 60)  # rank 0 sees classes 0 to 2, rank 1 classes 2 to 5
        x, y = x[mine], y[mine]
    # DDP averages over ranks; this weight makes it the mean over all samples
    loss = nn.functional.cross_entropy(head(backbone(x), y), y) * size * len(y) / whole
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
module = backbone.module if size > 1 else backbone
state = {"U": head.U, "bias": head.bias, "means": head.means.mean, "weights": module[0].weight.detach()}
torch.save(state, Path(sys.argv[1]) / f"{size}-{rank}.pt")
if size > 1:
    dist.destroy_process_group()
'''
environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo", "OMP_NUM_THREADS": "1"}
torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
with tempfile.TemporaryDirectory() as folder:
    script = Path(folder) / "two_ranks.py"
    script.write_text(SCRIPT)
    for launcher in ([sys.executable], torchrun):
        command = [*launcher, str(script), folder]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=100)
    alone, first, second = (torch.load(Path(folder) / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))

for name in alone:
    same = torch.equal(first[name], second[name])
    off = float((first[name] - alone[name]).abs().max() / alone[name].abs().max())
    print(f"{name:8s} ranks 0 and 1 equal to the bit: {same}; two processes against one: {off:.1e}")
    assert same
    assert off < 1e-11

# %% [markdown]
# Both ranks hold the same rotation, bias, means and weights *to the bit*, which is what keeps them from drifting apart.
# Against one process with the whole batch the difference is rounding: a sum of two partial sums is rounded differently
# from one long sum, and 20 steps carry that along.
#
# ## Cost as the number of classes grows
#
# The layer solves one $d \times C$ problem a step, in $O(dC^2 + C^3)$ operations, forward and backward. We time it
# for $d = 512$ from 10 to 400 classes on one thread.

# %%
classes = (10, 25, 50, 100, 200, 400)
rows = [row for row in bench_node([(512, C) for C in classes]) if row.spectrum == "random"]
slope = growth(rows, d=512, small=100, large=400)
print("   C   forward ms   forward and backward ms   over nn.Linear(512, C)")
for row in rows:
    print(f"{row.C:4d} {1e3 * row.forward:12.2f} {1e3 * row.total:25.2f} {row.total / row.linear:24.1f}")
print(f"log-log slope from C = 100 to 400: {slope:.2f}")
assert 0.5 < slope < 3.2  # between the fixed cost of a call and C^3

# %%
paper = [kkt_memory(512, C) for C in classes]
ours = [4 * row.memory * (row.d * row.C + row.C**2) for row in rows]  # float32
figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.4), layout="constrained")
left.loglog(classes, [1e3 * row.total for row in rows], "o-", color="#009E73", label="nearest ETF")
left.loglog(classes, [1e3 * row.linear for row in rows], "s--", color="0.5", label="nn.Linear, batch 256")
left.set(xlabel="classes C", ylabel="milliseconds, forward and backward", title=f"time, slope {slope:.1f} from 100 on")
right.loglog(classes, np.array(ours) / 2**20, "o-", color="#009E73", label="closed form (measured)")
right.loglog(classes, np.array(paper) / 2**20, "x-.", color="#D55E00", label="dense formula (computed)")
right.axhline(24 * 2**10, color="0.6", linewidth=0.8, linestyle=":")
right.annotate("24 GiB", (classes[0], 24 * 2**10), xytext=(0, 3), textcoords="offset points", fontsize=8, color="0.4")
right.set(xlabel="classes C", ylabel="MiB", title="peak memory, d = 512")
for axes in (left, right):
    axes.legend(frameon=False, fontsize=9)
    axes.set_xticks(classes, classes)
    axes.minorticks_off()
plt.show()
for row in rows:
    print(f"C = {row.C:3d}: at most {row.memory:.1f} (dC + C^2) numbers held at a time")
    assert row.memory < 16
