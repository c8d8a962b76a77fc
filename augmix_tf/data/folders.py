"""Images in one folder per class, read into memory: what is trained on beside the dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from augmix_tf.data import damage
from augmix_tf.data.images import InMemoryStore, Source
from augmix_tf.errors import ArgumentError, unknown_name

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def read(place: Path, like: Source, skip_bad: bool = False) -> InMemoryStore:
    """Reads `place/<class name>/*`, in the order of the file names.

    Images of another size than those of `like` are resized bilinearly, without keeping their
    aspect ratio.

    Args:
        place: the folder.
        like: the dataset whose class names and image size hold.
        skip_bad: leaves out files that cannot be read, up to half of them, and says so on stderr.

    Returns:
        The images; `ids` count on from the dataset's training images, one for each file, whether
        it can be read or not.

    Raises:
        ArgumentError: no such folder, a folder in it that is no class (with the nearest), or no
            image at all.
        FileError: files cannot be read as images; the message counts them and names the first.
    """
    images, labels, numbers, bad = [], [], [], []
    files = _files(place, like)
    for number, (path, label) in enumerate(files):
        image = _image(path, like.image_size)
        if isinstance(image, damage.Bad):
            bad.append(image)
            continue
        images.append(image)
        labels.append(label)
        numbers.append(number)
    left_out = damage.settle(bad, len(files), f"images in {place}", skip=skip_bad)
    first = int(like.train.ids[-1]) + 1
    return InMemoryStore(
        images=np.stack(images),
        labels=np.array(labels, np.int64),
        ids=first + np.array(numbers, np.int64),
        left_out=left_out,
    )


def _files(place: Path, like: Source) -> list[tuple[Path, int]]:
    """Paths of all images with their labels."""
    if not place.is_dir():
        raise ArgumentError(f"Expected a folder with one folder per class; received {place}")
    found = []
    for folder in sorted(p for p in place.iterdir() if p.is_dir() and p.name[0] != "."):
        if folder.name not in like.class_names:
            problem = unknown_name("class", folder.name, like.class_names)
            raise ArgumentError(f"{folder}: {problem}")
        label = like.class_names.index(folder.name)
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        found += [(path, label) for path in paths]
    if not found:
        wanted = f"images ({', '.join(SUFFIXES)}) in {place}/<class>/"
        raise ArgumentError(f"Expected {wanted}; received none")
    return found


def _image(path: Path, size: tuple[int, int]) -> np.ndarray | damage.Bad:
    height, width = size
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except UnidentifiedImageError:
        return damage.Bad(str(path), "no image")
    # Beside OSError each format's decoder has errors of its own.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        return damage.Bad(str(path), lines[0])
