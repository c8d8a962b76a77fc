"""Augmentations: each draws a plan first and then applies it."""

from augmix_tf.augment.augmix import (
    AugMixPlan,
    apply_plan,
    augmix_views,
    draw_plan,
)
from augmix_tf.settings import AugMixSettings

__all__ = ["AugMixPlan", "AugMixSettings", "apply_plan", "augmix_views", "draw_plan"]
