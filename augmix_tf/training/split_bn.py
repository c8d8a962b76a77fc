"""Separate batch normalisation for each view, all other weights shared."""

from __future__ import annotations

import keras

from augmix_tf import errors
from augmix_tf.models.batch_norm import fused_call


def split_batch_norm(classifier: keras.Model, views: int) -> list[keras.Model]:
    """Returns a classifier for each view; they differ in their batch normalisation only.

    The first is `classifier` itself. The others have the same layer objects, except that every
    batch normalisation, also in nested models, is a copy (statistics, scale and offset; named
    "<name>.view<v>") which starts at the values of the original. So the statistics of the clean
    view, 0, are those of clean images alone. `classifier` is unchanged; it is the one to evaluate
    and export.

    Args:
        classifier: functional or sequential model with at least one batch normalisation.
        views: number of views, V >= 2.

    Returns:
        V models. Variables of all together: those of `classifier`, and those of its batch
        normalisations another V - 1 times.

    Raises:
        ArgumentError: fewer than 2 views, or nothing to split.

    Source: the auxiliary batch normalisation of Xie et al., AdvProp, CVPR 2020 (arXiv 1911.09665),
    section 4.2, which the `split_bn` option of the library timm extends to any number of views.
    """
    errors.require(views >= 2, "at least 2 views for split batch normalisation", views)
    return [classifier, *(_with_own_batch_norm(classifier, view) for view in range(1, views))]


def _with_own_batch_norm(classifier: keras.Model, view: int) -> keras.Model:
    copies: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def copy_batch_norm(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer
        config = layer.get_config() | {"name": f"{layer.name}.view{view}"}
        copy = type(layer).from_config(config)
        # A configuration does not tell that a layer is called by the fused kernel.
        if "call" in vars(layer):
            copy.call = fused_call(copy)
        copies.append((layer, copy))
        return copy

    clone = keras.models.clone_model(classifier, clone_function=copy_batch_norm, recursive=True)
    errors.require(bool(copies), "a classifier with batch normalisation", classifier.name)
    for original, copy in copies:
        copy.set_weights(original.get_weights())
    return clone
