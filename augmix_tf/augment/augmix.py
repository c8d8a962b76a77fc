"""AugMix: mix an image with random chains of simple operations.

    x_augmented = (1 - m) x + m * sum_i w_i chain_i(x),
    w ~ Dirichlet(alpha, ..., alpha),   m ~ Beta(alpha, alpha)

where each chain applies one to three operations, drawn anew for every image, view and chain.
`draw_plan` makes every random choice; `apply_plan` is deterministic.

Source: Hendrycks et al., AugMix, ICLR 2020 (arXiv 1912.02781), section 3 and algorithm 1; ranges of
the operations from the authors' code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epy

from augmix_tf.augment import method
from augmix_tf.augment.method import BatchShape, ConsistencyMethod, Histogram, Views
from augmix_tf.errors import ArgumentError, SettingError, require
from augmix_tf.runtime import compiled
from augmix_tf.settings import alias, check, setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import tensorflow as tf

    from augmix_tf import ops, seeds
    from augmix_tf.augment import autoaugment, checks
    from augmix_tf.ops import packed, registry

LONGEST_RANDOM_CHAIN = 3
LOWEST_LEVEL = 0.1


@dataclasses.dataclass(frozen=True)
class AugMixSettings:
    """The hyperparameters of AugMix; the defaults are the paper's for CIFAR (ImageNet: severity 1).

    Attributes:
        severity: maximum strength of an operation; each draws its level from U(0.1, severity).
        width: number of chains that are mixed.
        depth: operations in each chain, or -1 to draw 1, 2 or 3 for each chain.
        alpha: concentration of the Dirichlet and Beta distributions that mix the chains.
        all_ops: also draw color, contrast, brightness and sharpness, which overlap with the
            corruptions of the -C benchmarks and are off in all of the paper's results.

    >>> AugMixSettings(severity=1)
    AugMixSettings(severity=1, width=3, depth=-1, alpha=1.0, all_ops=False)
    """

    # Posterize keeps 4 - int(0.4 * level) bits: at level 10 none would be left.
    severity: float = setting(3.0, "Maximum strength of an operation", low=LOWEST_LEVEL, high=10)
    width: int = setting(3, "Chains that AugMix mixes", low=1)
    depth: int = setting(-1, "Operations in each chain; -1 draws 1, 2 or 3 for each", low=-1)
    alpha: float = setting(
        1.0,
        "Concentration of the Dirichlet and Beta distributions that mix the chains",
        low=1e-6,
        high=1e6,
    )
    all_ops: bool = setting(False, "Also draw the four operations that overlap with -C corruptions")

    def __post_init__(self) -> None:
        check(self)
        if self.depth == 0:
            raise SettingError("depth", "must be -1 (random) or 1 or more; received 0.")

    @property
    def longest_chain(self) -> int:
        """The most operations that a chain can have."""
        return LONGEST_RANDOM_CHAIN if self.depth == -1 else self.depth

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations that are drawn."""
        return ops.OPERATIONS if self.all_ops else ops.PAPER_OPERATIONS


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
        batch_size: number of images N; all of a batch that is shared between workers.
        image_size: (height, width), which scales the translations.
        settings: the hyperparameters.

    Returns:
        The plan; the same for the same arguments, eagerly and in graphs. It is drawn on the host:
        XLA has no gamma distribution.

    >>> from augmix_tf import seeds
    >>> plan = draw_plan(seeds.fold(1, 0, 0, 1), 8, (32, 32), AugMixSettings())
    >>> plan.operation.shape, plan.mixed_share.shape
    (TensorShape([8, 3, 3]), TensorShape([8]))
    """
    views = draw_views([seed], batch_size, image_size, settings)
    return AugMixPlan(*(part[:, 0] for part in views))


def apply_plan(images: tf.Tensor, plan: AugMixPlan, fill: int = 0) -> tf.Tensor:
    """Makes one augmented view of each image.

    Images stay uint8 within a chain, as in Pillow; the mix is not quantized.

    Args:
        images: uint8 [N, H, W, 3], H and W known.
        plan: for N images.
        fill: value of pixels outside the image in geometric operations.

    Returns:
        float32 [N, H, W, 3], 0 to 255.

    Raises:
        ArgumentError: images of another type or rank, or a plan for another number of them.

    >>> images = np.full((2, 4, 6, 3), 200, np.uint8)
    >>> solarize = np.full((2, 1, 1), ops.OPERATIONS.index("solarize"))
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
    value_range: Sequence[float] = (0, 255),
) -> tf.Tensor:
    """Makes the views of a batch that the consistency loss compares, for `dataset.map`.

    Args:
        images: [N, H, W, 3] or [N, H, W, 1], H and W known, as `AugMix` takes them: integers in
            0..255, or floats, which are rounded to the nearest of 256 levels in `value_range`.
        run_seed, epoch, step: where in which run this batch stands. Every random choice follows
            from these and the number of the view.
        settings: the hyperparameters.
        views: V, including the clean image.
        fill: as in `apply_plan`.
        value_range: values of black and white, in `images` and in the views.

    Returns:
        Views [N, V, H, W, C] in `value_range`, of the images' float type (float32 for integers);
        view 0 is the clean image.

    Raises:
        ArgumentError: images of another rank, or that cannot be in `value_range` (in a graph
            `InvalidArgumentError`), or no view.

    >>> dataset = tf.data.Dataset.from_tensors(np.zeros((8, 20, 24, 3), np.uint8)).enumerate()
    >>> views = dataset.map(lambda step, x: augmix_views(x, 1, 0, step, AugMixSettings()))
    >>> views.element_spec.shape
    TensorShape([8, 3, 20, 24, 3])
    """
    require(views >= 1, "at least 1 view", views)
    images = tf.convert_to_tensor(images)
    levels = checks.to_levels(images, value_range)
    packed.check_images(levels)
    if views == 1:
        clean = tf.cast(levels, tf.float32)[:, None]
        return checks.from_levels(clean, images, value_range)
    view_seeds = [seeds.fold(run_seed, epoch, step, view) for view in range(1, views)]
    size = (levels.shape[1], levels.shape[2])
    plan = draw_views(view_seeds, tf.shape(levels)[0], size, settings)
    return checks.from_levels(apply_views(levels, plan, fill), images, value_range)


