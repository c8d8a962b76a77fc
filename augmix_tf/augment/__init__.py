"""Augmentations: each draws a plan first and then applies it."""

from augmix_tf.augment.augmix import AugMixPlan, AugMixSettings, apply_plan, augmix_views, draw_plan

__all__ = ["AugMixPlan", "AugMixSettings", "apply_plan", "augmix_views", "draw_plan"]
