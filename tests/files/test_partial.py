"""Partly known tensors in files: every format, what NaN and masks mean, and files that are refused."""

from __future__ import annotations

import math
import pickle
import zipfile

import numpy as np
import pytest
import torch

from tensornet.files import partial, pictures, tables
from tensornet.files.partial import Partial, check_output, read, write, write_entries

GAPS = np.array([[1.0, np.nan, -3.0], [np.nan, 0.0, 6.0]])
LISTED = [[0, 0], [0, 2], [1, 1], [1, 2]]


def stored(path, array):
    """Writes without this library."""
    np.savez_compressed(path, array) if path.suffix == ".npz" else np.save(path, array)
    return path


def dense(partial):
    """The array with NaN where nothing is known."""
    array = np.full(partial.sizes, np.nan, partial.values.dtype)
    array[tuple(partial.indices.T)] = partial.values
    return array


class TestArrays:
    @pytest.mark.parametrize("suffix", partial.ARRAYS)
    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.float64, ">f8", np.complex64])
    def test_numbers_of_every_kind(self, tmp_path, suffix, dtype):
        array = np.arange(12).reshape(2, 3, 2).astype(dtype)
        found = read(stored(tmp_path / f"a{suffix}", np.asfortranarray(array)))
        assert (found.kind, found.sizes, found.names, found.wanted) == ("array", (2, 3, 2), (), None)
        assert found.values.dtype == (np.complex128 if dtype is np.complex64 else np.float64)
        assert np.array_equal(dense(found), array)
        assert found.indices.tolist() == np.argwhere(np.ones_like(array)).tolist()

    def test_nan_is_missing(self, tmp_path):
        found = read(stored(tmp_path / "a.npy", GAPS))
        assert found.indices.tolist() == LISTED
        assert found.values.tolist() == [1.0, -3.0, 0.0, 6.0]
        assert found.missing().tolist() == [[0, 1], [1, 0]]
        assert np.array_equal(found.fill(np.full((2, 3), 9.0)), np.nan_to_num(GAPS, nan=9.0))
        half_missing = np.array([1 + 1j, complex(math.nan, 0), complex(0, math.nan)])
        assert read(stored(tmp_path / "a.npy", half_missing)).indices.tolist() == [[0]]

    @pytest.mark.parametrize("dtype", [bool, np.int32, np.float32])
    def test_a_mask_hides_entries(self, tmp_path, dtype):
        mask = stored(tmp_path / "mask.npz", np.array([[1, 1, 0], [1, 1, 1]], dtype=dtype))
        assert read(stored(tmp_path / "a.npy", GAPS), mask).indices.tolist() == [[0, 0], [1, 1], [1, 2]]

    def test_a_mask_of_the_first_axes_hides_what_lies_behind(self, tmp_path):
        found = read(stored(tmp_path / "a.npy", np.ones((3, 3, 4))), stored(tmp_path / "mask.npy", np.array([0, 1, 0])))
        assert found.indices[:, 0].tolist() == [1] * 12

    def test_nan_in_a_mask_is_missing_and_all_else_but_0_is_known(self, tmp_path):
        mask = stored(tmp_path / "mask.npy", np.array([np.nan, 0.0, -2.0, np.inf, 1e-300]))
        assert read(stored(tmp_path / "a.npy", np.ones(5)), mask).indices.tolist() == [[2], [3], [4]]

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.full((2, 2), np.nan), "all entries are missing; at least one must be known"),
            (np.array([[1.0, np.inf]]), r"known entries must be finite; got inf at \(0, 1\)"),
            (np.array(["a", "b"]), "an array of numbers is needed; got the dtype <U1"),
            (np.array([(1, 2.0)], dtype="i4,f8"), "an array of numbers is needed; got the dtype"),
            (np.array(["2020-01-01"], dtype="M8[D]"), "an array of numbers is needed; got the dtype"),
            (np.array(1.0), r"an array with axes and entries is needed; got the shape \(\)"),
            (np.zeros((2, 0)), r"an array with axes and entries is needed; got the shape \(2, 0\)"),
        ],
    )
    def test_bad_arrays(self, tmp_path, array, message):
        with pytest.raises(ValueError, match=rf"a\.npy: {message}"):
            read(stored(tmp_path / "a.npy", array))

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.ones((1, 3)), r"a\.npy: a mask needs the shape of the array or of its first axes; got \(1, 3\) for \(2, 3\)"),
            (np.ones(3), r"a\.npy: a mask needs the shape .*; got \(3,\) for \(2, 3\)"),
            (np.ones((2, 3, 1)), r"a\.npy: a mask needs the shape .*; got \(2, 3, 1\) for \(2, 3\)"),
            (np.zeros((2, 3)), r"a\.npy: all entries are missing"),
            (np.array(["a"]), r"mask\.npy: a mask needs numbers or booleans; got the dtype <U1"),
            (np.ones((2, 3), dtype=complex), r"mask\.npy: a mask needs numbers or booleans; got the dtype complex128"),
        ],
    )
    def test_bad_masks(self, tmp_path, mask, message):
        with pytest.raises(ValueError, match=message):
            read(stored(tmp_path / "a.npy", GAPS), stored(tmp_path / "mask.npy", mask))

    def test_masks_are_no_tables_and_tables_take_none(self, tmp_path):
        (tmp_path / "a.csv").write_text("0,1\n")
        stored(tmp_path / "a.npy", GAPS)
        with pytest.raises(ValueError, match=r"a\.csv: a mask is an array or a picture"):
            read(tmp_path / "a.npy", tmp_path / "a.csv")
        with pytest.raises(ValueError, match=r"a\.csv: a table takes no mask; leave missing entries out"):
            read(tmp_path / "a.csv", tmp_path / "a.npy")
        with pytest.raises(FileNotFoundError, match=r"absent\.png"):
            read(tmp_path / "a.npy", tmp_path / "absent.png")