def draw_views(
    view_seeds: list[tf.Tensor],
    batch_size: int | tf.Tensor,
    image_size: tuple[int, int],
    settings: AugMixSettings,
    strength: float | tf.Tensor = 1.0,
) -> AugMixPlan:
    """Draws as `draw_plan` for each of the seeds; every part of the plan is [N, V - 1, ...].

    `strength`, 0 to 1, is the part of the severity that is in use.
    """
    width, calls = settings.width, settings.width * settings.longest_chain
    shares = width + 2
    sizes = (calls, calls, calls, width, shares)
    # Two draws for each view and no more: in a small batch the number of operations determines
    # the time, not their size.
    pairs = [seeds.split(seed, 2) for seed in view_seeds]
    uniform = [seeds.uniform(seed, [batch_size, sum(sizes)]) for seed, _ in pairs]
    gamma = [seeds.gamma(seed, [batch_size, shares], settings.alpha) for _, seed in pairs]
    parts = tf.split(tf.stack(uniform, axis=1), sizes, axis=-1)
    for_operation, for_level, for_sign, for_depth, for_shares = parts

    operation = seeds.below(len(settings.operations), for_operation)
    severity = tf.maximum(strength * tf.constant(settings.severity, tf.float64), LOWEST_LEVEL)
    level = LOWEST_LEVEL + for_level * (severity - LOWEST_LEVEL)
    parameter = registry.parameter_of(operation, level, for_sign < 0.5, image_size)
    if settings.depth == -1:
        chain_depth = 1 + seeds.below(LONGEST_RANDOM_CHAIN, for_depth)
    else:
        chain_depth = tf.fill(tf.shape(for_depth), settings.depth)
    logs = seeds.log_gamma(tf.stack(gamma, axis=1), for_shares, settings.alpha)
    grid = [-1, len(view_seeds), width, settings.longest_chain]
    return AugMixPlan(
        operation=tf.reshape(operation, grid),
        parameter=tf.reshape(parameter, grid),
        chain_depth=chain_depth,
        chain_weights=_dirichlet(logs[..., :width]),
        # Beta(a, a) is the first component of a Dirichlet(a, a).
        mixed_share=_dirichlet(logs[..., width:])[..., 0],
    )


def apply_views(images: tf.Tensor, plan: AugMixPlan, fill: int = 0) -> tf.Tensor:
    """Makes the views of `draw_views`, float32 [N, V, H, W, 3]; view 0 is the clean image."""
    images = tf.convert_to_tensor(images)
    packed.check_images(images)
    count = plan.operation.shape[0]
    if None not in (count, images.shape[0]) and count != images.shape[0]:
        raise ArgumentError(f"Expected a plan for {images.shape[0]} images; received {count}.")
    return _apply_views(images, plan, fill)


@compiled
def _apply_views(images: tf.Tensor, plan: AugMixPlan, fill: int) -> tf.Tensor:
    count, views, width, longest = plan.operation.shape
    count = count or tf.shape(images)[0]
    # All chains of all views go through one loop: axes (image, view, chain).
    packed_images = packed.pack(images)
    chains = ops.run_chains(
        packed_images,
        source=tf.repeat(tf.range(count), views * width),
        operation=tf.reshape(plan.operation, [-1, longest]),
        parameter=tf.reshape(plan.parameter, [-1, longest]),
        depth=tf.reshape(plan.chain_depth, [-1]),
        fill=fill,
    )
    chains = tf.reshape(chains, [count, views, width, *packed_images.shape[1:]])
    floats = (tf.cast(packed.unpack(chains[:, :, i]), tf.float32) for i in range(width))
    clean = tf.cast(images, tf.float32)
    mixed = mix_chains(clean, floats, plan.chain_weights, plan.mixed_share)
    return method.beside_clean(clean, mixed)


