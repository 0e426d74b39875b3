"""`tensornet complete`: what it prints and writes; errors in one line that leave outputs alone; Ctrl-C and resuming."""

from __future__ import annotations

import json
import sys
import zipfile

import numpy as np
import pyarrow
import pytest
import torch
from command_cases import HOLES, WAVES, call, pixels
from PIL import Image
from pyarrow import parquet

from tensornet import TensorCompleter, load
from tensornet.cli import complete, learning, peers
from tensornet.completion.fitting import Training
from tensornet.files.storage import read_json

PICTURE = np.clip(40 * WAVES[..., None] + [100, 120, 140], 0, 255).round().astype(np.uint8)
KINDS = {"npy": "NumPy file", "npz": "NumPy file", "csv": "table", "parquet": "Parquet file", "png": "picture"}
QUICK = ("--steps", "30", "--ranks", "3")


def table_of(array, *, listed=False):
    """A CSV table of the known entries, and of the others without a value if ``listed``."""
    rows = ["row,column,height"]
    rows += [f"{i},{j},{array[i, j]:.17g}" for i, j in np.argwhere(~HOLES)]
    return "\n".join(rows + [f"{i},{j}," for i, j in np.argwhere(HOLES) if listed])


def interrupted_at(monkeypatch, step, error=KeyboardInterrupt):
    """Lets a training be interrupted after so many steps."""
    move = Training._move

    def stopping(training):
        if training.step == step:
            raise error
        return move(training)

    monkeypatch.setattr(Training, "_move", stopping)


