"""Mean colours of our corruptions of one picture against those of the official CIFAR-10-C."""

from __future__ import annotations

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
# The official colours were measured on a picture of the set, enlarged and smoothed.
GREY_LEVELS = 3.0
DRAWS = 20

needs_picture = pytest.mark.skipif(
    not OFFICIAL.exists(), reason=f"no picture of the official CIFAR-10-C in {OFFICIAL}"
)


@needs_picture
@pytest.mark.parametrize(
    "name", [*(n for n in corruptions.CORRUPTIONS if n != "frost"), *corruptions.EXTRA_CORRUPTIONS]
)
def test_mean_colours_are_those_of_the_official_set(name):
    picture = np.asarray(Image.open(OFFICIAL / "test_00000_clean.png").convert("RGB"))[None]
    with (OFFICIAL / "cell_means.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["corruption"] == name]
    assert len(rows) == 5
    for row in rows:
        made = np.stack(
            [
                corruptions.corrupt(picture, name, int(row["severity"]), seed=seed)[0]
                for seed in range(DRAWS)
            ]
        )
        means = made[:, INSIDE, INSIDE].mean(axis=(1, 2))
        official = np.array([float(row[f"mean_{channel}"]) for channel in "rgb"])
        # The official picture is one draw of ours, if all is well.
        room = GREY_LEVELS + 3 * means.std(axis=0)
        assert (np.abs(means.mean(axis=0) - official) <= room).all(), (row, means.mean(axis=0))
