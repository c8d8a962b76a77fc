"""Metrics on clean, corrupted and perturbed images: NumPy in, Python floats out."""

from augmix_tf.metrics.calibration import (
    ReliabilityBin,
    aurra,
    expected_calibration_error,
    fit_temperature,
    pool_bins,
    reliability_bins,
    rms_calibration_error,
)
from augmix_tf.metrics.classification import (
    ClassificationSums,
    Predictions,
    brier_score,
    error_rate,
    log_softmax,
    negative_log_likelihood,
    top1_confidence,
)
from augmix_tf.metrics.corruption import (
    CorruptionErrors,
    alexnet_corruption_error,
    mean_corruption_error,
    relative_corruption_error,
    unnormalized_corruption_error,
)
from augmix_tf.metrics.perturbation import (
    PerturbationRates,
    SequencePredictions,
    SequenceSums,
    flip_probability,
    mean_flip_probability,
    mean_flip_rate,
    mean_top5_distance,
    top5_distance,
    unnormalized_top5_distance,
)

__all__ = [
    "ClassificationSums",
    "CorruptionErrors",
    "PerturbationRates",
    "Predictions",
    "ReliabilityBin",
    "SequencePredictions",
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
    "pool_bins",
    "relative_corruption_error",
    "reliability_bins",
    "rms_calibration_error",
    "top1_confidence",
    "top5_distance",
    "unnormalized_corruption_error",
    "unnormalized_top5_distance",
]