class TestComplete:
    @pytest.mark.parametrize("suffix", ["npy", "npz"])
    def test_arrays(self, suffix, folder, capsys):
        np.savez("waves.npz", np.where(HOLES, np.nan, WAVES))
        np.save("waves.npy", np.where(HOLES, np.nan, WAVES))
        assert call("complete", f"waves.{suffix}", "--out", f"full.{suffix}", "--steps", "150", "--ranks", "3") == 0
        full = np.load(f"full.{suffix}")
        full = full["arr_0"] if suffix == "npz" else full
        assert np.array_equal(full[~HOLES], WAVES[~HOLES])
        assert np.square(full - WAVES)[HOLES].mean() < 0.2 * WAVES.var()
        shown = capsys.readouterr()
        assert f"waves.{suffix}: 12 x 9, {(~HOLES).sum()} of 108 entries known" in shown.out
        assert shown.err == ""

    @pytest.mark.parametrize("listed", [True, False])
    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_tables(self, listed, suffix, folder):
        folder.joinpath("waves.csv").write_text(table_of(WAVES, listed=listed))
        if suffix == "parquet":
            places = np.argwhere(~HOLES if not listed else HOLES | True)
            values = np.where(HOLES, np.nan, WAVES)[tuple(places.T)]
            parquet.write_table(pyarrow.table([*places.T, values], names=["row", "column", "height"]), "waves.parquet")
        assert call("complete", f"waves.{suffix}", "--out", "full.csv", *QUICK) == 0
        assert call("complete", f"waves.{suffix}", "--out", "full.parquet", *QUICK) == 0
        written = parquet.read_table("full.parquet")
        assert written.column_names == ["row", "column", "height"] == folder.joinpath("full.csv").read_text().split()[0].split(",")
        columns = [column.to_numpy() for column in written.columns]
        assert np.array_equal(np.stack(columns[:2], 1), np.argwhere(HOLES))
        assert np.allclose(np.loadtxt("full.csv", delimiter=",", skiprows=1), np.stack(columns, 1), rtol=1e-6)

    def test_a_table_of_few_wanted_entries_of_a_large_tensor(self, folder):
        rows = [f"{i},{i},{i * 1000},{i}" for i in range(100)]
        folder.joinpath("large.csv").write_text("\n".join([*rows, "5,6,7000,", "99,0,99000,"]))
        assert call("complete", "large.csv", "--out", "full.csv", "--steps", "2") == 0
        assert len(folder.joinpath("full.csv").read_text().split()) == 3

    @pytest.mark.parametrize("how", ["transparent", "picture", "array"])
    def test_pictures(self, how, folder):
        mask, options = np.where(HOLES, 0, 255).astype(np.uint8), ()
        if how == "transparent":
            Image.fromarray(np.dstack([PICTURE, mask])).save("damaged.png")
        else:
            Image.fromarray(np.where(HOLES[..., None], 0, PICTURE).astype(np.uint8)).save("damaged.png")
            Image.fromarray(mask).save("mask.png")
            np.save("mask.npy", ~HOLES)
            options = ("--mask", "mask.png" if how == "picture" else "mask.npy")
        assert call("complete", "damaged.png", "--out", "whole.png", "--steps", "150", *options) == 0
        whole = pixels("whole.png")
        assert np.array_equal(whole[~HOLES], PICTURE[~HOLES])
        assert np.square(whole - PICTURE)[HOLES].mean() < 0.2 * np.square(PICTURE - PICTURE.mean((0, 1)))[HOLES].mean()

    def test_pixels_are_held_out_with_all_their_channels(self, folder, monkeypatch):
        given, fit = {}, TensorCompleter.fit
        monkeypatch.setattr(TensorCompleter, "fit", lambda *args, **options: given.update(args=args, **options) or fit(*args, **options))
        monkeypatch.setattr("tensornet.cli.given.photograph", lambda: PICTURE.astype(float))
        assert call("complete", "--out", "photograph.png", "--fraction", "0.9", "--no-peers", *QUICK) == 0
        places = [{tuple(index) for index in indices[:, :2].tolist()} for indices in (given["args"][1], given["held_out"][0])]
        assert not places[0] & places[1]
        assert len(given["held_out"][1]) == 3 * len(places[1]) == 6  # 2 % of 97 pixels

    @pytest.mark.parametrize("peer", [True, False])
    def test_the_photograph_beside_tensorly(self, peer, folder, monkeypatch, capsys):
        monkeypatch.setattr("tensornet.cli.given.photograph", lambda: PICTURE.astype(float))
        monkeypatch.setattr(peers, "ITERATIONS", 2)
        assert call("complete", "--out", "photograph.png", *QUICK, *(() if peer else ("--no-peers",))) == 0
        shown = capsys.readouterr().out
        assert "12 x 9 x 3, 96 of 324 entries known" in shown  # 32 pixels of 108
        assert "PSNR on hidden pixels" in shown
        assert ("masked CP" in shown, "masked Tucker" in shown) == (peer, peer)
        assert pixels("photograph.png").shape == PICTURE.shape

    def test_the_error_on_a_hidden_share(self, waves, capsys):
        assert call("complete", "waves.npy", "--out", "full.npy", "--fraction", "0.8", "--no-peers", *QUICK) == 0
        assert "R^2 on hidden entries" in capsys.readouterr().out

    def test_the_same_seed_gives_the_same_bits(self, waves):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            assert call("complete", "waves.npy", "--out", f"{name}.npy", "--seed", seed, "--smooth", "2,3", *QUICK) == 0
        first, same, other = (np.load(f"{name}.npy") for name in "abc")
        assert np.array_equal(first, same)
        assert not np.array_equal(first, other)

    @pytest.mark.filterwarnings("default")
    def test_a_diverging_training_is_told_in_one_line(self, waves, monkeypatch, capsys):
        monkeypatch.setattr(Training, "_squares", lambda self, *_: self.white.weight_list()[0].sum() * torch.nan)
        assert call("complete", "waves.npy", "--out", "full.npy", *QUICK) == 2
        shown = capsys.readouterr()
        assert shown.err.startswith("tensornet: warning: the loss is nan at step 1;")
        assert shown.err.count("\n") == 1
        assert shown.out.endswith("Nothing was learned, and nothing is written.\n")
        assert not waves.joinpath("full.npy").exists()


