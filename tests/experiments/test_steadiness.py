"""The spread between seeds of two variants, compared."""

import math

import numpy as np
import pytest

from etfopt.experiments.studies.statistics import steadiness


def by_seed(values) -> dict[int, float | None]:
    return dict(enumerate(values))


def test_the_ratio_is_that_of_the_standard_deviations_over_shared_seeds() -> None:
    found = steadiness({0: 1.0, 1: 3.0, 2: 5.0, 3: None, 9: 100.0}, {0: 0.0, 1: 1.0, 2: 2.0, 3: 7.0, 8: 4.0})
    assert found.seeds == (0, 1, 2)
    assert (found.deviation, found.baseline_deviation, found.ratio) == (2.0, 1.0, 2.0)
    assert found.interval is None
    assert found.p_value is None


@pytest.mark.parametrize("pairs", [[], [(1.0, 2.0)]])
def test_fewer_than_two_pairs_have_no_deviation(pairs) -> None:
    found = steadiness(by_seed(a for a, _ in pairs), by_seed(b for _, b in pairs))
    assert math.isnan(found.deviation)
    assert math.isnan(found.ratio)


def test_a_baseline_that_never_moves_gives_no_ratio_and_no_interval() -> None:
    found = steadiness(by_seed([1.0, 2.0, 3.0, 4.0]), by_seed([5.0] * 4))
    assert math.isnan(found.ratio)
    assert found.interval is None
    assert steadiness(by_seed([5.0] * 4), by_seed([1.0, 2.0, 3.0, 4.0])).ratio == 0


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(60):
        found = steadiness(by_seed(2 * rng.standard_normal(30)), by_seed(rng.standard_normal(30)))
        covered += found.interval[0] <= 2 <= found.interval[1]
    assert covered >= 50


def test_the_test_of_equal_variances_is_exact_for_normal_pairs_whatever_their_correlation() -> None:
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(400):
        common = 3 * rng.standard_normal(10)
        p_values.append(
            steadiness(by_seed(common + rng.standard_normal(10)), by_seed(common + rng.standard_normal(10))).p_value
        )
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09
    assert 0.4 < np.mean(np.array(p_values) < 0.5) < 0.6


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(2)
    steady, loose = rng.standard_normal(10), 10 * rng.standard_normal(10)
    found = steadiness(by_seed(steady), by_seed(loose))
    assert found.p_value < 1e-3
    assert found.interval[1] < 0.5
    turned = steadiness(by_seed(loose), by_seed(steady))
    assert turned.p_value == pytest.approx(found.p_value)
    assert turned.ratio == pytest.approx(1 / found.ratio)


def test_two_that_are_the_same_up_to_a_shift_do_not_differ() -> None:
    values = np.random.default_rng(3).standard_normal(6)
    found = steadiness(by_seed(values), by_seed(values + 1.0))
    assert found.ratio == pytest.approx(1)
    assert found.p_value > 0.1
