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
# # Certificates, and a solver that is confidently wrong
#
# A solver that stops says why it stopped. That is a report about its own run, not about the answer: "the gradient is
# zero" is one fact, "this is the optimum" is another. `etfopt` keeps the two facts in two fields.
# `solution.termination` is the solver's report. `solution.converged` is the verdict of a *certificate*, computed from
# the problem and the answer alone.
#
# **What you will see:** the main fields of a certificate, computed again by hand; answers that were tampered with, and
# the fields that notice; a solver that stops with a gradient of zero at a wrong answer, how often this happens, and the
# remedy; two problems with more than one answer; and bounds from a convex solver that knows no polar factor.

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np

import etfopt
from etfopt import plotting
from etfopt.bench.problems import choose_problems
from etfopt.solvers import ConvexRelaxation, TrustRegion

plt.rcParams.update(plotting.STYLE)
np.set_printoptions(precision=4, suppress=True)

# %% [markdown]
# ## Field by field
#
# The problem is to minimise $\lVert H - UF\rVert_F^2 + \tfrac{\delta}{2}\lVert U - U_\text{prox}\rVert_F^2$ over $U'U =
# I$. There the objective is a constant minus $\langle A, U\rangle$ with $A = 2HF' + \delta U_\text{prox}$. So $A$ and
# $U$ determine every field. We compute the main ones again from their definitions, in NumPy.

# %%
rng = np.random.default_rng(7)
problem = etfopt.NearestETF(rng.standard_normal((16, 5)) / 4, frame=etfopt.simplex_etf(5, reduced=True))
solution = etfopt.solve(problem)
A, U, certificate = problem.linear_term, solution.U, solution.certificate


def sym(X):
    return (X + X.T) / 2


nuclear = np.linalg.norm(A, "nuc")
by_hand = {
    "feasibility": np.linalg.norm(U.T @ U - np.eye(4)),  # is U on the manifold?
    "stationarity": np.linalg.norm(A - U @ sym(U.T @ A)),  # is the Riemannian gradient zero?
    "curvature": np.linalg.eigvalsh(sym(U.T @ A))[0],  # negative: not a minimiser
    "gap": nuclear - np.vdot(A, U),  # the excess objective, exactly
    "relative_gap": (nuclear - np.vdot(A, U)) / nuclear,
    "margin": np.linalg.svd(A, compute_uv=False)[-1],  # zero: another U is as good
}
for name, value in dataclasses.asdict(certificate).items():
    own = f"{by_hand[name]:12.2e}" if name in by_hand else ""
    print(f"{name:22s}{value:12.2e}{own}" if isinstance(value, float) else f"{name:22s}{value!s:>12s}")
for name, value in by_hand.items():
    assert np.isclose(getattr(certificate, name), value, rtol=1e-12, atol=1e-13), name
assert solution.converged

# %% [markdown]
# The gap decides. No $U$ on the manifold makes $\langle A, U\rangle$ larger than the sum of the singular values of $A$,
# its nuclear norm $\lVert A\rVert_*$, and one $U$ reaches it. So $\lVert A\rVert_* - \langle A, U\rangle$ is not a
# bound on the excess objective: it *is* the excess objective (proof: `theory/certificate.py`).
#
# The other fields say what kind of point it is. `distance_bound` bounds the error of $U$ itself, by about
# $\sqrt{2\,\text{gap}/\text{margin}}$ plus rounding. `etf_distance_bound` bounds the error of the ETF $UF$.
#
# ## Tampering
#
# We turn the answer by a small angle along a random curve on the manifold. We know the true answer here, so we can
# compare the certificate with the truth.

# %%
direction = rng.standard_normal(U.shape)
direction -= U @ sym(U.T @ direction)  # tangent to the manifold at U
direction /= np.linalg.norm(direction)
angles = np.geomspace(1e-7, 1, 29)
turned = [etfopt.polar_factor(U + angle * direction) for angle in angles]
judged = [etfopt.certify(problem, point) for point in turned]

series = {
    "relative gap": ([c.relative_gap for c in judged], "-"),
    r"true distance $\|U - U^*\|$": ([np.linalg.norm(point - U) for point in turned], "--"),
    "distance_bound": ([c.distance_bound for c in judged], ":"),
}
fig, axes = plt.subplots(figsize=(6.4, 3.4))
for (label, (values, dashes)), color in zip(series.items(), plotting.COLORS, strict=False):
    axes.loglog(angles, np.maximum(values, 1e-16), dashes, color=color, label=label)
axes.set(xlabel="how far the answer was turned", title="What a certificate notices")
axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
plt.show()

