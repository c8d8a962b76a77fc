"""Corruptions (-C and C-bar) and perturbation sequences (-P), without TensorFlow."""

from augmix_tf.corruptions.catalogue import apply, corrupt, versions
from augmix_tf.corruptions.sequences import perturb
from augmix_tf.corruptions.write import write_corrupted, write_perturbed
from augmix_tf.robustness import (
    CBAR_BENCHMARKS,
    CBAR_CORRUPTIONS,
    CIFAR_SCRIPT_PERTURBATIONS,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    EXTRA_PERTURBATIONS,
    FROST_SYNTHETIC,
    HARDER_PERTURBATIONS,
    PERTURBATIONS,
    SEVERITIES,
)

__all__ = [
    "CBAR_BENCHMARKS",
    "CBAR_CORRUPTIONS",
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
    "versions",
    "write_corrupted",
    "write_perturbed",
]
