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
# # The nearest ETF in five minutes
#
# Train a classifier past zero training error, and its last layer simplifies itself. The features of each class shrink
# to their mean. The class means turn into a *simplex equiangular tight frame* (ETF): C vectors of one length whose
# pairwise cosine is $-1/(C-1)$, the most negative that C vectors can share. This is *neural collapse* (Papyan, Han and
# Donoho 2020).
#
# So the shape at the end of training is known before training, up to a rotation. Which rotation? At any step you can
# ask: of all simplex ETFs, **which is nearest to the current class means?**
#
# **What you will see:** a small model collapses, with the nearest ETF drawn at five steps; one solution, field by
# field; its certificate; two frames; and how much of the noise in class means the distance to the nearest ETF shows.

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import torch

import etfopt
from etfopt import plotting

plt.rcParams.update(plotting.STYLE)
np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# ## A collapse to look at
#
# A large network can move the feature of each training sample almost freely. The *unconstrained-features model* takes
# this literally: features and classifier are both parameters. Ours has four classes of 40 samples in three dimensions,
# so that you can see everything. Gradient descent minimises the cross-entropy with weight decay.

# %%
C, d, n = 4, 3, 40
labels = torch.arange(C).repeat_interleave(n)
generator = torch.Generator().manual_seed(0)
features = torch.randn(C * n, d, generator=generator, dtype=torch.float64).requires_grad_()
weight = torch.randn(C, d, generator=generator, dtype=torch.float64).requires_grad_()

moments = (0, 6, 20, 50, 200)
snapshots = []
for _ in range(max(moments) + 1):
    snapshots.append(features.detach().numpy().copy())
    loss = torch.nn.functional.cross_entropy(features @ weight.T, labels)
    penalty = 0.01 * (features.square().sum() / n + weight.square().sum())
    gradients = torch.autograd.grad(loss + penalty, (features, weight))
    with torch.no_grad():
        features -= n * gradients[0]  # each feature has 1/n of the weight in the mean loss of its class
        weight -= gradients[1]


def class_means(cloud):
    """Centred class means of features, one column a class: d x C."""
    means = np.stack([cloud[labels == c].mean(axis=0) for c in range(C)], axis=1)
    return means - means.mean(axis=1, keepdims=True)


# %% [markdown]
# ## The problem
#
# The class means are the columns of a matrix $H$, of shape d x C. The *frame* $F$ is one simplex ETF, in its own
# coordinates. Every other simplex ETF of the same size is $UF$, where $U$ has orthonormal columns. So the nearest one
# solves
#
# $$ \min_{U'U = I} \; \lVert H - U F \rVert_F^2 . $$
#
# `etfopt.nearest_etf` solves this exactly. Four classes just fit into d = 3 dimensions. They need the *reduced* frame,
# which has C - 1 rows.

# %%
frame = etfopt.simplex_etf(C, reduced=True)
solutions = [etfopt.nearest_etf(class_means(cloud), frame=frame) for cloud in snapshots]
relative = np.array([solution.distance / np.linalg.norm(solution.problem.H) for solution in solutions])

fig = plt.figure(figsize=(11, 2.7))
for place, step in enumerate(moments):
    cloud, solution = snapshots[step], solutions[step]
    axes = fig.add_subplot(1, len(moments), place + 1, projection="3d")
    etf = solution.scale * solution.etf
    samples = [cloud[labels == c] - cloud.mean(axis=0) for c in range(C)]
    plotting.draw_frame(solution.problem.H, etf, samples=samples, limit=2.2, view=(22, -85), axes=axes)
    axes.set_title(f"step {step}\ndistance {relative[step]:.3f} of $\\|H\\|$")
plt.show()

# %% [markdown]
# Dots are the samples, and arrows their class means. The hollow corners of the tetrahedron are the nearest simplex ETF.
# A dotted line joins each mean to its corner. All five pictures have one scale. At the start the means are small and
# lie anywhere. At the end each mean sits on its corner, and so do the samples of its class.

# %%
within = [
    np.linalg.norm(cloud - np.repeat(class_means(cloud).T + cloud.mean(axis=0), n, axis=0)) / np.linalg.norm(cloud)
    for cloud in snapshots
]
fig, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.9), width_ratios=[2, 1])
left.semilogy(relative, color=plotting.COLORS[2], label=r"means to their nearest ETF, over $\|H\|$")
left.semilogy(within, "--", color=plotting.COLORS[0], label="samples to their class mean, relative")
left.set(xlabel="step of gradient descent", title="Neural collapse, measured")
left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
plotting.draw_matrix(plotting.cosines(class_means(snapshots[-1])), "cosines at the end", numbers=True, axes=right)
plt.show()

cosines = plotting.cosines(class_means(snapshots[-1]))[~np.eye(C, dtype=bool)]
print(f"relative distance: {relative[0]:.3f} at the start, {relative[-1]:.1e} at the end")
assert relative[-1] < 1e-2 < 0.2 < relative[0]
assert np.abs(cosines + 1 / (C - 1)).max() < 0.02

