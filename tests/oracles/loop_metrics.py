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


def frame_pairs(count, is_noise, difficulty):
    if is_noise:
        return [(0, later) for later in range(1, count)]
    return [(frame, frame + difficulty) for frame in range(count - difficulty)]


def flip_probability(predictions, is_noise, difficulty):
    per_sequence = []
    for answers in predictions:
        pairs = frame_pairs(len(answers), is_noise, difficulty)
        per_sequence.append(sum(answers[a] != answers[b] for a, b in pairs) / len(pairs))
    return sum(per_sequence) / len(per_sequence)


def _rank_from_one(row, label):
    """One more than the number of classes that go before `label`."""
    ahead = 1
    for other, value in enumerate(row):
        if value > row[label] or (value == row[label] and other < label):
            ahead += 1
    return ahead


def top5_distance(logits, is_noise, difficulty):
    # The definition in words: the cost of rank r is the number of j in 1..min(r - 1, 5).
    def cost(rank):
        return len(range(1, min(rank - 1, 5) + 1))

    per_sequence = []
    for frames in logits:
        distances = []
        for a, b in frame_pairs(len(frames), is_noise, difficulty):
            distance = 0
            for label in range(len(frames[a])):
                before = _rank_from_one(frames[a], label)
                if before <= 5:
                    distance += abs(cost(before) - cost(_rank_from_one(frames[b], label)))
            distances.append(distance)
        per_sequence.append(sum(distances) / len(distances))
    return sum(per_sequence) / len(per_sequence)
