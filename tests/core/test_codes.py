"""Numerical codes: the best known ones are found, kept on the disk, and kept when the search is interrupted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt import InputError
from etfopt.bench.codes import REFERENCES, bench_codes, subgradient_code
from etfopt.bench.timing import peak_bytes
from etfopt.frames import Frame, _energy, _search, code
from etfopt.frames._energy import energy, largest_cosine, unit_rows
from etfopt.frames._polish import polished

SMALL = {(3, 7): 1, (3, 8): 1, (3, 9): 1, (3, 10): 3, (3, 12): 1, (4, 24): 2, (5, 16): 1, (6, 27): 1, (7, 56): 1}
"""Starts that find the best known code with the seed 0; the larger codes of `REFERENCES` are a benchmark."""

TIGHT = {(3, 12), (5, 16), (6, 27), (7, 56)}


def cosines(frame: Frame) -> np.ndarray:
    K = frame.vectors.T @ frame.vectors
    return K[~np.eye(len(K), dtype=bool)]


@pytest.mark.parametrize(("d", "C"), SMALL)
def test_the_best_known_codes_are_found(d, C):
    frame = code(d, C, starts=SMALL[d, C], cache=False)
    known = frame.certificate
    assert frame.F.shape == (d, C)
    np.testing.assert_allclose(np.linalg.norm(frame.F, axis=0), C**-0.5, rtol=1e-14)
    assert abs(known.largest_cosine - REFERENCES[d, C]) < 1e-8
    assert abs(cosines(frame).max() - known.largest_cosine) < 1e-14
    assert known.lower_bound < REFERENCES[d, C] + 1e-15
    assert known.proven is ((d, C) in TIGHT)
    assert known.d == d
    assert known.method.startswith("Delsarte")
    if known.proven:
        assert known.gap < 1e-12


def test_a_construction_that_a_search_does_not_find():
    frame = code(21, 162, cache=False)
    assert frame.certificate.proven
    np.testing.assert_allclose(np.unique(cosines(frame).round(12)), [-2 / 7, 1 / 7], atol=1e-12)
    assert frame.certificate.gap < 1e-14


def test_the_seed_decides_the_code():
    first, again, other = (code(3, 14, seed=seed, starts=1, cache=False).F for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("d", "C", "name"), [(9, 4, "reduced"), (2, 7, "polygon"), (4, 8, "orthoplex"), (1, 2, "reduced")]
)
def test_what_has_a_closed_form_is_not_searched(d, C, name, monkeypatch):
    monkeypatch.setattr(_search, "search", None)
    frame = code(d, C)
    assert (frame.name, frame.C, frame.certificate.proven) == (name, C, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "d must be an integer of at least 1; got 0"),
        ((3, 1), "C must be an integer of at least 2; got 1"),
        ((3.0, 9), "d must be an integer"),
        ((1, 3), "d = 1 has room for 2 different unit vectors; got C = 3"),
        ((3, 9, {"seed": -1}), "seed must be an integer of at least 0; got -1"),
        ((3, 9, {"starts": 0}), "starts must be an integer of at least 1; got 0"),
        ((3, 9, {"cache": 5}), "cache must be True, False or a folder; got 5"),
        ((3, 9, {"cache": ""}), "cache must be True, False or the name of a folder; got ''"),
        ((3, 9, {"cache": "a\0b"}), "cache must be True, False or the name of a folder"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    d, C, *options = arguments
    with pytest.raises(InputError, match=message):
        code(d, C, **dict(*options))


# --- interruption -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt])
@pytest.mark.parametrize("after", [1, 400])
def test_an_interrupted_search_keeps_its_best_and_says_so(error, after, tmp_path):
    seen = []

    def stop(step):
        seen.append(step)
        if len(seen) == after:
            raise error

    with pytest.warns(UserWarning, match=r"was interrupted after \d+ of 5 starts. Its best code, .* not cached"):
        frame = code(3, 14, starts=5, cache=tmp_path, progress=stop)
    ended = [step.best for step in seen if np.isfinite(step.best)]
    assert bool(ended) is (after == 400)
    # the smooth maximum lies above the largest cosine
    assert frame.largest_cosine <= min(seen[-1].cosine, *ended, 1.0) + 1e-12
    assert abs(cosines(frame).max() - frame.largest_cosine) < 1e-14
    assert not list(tmp_path.iterdir())


def test_progress_tells_where_the_search_is():
    steps = []
    code(3, 14, starts=2, cache=False, progress=steps.append)
    assert [step.start for step in steps] == sorted(step.start for step in steps)
    assert {step.start for step in steps} == {0, 1}
    assert {step.starts for step in steps} == {2}
    assert max(step.beta for step in steps) >= 16384


def test_an_error_in_progress_is_not_swallowed():
    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        code(3, 14, starts=1, cache=False, progress=fail)


# --- the cache ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    frame = code(5, 16, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    return frame, path


def test_a_code_is_computed_once(stored, monkeypatch):
    frame, path = stored
    monkeypatch.setattr(_search, "search", None)
    again = code(5, 16, cache=path.parent)
    np.testing.assert_array_equal(again.F, frame.F)
    assert again.certificate == frame.certificate
    monkeypatch.setenv("ETFOPT_CACHE", str(path.parent))
    np.testing.assert_array_equal(code(5, 16).F, frame.F)


@pytest.mark.parametrize("other", [{"seed": 1}, {"starts": 2}, {"cache": False}])
def test_another_search_is_not_taken_from_the_cache(stored, other, monkeypatch):
    _, path = stored
    monkeypatch.setattr(_search, "search", None)
    with pytest.raises(TypeError):
        code(5, 16, **{"cache": path.parent, **other})


def damage(content: bytes, kind: str) -> bytes:
    match kind:
        case "cut":
            return content[: len(content) // 2]
        case "empty":
            return b""
        case "text":
            return b"no code"
        case _:
            middle = len(content) // 2
            return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "flipped bit"])
def test_a_damaged_file_is_computed_again(stored, kind):
    frame, path = stored
    whole = path.read_bytes()
    path.write_bytes(damage(whole, kind))
    with pytest.warns(UserWarning, match=r"code-5x16-.*npz: is damaged .* computed again"):
        again = code(5, 16, cache=path.parent)
    np.testing.assert_array_equal(again.F, frame.F)
    np.testing.assert_array_equal(code(5, 16, cache=path.parent).F, frame.F)  # and the file is whole again


def test_a_file_of_another_code_is_refused(stored):
    _, path = stored
    code(5, 16, seed=1, cache=path.parent)
    (other,) = set(path.parent.iterdir()) - {path}
    path.write_bytes(other.read_bytes())
    with pytest.warns(UserWarning, match="it holds another code"):
        assert code(5, 16, cache=path.parent).C == 16


def test_a_certificate_that_was_edited_is_refused(stored):
    _, path = stored
    with np.load(path) as file:
        kept = dict(file)
    kept["facts"] = np.array(str(kept["facts"]).replace("Delsarte", "Rankin"))
    np.savez(path, **kept)
    with pytest.warns(UserWarning, match="its checksum is wrong"):
        assert code(5, 16, cache=path.parent).certificate.method == "Delsarte, degree 3"


def test_a_folder_that_cannot_be_used_costs_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="the code is not cached: .*file: cannot be used as a folder"):
        assert code(5, 16, cache=tmp_path / "file").C == 16


def test_a_folder_that_cannot_be_looked_into_costs_warnings(tmp_path):
    with (
        pytest.warns(
            UserWarning, match=r"code-5x16-.*npz: cannot be read \(File name too long\); the code is computed"
        ),
        pytest.warns(UserWarning, match="the code is not cached: .*: cannot be used as a folder"),
    ):
        assert code(5, 16, cache=tmp_path / ("x" * 300)).C == 16


@pytest.mark.parametrize("named", ["argument", "environment"])
def test_a_tilde_is_the_home_folder(named, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ETFOPT_CACHE", "~/codes")
    code(5, 16, cache="~/codes" if named == "argument" else True)
    assert [path.suffix for path in (tmp_path / "codes").iterdir()] == [".npz"]


# --- the parts ----------------------------------------------------------------------------------------------------


def dense(X: np.ndarray, beta: float) -> float:
    i, j = np.triu_indices(len(X), 1)
    return float(np.logaddexp.reduce(beta * np.einsum("nd,nd->n", X[i], X[j])) / beta)


@given(st.integers(2, 12), st.integers(2, 5), st.sampled_from([1.0, 30.0, 16384.0]), st.integers(0, 2**32 - 1))
def test_the_energy_and_its_gradient(C, d, beta, seed):
    rng = np.random.default_rng(seed)
    Y, direction = rng.standard_normal((2, C, d))
    value, gradient = energy(Y.ravel(), (C, d), beta)
    assert abs(value - dense(unit_rows(Y), beta)) < 1e-12
    assert largest_cosine(unit_rows(Y)) <= value + 1e-14
    if beta < 100:
        step = 1e-6
        change = (
            (dense(unit_rows(Y + step * direction), beta) - dense(unit_rows(Y - step * direction), beta)) / 2 / step
        )
        assert abs(gradient @ direction.ravel() - change) < 1e-5 * (1 + abs(change))


def test_tiles_and_float32_change_rounding_only(rng, monkeypatch):
    Y = rng.standard_normal((60, 4))
    whole, tiles, single = energy(Y.ravel(), (60, 4), 50.0), None, energy(Y.ravel(), (60, 4), 50.0, np.float32)
    cosine = largest_cosine(unit_rows(Y))
    for tile in (1, 90, 1000):
        monkeypatch.setattr(_energy, "TILE", tile)
        tiles = energy(Y.ravel(), (60, 4), 50.0)
        assert abs(tiles[0] - whole[0]) < 1e-13
        np.testing.assert_allclose(tiles[1], whole[1], rtol=0, atol=1e-14)
        assert abs(largest_cosine(unit_rows(Y)) - cosine) < 1e-15
    assert abs(single[0] - whole[0]) < 1e-6
    np.testing.assert_allclose(single[1], whole[1], rtol=0, atol=1e-5)


def test_no_square_matrix_of_cosines_is_held(rng, monkeypatch):
    monkeypatch.setattr(_energy, "TILE", 2**14)
    Y = rng.standard_normal(1500 * 4)
    assert peak_bytes(lambda: energy(Y, (1500, 4), 50.0)) < 1500**2  # an eighth of the matrix


@given(st.integers(3, 5), st.integers(0, 2**32 - 1), st.sampled_from([1e-12, 1e-6, 1e-3, 1.0]))
def test_polishing_is_never_worse(d, seed, noise):
    rng = np.random.default_rng(seed)
    C = 2 * d + int(rng.integers(1, 8))
    X = unit_rows(rng.standard_normal((C, d)))
    X[-1] = unit_rows(X[:1] + noise * rng.standard_normal((1, d)))[0]
    better = polished(X)
    assert largest_cosine(better) <= largest_cosine(X)
    np.testing.assert_allclose(np.linalg.norm(better, axis=1), 1.0, rtol=1e-14)


@pytest.mark.parametrize("noise", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize(("d", "C"), [(3, 8), (5, 16), (7, 56)])
def test_polishing_leads_back_to_a_code(d, C, noise, rng):
    X = code(d, C, starts=1, cache=False).vectors.T
    moved = polished(unit_rows(X + noise * rng.standard_normal(X.shape)))
    assert abs(largest_cosine(moved) - REFERENCES[d, C]) < 1e-12


def test_a_vector_that_touches_no_other_stays_in_its_place(rng):
    # four corners of a cube, and a vector on the other side
    corners = np.array([[-1.0, a, b] for a in (1, -1) for b in (1, -1)]) / np.sqrt(3)
    X = unit_rows(np.vstack([corners + 1e-5 * rng.standard_normal((4, 3)), [[1.0, 0.0, 0.05]]]))
    better = polished(X)
    assert largest_cosine(better) < largest_cosine(X)
    np.testing.assert_allclose(better[-1], X[-1], rtol=0, atol=1e-15)


# --- the benchmark ------------------------------------------------------------------------------------------------


def test_the_benchmark_measures_what_it_names():
    (row,) = bench_codes([(5, 16)], starts=1)
    assert abs(row.error) < 1e-14
    assert row.gap == row.largest_cosine - row.lower_bound
    assert row.proven
    assert row.seconds > 0
    with pytest.raises(InputError, match=r"pairs holds \(3, 11\)"):
        bench_codes([(3, 11)])


def test_subgradient_steps_move_the_nearest_pair_apart():
    none, ten = (subgradient_code(8, 100, steps=steps) for steps in (1, 10))
    start = np.random.default_rng(0).standard_normal((100, 8))
    assert largest_cosine(np.ascontiguousarray(ten.T)) < largest_cosine(unit_rows(start))
    moved = np.flatnonzero(np.abs(none - unit_rows(start).T).max(axis=0) > 1e-12)
    assert len(moved) == 2
