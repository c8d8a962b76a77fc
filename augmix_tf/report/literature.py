"""Published results of other networks, to stand beside measured ones of the same kind.

A row is shown only where a run has the dataset, the network and the published images of the row.
Errors are in %, mCE and mFR in % of AlexNet. Sources:

- RobustBench: its evaluation of the authors' weights (RobustBench/robustbench, commit 78fcc9e,
  `model_info/*/corruptions`).
- Mintun et al.: On Interaction Between Augmentations and Corruptions, NeurIPS 2021 (arXiv
  2102.11273), table in facebookresearch/augmentation-corruption, commit ba4d5a5.
- AugMax: Wang et al., NeurIPS 2021, table in VITA-Group/AugMax, commit 176acdb.
- IPMix: hzlsaber/IPMix, commit 050bcb6, issue 2. PixMix: Hendrycks et al., CVPR 2022.
- README: of google-research/augmix. easyrobust: alibaba/easyrobust.
- AugMix paper: Hendrycks et al., ICLR 2020 (arXiv 1912.02781), the rows of `methods.METHODS`.

"Remembered" numbers were not checked against their source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from augmix_tf import recipes, robustness
from augmix_tf.data import IMAGENET
from augmix_tf.evaluation.results import Data
from augmix_tf.models import MODELS
from augmix_tf.report import ABSENT, cell, table
from augmix_tf.report.directories import Run

REMEASURED = "RobustBench, measured again"
PAPER = "AugMix paper, remembered"
# Quantity -> head of its column.
COLUMNS = {
    "clean": "clean",
    "c": "-C",
    "cbar": "C-bar",
    "mce": "mCE",
    "mfr": "mFR",
    "3dcc": "mCE on 3DCC",
}
# Benchmark -> quantities of `COLUMNS`.
ON_BENCHMARK = {"C": ("c", "mce"), "C-bar": ("cbar",), "3DCC": ("3dcc",)}
NOTE = (
    "Not measured by this program. Errors in %, mCE and mFR in % of AlexNet. Training may differ "
    "in more than the method."
)
TEST_IMAGES = {"cifar10": 10_000, "cifar100": 10_000, IMAGENET: 50_000}


class Published(NamedTuple):
    """Published results of one network, quantity of `COLUMNS` -> value."""

    dataset: str
    network: str  # model and sizes
    method: str
    values: Mapping[str, float]
    source: str
    images: int = 0  # of the test set; 0: all


def _cifar(network: str, method: str, source: str, *pairs: tuple[float, float]) -> list[Published]:
    """Clean error and error on -C, of CIFAR-10 and perhaps CIFAR-100."""
    return [
        Published(dataset, network, method, {"clean": clean, "c": corrupted}, source)
        for dataset, (clean, corrupted) in zip(("cifar10", "cifar100"), pairs, strict=False)
    ]


def _imagenet(method: str, source: str, images: int = 0, **values: float) -> Published:
    values = {name.removeprefix("on_"): value for name, value in values.items()}
    return Published(IMAGENET, "resnet50", method, values, source, images)


def network(model: str, config: Mapping[str, Any]) -> str:
    """Returns the name of a network with its sizes, such as "wrn-40-2", unset ones by default."""
    kind = MODELS.get(model)
    names = [name for name in ("depth", "widen_factor") if hasattr(kind, name)]
    return "-".join([model, *(str(config.get(name) or getattr(kind, name)) for name in names)])


def _of_the_paper() -> Iterator[Published]:
    for name, row in recipes.METHODS.items():
        for model, errors in row.cifar_errors.items():
            for dataset, error in zip(("cifar10", "cifar100"), errors, strict=True):
                yield Published(dataset, network(model, {}), name, {"c": error}, PAPER)
        if row.imagenet_errors:
            clean, mce = row.imagenet_errors
            yield _imagenet(name, PAPER, clean=clean, mce=mce)


ROWS: tuple[Published, ...] = (
    *_of_the_paper(),
    *_cifar("wrn-40-2", "AugMix", REMEASURED, (4.92, 11.18), (23.72, 35.89)),
    *_cifar("resnext-29", "AugMix", REMEASURED, (4.17, 10.91), (21.10, 34.86)),
    *_cifar("wrn-28-4", "NoisyMix", REMEASURED, (3.27, 7.22), (18.84, 27.94)),
    *_cifar("wrn-18-2", "CARD-Deck (6 networks)", REMEASURED, (3.44, 7.22), (20.07, 28.92)),
    *_cifar("wrn-18-2", "LRR, one network", REMEASURED, (3.34, 9.06)),
    *_cifar("wrn-40-2", "AugMax-DuBIN", "AugMax, read off a figure", (4.32, 9.33), (23.20, 33.65)),
    *_cifar(
        "resnext-29", "AugMax-DuBIN", "AugMax, read off a figure", (3.61, 7.89), (19.30, 31.14)
    ),
    *_cifar("wrn-40-4", "IPMix", "IPMix", (4.04, 8.6)),
    *_cifar("wrn-40-4", "PixMix", "PixMix, remembered", (4.2, 9.5), (20.3, 30.5)),
    *(
        Published("cifar10", "wrn-40-2", method, {"c": c, "cbar": cbar}, "Mintun et al.")
        for method, c, cbar in (
            ("baseline", 27.0, 27.1),
            ("AutoAugment", 19.4, 21.0),
            ("Patch Gaussian", 17.0, 23.8),
            ("AugMix", 11.1, 16.0),
        )
    ),
    _imagenet("baseline", "Mintun et al.", c=58.1, cbar=57.7),
    _imagenet("AugMix", "Mintun et al.", c=49.2, cbar=52.4),
    _imagenet("standard", "README", clean=23.9, mce=76.7, mfr=58.0),
    _imagenet("AugMix, released weights", "README", clean=22.5, mce=65.3, mfr=37.4),
    _imagenet("AugMix", "easyrobust", clean=22.2, mce=64.1),
    *(
        _imagenet(method, REMEASURED, 5000, mce=mce, **more)
        for method, mce, more in (
            ("standard", 76.38, {"on_3dcc": 73.16}),
            ("AugMix", 64.17, {"on_3dcc": 64.64}),
            ("DeepAugment+AugMix", 60.04, {"on_3dcc": 60.69}),
            ("NoisyMix", 60.46, {"on_3dcc": 61.67}),
            ("SIN+IN", 68.67, {}),
        )
    ),
)


def beside(runs: Sequence[Run]) -> str:
    """Returns the published results that runs of one dataset and network stand beside, as Markdown.

    Empty where there are none for the published images that a run was evaluated on.
    """
    settings = {**runs[0].results.provenance, **runs[0].config}
    dataset = str(settings.get("dataset")).partition(":")[0]
    kind = dataset, network(str(settings.get("model")), settings)
    known = {pair for run in runs for pair in _measured(run, dataset)}
    rows = []
    for row in ROWS:
        images = row.images or TEST_IMAGES[row.dataset]
        values = {key: value for key, value in row.values.items() if (key, images) in known}
        if (row.dataset, row.network) == kind and values.keys() - {"clean"}:
            rows.append((row, values))
    shown = [key for key in COLUMNS if any(key in values for _, values in rows)]
    body = [
        (
            cell(row.method),
            *(f"{values[key]:.2f}" if key in values else ABSENT for key in shown),
            cell(row.source),
        )
        for row, values in rows
    ]
    head = ("method", *(COLUMNS[key] for key in shown), "source")
    return table(head, body) + f"\n\n{NOTE}" if rows else ""


def _measured(run: Run, dataset: str) -> Iterator[tuple[str, int | None]]:
    """Which of `COLUMNS` were measured on published images, and on how many."""
    results = run.results
    if run.clean.images == TEST_IMAGES.get(dataset):
        yield "clean", run.clean.images
    for part in (results.corrupted, results.cbar):
        complete = part and part.metrics.get("mean_corruption_error") is not None
        if part and complete and part.data and _is_published(part.data, dataset):
            for key in ON_BENCHMARK[robustness.title(part.benchmark)]:
                yield key, part.data.images
    if results.perturbed and results.perturbed.data:
        complete = results.perturbed.metrics.get("mean_flip_rate") is not None
        if complete and _is_published(results.perturbed.data, dataset):
            yield "mfr", results.perturbed.data.images


def _is_published(data: Data, dataset: str) -> bool:
    # TFDS has the published images of CIFAR-10-C, and makes its own of ImageNet-C.
    return data.source == "official" or (data.source == "tfds" and dataset == "cifar10")
