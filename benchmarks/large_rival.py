"""ImageNet's training views as the authors make them: Pillow and NumPy, image by image.

Shares no code with the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tests.oracles import pillow_augmix

SEVERITY = 1.0
AUGMENTED_VIEWS = 2
SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10

Normalization = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, on the scale 0 to 1."""


def window(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """A random window by torchvision's rule, as Pillow's box: left, top, right, bottom."""
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        own_width, own_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < own_width <= width and 0 < own_height <= height:
            left = int(rng.integers(width - own_width + 1))
            top = int(rng.integers(height - own_height + 1))
            return left, top, left + own_width, top + own_height
    own_width = min(width, round(height * RATIO[1]))
    own_height = min(height, round(width / RATIO[0]))
    left, top = (width - own_width) // 2, (height - own_height) // 2
    return left, top, left + own_width, top + own_height


def views(
    rng: np.random.Generator,
    path: str,
    augmented: int,
    size: tuple[int, int],
    normalization: Normalization,
) -> np.ndarray:
    """Clean and augmented views of one file, normalised: float32 [1 + augmented, H, W, 3]."""
    with Image.open(path) as file:
        whole = file.convert("RGB")
    image = whole.crop(window(rng, *whole.size)).resize(size[::-1], Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    made = [np.asarray(image, np.float32)]
    made += [pillow_augmix.augmented_view(rng, image, SEVERITY) for _ in range(augmented)]
    mean, deviation = np.array(normalization, np.float32)
    return (np.stack(made) / np.float32(255) - mean) / deviation
