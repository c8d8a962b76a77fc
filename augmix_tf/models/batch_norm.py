"""Batch normalisation that trains with TensorFlow's fused kernel inside Keras's own layer.

Keras 3 puts the statistics and the normalisation of a batch together from elementary operations. A
training step of WRN-16-1, 128 images, TF 2.21, 2 cores, in ms (under XLA the two are within 3 %):

    views, precision      Keras's operations    the kernel
    1, float32            131                   97
    3, float32            425                   289
    1, mixed_bfloat16     108                   62
    3, mixed_bfloat16     363                   169

The kernel sees one device and all its rows. Statistics over several replicas, and of some rows only
(`counting`: a strategy fills the last batch of an epoch up), are put together here from elementary
operations as well (`normalise_together`). Keras's own would do neither: its moving variance is the
biased one, and its synchronised mean and variance lose their digits where the mean is large. So
one training gives the same weights and moving values on one device and on several, to rounding.

The layer stays a `keras.layers.BatchNormalization`; it is only called differently. A class of our
own would be written into every saved file, which could then not be read without this package.
Whatever goes by the class (a `.keras` file, `clone_model`, `copy.deepcopy`) makes a layer that
trains as Keras's does, with the same weights and the same inference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import keras.layers as L
import tensorflow as tf

from augmix_tf import checks

# What can be normalised, and the type that scale, offset and statistics have then. The kernel does
# all but float64.
STATISTICS = {tf.float32: "float32", tf.bfloat16: "float32", tf.float16: "float32"}
STATISTICS |= {tf.float64: "float64"}

# A strategy traces its replicas in threads of their own, and each has its own rows.
COUNTED: ContextVar[tf.Tensor | None] = ContextVar("COUNTED", default=None)


def batch_normalization(
    name: str, *, momentum: float, epsilon: float, synchronized: bool = False
) -> L.BatchNormalization:
    """Returns a layer that normalises [N, H, W, C] per channel, in the dtype of its policy.

    In training, with the mean and the variance of the n = N H W values of a channel (within
    `counting`, of the rows that count):

        y = gamma (x - mean) / sqrt(variance + epsilon) + beta
        moving_mean     <- momentum moving_mean     + (1 - momentum) mean
        moving_variance <- momentum moving_variance + (1 - momentum) variance n / (n - 1)

    The factor n / (n - 1), the unbiased variance, is PyTorch's and so that of the original code;
    Keras leaves it out. Inference, and training while `layer.trainable` is False, use the moving
    values and are Keras's own to the last bit. So is training that neither the kernel nor
    `normalise_together` has a part in: masked or other than four-dimensional input, and weights
    that are not float32 (float64 for float64 input).

    Args:
        momentum: share of the moving values that a training step keeps.
        epsilon: added to the variance.
        synchronized: mean, variance and n over all replicas of a `tf.distribute` strategy, whose
            moving values then agree. Otherwise each replica has its own, and those of the first
            are saved.

    Source: Ioffe and Szegedy, Batch Normalization (arXiv 1502.03167).
    """
    layer = L.BatchNormalization(
        momentum=momentum, epsilon=epsilon, synchronized=synchronized, name=name
    )
    layer.call = fused_call(layer)
    return layer


@contextlib.contextmanager
def counting(rows: tf.Tensor | None) -> Iterator[None]:
    """Within it, layers called in training take their statistics from these rows only.

    All rows are normalised, by the statistics of those that count, and gradients flow through the
    statistics to those alone. Where none counts, on any replica that the statistics are taken over,
    the moving values normalise and stay as they are.

    It holds for layers made by `batch_normalization` or called by `fused_call`, in the thread that
    enters it: under a strategy, inside the step of a replica. Inference and layers whose
    `trainable` is False have no batch statistics and take no notice.

    Args:
        rows: bool [N], or float32 of 0 and 1, for layers with input [N, H, W, C]; None: all count.
            The others have to be finite.

    Raises:
        CommandError: `rows` has another rank; from a layer called within, if its input has another
            N, or is none that `normalise_together` is for (see `batch_normalization`).
    """
    if rows is not None:
        rows = tf.cast(rows, tf.float32)
        checks.require(rows.shape.rank == 1, "rows [N] that count", rows.shape)
    token = COUNTED.set(rows)
    try:
        yield
    finally:
        COUNTED.reset(token)


def fused_call(layer: L.BatchNormalization) -> Callable[..., tf.Tensor]:
    """Returns a `call` for any `layer` that trains with the fused kernel where that is possible.

    Over several replicas, and within `counting`, it trains by `normalise_together`.

    To be set as `layer.call`, once: `"call" in vars(layer)` tells that it was.
    """
    composed = layer.call

    # In inference the kernel gains little, and on GPUs it has no deterministic gradient, which an
    # attack on a trained model needs.
    def call(
        inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        if not (training and layer.trainable):
            return composed(inputs, training=training, mask=mask)
        rows = COUNTED.get()
        if mask is None and fits(layer, inputs):
            if rows is not None or replicas_of(layer) > 1 or inputs.dtype == tf.float64:
                return normalise_together(layer, inputs, rows)
            return normalise(layer, inputs)
        wanted = "rows that count for floating images [N, H, W, C] without a mask only"
        checks.require(rows is None, wanted, f"{inputs.dtype.name} {inputs.shape} in {layer.name}")
        return composed(inputs, training=training, mask=mask)

    return call


def fits(layer: L.BatchNormalization, inputs: tf.Tensor) -> bool:
    """Says whether training is the kernel's, or where it does not reach `normalise_together`'s."""
    renorm = getattr(layer, "renorm", False)  # younger than Keras 3.8
    return (
        inputs.shape.rank == 4
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        and not renorm
        and layer.variable_dtype == STATISTICS.get(inputs.dtype)
    )


def replicas_of(layer: L.BatchNormalization) -> int:
    """Returns over how many replicas `layer` takes the statistics of a batch, here and now."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if layer.synchronized and context is not None else 1


