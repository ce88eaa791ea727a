"""Pictures: what is drawn is what was asked for, on the axes that were given."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

import etfopt
from etfopt import InputError
from etfopt.frames import orthogonal, orthoplex, polygon
from etfopt.plotting import (
    cosines,
    draw_code,
    draw_convergence,
    draw_convergence_page,
    draw_cosine_histogram,
    draw_frame,
    draw_growth,
    draw_margins,
    draw_matrix,
    draw_measure,
    draw_off_diagonal,
    draw_page,
    draw_profile,
    draw_profile_page,
    draw_ratios,
    save,
)
from etfopt.plotting.runs import styles

# --- training runs -------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What the pictures need of a run."""

    values: list[float]
    sorted_margins: np.ndarray = field(default_factory=lambda: np.zeros(1))
    C: int = 10

    @property
    def history(self) -> list[dict[str, float]]:
        names = ("train_nc1", "train_accuracy", "train_cosine_margin")
        return [{"epoch": epoch, **dict.fromkeys(names, x)} for epoch, x in enumerate(self.values)]

    @property
    def class_means(self) -> np.ndarray:
        etf = etfopt.simplex_etf(self.C)
        return np.stack([etf + x * np.eye(self.C) for x in self.values])

    def margins(self, _split: str = "train") -> np.ndarray:
        return self.sorted_margins


def runs(values: list[list[float]]) -> list[Run]:
    return [Run(row) for row in values]


