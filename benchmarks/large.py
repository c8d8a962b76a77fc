"""Pictures of ImageNet's size: how fast they are made, in how much memory, and how they are found.

    python -m benchmarks.large --data_dir=FOLDER [--rounds=5] [--output=FILE]
    python -m benchmarks.large --data_dir=FOLDER --mode=memory [--images=5000] [--plot=FILE]
    python -m benchmarks.large --mode=index [--output=FILE]

FOLDER has val/<class>/*, as ImageNet is unpacked; its pictures are taken as often as needed.
Everybody reads and decodes the same files, takes a random window at 224 x 224, mirrors it, makes
two augmented views (severity 1, width 3, depth 1 to 3) and normalises. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from augmix_tf import quiet
from augmix_tf.settings import AugMixSettings
from benchmarks import large_rival, measure
from benchmarks.pipeline import normalised_batches, our_dataset, rounds_of

if TYPE_CHECKING:
    import tensorflow as tf

    from augmix_tf.data.pictures import EncodedPictures

Dataset: TypeAlias = "tf.data.Dataset"
Figures: TypeAlias = dict[str, dict[str, float]]
SIZE, BATCH, VIEWS = (224, 224), 64, 3
EPOCH = 5120  # pictures, so that an epoch's order is drawn about as rarely as in training
WARM_UP, SAMPLE = 500, 50  # images
PLAIN_RATES = (400, 1000, 2500)
PLOT = Path(__file__).resolve().parents[1] / "docs" / "images" / "memory.png"
OURS, STANDARD = "this pipeline", "reading, decoding and window only"
RIVAL, RIVAL_ALONE = "Pillow + NumPy, 2 processes", "Pillow + NumPy, 1 process"
RIVAL_WINDOW = "Pillow, reading, decoding and window only, 2 processes"
DECODED, TESTING = "AugMix only, of decoded pictures", "testing: reading, decoding, centre"
# Pictures of one round: of ours, of each Pillow process.
COUNTS = {OURS: 768, STANDARD: 1536, DECODED: 1536, TESTING: 1536}
RIVAL_COUNTS = {RIVAL: 128, RIVAL_ALONE: 128, RIVAL_WINDOW: 384}


def pictures_in(folder: Path, size: tuple[int, int], count: int) -> EncodedPictures:
    """`count` pictures of folder/val, the same ones again and again."""
    from augmix_tf.data import folders_by_class

    found = folders_by_class.open_split(folder / "val", None, size)[0]
    return found.part(np.resize(np.arange(len(found)), count))


def normalization() -> large_rival.Normalization:
    from augmix_tf.models.classifier import IMAGENET_NORMALIZATION

    return IMAGENET_NORMALIZATION


def batches(pictures: EncodedPictures, batch: int, views: int) -> Dataset:
    """Batches of the training pipeline, normalised. With one view: standard training."""
    from augmix_tf.augment import methods
    from augmix_tf.augment.rows import ResizedCrop

    crop = ResizedCrop(pictures.image_size, pictures.read)
    settings = AugMixSettings(severity=large_rival.SEVERITY)
    if views == 1:
        make = methods.one_view(0, methods.unchanged(), crop=crop)
    else:
        make = methods.augmix(0, settings, views, crop=crop)
    mean, deviation = (255 * np.array(each, np.float32) for each in normalization())
    return normalised_batches(pictures, make, batch, mean, deviation)


def speed(
    pictures: EncodedPictures, batch: int, rounds: int, counts: dict[str, int], workers: list
) -> Figures:
    """Images per second and processor time of each way, in turn."""
    decoded = pictures[:batch]
    ours = {
        OURS: batches(pictures, batch, VIEWS),
        STANDARD: batches(pictures, batch, 1),
        DECODED: our_dataset(decoded, large_rival.SEVERITY, batch, VIEWS),
        TESTING: pictures.batches(batch).repeat(),
    }

    def rival(name: str, used: list, views: int) -> Callable[[], dict[str, float]]:
        return lambda: large_rival.timed(used, counts[name], views)

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
    """Cores that feed accelerators, by the images/s at which each trains on one view.

    With three views it trains on a third of the images.
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
    """Lines of Markdown: speed, cost, and how often the speed of Pillow in two processes."""
    lines = ["| | images/s | ms CPU/image | x Pillow |", "|---|---|---|---|"]
    base = figures[RIVAL]["images_per_second"]
    for name, row in figures.items():
        rate, cost = row["images_per_second"], row["cpu_us_per_image"] / 1e3
        compared = f"{rate / base:.1f}" if name in (OURS, RIVAL, RIVAL_ALONE) else ""
        lines.append(f"| {name} | {rate:.0f} | {cost:.2f} | {compared} |")
    return lines


