"""Mixing sets: drawn fractals follow from a seed; directories are read, cropped and refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from augmix_tf.augment import fractals, mixing_set
from augmix_tf.augment.pixmix import PixMixMethod
from augmix_tf.errors import FileError, SettingError
from tests import golden
from tests.program import command, finish, leave_out
from tests.runs import RUNS, leave_out_xla


def some_images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((9, 14), (12, 10), (9, 9))]


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_crop_is_a_part_of_the_chosen_image(run):
    images = some_images()
    drawn = mixing_set.of_images(images)
    for number, place, top, left in (
        (0, (0.0, 0.0), 0, 0),
        (0, (0.999, 0.999), 1, 5),
        (1, (0.5, 0.5), 2, 1),
        (2, (0.0, 0.99), 0, 0),
    ):
        got = run(
            lambda n, p: mixing_set.crop(drawn, n, p, (8, 9)),
            tf.constant(number),
            tf.constant(place, tf.float64),
        )
        want = images[number][top : top + 8, left : left + 9].astype(np.int32)
        np.testing.assert_array_equal(got, want @ [1, 256, 65536])


def test_images_are_resized_as_in_the_original_code():
    reference = golden.load("pixmix")
    numbers = [name.split("_")[-1] for name in reference if name.startswith("mixing_raw_")]
    assert len(numbers) > 3
    for number in numbers:
        got = mixing_set.resized(reference[f"mixing_raw_{number}"], 36)
        np.testing.assert_array_equal(got, reference[f"mixing_resized_{number}"])


def test_drawn_images_follow_from_seed_and_number_alone():
    few, many = fractals.draw(3, 12, seed=4), fractals.draw(70, 12, seed=4)
    assert (few.shape, few.dtype) == ((3, 12, 12, 3), np.uint8)
    np.testing.assert_array_equal(few, many[:3])
    np.testing.assert_array_equal(fractals.draw(1, 12, seed=4), many[:1])
    assert len({image.tobytes() for image in [*many, *fractals.draw(3, 12, seed=5)]}) == 73


def test_systems_contract_and_their_sizes_keep_within_the_bounds():
    draws = fractals.Draws(range(400), seed=1, count=60)
    maps, shares = fractals.systems(draws)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    counts = (shares > 0).sum(axis=1)
    assert np.bincount(counts, minlength=5)[2:].min() > 90
    sizes = np.linalg.svd(maps[..., :4].reshape(-1, 4, 2, 2), compute_uv=False)
    sizes = np.where((shares > 0)[..., None], sizes, 0)
    assert sizes.max() <= 1 + 1e-9
    total = (sizes @ [1, 2]).sum(axis=1)
    assert np.all((total >= (5 + counts) / 2 - 1e-9) & (total <= (6 + counts) / 2 + 1e-9))


def test_points_fall_on_the_attractor_of_the_system():
    """Three maps that halve towards the corners: the triangle of Sierpinski."""
    corners = ((0, 0), (1, 0), (0, 1))
    maps = np.array([[0.5, 0, 0, 0.5, x / 2, y / 2] for x, y in corners] + [[0] * 6], float)
    choices = np.random.default_rng(0).random((1, 74, 400))
    density = fractals._density(maps[None], np.array([[1, 1, 1, 0]]) / 3, choices, 32)[0]
    # Pixels of a triangle whose coordinates, in binary, have no digit 1 in common.
    x, y = np.meshgrid(np.arange(32), np.arange(32))
    outside = (x & y) != 0
    assert (density[outside] > 0).mean() < 0.1  # where the window rounds to the next pixel
    assert (density[~outside] > 0).mean() > 0.95


def test_a_directory_of_images_is_read_in_order_and_named_in_the_results(tmp_path):
    (tmp_path / "b").mkdir()
    images = some_images()
    for name, image in zip(("b/x.png", "a.png", "b/y.png"), images, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    method = PixMixMethod(mixing_dir=str(tmp_path))
    prepared = method.prepare((8, 6))["mixing_set"]
    ordered = [mixing_set.resized(images[1], 9), images[0], images[2]]
    digest = hashlib.sha256(b"".join(image.tobytes() for image in ordered))
    assert prepared == {"images": 3, "sha256": digest.hexdigest()}
    assert method.mixing_set((8, 6)).size.numpy().tolist() == [[10, 9], [9, 14], [9, 9]]


def test_a_directory_without_images_and_unreadable_ones_are_refused(tmp_path):
    method = PixMixMethod(mixing_dir=str(tmp_path))
    with pytest.raises(SettingError, match=r"mixing_dir must hold images \(.jpg, .*; .* has none"):
        method.prepare((8, 8))
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(FileError, match=r"a\.png"):
        method.prepare((8, 8))


def test_a_run_goes_on_with_the_images_that_it_began_with(tmp_path, monkeypatch):
    leave_out(monkeypatch)
    leave_out_xla(monkeypatch)
    folder, run = tmp_path / "images", tmp_path / "run"
    folder.mkdir()
    Image.fromarray(some_images()[0]).save(folder / "a.png")
    arguments = ["--method=pixmix", f"--mixing_dir={folder}", "--train_limit=4", "--eval_limit=9"]
    arguments += ["--epochs=1", "--batch_size=4", "--nocorrupted", "--precision=float32"]
    finish(*arguments, workdir=run)
    recorded = json.loads((run / "results.json").read_text())["provenance"]["mixing_set"]
    assert recorded["images"] == 1
    assert len(recorded["sha256"]) == 64

    Image.fromarray(some_images()[1]).save(folder / "a.png")
    mixing_set._load.cache_clear()
    outcome = command("--mode=evaluate", workdir=run)
    assert outcome.code == 1
    assert "images to mix with differ" in outcome.line()
