"""The comparisons of every published report can be computed again from the numbers of its runs."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from etfopt.experiments.studies._comparisons import Pair, comparisons, spread_comparisons
from etfopt.experiments.studies.plan import Study
from tests import ROOT

REPORTS = sorted(ROOT.glob("notebooks/results/*/report.json"))


def same(ours: object, published: object) -> bool:
    """Whether two entries are equal up to rounding; JSON has null for NaN and infinity."""
    if isinstance(ours, float) and not math.isfinite(ours):
        return published is None
    if isinstance(ours, tuple):
        return len(ours) == len(published) and all(map(same, ours, published))
    return ours == (pytest.approx(published, rel=1e-9, abs=1e-15) if isinstance(ours, float) else published)


def test_reports_are_published():
    assert len(REPORTS) >= 10


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.parent.name)
def test_the_comparisons_of_a_report_follow_from_its_runs(path: Path):
    report = json.loads(path.read_text())
    study = Study.from_dict(report["study"])
    runs = {name: {int(seed): row for seed, row in rows.items()} for name, rows in report["runs"].items()}
    for key, compute in (("comparisons", comparisons), ("spread_comparisons", spread_comparisons)):
        found: list[Pair] = compute(study, runs, study.baselines)
        assert len(found) == len(report[key])
        for pair, published in zip(found, report[key], strict=True):
            ours = {**dataclasses.asdict(pair), **dataclasses.asdict(pair.result)}
            assert published.keys() == ours.keys() - {"result"}
            for name, value in published.items():
                assert same(ours[name], value), (name, pair)
