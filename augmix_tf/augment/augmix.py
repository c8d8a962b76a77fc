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
from augmix_tf.augment.levels import parameter_of
from augmix_tf.checks import CommandError
from augmix_tf.ops import OPERATIONS, PAPER_OPERATIONS, pixels, run_chains
from augmix_tf.ops.compiled import compiled
from augmix_tf.settings import LONGEST_RANDOM_CHAIN, LOWEST_LEVEL, AugMixSettings


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

    >>> from augmix_tf import seeds
    >>> plan = draw_plan(seeds.fold(1, 0, 0, 1), 8, (32, 32), AugMixSettings())
    >>> plan.operation.shape, plan.mixed_share.shape
    (TensorShape([8, 3, 3]), TensorShape([8]))
    """
    views = _draw_views([seed], batch_size, image_size, settings)
    return AugMixPlan(*(part[:, 0] for part in views))


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

    >>> images = np.full((2, 4, 6, 3), 200, np.uint8)
    >>> solarize = np.full((2, 1, 1), OPERATIONS.index("solarize"))
    >>> plan = AugMixPlan(
    ...     operation=tf.constant(solarize, tf.int32),
    ...     parameter=tf.constant([[[128.0]], [[256.0]]], tf.float64),
    ...     chain_depth=tf.constant([[1], [1]]),
    ...     chain_weights=tf.constant([[1.0], [1.0]]),
    ...     mixed_share=tf.constant([0.5, 0.5]),
    ... )
    >>> apply_plan(images, plan)[:, 0, 0, 0].numpy().tolist()  # 0.5 * 200 + 0.5 * (255 - 200)
    [127.5, 200.0]
    """
    views = AugMixPlan(*(part[:, None] for part in plan))
    return apply_views(images, views, fill)[:, 1]


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

    >>> dataset = tf.data.Dataset.from_tensors(np.zeros((8, 20, 24, 3), np.uint8)).enumerate()
    >>> views = dataset.map(lambda step, x: augmix_views(x, 1, 0, step, AugMixSettings()))
    >>> views.element_spec.shape
    TensorShape([8, 3, 20, 24, 3])
    """
    images = _checked(images)
    size = (images.shape[1], images.shape[2])
    place = (run_seed, epoch, step)
    return apply_views(images, draw_views(place, tf.shape(images)[0], size, settings, views), fill)


def draw_views(
    place: tuple[int | tf.Tensor, int | tf.Tensor, int | tf.Tensor],
    batch_size: int | tf.Tensor,
    image_size: tuple[int, int],
    settings: AugMixSettings,
    views: int,
) -> AugMixPlan | None:
    """Draws all augmented views of a batch.

    Args:
        place: run seed, epoch and step. View v of the batch is `draw_plan` with their seed.
        batch_size, image_size, settings: as in `draw_plan`.
        views: V, the clean picture counted.

    Returns:
        The plans, stacked behind the images: every part is [N, V - 1, ...]. None for V = 1.
    """
    checks.require(views >= 1, "at least 1 view", views)
    view_seeds = [seeds.fold(*place, view) for view in range(1, views)]
    return _draw_views(view_seeds, batch_size, image_size, settings) if view_seeds else None


def _draw_views(
    view_seeds: list[tf.Tensor],
    batch_size: int | tf.Tensor,
    image_size: tuple[int, int],
    settings: AugMixSettings,
) -> AugMixPlan:
    names = OPERATIONS if settings.all_ops else PAPER_OPERATIONS
    width, calls = settings.width, settings.width * settings.longest_chain
    shares = width + 2
    sizes = (calls, calls, calls, width, shares)
    # Two draws for each view and no more: in a small batch it is the number of operations that
    # costs, not their size.
    pairs = [seeds.split(seed, 2) for seed in view_seeds]
    uniform = [seeds.uniform(seed, [batch_size, sum(sizes)]) for seed, _ in pairs]
    gamma = [seeds.gamma(seed, [batch_size, shares], settings.alpha) for _, seed in pairs]
    parts = tf.split(tf.stack(uniform, axis=1), sizes, axis=-1)
    for_operation, for_level, for_sign, for_depth, for_shares = parts

    operation = _whole(for_operation, len(names))
    level = LOWEST_LEVEL + for_level * (settings.severity - LOWEST_LEVEL)
    parameter = parameter_of(operation, level, for_sign < 0.5, image_size)
    if settings.depth == -1:
        chain_depth = 1 + _whole(for_depth, LONGEST_RANDOM_CHAIN)
    else:
        chain_depth = tf.fill(tf.shape(for_depth), settings.depth)
    logs = seeds.log_gamma(tf.stack(gamma, axis=1), for_shares, settings.alpha)
    grid = [-1, len(view_seeds), width, settings.longest_chain]
    return AugMixPlan(
        operation=tf.reshape(operation, grid),
        parameter=tf.reshape(parameter, grid),
        chain_depth=chain_depth,
        chain_weights=_dirichlet(logs[..., :width]),
        # Beta(a, a) is the first share of a Dirichlet(a, a).
        mixed_share=_dirichlet(logs[..., width:])[..., 0],
    )


def apply_views(images: tf.Tensor, plan: AugMixPlan | None, fill: int = 0) -> tf.Tensor:
    """Makes the views that `draw_views` drew.

    Args:
        images: uint8 [N, H, W, 3], H and W known.
        plan: for N images.
        fill: as in `apply_plan`.

    Returns:
        float32 [N, V, H, W, 3], 0..255; view 0 is the clean picture.

    Raises:
        CommandError: images of another type or rank, or a plan for another number of them.
    """
    return _apply_views(_checked(images), plan, fill)


@compiled
def _apply_views(images: tf.Tensor, plan: AugMixPlan | None, fill: int) -> tf.Tensor:
    clean = tf.cast(images, tf.float32)
    if plan is None:
        return clean[:, None]
    count, views, width, longest = plan.operation.shape
    if None not in (count, images.shape[0]) and count != images.shape[0]:
        raise CommandError(f"want a plan for {images.shape[0]} images, got one for {count}")
    count = count or tf.shape(images)[0]
    # All chains of all views go through one loop: axes (image, view, chain).
    pictures = pixels.pack(images)
    chains = run_chains(
        pictures,
        source=tf.repeat(tf.range(count), views * width),
        operation=tf.reshape(plan.operation, [-1, longest]),
        parameter=tf.reshape(plan.parameter, [-1, longest]),
        depth=tf.reshape(plan.chain_depth, [-1]),
        fill=fill,
    )
    chains = tf.reshape(chains, [count, views, width, *pictures.shape[1:]])
    # Not a concatenation: XLA would write the mixed views first and then copy them.
    mixed = tf.pad(_mix(clean, chains, plan), [[0, 0], [1, 0], [0, 0], [0, 0], [0, 0]])
    is_clean = (tf.range(views + 1) == 0)[:, None, None, None]
    return tf.where(is_clean, clean[:, None], mixed)


def _mix(clean: tf.Tensor, chains: tf.Tensor, plan: AugMixPlan) -> tf.Tensor:
    """(1 - m) x + m sum_i w_i chain_i for each view: float32 [N, V, H, W, 3].

    Products are rounded before they are added, so that the same bytes come out whatever XLA fuses
    this with.
    """
    blend = sum(
        pixels.rounded(
            plan.chain_weights[:, :, i, None, None, None]
            * tf.cast(pixels.unpack(chains[:, :, i]), tf.float32)
        )
        for i in range(chains.shape[2])
    )
    share = plan.mixed_share[:, :, None, None, None]
    return pixels.rounded((1.0 - share) * clean[:, None]) + pixels.rounded(share * blend)


def _dirichlet(log_gamma: tf.Tensor) -> tf.Tensor:
    """Shares of a Dirichlet: Gamma variables over their sum, float32, along the last axis."""
    return tf.cast(tf.nn.softmax(log_gamma), tf.float32)


def _whole(uniform: tf.Tensor, count: int) -> tf.Tensor:
    """Turns U[0, 1) into an int32 that is uniform over 0, ..., count - 1."""
    return tf.cast(uniform * count, tf.int32)


def _checked(images: tf.Tensor) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    pixels.check_images(images)
    return images
