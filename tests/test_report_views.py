"""Sheets of images beside their augmented views."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augmix_tf.errors import ArgumentError
from augmix_tf.report import view_grid

WHITE = 255


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def some_views(rows=2, columns=3, height=20, width=50) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 250, (rows, columns, height, width, 3)).astype(np.float32)


def corners_of(sheet: np.ndarray, cell: np.ndarray) -> list[tuple[int, int]]:
    """Row and column of the corner of an image in a sheet, wherever it occurs."""
    height, width, _ = cell.shape
    corners = np.argwhere((sheet == cell[0, 0]).all(axis=-1))
    return [
        (y, x)
        for y, x in corners.tolist()
        if np.array_equal(sheet[y : y + height, x : x + width], cell)
    ]


def test_views_stand_in_a_grid_enlarged_by_a_whole_factor(tmp_path):
    views = some_views()
    sheet = pixels(view_grid.save_views(tmp_path / "new" / "views.png", views, ["cat", "dog"]))
    cells = np.rint(views).astype(np.uint8).repeat(5, axis=2).repeat(5, axis=3)  # 20 -> 100 pixels
    found = [[corners_of(sheet, cell) for cell in row] for row in cells]
    assert all(len(places) == 1 for row in found for places in row)
    places = np.array(found)[:, :, 0]
    assert len(set(places[:, 0, 1])) == 1  # one column below the other
    assert (np.diff(places[:, :, 0], axis=1) == 0).all()  # and one row beside the other
    assert (np.diff(places[:, :, 0], axis=0) == 100 + 6).all()
    assert (np.diff(places[:, :, 1], axis=1) == [250 + 18, 250 + 6]).all()
    gutter = places[0, 1, 1] - 10
    assert (sheet[:, gutter] == WHITE).all()


def test_titles_are_written_beside_and_above(tmp_path):
    views = np.full((2, 3, 32, 32, 3), 255.0, np.float32)  # white on white: text alone is seen
    named = pixels(view_grid.save_views(tmp_path / "named.png", views, ["café", "x" * 500]))
    plain = pixels(view_grid.save_views(tmp_path / "plain.png", views))
    assert named.shape[0] == plain.shape[0]
    assert 150 < named.shape[1] - plain.shape[1] < 230  # the long title is cut
    margin = named.shape[1] - plain.shape[1]
    rows_with_ink = np.flatnonzero((named[:, :margin] < 128).any(axis=(1, 2)))
    assert rows_with_ink.min() > 60  # row titles stand beside the middle of their images
    assert (plain[30:] == WHITE).all()
    assert (plain[:30] < 128).any()  # column titles


def test_large_images_keep_their_size_and_values_are_clipped(tmp_path):
    views = np.zeros((1, 1, 96, 120, 3), np.float32)
    views[..., 0], views[..., 1], views[..., 2] = -20.0, 99.6, 300.0
    sheet = pixels(view_grid.save_views(tmp_path / "views.png", views))
    assert (sheet == [0, 100, 255]).all(axis=-1).sum() == 96 * 120


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (0, 3, 4, 5, 3), (2, 3, 4, 5, 1)])
def test_views_of_another_shape_are_refused(tmp_path, shape):
    with pytest.raises(ArgumentError, match=r"Expected views .*; received"):
        view_grid.save_views(tmp_path / "views.png", np.zeros(shape))
    assert list(tmp_path.iterdir()) == []


def test_titles_must_be_as_many_as_images(tmp_path):
    with pytest.raises(ArgumentError, match="Expected 2 titles; received 1"):
        view_grid.save_views(tmp_path / "views.png", some_views(), ["cat"])
