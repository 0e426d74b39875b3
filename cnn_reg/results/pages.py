"""HTML pages in one file each: templates filled with escaped text, pictures as data inside. Nothing in them is executed or fetched."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn_reg.figures import Panel
from cnn_reg.results.tables import shown
from tensornet import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL = (4.2, 3.1)  # inches


class Image(NamedTuple):
    """A picture in a page.

    Attributes:
        data: As a ``data:`` address.
        text: What it shows, in words.
        caption: Below it.
        pixels: Whether it is an image of a data set, which gets a border.
    """

    data: str
    text: str
    caption: str = ""
    pixels: bool = False


def figure_image(figure: Figure, text: str) -> Image:
    """A figure of matplotlib as a vector picture.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure_image(Figure(), "nothing").data[:26]
        'data:image/svg+xml;base64,'
    """
    written = io.BytesIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return Image(f"data:image/svg+xml;base64,{base64.b64encode(written.getvalue()).decode()}", text)


def panel_image(panel: Panel, text: str) -> Image:
    """A single panel as a vector picture.

    Example:
        >>> panel_image(lambda axes: axes.plot([1, 2]), "a line").text
        'a line'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=PANEL, layout="constrained")
    panel(figure.subplots())
    return figure_image(figure, text)


def pixel_image(picture: NDArray[np.uint8], text: str, caption: str) -> Image:
    """Pixels as a picture.

    Args:
        picture: ``(rows, columns)`` or ``(rows, columns, 3)``.
        text: What it shows.
        caption: Below it.

    Example:
        >>> pixel_image(np.zeros((2, 2), dtype=np.uint8), "black", "").data[:22]
        'data:image/png;base64,'
    """
    from matplotlib.image import imsave

    written = io.BytesIO()
    imsave(written, picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2), format="png")
    return Image(f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}", text, caption, pixels=True)


def render(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: Name of a file in the folder ``templates``.
        values: What is filled in; text is escaped.

    Example:
        >>> from cnn_reg.results.tables import Table
        >>> page = render("sweep.html", title="a < b", folder="runs", facts=[], charts=[], runs=Table((), ()), links={}, each=[])
        >>> "<h1>a &lt; b</h1>" in page
        True
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("cnn_reg.results")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = shown
    return environment.get_template(template).render(version=__version__, **values)
