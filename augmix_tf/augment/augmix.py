"""AugMix: mix an image with random chains of simple operations.

    x_augmented = (1 - m) x + m * sum_i w_i chain_i(x),
    w ~ Dirichlet(alpha, ..., alpha),   m ~ Beta(alpha, alpha)

where each chain applies one to three operations, drawn anew for every image, view and chain.
Chance first, then work: `draw_plan` draws everything, `apply_plan` is deterministic.

Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 3 and algorithm 1; ranges of
the operations from the authors' code.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from augmix_tf import checks, seeds
from augmix_tf.checks import CommandError
from augmix_tf.ops import OPERATIONS, PAPER_OPERATIONS, pixels, run_chains
from augmix_tf.ops.compiled import compiled
from augmix_tf.settings import LONGEST_RANDOM_CHAIN, AugMixSettings


class AugMixPlan(NamedTuple):
    """Every random choice of one view of N images; tests write it by hand."""

    operation: tf.Tensor  # int32 [N, width, depth], indexes into OPERATIONS
    parameter: tf.Tensor  # float64 [N, width, depth], in the units of ops.apply_op
    chain_depth: tf.Tensor  # int32 [N, width], operations that are applied
    chain_weights: tf.Tensor  # float32 [N, width], rows sum to 1
    mixed_share: tf.Tensor  # float32 [N], 0 = original image, 1 = chains only


def draw_plan(
    seed: tf.Tensor,
    batch_size: int | tf.Tensor,
    image_size: tuple[int, int],
    settings: AugMixSettings,
) -> AugMixPlan:
    """Draws one view of each image of a batch.

    Args:
        seed: int32 [2], from `seeds.fold`.
        batch_size: number of images N; of a batch that is shared between workers, all of it.
        image_size: (height, width), which scales the translations.
        settings: the knobs.

    Returns:
        The plan; the same for the same arguments, eagerly and in graphs. It is drawn on the host:
        XLA has no gamma distribution.
    """
    names = OPERATIONS if settings.all_ops else PAPER_OPERATIONS
    chains = [batch_size, settings.width]
    calls = [*chains, settings.longest_chain]
    for_ops, for_levels, for_signs, for_depths, for_weights, for_share = seeds.split(seed, 6)

    operation = seeds.integers(for_ops, calls, 0, len(names))
    level = seeds.uniform(for_levels, calls, 0.1, settings.severity)
    negative = seeds.integers(for_signs, calls, 0, 2) == 1
    if settings.depth == -1:
        chain_depth = seeds.integers(for_depths, chains, 1, LONGEST_RANDOM_CHAIN + 1)
    else:
        chain_depth = tf.fill(chains, settings.depth)
    return AugMixPlan(
        operation=operation,
        parameter=parameter_of(operation, level, negative, image_size),
        chain_depth=chain_depth,
        chain_weights=_dirichlet(for_weights, batch_size, settings.width, settings.alpha),
        # Beta(a, a) is the first share of a Dirichlet(a, a).
        mixed_share=_dirichlet(for_share, batch_size, 2, settings.alpha)[:, 0],
    )


def apply_plan(images: tf.Tensor, plan: AugMixPlan, fill: int = 0) -> tf.Tensor:
    """Makes one augmented view of each image.

    Pictures stay uint8 within a chain, as in Pillow; the mix is not quantised.

    Args:
        images: uint8 [N, H, W, 3], H and W known.
        plan: for N images.
        fill: value of pixels that move in from outside the picture.

    Returns:
        float32 [N, H, W, 3], 0..255.

    Raises:
        CommandError: images of another type or rank, or a plan for another number of them.
    """
    return _apply_plans(_checked(images), (plan,), fill)[:, 1]


def augmix_views(
    images: tf.Tensor,
    run_seed: int | tf.Tensor,
    epoch: int | tf.Tensor,
    step: int | tf.Tensor,
    settings: AugMixSettings,
    views: int = 3,
    fill: int = 0,
) -> tf.Tensor:
    """Makes the views of a batch that the loss compares; what the input pipeline maps.

    Args:
        images: uint8 [N, H, W, 3], H and W known.
        run_seed, epoch, step: where in which run this batch stands. Every random choice follows
            from these and the view's number.
        settings: the knobs.
        views: V, the clean picture counted.
        fill: as in `apply_plan`.

    Returns:
        float32 [N, V, H, W, 3], 0..255; view 0 is the clean picture.

    Raises:
        CommandError: images of another type or rank, or no view.
    """
    images = _checked(images)
    checks.require(views >= 1, "at least 1 view", views)
    batch_size, image_size = tf.shape(images)[0], (images.shape[1], images.shape[2])
    plans = tuple(
        draw_plan(seeds.fold(run_seed, epoch, step, view), batch_size, image_size, settings)
        for view in range(1, views)
    )
    return _apply_plans(images, plans, fill)


@compiled
def _apply_plans(images: tf.Tensor, plans: tuple[AugMixPlan, ...], fill: int) -> tf.Tensor:
    """The clean pictures and one view for each plan, float32 [N, 1 + plans, H, W, 3]."""
    pictures = pixels.pack(images)
    clean = tf.cast(images, tf.float32)
    if not plans:
        return clean[:, None]
    # All chains of all views go through one loop: axes (image, view, chain).
    plan = AugMixPlan(*(tf.stack(parts, axis=1) for parts in zip(*plans, strict=True)))
    count, views, width, longest = plan.operation.shape
    if None not in (count, images.shape[0]) and count != images.shape[0]:
        raise CommandError(f"want a plan for {images.shape[0]} images, got one for {count}")
    count = count or tf.shape(images)[0]
    chains = run_chains(
        pictures,
        source=tf.repeat(tf.range(count), views * width),
        operation=tf.reshape(plan.operation, [-1, longest]),
        parameter=tf.reshape(plan.parameter, [-1, longest]),
        depth=tf.reshape(plan.chain_depth, [-1]),
        fill=fill,
    )
    chains = tf.reshape(chains, [count, views, width, *pictures.shape[1:]])
    return tf.concat([clean[:, None], _mix(clean, chains, plan)], axis=1)


def _mix(clean: tf.Tensor, chains: tf.Tensor, plan: AugMixPlan) -> tf.Tensor:
    """(1 - m) x + m sum_i w_i chain_i for each view: float32 [N, V, H, W, 3]."""
    blend = sum(
        plan.chain_weights[:, :, i, None, None, None]
        * tf.cast(pixels.unpack(chains[:, :, i]), tf.float32)
        for i in range(chains.shape[2])
    )
    share = plan.mixed_share[:, :, None, None, None]
    return (1.0 - share) * clean[:, None] + share * blend


class Scale(NamedTuple):
    """How a level becomes a parameter: start + direction * level * maximum / 10."""

    start: float = 0.0
    maximum: float = 0.0
    direction: float = 1.0  # EITHER: as drawn
    whole: bool = True  # cut to an integer before it is added


EITHER = 0.0


def scales(image_size: tuple[int, int]) -> dict[str, Scale]:
    """Returns the scale of each operation; the level lies in 0.1 to 10.

    Source: the authors' augmentations.py.
    """
    height, width = image_size
    enhancer = Scale(start=0.1, maximum=1.8, whole=False)
    return {
        "autocontrast": Scale(),
        "equalize": Scale(),
        "posterize": Scale(start=4.0, maximum=4.0, direction=-1.0),
        "rotate": Scale(maximum=30.0, direction=EITHER),
        "solarize": Scale(start=256.0, maximum=256.0, direction=-1.0),
        "shear_x": Scale(maximum=0.3, direction=EITHER, whole=False),
        "shear_y": Scale(maximum=0.3, direction=EITHER, whole=False),
        "translate_x": Scale(maximum=width / 3, direction=EITHER),
        "translate_y": Scale(maximum=height / 3, direction=EITHER),
        "color": enhancer,
        "contrast": enhancer,
        "brightness": enhancer,
        "sharpness": enhancer,
    }


def parameter_of(
    operation: tf.Tensor, level: tf.Tensor, negative: tf.Tensor, image_size: tuple[int, int]
) -> tf.Tensor:
    """Turns a drawn level and sign into the operation's own parameter, as `scales` says.

    Args:
        operation: int32, indexes into `OPERATIONS`.
        level: float64, same shape, 0.1 to 10.
        negative: bool, same shape, the sign drawn for the operations that go either way.
        image_size: (height, width).

    Returns:
        float64, same shape, in the units of `ops.apply_op`.
    """
    table = scales(image_size)
    columns = zip(*(table[name] for name in OPERATIONS), strict=True)
    start, maximum, direction, whole = (
        tf.gather(tf.constant(column, tf.float64), operation) for column in columns
    )
    # Looked up too, because TensorFlow's graphs turn x / 10.0 into x * 0.1, which is not the same.
    tens = tf.gather(tf.constant([10.0] * len(OPERATIONS), tf.float64), operation)
    amount = level * maximum / tens
    amount = tf.where(whole > 0, tf.floor(amount), amount)
    drawn = 1.0 - 2.0 * tf.cast(negative, tf.float64)
    return start + tf.where(direction == EITHER, drawn, direction) * amount


def _dirichlet(seed: tf.Tensor, count: int | tf.Tensor, parts: int, alpha: float) -> tf.Tensor:
    """Draws Dirichlet(alpha, ..., alpha), float32 [count, parts].

    Shares are proportional to Gamma(alpha) variables. Their logarithms are drawn, through
    Gamma(alpha) = Gamma(alpha + 1) * U^(1 / alpha), because small alphas underflow otherwise.
    """
    for_gamma, for_uniform = seeds.split(seed, 2)
    shape = [count, parts]
    gamma = tf.random.stateless_gamma(shape, for_gamma, alpha + 1.0, dtype=tf.float64)
    uniform = seeds.uniform(for_uniform, shape)
    log_gamma = tf.math.log(gamma) + tf.math.log1p(-uniform) / alpha
    return tf.cast(tf.nn.softmax(log_gamma), tf.float32)


def _checked(images: tf.Tensor) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    pixels.check_images(images)
    return images
