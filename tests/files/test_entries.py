"""Entries on the disk: what is read, bounded memory, and files that are broken, foreign or do not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from tensornet import TensorCompleter
from tensornet.cli import main
from tensornet.files import entries as module
from tensornet.files.entries import ArrayEntries, ParquetEntries, open_entries

ROOT = Path(__file__).parent.parent.parent
INDICES = np.random.default_rng(0).integers(0, (9, 200, 7), (100, 3))
VALUES = np.random.default_rng(1).normal(size=100)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "BLOCK", 16)
    np.save("indices.npy", INDICES.astype(np.uint8))
    np.save("values.npy", VALUES)
    write_table("table.parquet", INDICES, VALUES)
    return tmp_path


def write_table(path, indices, values, group=32, kinds=("uint8", "int16", "int8")):
    columns = [pyarrow.array(column, kind) for column, kind in zip(indices.T, kinds)]
    parquet.write_table(pyarrow.table([*columns, values], names=["a", "b", "c", "value"]), path, row_group_size=group)


def all_of(source):
    blocks = [source.read(block) for block in range(len(source.edges) - 1)]
    assert [len(values) for _, values in blocks] == np.diff(source.edges).tolist()
    return tuple(np.concatenate(part) for part in zip(*blocks))


@pytest.mark.parametrize("kind", ["u1", "<u2", ">i4", "u8"])
@pytest.mark.parametrize("numbers", ["<f4", ">f8", "i2", "c8", "?"])
def test_arrays(kind, numbers, folder):
    values = (100 * VALUES).astype(numbers)
    np.save("indices.npy", INDICES.astype(kind))
    np.save("values.npy", values)
    source = open_entries("indices.npy", "values.npy")
    indices, found = all_of(source)
    assert isinstance(source, ArrayEntries)
    assert (source.order, source.edges.tolist()) == (3, [0, 16, 32, 48, 64, 80, 96, 100])
    assert np.array_equal(indices, INDICES)
    assert np.array_equal(found, values)
    assert indices.dtype.isnative
    assert found.dtype.isnative


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int32])
def test_tables(kind, folder):
    values = (100 * VALUES).astype(kind)
    write_table("table.parquet", INDICES, values)
    source = open_entries("table.parquet")
    indices, found = all_of(source)
    assert isinstance(source, ParquetEntries)
    assert (source.order, source.edges.tolist()) == (3, [0, 32, 64, 96, 100])
    assert np.array_equal(indices, INDICES)
    assert np.array_equal(found, values)
    assert indices.dtype == np.int16


def test_integers_of_which_no_kind_holds_all(folder):
    write_table("table.parquet", INDICES, VALUES, kinds=("uint64", "int64", "uint8"))
    indices, _ = all_of(open_entries("table.parquet"))
    assert indices.dtype == np.int64
    assert np.array_equal(indices, INDICES)


@pytest.mark.parametrize("batch_size", [None, 30])
def test_files_are_learned_as_what_they_hold(batch_size, folder):
    made = {"steps": 30, "ranks": 2, "smooth": None, "dtype": torch.float64, "batch_size": batch_size}
    memory = TensorCompleter(**made).fit(INDICES, VALUES)
    found = [TensorCompleter(**made).fit("indices.npy", "values.npy"), TensorCompleter(**made).fit(Path("table.parquet"))]
    compared = found[:1] if batch_size else found  # the order of batches depends on the blocks
    for completer in compared:
        assert torch.allclose(completer.predict(INDICES), memory.predict(INDICES), rtol=1e-9, atol=1e-12)
    assert torch.isfinite(found[1].predict(INDICES)).all()


def test_ordered_modes_are_found_in_files(folder):
    rows, columns = np.indices((40, 30)).reshape(2, -1)
    np.save("indices.npy", np.stack([rows, columns], 1))
    np.save("values.npy", np.sin(rows / 3) * np.cos(columns / 4))
    found = TensorCompleter(steps=1).fit("indices.npy", "values.npy").lengths_
    assert found == TensorCompleter(steps=1).fit(np.stack([rows, columns], 1), np.sin(rows / 3) * np.cos(columns / 4)).lengths_
    assert min(found) > 0


BAD = {
    "absent": (["absent.npy", "values.npy"], "absent.npy"),
    "absent values": (["indices.npy", "absent.npy"], "absent.npy"),
    "absent table": (["absent.parquet"], "absent.parquet"),
    "foreign": (["foreign.npy", "values.npy"], "foreign.npy: no NumPy file"),
    "foreign table": (["foreign.parquet"], "foreign.parquet: no Parquet file, or truncated"),
    "empty file": (["empty.npy", "values.npy"], "empty.npy: no NumPy file"),
    "empty table file": (["empty.parquet"], "empty.parquet: no Parquet file, or truncated"),
    "truncated": (["cut.npy", "values.npy"], "cut.npy: no NumPy file, or truncated"),
    "truncated values": (["indices.npy", "cut-values.npy"], "cut-values.npy: no NumPy file, or truncated"),
    "truncated header": (["cut-head.npy", "values.npy"], "cut-head.npy: no NumPy file, or truncated"),
    "truncated table": (["cut.parquet"], "cut.parquet: no Parquet file, or truncated"),
    "damaged table": (["damaged.parquet"], "damaged.parquet: no Parquet file, or truncated"),
    "objects": (["objects.npy", "values.npy"], "objects.npy: "),
    "floats as indices": (["floats.npy", "values.npy"], r"floats.npy: integers of the shape \(B, N\) are needed; got float64"),
    "one axis": (["values.npy", "values.npy"], r"values.npy: integers of the shape \(B, N\) are needed; got float64 of the shape \(100,\)"),
    "two axes of values": (["indices.npy", "indices.npy"], r"indices.npy: numbers \(B,\) are needed; got uint8 of the shape \(100, 3\)"),
    "by columns": (["columns.npy", "values.npy"], "columns.npy: an array stored row by row is needed"),
    "lengths": (["indices.npy", "short.npy"], "as many indices as values; got 100 in indices.npy and 60 in short.npy"),
    "no entries": (["no-indices.npy", "no-values.npy"], r"at least one observed entry is needed; got indices of the shape \(0, 3\)"),
    "no modes": (["no-modes.npy", "values.npy"], r"at least one observed entry is needed; got indices of the shape \(100, 0\)"),
    "no rows": (["no-rows.parquet"], r"at least one observed entry is needed; got indices of the shape \(0, 3\)"),
    "negative": (["negative.npy", "values.npy"], "indices must be from 0 to below the mode's size; got -1 for mode 2 in row 61"),
    "nan": (["indices.npy", "nan.npy"], "values must be finite, and missing entries left out; got nan in row 83"),
    "negative in a table": (["negative.parquet"], "got -5 for mode 1 in row 77"),
    "nan in a table": (["nan.parquet"], "values must be finite, and missing entries left out; got nan in row 90"),
    "null in a table": (["null.parquet"], "values must be finite, and missing entries left out; got nan in row 90"),
    "no index in a table": (["no-index.parquet"], "no-index.parquet: an index is missing in row 90, column 'b'"),
    "words in a table": (["words.parquet"], "words.parquet: numbers are needed; got string in 'b'"),
    "floats in a table": (["floats.parquet"], "floats.parquet: integers are needed; got double in 'a'"),
    "one column": (["narrow.parquet"], "narrow.parquet: a table needs a column for every mode .*; got 1 column"),
    "text": (["table.csv"], "entries are streamed from a .parquet table, or from an .npy file of indices and one of values; got table.csv"),
    "values of a table": (["table.parquet", "values.npy"], "entries are streamed from .*; got table.parquet and values.npy"),
    "no values": (["indices.npy"], "entries are streamed from .*; got indices.npy"),
}


def write_bad_files(folder):
    for suffix in ("npy", "parquet"):
        folder.joinpath(f"foreign.{suffix}").write_bytes(bytes(range(256)))
        folder.joinpath(f"empty.{suffix}").touch()
    whole = folder.joinpath("indices.npy").read_bytes()
    folder.joinpath("cut.npy").write_bytes(whole[:-1])
    folder.joinpath("cut-head.npy").write_bytes(whole[:40])
    folder.joinpath("cut-values.npy").write_bytes(folder.joinpath("values.npy").read_bytes()[:-5])
    whole = folder.joinpath("table.parquet").read_bytes()
    folder.joinpath("cut.parquet").write_bytes(whole[:-40])
    folder.joinpath("damaged.parquet").write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    np.save("objects.npy", np.array([[None, 1]], dtype=object))
    np.save("floats.npy", INDICES.astype(float))
    np.save("columns.npy", np.asfortranarray(INDICES))
    np.save("short.npy", VALUES[:60])
    np.save("no-indices.npy", INDICES[:0])
    np.save("no-modes.npy", INDICES[:, :0])
    np.save("no-values.npy", VALUES[:0])
    for name, row, mode, value in (("negative.npy", 61, 2, -1), ("negative.parquet", 77, 1, -5)):
        changed = INDICES.astype(np.int32)
        changed[row, mode] = value
        if name.endswith("npy"):
            np.save(name, changed)
        else:
            write_table(name, changed, VALUES)
    np.save("nan.npy", np.where(np.arange(100) == 83, np.nan, VALUES))
    write_table("nan.parquet", INDICES, np.where(np.arange(100) == 90, np.nan, VALUES))
    write_table("null.parquet", INDICES, pyarrow.array(VALUES, mask=np.arange(100) == 90))
    write_table("no-rows.parquet", INDICES[:0], VALUES[:0])
    columns = {"a": INDICES[:, 0], "b": pyarrow.array(INDICES[:, 1], mask=np.arange(100) == 90), "value": VALUES}
    parquet.write_table(pyarrow.table(columns), "no-index.parquet", row_group_size=32)
    parquet.write_table(pyarrow.table({"a": [0, 1], "b": ["x", "y"]}), "words.parquet")
    parquet.write_table(pyarrow.table({"a": [0.0, 1.0], "b": [1.0, 2.0]}), "floats.parquet")
    parquet.write_table(pyarrow.table({"a": [0, 1]}), "narrow.parquet")


class TestBadFiles:
    @pytest.mark.parametrize("name", BAD)
    def test_one_line_that_names_the_file_or_row(self, name, folder):
        write_bad_files(folder)
        given, message = BAD[name]
        with pytest.raises((ValueError, OSError), match=message) as caught:
            TensorCompleter(steps=1, smooth=None).fit(*given)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", BAD)
    def test_the_command_ends_with_that_line_and_code_2(self, name, folder, capsys):
        write_bad_files(folder)
        before = sorted(folder.iterdir())
        file, *values = BAD[name][0]
        options = ["--values", *values] if values else ["--stream"]
        assert main(["complete", file, *options, "--steps", "1", "--out", "out.safetensors"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("tensornet: error: ")
        assert said.count("\n") == 1
        assert sorted(folder.iterdir()) == before

    def test_a_file_that_becomes_shorter(self, folder):
        source = open_entries("indices.npy", "values.npy")
        folder.joinpath("values.npy").write_bytes(folder.joinpath("values.npy").read_bytes()[:-400])
        source.read(0)
        with pytest.raises(ValueError, match=r"values\.npy: the file has become shorter; rows 48 to 63 are missing"):
            source.read(3)

    def test_an_index_beyond_the_given_sizes(self, folder):
        row = int(np.argmax(INDICES[:, 1] >= 150))
        with pytest.raises(ValueError, match=f"got {INDICES[row, 1]} for mode 1 of size 150 in row {row}$"):
            TensorCompleter(mode_sizes=(9, 150, 7)).fit("indices.npy", "values.npy")


_PROGRAM = """
import resource, sys
import numpy as np, torch
from tensornet import TensorCompleter
torch.set_num_threads(1)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def fit(files):
    TensorCompleter(ranks=4, smooth=None, validation=0.0, steps=int(sys.argv[-1]), batch_size=4096).fit(*files)
fit(sys.argv[1:3])
before = peak()
fit(sys.argv[3:5])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a peak of memory in KiB")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Entries of 32 MB are passed over twice; 2 MB more than for a sixteenth of them are allowed."""
    rng = np.random.default_rng(0)
    for name, count in (("few", 2**17), ("many", 2**21)):
        np.save(tmp_path / f"{name}-indices.npy", rng.integers(0, 50, (count, 8), dtype=np.uint8))
        np.save(tmp_path / f"{name}-values.npy", rng.normal(size=count))
    files = [tmp_path / f"{name}-{what}.npy" for name in ("few", "many") for what in ("indices", "values")]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, files), "1024"], capture_output=True, text=True, timeout=300, cwd=ROOT, check=True
    )
    assert int(done.stdout) < 2 * 1024