def normalise(layer: L.BatchNormalization, inputs: tf.Tensor) -> tf.Tensor:
    """Returns `inputs` normalised by their own statistics, and moves those of `layer`."""
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(layer.gamma),
        offset=tf.convert_to_tensor(layer.beta),
        mean=tf.convert_to_tensor(layer.moving_mean),
        variance=tf.convert_to_tensor(layer.moving_variance),
        epsilon=layer.epsilon,
        exponential_avg_factor=1.0 - layer.momentum,
        is_training=True,
    )
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
    return tf.cast(outputs, layer.compute_dtype)


def normalise_together(
    layer: L.BatchNormalization, inputs: tf.Tensor, rows: tf.Tensor | None
) -> tf.Tensor:
    """Returns `inputs` normalised by the rows that count on all replicas, and moves the statistics.

    The formulas are those of `batch_normalization`, computed in the type of the statistics.

    Args:
        inputs: of any of the types in STATISTICS, [N, H, W, C], the rows of this replica.
        rows: float32 [N], 1 for rows that count and 0 for others, or None if all do.

    Returns:
        [N, H, W, C] in the layer's `compute_dtype`.

    Raises:
        CommandError: another number of rows than `inputs` has.
    """
    if rows is not None:
        same = rows.shape.is_compatible_with(inputs.shape[:1])
        checks.require(same, f"{rows.shape} rows, of which some count", f"{inputs.shape[:1]} rows")
        rows = tf.cast(rows, STATISTICS[inputs.dtype])
    x = tf.cast(inputs, STATISTICS[inputs.dtype])
    shift = mean_of_one_row(x, rows)
    centred = x - shift
    count, common, offset, variance = moments(layer, centred, shift, rows)
    some = count > 0
    moving_mean = tf.convert_to_tensor(layer.moving_mean)
    moving_variance = tf.convert_to_tensor(layer.moving_variance)
    unbiased = tf.where(some, variance * (count / tf.maximum(count - 1, 1)), moving_variance)
    # A replica without a row that counts would otherwise divide by epsilon alone in each layer,
    # until its values overflow.
    offset = tf.where(some, offset, moving_mean - common)
    variance = tf.where(some, variance, moving_variance)
    step = 1.0 - layer.momentum
    layer.moving_mean.assign(moving_mean + step * (common + offset - moving_mean))
    layer.moving_variance.assign(moving_variance + step * (unbiased - moving_variance))
    scale = tf.convert_to_tensor(layer.gamma) * tf.math.rsqrt(variance + layer.epsilon)
    outputs = (centred - (common - shift + offset)) * scale + tf.convert_to_tensor(layer.beta)
    return tf.cast(outputs, layer.compute_dtype)