class TestTables:
    @pytest.mark.parametrize("suffix", tables.SUFFIXES)
    def test_rows_without_a_value_are_wanted(self, tmp_path, suffix):
        write_entries(tmp_path / f"a{suffix}", np.array([[4, 0], [0, 9], [1, 1]]), np.array([2.5, np.nan, -1.0]), ["user", "item", "stars"])
        found = read(tmp_path / f"a{suffix}")
        assert (found.kind, found.sizes, found.names) == ("table", (5, 10), ("user", "item", "stars"))
        assert (found.indices.tolist(), found.values.tolist()) == ([[4, 0], [1, 1]], [2.5, -1.0])
        assert found.missing().tolist() == [[0, 9]]

    def test_rows_that_are_not_there_are_missing(self, tmp_path):
        (tmp_path / "a.csv").write_text("0,0,1\n1,1,2\n")
        found = read(tmp_path / "a.csv")
        assert found.wanted is None
        assert found.missing().tolist() == [[0, 1], [1, 0]]

    def test_too_many_missing_entries_are_not_listed(self, tmp_path):
        (tmp_path / "a.csv").write_text("99999,99999,1\n")
        with pytest.raises(ValueError, match="a tensor of 100000 x 100000 has too many missing entries to be listed"):
            read(tmp_path / "a.csv").missing()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "the file is empty"),
            ("a,b\n0,\n", "all entries are missing"),
            ("0,1\n1,inf\n", r"known entries must be finite; got inf at \(1,\)"),
            ("0,x\ny,1\n", "numbers are needed; got 'y' in line 2"),
        ],
    )
    def test_bad_tables(self, tmp_path, text, message):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match=rf"a\.csv: {message}"):
            read(tmp_path / "a.csv")


