"""The AugMix training loss: cross-entropy of the clean view plus consistency among all views.

Each function takes logits of any float type and returns one value per example, so that the caller
can divide by the global batch size. bfloat16 and float16 logits are cast to float32; float64 stays
float64. Finite logits up to at least +-1e4 give finite values and gradients.
"""

from __future__ import annotations

import math

import tensorflow as tf

from augmix_tf import errors

# The authors' code clamps the mixture to this minimum before the logarithm.
MIXTURE_FLOOR = 1e-7


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy of each example, in nats.

        -log p[label]               for class ids,              p = softmax(logits)
        -sum_k targets[k] log p[k]  for distributions over classes

    Args:
        labels: class ids, integer [N], 0 to K - 1, or targets, float [N, K], nonnegative rows that
            sum to 1 (as of mixed images; not checked). For a class id out of range, the CPU raises
            `tf.errors.InvalidArgumentError` and other devices give NaN.
        logits: float [N, K].

    Returns:
        float32 [N] (float64 for float64 logits), 0 or more.

    Raises:
        ArgumentError: `labels` is neither of the two, `logits` is not float of rank 2, or targets
            and logits differ in shape.
    """
    labels = tf.convert_to_tensor(labels)
    soft = labels.dtype.is_floating and labels.shape.rank == 2
    fits = soft or (labels.dtype.is_integer and labels.shape.rank == 1)
    errors.require(fits, "integer labels [N] or float targets [N, K]", _describe(labels))
    logits = _full_precision(logits, "float logits [N, K]", rank=2)
    if not soft:
        # The op accepts int32 and int64 only, and labels are often uint8.
        return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int64), logits)
    same = labels.shape.is_compatible_with(logits.shape)
    errors.require(same, f"targets of the logits' shape {logits.shape}", _describe(labels))
    return -tf.reduce_sum(tf.cast(labels, logits.dtype) * tf.nn.log_softmax(logits), axis=-1)


def jensen_shannon(logits: tf.Tensor) -> tf.Tensor:
    """Returns the Jensen-Shannon divergence among the views of each example, in nats.

        JSD(p_1..p_V) = (1/V) sum_v KL(p_v || m),    m = max((1/V) sum_v p_v, 1e-7)

    Between 0 (all views agree) and ln V (every view is certain of a different class). The floor of
    the mixture, which the authors' code has, can make it negative, by less than K * 4e-8 plus
    rounding. Gradients flow into every view, also through m, except where m is at its floor.

    Args:
        logits: float [N, V, K], V >= 2 views of each of N examples.

    Returns:
        float32 [N] (float64 for float64 logits).

    Raises:
        ArgumentError: `logits` is not float of rank 3, or has fewer than two views.

    Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 3; floor and weights
    1/V from the authors' code.

    >>> agree, differ = [[9.0, 0.0], [9.0, 0.0]], [[99.0, 0.0], [0.0, 99.0]]
    >>> divergence = jensen_shannon(tf.constant([agree, differ]))
    >>> [round(float(nats), 3) for nats in divergence]  # 0 and ln 2
    [0.0, 0.693]
    """
    logits = _full_precision(logits, "float logits [N, V, K]", rank=3)
    views = logits.shape[1]
    errors.require(views is None or views >= 2, "at least 2 views [N, V, K]", _describe(logits))
    # In log space, a probability that underflows to 0 has a finite logarithm, which avoids 0 * inf.
    log_p = tf.nn.log_softmax(logits)
    log_views = tf.math.log(tf.cast(tf.shape(logits)[1], logits.dtype))
    log_m = tf.reduce_logsumexp(log_p, axis=1, keepdims=True) - log_views
    # The logarithm is monotonic, so a floor on log m equals the authors' floor on m, in value and
    # gradient. Their ceiling of 1 is omitted: a mean of probabilities exceeds it by rounding only.
    log_m = tf.maximum(log_m, tf.constant(math.log(MIXTURE_FLOOR), logits.dtype))
    divergences = tf.reduce_sum(tf.exp(log_p) * (log_p - log_m), axis=-1)
    return tf.reduce_mean(divergences, axis=1)


def augmix_loss(labels: tf.Tensor, logits: tf.Tensor, weight: float = 12.0) -> tf.Tensor:
    """Returns the loss of each example: cross-entropy of view 0 + weight * JSD of all views.

    Args:
        labels: integer [N], 0 to K - 1, or float targets [N, K] (see `cross_entropy`).
        logits: float [N, V, K], V >= 2; view 0 is the clean view.
        weight: of the Jensen-Shannon term, the paper's lambda.

    Returns:
        float32 [N] (float64 for float64 logits). The paper's loss is the mean over N.

    Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 3.

    >>> logits = tf.zeros([1, 3, 4])  # one example, three views, four classes
    >>> round(float(augmix_loss(tf.constant([2]), logits)[0]), 3)  # ln 4 + 12 * 0
    1.386
    """
    logits = _full_precision(logits, "float logits [N, V, K]", rank=3)
    return cross_entropy(labels, logits[:, 0]) + weight * jensen_shannon(logits)


def _full_precision(logits: tf.Tensor, expected: str, rank: int) -> tf.Tensor:
    """Float64 unchanged, any other float type as float32; refuses other types and ranks."""
    logits = tf.convert_to_tensor(logits)
    fits = logits.dtype.is_floating and logits.shape.rank == rank
    errors.require(fits, expected, _describe(logits))
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def _describe(tensor: tf.Tensor) -> str:
    return f"{tensor.dtype.name} {tensor.shape}"
