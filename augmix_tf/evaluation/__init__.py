"""Evaluation: predicts each set once and computes all metrics from the logits.

`augmix_tf.evaluation.benchmark` evaluates any model on images and labels.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "benchmark":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # It is a module above `report`, whose text and figures its results have.
    return importlib.import_module("augmix_tf.benchmark").benchmark
