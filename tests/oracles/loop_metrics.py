"""The metrics once more, by plain loops over Python numbers: slow, obvious, nothing shared."""

import math


def softmax(row):
    top = max(row)
    powers = [math.exp(float(value) - float(top)) for value in row]
    return [power / math.fsum(powers) for power in powers]


def argmax(row):
    best = 0
    for index, value in enumerate(row):
        if value > row[best]:
            best = index
    return best


def error_rate(logits, labels):
    pairs = zip(logits, labels, strict=True)
    return sum(argmax(row) != label for row, label in pairs) / len(labels)


def negative_log_likelihood(logits, labels):
    pairs = zip(logits, labels, strict=True)
    return math.fsum(-math.log(softmax(row)[label]) for row, label in pairs) / len(labels)


def brier_score(probabilities, labels):
    total = 0.0
    for row, label in zip(probabilities, labels, strict=True):
        for index, p in enumerate(row):
            total += (float(p) - (1.0 if index == label else 0.0)) ** 2
    return total / len(labels)


def by_confidence(confidence, correct):
    """Pairs by rising confidence, each with the share of those of its confidence that are right."""
    pairs = []
    for sure in sorted(confidence):
        tied = [bool(right) for s, right in zip(confidence, correct, strict=True) if s == sure]
        pairs.append((sure, sum(tied) / len(tied)))
    return pairs


def rms_calibration_error(confidence, correct, bin_size, drop_last_bin):
    pairs = by_confidence(confidence, correct)
    bins = [[]]
    for pair in pairs:
        left_over = len(pairs) - sum(len(members) for members in bins)
        if len(bins[-1]) == bin_size and left_over >= bin_size:
            bins.append([])
        bins[-1].append(pair)
    total = 0.0
    for members in bins[:-1] if drop_last_bin else bins:
        gap = sum(sure for sure, _ in members) - sum(right for _, right in members)
        total += len(members) / len(pairs) * (gap / len(members)) ** 2
    return math.sqrt(total)


def expected_calibration_error(confidence, correct, bins):
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        members = [
            (sure, right)
            for sure, right in zip(confidence, correct, strict=True)
            if low < sure <= high or (index == 0 and sure == 0.0)
        ]
        if members:
            mean_sure = sum(sure for sure, _ in members) / len(members)
            mean_right = sum(bool(right) for _, right in members) / len(members)
            total += len(members) / len(confidence) * abs(mean_right - mean_sure)
    return total


def aurra(confidence, correct):
    pairs = by_confidence(confidence, correct)[::-1]
    accuracies = []
    for count in range(1, len(pairs) + 1):
        accuracies.append(sum(right for _, right in pairs[:count]) / count)
    return sum(accuracies) / len(accuracies)
