"""What the documentation shows is run: examples in docstrings, and the README's Python."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
WITH_EXAMPLES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
    for path in (ROOT / "augmix_tf").rglob("*.py")
    if ">>> " in path.read_text()
)
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_give_what_they_show(name):
    module = importlib.import_module(name)
    globals_of_readers = {"np": np, "tf": importlib.import_module("tensorflow")}
    failed, tried = doctest.testmod(module, extraglobs=globals_of_readers)
    assert tried > 0
    assert failed == 0


def test_the_readme_s_python_runs_and_gives_three_views():
    assert SNIPPETS
    scope = {"images": np.random.default_rng(0).integers(0, 256, (256, 20, 24, 3), np.uint8)}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), scope)
    made = list(scope["views"])
    assert [batch.shape for batch in made] == [(128, 3, 20, 24, 3)] * 2
    np.testing.assert_array_equal(made[0][:, 0], scope["images"][:128].astype(np.float32))