class TestPictures:
    Image = pytest.importorskip("PIL.Image")

    def transparent(self, path, size=(4, 4)):
        """White, and transparent in its first row."""
        pixels = np.full((*size, 4), 255, np.uint8)
        pixels[0, :, 3] = 0
        self.Image.fromarray(pixels).save(path)
        return path

    @pytest.mark.parametrize("colours", [(), (3,)])
    def test_modes_are_rows_columns_and_channels(self, tmp_path, colours):
        pixels = np.arange(12 * math.prod(colours)).reshape(3, 4, *colours)
        pictures.write_picture(tmp_path / "a.png", pixels)
        found = read(tmp_path / "a.png")
        assert (found.kind, found.sizes) == ("picture", (3, 4, *colours))
        assert np.array_equal(dense(found), pixels)

    def test_transparent_pixels_are_missing(self, tmp_path):
        found = read(self.transparent(tmp_path / "a.png"))
        assert found.sizes == (4, 4, 3)
        assert (found.indices[:, 0] > 0).all()
        assert len(found.values) == 3 * 4 * 3

    @pytest.mark.parametrize(
        ("mask", "kept"),
        [
            (np.ones((4, 4, 3)), [0, 12, 12, 12]),
            (np.array([1, 1, 0, 0]), [0, 12, 0, 0]),
            (np.eye(4), [0, 3, 3, 3]),
            (np.concatenate([np.ones((4, 4, 1)), np.zeros((4, 4, 2))], 2), [0, 4, 4, 4]),
        ],
    )
    def test_masks_hide_more_than_transparency(self, tmp_path, mask, kept):
        found = read(self.transparent(tmp_path / "a.png"), stored(tmp_path / "mask.npy", mask))
        assert np.bincount(found.indices[:, 0], minlength=4).tolist() == kept

    def test_masks_of_another_size_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"a\.png: a mask needs the shape .*; got \(1, 4\) for \(4, 4, 3\)"):
            read(self.transparent(tmp_path / "a.png"), stored(tmp_path / "mask.npy", np.ones((1, 4))))

    def test_a_picture_as_a_mask(self, tmp_path):
        pictures.write_picture(tmp_path / "mask.png", np.array([[0, 255, 255], [255, 255, 100]]))
        assert read(stored(tmp_path / "a.npy", GAPS), tmp_path / "mask.png").indices.tolist() == [[0, 2], [1, 1]]
        pictures.write_picture(tmp_path / "a.png", np.full((2, 3, 3), 7.0))
        assert len(read(tmp_path / "a.png", tmp_path / "mask.png").values) == 4 * 3

    def test_a_share_of_a_picture_is_of_whole_pixels(self):
        picture = Partial.of_array(np.zeros((6, 5, 3)), kind="picture")
        chosen = picture.chosen(0.3, 0)
        assert chosen.sum() == 9 * 3
        assert len(np.unique(picture.indices[chosen][:, :2], axis=0)) == 9
        assert np.array_equal(chosen, picture.chosen(0.3, 0))
        assert not np.array_equal(chosen, picture.chosen(0.3, 1))


@pytest.mark.parametrize("share", [1e-9, 0.5, 1.0])
def test_a_share_has_at_least_one_entry(share):
    assert Partial.of_array(GAPS).chosen(share, 0).sum() == max(1, round(4 * share))


class TestWriting:
    @pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.NPY", "a.NPZ", "a.png", "a.TIF", "a.tiff", "a.bmp"])
    def test_round_trip(self, tmp_path, name):
        array = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(float)
        write(tmp_path / name, array)
        assert np.array_equal(dense(read(tmp_path / name)), array)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("dtype", [np.float32, np.complex128])
    def test_numpy_reads_the_arrays(self, tmp_path, dtype):
        array = np.arange(6, dtype=dtype).reshape(2, 3)
        write(tmp_path / "a.npy", array)
        found = np.load(tmp_path / "a.npy")
        assert (found.dtype, found.tolist()) == (dtype, array.tolist())

    def test_objects_are_refused(self, tmp_path):
        stored(tmp_path / "a.npy", GAPS)
        with pytest.raises(ValueError, match="Object arrays cannot be saved when allow_pickle=False"):
            write(tmp_path / "a.npy", np.array([object()]))
        assert np.array_equal(np.load(tmp_path / "a.npy"), GAPS, equal_nan=True)

    @pytest.mark.parametrize("action", [lambda path, array: check_output(path, array.shape), write])
    def test_bad_outputs(self, tmp_path, action):
        for name in ("a.txt", "a", ".npy", "a.pt"):
            with pytest.raises(ValueError, match=r"the name of a file must end in \.npy, .*\.webp; got"):
                action(tmp_path / name, GAPS)
        for shape in ((4,), (2, 2, 4), (2, 2, 3, 3)):
            with pytest.raises(ValueError, match=r"a picture needs the shape \(rows, columns\) or \(rows, columns, 3\); got .* for a\.png"):
                action(tmp_path / "a.png", np.zeros(shape))
        with pytest.raises(FileNotFoundError, match=r"the folder .*absent does not exist"):
            action(tmp_path / "absent" / "a.npy", GAPS)
        (tmp_path / "folder.npy").mkdir()
        with pytest.raises(IsADirectoryError, match=r"a file is to be written, but .*folder\.npy is a folder"):
            action(tmp_path / "folder.npy", GAPS)
        assert [path.name for path in tmp_path.iterdir()] == ["folder.npy"]


