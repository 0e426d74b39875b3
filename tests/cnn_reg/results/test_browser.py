"""The pages in a real browser, of the extra ``browser``, at the width of a phone and of a screen."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from run_cases import made_run, made_study

from cnn_reg.cli import main
from cnn_reg.config import Config
from cnn_reg.results.listings import LISTING
from cnn_reg.sweeps.grids import named_grid
from cnn_reg.sweeps.sweep import write_listing
from tensornet.files.storage import write_json

PROGRAM = Path(__file__).parent.parent.parent / "browser_program.py"
LONG = "a-name-without-any-place-to-break-" * 6

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("PySide6") is None, reason="needs a browser, of the extra of this name"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of a trained run, one of a sweep with missing and failed runs, and one of runs with unusual names."""
    folder = tmp_path_factory.mktemp("pages")
    fields = ("train_images=48", "test_images=32", "image_size=40", "width=0.125", "batch_size=8", "path_length=3")
    options = [part for field in fields for part in ("--set", field)]
    assert main(["train", *options, "--epochs", "2", "--coefficient", "1", "--out", str(folder / "run")]) == 0
    grid = named_grid("fig6-pathfinder", "small")
    write_listing(folder / "sweep", grid, grid.labelled())
    made_study(folder / "sweep")
    made_run(folder / "sweep" / "failed", Config(seed=7), epochs=2, finished=False)
    write_json(folder / "sweep" / "failed" / "failure.json", {"reason": f"<script>document.title = 'x'</script> {LONG}"})
    made_run(folder / "odd" / LONG, Config(), epochs=1, finished=False)
    assert (folder / "sweep" / LISTING).exists()
    for name in ("run", "sweep", "odd"):
        assert main(["report", str(folder / name), "--out", str(folder / f"{name}.html")]) == 0
    return folder


def look(page, width):
    """What the browser sees of a page."""
    out = page.with_suffix(f".{width}.json")
    command = [sys.executable, str(PROGRAM), str(page), str(width), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert out.exists(), done.stderr
    return json.loads(out.read_text())


def test_the_browser_sees_what_is_wrong(tmp_path):
    page = tmp_path / "wrong.html"
    page.write_text(
        '<!DOCTYPE html><title>wrong</title><img alt="remote" src="http://127.0.0.1:9/x.png"><div style="width: 600px">wide</div>'
        '<script>console.error("oops")</script><a href="#nowhere">nowhere</a>'
    )
    seen = look(page, 390)
    assert seen["requests"] == [page.as_uri(), "http://127.0.0.1:9/x.png"]
    assert "oops" in seen["said"][0]
    assert (seen["images"], seen["beyond"], seen["injected"], seen["missing"]) == ([["remote", False]], ["DIV"], 1, 1)
    assert seen["page"] > 390


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("name", "images"), [("run", 10), ("sweep", 1), ("odd", 1)])
def test_a_page_in_a_browser(pages, name, images, width):
    page = pages / f"{name}.html"
    seen = look(page, width)
    assert seen["requests"] == [page.as_uri()], "nothing but the page itself is asked for"
    assert seen["said"] == [], "no errors on the console"
    assert seen["title"] in page.read_text(encoding="utf-8").partition("<title>")[2].partition("</title>")[0]
    assert seen["window"] == width
    assert seen["page"] <= width
    assert seen["beyond"] == [], "nothing reaches beyond the right border"
    assert len(seen["images"]) >= images
    assert all(loaded and text for text, loaded in seen["images"])
    assert seen["injected"] == 0
    assert seen["missing"] == 0, "all links within the page lead somewhere"
