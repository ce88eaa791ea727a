"""Statistics of a study: paired differences and the spread between seeds, against slow references."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.studies._markdown import few_seeds
from etfopt.experiments.studies._numbers import Spread, quantities
from etfopt.experiments.studies.statistics import bootstrap_interval, compare, sign_flip_p_value, steadiness
from etfopt.experiments.training.results import RunResult

differences = st.lists(st.integers(-20, 20).map(lambda k: k / 10), min_size=1, max_size=8)


# --- one variant ---------------------------------------------------------------------------------------------------


def fake(seed: int, accuracies: list[float]) -> RunResult:
    keys = ("cosine_margin", "nc1", "nc2", "nc3", "equinorm_difference", "etf_distance_means")
    history = [
        {"epoch": e, "train_accuracy": a, "test_accuracy": a / 2, **{f"train_{k}": a + seed for k in keys}}
        for e, a in enumerate(accuracies)
    ]
    return RunResult(TrainConfig(seed=seed), history, np.zeros((len(history), 16, 10)), 1.0 + seed, 2e6, Path())


def test_the_spread_takes_medians_and_counts_never_as_infinite():
    runs = [fake(0, [0.1, 0.995, 1.0]), fake(1, [0.1, 0.2, 0.99]), fake(2, [0.1, 0.2, 0.3])]
    rows = [quantities(run, (0, 2)) for run in runs]
    spreads = {key: Spread.of([row[key] for row in rows]) for key in rows[0]}
    assert spreads["epochs_to_99"] == Spread(2, 1, math.inf)
    assert spreads["epochs_to_100"] == Spread(math.inf, 2, math.inf)
    assert spreads["test_accuracy_second"] == Spread(0.495, 0.15, 0.5)
    assert spreads["nc1"].median == pytest.approx(1.99)
    assert spreads["step_ms"] == Spread(2.0, 1.0, 3.0)


# --- two variants --------------------------------------------------------------------------------------------------


@given(differences)
def test_the_p_value_is_the_share_of_all_sign_patterns_as_far_from_zero(values: list[float]):
    tenths = [round(10 * value) for value in values]  # whole numbers: no rounding hides a tie
    patterns = list(itertools.product((1, -1), repeat=len(tenths)))
    far = [abs(sum(s * x for s, x in zip(signs, tenths, strict=True))) >= abs(sum(tenths)) for signs in patterns]
    assert sign_flip_p_value(values) == pytest.approx(sum(far) / len(patterns), abs=1e-15)


def test_the_p_value_is_that_of_scipy(rng: np.random.Generator):
    x = rng.normal(0.4, 1, size=7)
    expected = stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=10**4).pvalue
    assert sign_flip_p_value(list(x)) == pytest.approx(expected, abs=1e-15)
    assert sign_flip_p_value([]) is None
    assert sign_flip_p_value([1.0] * 10) == 2 / 2**10
    assert sign_flip_p_value([1.0] * 11) is None


def test_the_interval_repeats_holds_the_mean_and_is_that_of_a_slow_bootstrap(rng: np.random.Generator):
    x = list(rng.normal(2, 1, size=9))
    low, high = bootstrap_interval(x)
    assert bootstrap_interval(x) == (low, high)
    assert low < np.mean(x) < high
    means = [np.mean(rng.choice(x, size=len(x))) for _ in range(20_000)]
    np.testing.assert_allclose((low, high), np.quantile(means, [0.025, 0.975]), atol=0.05)
    assert bootstrap_interval([0.5]) is None
    assert bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)


def test_only_seeds_of_both_are_compared_and_never_is_marked():
    found = compare({0: 3, 1: None, 2: 5, 7: None}, {1: 4, 2: 9, 3: 1, 7: None}, never=11)
    assert found.seeds == (1, 2, 7)
    assert found.differences == (7, -4, 0)
    assert (found.mean, found.median, found.censored) == (1, 0, 2)


def test_few_seeds_are_said_to_be_few():
    assert "With 5 pairs of runs the sign-flip test gives no p-value below 0.0625" in str(few_seeds(5))
    assert few_seeds(6) is None
    assert sign_flip_p_value([1.0] * 5) == 0.0625


# --- their spreads -------------------------------------------------------------------------------------------------


def by_seed(values) -> dict[int, float | None]:
    return dict(enumerate(values))


def test_the_ratio_is_that_of_the_standard_deviations_over_shared_seeds():
    found = steadiness({0: 1.0, 1: 3.0, 2: 5.0, 3: None, 9: 100.0}, {0: 0.0, 1: 1.0, 2: 2.0, 3: 7.0, 8: 4.0})
    assert (found.seeds, found.deviation, found.baseline_deviation) == ((0, 1, 2), 2.0, 1.0)
    assert (found.ratio, found.interval, found.p_value) == (2.0, None, None)


@pytest.mark.parametrize("pairs", [[], [(1.0, 2.0)]])
def test_fewer_than_two_pairs_have_no_deviation(pairs):
    found = steadiness(by_seed(a for a, _ in pairs), by_seed(b for _, b in pairs))
    assert math.isnan(found.deviation)
    assert math.isnan(found.ratio)


def test_a_baseline_that_never_moves_gives_no_ratio_and_no_interval():
    found = steadiness(by_seed([1.0, 2.0, 3.0, 4.0]), by_seed([5.0] * 4))
    assert math.isnan(found.ratio)
    assert found.interval is None
    assert steadiness(by_seed([5.0] * 4), by_seed([1.0, 2.0, 3.0, 4.0])).ratio == 0


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(60):
        found = steadiness(by_seed(2 * rng.standard_normal(30)), by_seed(rng.standard_normal(30)))
        covered += found.interval[0] <= 2 <= found.interval[1]
    assert covered >= 50


def test_the_test_of_equal_variances_is_exact_for_normal_pairs_whatever_their_correlation():
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(400):
        common = 3 * rng.standard_normal(10)
        two = (by_seed(common + rng.standard_normal(10)) for _ in range(2))
        p_values.append(steadiness(*two).p_value)
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09
    assert 0.4 < np.mean(np.array(p_values) < 0.5) < 0.6


def test_a_real_difference_is_found():
    rng = np.random.default_rng(2)
    steady, loose = rng.standard_normal(10), 10 * rng.standard_normal(10)
    found = steadiness(by_seed(steady), by_seed(loose))
    assert found.p_value < 1e-3
    assert found.interval[1] < 0.5
    turned = steadiness(by_seed(loose), by_seed(steady))
    assert turned.p_value == pytest.approx(found.p_value)
    assert turned.ratio == pytest.approx(1 / found.ratio)
