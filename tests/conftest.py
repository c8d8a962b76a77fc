"""Marks the tests that other versions of TensorFlow, Keras and Python are tried with."""

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