assert all(c.distance_bound >= np.linalg.norm(point - U) for c, point in zip(judged, turned, strict=True))
middle = (angles > 1e-4) & (angles < 1e-1)
for field, power in (("relative_gap", 2), ("relative_stationarity", 1)):
    values = np.array([getattr(c, field) for c in judged])
    slope = np.polyfit(np.log(angles[middle]), np.log(values[middle]), 1)[0]
    print(f"{field} grows like the angle to the power {slope:.2f}")
    assert abs(slope - power) < 0.05

# %% [markdown]
# The gap grows with the square of the angle, and the gradient with the angle. So a solver can be off by $10^{-8}$ near
# the minimiser, with a gap that is only rounding. `distance_bound` accounts for this: it lies above the true distance
# everywhere, at the left end by the square root of the rounding.
#
# Now some larger changes. The table shows which field notices each of them.

# %%
P, s, Qt = np.linalg.svd(A, full_matrices=False)
tampered = {
    "as solved": U,
    "four entries off by 1e-6": U + 1e-6 * np.eye(16, 4),
    "stretched by 1 %": 1.01 * U,
    "two columns swapped": U[:, [1, 0, 2, 3]],
    "one singular direction reversed": (P * [1, 1, 1, -1]) @ Qt,
    "all reversed": -U,
    "a random point": etfopt.random_stiefel(16, 4, rng),
}
print(f"{'':32s}{'feasible':>9s}{'stationarity':>14s}{'curvature':>11s}{'relative gap':>14s}  optimal")
for name, point in tampered.items():
    c = etfopt.certify(problem, point)
    verdict = c.optimal(1e-12)
    numbers = f"{c.relative_stationarity:14.1e}{c.curvature:11.3f}{c.relative_gap:14.1e}"
    print(f"{name:32s}{c.feasible!s:>9s}{numbers}  {verdict}")
    assert verdict is (name == "as solved")

stretched = etfopt.certify(problem, tampered["stretched by 1 %"])
assert stretched.gap < 0
assert not stretched.feasible
reversed_ = etfopt.certify(problem, tampered["one singular direction reversed"])
assert reversed_.relative_stationarity < 1e-14
assert reversed_.curvature < 0
assert np.isclose(reversed_.gap, 2 * s[-1])

# %% [markdown]
# - *Stretched*: the gap is clearly negative, as if the answer were better than the best. Such a point is off the
#   manifold, and `feasible` is False.
# - *One singular direction reversed*: the gradient is zero up to rounding, but the point is not the minimiser. The
#   gradient cannot tell. The negative `curvature` can, and so can the gap: it is twice the singular value of that
#   direction.
#
# Can a solver end at such a point?
#
# ## Confidently wrong
#
# In few dimensions it can. Take three classes in a plane. With d = C - 1 the matrices $U$ are square, so they form the
# orthogonal group O(2). It has two parts: rotations, with determinant 1, and reflections, with determinant -1. No path
# leads from one part to the other, and a Riemannian solver follows a path. In the plane each part is a circle, so we
# can draw all of it.

# %%
frame = etfopt.simplex_etf(3, reduced=True)
plane = etfopt.NearestETF(np.array([[1.0, -0.9, -0.1], [0.1, 0.9, -1.0]]), frame=frame)
mirror = np.diag([1.0, -1.0])


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


best = etfopt.solve(plane)
starts = {"rotation": rotation(2.0), "reflection": rotation(2.0) @ mirror}
ends = {name: etfopt.solve(plane, TrustRegion(), initial_point=start, throw=False) for name, start in starts.items()}
for name, end in ends.items():
    print(
        f"started at a {name:10s}: {end.termination.name}, gradient {end.certificate.relative_stationarity:.0e}, "
        f"curvature {end.certificate.curvature:6.3f}, gap {max(end.certificate.gap, 0):.3f}, converged {end.converged}"
    )

wrong = ends["rotation" if np.linalg.det(best.U) < 0 else "reflection"]
right = ends["reflection" if np.linalg.det(best.U) < 0 else "rotation"]
assert wrong.termination is right.termination is etfopt.Termination.GRADIENT_TOLERANCE
assert right.converged
assert not wrong.converged
assert wrong.certificate.relative_stationarity < 1e-9
assert wrong.certificate.curvature < 0
assert np.isclose(wrong.certificate.gap, 2 * wrong.certificate.margin)

# %% [markdown]
# Both runs report `GRADIENT_TOLERANCE`, a gradient of zero. Both reports are true. But one run found the minimum of its
# own circle, which is not the minimum.

