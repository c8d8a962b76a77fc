"""Pictures in one folder per class, read into memory: what is trained on beside the dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from augmix_tf.checks import CommandError, RunError, unknown_name
from augmix_tf.data.sources import Source, Split

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def read(place: Path, like: Source) -> Split:
    """Reads `place/<class name>/*`, in the order of the file names.

    Pictures of another size than those of `like` are resized, bilinearly and without regard to
    their proportions.

    Args:
        place: the folder.
        like: the dataset whose class names and image size hold.

    Returns:
        uint8 images; `ids` count on from the dataset's training images.

    Raises:
        CommandError: no such folder, a folder in it that is no class (with the nearest), or no
            picture at all.
        RunError: a file cannot be read as a picture; the message names it.
    """
    if not place.is_dir():
        raise CommandError(f"want a folder with one folder per class, got {place}")
    images, labels = [], []
    for folder in sorted(p for p in place.iterdir() if p.is_dir() and p.name[0] != "."):
        if folder.name not in like.class_names:
            problem = unknown_name("class", folder.name, like.class_names)
            raise CommandError(f"{folder}: {problem}")
        for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
            images.append(_picture(path, like.image_size))
            labels.append(like.class_names.index(folder.name))
    if not images:
        wanted = f"pictures ({', '.join(SUFFIXES)}) in {place}/<class>/"
        raise CommandError(f"want {wanted}, got none")
    first = int(like.train.ids[-1]) + 1
    return Split(
        np.stack(images),
        np.array(labels, np.int64),
        np.arange(first, first + len(images), dtype=np.int64),
    )


def _picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(picture)
    # Pillow calls a broken chunk of a PNG a SyntaxError.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RunError(f"cannot read {path} as a picture: {error}") from error
