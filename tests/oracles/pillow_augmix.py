"""AugMix one image at a time with Pillow and NumPy: slow, and easy to compare with the paper.

Shares no code with the package. `benchmarks/pipeline.py` times it as well.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

PAPER_OPS = (
    "autocontrast", "equalize", "posterize", "rotate", "solarize",
    "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
ALL_OPS = (*PAPER_OPS, "color", "contrast", "brightness", "sharpness")
ENHANCERS = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}


def apply_op(
    image: Image.Image,
    name: str,
    parameter: float,
    fill: int = 0,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """One Pillow call; `parameter` in the units of `augmix_tf.ops.apply_op`."""
    if name == "autocontrast":
        return ImageOps.autocontrast(image)
    if name == "equalize":
        return ImageOps.equalize(image)
    if name == "posterize":
        return ImageOps.posterize(image, int(parameter))
    if name == "solarize":
        return ImageOps.solarize(image, int(parameter))
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(parameter)
    colour = (fill,) * len(image.getbands())
    if name == "rotate":
        return image.rotate(parameter, resample=resample, fillcolor=colour)
    matrix = {
        "shear_x": (1, parameter, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, parameter, 1, 0),
        "translate_x": (1, 0, parameter, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, parameter),
    }[name]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=colour)


def draw_parameter(rng, name: str, severity: float, size: tuple[int, int]) -> float:
    """A random parameter as the paper's code draws it; `size` is (height, width)."""
    level = rng.uniform(0.1, severity)
    sign = rng.choice((-1.0, 1.0))
    if name == "posterize":
        return 4 - int(level * 4 / 10)
    if name == "solarize":
        return 256 - int(level * 256 / 10)
    if name == "rotate":
        return sign * int(level * 30 / 10)
    if name.startswith("shear"):
        return sign * level * 0.3 / 10
    if name.startswith("translate"):
        side = size[1] if name == "translate_x" else size[0]
        return sign * int(level * (side / 3) / 10)
    if name in ENHANCERS:
        return level * 1.8 / 10 + 0.1
    return 0.0


def mix(image: np.ndarray, chains: list[np.ndarray], weights, share) -> np.ndarray:
    """(1 - share) x + share * sum_i weight_i chain_i, float32 on the scale 0 to 255."""
    blend = np.zeros(image.shape, np.float32)
    for weight, chain in zip(weights, chains, strict=True):
        blend += np.float32(weight) * chain.astype(np.float32)
    return (1 - np.float32(share)) * image.astype(np.float32) + np.float32(share) * blend


def augmented_view(rng, image: Image.Image, severity=3.0, width=3, depth=-1) -> np.ndarray:
    """One randomly augmented view of one image, float32 [H, W, C] in 0..255."""
    weights = rng.dirichlet([1.0] * width)
    share = rng.beta(1.0, 1.0)
    chains = []
    for _ in range(width):
        chain = image
        for _ in range(depth if depth > 0 else rng.integers(1, 4)):
            name = PAPER_OPS[rng.integers(len(PAPER_OPS))]
            size = (image.height, image.width)
            chain = apply_op(chain, name, draw_parameter(rng, name, severity, size))
        chains.append(np.asarray(chain))
    return mix(np.asarray(image), chains, weights, share)


def crop_and_flip(rng, image: np.ndarray, padding: int = 4) -> np.ndarray:
    """Zero-pads by `padding`, crops back at random, mirrors with probability one half."""
    height, width, _ = image.shape
    if rng.random() < 0.5:
        image = image[:, ::-1]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    top, left = rng.integers(0, 2 * padding + 1, 2)
    return padded[top : top + height, left : left + width]


def training_views(rng, image: np.ndarray, severity=3.0) -> np.ndarray:
    """Clean and two augmented views, normalised: float32 [3, H, W, C] in -1..1."""
    base = crop_and_flip(rng, image)
    clean = Image.fromarray(base)
    views = [base.astype(np.float32)]
    views += [augmented_view(rng, clean, severity) for _ in range(2)]
    return (np.stack(views) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
