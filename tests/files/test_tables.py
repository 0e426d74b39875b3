"""Tables of entries: round trips, forms of CSV and types of Parquet columns, and files that are none."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tensornet.files.tables import SUFFIXES, read_table, write_table

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

INDICES = np.array([[0, 7], [2**40, 0], [3, 3]])
VALUES = np.array([0.1, np.nan, -1e-300])


def same(path, names, indices, values):
    found = read_table(path)
    assert found[0] == names
    assert np.array_equal(found[1], indices)
    assert np.array_equal(found[2], values, equal_nan=True)
    assert (found[1].dtype, found[2].dtype) == (np.int64, np.float64)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".CSV", ".PARQUET"])
@pytest.mark.parametrize("names", [(), ("user, or group", 'the "item"', "ü\nx")])
def test_round_trip(tmp_path, suffix, names):
    write_table(tmp_path / f"a{suffix}", INDICES, VALUES, names)
    same(tmp_path / f"a{suffix}", names or ("mode0", "mode1", "value"), INDICES, VALUES)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seed", range(3))
def test_round_trip_keeps_every_bit(tmp_path, suffix, seed):
    rng = np.random.default_rng(seed)
    indices, values = rng.integers(0, 2**53, (200, 1 + seed)), rng.standard_normal(200) * 10.0 ** rng.integers(-300, 300, 200)
    write_table(tmp_path / f"a{suffix}", indices, values)
    same(tmp_path / f"a{suffix}", (*[f"mode{mode}" for mode in range(1 + seed)], "value"), indices, values)


def csv(path, text):
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "0,7,0.5\n1,2,\n",
        "mode0,mode1,value\n0,7,0.5\n1,2,\n",
        "\ufeffmode0,mode1,value\n0,7,0.5\n1,2,nan",
        "0,7,0.5\r\n\r\n1,2,NaN\r\n\r\n",
        "\n\n 0 , 7.0, 5e-1 \n1.,2, \n",
        '"mode0","mode1","value"\n"0","7","0.5"\n"1","2",""\n',
        " mode0,mode1 ,value\n0,7,+.5\n1,2,-nan\n",
    ],
)
def test_forms_of_csv(tmp_path, text):
    same(csv(tmp_path / "a.csv", text), ("mode0", "mode1", "value"), [[0, 7], [1, 2]], [0.5, np.nan])


@pytest.mark.parametrize("first", [False, True])
def test_a_first_line_of_names_may_lack_some(tmp_path, first):
    names = "user,,0" if first else ",item,rating"
    same(csv(tmp_path / "a.csv", names + "\n1,2,3\n"), tuple(names.split(",")), [[1, 2]], [3.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("\n\n", "the table is empty"),
        ("a,b\n", "the table has no rows"),
        ("5\n6\n", "a table needs a column for every mode and a last one of values; got 1 column"),
        ("0,1\n\n0,1,2\n", "every line needs 2 cells; got 3 in line 3"),
        ("a,b\n0\n", "every line needs 2 cells; got 1 in line 2"),
        ("a,b\n0,1\n0,x1\n", "numbers are needed; got 'x1' in line 3, column 'b'"),
        ("0;1;2\n0;1;2\n", "numbers are needed; got '0;1;2' in line 2, column '0;1;2'"),
        ("0,1\n0.5,1\n", "indices must be integers from 0; got 0.5 in row 2 of the column 'mode0'"),
        ("0,-1,1\n", "indices must be integers from 0; got -1 in row 1 of the column 'mode1'"),
        ("0,,1\n", "indices must be integers from 0; got nan in row 1 of the column 'mode1'"),
        ("inf,1\n", "indices must be integers from 0; got inf in row 1"),
        (f"{2**53},1\n", r"indices must be integers from 0; got 9.0072e\+15 in row 1"),
        ("a,b\n" + "1" * 200_000 + ",1\n", "no table of text .field larger than field limit"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_table(csv(tmp_path / "a.csv", text))


@pytest.mark.parametrize("content", ["ü,b\n0,1\n".encode("latin-1"), "0,1\n".encode("utf-16"), b"\x80\x04K\x01."])
def test_no_text(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"no table of text .'utf-8' codec can't decode"):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("index", [pa.int8(), pa.uint64(), pa.float32(), pa.float16()])
@pytest.mark.parametrize("value", [pa.int32(), pa.uint8(), pa.float32(), pa.float64(), pa.float16()])
def test_parquet_columns_of_numbers(tmp_path, index, value):
    columns = {"user": pa.array([3, 0], pa.int64()).cast(index), "rating": pa.array([1, None], pa.int64()).cast(value)}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    same(tmp_path / "a.parquet", ("user", "rating"), [[3], [0]], [1.0, np.nan])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [0, 1], "b": [True, False]}, "numbers are needed; got bool in the column 'b'"),
        ({"a": ["x", "y"], "b": [1, 2]}, "numbers are needed; got string in the column 'a'"),
        ({"a": [[0], [1]], "b": [1, 2]}, "numbers are needed; got list<.*> in the column 'a'"),
        ({"a": [0, None], "b": [1, 2]}, "indices must be integers from 0; got nan in row 2 of the column 'a'"),
        ({"a": [0, -1], "b": [1, 2]}, "indices must be integers from 0; got -1 in row 2 of the column 'a'"),
        ({"a": [0, 2**53], "b": [1, 2]}, r"indices must be integers from 0; got 9.0072e\+15 in row 2"),
        ({"b": [1.0]}, "got 1 column"),
        ({"a": pa.array([], pa.int64()), "b": pa.array([], pa.float64())}, "the table has no rows"),
    ],
)
def test_bad_parquet(tmp_path, columns, message):
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "a.parquet")


def test_damaged_parquet(tmp_path):
    write_table(tmp_path / "whole.parquet", INDICES, VALUES)
    rng, path, errors = np.random.default_rng(0), tmp_path / "a.parquet", []
    whole = (tmp_path / "whole.parquet").read_bytes()
    for length in range(0, len(whole), 100):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no Parquet file, or truncated"):
            read_table(path)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_table(path)  # a damaged number may be a number still
        except ValueError as error:
            errors.append(str(error))
    assert errors
    unclear = [text for text in errors if not re.search("no Parquet file, or truncated|are needed|must be|no rows|columns?", text)]
    assert unclear == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_files(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match=f"absent{suffix}"):
        read_table(tmp_path / f"absent{suffix}")
