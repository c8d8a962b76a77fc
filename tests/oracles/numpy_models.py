"""The architectures in float64 NumPy, from weights under their PyTorch names.

Written from the papers, for small sizes, without regard to speed. Images are
[N, H, W, C], convolution weights (out, in / groups, height, width).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass
class Network:
    """Weights, and whether batch normalisation uses the batch's own statistics."""

    state: Mapping[str, np.ndarray]
    training: bool = False

    def conv(self, x, name, stride=1, pad=0, groups=1):
        weight = self.state[f"{name}.weight"]
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        side = weight.shape[2]
        rows = range(0, x.shape[1] - side + 1, stride)
        columns = range(0, x.shape[2] - side + 1, stride)
        y = np.zeros((len(x), len(rows), len(columns), len(weight)))
        ins, outs = weight.shape[1], len(weight) // groups
        for g in range(groups):
            own = weight[g * outs : (g + 1) * outs]
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    window = x[:, row : row + side, column : column + side]
                    window = window[..., g * ins : (g + 1) * ins]
                    y[:, i, j, g * outs : (g + 1) * outs] = np.einsum("nhwc,ochw->no", window, own)
        return y + self.state.get(f"{name}.bias", 0.0)

    def norm(self, x, name):
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        if self.training:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        scaled = (x - mean) / np.sqrt(var + 1e-5)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def norm_relu(self, x, name):
        return np.maximum(self.norm(x, name), 0)

    def linear(self, x, name):
        features = x.mean((1, 2))
        return features @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]


def pool(x, side, stride, reduce):
    rows = range(0, x.shape[1] - side + 1, stride)
    columns = range(0, x.shape[2] - side + 1, stride)
    grid = [[reduce(x[:, r : r + side, c : c + side], axis=(1, 2)) for c in columns] for r in rows]
    return np.stack([np.stack(row, 1) for row in grid], 1)


def allconv(net, x):
    def unit(x, place, pad):
        x = net.norm(net.conv(x, f"features.{place}", pad=pad), f"features.{place + 1}")
        return x / (1 + np.exp(-1.702 * x))

    for places in ((0, 3, 6), (11, 14, 17)):
        for place in places:
            x = unit(x, place, 1)
        x = pool(x, 2, 2, np.max)
    x = unit(unit(unit(x, 22, 0), 25, 1), 28, 1)
    return net.linear(x[:, :8, :8], "classifier")


def wide_resnet(net, x, blocks):
    x = net.conv(x, "conv1", pad=1)
    for stage in (1, 2, 3):
        for i in range(blocks):
            name = f"block{stage}.layer.{i}"
            stride = 2 if stage > 1 and i == 0 else 1
            active = net.norm_relu(x, f"{name}.bn1")
            y = net.conv(active, f"{name}.conv1", stride, 1)
            y = net.conv(net.norm_relu(y, f"{name}.bn2"), f"{name}.conv2", 1, 1)
            if f"{name}.conv_shortcut.weight" in net.state:
                x = net.conv(active, f"{name}.conv_shortcut", stride)
            x = x + y
    return net.linear(net.norm_relu(x, "bn1"), "fc")


def densenet(net, x, layers, bottleneck):
    x = net.conv(x, "conv1", pad=1)
    for block in (1, 2, 3):
        for i in range(layers):
            name = f"dense{block}.{i}"
            y = net.norm_relu(x, f"{name}.bn1")
            if bottleneck:
                y = net.norm_relu(net.conv(y, f"{name}.conv1"), f"{name}.bn2")
            y = net.conv(y, f"{name}.conv{2 if bottleneck else 1}", pad=1)
            x = np.concatenate([x, y], -1)
        if block < 3:
            x = net.conv(net.norm_relu(x, f"trans{block}.bn1"), f"trans{block}.conv1")
            x = pool(x, 2, 2, np.mean)
    return net.linear(net.norm_relu(x, "bn1"), "fc")


def resnext(net, x, blocks, cardinality):
    x = net.norm_relu(net.conv(x, "conv_1_3x3", pad=1), "bn_1")
    for stage in (1, 2, 3):
        for i in range(blocks):
            name = f"stage_{stage}.{i}"
            stride = 2 if stage > 1 and i == 0 else 1
            y = net.norm_relu(net.conv(x, f"{name}.conv_reduce"), f"{name}.bn_reduce")
            y = net.conv(y, f"{name}.conv_conv", stride, 1, cardinality)
            y = net.conv(net.norm_relu(y, f"{name}.bn"), f"{name}.conv_expand")
            x = shortcut(net, x, name, stride) + net.norm(y, f"{name}.bn_expand")
            x = np.maximum(x, 0)
    return net.linear(x, "classifier")


def resnet(net, x, blocks, max_blur_pool):
    x = net.norm_relu(net.conv(x, "conv1", 2, 3), "bn1")
    if max_blur_pool:
        x = blur(pool(x, 2, 1, np.max))
    else:
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
        x = pool(x, 3, 2, np.max)
    for stage, count in enumerate(blocks, start=1):
        for i in range(count):
            name = f"layer{stage}.{i}"
            stride = 2 if stage > 1 and i == 0 else 1
            blurred = max_blur_pool and stride == 2
            y = net.norm_relu(net.conv(x, f"{name}.conv1"), f"{name}.bn1")
            y = net.conv(y, f"{name}.conv2", 1 if blurred else stride, 1)
            y = net.norm_relu(y, f"{name}.bn2")
            if blurred:
                x, y, stride = blur(x), blur(y), 1
            last = f"{name}.conv3.1" if blurred else f"{name}.conv3"
            y = net.norm(net.conv(y, last), f"{name}.bn3")
            x = np.maximum(shortcut(net, x, name, stride, int(blurred)) + y, 0)
    return net.linear(x, "fc")


def shortcut(net, x, name, stride, first=0):
    name = f"{name}.downsample"
    if f"{name}.{first}.weight" not in net.state:
        return x
    return net.norm(net.conv(x, f"{name}.{first}", stride), f"{name}.{first + 1}")


def blur(x):
    def mirrored(place, side):
        row = [*range(side), *range(side - 2, 0, -1)]
        return row[place % len(row)]

    _, height, width, _ = x.shape
    y = np.zeros((len(x), -(-height // 2), -(-width // 2), x.shape[-1]))
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            for a, down in enumerate((1, 4, 6, 4, 1)):
                for b, right in enumerate((1, 4, 6, 4, 1)):
                    row = mirrored(2 * i + a - 2, height)
                    column = mirrored(2 * j + b - 2, width)
                    y[:, i, j] += down * right / 256 * x[:, row, column]
    return y
