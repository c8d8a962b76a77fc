"""Images of ImageNet's size: throughput and memory of the pipeline, and time to index the files.

    python -m benchmarks.large --data_dir=FOLDER [--rounds=5] [--json=FILE]
    python -m benchmarks.large --data_dir=FOLDER --mode=memory [--images=5000] [--plot=FILE]
    python -m benchmarks.large --mode=index [--json=FILE]

FOLDER has val/<class>/*, as ImageNet is unpacked; its images are repeated as often as needed.
All sides read and decode the same files, take a random window at 224 x 224, flip it at random, make
two augmented views (severity 1, width 3, depth 1 to 3) and normalise. Prints Markdown.
"""

from __future__ import annotations

import functools
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from augmix_tf import runtime
from benchmarks import large_rival, measure, rivals
from benchmarks.pipeline import normalised_batches, our_dataset, rounds_of

if TYPE_CHECKING:
    import tensorflow as tf

    from augmix_tf.data.encoded_store import EncodedStore

Dataset: TypeAlias = "tf.data.Dataset"
Figures: TypeAlias = dict[str, dict[str, float]]
SIZE, BATCH, VIEWS = (224, 224), 64, 3
EPOCH = 5120  # images, so that an epoch's order is drawn about as rarely as in training
WARM_UP, SAMPLE = 500, 50  # images
PLAIN_RATES = (400, 1000, 2500)
PLOT = Path(__file__).resolve().parents[1] / "docs" / "images" / "memory.png"
OURS, STANDARD = "this pipeline", "reading, decoding and window only"
RIVAL, RIVAL_ALONE = "Pillow + NumPy, 2 processes", "Pillow + NumPy, 1 process"
RIVAL_WINDOW = "Pillow, reading, decoding and window only, 2 processes"
DECODED, TESTING = "AugMix only, of decoded images", "testing: reading, decoding, centre"
# Images per round: of this pipeline, of each Pillow process.
COUNTS = {OURS: 768, STANDARD: 1536, DECODED: 1536, TESTING: 1536}
RIVAL_COUNTS = {RIVAL: 128, RIVAL_ALONE: 128, RIVAL_WINDOW: 384}


def images_in(folder: Path, size: tuple[int, int], count: int) -> EncodedStore:
    """`count` images of folder/val, repeated as often as needed."""
    from augmix_tf.data import class_folders

    found = class_folders.open_split(folder / "val", None, size)
    return found.slice(np.resize(np.arange(len(found)), count))


def normalization() -> large_rival.Normalization:
    from augmix_tf.models import IMAGENET_NORMALIZATION

    return IMAGENET_NORMALIZATION


def batches(store: EncodedStore, batch: int, views: int) -> Dataset:
    """Batches of the training pipeline, normalised. With one view: standard training."""
    from augmix_tf.augment.augmix import AugMixMethod
    from augmix_tf.augment.method import StandardMethod

    augmix = AugMixMethod(aug_severity=large_rival.SEVERITY, views=max(views, 2))
    mean, deviation = (255 * np.array(each, np.float32) for each in normalization())
    return normalised_batches(
        store, augmix if views > 1 else StandardMethod(), batch, mean, deviation
    )


class EvaluationBatches:
    """Batches as evaluation reads them, repeated without end."""

    def __init__(self, store: EncodedStore, batch: int) -> None:
        self._store, self._batch = store, batch

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            yield from self._store.batches(self._batch)


def speed(
    store: EncodedStore, batch: int, rounds: int, counts: dict[str, int], workers: list
) -> Figures:
    """Images per second and CPU time of each side, interleaved."""
    decoded = store.read(slice(batch))
    ours = {
        OURS: batches(store, batch, VIEWS),
        STANDARD: batches(store, batch, 1),
        DECODED: our_dataset(decoded, large_rival.SEVERITY, batch, VIEWS),
        TESTING: EvaluationBatches(store, batch),
    }

    def rival(name: str, used: list, views: int) -> Callable[[], dict[str, float]]:
        return lambda: rivals.timed(used, counts[name], views)

    augmented = large_rival.AUGMENTED_VIEWS
    sides = {
        OURS: rounds_of(ours[OURS], batch, counts[OURS]),
        RIVAL: rival(RIVAL, workers, augmented),
        RIVAL_ALONE: rival(RIVAL_ALONE, workers[:1], augmented),
    }
    for name in (STANDARD, DECODED, TESTING):
        sides[name] = rounds_of(ours[name], batch, counts[name])
    sides[RIVAL_WINDOW] = rival(RIVAL_WINDOW, workers, 0)
    return measure.interleaved(sides, rounds)


def cores_table(figures: Figures) -> list[str]:
    """Cores that feed 1 or 8 accelerators, by the images/s at which each trains on one view.

    With three views an accelerator trains on a third of the images.
    """
    lines = [
        "| images/s on one view | cores for 1 / 8, standard | images/s on three views "
        "| cores for 1 / 8, AugMix |",
        "|---|---|---|---|",
    ]
    cost = {name: figures[name]["cpu_us_per_image"] / 1e6 for name in (STANDARD, OURS)}
    for rate in PLAIN_RATES:
        standard, mixed = rate * cost[STANDARD], rate / VIEWS * cost[OURS]
        cores = [f"{one:.1f} / {8 * one:.0f}" for one in (standard, mixed)]
        lines.append(f"| {rate} | {cores[0]} | {rate / VIEWS:.0f} | {cores[1]} |")
    return lines


