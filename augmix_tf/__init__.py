"""AugMix (Hendrycks et al., ICLR 2020) for TensorFlow and Keras.

Importing this is cheap: TensorFlow is loaded when something that needs it is first touched. For
that, nothing else has to be imported: `augmix_tf.losses.augmix_loss` and the like are there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augmix_tf import augment, corruptions, evaluation, losses, metrics, models, ops, seeds
    from augmix_tf.augment.layer import AugMix, RandAugment, TrivialAugment
    from augmix_tf.training.keras_model import AugMixModel

__version__ = "0.1.0"
__all__ = [
    "AugMix",
    "AugMixModel",
    "RandAugment",
    "TrivialAugment",
    "augment",
    "corruptions",
    "evaluation",
    "losses",
    "metrics",
    "models",
    "ops",
    "seeds",
]

_CLASSES = dict.fromkeys(("AugMix", "RandAugment", "TrivialAugment"), "augmix_tf.augment.layer")
_CLASSES["AugMixModel"] = "augmix_tf.training.keras_model"


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(_CLASSES[name]), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
