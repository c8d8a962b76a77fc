"""What chance chooses for a run's batches, counted for the dashboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment.augmix import AugMixPlan, draw_views
from augmix_tf.augment.policies import PolicyPlan, draw_autoaugment, draw_random_autoaugment
from augmix_tf.config import ExperimentConfig
from augmix_tf.ops import OPERATIONS, PAPER_OPERATIONS
from augmix_tf.training.monitoring import Histogram

OPERATION = "draws/operation"
_SHARES = np.linspace(0, 1, 21)


class Draws(NamedTuple):
    """What can be counted of a run's method.

    Attributes:
        names: of the operations that it draws.
        of_epoch: epoch, from 0 -> tag -> histogram, of the plans that training draws for the
            epoch's first batch, over all its images and augmented views. `draws/operation` counts
            the operations that are applied; AugMix has `draws/chain_depth`, `draws/chain_weight`
            and `draws/mixed_share` as well.
    """

    names: tuple[str, ...]
    of_epoch: Callable[[int], dict[str, Histogram]]

    def operations(self, epoch: int) -> dict[str, int]:
        """Returns operation -> how often it is applied."""
        counts = self.of_epoch(epoch)[OPERATION].counts
        return {name: int(count) for name, count in zip(self.names, counts, strict=True)}


def draws_of(config: ExperimentConfig, image_size: tuple[int, int]) -> Draws | None:
    """Returns what a run draws; None for a method that draws no operations.

    Args:
        config: of the run.
        image_size: (height, width).
    """
    policy = config.mix_ops if config.method == "augmix" else config.method
    if policy == "augmix":
        views = config.views if config.jsd else 2
        names = OPERATIONS if config.all_ops else PAPER_OPERATIONS

        def of_epoch(epoch: int) -> dict[str, Histogram]:
            place = (config.seed, epoch, 0)
            plan = draw_views(place, config.batch_size, image_size, config.augmix, views)
            assert plan is not None  # there are two views or more
            return _of_augmix(plan, names)

        return Draws(names, of_epoch)
    if policy not in ("autoaugment", "random_autoaugment"):
        return None

    table = config.policy

    def of_policies(epoch: int) -> dict[str, Histogram]:
        plans = [
            _policy_plan(policy, table, seed, config.batch_size, image_size)
            for seed in _policy_seeds(config, epoch)
        ]
        operation, _, depth = (tf.stack(part, axis=1) for part in zip(*plans, strict=True))
        return {OPERATION: _operations(operation, depth, OPERATIONS)}

    return Draws(OPERATIONS, of_policies)


def _policy_seeds(config: ExperimentConfig, epoch: int) -> list[tf.Tensor]:
    """The seeds that `augment.methods` gives the policy: of each view, or of the only one."""
    if config.method == "augmix" and config.jsd:
        return [seeds.fold(config.seed, epoch, 0, view) for view in range(1, config.views)]
    changes = 2 if config.cutout_size else 1
    return seeds.split(seeds.fold(config.seed, epoch, 0, seeds.METHOD), changes)[:1]


def _policy_plan(
    policy: str, table: str, seed: tf.Tensor, count: int, image_size: tuple[int, int]
) -> PolicyPlan:
    if policy == "autoaugment":
        return draw_autoaugment(seed, count, image_size, table)
    return draw_random_autoaugment(seed, count, image_size)


def _of_augmix(plan: AugMixPlan, names: tuple[str, ...]) -> dict[str, Histogram]:
    depth, deepest = plan.chain_depth.numpy(), plan.operation.shape[-1]
    return {
        OPERATION: _operations(plan.operation, plan.chain_depth, names),
        "draws/chain_depth": _whole(depth, 1, deepest, "Operations in a chain."),
        "draws/chain_weight": _share(plan.chain_weights, "Weight of a chain in the mix."),
        "draws/mixed_share": _share(
            plan.mixed_share, "Share of the mixed chains in a view; 0 is the picture itself."
        ),
    }


def _operations(operation: tf.Tensor, depth: tf.Tensor, names: tuple[str, ...]) -> Histogram:
    """Counts operations [..., D], of which the first `depth` [...] are applied."""
    drawn = operation.numpy()
    applied = drawn[np.arange(drawn.shape[-1]) < depth.numpy()[..., None]]
    said = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    return _whole(applied, 0, len(names) - 1, f"Operations that are applied: {said}.")


def _whole(values: np.ndarray, first: int, last: int, said: str) -> Histogram:
    """Counts whole numbers, each in the middle of a bin."""
    edges = np.arange(first, last + 2) - 0.5
    return Histogram(edges, np.histogram(values, edges)[0], said)


def _share(values: tf.Tensor, said: str) -> Histogram:
    return Histogram(_SHARES, np.histogram(values.numpy(), _SHARES)[0], said)
