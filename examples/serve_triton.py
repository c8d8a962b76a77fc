"""Serves an exported model with NVIDIA's Triton server, over HTTP and gRPC, and queries it.

Triton's Python package needs other versions of NumPy and protobuf, so install it into a separate
environment, with a Python 3.11, 3.12 or 3.13 that the package was built for:

    python3 -m venv triton && triton/bin/pip install tensorflow-cpu==2.21.0 \
        nvidia-pytriton==0.7.0 'tritonclient[all]'
    triton/bin/python examples/serve_triton.py runs/mine/export/1          # serves until Ctrl-C
    triton/bin/python examples/serve_triton.py runs/mine/export/1 --check  # one query, then exit

Each signature is a model of the server: `images` and `image_bytes`, with the inputs and outputs of
`serving_default` and `serve_bytes`. The server listens on this machine only, unless --address is
given. The model runs in TensorFlow, in a Python process beside the server.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MODELS = {"images": "serving_default", "image_bytes": "serve_bytes"}  # input name -> signature
LARGEST_BATCH = 256

Call = Callable[..., dict[str, np.ndarray]]


def function(saved: tf.Module, name: str) -> Call:
    """Returns the function that Triton calls for the signature with this input."""
    signature = saved.signatures[MODELS[name]]

    @batch
    def call(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        # Triton's tensors have one more dimension than the batch; strings come as [N, 1].
        given = inputs[name] if name == "images" else inputs[name][:, 0]
        outputs = {k: v.numpy() for k, v in signature(**{name: tf.constant(given)}).items()}
        return {k: v if v.ndim > 1 else v[:, None] for k, v in outputs.items()}

    return call


def tensors(saved: tf.Module, name: str) -> tuple[list[Tensor], list[Tensor]]:
    """Returns Triton's description of a signature's inputs and outputs."""

    def described(key: str, spec: tf.TensorSpec) -> Tensor:
        dtype = np.bytes_ if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
        return Tensor(name=key, dtype=dtype, shape=tuple(spec.shape[1:]) or (1,))

    signature = saved.signatures[MODELS[name]]
    outputs = signature.structured_outputs
    inputs = signature.structured_input_signature[1]
    return [described(*x) for x in inputs.items()], [described(*x) for x in outputs.items()]


def check(saved: tf.Module, address: str, http_port: int, grpc_port: int) -> None:
    """Queries both models over both protocols; prints the difference from the SavedModel."""
    spec = saved.signatures["serving_default"].structured_input_signature[1]["images"]
    images = np.random.default_rng(0).integers(0, 256, (8, *spec.shape[1:]), np.uint8)
    want = saved.signatures["serving_default"](images=tf.constant(images))
    for protocol, port, module in (
        ("HTTP", http_port, tritonclient.http),
        ("gRPC", grpc_port, tritonclient.grpc),
    ):
        client = module.InferenceServerClient(f"{address}:{port}")
        for name in MODELS:
            given = images if name == "images" else files(images)
            kind = "UINT8" if name == "images" else "BYTES"
            tensor = module.InferInput(name, given.shape, kind)
            tensor.set_data_from_numpy(given)
            start = time.perf_counter()
            answer = client.infer(name, [tensor])
            took = 1e3 * (time.perf_counter() - start)
            got = answer.as_numpy("probabilities")[: len(images)]
            difference = np.abs(got - want["probabilities"].numpy()).max()
            print(f"{protocol} {name}: largest difference {difference:.1e}, {took:.0f} ms")
            if name == "image_bytes":
                errors = [error.decode() for error in answer.as_numpy("errors")[-2:, 0]]
                print(f"{protocol} {name}: errors of two broken files: {errors}")


def files(images: np.ndarray) -> np.ndarray:
    """The images as PNG files [N + 2, 1], followed by a truncated file and a text file."""
    encoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "png")
        encoded.append(file.getvalue())
    return np.array([*encoded, encoded[0][:-20], b"text"], np.object_)[:, None]


def main() -> None:
    """Serves until interrupted, or queries the server once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", type=Path, help="directory of an exported version")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--http_port", type=int, default=8000)
    parser.add_argument("--grpc_port", type=int, default=8001)
    parser.add_argument("--check", action="store_true", help="query the server once and exit")
    options = parser.parse_args()
    saved = tf.saved_model.load(str(options.version))
    config = TritonConfig(
        http_address=options.address,
        http_port=options.http_port,
        grpc_address=options.address,
        grpc_port=options.grpc_port,
        allow_metrics=False,
    )
    start = time.perf_counter()
    with Triton(config=config) as triton:
        for name in MODELS:
            inputs, outputs = tensors(saved, name)
            triton.bind(
                model_name=name,
                infer_func=function(saved, name),
                inputs=inputs,
                outputs=outputs,
                config=ModelConfig(max_batch_size=LARGEST_BATCH),
            )
        if not options.check:
            triton.serve()
            return
        triton.run()
        print(f"ready after {time.perf_counter() - start:.0f} s")
        check(saved, options.address, options.http_port, options.grpc_port)


if __name__ == "__main__":
    main()