def band(axes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, lowest and highest value of the first group that was drawn."""
    x, median = axes.lines[0].get_data()
    vertices = axes.collections[0].get_paths()[0].vertices
    low = np.array([vertices[np.isclose(vertices[:, 0], at), 1].min() for at in x])
    high = np.array([vertices[np.isclose(vertices[:, 0], at), 1].max() for at in x])
    return median, low, high


def test_a_curve_is_the_median_and_its_band_the_range() -> None:
    values = [[1.0, 0.5, 1e-12], [2.0, 0.1, 1e-3], [4.0, 0.2, 1e-2]]
    axes = draw_measure({"learned": runs(values)}, "train_nc1")
    assert axes.get_yscale() == "log"
    median, low, high = band(axes)
    np.testing.assert_allclose(median, [2.0, 0.2, 1e-3])
    np.testing.assert_allclose(low, [1.0, 0.1, 1e-8])  # what is zero up to rounding is drawn at the floor
    np.testing.assert_allclose(high, [4.0, 0.5, 1e-2])


def test_an_axis_of_accuracies_is_not_filled_by_the_first_epochs() -> None:
    axes = draw_measure({"learned": runs([[0.1, 0.96, 0.99], [0.1, 0.95, 1.0]])}, "train_accuracy")
    assert 0.94 < axes.get_ylim()[0] < 0.95
    assert 1 < axes.get_ylim()[1] < 1.01
    axes = draw_measure({"learned": runs([[0.1]])}, "train_accuracy")
    assert axes.get_ylim()[0] < 0.1


def test_the_margin_at_collapse_is_marked_where_all_runs_have_the_same_classes() -> None:
    (line,) = draw_measure({"learned": runs([[0.1, 0.2]])}, "train_cosine_margin").lines[1:]
    np.testing.assert_allclose(line.get_ydata(), 10 / 9)
    mixed = {"learned": [Run([0.1, 0.2]), Run([0.1, 0.2], C=4)]}
    assert len(draw_measure(mixed, "train_cosine_margin").lines) == 1


def test_sorted_margins_are_drawn_against_the_share_of_samples() -> None:
    margins = [np.sort(np.random.default_rng(i).normal(size=201)) for i in range(3)]
    axes = draw_margins({"x": [Run([0.0], row) for row in margins]})
    for drawn, expected in zip(
        band(axes), (np.median(margins, axis=0), np.min(margins, 0), np.max(margins, 0)), strict=True
    ):
        np.testing.assert_allclose(drawn, expected, atol=1e-12)


def test_the_distance_of_the_cosines_from_those_of_the_simplex_is_drawn_by_epoch() -> None:
    values = [1.0, 0.1, 0.0]
    drawn = draw_off_diagonal({"x": runs([values])}).lines[0].get_ydata()
    means = Run(values).class_means
    expected = [np.mean([abs(c + 1 / 9) for c in cosines(H)[~np.eye(10, dtype=bool)]]) for H in means]
    np.testing.assert_allclose(drawn, np.maximum(expected, 1e-8))
    assert drawn[2] == 1e-8


def test_a_page_has_every_label_once_and_every_line_its_own_style() -> None:
    labels = [f"variant {i}" for i in range(7)]
    drawn = [(style["color"], str(style["linestyle"])) for style in styles(labels).values()]
    assert len(set(drawn)) == 7
    assert len({color for color, _ in drawn}) == 7
    panels = draw_page({label: runs([[1.0, 2.0]]) for label in labels}, ["train_accuracy", "train_nc1"], "all")
    assert [text.get_text() for text in panels[0].figure.legends[0].get_texts()] == labels
    assert [axes.get_title() for axes in panels] == ["training accuracy", "NC1"]


# --- solvers -------------------------------------------------------------------------------------------------------


@dataclass
class Solved:
    """What the pictures need of a solver's run."""

    problem: str = "p"
    family: str = "f"
    solver: str = "trust-region"
    d: int = 4
    C: int = 3
    seconds: float | None = 2.0
    relative_gap: float | None = 1e-12
    certified: bool = True
    trace: tuple[tuple[float, float], ...] = ()


def test_a_run_is_a_line_that_ends_in_a_marker_filled_if_it_was_certified() -> None:
    trace = ((0.5, 1e-2), (2.0, 1e-12))
    floor, path, end = draw_convergence([Solved(trace=trace)]).lines
    assert floor.get_ydata()[0] == np.finfo(float).eps
    assert list(zip(*path.get_data(), strict=True)) == list(trace)
    assert end.get_markerfacecolor() == end.get_color()
    *_, end = draw_convergence([Solved(certified=False, relative_gap=-1e-17)]).lines
    assert end.get_markerfacecolor() == "white"
    assert list(end.get_ydata()) == [np.finfo(float).eps]
    assert len(draw_convergence([Solved(seconds=None, relative_gap=None)]).lines) == 1


def test_a_family_is_shown_by_the_problem_that_most_solvers_answered_the_largest_of_those() -> None:
    rows = [
        Solved("small", d=4),
        Solved("large", d=9),
        Solved("refused", d=99, seconds=None, relative_gap=None),
        Solved("other", family="g"),
    ]
    panels = draw_convergence_page(rows)
    assert [axes.get_title() for axes in panels] == ["large", "other"]
    assert [text.get_text() for text in panels[0].figure.legends[0].get_texts()] == ["trust-region"]


def test_a_profile_is_a_staircase_that_begins_at_zero() -> None:
    (line,) = draw_profile({"scs": ([1.0, 4.0], [0.5, 1.0]), "clarabel": ([], [])}).lines
    assert list(line.get_xdata()) == [1, 1, 4, 8]
    assert list(line.get_ydata()) == [0, 0.5, 1, 1]
    panels = draw_profile_page({1e-4: {"scs": ([3.0], [1.0])}, 1e-8: {"scs": ([], [])}})
    assert [axes.get_xlim()[1] for axes in panels] == [6, 6]
    assert len(panels[1].lines) == 0


# --- frames --------------------------------------------------------------------------------------------------------


def points(axes, hollow: bool) -> np.ndarray:
    """Where the filled or the hollow markers are, one column a class."""
    found = [line for line in axes.lines if line.get_marker() not in ("None", ".")]
    found = [line for line in found if (line.get_markerfacecolor() == "white") is hollow]
    data = [line.get_data_3d() if axes.name == "3d" else line.get_data() for line in found]
    return np.transpose([np.ravel(point) for point in data])


@pytest.mark.parametrize("C", [3, 4])
def test_means_are_drawn_where_they_are_and_the_corners_of_the_etf_are_joined(C: int, rng) -> None:
    frame = etfopt.simplex_etf(C, reduced=True)
    solution = etfopt.nearest_etf(rng.standard_normal((C - 1, C)), frame=frame)
    H = solution.problem.H
    axes = draw_frame(H, solution.scale * solution.etf, samples=[rng.standard_normal((5, C - 1))] * C)
    assert axes.name == ("3d" if C == 4 else "rectilinear")
    np.testing.assert_array_equal(points(axes, hollow=False), H)
    np.testing.assert_array_equal(points(axes, hollow=True), solution.scale * solution.etf)
    edges, per_class = C * (C - 1) // 2, 1 + 2 + 2  # a cloud, a dotted line and a corner, an arrow and its tip
    assert len(axes.lines) == edges + per_class * C


def test_pictures_with_one_limit_have_one_scale_and_given_axes_are_drawn_on(rng) -> None:
    first, second = Figure().subplots(1, 2)
    for axes, size in ((first, 1.0), (second, 0.1)):
        assert draw_frame(size * rng.standard_normal((2, 3)), limit=2.0, axes=axes) is axes
    assert first.get_xlim() == second.get_xlim() == (-2, 2)


def test_what_cannot_be_drawn_is_refused(rng) -> None:
    with pytest.raises(InputError, match=r"H has 5 rows; only 2 or 3 dimensions can be drawn: project"):
        draw_frame(rng.standard_normal((5, 4)))
    with pytest.raises(InputError, match=r"axes has the projection 'rectilinear' and H has 3 rows; .*=\"3d\""):
        draw_frame(np.eye(3, 4), axes=Figure().subplots())
    with pytest.raises(InputError, match=r"axes has the projection '3d' and H has 2 rows; .* without a projection"):
        draw_frame(np.eye(2, 3), axes=Figure().add_subplot(projection="3d"))
    with pytest.raises(InputError, match="etf"):
        draw_frame(np.eye(2, 3), np.eye(2, 4))


def test_cosines_of_a_simplex_are_those_of_a_simplex_and_zero_columns_have_none() -> None:
    np.testing.assert_allclose(cosines(etfopt.simplex_etf(4)), (4 * np.eye(4) - 1) / 3, atol=1e-15)
    assert not cosines(np.zeros((3, 2))).any()


def test_a_small_matrix_can_be_read_in_numbers() -> None:
    axes = draw_matrix([[1.0, -0.5], [0.25, 0.0]], "cosines", numbers=True)
    assert [text.get_text() for text in axes.texts] == ["1.00", "-0.50", "0.25", "0.00"]
    assert len(draw_matrix(np.eye(13), "many", numbers=True).texts) == 0


def test_a_code_is_drawn_on_the_sphere_and_nearest_pairs_are_joined() -> None:
    flat, solid = draw_code(polygon(7)), draw_code(3 * orthoplex(3, 6).F)
    assert (flat.name, solid.name) == ("rectilinear", "3d")
    for axes, X, edges in ((flat, polygon(7).vectors, 7), (solid, orthoplex(3, 6).vectors, 12)):
        (vertices,) = [line for line in axes.lines if line.get_marker() == "o"]
        found = vertices.get_data_3d() if axes.name == "3d" else vertices.get_data()
        np.testing.assert_allclose(np.array(found), X, rtol=1e-15, atol=1e-15)
        assert sum(line.get_linewidth() in (0.9, 1.4) for line in axes.lines) == edges
        assert [text.get_text() for text in axes.texts] == [str(c) for c in range(X.shape[1])]
    assert len(draw_code(polygon(25)).texts) == 0


def test_a_histogram_of_cosines_counts_every_pair_and_marks_the_largest(rng) -> None:
    vectors = rng.standard_normal((4, 9))
    axes = draw_cosine_histogram({"random": vectors, "orthogonal": orthogonal(4)}, bins=30)
    width = (max(x for patch in axes.patches for x in patch.get_xy()[:, 0]) - axes.patches[0].get_xy()[0, 0]) / 30
    for patch in axes.patches:
        x, y = patch.get_xy().T
        area = abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1))) / 2
        assert area / width == pytest.approx(1)  # shares of all pairs
    upper = cosines(vectors)[np.triu_indices(9, 1)]
    lines = {line.get_label(): line.get_xdata()[0] for line in axes.lines}
    assert lines[f"random: at most {upper.max():.3f}"] == pytest.approx(upper.max())
    assert lines["orthogonal: at most 0.000"] == 0
    assert sorted(lines.values())[0] == -1 / 3  # the bound of the frame that is not proven optimal
    assert len(draw_cosine_histogram({"simplex": etfopt.frames.simplex(4)}).lines) == 1


