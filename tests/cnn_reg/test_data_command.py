from __future__ import annotations

import pytest

from cnn_reg.cli import data, main
from cnn_reg.data import pair_file, pathfinder_file


@pytest.fixture
def run(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = stopped.code
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_pathfinder_writes_a_file_and_tells_about_it(run, tmp_path):
    out = tmp_path / "images.safetensors"
    code, shown, errors = run("data", "pathfinder", "--path-length", 3, "--num-images", 600, "--seed", 2, "--out", out, "--workers", 2)
    assert (code, errors) == (0, "")
    assert "600/600" in shown
    assert "images/s" in shown
    assert f"600 images in {out}" in shown
    assert "Distance of the circles: 26" in shown
    assert "The distance alone predicts 0.9" in shown
    found = pathfinder_file.read(out)
    assert found.config == {"path_length": 3, "num_images": 600, "seed": 2, "matched": False}


def test_matched_images_close_the_shortcut(run, tmp_path):
    code, shown, _ = run("data", "pathfinder", "--path-length", 3, "--num-images", 400, "--matched", "--out", tmp_path / "m.safetensors")
    assert code == 0
    share = float(shown.partition("The distance alone predicts ")[2].split()[0])
    assert abs(share - 0.5) < 4 * 0.5 / 200**0.5


def test_an_interrupted_command_continues(run, tmp_path, monkeypatch):
    out, real = tmp_path / "images.safetensors", pathfinder_file.generate

    def interrupted(*given, **options):
        if options["first"] == 1000:
            raise KeyboardInterrupt
        return real(*given, **options)

    line = ("data", "pathfinder", "--path-length", 5, "--num-images", 1100, "--out", out)
    monkeypatch.setattr(pathfinder_file, "generate", interrupted)
    code, shown, _ = run(*line)
    assert code == 130
    assert "Interrupted; 1000 of 1100 images are kept, and the same command continues." in shown
    assert not out.exists()
    monkeypatch.setattr(pathfinder_file, "generate", real)
    assert run(*line)[0] == 0
    assert (pathfinder_file.read(out).images(1000) == real(5, 100, first=1000).images).all()


def test_same_class_writes_pairs(run, tmp_path):
    out = tmp_path / "pairs.safetensors"
    code, shown, errors = run("data", "same-class", "--source", "random", "--split", "test", "--num-pairs", 30, "--out", out)
    assert (code, errors) == (0, "")
    assert "30 pairs of random (not CIFAR10), test pictures" in shown
    assert len(pair_file.load(out, 40)) == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data",), "the following arguments are required: COMMAND"),
        (("data", "pathfnder"), "unknown command pathfnder (did you mean pathfinder?); choose from pathfinder, same-class"),
        (("data", "pathfinder", "--out", "x"), "the following arguments are required: --path-length"),
        (
            ("data", "pathfinder", "--path-lenth", "7", "--path-length", "7", "--out", "x"),
            "unknown argument --path-lenth (did you mean --path-length?)",
        ),
        (("data", "pathfinder", "--path-length", "2", "--out", "x"), "path_length must be from 3 to 20; got 2"),
        (("data", "pathfinder", "--path-length", "99", "--out", "x"), "path_length must be from 3 to 20; got 99"),
        (("data", "pathfinder", "--path-length", "7", "--num-images", "0", "--out", "x"), "a positive integer is needed; got '0'"),
        (("data", "pathfinder", "--path-length", "7", "--out", "absent/x"), "the folder absent does not exist"),
        (("data", "same-class", "--source", "digts", "--out", "x"), "unknown source 'digts' (did you mean digits?)"),
        (
            ("data", "same-class", "--source", "random", "--split", "all", "--out", "x"),
            "unknown value of --split: all; choose from train, test",
        ),
        (("data", "same-class", "--source", "random", "--out", "absent/x"), "the folder absent does not exist"),
    ],
)
def test_bad_input_is_one_line_and_code_2(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = run(*arguments)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_foreign_files_stay_as_they_are(run, tmp_path):
    out = tmp_path / "precious.txt"
    out.write_text("precious")
    for line in (("pathfinder", "--path-length", 3), ("same-class", "--source", "random")):
        code, _, errors = run("data", *line, "--out", out)
        assert (code, errors.count("\n")) == (2, 1)
        assert "precious.txt" in errors
    assert out.read_text() == "precious"


@pytest.mark.parametrize(("package", "extra"), [("sklearn", "data"), ("mlxtend", "cnn"), ("ray", "cluster")])
def test_a_missing_package_names_the_extra(run, package, extra, tmp_path, monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(data.pair_file, "write", missing)
    code, _, errors = run("data", "same-class", "--out", tmp_path / "x")
    assert code == 2
    assert (
        errors
        == f"cnn-reg: error: the package {package} is needed for this; pip install '.[{extra}]' in the project's folder installs it\n"
    )
