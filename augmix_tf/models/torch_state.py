"""Weights of the original PyTorch models, without PyTorch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from augmix_tf.checks import CommandError, lookup
from augmix_tf.models.blocks import GROUP

# What a weight of a Keras layer is called in the PyTorch layer of the same name.
TORCH_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# PyTorch axes, as Keras orders them, by rank: convolution, linear layer, vector.
KERAS_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
# Offenders of one kind that an error message lists.
LISTED = 6


def load_torch_state(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Copies a PyTorch state dict onto the model of the same architecture and size.

    `num_batches_tracked` is ignored, and so is the prefix `module.` of a DataParallel model.

    Args:
        model: what `augmix_tf.models.build` returned.
        state: array by PyTorch name, as in `{k: v.numpy() for k, v in state_dict.items()}`.

    Raises:
        CommandError: names are missing, left over or of the wrong shape; the message lists them,
            and the model is as it was.

    >>> from augmix_tf import models
    >>> model = models.build("allconv", num_classes=10)
    >>> load_torch_state(model, {"fc.weight": np.zeros((10, 192))})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    augmix_tf.checks.CommandError: state does not fit model 'allconv': missing: ...
    """
    given = normalised(state)
    wanted = variables_by_torch_name(model)
    problems = [
        listed("missing", sorted(wanted.keys() - given.keys())),
        listed("left over", sorted(given.keys() - wanted.keys())),
        listed("wrong shape", shape_conflicts(wanted, given)),
    ]
    if any(problems):
        raise CommandError(
            f"state does not fit model {model.name!r}: {'; '.join(filter(None, problems))}"
        )
    for name, parts in wanted.items():
        for variable, value in zip(parts, np.split(given[name], len(parts)), strict=True):
            variable.assign(value.transpose(KERAS_AXES[value.ndim]))


def normalised(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns `state` as arrays, without counters and without the prefix of DataParallel."""
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {
        name.removeprefix(prefix): np.asarray(value)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


def variables_by_torch_name(model: keras.Model) -> dict[str, list[Any]]:
    """Returns the variables that make up each PyTorch tensor, in order of its first axis.

    One variable each, except that a grouped convolution has one for every group.
    """
    parts: dict[str, dict[int, Any]] = defaultdict(dict)
    for layer in model.layers:
        name, _, group = layer.name.partition(GROUP)
        for variable in layer.weights:
            suffix = lookup("kind of weight", variable.name, TORCH_NAMES)
            parts[f"{name}.{suffix}"][int(group or 0)] = variable
    return {name: [found[i] for i in sorted(found)] for name, found in parts.items()}


def torch_shape(parts: Sequence[Any]) -> tuple[int, ...]:
    """Returns the shape of the PyTorch tensor that `parts` make up."""
    shape = tuple(parts[0].shape)
    axes = np.argsort(KERAS_AXES[len(shape)])
    first, *others = (shape[axis] for axis in axes)
    return (len(parts) * first, *others)


def shape_conflicts(
    wanted: Mapping[str, Sequence[Any]], given: Mapping[str, np.ndarray]
) -> list[str]:
    """Returns "name (want ..., got ...)" for every tensor of another shape."""
    shapes = {n: (torch_shape(wanted[n]), given[n].shape) for n in wanted.keys() & given.keys()}
    return [f"{n} (want {w}, got {g})" for n, (w, g) in sorted(shapes.items()) if w != g]


def listed(problem: str, offenders: Sequence[str]) -> str:
    """Returns "problem: a, b and 3 more", or nothing where there is no offender."""
    if not offenders:
        return ""
    more = f" and {len(offenders) - LISTED} more" if len(offenders) > LISTED else ""
    return f"{problem}: {', '.join(offenders[:LISTED])}{more}"