def speed_table(figures: Figures) -> list[str]:
    """Lines of Markdown: throughput, CPU time, and throughput relative to two Pillow processes."""
    lines = ["| | images/s | ms CPU/image | x Pillow |", "|---|---|---|---|"]
    base = figures[RIVAL]["images_per_second"]
    for name, row in figures.items():
        rate, cost = row["images_per_second"], row["cpu_us_per_image"] / 1e3
        compared = f"{rate / base:.1f}" if name in (OURS, RIVAL, RIVAL_ALONE) else ""
        lines.append(f"| {name} | {rate:.0f} | {cost:.2f} | {compared} |")
    return lines


def resident() -> float:
    """Resident memory of this process, in MB of 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def sampled(source: Iterator[Any], batch: int, images: int) -> list[tuple[int, float]]:
    """(images so far, MB) about every `SAMPLE` images, after `WARM_UP` uncounted ones."""
    for _ in range(-(-WARM_UP // batch)):
        next(source)
    seen, made = [(0, resident())], 0
    while made < images:
        next(source)
        made += batch
        if made - seen[-1][0] >= SAMPLE:
            seen.append((made, resident()))
    return seen


def summary(seen: list[tuple[int, float]]) -> dict[str, float]:
    """First, last and largest MB, slope of a linear fit, growth from first to last in percent."""
    images, megabytes = np.array(seen, np.float64).T
    slope = float(np.polyfit(images, megabytes, 1)[0])
    first, last, largest = map(float, (megabytes[0], megabytes[-1], megabytes.max()))
    return {
        "first_mb": first,
        "last_mb": last,
        "largest_mb": largest,
        "slope_mb_per_1000_images": 1000 * slope,
        "growth_percent": 100 * (last / first - 1),
    }


def draw(seen: list[tuple[int, float]], path: Path) -> None:
    """Plots memory against images as a PNG."""
    from augmix_tf.report import plots

    @plots.styled
    def draw_curve() -> Any:
        figure = plots.figure(5.0, 2.4)
        axes = figure.add_subplot()
        axes.plot(*zip(*seen, strict=True), color=plots.BLUE, linewidth=1.2)
        axes.set_ylim(0, 1.2 * max(megabytes for _, megabytes in seen))
        axes.set(xlabel="images after the warm-up", ylabel="resident memory, MB")
        return figure

    path.write_bytes(draw_curve())
    print(f"wrote {path}")


def memory(store: EncodedStore, images: int, plot: Path) -> dict[str, Any]:
    """Resident memory while batches are made and thrown away."""
    before = resident()
    seen = sampled(iter(batches(store, BATCH, VIEWS)), BATCH, images)
    found = {"before_mb": before, **summary(seen)}
    draw(seen, plot)
    print("\n| | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name.replace('_', ' ')} | {value:.1f} |")
    return {"figures": found, "samples": seen}


def index(rounds: int) -> dict[str, Any]:
    """Time to index images, and to read them in random order."""
    from benchmarks import large_index

    with large_index.made(records=250, size=100_000, files=10_000) as files:
        finding = large_index.figures(files, rounds)
        reading = large_index.reading(files, rounds)
    print("\n| finding images | s for 10,000 | s for 1,281,167 |\n|---|---|---|")
    for name, row in finding.items():
        each, all_of_them = row["seconds_per_10000"], row["seconds_for_imagenet"]
        print(f"| {name} | {each:.2f} | {all_of_them:.0f} |")
    print("\n| reading 100 KB in random order | reads/s | us CPU/read |\n|---|---|---|")
    for name, row in reading.items():
        print(f"| {name} | {row['images_per_second']:.0f} | {row['cpu_us_per_image']:.0f} |")
    return {"finding": finding, "reading": reading}


def compare(store: EncodedStore, rounds: int) -> dict[str, Any]:
    """Prints the tables of throughput and CPU time."""
    paths = [os.fsdecode(path) for path in store.files.tolist()]
    views = functools.partial(large_rival.views, size=SIZE, normalization=normalization())
    with rivals.processes(2, paths, views) as workers:
        figures = speed(store, BATCH, rounds, COUNTS | RIVAL_COUNTS, workers)
    print("", *speed_table(figures), "", *cores_table(figures), sep="\n")
    return {"figures": figures}


def main() -> None:
    parser = measure.arguments(__doc__, rounds=5)
    parser.add_argument("--data_dir", type=Path, help="directory with val/<class>/*; not for index")
    parser.add_argument("--mode", choices=("speed", "memory", "index"), default="speed")
    parser.add_argument("--images", type=int, default=5000, help="of --mode=memory")
    parser.add_argument("--plot", type=Path, default=PLOT, help="of --mode=memory")
    options = parser.parse_args()
    if options.mode != "index" and options.data_dir is None:
        parser.error(f"Expected --data_dir for --mode={options.mode}; received none")
    runtime.import_tensorflow()  # as the program does
    document: dict[str, Any] = {"machine": measure.machine(), "mode": options.mode}
    if options.mode == "index":
        document |= index(options.rounds)
    else:
        store = images_in(options.data_dir, SIZE, EPOCH)
        if options.mode == "speed":
            document |= {"rounds": options.rounds} | compare(store, options.rounds)
        else:
            document |= memory(store, options.images, options.plot)
    measure.save(options.json, document)


if __name__ == "__main__":
    main()
