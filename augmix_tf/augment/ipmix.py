"""IPMix: AugMix's frame with chains of operations and chains that mix in patches.

    x_augmented = (1 - m) x + m * sum_i w_i chain_i(x),   w ~ Dirichlet(1, 1, 1),   m ~ U(0, 1)

Half of the three chains apply 0 to 3 operations. The others mix 0 to 3 patches, boxes of at most
4, 8, 16 or 32 pixels' side, with the same box of an image of the mixing set: they add or multiply
as PixMix does, or take each pixel, or each value, from one of the two at random.

The authors' code does not clip a sum or product before it makes 8-bit values, so these wrap around:
1.2 becomes 50. Published results are with it. All views of an image share one mixing image.

Source: Huang et al., IPMix, NeurIPS 2023 (arXiv 2310.04780), and the authors' code.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from etils import epy

from augmix_tf.augment import augmix, method, mixing_set, pixmix
from augmix_tf.augment.augmix import LOWEST_LEVEL, AugMixSettings
from augmix_tf.augment.method import BatchShape, Histogram, Views
from augmix_tf.augment.mixing_set import MixingMethod, MixingSet
from augmix_tf.errors import SettingError
from augmix_tf.runtime import compiled
from augmix_tf.settings import alias, setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import numpy as np
    import tensorflow as tf

    from augmix_tf import ops, seeds
    from augmix_tf.ops import packed, registry

WIDTH, STEPS = 3, 3  # chains, and steps of a chain at most
MIRROR = 13  # number of the operation that mirrors left and right, after `ops.OPERATIONS`
BETA = 3.0  # of the weights that add and multiply
MIXINGS = ("add", "multiply", "pixels", "values")
"""Ways to mix a patch; `Patches.mixing` is an index into this."""

Mix: TypeAlias = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], "tf.Tensor"]
Noise: TypeAlias = Callable[["tf.Tensor", tuple[int, ...]], "tf.Tensor"]


class Patches(NamedTuple):
    """How steps mix a patch of an image with the same patch of another."""

    mixing: tf.Tensor  # int32 [...], index into MIXINGS
    box: tf.Tensor  # int32 [..., 4], top, left, height, width
    weights: tf.Tensor  # float32 [..., 2], a and b of "add" and "multiply"
    kept: tf.Tensor  # float32 [...], probability that a random mask keeps the image's own value
    noise: tf.Tensor  # int32 [..., 2], seed of the mask


class IPMixPlan(NamedTuple):
    """Every random choice of V augmented views of N images; tests write it by hand."""

    number: tf.Tensor  # int32 [N], which mixing image
    place: tf.Tensor  # float64 [N, 2], where it is cropped, see `mixing_set.crop`
    is_mixed: tf.Tensor  # bool [N, V, WIDTH], whether a chain mixes patches
    steps: tf.Tensor  # int32 [N, V, WIDTH], 0 to STEPS
    operation: tf.Tensor  # int32 [N, V, WIDTH, STEPS], indexes into ops.OPERATIONS; 13: mirror
    parameter: tf.Tensor  # float64 [N, V, WIDTH, STEPS], in the units of ops.apply_op
    patches: Patches  # [N, V, WIDTH, STEPS]
    chain_weights: tf.Tensor  # float32 [N, V, WIDTH], rows sum to 1
    mixed_share: tf.Tensor  # float32 [N, V], 0 = original image, 1 = chains only


def draw_patches(
    seed: tf.Tensor,
    shape: seeds.Shape,
    sides: Sequence[int],
    image_size: tuple[int, int],
    mixings: int = len(MIXINGS),
) -> Patches:
    """Draws patches of `shape`, and the first so many of `MIXINGS`.

    A square of one of the `sides` lies anywhere in the image. Half of the boxes are that square,
    the others begin at its corner and are 2 pixels to its side high and wide.
    """
    for_uniform, for_noise = seeds.split(seed, 2)
    uniform = tf.unstack(seeds.uniform(for_uniform, [*shape, 11]), axis=-1)
    side = tf.gather(tf.constant(sides), seeds.below(len(sides), uniform[0]))
    lengths = [tf.where(uniform[1] < 0.5, side, 2 + seeds.below(side - 1, u)) for u in uniform[2:4]]
    corner = [
        seeds.below(length - side + 1, u)
        for length, u in zip(image_size, uniform[4:6], strict=True)
    ]
    return Patches(
        mixing=seeds.below(mixings, uniform[6]),
        box=tf.stack([*corner, *lengths], axis=-1),
        weights=pixmix.draw_weights(uniform[7:10], BETA),
        kept=tf.cast(uniform[10], tf.float32),
        noise=seeds.words(for_noise, [*shape, 2]),
    )


def draw_ipmix(
    image_seed: tf.Tensor,
    view_seeds: list[tf.Tensor],
    batch: BatchShape,
    severity: float,
    sides: Sequence[int],
    mixing_images: int,
) -> IPMixPlan:
    """Draws the mixing images, and a view of each image for each of the view seeds."""
    names = [name for name in ops.PAPER_OPERATIONS if name != "autocontrast"]
    operations = tf.constant([*map(ops.OPERATIONS.index, (*names, "solarize")), MIRROR])
    calls, shape = WIDTH * STEPS, [batch.size, len(view_seeds), WIDTH]
    sizes = (calls, calls, calls, WIDTH, WIDTH, WIDTH, 1)
    pairs = [seeds.split(seed, 2) for seed in view_seeds]
    uniform = [seeds.uniform(seed, [batch.size, sum(sizes)]) for seed, _ in pairs]
    parts = tf.split(tf.stack(uniform, axis=1), sizes, axis=-1)
    drawn, level, sign = (tf.reshape(part, [*shape, STEPS]) for part in parts[:3])
    drawn = seeds.below(len(names) + 2, drawn)
    operation = tf.gather(operations, drawn)
    level = LOWEST_LEVEL + level * (severity - LOWEST_LEVEL)
    parameter = registry.parameter_of(
        tf.minimum(operation, MIRROR - 1), level, sign < 0.5, batch.image_size
    )
    place = seeds.uniform(image_seed, [batch.size, 3])
    patches = [
        draw_patches(seed, [batch.size, WIDTH, STEPS], sides, batch.image_size) for _, seed in pairs
    ]
    lengths = -tf.math.log1p(-parts[5])  # a Dirichlet of ones: exponential variables over their sum
    return IPMixPlan(
        number=seeds.below(mixing_images, place[:, 0]),
        place=place[:, 1:],
        is_mixed=parts[3] < 0.5,
        steps=seeds.below(STEPS + 1, parts[4]),
        operation=operation,
        # The second solarize inverts.
        parameter=tf.where(drawn == len(names), tf.zeros_like(parameter), parameter),
        patches=Patches(*(tf.stack(part, axis=1) for part in zip(*patches, strict=True))),
        chain_weights=tf.cast(lengths / tf.reduce_sum(lengths, -1, keepdims=True), tf.float32),
        mixed_share=tf.cast(parts[6][..., 0], tf.float32),
    )


def uniform_noise(seed: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Draws float32 of `shape`, uniform from 0 to below 1 in steps of 2^-24.

    From integers, which unlike floats are drawn alike under XLA.
    """
    words = tf.bitwise.right_shift(tf.bitcast(seeds.words(seed, shape), tf.uint32), 8)
    return tf.cast(tf.cast(words, tf.int32), tf.float32) * 2.0**-24