# %%
fig = plt.figure(figsize=(10.5, 3.5))
axes, first, second = (fig.add_subplot(1, 3, place) for place in (1, 2, 3))
turn = np.linspace(-np.pi, np.pi, 361)
circles = (("rotation", np.eye(2), "-"), ("reflection", mirror, "--"))
for (name, point, dashes), color in zip(circles, plotting.COLORS, strict=False):
    axes.plot(turn, [plane.objective(rotation(angle) @ point) for angle in turn], dashes, color=color, label=f"{name}s")
    end = ends[name]
    face = color if end.converged else "white"
    axes.plot(np.arctan2(end.U[1, 0], end.U[0, 0]), end.objective, "o", color=color, markerfacecolor=face, markersize=7)
axes.set(xlabel="angle", ylabel="objective", title="All of O(2), and where two runs end")
axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
for panel, end, title in ((first, right, "the nearest ETF"), (second, wrong, "the best of the other circle")):
    plotting.draw_frame(plane.H, end.scale * end.etf, limit=1.5, axes=panel)
    panel.set_title(f"{title}\nconverged {end.converged}")
plt.show()

# %% [markdown]
# On the right the classes go round the triangle in the other direction, and no rotation can change that. The best of
# the mirrored triangles is small, and far from the means.
#
# We passed `throw=False` to see this. By default `etfopt.solve` raises an error, which carries the rejected solution:

# %%
refusal = None
try:
    etfopt.solve(plane, TrustRegion(), initial_point=wrong.U)
except etfopt.ConvergenceError as error:
    refusal = error
print(refusal)
assert np.isclose(refusal.solution.certificate.gap, wrong.certificate.gap)

# %% [markdown]
# ### How often, and in which problems
#
# We take random starts on three problems of ten classes with a square $U$:
#
# - *tight*: d = C - 1 and the reduced frame, as above;
# - *square*: d = C and the paper's frame, without a proximal term;
# - *square-proximal*: d = C and the paper's frame, with its $\delta = 10^{-3}$.
#
# In a fourth problem, d = 64, $U$ has more rows than columns, and the manifold has only one part.

# %%
STARTS = 12
print(f"{'problem':24s}{'gradient < 1e-6':>20s}{'converged':>12s}{'with a restart':>16s}{'worst excess':>14s}")
for named in choose_problems(["tight-9x10", "square-10x10", "square-proximal-10x10", "random-64x10"]):
    case, runs, repaired = named.problem, [], 0
    for seed in range(STARTS):
        start = etfopt.random_stiefel(case.d, case.r, np.random.default_rng(seed))
        runs.append(etfopt.solve(case, TrustRegion(max_seconds=5), initial_point=start, throw=False))
        if not runs[-1].converged:
            again = etfopt.solve(case, TrustRegion(restarts=1, max_seconds=5), initial_point=start)
            repaired += again.converged
    stopped = sum(run.certificate.relative_stationarity < 1e-6 for run in runs)
    converged, worst = sum(run.converged for run in runs), max(run.certificate.gap for run in runs)
    mended = f"{converged + repaired} of {STARTS}"
    print(f"{named.name:24s}{stopped:14d} of {STARTS}{converged:6d} of {STARTS}{mended:>16s}{max(worst, 0):14.1e}")
    assert stopped == STARTS
    assert converged + repaired == STARTS
    assert (converged == STARTS) is (named.family in ("square", "random"))
    if named.family == "square-proximal":
        assert worst <= 2 * case.delta * (1 + 1e-6)

# %% [markdown]
# In the tight problem about half of the starts lie in the wrong part. With the paper's frame and no proximal term no
# start is wrong: that frame ignores one direction of $U$, and a reflection of this direction changes nothing. A
# proximal term fixes this direction, so half of the starts are wrong again. But they are only a little wrong: their
# excess is at most $2\delta$. With d > r there is one part and no such trap. `theory/landscape.py` has the proofs.
#
# The remedy is one setting: `restarts=1` runs again from the start reflected into the other part, and keeps the better
# answer. The closed form has no start, so it has no such trap.
#
# ## Two answers that are equally good
#
# Two flags say whether another answer is as good: `unique` for $U$, and `etf_unique` for the ETF $UF$. A classifier
# uses the ETF alone.

# %%
H = rng.standard_normal((12, 5))
H -= H.mean(axis=1, keepdims=True)
flat = H.copy()
flat[2:] = 0  # all means in a plane: rank 2
previous = etfopt.nearest_etf(H + 0.1).U
cases = {
    "reduced frame": etfopt.NearestETF(H, frame=etfopt.simplex_etf(5, reduced=True)),
    "the paper's frame": etfopt.NearestETF(H),
    "the same, with a proximal term": etfopt.NearestETF(H, previous, 1e-3),
    "means in a plane": etfopt.NearestETF(flat),
}
print(f"{'':32s}{'margin':>9s}{'unique':>8s}{'etf_unique':>12s}{'distance_bound':>16s}{'etf_distance_bound':>20s}")
for name, case in cases.items():
    c = etfopt.solve(case).certificate
    print(
        f"{name:32s}{c.margin:9.1e}{c.unique!s:>8s}{c.etf_unique!s:>12s}{c.distance_bound:16.1e}{c.etf_distance_bound:20.1e}"
    )

