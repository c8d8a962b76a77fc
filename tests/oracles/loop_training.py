"""Learning rates and momentum SGD by plain loops over Python numbers and NumPy arrays."""

import math


def cosine(step, peak, total_steps, floor):
    progress = min(step / total_steps, 1.0)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


def thirds(step, peak, epochs, steps_per_epoch):
    epoch = step // steps_per_epoch
    if epoch < epochs // 3:
        return peak
    if epoch < 2 * (epochs // 3):
        return peak / 10
    return peak / 100


def sgd(weights, gradient, rates, momentum, nesterov, weight_decay):
    """Yields the weights after each update; `gradient(t, weights)` lists d loss / d weight."""
    weights = [weight.copy() for weight in weights]
    velocities = [0.0 * weight for weight in weights]
    for t, rate in enumerate(rates):
        slopes = gradient(t, weights)
        for i, weight in enumerate(weights):
            pull = slopes[i] + weight_decay * weight
            velocities[i] = momentum * velocities[i] + pull
            update = pull + momentum * velocities[i] if nesterov else velocities[i]
            weights[i] = weight - rate * update
        yield [weight.copy() for weight in weights]