def mix_patch(
    x: tf.Tensor, y: tf.Tensor, patch: Patches, add: Mix, multiply: Mix, noise: Noise
) -> tf.Tensor:
    """Mixes the patch of images [3, H, W] and returns x with it.

    `add` and `multiply` take x, y and the weights; `noise` makes the numbers below which `kept`
    has to be for a mask to keep x.
    """
    height, width = x.shape[1:]

    def masked(channels: int) -> tf.Tensor:
        return tf.where(noise(patch.noise, (channels, height, width)) < patch.kept, x, y)

    mixed = tf.switch_case(
        patch.mixing,
        [
            lambda: add(x, y, patch.weights),
            lambda: multiply(x, y, patch.weights),
            lambda: masked(1),
            lambda: masked(3),
        ],
    )
    row, column = tf.range(height) - patch.box[0], tf.range(width) - patch.box[1]
    rows, columns = (row >= 0) & (row < patch.box[2]), (column >= 0) & (column < patch.box[3])
    return tf.where(rows[:, None] & columns, mixed, x)


def _added(x: tf.Tensor, y: tf.Tensor, weights: tf.Tensor, clip: bool) -> tf.Tensor:
    """`pixmix.add` of 8-bit values."""
    # A divisor that is not constant, because XLA multiplies by the inverse of a constant.
    scale = tf.maximum(255.0, weights[0])
    mixed = pixmix.add(tf.cast(x, tf.float32) / scale, tf.cast(y, tf.float32) / scale, weights)
    return _levels(mixed, clip)


def _multiplied(x: tf.Tensor, y: tf.Tensor, weights: tf.Tensor, clip: bool) -> tf.Tensor:
    """`pixmix.multiply` of 8-bit values, with powers from a table: there are 256."""
    first, second = pixmix.powers(weights[0]), pixmix.powers(weights[1], 1e-37)
    return _levels(tf.gather(first, x) * tf.gather(second, y) / 2, clip)


def _levels(values: tf.Tensor, clip: bool) -> tf.Tensor:
    """Makes 8-bit values of 0 to 1, int32: others are clipped, or wrap around."""
    scaled = 255 * (tf.clip_by_value(values, 0.0, 1.0) if clip else values)
    # Beyond the range of int32 the authors' code gives 0.
    return tf.cast(tf.where(tf.abs(scaled) < 2.0**31, scaled, 0.0), tf.int32) & 255


