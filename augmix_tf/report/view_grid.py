"""A sheet of images: originals beside their augmented views."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from augmix_tf import files
from augmix_tf.errors import require

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]

GUTTER = 6
WIDER_GUTTER = 18  # between the originals and their views
MARGIN = 12
SMALLEST_CELL = 96
LONGEST_ROW_TITLE = 200  # pixels
TEXT_SIZE = 15
INK = (40, 40, 40)


def save_views(
    path: files.PathLike, views: npt.ArrayLike, titles: Sequence[str] | None = None
) -> Path:
    """Writes a PNG with one row per image: the original, then its augmented views.

    Images with a side under 96 pixels are enlarged by an integer factor.

    Args:
        path: of the PNG, which is written atomically.
        views: float32 or uint8 [N, V, H, W, 3], 0..255; view 0 is the original.
        titles: N row titles such as class names; None: none.

    Returns:
        `path`.

    Raises:
        ArgumentError: views of another shape, or not one title per image.
        FileError: the file cannot be written.
    """
    from PIL import Image, ImageDraw

    pixels = _as_pixels(views)
    titles = [""] * len(pixels) if titles is None else list(titles)
    require(len(titles) == len(pixels), f"{len(pixels)} titles", len(titles))
    pixels = _enlarged(pixels)
    rows, columns, height, width, _ = pixels.shape
    font = _font()
    titles = [_shortened(title, font) for title in titles]

    left = MARGIN + max(round(font.getlength(title)) for title in titles)
    left += MARGIN if any(titles) else 0
    top = MARGIN + TEXT_SIZE + GUTTER
    xs = [left + i * (width + GUTTER) + (i > 0) * (WIDER_GUTTER - GUTTER) for i in range(columns)]
    ys = [top + i * (height + GUTTER) for i in range(rows)]
    sheet = Image.new("RGB", (xs[-1] + width + MARGIN, ys[-1] + height + MARGIN), "white")
    for y, row in zip(ys, pixels, strict=True):
        for x, cell in zip(xs, row, strict=True):
            sheet.paste(Image.fromarray(cell), (x, y))

    draw = ImageDraw.Draw(sheet)
    for x, name in zip(xs, _column_titles(columns), strict=True):
        _write(draw, (x + width / 2, top - GUTTER), name, font, "ms")
    for y, title in zip(ys, titles, strict=True):
        _write(draw, (left - MARGIN, y + height / 2), title, font, "rm")
    png = io.BytesIO()
    sheet.save(png, "png", optimize=True)
    files.write_bytes_atomically(path, png.getvalue())
    return Path(path)


def _as_pixels(views: npt.ArrayLike) -> Pixels:
    values = np.asarray(views)
    wanted = "views [N, V, H, W, 3] with at least one image and view"
    require(values.ndim == 5 and values.shape[-1] == 3 and values.size > 0, wanted, values.shape)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def _enlarged(pixels: Pixels) -> Pixels:
    factor = -(-SMALLEST_CELL // min(pixels.shape[2:4]))
    return pixels.repeat(factor, axis=2).repeat(factor, axis=3)


def _column_titles(columns: int) -> list[str]:
    return ["original", *(f"view {i}" for i in range(1, columns))]


def _font() -> ImageFont.FreeTypeFont:
    """The sans-serif that matplotlib brings: it has accents, Greek and Cyrillic."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", TEXT_SIZE)


def _shortened(title: str, font: ImageFont.FreeTypeFont) -> str:
    title = " ".join(title.split())
    if font.getlength(title) <= LONGEST_ROW_TITLE:
        return title
    while title and font.getlength(title + "…") > LONGEST_ROW_TITLE:
        title = title[:-1]
    return title.rstrip(" ,") + "…"


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont,
    anchor: str,
) -> None:
    draw.text(place, text, fill=INK, font=font, anchor=anchor)
