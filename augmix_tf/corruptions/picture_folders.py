"""A folder with a generated -C set in the layout of the published ImageNet-C.

<folder>/manifest.json                            what this set is, and the checksums
<folder>/<corruption>/<severity>/<class>/<id>.JPEG
<folder>/parts/<corruption>.<row>.<sha256>.jpeg   an empty file for each part that is finished
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from augmix_tf import checks
from augmix_tf.corruptions import storage
from augmix_tf.corruptions.arrays import Images
from augmix_tf.corruptions.store import Part, SetFolder
from augmix_tf.metrics.names import SEVERITIES

QUALITY = 85  # of the published pictures
_DIGITS = 8


def picture_names(
    labels: npt.NDArray[Any], ids: npt.NDArray[np.uint64], class_names: Sequence[str] | None
) -> list[str]:
    """Returns `<class>/<id>.JPEG` of each picture; sorted by file name they are in order of ids.

    Args:
        labels: whole numbers [N].
        ids: [N].
        class_names: of the labels 0, 1, ...

    Raises:
        CommandError: no names, a label without one, or a name that no folder can have.
    """
    if class_names is None:
        raise checks.CommandError("want class_names for the layout jpeg, got none")
    inside = labels.min() >= 0 and labels.max() < len(class_names)
    wanted = f"labels of 0 to {len(class_names) - 1}, one for each class name"
    checks.require(bool(inside), wanted, f"{labels.min()} to {labels.max()}")
    for name in class_names:
        sound = name == os.path.basename(name) and name[:1] not in ("", ".")
        checks.require(sound, "class names that folders can have", repr(name))
    digits = max(_DIGITS, len(str(ids.max())))
    places = zip(labels.tolist(), ids.tolist(), strict=True)
    return [f"{class_names[label]}/{number:0{digits}d}.JPEG" for label, number in places]


class PictureFolder(SetFolder):
    """As `SetFolder`, with a JPEG for each picture in place of a file for each corruption."""

    ending = "jpeg"

    def __init__(self, folder: Path, settings: dict[str, Any], names: Sequence[str]) -> None:
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        kind = {"layout": "jpeg", "quality": QUALITY, "names_sha256": digest}
        super().__init__(folder, settings | kind)
        self._names = names

    def place(self, file: str) -> Path:
        """Returns the folder of a corruption."""
        return self.folder / file

    def put_labels(self, labels: npt.NDArray[Any]) -> None:
        """Writes nothing: the folders of the classes say it."""

    def put(self, part: Part, rows: Images) -> None:
        """Writes the pictures of a part and, last, its mark.

        Raises:
            RunError: one cannot be written.
        """
        with ThreadPoolExecutor() as threads:
            encoded = list(threads.map(_encoded, rows))
        for path, content in zip(self._paths(part), encoded, strict=True):
            _write(path, content)
        digest = hashlib.sha256(b"".join(encoded)).hexdigest()
        with storage.replacing(self._mark(part, digest)) as file:
            file.write(b"")
        self._sound[part.file, part.first_row] = self._mark(part, digest)

    def _paths(self, part: Part) -> list[Path]:
        folder = self.place(part.file) / str(part.severity)
        last = part.first_image + part.rows
        return [folder / name for name in self._names[part.first_image : last]]

    def _holds(self, path: Path, part: Part, digest: str) -> bool:
        return _sha256(self._paths(part)) == digest

    def _checksum(self, file: str) -> str | None:
        folder = self.place(file)
        return _sha256(folder / str(s) / name for s in SEVERITIES for name in self._names)

    def _join(self, file: str, paths: Sequence[Path]) -> dict[str, Any]:
        digest = self._checksum(file)
        if digest is None:
            text = f"{self.place(file)}: want all pictures that were written, got fewer"
            raise checks.RunError(text)
        return {"sha256": digest, "pictures": len(SEVERITIES) * len(self._names)}


def _encoded(picture: Images) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    # A million pictures are not waited for one by one: the checksum of the part finds what a
    # crash of the machine may lose.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise checks.RunError(f"cannot write {path}: {error.strerror or error}") from error


def _sha256(paths: Iterable[Path]) -> str | None:
    """Of all files one after the other; None where one is missing."""
    digest = hashlib.sha256()
    try:
        for path in paths:
            digest.update(path.read_bytes())
    except OSError:
        return None
    return digest.hexdigest()
