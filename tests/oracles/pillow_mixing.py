"""PixMix and IPMix one image at a time with Pillow and NumPy, for `benchmarks/pipeline.py`.

Draws and work are those of the methods; `tests/test_pixmix.py` and `tests/test_ipmix.py` compare
with the authors' code instead.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from tests.oracles.pillow_augmix import ALL_OPS, PAPER_OPS, apply_op, draw_parameter, mix

SEVERITY, BETA = 3.0, 3.0


def operated(rng, image: Image.Image, names=ALL_OPS) -> Image.Image:
    name = names[rng.integers(len(names))]
    if name == "mirror":
        return ImageOps.mirror(image)
    if name == "invert":
        return ImageOps.invert(image)
    return apply_op(image, name, draw_parameter(rng, name, SEVERITY, image.size[::-1]))


def floats(image) -> np.ndarray:
    return np.asarray(image).astype(np.float32) / np.float32(255)


def added_or_multiplied(rng, x: np.ndarray, y: np.ndarray, adds: bool) -> np.ndarray:
    if rng.random() < 0.5:
        a, b = np.float32(rng.beta(BETA, 1)), np.float32(rng.beta(1, BETA))
    else:
        a, b = np.float32(1 + rng.beta(1, BETA)), np.float32(-rng.beta(1, BETA))
    if adds:
        return (a * (2 * x - 1) + b * (2 * y - 1) + 1) / 2
    return (2 * x) ** a * np.maximum(2 * y, np.float32(1e-37)) ** b / 2


def crop_of(rng, mixing_image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = (rng.integers(0, n - m + 1) for n, m in zip(mixing_image.shape, size, strict=False))
    return mixing_image[top : top + size[0], left : left + size[1]]


def pixmix(rng, image: Image.Image, mixing_image: np.ndarray) -> np.ndarray:
    """One view, float32 [H, W, C] in 0..1."""
    texture = floats(crop_of(rng, mixing_image, image.size[::-1]))
    x = floats(operated(rng, image) if rng.random() < 0.5 else image)
    for _ in range(rng.integers(5)):
        y = floats(operated(rng, image)) if rng.random() < 0.5 else texture
        x = np.clip(added_or_multiplied(rng, x, y, rng.random() < 0.5), 0, 1)
    return x


def mixed_patch(rng, image: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """One step of a patch chain of IPMix, bytes that wrap."""
    side = (4, 8, 16, 32)[rng.integers(4)]
    top, left = (rng.integers(0, n - side + 1) for n in image.shape[:2])
    height, width = (side, side) if rng.random() < 0.5 else rng.integers(2, side + 1, 2)
    box = np.s_[top : top + height, left : left + width]
    x, y = floats(image[box]), floats(texture[box])
    kind = rng.integers(4)
    if kind < 2:
        mixed = added_or_multiplied(rng, x, y, kind == 0)
    else:
        kept = rng.random((height, width, 1 if kind == 2 else 3)) < rng.random()
        mixed = np.where(kept, x, y)
    values = np.trunc(np.where(np.abs(255 * mixed) < 2**31, 255 * mixed, 0)).astype(np.int64)
    image = image.copy()
    image[box] = values.astype(np.uint8)
    return image


def ipmix(rng, image: Image.Image, texture: np.ndarray) -> np.ndarray:
    """One view, float32 [H, W, C] in 0..255."""
    names = (*PAPER_OPS[1:], "mirror", "invert")
    chains = []
    for _ in range(3):
        patches, chain = rng.random() < 0.5, image
        for _ in range(rng.integers(4)):
            if patches:
                chain = mixed_patch(rng, np.asarray(chain), texture)
            else:
                chain = operated(rng, chain, names)
        chains.append(np.asarray(chain))
    return mix(np.asarray(image), chains, rng.dirichlet([1.0] * 3), rng.random())