def write_bad_files(folder):
    """Files of every kind that cannot be completed."""
    np.save("waves.npy", np.where(HOLES, np.nan, WAVES))
    whole = folder.joinpath("waves.npy").read_bytes()
    folder.joinpath("cut.npy").write_bytes(whole[:-100])
    folder.joinpath("cut-head.npy").write_bytes(whole[:20])
    for suffix in KINDS:
        folder.joinpath(f"empty.{suffix}").write_bytes(b"")
        folder.joinpath(f"foreign.{suffix}").write_bytes(b"\x00\xff%PDF-1.7 something else\n" * 9)
    np.savez("two.npz", a=WAVES, b=WAVES)
    folder.joinpath("cut.npz").write_bytes(folder.joinpath("two.npz").read_bytes()[:300])
    with zipfile.ZipFile("foreign-zip.npz", "w") as file:
        file.writestr("letter.txt", "hello")
    np.save("text.npy", np.array(["a", "b"]))
    np.save("objects.npy", np.array([None, 1], dtype=object))
    np.save("nothing.npy", np.full((3, 3), np.nan))
    np.save("infinite.npy", np.array([[1.0, np.inf], [np.nan, 2.0]]))
    np.save("full.npy", WAVES)
    np.save("scalar.npy", np.array(3.0))
    np.save("mask-small.npy", np.ones((2, 2)))
    Image.fromarray(PICTURE).save("picture.png")
    folder.joinpath("cut.png").write_bytes(folder.joinpath("picture.png").read_bytes()[:100])
    parquet.write_table(pyarrow.table({"a": [0, 1], "b": ["x", "y"]}), "words.parquet")
    parquet.write_table(pyarrow.table({"a": [0, 1], "b": [1.0, 2.0]}), "whole.parquet")
    folder.joinpath("cut.parquet").write_bytes(folder.joinpath("whole.parquet").read_bytes()[:-40])
    for name, text in {
        "words": "a,b\n0,x\n",
        "names": "a,b\n",
        "ragged": "0,1,2\n0,1\n",
        "negative": "0,1\n-1,2\n",
        "halves": "0.5,1\n",
        "narrow": "1\n2\n",
        "infinite": "0,0,inf\n1,1,\n",
        "large": "0,9999999999999,1\n5,3,\n",
    }.items():
        folder.joinpath(f"{name}.csv").write_text(text)
    folder.joinpath("folder.npy").mkdir()


BAD = [
    ("absent.npy", "absent.npy: No such file or directory"),
    ("absent.csv", "absent.csv: No such file or directory"),
    ("absent.png", "absent.png: No such file or directory"),
    ("folder.npy", "folder.npy: Is a directory"),
    ("waves.txt", "the name of a file must end in .npy, .npz, .csv, .parquet"),
    *((f"empty.{suffix}", f"empty.{suffix}: the file is empty") for suffix in KINDS),
    *((f"foreign.{suffix}", f"foreign.{suffix}: no {kind}") for suffix, kind in KINDS.items()),
    *((f"cut.{suffix}", f"cut.{suffix}: no {kind}") for suffix, kind in KINDS.items() if suffix not in ("npy", "csv")),
    ("cut.npy", "cut.npy: Failed to read all data for array"),
    ("cut-head.npy", "cut-head.npy: EOF"),
    ("foreign-zip.npz", "foreign-zip.npz: "),
    ("two.npz", "two.npz: one array is needed; got 2 (a, b)"),
    ("text.npy", "text.npy: an array of numbers is needed"),
    ("objects.npy", "objects.npy: "),
    ("nothing.npy", "nothing.npy: all entries are missing"),
    ("infinite.npy", "infinite.npy: known entries must be finite; got inf at (0, 1)"),
    ("infinite.csv", "infinite.csv: known entries must be finite; got inf at (0, 0)"),
    ("full.npy", "full.npy: no entry is missing, so there is nothing to complete"),
    ("scalar.npy", "scalar.npy: an array with axes"),
    ("words.csv", "words.csv: numbers are needed; got 'x' in line 2, column 'b'"),
    ("words.parquet", "words.parquet: numbers are needed; got string in the column 'b'"),
    ("ragged.csv", "ragged.csv: every line needs 3 cells; got 2 in line 2"),
    ("negative.csv", "negative.csv: indices must be integers from 0; got -1 in row 2"),
    ("halves.csv", "halves.csv: indices must be integers from 0; got 0.5 in row 1"),
    ("narrow.csv", "narrow.csv: a table needs a column for every mode"),
    ("names.csv", "names.csv: the table has no rows"),
    ("large.csv", "for 6 x 10000000000000 entries do not fit into memory"),
    ("waves.npy --mask absent.png", "absent.png: No such file or directory"),
    ("waves.npy --mask cut.png", "cut.png: no picture, or truncated"),
    ("waves.npy --mask mask-small.npy", "a mask needs the shape of the array or of its first axes; got (2, 2) for (12, 9)"),
    ("words.csv --mask mask-small.npy", "words.csv: a table takes no mask"),
    ("waves.npy --tree (0,1,2)", "--tree needs the 2 modes of the entries; got 3"),
    ("waves.npy --smooth 1,2,3", "--smooth needs one length or 2, one a mode; got 3"),
    ("waves.npy --run full.npy", "a run needs a folder; full.npy is a file"),
    ("waves.npy --run full.npy/run", "full.npy/run: Not a directory"),
]


