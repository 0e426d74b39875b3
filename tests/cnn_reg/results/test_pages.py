from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from run_cases import made_run, made_study

from cnn_reg.config import Config
from cnn_reg.networks import build_network
from cnn_reg.results.charts import make_charts
from cnn_reg.results.pages import pixel_image
from cnn_reg.results.records import Record, read_runs
from cnn_reg.results.run_page import run_page
from cnn_reg.results.sweep_page import sweep_page
from tensornet.files.storage import write_json

VOID = {"meta", "link", "img", "line", "polyline"}  # elements without an end
EVIL = '<script>alert("x")</script>&amp;<img src=http://a/b.png onerror=1>'


class Outline(HTMLParser):
    """Checks that elements are closed in the order in which they are opened, and keeps text and attributes."""

    def __init__(self, page):
        super().__init__()
        self.open, self.found, self.texts, self.attributes = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.attributes += attrs
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def check(page):
    """What holds for every page; its outline."""
    assert page.startswith("<!DOCTYPE html>\n")
    outline = Outline(page)
    assert not {"script", "iframe", "object", "embed", "form"} & set(outline.found)
    assert outline.found.count("img") == page.count('src="data:image/')
    for name, value in outline.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), value
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in outline.attributes
    assert "url(" not in page
    assert "@import" not in page
    ids = [value for name, value in outline.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    links = {value[1:] for name, value in outline.attributes if name == "href" and value.startswith("#")}
    assert links <= set(ids)
    assert ("viewport", "width=device-width, initial-scale=1") in [
        (dict([first, second]).get("name"), dict([first, second]).get("content"))
        for first, second in zip(outline.attributes, outline.attributes[1:])
    ]
    return outline


def test_the_page_of_many_runs(tmp_path):
    made_study(tmp_path)
    made_run(tmp_path / "late", Config(seed=9), epochs=2, finished=False)
    records = read_runs(tmp_path)
    page = sweep_page(tmp_path, records, make_charts(records))
    outline = check(page)
    assert outline.found.count("details") == 13
    assert {"67.33", "length-5-coefficient-3-seed-0", "unfinished", "2 of 150"} <= set(outline.texts)
    assert outline.found.count("img") == 1
    assert len(page) < 200_000


def test_the_curve_of_a_run_is_its_accuracies(tmp_path):
    made_run(tmp_path / "a", Config(), 0.75, epochs=3)
    records = read_runs(tmp_path)
    page = sweep_page(tmp_path, records, [])
    points = re.findall(r'<polyline points="([^"]*)"', page)[1]
    expected = [(50.0 * place, 100 - 100 * epoch["test_accuracy"]) for place, epoch in enumerate(records[0].epoch_records)]
    found = [tuple(map(float, pair.split(","))) for pair in points.split()]
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_the_page_of_a_run_without_a_checkpoint_says_so(tmp_path):
    made_run(tmp_path / "run", Config(coefficient=3, seed=1, width=0.5))
    outline = check(run_page(tmp_path / "run"))
    text = " ".join(outline.texts)
    assert "Pathfinder, resnet18: path length 7, coefficient 3, seed 1" in text
    assert "None are shown:" in text
    assert "checkpoint.safetensors" in text
    assert outline.found.count("img") == 3
    assert ("width", "0.5", "1.0") in zip(outline.texts, outline.texts[1:], outline.texts[2:])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"test_images": 1, "width": 0.125}, "at least two images"), ({"model": "run_cases:without_convolutions"}, "the model has no Conv2d")],
)
def test_what_cannot_be_measured_is_named(tmp_path, changes, reason):
    config = Config(**{"train_images": 4, "test_images": 4, "image_size": 32, **changes})
    run = made_run(tmp_path / "run", config)
    run.checkpoint({"model": build_network(config.model, 1, (32, 32), width=config.width).state_dict()})
    outline = check(run_page(run.folder))
    text = " ".join(outline.texts)
    assert f"Not measured: {reason}" in text
    assert "label " in text
    assert outline.found.count("img") == 3 + config.test_images


def test_the_page_of_a_run_that_has_no_epoch_yet(tmp_path):
    made_run(tmp_path / "run", Config(), epochs=0, finished=False)
    outline = check(run_page(tmp_path / "run"))
    assert "No epoch is finished yet." in outline.texts
    assert "img" not in outline.found


def test_a_stand_in_is_named(tmp_path):
    made_run(tmp_path / "run", Config(dataset="same-class", source="digits"))
    assert "Is Same Class, digits (not CIFAR10), resnet18" in " ".join(check(run_page(tmp_path / "run")).texts)


def test_text_is_text_whatever_it_is(tmp_path):
    folder = tmp_path / "run<b>&"
    made_run(folder, Config(model=f"a:{EVIL}"), finished=False)
    write_json(folder / "failure.json", {"reason": EVIL})
    (record,) = read_runs(tmp_path)
    assert EVIL in " ".join(check(run_page(folder)).texts)
    outline = check(sweep_page(tmp_path, [record], make_charts([record])))
    assert "run<b>&" in outline.texts
    assert EVIL in outline.texts


def test_a_page_needs_a_configuration(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is no configuration of a training"):
        run_page(tmp_path)


def test_pixels_of_a_picture_are_kept():
    for picture in (np.arange(256, dtype=np.uint8).reshape(16, 16), np.random.default_rng(0).integers(256, size=(4, 6, 3), dtype=np.uint8)):
        image = pixel_image(picture, "what", "caption")
        read = imread(io.BytesIO(base64.b64decode(image.data.partition(",")[2])), format="png")
        expected = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        np.testing.assert_allclose(255 * read[..., :3], expected, atol=0.5)


def test_records_without_configuration_have_a_line(tmp_path):
    outline = check(sweep_page(tmp_path, [Record(Path(tmp_path / "bad"), "unreadable", "is no JSON file")], []))
    assert outline.texts.count("is no JSON file") == 2
