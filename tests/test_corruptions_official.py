"""Mean colours of our corruptions of one image against those of the official CIFAR-10-C."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augmix_tf import corruptions

REPOSITORY = Path(__file__).parents[1]
REAL = Path(os.environ.get("AUGMIX_DATA", REPOSITORY.parent / "shared" / "data" / "tfds"))
OFFICIAL = REAL.parent / "cifar10c_oracle"
INSIDE = slice(2, 30)
# The official colours were measured on a rendering of the image, enlarged and smoothed.
GREY_LEVELS = 3.0
DRAWS = 10

needs_image = pytest.mark.skipif(
    not OFFICIAL.exists(), reason=f"no image of the official CIFAR-10-C in {OFFICIAL}"
)


@needs_image
@pytest.mark.parametrize(
    "name", [*(n for n in corruptions.CORRUPTIONS if n != "frost"), *corruptions.EXTRA_CORRUPTIONS]
)
def test_mean_colours_are_those_of_the_official_set(name):
    image = np.asarray(Image.open(OFFICIAL / "test_00000_clean.png").convert("RGB"))[None]
    with (OFFICIAL / "cell_means.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["corruption"] == name]
    assert len(rows) == 5
    for row in rows:
        made = np.stack(
            [
                corruptions.corrupt(image, name, int(row["severity"]), seed=seed)[0]
                for seed in range(DRAWS)
            ]
        )
        means = made[:, INSIDE, INSIDE].mean(axis=(1, 2))
        official = np.array([float(row[f"mean_{channel}"]) for channel in "rgb"])
        # If the corruptions are equal, the official image is one draw of ours.
        tolerance = GREY_LEVELS + 3 * means.std(axis=0)
        assert (np.abs(means.mean(axis=0) - official) <= tolerance).all(), (row, means.mean(axis=0))
