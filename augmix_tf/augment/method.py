"""What a training method is: it draws a plan for a batch and applies it; and the simplest ones.

The random crop and flip come before it and belong to the data, see `crops`. A new method is a
subclass of `Method` in a file of its own, and a row of `augmix_tf.methods.METHODS`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from etils import epy

from augmix_tf.settings import RUN_MODES, check, setting

with epy.lazy_imports():  # the command line reads the settings without loading TensorFlow
    import numpy as np
    import tensorflow as tf

    from augmix_tf import seeds


class BatchShape(NamedTuple):
    """What a plan is drawn for: N images of one size."""

    size: int
    image_size: tuple[int, int]  # height, width


class Views(NamedTuple):
    """What the network is trained on."""

    views: tf.Tensor  # float32 [N, V, H, W, 3], 0 to 255
    targets: tf.Tensor  # labels [N], or class probabilities float32 [N, K]


class Attack(NamedTuple):
    """An attack on the network that makes the images of adversarial training."""

    epsilon: float  # largest change of a value, on the scale 0 to 255
    step_size: float  # change in one step, on the same scale
    steps: int


class Histogram(NamedTuple):
    """How often values fell into bins."""

    edges: np.ndarray  # float [B + 1], ascending; bin b holds edge b to edge b + 1
    counts: np.ndarray  # [B]
    description: str = ""  # Markdown, shown on the dashboard


class Method(abc.ABC):
    """One way to augment batches; a frozen dataclass whose fields are its settings."""

    name: ClassVar[str]  # as in `--method`
    # Whether a view depends on other images of the batch. Then `apply` always gets the whole batch.
    mixes_examples: ClassVar[bool] = False
    jsd_weight: float = 0.0  # weight of the consistency loss over the views; 0 for none
    label_all_views: bool = False  # whether the cross-entropy is that of all views, not the first's

    def __post_init__(self) -> None:
        check(self)

    @property
    def attack(self) -> Attack | None:
        """The attack that makes the training images from the views, or None."""
        return None

    @property
    def views_per_image(self) -> int:
        """V, the views that `apply` makes of each image."""
        return 1

    @property
    def compiled(self) -> bool:
        """Whether `apply` runs in one XLA program with the crop, and gives the same bytes there."""
        return False

    @property
    def counts_epochs(self) -> bool:
        """Whether the draws for a batch depend on the number of the epoch."""
        return False

    @property
    def batch_norms(self) -> int:
        """1, or V for separate batch normalization of each view."""
        return 1

    @abc.abstractmethod
    def draw(self, streams: seeds.BatchSeeds, batch: BatchShape) -> Any:
        """Draws every random choice for a batch.

        Returns tensors, nested in tuples; unless `mixes_examples`, each has a row for every image.
        """

    @abc.abstractmethod
    def apply(self, images: tf.Tensor, labels: tf.Tensor, plan: Any) -> Views:
        """Makes the views that `draw` drew, without further random choices.

        Images are uint8 [N, H, W, 3], cropped and flipped; labels are int64 [N], or one-hot
        float32 [N, K] where `mixes_examples`.
        """

    def prepare(self, image_size: tuple[int, int]) -> dict[str, Any]:
        """Reads or draws, once, what the method uses besides the training images.

        Returns what `results.json` says of it; raises `SettingError` if images of this size,
        (height, width), do not suit the settings.
        """
        return {}

    def histograms(self, plan: Any) -> dict[str, Histogram]:
        """Returns tag -> histogram of what was drawn, for the dashboard; {} for nothing to show."""
        return {}

    @classmethod
    def label(cls, config: Mapping[str, Any]) -> str:
        """Returns a method's name in tables, from the settings of a run; some may be missing."""
        return cls.name


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
        2.0, "Change of a value in one attack step, on the scale 0 to 255", above=0, modes=RUN_MODES
    )
    adversary_steps: int = setting(10, "Attack steps", low=1, modes=RUN_MODES)

    @property
    def attack(self) -> Attack:
        return Attack(self.adversary_epsilon, self.adversary_step_size, self.adversary_steps)


