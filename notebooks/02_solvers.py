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
# # Solvers compared, and how to choose
#
# The nearest simplex ETF to class means $H$ minimises $\lVert H - UF\rVert_F^2 + \tfrac{\delta}{2}\lVert U -
# U_\text{prox}\rVert_F^2$ over matrices $U$ with orthonormal columns. The paper that posed the problem (Markou,
# Ajanthan and Gould 2024) solves it by a Riemannian trust region, an iteration on the manifold of such matrices. But
# the objective is *linear* on that manifold: a constant minus $\langle A, U\rangle$ with $A = 2HF' + \delta
# U_\text{prox}$. So the minimiser has a closed form: the orthonormal factor of the polar decomposition of $A$.
#
# **What you will see:** eight solvers on one problem, judged by one certificate; nine on five kinds of problems, with
# their gaps against time; how many times longer each takes than the closed form; how the times grow with the number of
# classes; and a table that says which solver to use.

# %%
import statistics
from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np

import etfopt
from etfopt import plotting
from etfopt.bench.compare import cells, compare
from etfopt.bench.lineup import line_up
from etfopt.bench.problems import choose_problems
from etfopt.bench.report import conditions
from etfopt.bench.summary import performance_profile, ratios, summarise
from etfopt.solvers import ConjugateGradient, ConvexRelaxation, Procrustes, SteepestDescent, TrustRegion

plt.rcParams.update(plotting.STYLE)

# %% [markdown]
# Times depend on the machine, its load, and the versions. The next line shows the conditions of this run. We claim only
# what the assertions check.

# %%
print(", ".join(f"{key} {value}" for key, value in conditions().items()))

# %% [markdown]
# ## One problem, one call
#
# A solver is a frozen record of settings, and `etfopt.solve(problem, solver)` runs it. The certificate judges the
# answer. It knows the problem and the answer, but not the solver.

# %%
rng = np.random.default_rng(0)
problem = etfopt.NearestETF(rng.standard_normal((32, 6)), frame=etfopt.simplex_etf(6, reduced=True))
start = etfopt.random_stiefel(32, 5, rng)

solvers = [
    *(Procrustes(method) for method in ("svd", "gram", "newton-schulz")),
    *(TrustRegion(), ConjugateGradient(max_iterations=5000), SteepestDescent(max_iterations=5000)),
    *(ConvexRelaxation("CLARABEL"), ConvexRelaxation("SCS")),
]
answers = [etfopt.solve(problem, solver, initial_point=start) for solver in solvers]
best = answers[0]
print(f"{'solver':28s} {'iterations':>10s} {'relative gap':>13s} {'off in UF':>10s}  why it stopped")
for answer in answers:
    stats, certificate = answer.stats, answer.certificate
    name = f"{stats.solver} ({stats.method})" if hasattr(stats, "method") else stats.solver
    off = np.linalg.norm(answer.etf - best.etf)
    print(f"{name:28s} {stats.iterations:10d} {certificate.relative_gap:13.1e} {off:10.1e}  {answer.termination.name}")
    assert answer.converged
    assert off < 1e-2
    assert not stats.fallback
    assert off <= certificate.etf_distance_bound + best.certificate.etf_distance_bound

# %% [markdown]
# All solvers find the same ETF $UF$, but to different numbers of digits. The objective is flat at its minimum, so a
# relative gap of $\epsilon$ allows an error of order $\sqrt\epsilon$ in $UF$. The certificate's `etf_distance_bound`
# bounds the distance to the nearest ETF, and the last assertion checks each answer against it.
#
# The closed form has three methods with different costs and the same accuracy: a singular value decomposition ("svd"),
# an eigenvalue decomposition of the small matrix $A'A$ ("gram"), and matrix products alone ("newton-schulz"). A method
# that cannot reach this accuracy on a problem falls back to a more robust one, and reports it:

