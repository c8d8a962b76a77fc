"""Pictures in one folder per class, read into memory: what is trained on beside the dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from augmix_tf.checks import CommandError, unknown_name
from augmix_tf.data import damage
from augmix_tf.data.split import Source, Split

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def read(place: Path, like: Source, skip_bad: bool = False) -> Split:
    """Reads `place/<class name>/*`, in the order of the file names.

    Pictures of another size than those of `like` are resized, bilinearly and without regard to
    their proportions.

    Args:
        place: the folder.
        like: the dataset whose class names and image size hold.
        skip_bad: leaves out files that cannot be read, up to half of them, and says so on stderr.

    Returns:
        uint8 images; `ids` count on from the dataset's training images, one for each file, whether
        it can be read or not.

    Raises:
        CommandError: no such folder, a folder in it that is no class (with the nearest), or no
            picture at all.
        RunError: files cannot be read as pictures; the message counts them and names the first.
    """
    images, labels, numbers, bad = [], [], [], []
    files = _files(place, like)
    for number, (path, label) in enumerate(files):
        picture = _picture(path, like.image_size)
        if isinstance(picture, damage.Bad):
            bad.append(picture)
            continue
        images.append(picture)
        labels.append(label)
        numbers.append(number)
    left_out = damage.settle(bad, len(files), f"pictures in {place}", skip=skip_bad)
    first = int(like.train.ids[-1]) + 1
    return Split(
        np.stack(images),
        np.array(labels, np.int64),
        first + np.array(numbers, np.int64),
        left_out,
    )


def _files(place: Path, like: Source) -> list[tuple[Path, int]]:
    """All pictures with their labels."""
    if not place.is_dir():
        raise CommandError(f"want a folder with one folder per class, got {place}")
    found = []
    for folder in sorted(p for p in place.iterdir() if p.is_dir() and p.name[0] != "."):
        if folder.name not in like.class_names:
            problem = unknown_name("class", folder.name, like.class_names)
            raise CommandError(f"{folder}: {problem}")
        label = like.class_names.index(folder.name)
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        found += [(path, label) for path in paths]
    if not found:
        wanted = f"pictures ({', '.join(SUFFIXES)}) in {place}/<class>/"
        raise CommandError(f"want {wanted}, got none")
    return found


def _picture(path: Path, size: tuple[int, int]) -> np.ndarray | damage.Bad:
    height, width = size
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(picture)
    except UnidentifiedImageError:
        return damage.Bad(str(path), "no picture")
    # Beside OSError each format's decoder has errors of its own.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        return damage.Bad(str(path), lines[0])
