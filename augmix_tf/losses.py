"""The AugMix training loss: cross-entropy on the clean view and agreement among all views.

Every function takes logits of any float type and returns one value per example, unreduced, so that
the caller can divide by the global batch. bfloat16 and float16 logits are computed in float32,
float64 stays float64. Finite logits up to at least +-1e4 give finite values and gradients.
"""

from __future__ import annotations

import math

import tensorflow as tf

from augmix_tf import checks

# The reference keeps the mixture above this before it takes the logarithm.
MIXTURE_FLOOR = 1e-7


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the labels, in nats.

        -log p[label]               for a class,                  p = softmax(logits)
        -sum_k targets[k] log p[k]  for a distribution over classes

    Args:
        labels: classes, integers [N] of any integer type, 0 to K - 1, or targets, float [N, K],
            rows of at least 0 that sum to 1 (the labels of mixed pictures). The rank decides, while
            tracing. The device decides what a class out of its range does: the CPU raises
            `tf.errors.InvalidArgumentError`, others give NaN. Rows of targets are not looked at.
        logits: float [N, K].

    Returns:
        float32 [N] (float64 for float64 logits), at least 0.

    Raises:
        CommandError: `labels` is neither of the two, or `logits` not float of rank 2, or targets
            and logits differ in shape.
    """
    labels = tf.convert_to_tensor(labels)
    soft = labels.dtype.is_floating and labels.shape.rank == 2
    fits = soft or (labels.dtype.is_integer and labels.shape.rank == 1)
    checks.require(fits, "integer labels [N] or float targets [N, K]", _describe(labels))
    logits = _full_precision(logits, "float logits [N, K]", rank=2)
    if not soft:
        # The op knows two integer types only; CIFAR's labels are bytes.
        return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int64), logits)
    same = labels.shape.is_compatible_with(logits.shape)
    checks.require(same, f"targets of the logits' shape {logits.shape}", _describe(labels))
    return -tf.reduce_sum(tf.cast(labels, logits.dtype) * tf.nn.log_softmax(logits), axis=-1)


def jensen_shannon(logits: tf.Tensor) -> tf.Tensor:
    """Jensen-Shannon divergence among the views of each example, in nats.

        JSD(p_1..p_V) = (1/V) sum_v KL(p_v || m),    m = max((1/V) sum_v p_v, 1e-7)

    Between 0 (all views agree) and ln V (each view sure of a class of its own). The floor under
    the mixture, which the reference has, can take the value below 0, by less than K * 4e-8 besides
    rounding. Gradients flow into every view, also through m, except where m stands on its floor.

    Args:
        logits: float [N, V, K], V >= 2 views of each of N examples.

    Returns:
        float32 [N] (float64 for float64 logits).

    Raises:
        CommandError: `logits` is not float of rank 3, or has fewer than two views.

    Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 3, and the public code
    of its authors, which has the floor and gives every view the weight 1/V.

    >>> agree, differ = [[9.0, 0.0], [9.0, 0.0]], [[99.0, 0.0], [0.0, 99.0]]
    >>> divergence = jensen_shannon(tf.constant([agree, differ]))
    >>> [round(float(nats), 3) for nats in divergence]  # 0 and ln 2
    [0.0, 0.693]
    """
    logits = _full_precision(logits, "float logits [N, V, K]", rank=3)
    views = logits.shape[1]
    checks.require(views is None or views >= 2, "at least 2 views [N, V, K]", _describe(logits))
    # In log space a probability that underflows to 0 meets a finite logarithm: no 0 * inf.
    log_p = tf.nn.log_softmax(logits)
    log_views = tf.math.log(tf.cast(tf.shape(logits)[1], logits.dtype))
    log_m = tf.reduce_logsumexp(log_p, axis=1, keepdims=True) - log_views
    # The logarithm grows with its argument, so a floor under log m is the reference's floor under
    # m, in value and gradient. Its ceiling of 1 is left out: a mean of probabilities passes it by
    # rounding only.
    log_m = tf.maximum(log_m, tf.constant(math.log(MIXTURE_FLOOR), logits.dtype))
    divergences = tf.reduce_sum(tf.exp(log_p) * (log_p - log_m), axis=-1)
    return tf.reduce_mean(divergences, axis=1)


def augmix_loss(labels: tf.Tensor, logits: tf.Tensor, weight: float = 12.0) -> tf.Tensor:
    """Loss of each example: cross-entropy of view 0 + weight * JSD(all views).

    Args:
        labels: integers [N], 0 to K - 1, or float targets [N, K] (see `cross_entropy`).
        logits: float [N, V, K], V >= 2; view 0 is the clean picture.
        weight: the paper's lambda, of the Jensen-Shannon term.

    Returns:
        float32 [N] (float64 for float64 logits). The reference's loss is the mean over N.

    Raises:
        CommandError: as `cross_entropy` and `jensen_shannon`.

    Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 3.

    >>> logits = tf.zeros([1, 3, 4])  # one example, three views, four classes
    >>> round(float(augmix_loss(tf.constant([2]), logits)[0]), 3)  # ln 4 + 12 * 0
    1.386
    """
    logits = _full_precision(logits, "float logits [N, V, K]", rank=3)
    return cross_entropy(labels, logits[:, 0]) + weight * jensen_shannon(logits)


def _full_precision(logits: tf.Tensor, wanted: str, rank: int) -> tf.Tensor:
    """Checks type and rank; returns float64 unchanged, any other float type as float32."""
    logits = tf.convert_to_tensor(logits)
    fits = logits.dtype.is_floating and logits.shape.rank == rank
    checks.require(fits, wanted, _describe(logits))
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def _describe(tensor: tf.Tensor) -> str:
    return f"{tensor.dtype.name} {tensor.shape}"
