"""Weights of the original PyTorch models, without PyTorch."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epy

from augmix_tf.errors import ArgumentError, first_line, lookup, require
from augmix_tf.models.blocks import BLUR, CIFAR_NORMALIZATION, GROUP, IMAGENET_NORMALIZATION

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
# Constants of the networks in RobustBench, the second pair around a network of torchvision.
MEANS, DEVIATIONS = ("mu", "normalize.mean"), ("sigma", "normalize.std")
# In front of the names: of a DataParallel network, and of one behind its normalisation.
PREFIXES = ("module.", "model.")
# File name suffix of a state.
SAFETENSORS = ".safetensors"
# Names of one kind that an error message lists.
LISTED = 6


def load_torch_state(
    model: keras.Model,
    state: Mapping[str, np.ndarray] | str | Path,
    normalization: Sequence[Sequence[float]] | None = None,
) -> None:
    """Copies a PyTorch state dict into the model of the same architecture and size.

    `state` is PyTorch name -> array, as in `{k: v.numpy() for k, v in state_dict.items()}`, or the
    path of a `.safetensors` file. `num_batches_tracked` is ignored, and so are the prefixes
    `module.` of a DataParallel model and `model.` of a network behind its normalisation. Constants
    are checked and not kept: the mean and deviation of RobustBench's networks (`mu` and `sigma`)
    against `normalization`, which is the authors' unless given, and the filters of Zhang's
    `BlurPool`. Names that are missing, unexpected or of the wrong shape or value are listed in an
    `ArgumentError`, and the model stays unchanged.

    >>> from augmix_tf import models
    >>> model = models.build("allconv", num_classes=10)
    >>> load_torch_state(model, {"fc.weight": np.zeros((10, 192))})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    augmix_tf.errors.ArgumentError: The state does not fit model 'allconv'. Missing: ...
    """
    if isinstance(state, str | Path):
        state = read(Path(state))
    arrays = {
        name: np.asarray(value)
        for name, value in in_authors_names(state).items()
        if not name.endswith("num_batches_tracked")
    }
    constants = constants_by_torch_name(model, normalization)
    stored = {name: arrays.pop(name) for name in sorted(constants.keys() & arrays.keys())}
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
        "Other values": [n for n, v in stored.items() if not equal(v, constants[n])],
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


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.safetensors` file by name."""
    require(path.suffix == SAFETENSORS and path.is_file(), f"a {SAFETENSORS} file", path)
    try:
        return importlib.import_module("safetensors.numpy").load_file(path)
    except ImportError as error:
        raise ArgumentError(
            f"{path} needs a package that is not installed. Install it: pip install safetensors"
        ) from error
    except Exception as error:  # the package has errors of its own
        raise ArgumentError(f"Cannot load the weights {path}: {first_line(error)}") from error


def in_authors_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a state without prefixes and under the names of the original networks."""
    arrays = dict(state)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) or name in (*MEANS, *DEVIATIONS) for name in arrays):
            arrays = {name.removeprefix(prefix): value for name, value in arrays.items()}
    return {name.replace("convShortcut", "conv_shortcut"): v for name, v in arrays.items()}


def constants_by_torch_name(
    model: keras.Model, normalization: Sequence[Sequence[float]] | None
) -> dict[str, np.ndarray]:
    """Returns what a state may hold beside the weights, each with the axes of PyTorch."""
    usual = IMAGENET_NORMALIZATION if model.name == "resnet50" else CIFAR_NORMALIZATION
    mean, deviation = (np.reshape(v, (1, -1, 1, 1)) for v in normalization or usual)
    constants = dict.fromkeys(MEANS, mean) | dict.fromkeys(DEVIATIONS, deviation)
    row = np.array([1, 4, 6, 4, 1]) / 16
    for layer in model.layers:
        if layer.name.endswith(f"{BLUR}0"):
            shape = (layer.output.shape[-1], 1, 5, 5)
            name = f"{layer.name.removesuffix(f'{BLUR}0')}.filt"
            constants[name] = np.broadcast_to(np.outer(row, row), shape)
    return constants


def equal(value: np.ndarray, constant: np.ndarray) -> bool:
    """Whether a stored constant has the expected shape and, within float16, the values."""
    return value.shape == constant.shape and np.allclose(value, constant, rtol=1e-3, atol=0)


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
