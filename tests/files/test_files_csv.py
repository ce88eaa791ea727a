"""A table of numbers, however a program writes it: read as it is meant, or refused with the remedy."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from etfopt.errors import InputError
from etfopt.files import load_matrix
from tests.tools.terminal import run

MEANS = np.random.default_rng(0).standard_normal((6, 4))


def row(values) -> str:
    return ",".join(map(str, values))


def table(path: Path, *, header=None, index=None, rows=MEANS) -> Path:
    """Write a CSV as pandas does: `header` are the names of the columns, `index` those of the rows."""
    lines = [row(map(repr, map(float, values))) for values in rows]
    lines = lines if index is None else [f"{name},{line}" for name, line in zip(index, lines, strict=True)]
    lines = lines if header is None else [row(header), *lines]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.csv"


def test_the_imitation_writes_what_pandas_does(path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    for header, index in ((range(4), None), (None, range(6)), (list("abcd"), None), (None, None)):
        table(path, header=header, index=index)
        pandas.DataFrame(MEANS).to_csv(
            path.with_name("p.csv"), header=[*map(str, header)] if header else False, index=index is not None
        )
        assert path.read_text() == path.with_name("p.csv").read_text()
    pandas.DataFrame(MEANS).to_csv(path)
    assert path.read_text() == table(path.with_name("p.csv"), header=["", *range(4)], index=range(6)).read_text()


@pytest.mark.parametrize("first", [0, 1])
def test_a_first_row_that_counts_is_refused_until_somebody_says_what_it_is(path: Path, first: int) -> None:
    table(path, header=range(first, first + 4))
    with pytest.raises(InputError, match=rf"first row is {first}, {first + 1}, .*header=False.*header=True"):
        load_matrix(path)
    np.testing.assert_array_equal(load_matrix(path, header=True), MEANS)
    np.testing.assert_array_equal(load_matrix(path, header=False), [[*range(first, first + 4)], *MEANS])


@pytest.mark.parametrize("first", [0, 1])
def test_a_first_column_that_counts_is_refused_until_somebody_says_what_it_is(path: Path, first: int) -> None:
    counted = range(first, first + 6)
    table(path, index=counted)
    with pytest.raises(InputError, match=rf"first column is {first}, {first + 1}, .*index=True or index=False"):
        load_matrix(path)
    np.testing.assert_array_equal(load_matrix(path, index=True), MEANS)
    np.testing.assert_array_equal(load_matrix(path, index=False), np.column_stack([counted, MEANS]))
    table(path, header=["row", *"abcd"], index=counted)
    with pytest.raises(InputError, match="first column is"):
        load_matrix(path, header=True)
    np.testing.assert_array_equal(load_matrix(path, header=True, index=True), MEANS)


def test_whole_numbers_beside_fractions_may_be_names_of_a_selection(path: Path) -> None:
    table(path, index=[17, 3, 250, 4, 8, 0])
    with pytest.raises(InputError, match=r"first column is 17, 3, 250, ...: an index"):
        load_matrix(path)
    np.testing.assert_array_equal(load_matrix(path, index=True), MEANS)
    table(path, header=[5, 6, 7, 9])
    with pytest.raises(InputError, match=r"first row is 5, 6, 7, ...: a header"):
        load_matrix(path)
    np.testing.assert_array_equal(load_matrix(path, header=False), [[5, 6, 7, 9], *MEANS])
    for text in ("5,7,9\n1.5,2,3.5\n", "5,5,9\n1.5,2.5,3.5\n", "3,1.5\n7,2.5\n", "3\n7\n9\n", "5,7,9\n"):
        path.write_text(text)  # whole numbers among others, or too few to tell, are data
        assert load_matrix(path).size == len(text.split(",")) + text.count("\n") - 1


@pytest.mark.parametrize(
    ("header", "index", "said"),
    [
        (list("abcd"), None, r"row 1 \(a, b, c, ...\) is a header: left out; a 6 x 4 matrix is left"),
        (['"H 1"', '"x,y"', "c", "d"], None, r"row 1 \(H 1, x,y, c, ...\) is a header"),
        (["", *range(4)], range(6), r"is a header and the first column, which has no name, is an index: left out"),
        (["", *"abcd"], list("uvwxyz"), r"the first column, which has no name, is an index"),
        (['""', '"V1"', '"V2"', '"V3"', '"V4"'], [f'"{i}"' for i in range(1, 7)], "is an index"),
    ],
)
def test_names_that_can_be_no_data_are_left_out_with_a_warning(path: Path, header, index, said: str) -> None:
    table(path, header=header, index=index)
    with pytest.warns(UserWarning, match=said):
        np.testing.assert_array_equal(load_matrix(path), MEANS)


def test_numbers_that_happen_to_count_are_data_where_they_are_written_as_numbers(path: Path) -> None:
    counted = np.arange(12.0).reshape(3, 4)
    np.savetxt(path, counted, delimiter=",")
    np.testing.assert_array_equal(load_matrix(path), counted)
    np.savetxt(path, counted.T[:, ::-1], delimiter=",", fmt="%d")
    np.testing.assert_array_equal(load_matrix(path), counted.T[:, ::-1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeff1.5,2\r\n3,4\r\n\r\n\n", [[1.5, 2], [3, 4]]),
        ("1.5,2\r3,4\r", [[1.5, 2], [3, 4]]),
        ("# means\n1.5 , 2 # first\n\n  \n3,4", [[1.5, 2], [3, 4]]),
        ('"1.5","2"\n"3","-4e-3"\n', [[1.5, 2], [3, -4e-3]]),
        ("0.1,inf\n-Infinity,NaN\n", [[0.1, np.inf], [-np.inf, np.nan]]),
    ],
)
def test_marks_comments_quotes_and_ends_of_lines_are_no_obstacle(path: Path, text: str, expected: list) -> None:
    path.write_text(text, newline="")
    np.testing.assert_array_equal(load_matrix(path), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.5;2\n3;4\n", r"the file has semicolons.*sep=';', header=None"),
        ("1,5;2,5\n3,5;4,5\n", r"the file has semicolons.*sep=';', decimal=','"),
        ("1.5\t2\n3\t4\n", r"the file has tabs.*sep='\\t'"),
        ("1.5 2\n3 4\n", r"the file has spaces"),
        ('"1,5","2,5"\n', r"'1,5' is not a number: write a decimal comma as a point, and leave out thousands"),
        ("a\tb\n1.5\t2\n", r"the file has tabs.*sep='\\t'\)"),
        ("a;b\n0,5;1,5\n", r"the file has semicolons.*sep=';', decimal=','\)"),
        ("   1.0e+00   2.5e+00\n   3.0e+00   4.5e+00\n", r"the file has spaces.*sep='\\s\+', header=None"),
        ("mean\n0,5\n1,5\n", r"its header has 1 fields, and the row below has 2.*write points"),
        ("a,b,c\n1.5,2\n3,4\n", r"its header has 3 fields, and the row below has 2"),
        (
            "dim,0,1\na,1.5,2\n",
            r"line 1, column 1: 'dim' is not a number; if the first row holds names, pass header=True",
        ),
        ("1.5,2\n\n3,4,5\n", r"line 3 has 3 columns, and the first one 2"),
        ("1.5,2,\n3,4,\n", r"line 1, column 3: '': a value is missing"),
        ("1.5,2\nNA,4\n", r"line 2, column 1: 'NA': a value is missing"),
        ("NA,NA\n1.5,2\n", r"line 1, column 1: 'NA': a value is missing"),
        ("1.5,x\n3,4\n", r"line 1, column 2: 'x' is not a number"),
        (
            "a,b\n1.5,2\nc,d\n",
            r"line 3, column 1: 'c' is not a number; if the first column holds names, pass index=True",
        ),
        ("1.5+2j,2\n", r"'1.5\+2j' is complex; real numbers are needed"),
        ("1_000,2\n3,4\n", r"'1_000' is not a number"),
        ('"1.5,2\n3,4\n', r"quotes that do not match"),
        ("a,b\n", r"it holds a header and no numbers"),
        ("# nothing\n\n", r"it holds no numbers"),
        ("1.5,2\n".encode("utf-16"), r"no text in UTF-8 \(byte 0\); save it as UTF-8"),
        (b"1.5,\x002\n3,4", r"'\\x002' is not a number"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_in_one_line_with_its_place(path: Path, text, message: str) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"m\.csv: cannot be read: .*{message}") as caught:
        load_matrix(path)
    assert "\n" not in str(caught.value)


def test_a_large_table_is_not_read(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(InputError, match=r"is too large: it has 268,435,457 bytes; at most 268,435,456 are read"):
        load_matrix(path)


def test_the_command_names_the_options_and_warns_in_one_line(path: Path) -> None:
    table(path, header=range(4))
    done = run("solve", path.name, cwd=path.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"or say which; pass --header or --no-header\n$", done.stderr)
    told = run("solve", path.name, "--header", "--json", cwd=path.parent)
    assert (told.returncode, told.stderr) == (0, "")
    table(path, header=list("abcd"))
    found = run("solve", path.name, "--json", cwd=path.parent)
    assert found.stderr == "warning: m.csv: row 1 (a, b, c, ...) is a header: left out; a 6 x 4 matrix is left\n"
    assert json.loads(found.stdout) == {**json.loads(told.stdout), "seconds": json.loads(found.stdout).get("seconds")}


def test_the_options_are_for_tables_and_not_for_an_array_beside_them(path: Path) -> None:
    table(path, header=range(4))
    np.save(path.with_name("prox.npy"), np.eye(6, 4))
    done = run("solve", path.name, "--header", "--prox", "prox.npy", "--delta", "0.1", cwd=path.parent)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_table_to_compare_on_has_the_same_rules(path: Path) -> None:
    table(path, header=range(4))
    done = run("compare", "--means", path.name, cwd=path.parent)
    assert done.returncode == 2
    assert re.search(r"m.csv: .*first row is 0, 1, 2, .*header=False, index=False\)\)\n$", done.stderr)


def test_a_header_that_is_one_short_names_no_index_as_r_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('"V1","V2"\n"3",0,0.2\n"7",0.5,0.3\n')
    with pytest.warns(UserWarning, match="for which the header has no name, is an index: left out; a 2 x 2 matrix"):
        matrix = load_matrix(path)
    assert matrix.tolist() == [[0, 0.2], [0.5, 0.3]]
