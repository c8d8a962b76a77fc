"""Folders of encoded images of all sizes, laid out as ImageNet is unpacked."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.image_files import encoded

CLASSES = ("n01440764", "n01443537", "n01484850")


def image(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth image of its own colours with a black and a white corner, uint8 [h, w, 3]."""
    values = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    smooth = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.array(smooth)
    pixels[:2, :2], pixels[-2:, -2:] = 0, 255
    return pixels


def write(root: Path, splits: tuple[str, ...] = ("train", "val"), each: int = 4) -> Path:
    """Writes `each` images of every class: JPEG, greyscale, CMYK, and PNG under a JPEG's name."""
    for number, split in enumerate(splits):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(each):
                seed = 100 * number + 10 * label + i
                pixels = Image.fromarray(image(seed, 40 + 3 * i + label, 50 - 2 * i))
                (folder / f"{name}_{i}.JPEG").write_bytes(_file(pixels, i))
    return root


def _file(pixels: Image.Image, kind: int) -> bytes:
    if kind % 4 == 1:
        return encoded(pixels.convert("L"), "jpeg", quality=95)
    if kind % 4 == 2:
        return encoded(pixels.convert("CMYK"), "jpeg", quality=95)
    return encoded(pixels, "png") if kind % 4 == 3 else encoded(pixels, "jpeg", quality=95)