@pytest.fixture
def entries(folder):
    """Entries of a tensor in a pair of files and in a table."""
    indices = np.random.default_rng(0).integers(0, (6, 5, 4), (300, 3))
    values = np.sin(indices.sum(1))
    np.save("indices.npy", indices)
    np.save("values.npy", values)
    parquet.write_table(pyarrow.table([*indices.T, values], names=["a", "b", "c", "value"]), "table.parquet", row_group_size=64)
    return indices, values


class TestStreaming:
    @pytest.mark.parametrize("words", ["indices.npy --values values.npy", "table.parquet --stream"])
    def test_what_is_learned_is_written_and_predicts(self, words, entries, capsys):
        options = ["--batch", "40", "--steps", "60", "--ranks", "4", "--seed", "3"]
        assert call("complete", *words.split(), *options, "--out", "out.safetensors") == 0
        shown = capsys.readouterr()
        assert "300 entries of 3 modes, left on the disk" in shown.out
        assert shown.err == ""
        given = words.split()[0::2] if "values" in words else ["table.parquet"]
        again = TensorCompleter(batch_size=40, steps=60, ranks=4, seed=3).fit(*given)
        assert torch.equal(load("out.safetensors").predict(entries[0]), again.predict(entries[0]))

    def test_what_is_learned_from_an_array(self, waves):
        assert call("complete", "waves.npy", "--out", "out.safetensors", *QUICK) == 0
        assert call("complete", "waves.npy", "--out", "out.npy", *QUICK) == 0
        assert np.array_equal(load("out.safetensors").complete().numpy()[HOLES], np.load("out.npy")[HOLES].astype(np.float32))

    def test_a_run_of_other_files_is_not_continued(self, entries, folder, capsys):
        command = ["complete", "indices.npy", "--values", "values.npy", "--steps", "3", "--run", "run", "--out", "out.safetensors"]
        assert call(*command) == 0
        assert call(*command) == 0
        np.save("values.npy", 2 * entries[1])
        assert call(*command) == 2
        assert "a run is resumed with the configuration it was begun with" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("table.parquet --stream --out full.parquet", "what is learned from entries on the disk is written as .safetensors; got"),
            ("table.parquet --stream", "--stream and --values need a file to complete, and --out"),
            ("--stream --out out.safetensors", "--stream and --values need a file to complete, and --out"),
            ("table.parquet --stream --fraction 0.5 --out out.safetensors", "--mask and --fraction need entries in memory"),
            ("table.parquet --stream --tree (0,1) --out out.safetensors", "--tree needs the 3 modes of the entries; got 2"),
            ("table.parquet --stream --smooth 1,2 --out out.safetensors", "--smooth needs one length or 3, one a mode; got 2"),
            ("table.parquet --stream --out absent/out.safetensors", "the folder absent does not exist"),
            ("table.parquet --batch 0 --out out.safetensors", "argument --batch: a positive integer is needed; got '0'"),
        ],
    )
    def test_wrong_arguments(self, words, said, entries, folder, capsys):
        before = sorted(folder.iterdir())
        assert call("complete", *words.split()) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert shown.count("\n") == 1
        assert sorted(folder.iterdir()) == before