_WITH_JSD = {"jsd": (True,)}


@dataclasses.dataclass(frozen=True)
class ConsistencyMethod(Method):
    """A method that makes augmented views, and may compare them with the clean one in the loss.

    Without the consistency loss one augmented view replaces the image.
    """

    jsd: bool = setting(
        True, "Jensen-Shannon consistency loss over clean and augmented views", names_run=False
    )
    jsd_weight: float = setting(
        12.0, "Weight of the consistency loss", low=0, needs=_WITH_JSD, modes=RUN_MODES
    )
    views: int = setting(
        3, "Views of each image, including the clean one", low=2, needs=_WITH_JSD, names_run=False
    )
    label_all_views: bool = setting(
        False, "Mean cross-entropy of all views, not the clean one's", needs=_WITH_JSD
    )
    split_bn: bool = setting(
        False,
        "Separate batch normalization for each view",
        needs=_WITH_JSD,
        names_run=False,
        modes=RUN_MODES,
    )

    @property
    def views_per_image(self) -> int:
        return self.views if self.jsd else 1

    @property
    def batch_norms(self) -> int:
        return self.views if self.split_bn and self.jsd else 1

    def view_seeds(self, streams: seeds.BatchSeeds) -> list[tf.Tensor]:
        """Returns a seed for each augmented view."""
        return [streams.stream(view) for view in range(1, self.views if self.jsd else 2)]

    def beside_clean(self, images: tf.Tensor, augmented: tf.Tensor) -> tf.Tensor:
        """As the function `beside_clean` if there is a loss, otherwise the augmented views."""
        return beside_clean(images, augmented) if self.jsd else augmented

    @classmethod
    def label(cls, config: Mapping[str, Any]) -> str:
        return cls.consistency_label(cls.name, cls.jsd, config)

    @classmethod
    def consistency_label(cls, name: str, usual: bool, config: Mapping[str, Any]) -> str:
        """Adds to a name how the loss differs; `usual`: whether the name says that there is one."""
        jsd = config.get("jsd", cls.jsd)
        if jsd != usual:
            name += " + JSD" if jsd else ", no JSD"
        if not jsd:
            return name
        if config.get("views", cls.views) != cls.views:
            name += f", {config['views']} views"
        name += ", all views labelled" if config.get("label_all_views") else ""
        return name + (", split BN" if config.get("split_bn") else "")


def beside_clean(images: tf.Tensor, augmented: tf.Tensor) -> tf.Tensor:
    """Puts the clean view of images [N, H, W, 3] before the augmented ones.

    Augmented views are float32 [N, V - 1, H, W, 3], 0 to 255.
    """
    # Padding instead of concatenation: XLA would write the augmented views and then copy them.
    padded = tf.pad(augmented, [[0, 0], [1, 0], [0, 0], [0, 0], [0, 0]])
    is_clean = (tf.range(padded.shape[1]) == 0)[:, None, None, None]
    return tf.where(is_clean, tf.cast(images, tf.float32)[:, None], padded)


def integer_histogram(values: np.ndarray, first: int, last: int, description: str) -> Histogram:
    """Counts integers from `first` to `last`, each in the middle of a bin."""
    edges = np.arange(first, last + 2) - 0.5
    return Histogram(edges, np.histogram(values, edges)[0], description)


def fraction_histogram(values: np.ndarray, description: str) -> Histogram:
    """Counts numbers from 0 to 1 in 20 bins."""
    edges = np.linspace(0, 1, 21)
    return Histogram(edges, np.histogram(values, edges)[0], description)


def operation_histogram(
    operation: np.ndarray, depth: np.ndarray, names: tuple[str, ...]
) -> Histogram:
    """Counts operations int [..., D], of which the first `depth` [...] are applied."""
    applied = operation[np.arange(operation.shape[-1]) < depth[..., None]]
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    return integer_histogram(applied, 0, len(names) - 1, f"Operations that are applied: {listed}.")