def test_growth_is_drawn_as_the_cosine_of_each_class(rng) -> None:
    after = rng.standard_normal((6, 5))
    before, means = 2 * after[:, :3], np.roll(np.eye(6)[:, :2], 1, axis=0)
    axes = draw_growth(before, after, means=means)
    old, new, best = axes.lines
    np.testing.assert_allclose(old.get_ydata(), 1)
    np.testing.assert_array_equal(new.get_xdata(), [3, 4])
    expected = np.diagonal(cosines(np.hstack([means, after[:, 3:]]))[:2, 2:])
    np.testing.assert_allclose(new.get_ydata(), expected)
    assert best.get_ydata()[0] == pytest.approx(np.sqrt(2 * 5 / (3 * 4)))
    assert len(draw_growth(before, after).lines) == 2


def test_frames_and_growth_that_cannot_be_drawn_are_refused() -> None:
    for draw, message in (
        (lambda: draw_code(np.eye(4)), "frame has 4 rows; only 2 or 3 dimensions can be drawn"),
        (lambda: draw_code(np.eye(2, 3)), r"frame has shape \(2, 3\) and 1 zero column"),
        (lambda: draw_code(np.eye(2), axes=Figure().add_subplot(projection="3d")), "frame has 2 rows; make the axes"),
        (lambda: draw_cosine_histogram({}), "frames is empty"),
        (lambda: draw_cosine_histogram({"one": np.ones((3, 1))}), r"one has shape \(3, 1\)"),
        (lambda: draw_growth(np.eye(4, 3), np.eye(4, 2)), r"before has shape \(4, 3\) and after \(4, 2\)"),
        (lambda: draw_growth(np.eye(4, 3), np.eye(5, 4)), "old classes first"),
        (lambda: draw_growth(np.eye(4, 2), np.eye(4), means=np.eye(4)), "means has shape"),
    ):
        with pytest.raises(InputError, match=message):
            draw()