class TestBadFiles:
    @pytest.mark.parametrize(("words", "said"), BAD)
    def test_one_line_code_2_and_the_output_as_it_was(self, words, said, folder, capsys):
        write_bad_files(folder)
        for out in ("kept.csv", "kept.npy"):
            folder.joinpath(out).write_text("mine")
            before = sorted(folder.iterdir())
            assert call("complete", *words.split(), "--out", out, "--steps", "2") == 2
            shown = capsys.readouterr()
            assert shown.err.startswith("tensornet: error: ")
            assert said in shown.err
            assert shown.err.count("\n") == 1
            assert sorted(folder.iterdir()) == before
            assert folder.joinpath(out).read_text() == "mine"

    @pytest.mark.parametrize(
        ("out", "said"),
        [
            ("absent/full.npy", "the folder absent does not exist"),
            ("full.txt", ".webp, .safetensors; got 'full.txt'"),
            ("there", "the name of a file must end in"),
            ("there.npy", "there.npy is a folder"),
            ("full.png", "a picture needs the shape"),
        ],
    )
    def test_outputs_that_cannot_be_written_are_refused_before_any_work(self, out, said, folder, monkeypatch, capsys):
        np.save("cube.npy", np.where(np.eye(4)[..., None] * np.ones(5), np.nan, 1.0))
        folder.joinpath("there.npy").mkdir()
        monkeypatch.setattr(complete, "learn", lambda *_: pytest.fail("work was done"))
        assert call("complete", "cube.npy", "--out", out) == 2
        shown = capsys.readouterr()
        assert said in shown.err
        assert shown.err.count("\n") == 1
        assert not folder.joinpath("absent").exists()

    def test_a_missing_package(self, folder, monkeypatch, capsys):
        folder.joinpath("table.parquet").write_bytes(b"PAR1")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        assert call("complete", "table.parquet", "--out", "full.csv") == 2
        assert capsys.readouterr().err == (
            "tensornet: error: the package pyarrow is needed for this; pip install '.[data]' in the project's folder installs it\n"
        )


def test_the_input_is_not_overwritten(folder, capsys):
    np.save("waves.npy", np.where(np.eye(4), np.nan, 1.0))
    before = folder.joinpath("waves.npy").read_bytes()
    assert call("complete", "waves.npy", "--out", "./waves.npy") == 2
    assert capsys.readouterr().err == "tensornet: error: --out must be another file than the one to complete; got waves.npy for both\n"
    assert folder.joinpath("waves.npy").read_bytes() == before


def test_one_length_for_two_modes_is_too_few(folder, capsys):
    np.save("waves.npy", np.where(np.eye(4), np.nan, 1.0)[None])
    assert call("complete", "waves.npy", "--out", "out.npy", "--smooth", "1,2") == 2
    assert capsys.readouterr().err == "tensornet: error: --smooth needs one length or 3, one a mode; got 2\n"
    assert not folder.joinpath("out.npy").exists()


def test_other_settings_reach_the_completer(folder):
    np.save("waves.npy", np.where(np.eye(4), np.nan, 1.0))
    changes = ["penalty=0", "init_scale=1e-3", "optimizer=group_rmsprop", "patience=7"]
    options = [part for change in changes for part in ("--set", change)]
    assert call("complete", "waves.npy", "--out", "out.npy", "--run", "run", "--steps", "2", *options) == 0
    config = json.loads(folder.joinpath("run", "config.json").read_text())
    assert [config[name] for name in ("penalty", "init_scale", "optimizer", "patience")] == [0.0, 1e-3, "group_rmsprop", 7]


