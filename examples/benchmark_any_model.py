"""Evaluates a model of Keras, PyTorch or ONNX Runtime on clean and corrupted images.

    python examples/benchmark_any_model.py MODEL IMAGES.npz [DIRECTORY]

MODEL is a `.keras` file, a `.pt` file of `torch.jit.save` or an `.onnx` file that returns logits.
IMAGES.npz has `images` uint8 [N, H, W, 3] and `labels` [N]. The results are written into DIRECTORY
(default: runs/MODEL), which `main.py --mode=report` compares with others:

    python main.py --mode=report --workdirs=runs/MODEL,runs/mine
"""

import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from augmix_tf import evaluation


def of_keras(path: str) -> keras.Model:
    """Returns a network of Keras: it is called with images and returns a tensor."""
    return keras.models.load_model(path, compile=False)


def of_torch(path: str) -> Callable:
    """Returns a network of PyTorch, which takes [N, 3, H, W] in 0..1, as a function."""
    import torch

    network = torch.jit.load(path).eval()

    @torch.inference_mode()
    def predict(images: np.ndarray) -> torch.Tensor:
        return network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)

    return predict


def of_onnx(path: str) -> Callable:
    """Returns an ONNX file, which takes float32 [N, H, W, 3] in 0..255, as a function."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images.astype(np.float32)})[0]


LOADERS = {".keras": of_keras, ".pt": of_torch, ".onnx": of_onnx}


def main(path: str, data: str, directory: str | None = None) -> dict:
    """Prints and writes the results, and returns the content of the file."""
    predict = LOADERS[Path(path).suffix](path)
    with np.load(data) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    names = {"dataset": Path(data).stem, "model": Path(path).name}
    measured = evaluation.benchmark(predict, images, labels, **names)
    measured.write(Path(directory or f"runs/{Path(path).stem}", "results.json"))
    print(measured.to_markdown())
    return measured.to_json()


if __name__ == "__main__":
    main(*sys.argv[1:])