# %%
spectrum = np.geomspace(1, 1e-7, 5)
directions = etfopt.random_stiefel(5, 5, rng) @ etfopt.simplex_etf(6, reduced=True)
hard = etfopt.NearestETF((etfopt.random_stiefel(32, 5, rng) * spectrum) @ directions)
for method in ("svd", "gram", "newton-schulz"):
    answer = etfopt.solve(hard, Procrustes(method))
    print(f"{method}: answered by {answer.stats.method}. {answer.stats.fallback}")
    assert answer.converged
    assert answer.certificate.relative_gap < 10 * 6 * np.finfo(float).eps
assert answer.stats.method != "newton-schulz"

# %% [markdown]
# ## All solvers on five kinds of problems
#
# A comparison by hand is easily unfair. `etfopt.bench.compare` has rules: every iterative solver starts from the same
# random point, and has the same tolerance and the same time limit. Each runs in a process that has done its imports and
# has solved a small problem. Failures are rows too. We take five kinds of class means:
#
# - *random*, as at the start of training;
# - *collapsed*: an ETF with a little noise, as at the end;
# - *ill-conditioned*: singular values down to $10^{-6}$ of the largest;
# - *digits*: the class means of a network trained on handwritten digits for 60 epochs;
# - *proximal*: a training step as the paper poses it, with $\delta = 10^{-3}$.

# %%
names = ["random-64x10", "collapsed-64x10", "ill-conditioned-16x4", "digits-epoch-60", "proximal-64x10"]
line = ["procrustes-svd", "procrustes-gram", "procrustes-newton-schulz", "trust-region", "trust-region-autograd"]
line += ["conjugate-gradient", "steepest-descent", "clarabel", "scs"]
entrants, _ = line_up(line, limit=1.0)
rows = list(compare(cells(choose_problems(names), entrants, seeds=2), limit=1.0))

fig = plt.figure(figsize=(11, 5.0))
plotting.draw_convergence_page(rows, figure=fig)
plt.show()

# %% [markdown]
# A line is a run of an iterative solver: its relative gap against time. A marker shows where a run ended; direct
# solvers have a marker only. It is filled if the certificate accepts the answer. The grey line is the rounding unit.
#
# A trust region converges superlinearly near the minimiser, so its curve drops at the end. The first-order methods keep
# up where the singular values of $A$ are alike, as for random and collapsed means. Where some are far smaller than
# others, these methods are slow, because the objective hardly changes in the directions of the small ones.
#
# The method "newton-schulz" falls back on most of these problems. They have the paper's square frame, for which $A1 =
# \delta U_\text{prox}1$, so without a proximal term $A$ is singular. Its polar factor is then not unique, and matrix
# products alone cannot choose one. The time shown includes the failed attempt and the method that took over. With the
# reduced frame, as in the first problem, no fallback is needed.

# %%
alone = [row for row in rows if row.solver == "procrustes-newton-schulz" and row.delta == 0]
print(alone[0].message)
assert len(alone) == 4
assert all("fell back: newton-schulz" in row.message for row in alone)

# %%
lines = summarise(rows)
print(f"{'problem':22s} {'solver':25s} {'ms':>8s} {'gap':>8s} {'certified':>9s}  reason")
for line in lines:
    gap = "-" if line.relative_gap is None else f"{max(line.relative_gap, 0):.0e}"
    ms = "-" if line.seconds is None else f"{1e3 * line.seconds:.3g}"
    print(f"{line.problem:22s} {line.solver:25s} {ms:>8s} {gap:>8s} {line.certified:4d} of {line.runs}  {line.reason}")

closed = [line for line in lines if line.solver.startswith("procrustes")]
assert all(line.certified == line.runs for line in closed)
assert max(line.relative_gap for line in closed) < 1e-14
crawling = [line for line in lines if line.problem.startswith("ill") and line.solver == "steepest-descent"]
assert [line.certified for line in crawling] == [0]

# %% [markdown]
# ## How many times faster
#
# A ratio of two times on one problem in one run depends less on the machine than a time. For every problem and start we
# take the time until a solver's relative gap first reached $10^{-6}$, and divide it by the time of the closed form
# ("svd"). The table has the median and range over problems and starts.

# %%
SOLVED = 1e-6
clock = {(row.problem, row.solver, row.seed): row.seconds_to(SOLVED) for row in rows}
factors, missed = defaultdict(list), defaultdict(int)
for (name, solver, _), seconds in clock.items():
    if seconds < np.inf:
        factors[solver].append(seconds / clock[name, "procrustes-svd", None])
    else:
        missed[solver] += 1
