"""Datasets: embedded, of TensorFlow Datasets (TFDS), in folders, benchmarks; the input pipeline."""

EMBEDDED = "shapes"
# Datasets of images that vary in size, with recipes of their own.
FOLDER, IMAGENET = "folder", "imagenet2012"