# %% [markdown]
# ## One solution, field by field
#
# Take the means of step 6, which have not collapsed yet.

# %%
solution = solutions[6]
H = solution.problem.H
print("U F, the ETF, one column a class:", solution.etf, sep="\n")
print("its Gram matrix, times C:", C * solution.etf.T @ solution.etf, sep="\n")
print("classifier weight, one row a class:", solution.weight, sep="\n")

assert np.allclose(solution.etf, solution.U @ frame)
assert np.allclose(solution.U.T @ solution.U, np.eye(C - 1))
assert np.allclose(solution.weight @ solution.weight.T, (C * np.eye(C) - 1) / (C - 1))  # unit rows, cosine -1/3

# %% [markdown]
# `solution.weight` is the ETF in the form of the weight of a `torch.nn.Linear`: unit rows, pairwise cosine $-1/3$.
#
# The ETF $UF$ has Frobenius norm 1. The best $U$ does not depend on the size of the ETF, so the nearest ETF *of any
# size* is a multiple of $UF$. `scale` is the multiple, and `distance` is the distance to it. Both are in the units of
# $H$: if you multiply the means by seven, the ETF stays, and both become seven times as large.

# %%
print(f"scale {solution.scale:.4f}, distance {solution.distance:.4f}, ||H|| = {np.linalg.norm(H):.4f}")
larger = etfopt.nearest_etf(7 * H, frame=frame)

assert np.isclose(solution.distance, np.linalg.norm(H - solution.scale * solution.etf))
assert np.isclose(solution.scale**2 + solution.distance**2, np.linalg.norm(H) ** 2)  # a right angle
assert np.allclose(larger.etf, solution.etf)
assert np.isclose(larger.scale, 7 * solution.scale)
assert np.isclose(larger.distance, 7 * solution.distance)

sizes = np.linspace(0, 2 * solution.scale, 201)
distances = [np.linalg.norm(H - s * solution.etf) for s in sizes]
fig, axes = plt.subplots(figsize=(4.5, 2.7))
axes.plot(sizes, distances, color=plotting.COLORS[1])
axes.plot(solution.scale, solution.distance, "o", color=plotting.COLORS[1], markerfacecolor="white")
axes.annotate("scale, distance", (solution.scale, solution.distance), (0, 24), textcoords="offset points", ha="center")
axes.set(xlabel="s", ylabel=r"$\|H - s\,UF\|_F$", title="The ETF of any size")
plt.show()

# %% [markdown]
# ## The certificate
#
# Is this really the nearest one? Where $U'U = I$, both $\lVert UF\rVert$ and $\lVert H\rVert$ are constant. So the
# objective is a constant minus $\langle A, U\rangle$ with $A = 2HF'$. No $U$ makes $\langle A, U\rangle$ larger than
# the sum of the singular values of $A$, its nuclear norm. So for any candidate $U$, from any solver,
#
# $$ \text{gap} = \lVert A\rVert_* - \langle A, U\rangle \ge 0 $$
#
# is *exactly* how much its objective exceeds the best one. The gap costs one SVD of $A$, and trusts no solver.

# %%
for name, value in dataclasses.asdict(solution.certificate).items():
    print(f"{name:24s}{value:.2e}" if isinstance(value, float) else f"{name:24s}{value}")

assert solution.converged  # the certificate's verdict
assert solution.certificate.unique  # and no other U is as good

# %% [markdown]
# The gap is zero up to rounding, which can have either sign. `feasibility` says that the columns of $U$ are
# orthonormal. `unique` says that no other $U$ is as good. A random guess has a large gap:

# %%
guess = etfopt.random_stiefel(d, C - 1, np.random.default_rng(0))
verdict = etfopt.certify(solution.problem, guess)
excess = solution.problem.objective(guess) - solution.objective
print(f"gap of the guess {verdict.gap:.6f}, its excess objective {excess:.6f}")
assert np.isclose(verdict.gap, excess)
assert not verdict.optimal(1e-6)

# %% [markdown]
# Notebook `03_certificates` explains every field.
#
# ## How many dimensions are needed
#
# C vectors at equal angles, as far apart as possible, span C - 1 dimensions. Three classes need a plane:

# %%
rng = np.random.default_rng(5)
plane = rng.standard_normal((2, 3))
plane -= plane.mean(axis=1, keepdims=True)
flat = etfopt.nearest_etf(plane, frame=etfopt.simplex_etf(3, reduced=True))
fig, axes = plt.subplots(figsize=(3.2, 3.2))
plotting.draw_frame(plane, flat.scale * flat.etf, axes=axes)
axes.set_title("C = 3, d = 2")
plt.show()
print("angles between the corners, in degrees:", np.degrees(np.arccos(plotting.cosines(flat.etf)[0, 1:])))

