"""Files: round trips of nested data and factorizations, nothing half written, nothing but data read."""

from __future__ import annotations

import json
import pickle
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tensornet.files import partial
from tensornet.files.objects import load, save
from tensornet.files.storage import FORMAT, _checksum, read_json, read_nested, replacing, write_json, write_nested
from tensornet.htf import HTF
from tensornet.tree import ModeTree


def assert_same(first, second):
    """Equal in value and type, all the way down."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for pair in zip(first, second):
            assert_same(*pair)
    else:
        assert first == second


class TestNested:
    @pytest.mark.parametrize(
        "data",
        [
            None,
            [],
            {},
            (),
            {"": [(), {}, [[]], ({},)]},
            {0: "zero", True: 1.5, None: False, (1, (2, "a")): [-(10**30), 1e-320, float("inf")]},
            {"tuple": {"dict": 1}, "tensor": "0", "complex": ["ü\u2028\n"]},  # names of the format's own
            torch.tensor(3.5),
            torch.zeros(0, 4),
        ],
    )
    def test_round_trip(self, tmp_path, data):
        write_nested(tmp_path / "a.safetensors", data, kind="state")
        assert_same(read_nested(tmp_path / "a.safetensors", kind="state"), data)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float16, torch.float32, torch.complex64])
    def test_round_trip_of_a_dtype(self, tmp_path, dtype):
        values = torch.arange(6).reshape(2, 3).to(dtype)
        data = [values, values.T, values[:, ::2], values[0, 1], values[:0], values.expand(4, 2, 3)]
        write_nested(tmp_path / "a.safetensors", data, kind="state")
        assert_same(read_nested(tmp_path / "a.safetensors", kind="state"), data)

    def test_lazy_conjugates_and_negatives(self, tmp_path):
        values = torch.randn(3, dtype=torch.complex128)
        write_nested(tmp_path / "a.safetensors", [values.conj(), values.conj().imag], kind="state")
        assert_same(read_nested(tmp_path / "a.safetensors", kind="state"), [values.conj().resolve_conj(), -values.imag])

    def test_a_tensor_that_occurs_twice_is_written_once(self, tmp_path):
        path, values = tmp_path / "a.safetensors", torch.randn(1000, requires_grad=True)
        write_nested(path, {"first": values, "again": [values]}, kind="state")
        found = read_nested(path, kind="state")
        assert found["first"] is found["again"][0]
        assert path.stat().st_size < 2 * 4 * values.numel()
        assert not found["first"].requires_grad

    @pytest.mark.parametrize("wrong", [object(), np.ones(2), {1, 2}, b"bytes", 1j])
    def test_other_things_are_refused_before_anything_is_written(self, tmp_path, wrong):
        path = tmp_path / "a.safetensors"
        write_nested(path, 1, kind="state")
        with pytest.raises(TypeError, match=f"only tensors, numbers, strings .* can be written; got {type(wrong).__name__}"):
            write_nested(path, {"a": [wrong]}, kind="state")
        assert read_nested(path, kind="state") == 1


class Touch:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


class TestBadFiles:
    @pytest.mark.parametrize("write", [lambda path, obj: path.write_bytes(pickle.dumps(obj)), lambda path, obj: torch.save([obj], path)])
    def test_pickles_are_refused_unopened(self, tmp_path, write):
        write(tmp_path / "a.safetensors", Touch(tmp_path / "touched"))
        with pytest.raises(ValueError, match=r"a\.safetensors is no file of tensornet, or truncated"):
            load(tmp_path / "a.safetensors")
        assert not (tmp_path / "touched").exists()

    def test_truncated_anywhere(self, tmp_path):
        save(tmp_path / "whole.safetensors", HTF(ModeTree.star(3)))
        whole, path = (tmp_path / "whole.safetensors").read_bytes(), tmp_path / "a.safetensors"
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"a\.safetensors is no file of tensornet, or truncated \(.*\)$"):
                load(path)

    @pytest.mark.parametrize("seed", range(5))
    def test_damage_is_never_another_error(self, tmp_path, seed):
        rng, path = np.random.default_rng(seed), tmp_path / "a.safetensors"
        save(path, HTF(ModeTree.star(3)))
        whole, errors = path.read_bytes(), []
        for _ in range(100):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] = rng.integers(256)
            path.write_bytes(damaged)
            if damaged != whole:
                with pytest.raises(ValueError, match=r"a\.safetensors") as error:
                    load(path)
                errors.append(str(error.value))
        assert len(errors) > 90
        assert not any("\n" in text for text in errors)

    @pytest.mark.parametrize(
        ("header", "structure", "message"),
        [
            (None, None, "is a safetensors file, but not one of tensornet's"),
            ("[]", "[]", "is a safetensors file, but not one of tensornet's"),
            ('{"format": Infinity, "kind": "HTF"}', "[]", "is a safetensors file, but not one of tensornet's"),
            ({"format": FORMAT}, "[]", "is a safetensors file, but not one of tensornet's"),
            ({"format": FORMAT, "kind": "HTF"}, "[", "is a safetensors file, but not one of tensornet's"),
            ({"format": FORMAT + 1, "kind": "HTF"}, "[]", f"has format {FORMAT + 1}; this version .* reads format {FORMAT}"),
            ('{"format": 1, "kind": "HTF"}', "[]", f"has format 1; this version .* reads format {FORMAT}"),
            ({"format": FORMAT, "kind": "HTF"}, '{"eval": "1"}', r"is damaged \(unknown entry 'eval'\)"),
            ({"format": FORMAT, "kind": "HTF"}, '{"tensor": "5"}', "is damaged"),
            ({"format": FORMAT, "kind": "HTF"}, '{"dict": [[[1], 2]]}', "is damaged"),
            ({"format": FORMAT, "kind": "HTF"}, "[" * 5000 + "]" * 5000, "is damaged|not one of tensornet's"),
            ({"format": FORMAT, "kind": "HTF"}, "[]", "is damaged"),
        ],
    )
    def test_foreign_and_damaged_structures(self, tmp_path, header, structure, message):
        tensors = {"0": torch.ones(2)}
        if isinstance(header, dict):
            header = json.dumps({**header, "checksum": _checksum(header["format"], header.get("kind"), structure, tensors)})
        metadata = None if header is None else {"tensornet": header, "structure": structure}
        save_file(tensors, tmp_path / "a.safetensors", metadata)
        with pytest.raises(ValueError, match=rf"a\.safetensors {message}"):
            load(tmp_path / "a.safetensors")

    @pytest.mark.parametrize(
        "change", [{"weights": [1, 2, 3]}, {"order": "2"}, {"children": [[0, 9]]}, {"pooling": []}, {"children": [5]}, {"trained": 5}]
    )
    def test_damaged_factorizations(self, tmp_path, change):
        path = tmp_path / "a.safetensors"
        save(path, HTF(ModeTree.star(2)))
        write_nested(path, {**read_nested(path, kind="HTF"), **change}, kind="HTF")
        with pytest.raises(ValueError, match=r"a\.safetensors is damaged"):
            load(path)

    @pytest.mark.parametrize("reader", [load, read_json, partial.read])
    def test_files_that_cannot_be_opened(self, tmp_path, reader):
        name = tmp_path / "a.npy"
        with pytest.raises(FileNotFoundError, match=r"a\.npy"):
            reader(name)
        name.symlink_to(name)
        with pytest.raises(OSError, match=r"a\.npy"):
            reader(name)
        name.unlink()
        name.mkdir()
        with pytest.raises(IsADirectoryError, match=r"a\.npy"):
            reader(name)

    @pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"[" * 100_000, b"a: 1"])
    def test_no_json(self, tmp_path, content):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.json is no JSON file"):
            read_json(tmp_path / "a.json")


def fail_after_writing(path, error):
    with replacing(path) as new:
        new.write_text("half")
        raise error


GREY = np.random.default_rng(0).uniform(0, 255, (80, 80))
PLACES = np.stack(np.unravel_index(np.arange(GREY.size), GREY.shape), 1)
WRITERS = {
    "a.json": lambda path: write_json(path, GREY.tolist()),
    "a.safetensors": lambda path: save(path, HTF(ModeTree.perfect(4), mode_sizes=30, ranks=20)),
    **{f"a{suffix}": lambda path: partial.write(path, GREY) for suffix in (*partial.ARRAYS, *partial.pictures.SUFFIXES)},
    **{f"a{suffix}": lambda path: partial.write_entries(path, PLACES, GREY.ravel()) for suffix in partial.tables.SUFFIXES},
}


class TestAtomicWriting:
    @pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt("stop"), OSError("stop")])
    @pytest.mark.parametrize("before", [["a.txt"], []])
    def test_a_failure_changes_nothing(self, tmp_path, error, before):
        for name in before:
            (tmp_path / name).write_text("old")
        with pytest.raises(type(error), match="stop"):
            fail_after_writing(tmp_path / "a.txt", error)
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "old") for name in before]

    @pytest.mark.parametrize("name", WRITERS)
    def test_a_full_disk_changes_nothing(self, tmp_path, name):
        """A limit on the sizes of files stops a writer half way, as a full disk does."""
        resource = pytest.importorskip("resource")
        path = tmp_path / name
        WRITERS[name](path)
        whole, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, limits[1]))
        try:
            with pytest.raises(OSError, match=rf"{name} cannot be written \(.*\)$"):
                WRITERS[name](path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == whole
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("name", WRITERS)
    def test_the_old_file_is_replaced(self, tmp_path, name):
        (tmp_path / name).write_text("old")
        WRITERS[name](tmp_path / name)
        assert (tmp_path / name).read_bytes() != b"old"
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_the_old_file_is_there_until_the_end(self, tmp_path):
        path = tmp_path / f"{'long' * 60}.tar.gz"
        path.write_text("old")
        with replacing(path) as new:
            assert (new.parent, new.suffix) == (tmp_path, ".gz")
            new.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"

    def test_a_link_stays_and_what_it_points_to_is_replaced(self, tmp_path):
        (tmp_path / "folder").mkdir()
        target, link = tmp_path / "folder" / "target.json", tmp_path / "a.json"
        link.symlink_to(target)
        for number in range(2):  # the first makes the target
            write_json(link, number)
            assert link.is_symlink()
            assert not target.is_symlink()
            assert read_json(target) == number
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "folder", "target.json"]

    def test_others_may_read_what_the_user_lets_them_read(self, tmp_path):
        (tmp_path / "usual").touch()
        write_json(tmp_path / "a.json", 1)
        write_nested(tmp_path / "a.safetensors", torch.ones(2), kind="ones")
        for name in ("a.json", "a.safetensors"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)

    def test_what_json_does_not_know_is_refused(self, tmp_path):
        write_json(tmp_path / "a.json", {"seed": 0})
        with pytest.raises(TypeError, match="Tensor is not JSON serializable"):
            write_json(tmp_path / "a.json", {"seed": torch.ones(1)})
        assert read_json(tmp_path / "a.json") == {"seed": 0}

    @pytest.mark.parametrize("name", WRITERS)
    def test_places_that_cannot_be_written_to(self, tmp_path, name):
        with pytest.raises(FileNotFoundError, match=r"the folder .*absent does not exist"):
            WRITERS[name](tmp_path / "absent" / name)
        (tmp_path / name).mkdir()
        with pytest.raises(IsADirectoryError, match=f"a file is to be written, but .*{name} is a folder"):
            WRITERS[name](tmp_path / name)