class TestInterruption:
    def test_the_best_so_far_is_written(self, waves, monkeypatch, capsys):
        interrupted_at(monkeypatch, 17)
        assert call("complete", "waves.npy", "--out", "full.npy", *QUICK) == 130
        assert "Interrupted after 17 steps; the best state, of step " in capsys.readouterr().out
        full = np.load("full.npy")
        assert np.array_equal(full[~HOLES], WAVES[~HOLES])
        assert np.isfinite(full).all()

    def test_before_the_first_step_nothing_is_lost(self, waves, monkeypatch, capsys):
        waves.joinpath("full.npy").write_text("mine")
        interrupted_at(monkeypatch, 0)
        assert call("complete", "waves.npy", "--out", "full.npy", *QUICK) == 130
        assert capsys.readouterr().out.endswith("Nothing was learned, and nothing is written.\n")
        assert waves.joinpath("full.npy").read_text() == "mine"

    def test_while_writing_nothing_is_lost(self, waves, monkeypatch, capsys):
        waves.joinpath("full.npy").write_text("mine")
        monkeypatch.setattr(np, "save", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call("complete", "waves.npy", "--out", "full.npy", *QUICK) == 130
        assert capsys.readouterr().err == "tensornet: interrupted\n"
        assert waves.joinpath("full.npy").read_text() == "mine"
        assert sorted(path.name for path in waves.iterdir()) == ["full.npy", "waves.npy"]

    @pytest.mark.parametrize("stop", [0, 1, 17])
    @pytest.mark.parametrize(("error", "seconds"), [(KeyboardInterrupt, 9.0), (MemoryError("crash"), 0.0), (MemoryError("crash"), 9.0)])
    def test_a_resumed_run_gives_the_same_bits(self, stop, error, seconds, waves, monkeypatch, capsys):
        monkeypatch.setattr(learning, "SECONDS", seconds)  # between checkpoints
        assert call("complete", "waves.npy", "--out", "whole.npy", "--run", "whole", *QUICK) == 0
        with monkeypatch.context() as patched:
            interrupted_at(patched, stop, error)
            assert call("complete", "waves.npy", "--out", "parts.npy", "--run", "parts", *QUICK) == (
                130 if error is KeyboardInterrupt else 2
            )
        assert call("complete", "waves.npy", "--out", "parts.npy", "--run", "parts", *QUICK) == 0
        assert np.array_equal(np.load("parts.npy"), np.load("whole.npy"))
        for name in ("metrics.jsonl", "summary.json", "config.json"):
            assert waves.joinpath("parts", name).read_text() == waves.joinpath("whole", name).read_text()
        capsys.readouterr()
        assert call("complete", "waves.npy", "--out", "again.npy", "--run", "whole", *QUICK) == 0  # nothing is left to be done
        steps = read_json(waves.joinpath("whole", "summary.json"))["steps"]
        assert f"Continuing at step {steps}.\n" in capsys.readouterr().out
        assert np.array_equal(np.load("again.npy"), np.load("whole.npy"))

    def test_a_run_of_other_data_or_parameters_is_not_continued(self, waves, capsys):
        np.save("other.npy", np.where(HOLES, np.nan, 2 * WAVES))
        assert call("complete", "waves.npy", "--out", "full.npy", "--run", "run", *QUICK) == 0
        before = {path: path.read_bytes() for path in waves.joinpath("run").iterdir()}
        capsys.readouterr()
        for words, differs in (("waves.npy --seed 1", "seed = 0, got 1"), ("other.npy", "entries = ")):
            assert call("complete", *words.split(), "--out", "none.npy", "--run", "run", *QUICK) == 2
            said = capsys.readouterr().err
            assert "a run is resumed with the configuration it was begun with" in said
            assert differs in said
        assert {path: path.read_bytes() for path in waves.joinpath("run").iterdir()} == before
        assert not waves.joinpath("none.npy").exists()

    def test_a_damaged_checkpoint(self, waves, capsys):
        assert call("complete", "waves.npy", "--out", "full.npy", "--run", "run", *QUICK) == 0
        checkpoint = waves.joinpath("run", "checkpoint.safetensors")
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
        capsys.readouterr()
        assert call("complete", "waves.npy", "--out", "none.npy", "--run", "run", *QUICK) == 2
        said = capsys.readouterr().err
        assert "checkpoint.safetensors is no file of tensornet, or truncated" in said
        assert said.count("\n") == 1
