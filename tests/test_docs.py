"""What the documentation shows holds: examples, the README's Python, links, published errors."""

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
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


def test_the_readme_s_python_trains_a_classifier_on_three_views(tmp_path, monkeypatch):
    assert SNIPPETS
    keras = importlib.import_module("keras")
    stack = [keras.Input((20, 24, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    for name in "abc":
        (tmp_path / "photos" / name).mkdir(parents=True)
        image = np.full((30, 20, 3), ord(name), np.uint8)
        keras.utils.save_img(tmp_path / "photos" / name / "1.jpg", image)
    monkeypatch.chdir(tmp_path)
    scope = {
        "images": np.random.default_rng(0).integers(0, 256, (256, 20, 24, 3), np.uint8),
        "labels": np.arange(256) % 3,
        "backbone": keras.Sequential([*stack, keras.layers.Dense(3)]),
    }
    for snippet in SNIPPETS:
        exec(compile(snippet.replace("(224, 224)", "(20, 24)"), "README.md", "exec"), scope)
    made = list(scope["dataset"])
    assert [views.shape for views, _ in made] == [(128, 3, 20, 24, 3)] * 20
    known = {image.tobytes() for image in scope["images"].astype(np.float32)}
    assert all(views.numpy()[0, 0].tobytes() in known for views, _ in made)
    # Each pass over the images has draws of its own.
    assert len({views.numpy()[:, 1].std() for views, _ in made}) == 20


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_a_page_links_to_is_there(path):
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    local = [target for target in targets if not re.match(r"https?://|mailto:|#", target)]
    missing = [t for t in local if not (path.parent / t.partition("#")[0]).exists()]
    assert missing == []
    for target in targets:
        page, _, anchor = target.partition("#")
        if anchor and (not page or target in local):
            assert anchor in headings(path.parent / page if page else path), target


def headings(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
