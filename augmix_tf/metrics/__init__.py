"""Metrics of clean, corrupted and perturbed pictures: NumPy in, Python floats out."""

from augmix_tf.metrics.calibration import (
    aurra,
    expected_calibration_error,
    fit_temperature,
    rms_calibration_error,
)
from augmix_tf.metrics.classification import (
    ClassificationSums,
    brier_score,
    error_rate,
    log_softmax,
    negative_log_likelihood,
    top1_confidence,
)
from augmix_tf.metrics.corruption import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    COUNTED_CORRUPTIONS,
    alexnet_corruption_error,
    mean_corruption_error,
    relative_corruption_error,
    unnormalized_corruption_error,
)
from augmix_tf.metrics.perturbation import (
    CIFAR_SCRIPT_PERTURBATIONS,
    PAPER_PERTURBATIONS,
    SequenceSums,
    flip_probability,
    mean_flip_probability,
    mean_flip_rate,
    mean_top5_distance,
    top5_distance,
    unnormalized_top5_distance,
)

__all__ = [
    "ALEXNET_CLEAN_ERROR",
    "ALEXNET_ERRORS",
    "CIFAR_SCRIPT_PERTURBATIONS",
    "COUNTED_CORRUPTIONS",
    "PAPER_PERTURBATIONS",
    "ClassificationSums",
    "SequenceSums",
    "alexnet_corruption_error",
    "aurra",
    "brier_score",
    "error_rate",
    "expected_calibration_error",
    "fit_temperature",
    "flip_probability",
    "log_softmax",
    "mean_corruption_error",
    "mean_flip_probability",
    "mean_flip_rate",
    "mean_top5_distance",
    "negative_log_likelihood",
    "relative_corruption_error",
    "rms_calibration_error",
    "top1_confidence",
    "top5_distance",
    "unnormalized_corruption_error",
    "unnormalized_top5_distance",
]