# %% [markdown]
# The default frame is the square one of the paper (Markou, Ajanthan and Gould 2024), $M = (I - 11'/C)/\sqrt{C-1}$. It
# needs d >= C. The reduced frame needs d >= C - 1 only. Where both fit, they give the same ETF. Below C - 1 dimensions
# no simplex ETF exists, and `nearest_etf` raises an error:

# %%
roomy = rng.standard_normal((6, 4))
square, reduced = etfopt.nearest_etf(roomy), etfopt.nearest_etf(roomy, frame=etfopt.simplex_etf(4, reduced=True))
print("U has shape", square.U.shape, "with the square frame and", reduced.U.shape, "with the reduced one")
assert np.allclose(square.etf, reduced.etf)

for shape, choice in (((3, 4), None), ((2, 4), etfopt.simplex_etf(4, reduced=True))):
    try:
        etfopt.nearest_etf(rng.standard_normal(shape), frame=choice)
    except etfopt.InputError as error:
        print("refused:", error)
    else:
        raise AssertionError("there is no such ETF")

# %% [markdown]
# ## Distance against noise
#
# How well can you find an ETF in noise? Take an ETF of 10 classes in 64 dimensions, add centred noise of norm $\sigma$,
# and solve. We measure two distances: from the noisy means to their nearest ETF, and from that ETF to the true one.
#
# For small noise both follow a law. Noise whose columns sum to zero has $d(C-1)$ dimensions. In $C(C-1)/2 - 1$ of them
# it changes angles or ratios of lengths, and no ETF can follow. In all others it rotates or scales the ETF, and the
# nearest ETF follows. So a share $q = (C(C-1)/2 - 1)/(d(C-1))$ of the squared noise shows up as distance, and the rest
# moves the ETF.

# %%
C, d, draws = 10, 64, 40
levels = np.geomspace(1e-3, 10, 17)
found = np.zeros((2, draws, len(levels)))
for k in range(draws):
    truth = etfopt.random_stiefel(d, C, rng) @ etfopt.simplex_etf(C)
    noise = rng.standard_normal((d, C))
    noise -= noise.mean(axis=1, keepdims=True)
    noise /= np.linalg.norm(noise)
    for j, sigma in enumerate(levels):
        solution = etfopt.nearest_etf(truth + sigma * noise)
        found[:, k, j] = solution.distance, np.linalg.norm(solution.scale * solution.etf - truth)
seen, pulled = np.sqrt(np.mean(found**2, axis=1))

q = (C * (C - 1) / 2 - 1) / (d * (C - 1))
fig, axes = plt.subplots(figsize=(5.6, 3.2))
for values, share, law, style, label in (
    (found[1], 1 - q, r"$\sqrt{1-q}$", {"color": plotting.COLORS[0], "marker": "s"}, "nearest ETF to the true one"),
    (found[0], q, r"$\sqrt{q}$", {"color": plotting.COLORS[2], "marker": "o"}, "means to their nearest ETF"),
):
    ratio = values / levels
    axes.fill_between(levels, ratio.min(axis=0), ratio.max(axis=0), color=style["color"], alpha=0.15, linewidth=0)
    axes.plot(levels, np.sqrt(np.mean(ratio**2, axis=0)), linestyle="", markersize=4.5, label=label, **style)
    axes.axhline(np.sqrt(share), color=style["color"], linewidth=1, linestyle="--")
    axes.annotate(law, (levels[-1], np.sqrt(share)), (4, 4), textcoords="offset points", color=style["color"])
axes.set(xscale="log", ylim=(0, 1.15), xlabel=r"norm of the noise $\sigma$, in units of the ETF")
axes.set(ylabel=r"distance over $\sigma$", title=f"C = {C}, d = {d}")
fig.legend(loc="outside lower center", ncols=2)
plt.show()

small = levels <= 0.1
print(f"sqrt(q) = {np.sqrt(q):.3f}; distance over sigma, small noise: {(seen / levels)[small].round(3)}")
assert np.allclose((seen / levels)[small], np.sqrt(q), rtol=0.05)
assert np.allclose((pulled / levels)[small], np.sqrt(1 - q), rtol=0.01)
assert seen[-1] < 0.9 * np.sqrt(q) * levels[-1]

# %% [markdown]
# Points are root mean squares over 40 draws, and the bands are the ranges. So a small distance does not prove a small
# error: in high dimensions most of the noise moves the ETF itself, and the distance shows only the rest. Where the
# noise is larger than the ETF, the distance falls below the law, because some other ETF is then nearer than the true
# one.
#
# ## Try it
#
# - Set `C, d = 3, 2` in the second code cell: `draw_frame` also draws in two dimensions, without `projection="3d"` and
#   `view`.
# - Raise the weight decay from 0.01 to 0.1. How do the size of the ETF and the speed of collapse change?
# - Set `d = 10` or `d = 512` in the last code cell. Which share of the noise does the distance show?
#
# Next: `02_solvers` compares solvers for this problem, and `03_certificates` explains the certificate. In a network,
# `etfopt.nn.NearestETFHead` solves the problem at every training step, differentiably: see `06_bring_your_own_network`.