def test_ratios_are_drawn_where_there_are_any():
    axes = draw_ratios(["one", "two", "three"], {"a": [0.5, None, 2.0], "b": [None, None, None]})
    (points,) = [line for line in axes.lines if line.get_label() == "a"]
    np.testing.assert_array_equal(points.get_xydata(), [[0.5, 0], [2.0, 2]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["one", "two", "three"]


# --- all -----------------------------------------------------------------------------------------------------------

DRAWN: dict[str, Callable] = {
    "draw_measure": lambda **on: draw_measure({"a": runs([[1.0, 2.0]])}, "train_nc1", **on),
    "draw_margins": lambda **on: draw_margins({"a": runs([[1.0, 2.0]])}, **on),
    "draw_off_diagonal": lambda **on: draw_off_diagonal({"a": runs([[1.0, 2.0]])}, **on),
    "draw_convergence": lambda **on: draw_convergence([Solved()], **on),
    "draw_profile": lambda **on: draw_profile({"scs": ([1.0], [1.0])}, **on),
    "draw_matrix": lambda **on: draw_matrix(np.eye(2), "one", **on),
    "draw_frame": lambda **on: draw_frame(np.eye(2), **on),
    "draw_code": lambda **on: draw_code(polygon(5), **on),
    "draw_cosine_histogram": lambda **on: draw_cosine_histogram({"pentagon": polygon(5)}, **on),
    "draw_ratios": lambda **on: draw_ratios(["one"], {"a": [2.0]}, **on),
    "draw_growth": lambda **on: draw_growth(np.eye(3, 2), np.eye(3), **on),
}


@pytest.mark.parametrize("name", DRAWN)
def test_axes_that_are_given_are_returned_and_others_can_be_saved(name: str, tmp_path: Path) -> None:
    axes = Figure().subplots()
    assert DRAWN[name](axes=axes) is axes
    path = tmp_path / "made.png"
    save(DRAWN[name](), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert pytest.importorskip("matplotlib.pyplot").get_fignums() == []  # nothing global is touched