def mix_chains(
    clean: tf.Tensor,
    chains: Iterable[tf.Tensor],
    chain_weights: tf.Tensor,
    mixed_share: tf.Tensor,
) -> tf.Tensor:
    """Returns (1 - m) x + m sum_i w_i chain_i for each view, float32 [N, V, H, W, 3].

    Products are rounded before they are added, so that the bytes do not depend on what XLA fuses.

    Args:
        clean: x, float32 [N, H, W, 3].
        chains: for each i, float32 [N, V, H, W, 3].
        chain_weights: w, float32 [N, V, width].
        mixed_share: m, float32 [N, V].
    """
    blend = sum(
        packed.rounded(chain_weights[:, :, i, None, None, None] * chain)
        for i, chain in enumerate(chains)
    )
    share = mixed_share[:, :, None, None, None]
    return packed.rounded((1.0 - share) * clean[:, None]) + packed.rounded(share * blend)


def _dirichlet(log_gamma: tf.Tensor) -> tf.Tensor:
    # Gamma variables over their sum.
    return tf.cast(tf.nn.softmax(log_gamma), tf.float32)


MIX_OPS = ("augmix", "autoaugment", "random_autoaugment")
_MIXES = {"mix_ops": ("augmix",)}


@dataclasses.dataclass(frozen=True)
class AugMixMethod(ConsistencyMethod):
    """The paper's method: a consistency loss over the clean image and augmented views.

    Without the loss one augmented view replaces the image. The ablations of the paper make the
    views with AutoAugment's policies instead of mixed chains.
    """

    name = "augmix"

    mix_ops: str = setting(
        "augmix", "What makes the augmented views", choices=MIX_OPS, names_run=False
    )
    aug_severity: float = alias(AugMixSettings, "severity", needs=_MIXES)
    mixture_width: int = alias(AugMixSettings, "width", needs=_MIXES)
    mixture_depth: int = alias(AugMixSettings, "depth", needs=_MIXES)
    alpha: float = alias(AugMixSettings, "alpha", needs=_MIXES)
    all_ops: bool = alias(AugMixSettings, "all_ops", needs=_MIXES)
    policy: str = setting(
        "cifar10",
        "Sub-policies of AutoAugment, by the dataset they were found for",
        choices=("cifar10", "imagenet"),
        needs={"mix_ops": ("autoaugment",)},
    )
    fill: int | None = setting(
        None,
        "Value of pixels outside the image in geometric operations (unset: 0, AutoAugment 128)",
        low=0,
        high=255,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixture_depth == 0:
            raise SettingError("mixture_depth", "must be -1 (random) or 1 or more; received 0.")

    @property
    def settings(self) -> AugMixSettings:
        return AugMixSettings(
            self.aug_severity, self.mixture_width, self.mixture_depth, self.alpha, self.all_ops
        )

    @property
    def compiled(self) -> bool:
        return self.mix_ops == "augmix"

    def draw(
        self, streams: seeds.BatchSeeds, batch: BatchShape
    ) -> AugMixPlan | tuple[autoaugment.PolicyPlan, ...]:
        view_seeds = self.view_seeds(streams)
        if self.mix_ops == "augmix":
            return draw_views(view_seeds, *batch, self.settings)
        if not self.jsd:
            view_seeds = seeds.split(streams.stream(seeds.METHOD), 1)
        if self.mix_ops == "random_autoaugment":
            return tuple(autoaugment.draw_random_policy(seed, *batch) for seed in view_seeds)
        return tuple(autoaugment.draw_policy(seed, *batch, self.policy) for seed in view_seeds)

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: Any) -> Views:
        if isinstance(plan, AugMixPlan):
            views = apply_views(images, plan, self.fill or 0)
        else:
            fill = 128 if self.fill is None else self.fill
            augmented = [autoaugment.apply_policy(images, part, fill) for part in plan]
            views = tf.cast(tf.stack([images, *augmented], axis=1), tf.float32)
        return Views(views if self.jsd else views[:, 1:], labels)

    def histograms(self, plan: Any) -> dict[str, Histogram]:
        if not isinstance(plan, AugMixPlan):
            return autoaugment.policy_histograms(plan)
        operation, depth = plan.operation.numpy(), plan.chain_depth.numpy()
        return {
            "draws/operation": method.operation_histogram(
                operation, depth, self.settings.operations
            ),
            "draws/chain_depth": method.integer_histogram(
                depth, 1, operation.shape[-1], "Operations in a chain."
            ),
            "draws/chain_weight": method.fraction_histogram(
                plan.chain_weights.numpy(), "Weight of a chain in the mix."
            ),
            "draws/mixed_share": method.fraction_histogram(
                plan.mixed_share.numpy(), "Weight of the chains in a view; 0 is the clean image."
            ),
        }

    @classmethod
    def label(cls, config: Mapping[str, Any]) -> str:
        name = config.get("mix_ops") or "augmix"
        # The name of a policy says neither that there is a loss nor that there is none.
        usual = name == "augmix" or not config.get("jsd", True)
        return cls.consistency_label(name, usual, config)
