"""What holds for all tests: which are tried with other versions, and the precision of each."""

import sys
from collections.abc import Iterator

import pytest

# What may differ between versions, in three minutes on two cores.
TRIED_WITH_VERSIONS = {
    "test_augmix",
    "test_augmix_layer",
    "test_checkpoints",
    "test_corruptions_golden",
    "test_export",
    "test_flags",
    "test_keras_methods",
    "test_keras_model",
    "test_library",
    "test_losses",
    "test_metrics",
    "test_models",
    "test_optimizer",
    "test_pipeline",
    "test_sources",
    "test_training",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in TRIED_WITH_VERSIONS:
            item.add_marker("versions")


@pytest.fixture(autouse=True)
def float32_again() -> Iterator[None]:
    """A test that chooses another precision does not choose it for the next one."""
    yield
    keras = sys.modules.get("keras")
    if hasattr(keras, "config"):  # tensorflow-addons comes with Keras 2, which has none
        keras.config.set_dtype_policy("float32")
