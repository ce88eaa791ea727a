"""Each family has the property that names it, and a problem does not depend on what else is drawn."""

import numpy as np
import pytest

from etfopt import InputError, certify, nearest_etf, simplex_etf, solve
from etfopt.bench.problems import FAMILIES, KAPPA, LONG, choose_problems, problem_grid

GRID = {entry.name: entry for entry in problem_grid()}
BY_FAMILY = {family: [entry for entry in GRID.values() if entry.family == family] for family in [*FAMILIES, "digits"]}


def singular_values(problem):
    return np.linalg.svd(problem.H, compute_uv=False)[: problem.C - 1]


@pytest.mark.parametrize("name", GRID)
def test_means_are_centred_of_norm_one_and_solved_by_the_closed_form(name):
    problem = GRID[name].problem
    assert np.linalg.norm(problem.H) == pytest.approx(1)
    np.testing.assert_allclose(problem.H.mean(axis=1), 0, atol=1e-15)
    assert solve(problem).converged


@pytest.mark.parametrize("entry", BY_FAMILY["collapsed"], ids=lambda e: e.name)
def test_collapsed_means_are_almost_an_etf(entry):
    assert 1e-4 < nearest_etf(entry.problem.H).distance < 2e-3


@pytest.mark.parametrize("entry", BY_FAMILY["rank-deficient"], ids=lambda e: e.name)
def test_rank_deficient_means_lack_half_of_the_rank_and_the_etf_is_not_unique(entry):
    problem = entry.problem
    assert np.linalg.matrix_rank(problem.H) == (problem.C - 1) // 2
    assert not certify(problem, np.eye(problem.d, problem.r)).etf_unique


@pytest.mark.parametrize("entry", BY_FAMILY["ill-conditioned"], ids=lambda e: e.name)
def test_ill_conditioned_means_have_a_geometric_spectrum(entry):
    s = singular_values(entry.problem)
    assert s[0] / s[-1] == pytest.approx(KAPPA, rel=1e-6)
    np.testing.assert_allclose(np.diff(np.log(s)), np.log(s[1] / s[0]), rtol=1e-6)


@pytest.mark.parametrize("entry", BY_FAMILY["imbalanced"], ids=lambda e: e.name)
def test_the_means_of_rare_classes_carry_more_noise(entry):
    lengths = np.linalg.norm(entry.problem.H, axis=0)  # of an ETF all alike; independent noise adds to them
    assert lengths[-1] > 1.5 * lengths[0]
    assert np.corrcoef(lengths, np.arange(len(lengths)))[0, 1] > 0.7


@pytest.mark.parametrize(("family", "room"), [("square", 0), ("square-proximal", 0), ("tight", -1)])
def test_square_and_tight_problems_leave_no_room(family, room):
    for entry in BY_FAMILY[family]:
        problem = entry.problem
        assert problem.d - problem.C == room
        assert problem.r == problem.d
        assert (problem.delta > 0) == (family == "square-proximal")


@pytest.mark.parametrize("entry", BY_FAMILY["proximal"], ids=lambda e: e.name)
def test_the_proximal_point_is_near_the_solution_as_in_training(entry):
    problem = entry.problem
    assert problem.delta == 1e-3
    assert np.linalg.norm((solve(problem).U - problem.prox) @ simplex_etf(problem.C)) < 0.3


def test_real_means_collapse_during_training():
    distances = [nearest_etf(entry.problem.H).distance for entry in BY_FAMILY["digits"]]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.05 < 0.3 < distances[0]


def test_what_is_chosen_does_not_change_a_problem():
    (alone,) = choose_problems(["tight-9x10"])
    np.testing.assert_array_equal(alone.problem.H, GRID["tight-9x10"].problem.H)


def test_long_problems_run_only_by_name_and_quick_ones_are_small():
    assert {entry.name for entry in choose_problems()} == GRID.keys() - set(LONG)
    assert [entry.name for entry in choose_problems(LONG)] == list(LONG)
    assert not {entry.name for entry in choose_problems(["ill-conditioned"])} & set(LONG)
    assert all(entry.problem.C <= 10 for entry in choose_problems(quick=True))


def test_means_from_files_come_alone_or_beside_what_is_named(tmp_path, rng):
    np.save(tmp_path / "mine.npy", 7 * rng.standard_normal((5, 3)) + 1)
    np.save(tmp_path / "tight.npy", rng.standard_normal((2, 3)))
    mine, tight = choose_problems(files=[tmp_path / "mine.npy", tmp_path / "tight.npy"])
    assert (mine.name, mine.problem.r, tight.problem.r) == ("mine", 3, 2)
    both = choose_problems(["tight-3x4"], [tmp_path / "mine.npy"])
    assert [entry.name for entry in both] == ["tight-3x4", "mine"]
    np.save(tmp_path / "long.npy", np.ones((3, 9)))
    with pytest.raises(InputError, match=r"long.npy: H has shape \(3, 9\)"):
        choose_problems(files=[tmp_path / "long.npy"])


def test_two_files_of_one_name_stay_two_problems(tmp_path, rng):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "class_means.npy", rng.standard_normal((5, 3)))
    names = {p.name for p in choose_problems(files=[tmp_path / f / "class_means.npy" for f in ("a", "b")])}
    assert len(names) == 2


def test_an_unknown_problem_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'hard' is not known; choose a family \(random, .* digits-epoch-60"):
        choose_problems(["hard"])