def mean_of_one_row(x: tf.Tensor, rows: tf.Tensor | None) -> tf.Tensor:
    """Returns a constant near the values of each channel: of [N, H, W, C], [C].

    E[x^2] - E[x]^2 keeps no digit where the mean is large beside the deviation. About the mean of
    a row that counts it loses a factor of 1 + N at most, since the row has its part, 1 / N, in the
    variance. About the moving mean, which is far off when training starts, it could lose all.
    """
    row = 0 if rows is None else tf.argmax(rows, output_type=tf.int32)
    total = tf.reduce_sum(x[row : row + 1], [0, 1, 2])
    size = tf.cast(tf.reduce_prod(tf.shape(x)[1:3]), x.dtype)
    return tf.stop_gradient(total / size)


def moments(
    layer: L.BatchNormalization, centred: tf.Tensor, shift: tf.Tensor, rows: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the mean and the variance of what counts on all replicas that `layer` goes over.

    Args:
        centred: float32 or float64 [N, H, W, C], the values of this replica without `shift`.
        shift: [C], a constant of this replica.
        rows: [N] or None, as in `normalise_together`.

    Returns:
        Count [], and [C] each: a constant that all replicas agree on, the mean without it,
        the biased variance. All are 0 where nothing counts.
    """
    # Row by row first: sums of few values keep more digits, and rows are then cheap to leave out.
    sums = tf.concat([tf.reduce_sum(part, [1, 2]) for part in (centred, centred**2)], 1)
    weights = tf.ones_like(sums[:, 0]) if rows is None else rows
    size = tf.cast(tf.reduce_prod(tf.shape(centred)[1:3]), centred.dtype)
    own = [size * tf.reduce_sum(weights)[None], shift, tf.reduce_sum(weights[:, None] * sums, 0)]
    counts, shifts, firsts, seconds = tf.split(
        from_all_replicas(layer, tf.concat(own, 0)), [1, *3 * [layer.gamma.shape[0]]], axis=1
    )
    count = tf.reduce_sum(counts)
    divisor = tf.maximum(count, 1)
    common = tf.stop_gradient(tf.reduce_sum(counts / divisor * shifts, 0))
    apart = shifts - common
    offset = tf.reduce_sum(firsts + counts * apart, 0) / divisor
    squares = tf.reduce_sum(seconds + (2 * firsts + counts * apart) * apart, 0) / divisor
    return count, common, offset, tf.maximum(squares - offset**2, 0)


def from_all_replicas(layer: L.BatchNormalization, values: tf.Tensor) -> tf.Tensor:
    """Returns [R, K] of the [K] of each replica that `layer` goes over."""
    if replicas_of(layer) == 1:
        return values[None]
    # Each adds a row of its own: a gather that every strategy has, and has a gradient of.
    context = tf.distribute.get_replica_context()
    replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
    place = tf.one_hot(replica, replicas, dtype=values.dtype)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, place[:, None] * values)