class Touch:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


class TestBadFiles:
    @pytest.mark.parametrize("suffix", partial.ARRAYS)
    @pytest.mark.parametrize(
        ("store", "message"),
        [
            (lambda path, obj: stored(path, np.array([obj], dtype=object)), "Object arrays cannot be loaded"),
            (lambda path, obj: path.write_bytes(pickle.dumps(obj)), "no NumPy file$"),
            (lambda path, obj: torch.save(obj, path), "one array is needed; got"),
        ],
    )
    def test_nothing_is_unpickled(self, tmp_path, suffix, store, message):
        store(tmp_path / f"a{suffix}", Touch(tmp_path / "touched"))
        with pytest.raises(ValueError, match=rf"a{suffix}: {message}"):
            read(tmp_path / f"a{suffix}")
        assert not (tmp_path / "touched").exists()

    def test_other_suffixes(self, tmp_path):
        torch.save(torch.ones(1), tmp_path / "a.pt")
        with pytest.raises(ValueError, match=r"the name of a file must end in \.npy, .*; got 'a\.pt'"):
            read(tmp_path / "a.pt")

    def test_archives_of_other_things(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("readme.txt", "no array")
        with pytest.raises(ValueError, match=r"a\.npz: no NumPy file, but an archive of other data"):
            read(tmp_path / "a.npz")
        np.savez(tmp_path / "b.npz", first=GAPS, second=GAPS)
        with pytest.raises(ValueError, match=r"b\.npz: one array is needed; got 2 \(first, second\)"):
            read(tmp_path / "b.npz")

    @pytest.mark.parametrize("suffix", partial.SUFFIXES)
    @pytest.mark.parametrize(("content", "message"), [(b"", "the file is empty"), (b"\xffjust text\n", "no ")])
    def test_empty_and_foreign_files(self, tmp_path, suffix, content, message):
        (tmp_path / f"a{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match=rf"a{suffix}: {message}"):
            read(tmp_path / f"a{suffix}")

    @pytest.mark.parametrize("suffix", partial.ARRAYS)
    def test_truncated_and_damaged_arrays(self, tmp_path, suffix):
        whole = stored(tmp_path / f"whole{suffix}", np.random.default_rng(0).standard_normal((8, 9))).read_bytes()
        rng, path, errors = np.random.default_rng(1), tmp_path / f"a{suffix}", []
        for length in range(1, len(whole), 40):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=rf"a{suffix}: .*"):
                read(path)
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[rng.integers(min(len(whole), 200))] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                read(path)  # a damaged number may be a number still
            except ValueError as error:
                errors.append(str(error))
        assert len(errors) > 50
        assert all(f"a{suffix}: " in text and "\n" not in text for text in errors)

    @pytest.mark.parametrize("suffix", partial.SUFFIXES)
    def test_missing_files_and_folders(self, tmp_path, suffix):
        with pytest.raises(FileNotFoundError, match=f"a{suffix}"):
            read(tmp_path / f"a{suffix}")
        (tmp_path / f"a{suffix}").mkdir()
        with pytest.raises(IsADirectoryError, match=f"a{suffix}"):
            read(tmp_path / f"a{suffix}")