for solver in sorted(factors, key=lambda solver: statistics.median(factors[solver])):
    values = factors[solver]
    print(
        f"{solver:25s} median {statistics.median(values):8.3g}, {min(values):6.3g} to {max(values):8.3g}, "
        f"solved {len(values)} of {len(values) + missed[solver]}"
    )
assert all(statistics.median(factors[solver]) > 1 for solver in ("trust-region", "conjugate-gradient", "clarabel"))

# %%
profiles = {solver: performance_profile(values) for solver, values in ratios(rows, SOLVED).items()}
fig, axes = plt.subplots(figsize=(8, 3.4))
plotting.draw_profile(profiles, axes=axes)
axes.set(ylabel="share of problems solved", title=f"Performance profiles, relative gap at most {SOLVED:.0e}")
axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
plt.show()

# %% [markdown]
# This is a performance profile (Dolan and Moré 2002). At $x$ you read the share of problems that a solver solved within
# $x$ times the time of the fastest solver. Further left is faster, higher is more reliable.
#
# ## How the times grow
#
# The closed form takes $O(dC^2)$ once. A trust region takes that for each product with the Hessian. An interior-point
# method on the convex relaxation takes about $O(C^6)$.

# %%
timed = {
    "procrustes": (Procrustes(), (4, 8, 16, 32, 64)),
    "trust-region": (TrustRegion(), (4, 8, 16, 32, 64)),
    "clarabel": (ConvexRelaxation("CLARABEL"), (4, 8, 16)),
}
times = defaultdict(dict)
for C in (4, 8, 16, 32, 64):
    problem = etfopt.NearestETF(rng.standard_normal((128, C)))
    start = etfopt.random_stiefel(128, C, rng)
    for name, (solver, sizes) in timed.items():
        if C in sizes:
            runs = [etfopt.solve(problem.fresh(), solver, initial_point=start).stats.seconds for _ in range(3)]
            times[name][C] = statistics.median(runs)

fig, axes = plt.subplots(figsize=(6.2, 3.2))
for name, style in plotting.solver_styles(list(timed)).items():
    axes.loglog(list(times[name]), list(times[name].values()), label=name, **style)
axes.set(xlabel="classes C", ylabel="seconds, median of 3", title="d = 128, random means")
axes.set_xticks((4, 8, 16, 32, 64), (4, 8, 16, 32, 64))
axes.minorticks_off()
fig.legend(loc="outside right upper")
plt.show()
over = {
    name: {C: times[name][C] / times["procrustes"][C] for C in times[name]} for name in ("trust-region", "clarabel")
}
for name, factors_of in over.items():
    print(f"{name} over the closed form:", ", ".join(f"{value:.0f} at C = {C}" for C, value in factors_of.items()))
    assert min(factors_of.values()) > 1
assert over["clarabel"][16] > over["clarabel"][4]

# %% [markdown]
# ## How to choose
#
# | you have | take | because |
# | --- | --- | --- |
# | a nearest-ETF problem | `Procrustes()`, the default | exact, no iterations, no settings |
# | ill-conditioned means | the same | its methods fall back to an SVD where they must |
# | a network | `etfopt.nn` with its defaults | on a GPU it tries matrix products, then checks their accuracy |
# | doubt | `ConvexRelaxation()`, up to 40 classes | an independent method with bounds of its own |
# | to repeat the paper's run | `TrustRegion(max_iterations=30, derivatives="autograd")` | its settings |
# | an objective not linear in U | a Riemannian method with restarts | no closed form: see `03_certificates` |
#
# ## Try it
#
# - Add the name "tight-9x10" to the list of problems. Which solvers end at a point that the certificate rejects?
# - Pass `seeds=5` to `compare`. How much do the times of one solver differ between starts?
# - Run the whole grid from a shell with `etfopt compare`, or the small problems with `etfopt compare --quick`.
# - Enter a solver of your own: `docs/howto/add_solver.md`.
#
# Next: `03_certificates` shows what a solver's own report is worth.