# %% [markdown]
# For the paper's frame, $M1 = 0$. So $UM$ does not depend on $U1$: if you reverse that direction, you get another $U$
# with the same ETF. If all means lie in a plane, the ETF itself is not unique: you can reflect it in every direction
# that the means do not use.

# %%
gauge = cases["the paper's frame"]
U = etfopt.solve(gauge).U
other = U @ (np.eye(5) - 2 / 5)  # reverses the vector of ones
apart = np.linalg.norm(U - other), np.linalg.norm((U - other) @ gauge.F)
print(f"the paper's frame: two U, {apart[0]:.2f} apart; their ETFs, {apart[1]:.0e} apart")
assert etfopt.certify(gauge, other).optimal(1e-12)
assert np.linalg.norm(U - other) > 1
assert np.allclose(U @ gauge.F, other @ gauge.F)

loose = cases["means in a plane"]
U = etfopt.solve(loose).U
reflect = np.diag([1.0, 1.0, *[-1.0] * 10])  # every dimension that the means do not use
other = reflect @ U
print(f"means in a plane: two ETFs, {np.linalg.norm((U - other) @ loose.F):.2f} apart, equally near")
assert etfopt.certify(loose, other).optimal(1e-12)
assert np.linalg.norm((U - other) @ loose.F) > 0.1
assert np.isclose(loose.objective(U), loose.objective(other))

# %% [markdown]
# ## An independent judge
#
# The certificate rests on one SVD. If you do not trust that SVD, ask a convex solver, which knows no polar factors. The
# relaxation maximises $\langle A, X\rangle$ over the matrices of spectral norm at most 1; the points of the manifold
# are the extreme points of this set. The solver returns a value that some $X$ reaches, `primal`, and from its
# multipliers a value that no $X$ can exceed, `dual`. The optimum lies between them.

# %%
units = np.linalg.norm(plane.linear_term, 2)  # in which the relaxation states its bounds
for backend in ("CLARABEL", "SCS"):
    relaxed = etfopt.solve(plane, ConvexRelaxation(backend), throw=False)
    stats = relaxed.stats
    value = {name: np.vdot(plane.linear_term, end.U) / units for name, end in (("right", right), ("wrong", wrong))}
    print(
        f"{backend:9s} {stats.status}: primal {stats.primal:.9f} <= optimum <= dual {stats.dual:.9f}; "
        f"right {value['right']:.9f}, wrong {value['wrong']:.9f}"
    )
    assert stats.primal - 1e-12 <= stats.nuclear_norm <= stats.dual + 1e-12
    assert value["right"] <= stats.dual + 1e-12
    assert value["wrong"] < stats.primal - 0.1  # so it is not optimal

# %% [markdown]
# Any $X$ is a mixture of points of the manifold, and one of these is at least as good as $X$. So a value below `primal`
# proves that the wrong answer is not optimal, whatever its gradient. The value of the right answer lies within the
# bounds, and their width limits how much anyone could still improve it. If the optimal point of the manifold is unique,
# the relaxation finds it. If several are equally good, the relaxation may return a mixture of them:

# %%
for name, case in (("means in general position", cases["reduced frame"]), ("means in a plane", loose)):
    stats = etfopt.solve(case, ConvexRelaxation(), throw=False).stats
    shape = f"X'X - I: {stats.infeasibility:.1e}, on the manifold: {stats.on_manifold}"
    print(f"{name:26s} {shape}; dual - primal {stats.dual - stats.primal:.0e}")
    assert stats.on_manifold is etfopt.solve(case).certificate.etf_unique

# %% [markdown]
# ## In short
#
# - Trust `converged`, not `termination`.
# - A gap near rounding means optimal. `distance_bound` says how accurate $U$ is, `etf_distance_bound` the ETF.
# - A gradient of zero with a negative `curvature` is a trap. With a square $U$, use `restarts=1` or the closed form.
# - `unique` False with `etf_unique` True is harmless: the frame ignores a direction. If both are False, the means do
#   not determine an ETF.
#
# ## Try it
#
# - Change the angle 2.0 of the two starts in the plane. Which run ends at the wrong triangle now? Does any angle help
#   it?
# - Set `STARTS = 40`. Which share of the starts is wrong in the tight problem?
# - Certify an answer of your own: save class means as `means.npy` (d x C), and run `etfopt solve means.npy`, or call
#   `etfopt.certify(problem, U)` with a $U$ from another program.
# - Check the claims of `theory/` on new random cases: `etfopt verify --claim certificate --claim landscape`.
