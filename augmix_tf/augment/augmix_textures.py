"""AugMix in which some chains mix in textures: views, weights and loss are those of AugMix.

AugMix's operations add little of high spatial frequency, and noise and glass blur stay its largest
errors. Here half of the chains, instead of operations, mix up to three patches as IPMix does, each
with a partner of its own: half of them a crop of the mixing set, half the original image after one
of AugMix's operations, as in PixMix. Sums and products are clipped, and nothing is rounded to 8
bits. The share of these chains and the severity rise over the first epochs.

This method is this project's own and has no published results.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from etils import epy

from augmix_tf.augment import augmix, ipmix, method, mixing_set, pixmix
from augmix_tf.augment.augmix import AugMixPlan, AugMixSettings
from augmix_tf.augment.ipmix import MIXINGS, Patches, PatchMethod
from augmix_tf.augment.method import BatchShape, Histogram, Views
from augmix_tf.augment.mixing_set import MixingSet
from augmix_tf.runtime import compiled
from augmix_tf.settings import setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import tensorflow as tf

    from augmix_tf import ops, seeds
    from augmix_tf.ops import packed


class TexturePlan(NamedTuple):
    """Every random choice of V augmented views of N images; tests write it by hand."""

    # Parts are [N, V, ...]. In a texture chain an operation makes the partner of its step.
    chains: AugMixPlan
    is_texture: tf.Tensor  # bool [N, V, width]
    operates: tf.Tensor  # bool [N, V, width, depth]; else the partner is a mixing image
    number: tf.Tensor  # int32 [N, V, width, depth], which mixing image
    place: tf.Tensor  # float64 [N, V, width, depth, 2], where it is cropped
    patches: Patches  # [N, V, width, depth]


def draw_textures(
    view_seeds: list[tf.Tensor],
    batch: BatchShape,
    settings: AugMixSettings,
    texture_share: float,
    strength: tf.Tensor,
    sides: list[int],
    mixings: int,
    mixing_images: int,
) -> TexturePlan:
    """Draws a view of each image for each of the seeds.

    `strength`, 0 to 1, is the part of the severity and of the share of texture chains that is in
    use.
    """
    chains = augmix.draw_views(view_seeds, *batch, settings, strength)
    shape = [batch.size, settings.width, settings.longest_chain]
    drawn, patches = [], []
    for seed in view_seeds:
        # The first two are those of `draw_views`.
        _, _, for_choices, for_patches = seeds.split(seed, 4)
        drawn.append(seeds.uniform(for_choices, [*shape, 5]))
        patches.append(ipmix.draw_patches(for_patches, shape, sides, batch.image_size, mixings))
    kind, operates, number, row, column = tf.unstack(tf.stack(drawn, axis=1), axis=-1)
    return TexturePlan(
        chains=chains,
        is_texture=kind[..., 0] < texture_share * strength,
        operates=operates < 0.5,
        number=seeds.below(mixing_images, number),
        place=tf.stack([row, column], axis=-1),
        patches=Patches(*(tf.stack(part, axis=1) for part in zip(*patches, strict=True))),
    )


@compiled
def apply_textures(
    images: tf.Tensor,
    mixing_images: MixingSet,
    plan: TexturePlan,
    noise: ipmix.Noise = ipmix.uniform_noise,
) -> tf.Tensor:
    """Makes the views of a plan, float32 [N, V, H, W, 3], 0 to 255, of uint8 [N, H, W, 3]."""
    size = images.shape[1:3]
    views, width, longest = plan.operates.shape[1:]
    # One row for each chain: [N * views * width, ...].
    chosen = plan.chains[:3], plan.is_texture, *plan[2:]
    calls, is_texture, operates, number, place, patches = tf.nest.map_structure(
        lambda part: tf.reshape(part, [-1, *part.shape[3:]]), chosen
    )
    operation, parameter, depth = calls
    used = is_texture[:, None] & operates & (tf.range(longest) < depth[:, None])
    # The chain itself, and the partner that each step may need.
    depths = [tf.where(is_texture, 0, depth)[:, None], tf.cast(used, tf.int32)]
    operated = ops.run_chains(
        packed.pack(images),
        source=tf.repeat(tf.range(tf.shape(images)[0]), views * width * (1 + longest)),
        operation=_with_partners(operation),
        parameter=_with_partners(parameter),
        depth=tf.reshape(tf.concat(depths, axis=1), [-1]),
    )
    operated = tf.reshape(operated, [-1, 1 + longest, *size])

    def chain(arguments: tuple[tf.Tensor, ...]) -> tf.Tensor:
        candidates, depth, operates, number, place, patches = arguments

        def step(index: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            partner = tf.cond(
                operates[index],
                lambda: candidates[1 + index],
                lambda: mixing_set.crop(mixing_images, number[index], place[index], size),
            )
            patch = Patches(*(part[index] for part in patches))
            return index + 1, _mix_patch(x, pixmix.levels_of(partner), patch, noise)

        start = (tf.constant(0), pixmix.fractions(pixmix.levels_of(candidates[0])))
        return tf.while_loop(lambda index, _: index < depth, step, start)[1]

    arguments = (operated, tf.where(is_texture, depth, 0), operates, number, place, patches)
    spec = tf.TensorSpec([3, *size], tf.float32)
    chains = tf.map_fn(chain, arguments, fn_output_signature=spec)
    chains = 255 * tf.reshape(chains, [-1, views, width, 3, *size])
    # Channels stay in front until all is mixed, because XLA moves them slowly.
    mixed = augmix.mix_chains(
        tf.transpose(tf.cast(images, tf.float32), [0, 3, 1, 2]),
        tf.unstack(chains, axis=2),
        plan.chains.chain_weights,
        plan.chains.mixed_share,
    )
    return tf.transpose(mixed, [0, 1, 3, 4, 2])


def _mix_patch(x: tf.Tensor, levels: tf.Tensor, patch: Patches, noise: ipmix.Noise) -> tf.Tensor:
    """Mixes a patch of x, 0 to 1, with levels 0 to 255; sums and products are clipped."""
    return ipmix.mix_patch(
        x,
        pixmix.fractions(levels),
        patch,
        lambda x, y, weights: tf.clip_by_value(pixmix.add(x, y, weights), 0.0, 1.0),
        lambda x, _, weights: tf.clip_by_value(pixmix.multiply(x, levels, weights), 0.0, 1.0),
        noise,
    )


def _with_partners(calls: tf.Tensor) -> tf.Tensor:
    """Returns each chain [T, D] and then its steps as chains of one: [T * (1 + D), D]."""
    longest = calls.shape[1]
    single = tf.repeat(calls[:, :, None], longest, axis=2)
    return tf.reshape(tf.concat([calls[:, None], single], axis=1), [-1, longest])


@dataclasses.dataclass(frozen=True)
class AugMixTexturesMethod(PatchMethod):
    """AugMix in which half of the chains mix in textures; this project's own."""

    name = "augmix_textures"

    texture_share: float = setting(0.5, "Share of the chains that mix in textures", low=0, high=1)
    texture_masks: bool = setting(True, "Mix textures also through random masks")
    ramp_epochs: int = setting(
        0,
        "Epochs in which the severity and the share of textures rise from 0; unless given, three "
        "tenths of --epochs",
        low=0,
    )

    @property
    def counts_epochs(self) -> bool:
        return self.ramp_epochs > 0

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> TexturePlan:
        strength = tf.ones([], tf.float64)
        if self.ramp_epochs:
            passed = tf.cast(streams.epoch, tf.float64) + 0.5
            strength = tf.minimum(strength, passed / self.ramp_epochs)
        return draw_textures(
            self.view_seeds(streams),
            batch,
            AugMixSettings(self.aug_severity),
            self.texture_share,
            strength,
            self.sides(batch.image_size),
            len(MIXINGS) if self.texture_masks else 2,
            len(self.mixing_set(batch.image_size).first),
        )

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: TexturePlan) -> Views:
        mixing_images = self.mixing_set(tuple(images.shape[1:3]))
        augmented = apply_textures(images, mixing_images, plan)
        return Views(self.beside_clean(images, augmented), labels)

    def histograms(self, plan: TexturePlan) -> dict[str, Histogram]:
        depth, is_texture = plan.chains.chain_depth.numpy(), plan.is_texture.numpy()
        operations, mixings = plan.chains.operation.numpy(), plan.patches.mixing.numpy()
        return {
            "draws/operation": method.operation_histogram(
                operations, depth * ~is_texture, ops.PAPER_OPERATIONS
            ),
            "draws/mixing": method.operation_histogram(mixings, depth * is_texture, MIXINGS),
        }
