"""The table of docs/methods.md: the command of each cell, and how its rows are shown."""

import importlib
import json
import re

import flags
from augmix_tf import recipes

# Not imported by statement: the benchmarks are no part of what BUILD describes.
methods = importlib.import_module("benchmarks.methods")


def test_every_model_meets_every_method_and_wrn_the_variants_too():
    cells = methods.cells()
    every = {(model, method) for model in recipes.MODELS for method in recipes.METHODS}
    variants = {("wrn", name) for name in methods.VARIANTS}
    assert {(cell.model, cell.method) for cell in cells} == every | variants
    assert len(cells) == len(every) + len(variants)


def test_the_command_of_a_cell_asks_for_what_the_row_says():
    wanted = {
        "augmix no JSD": {"jsd": False},
        "augmix 2 views": {"views": 2},
        "augmix 4 views": {"views": 4},
        "autoaugment + JSD": {"mix_ops": "autoaugment", "views": 3, "jsd": True},
        "augmix split BN": {"split_bn": True},
    }
    for cell in methods.cells():
        config = flags.parse([*methods.SETTINGS, *cell.flags, "--workdir=unused"]).config
        assert config.model.name == cell.model
        assert wanted.get(cell.method, {}).items() <= config.settings().items()
        assert config.method.name == ("augmix" if cell.method in methods.VARIANTS else cell.method)


def test_the_page_shows_the_rows_that_are_kept_with_it():
    page, document = methods.PAGE.read_text(), json.loads(methods.RESULTS.read_text())
    table = methods.table(document, methods.MODELS, tuple(methods.FLAGS))
    assert methods.with_table(page, table) == page


def test_the_page_names_every_method_and_only_flags_that_there_are():
    page = methods.PAGE.read_text()
    assert [name for name in recipes.METHODS if f"| `{name}` |" not in page] == []
    of_the_benchmark = {"table", "models", "methods", "out"}
    known = {*flags.declarations(), *of_the_benchmark, "nojsd", "notexture_masks"}
    assert set(re.findall(r"`--([a-z_]+)", page)) - known == set()
