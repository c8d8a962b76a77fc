"""Standard training, and adversarial training, whose images are made during the step."""

from __future__ import annotations

import dataclasses

from etils import epy

from augmix_tf.augment.method import Attack, BatchShape, Method, Views
from augmix_tf.settings import RUN_MODES, setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import tensorflow as tf

    from augmix_tf import seeds


@dataclasses.dataclass(frozen=True)
class StandardMethod(Method):
    """Random crop and flip only."""

    name = "standard"

    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> tuple[()]:
        return ()

    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: tuple[()]) -> Views:
        return Views(tf.cast(images, tf.float32)[:, None], labels)


@dataclasses.dataclass(frozen=True)
class AdversarialMethod(StandardMethod):
    """Adversarial training (Madry et al., 2018): each step attacks the network."""

    name = "adversarial"

    adversary_epsilon: float = setting(
        8.0,
        "Largest change of a value by the attack, on the scale 0 to 255",
        low=0,
        high=255,
        modes=RUN_MODES,
    )
    adversary_step_size: float = setting(
        2.0,
        "Change of a value in one attack step, on the scale 0 to 255",
        above=0,
        modes=RUN_MODES,
    )
    adversary_steps: int = setting(10, "Attack steps", low=1, modes=RUN_MODES)

    @property
    def attack(self) -> Attack:
        return Attack(self.adversary_epsilon, self.adversary_step_size, self.adversary_steps)
