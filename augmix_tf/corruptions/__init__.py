"""Common corruptions (-C) and perturbation sequences (-P), without TensorFlow."""

from augmix_tf.corruptions.catalogue import CORRUPTIONS, apply, corrupt
from augmix_tf.corruptions.sequences import PERTURBATIONS, perturb
from augmix_tf.corruptions.writer import write_corrupted, write_perturbed
from augmix_tf.metrics import CIFAR_SCRIPT_PERTURBATIONS
from augmix_tf.metrics.names import (
    EXTRA_CORRUPTIONS,
    EXTRA_PERTURBATIONS,
    FROST_SYNTHETIC,
    HARDER_PERTURBATIONS,
    SEVERITIES,
)

__all__ = [
    "CIFAR_SCRIPT_PERTURBATIONS",
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "EXTRA_PERTURBATIONS",
    "FROST_SYNTHETIC",
    "HARDER_PERTURBATIONS",
    "PERTURBATIONS",
    "SEVERITIES",
    "apply",
    "corrupt",
    "perturb",
    "write_corrupted",
    "write_perturbed",
]
