"""A batch on its way to its views, of which perhaps only some rows are made here.

It may be shared between several devices or machines. Each draws for all of it, so that the draws
do not depend on how it is shared, and makes the views of its own rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import tensorflow as tf

from augmix_tf import seeds
from augmix_tf.augment.crop import apply_crop, draw_crop
from augmix_tf.augment.resized_crop import apply_resized_crop, draw_resized_crop

Drawn = TypeVar("Drawn")


class Crop(Protocol):
    """The random crop and flip that all methods share: the first that is done to a picture."""

    def size(self, held: tf.Tensor) -> tuple[int, int]:
        """Height and width of the pictures that come out."""

    def draw(self, seed: tf.Tensor, count: int | tf.Tensor) -> Any:
        """Draws for `count` pictures; every part has a row for each."""

    def apply(self, held: tf.Tensor, plan: Any) -> tf.Tensor:
        """Makes uint8 [N, H, W, 3] of what the data hold of N pictures."""


class PaddedCrop:
    """Of small pictures, uint8 [N, H, W, 3]: four pixels of black around, cut to the old size."""

    def size(self, held: tf.Tensor) -> tuple[int, int]:
        """Of the pictures as they are."""
        return held.shape[1], held.shape[2]

    def draw(self, seed: tf.Tensor, count: int | tf.Tensor) -> Any:
        """As `draw_crop`."""
        return draw_crop(seed, count)

    def apply(self, held: tf.Tensor, plan: Any) -> tf.Tensor:
        """As `apply_crop`."""
        return apply_crop(held, plan)


class ResizedCrop(NamedTuple):
    """Of large pictures that are read where they are needed: a random window, resized.

    Attributes:
        image_size: (height, width) of what comes out.
        read: from what the data hold of one picture to its encoded file, string [].
    """

    image_size: tuple[int, int]
    read: Callable[[tf.Tensor], tf.Tensor]

    def size(self, held: tf.Tensor) -> tuple[int, int]:
        """`image_size`."""
        return self.image_size

    def draw(self, seed: tf.Tensor, count: int | tf.Tensor) -> Any:
        """As `draw_resized_crop`."""
        return draw_resized_crop(seed, count)

    def apply(self, held: tf.Tensor, plan: Any) -> tf.Tensor:
        """As `apply_resized_crop`."""
        return apply_resized_crop(held, plan, self.image_size, self.read)


PADDED_CROP = PaddedCrop()


class Batch(NamedTuple):
    """N pictures, and which of them are made here.

    Attributes:
        held: what the data hold of each, [N, ...]: pixels, or where its file is.
        labels: [N].
        place: run seed, epoch and step. Every random choice follows from these.
        rows: int32 [M], places in the batch, in any order; None: all of them.
        crop: what all methods begin with.
    """

    held: tf.Tensor
    labels: tf.Tensor
    place: tuple[seeds.Index, seeds.Index, seeds.Index]
    rows: tf.Tensor | None = None
    crop: Crop = PADDED_CROP

    @property
    def sizes(self) -> tuple[tf.Tensor, tuple[int, int]]:
        """Number of all pictures, (height, width)."""
        return tf.shape(self.held)[0], self.crop.size(self.held)

    def seed(self, stream: int) -> tf.Tensor:
        """The seed of a view or of a stream of `seeds`."""
        return seeds.fold(*self.place, stream)

    def own(self, drawn: Drawn) -> Drawn:
        """The part of what was drawn for all that belongs to the rows made here."""
        if self.rows is None:
            return drawn
        take = lambda part: None if part is None else tf.gather(part, self.rows)  # noqa: E731
        return tf.nest.map_structure(take, drawn)

    def draw_crop(self) -> Any:
        """Draws the crop of all pictures."""
        return self.crop.draw(self.seed(seeds.CROP_AND_FLIP), tf.shape(self.held)[0])

    def cropped(self) -> tf.Tensor:
        """The rows made here after crop and flip, uint8 [M, H, W, 3]."""
        return self.crop.apply(*self.own((self.held, self.draw_crop())))
