"""Frost textures: the original photographs if they are available, and synthetic ones.

Source and licence of the photographs are unknown, so they are not part of this package. They are
read from a given folder, or from an installed `imagecorruptions` distribution (which is not
imported), and checked by SHA-256.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path

import cv2
import numpy as np

from augmix_tf import errors
from augmix_tf.corruptions.arrays import Floats, Images

# The original lists a sixth file that it never uses; the second and third have equal pixels.
PHOTOGRAPHS = {
    "frost1.png": "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
    "frost2.png": "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137",
    "frost3.png": "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504",
    "frost4.jpg": "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e",
    "frost5.jpg": "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2",
}

SYNTHETIC_SIZE = (400, 600)
# Mean colour and standard deviation of grey of each texture, in the range of the photographs.
SYNTHETIC_LOOKS = (
    ((80, 145, 165), 20),
    ((200, 205, 214), 22),
    ((200, 205, 214), 25),
    ((138, 153, 165), 29),
    ((112, 123, 135), 40),
)


def find_photographs(frost_dir: str | Path | None = None) -> Path | None:
    """Returns the folder that holds the original photographs, or None if there is none.

    Raises:
        ArgumentError: `frost_dir` is given and does not hold them.
    """
    if frost_dir is not None:
        mismatch = _first_mismatch(Path(frost_dir))
        errors.require(
            mismatch is None,
            f"the original frost photographs ({', '.join(PHOTOGRAPHS)}) in {frost_dir}",
            f"{mismatch} missing or with other contents",
        )
        return Path(frost_dir)
    spec = importlib.util.find_spec("imagecorruptions")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "frost"
        if _first_mismatch(folder) is None:
            return folder
    return None


def _first_mismatch(folder: Path) -> str | None:
    for name, digest in PHOTOGRAPHS.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return name
    return None


@functools.lru_cache(maxsize=4)
def photographs(folder: Path, scale: float) -> tuple[Images, ...]:
    """Returns the five photographs in `folder`, RGB uint8 [h, w, 3], resized by `scale`."""
    textures = (_decode(folder / name) for name in PHOTOGRAPHS)
    return tuple(_resize(texture[..., ::-1], scale) for texture in textures)


def _decode(path: Path) -> Images:
    # OpenCV's decoder, as in the original: JPEG decoders differ.
    texture = cv2.imread(str(path))
    if texture is None:
        raise errors.FileError(f"cannot decode {path}")
    return texture.astype(np.uint8)


@functools.lru_cache(maxsize=4)
def synthetic(scale: float) -> tuple[Images, ...]:
    """Returns five synthetic textures, RGB uint8 [h, w, 3], resized by `scale`.

    Noise whose amplitude falls with frequency^1.5, and branching crystals, in bluish grey; always
    the same ones. The corruption that uses them is `frost_synthetic`, not `frost`.
    """
    return tuple(_resize(_texture(number), scale) for number in range(len(SYNTHETIC_LOOKS)))


def _resize(texture: Images, scale: float) -> Images:
    texture = np.ascontiguousarray(texture)
    return texture if scale == 1 else cv2.resize(texture, (0, 0), fx=scale, fy=scale)  # type: ignore[return-value]


def _texture(number: int) -> Images:
    (colour, spread) = SYNTHETIC_LOOKS[number]
    rng = np.random.RandomState(number)
    ice = _standardize(_cloud(rng) + 0.8 * _standardize(_crystals(rng)))
    # Bright ice is whiter than the dark glass behind it, which is blue.
    whiteness = np.array([1.1, 1.0, 0.9])
    texture = np.array(colour) + spread * ice[..., None] * whiteness
    return np.clip(np.rint(texture), 0, 255).astype(np.uint8)


def _standardize(field: Floats) -> Floats:
    return (field - field.mean()) / field.std()


def _cloud(rng: np.random.RandomState) -> Floats:
    height, width = SYNTHETIC_SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=SYNTHETIC_SIZE)) / frequency**1.5
    return _standardize(np.fft.irfft2(spectrum, SYNTHETIC_SIZE))


def _crystals(rng: np.random.RandomState) -> Floats:
    canvas = np.zeros(SYNTHETIC_SIZE, np.float32)
    for _ in range(40):
        centre = rng.uniform((0, 0), SYNTHETIC_SIZE[::-1])
        for arm in rng.uniform(0, 2 * np.pi) + np.arange(6) * np.pi / 3:
            _draw_arm(canvas, rng, centre, arm, float(rng.uniform(20, 70)))
    return cv2.GaussianBlur(canvas, (0, 0), 0.8).astype(np.float64)


def _draw_arm(
    canvas: Floats, rng: np.random.RandomState, start: Floats, angle: float, length: float
) -> None:
    """Draws one arm of a crystal and, at 60 degrees to it, its shorter side arms."""
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(v) for v in np.rint(point)) for point in (start, end)]
    cv2.line(canvas, ends[0], ends[1], float(rng.uniform(0.5, 1.0)), 1, cv2.LINE_8)
    if length < 8:
        return
    for fraction in np.arange(0.3, 1.0, 0.2):
        for side in (-1, 1):
            joint = start + fraction * (end - start)
            _draw_arm(
                canvas, rng, joint, angle + side * np.pi / 3, 0.35 * length * (1.2 - fraction)
            )
