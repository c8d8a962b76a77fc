"""AugMix (Hendrycks et al., ICLR 2020) for TensorFlow and Keras.

Importing this is cheap: TensorFlow is loaded when `AugMix` is first touched.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["AugMix"]


def __getattr__(name: str) -> Any:
    if name == "AugMix":
        from augmix_tf.augment.layer import AugMix

        return AugMix
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