@compiled
def apply_ipmix(
    images: tf.Tensor,
    mixing_images: MixingSet,
    plan: IPMixPlan,
    clip: bool = False,
    noise: Noise = uniform_noise,
) -> tf.Tensor:
    """Makes the views of a plan, float32 [N, V, H, W, 3], 0 to 255, of uint8 [N, H, W, 3].

    Chains have the authors' bytes.
    """
    count, views = tf.shape(plan.steps)[0], plan.steps.shape[1]
    size = images.shape[1:3]
    source = tf.repeat(tf.range(count), views * WIDTH)
    rows = tf.nest.map_structure(lambda p: tf.reshape(p, [-1, *p.shape[3:]]), plan[2:7])
    is_mixed, steps, operation, parameter, patches = rows
    operated = ops.run_chains(
        packed.pack(images),
        source,
        operation,
        parameter,
        depth=tf.where(is_mixed, 0, steps),
        more=(lambda image, _: tf.reverse(image, [1]),),
    )
    functions = (
        functools.partial(_added, clip=clip),
        functools.partial(_multiplied, clip=clip),
        noise,
    )

    def chain(arguments: tuple[tf.Tensor, ...]) -> tf.Tensor:
        start, number, place, depth, steps_of_chain = arguments

        def mixed() -> tf.Tensor:
            y = pixmix.levels_of(mixing_set.crop(mixing_images, number, place, size))

            def step(index: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                patch = Patches(*(part[index] for part in steps_of_chain))
                return index + 1, mix_patch(x, y, patch, *functions)

            begin = (tf.constant(0), pixmix.levels_of(start))
            x = tf.while_loop(lambda index, _: index < depth, step, begin)[1]
            return packed.join(tf.unstack(x))

        return tf.cond(depth > 0, mixed, lambda: start)

    depth = tf.where(is_mixed, steps, 0)
    arguments = (
        operated,
        tf.gather(plan.number, source),
        tf.gather(plan.place, source),
        depth,
        patches,
    )
    chains = tf.map_fn(chain, arguments, fn_output_signature=tf.TensorSpec(size, tf.int32))
    chains = tf.reshape(chains, [-1, views, WIDTH, *size])
    floats = (tf.cast(packed.unpack(chains[:, :, i]), tf.float32) for i in range(WIDTH))
    clean = tf.cast(images, tf.float32)
    return augmix.mix_chains(clean, floats, plan.chain_weights, plan.mixed_share)


@dataclasses.dataclass(frozen=True)
class PatchMethod(MixingMethod):
    """A method that mixes in patches."""

    aug_severity: float = alias(AugMixSettings, "severity")
    patch_sides: str = setting("4,8,16,32", "Sides of the squares that hold the patches, in pixels")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(side.isdecimal() and int(side) > 1 for side in self.patch_sides.split(",")):
            problem = f"must be whole numbers of 2 or more; received {self.patch_sides}."
            raise SettingError("patch_sides", problem)

    def prepare(self, image_size: tuple[int, int]) -> dict[str, Any]:
        self.sides(image_size)
        return super().prepare(image_size)

    def sides(self, image_size: tuple[int, int]) -> list[int]:
        """Returns `patch_sides` as numbers, or raises `SettingError` if one is too large."""
        sides = [int(side) for side in self.patch_sides.split(",")]
        if max(sides) > min(image_size):
            size = "{} x {}".format(*image_size)
            problem = f"must fit into the images of {size} pixels; received {max(sides)}."
            raise SettingError("patch_sides", problem)
        return sides


@dataclasses.dataclass(frozen=True)
class IPMixMethod(PatchMethod):
    """IPMix (Huang et al., 2023): chains of operations and of patches mixed with fractals.

    The published numbers are with the consistency loss.
    """

    name = "ipmix"

    clip: bool = setting(
        False, "Clip sums and products to 8 bits, which wrap around in the published method"
    )

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> IPMixPlan:
        return draw_ipmix(
            streams.stream(seeds.METHOD),
            self.view_seeds(streams),
            batch,
            self.aug_severity,
            self.sides(batch.image_size),
            len(self.mixing_set(batch.image_size).first),
        )

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: IPMixPlan) -> Views:
        mixing_images = self.mixing_set(tuple(images.shape[1:3]))
        views = apply_ipmix(images, mixing_images, plan, self.clip)
        return Views(self.beside_clean(images, views), labels)

    def histograms(self, plan: IPMixPlan) -> dict[str, Histogram]:
        steps, is_mixed = plan.steps.numpy(), plan.is_mixed.numpy()
        names = (*ops.OPERATIONS, "mirror")
        operations = method.operation_histogram(
            plan.operation.numpy(), np.where(is_mixed, 0, steps), names
        )
        mixings = method.operation_histogram(
            plan.patches.mixing.numpy(), np.where(is_mixed, steps, 0), MIXINGS
        )
        return {"draws/operation": operations, "draws/mixing": mixings}