def resident() -> float:
    """Memory of this process that lies in RAM, in MB of 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def sampled(source: Iterator[Any], batch: int, images: int) -> list[tuple[int, float]]:
    """(images so far, MB) about every `SAMPLE` images, after `WARM_UP` that are not counted."""
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
    """First, last and largest MB; slope of the straight line through all; growth, of the first."""
    images, megabytes = np.array(seen, np.float64).T
    slope = float(np.polyfit(images, megabytes, 1)[0])
    first = float(megabytes[0])
    return {
        "first_mb": first,
        "last_mb": float(megabytes[-1]),
        "largest_mb": float(megabytes.max()),
        "slope_mb_per_1000_images": 1000 * slope,
        "growth_percent": 100 * (float(megabytes[-1]) / first - 1),
    }


def draw(seen: list[tuple[int, float]], path: Path) -> None:
    """Writes memory against images as a PNG."""
    from augmix_tf.reports import drawing

    figure = drawing.figure(5.0, 2.4)
    axes = figure.add_subplot()
    axes.plot(*zip(*seen, strict=True), color=drawing.BLUE, linewidth=1.2)
    axes.set_ylim(0, 1.2 * max(megabytes for _, megabytes in seen))
    drawing.finish(axes, "images after the warm-up", "resident memory, MB")
    path.write_bytes(drawing.png(figure))
    print(f"wrote {path}")


def memory(pictures: EncodedPictures, images: int, plot: Path) -> dict[str, Any]:
    """Resident memory while batches are made and thrown away."""
    before = resident()
    seen = sampled(iter(batches(pictures, BATCH, VIEWS)), BATCH, images)
    found = {"before_mb": before, **summary(seen)}
    draw(seen, plot)
    print("\n| | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name.replace('_', ' ')} | {value:.1f} |")
    return {"figures": found, "samples": seen}


def index(rounds: int) -> dict[str, Any]:
    """How long it takes to find pictures, and to read them in random order."""
    from benchmarks import large_index

    with large_index.made(records=250, size=100_000, files=10_000) as files:
        finding = large_index.figures(files, rounds)
        reading = large_index.reading(files, rounds)
    print("\n| finding pictures | s for 10,000 | s for 1,281,167 |\n|---|---|---|")
    for name, row in finding.items():
        each, all_of_them = row["seconds_per_10000"], row["seconds_for_imagenet"]
        print(f"| {name} | {each:.2f} | {all_of_them:.0f} |")
    print("\n| reading 100 KB in random order | reads/s | us CPU/read |\n|---|---|---|")
    for name, row in reading.items():
        print(f"| {name} | {row['images_per_second']:.0f} | {row['cpu_us_per_image']:.0f} |")
    return {"finding": finding, "reading": reading}


def compare(pictures: EncodedPictures, rounds: int) -> dict[str, Any]:
    """The tables of speed and cost."""
    paths = [os.fsdecode(path) for path in pictures.files.tolist()]
    with large_rival.processes(2, paths, SIZE, normalization()) as workers:
        figures = speed(pictures, BATCH, rounds, COUNTS | RIVAL_COUNTS, workers)
    print("", *speed_table(figures), "", *cores_table(figures), sep="\n")
    return {"figures": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, help="has val/<class>/*; not for index")
    parser.add_argument("--mode", choices=("speed", "memory", "index"), default="speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=5000, help="of --mode=memory")
    parser.add_argument("--plot", type=Path, default=PLOT, help="of --mode=memory")
    parser.add_argument("--output", help="also write the figures to this file, as JSON")
    options = parser.parse_args()
    if options.mode != "index" and options.data_dir is None:
        parser.error(f"want --data_dir for --mode={options.mode}, got none")
    quiet.import_tensorflow()  # as the program does
    document: dict[str, Any] = {"machine": measure.machine(), "mode": options.mode}
    if options.mode == "index":
        document |= index(options.rounds)
    else:
        pictures = pictures_in(options.data_dir, SIZE, EPOCH)
        if options.mode == "speed":
            document |= {"rounds": options.rounds} | compare(pictures, options.rounds)
        else:
            document |= memory(pictures, options.images, options.plot)
    measure.save(options.output, document)


if __name__ == "__main__":
    main()
