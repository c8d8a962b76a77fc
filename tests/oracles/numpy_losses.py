"""The AugMix loss in NumPy float64, probability by probability; shares no code with the package."""

import numpy as np


def softmax(scores):
    powers = np.exp(np.asarray(scores, np.float64) - np.max(scores))
    return powers / powers.sum()


def cross_entropy(label, scores):
    scores = np.asarray(scores, np.float64)
    top = scores.max()
    return top + np.log(np.exp(scores - top).sum()) - scores[label]


def jensen_shannon(views, floor=1e-7):
    """JSD of one example: `views` holds V rows of K scores. 0 log 0 is 0."""
    distributions = [softmax(scores) for scores in views]
    mixture = np.clip(sum(distributions) / len(distributions), floor, 1.0)
    total = 0.0
    for distribution in distributions:
        for p, m in zip(distribution, mixture, strict=True):
            if p > 0.0:
                total += p * (np.log(p) - np.log(m))
    return total / len(distributions)


def augmix_loss(label, views, weight=12.0):
    return cross_entropy(label, views[0]) + weight * jensen_shannon(views)


def slope(function, point, width):
    """Central differences of a scalar function at every coordinate of `point`."""
    point = np.asarray(point, np.float64)
    slopes = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        shift = np.zeros_like(point)
        shift[index] = width
        slopes[index] = (function(point + shift) - function(point - shift)) / (2 * width)
    return slopes
