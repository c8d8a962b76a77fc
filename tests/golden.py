"""Reference outputs of the original code, which lie outside the repository.

The folder is named by the environment variable `AUGMIX_GOLDEN`, else it is `shared/golden` beside
the repository. A test that asks for a file which is not there is skipped.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BESIDE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared" / "golden"


def load(name: str) -> Mapping[str, Any]:
    """Returns a reference file: arrays by key of `<name>.npz`, or the content of a `.json`.

    >>> load("jsd")["lambda"], load("params.json")["wrn_40_2"]  # doctest: +SKIP
    """
    folder = Path(os.environ.get("AUGMIX_GOLDEN") or BESIDE_REPOSITORY)
    path = folder / (name if name.endswith(".json") else f"{name}.npz")
    if not path.is_file():
        pytest.skip(f"no reference data {path.name} in {folder}; set AUGMIX_GOLDEN to its folder")
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return np.load(path, allow_pickle=False)
