"""Weights of the original PyTorch models, without PyTorch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epy

from augmix_tf.errors import ArgumentError, lookup
from augmix_tf.models.blocks import GROUP

with epy.lazy_imports():
    import keras
    import numpy as np

# Weight of a Keras layer -> its name in the PyTorch layer of the same name.
TORCH_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Rank -> PyTorch's axes in Keras's order: convolution, linear layer, vector.
KERAS_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
# Names of one kind that an error message lists.
LISTED = 6


def load_torch_state(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Copies a PyTorch state dict into the model of the same architecture and size.

    `state` is PyTorch name -> array, as in `{k: v.numpy() for k, v in state_dict.items()}`.
    `num_batches_tracked` is ignored, and so is the prefix `module.` of a DataParallel model. Names
    that are missing, unexpected or of the wrong shape are listed in an `ArgumentError`, and the
    model stays unchanged.

    >>> from augmix_tf import models
    >>> model = models.build("allconv", num_classes=10)
    >>> load_torch_state(model, {"fc.weight": np.zeros((10, 192))})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    augmix_tf.errors.ArgumentError: The state does not fit model 'allconv'. Missing: ...
    """
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    arrays = {
        name.removeprefix(prefix): np.asarray(value)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    variables = variables_by_torch_name(model)
    shapes = {
        name: (torch_shape(variables[name]), arrays[name].shape)
        for name in sorted(variables.keys() & arrays.keys())
    }
    conflicts = [f"{n} (expected {e}, received {r})" for n, (e, r) in shapes.items() if e != r]
    problems = {
        "Missing": sorted(variables.keys() - arrays.keys()),
        "Unexpected": sorted(arrays.keys() - variables.keys()),
        "Wrong shape": conflicts,
    }
    if any(problems.values()):
        text = f"The state does not fit model {model.name!r}."
        for kind, names in problems.items():
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            text += f" {kind}: {', '.join(names[:LISTED])}{more}." if names else ""
        raise ArgumentError(text)
    for name, parts in variables.items():
        for variable, value in zip(parts, np.split(arrays[name], len(parts)), strict=True):
            variable.assign(value.transpose(KERAS_AXES[value.ndim]))


def variables_by_torch_name(model: keras.Model) -> dict[str, list[Any]]:
    """Returns the variables that make up each PyTorch tensor, in the order of its first axis.

    Grouped convolutions have one variable per group, all others one.
    """
    parts: dict[str, dict[int, Any]] = defaultdict(dict)
    for layer in model.layers:
        name, _, group = layer.name.partition(GROUP)
        for variable in layer.weights:
            suffix = lookup("kind of weight", variable.name, TORCH_NAMES)
            parts[f"{name}.{suffix}"][int(group or 0)] = variable
    return {name: [groups[i] for i in sorted(groups)] for name, groups in parts.items()}


def torch_shape(parts: Sequence[Any]) -> tuple[int, ...]:
    """Returns the shape of the PyTorch tensor that `parts` make up."""
    shape = tuple(parts[0].shape)
    axes = np.argsort(KERAS_AXES[len(shape)])
    first, *others = (shape[axis] for axis in axes)
    return (len(parts) * first, *others)
