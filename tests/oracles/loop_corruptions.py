"""Independent corruptions, pixel by pixel or by scipy: slow and simple, no shared code."""

import colorsys
import math

import numpy as np
from scipy import ndimage


def to_bytes(values):
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def through_hsv(image, change):
    """Applies `change(h, s, v)` to every pixel, with the standard library's colour formulas."""
    out = np.empty(image.shape)
    for row, column in np.ndindex(*image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(
            *(v / 255 for v in image[row, column].tolist())
        )
        out[row, column] = colorsys.hsv_to_rgb(*change(hue, saturation, value))
    return to_bytes(out)


def contrast(image, factor):
    out = np.empty(image.shape)
    for channel in range(3):
        values = [v / 255 for v in image[..., channel].ravel().tolist()]
        mean = math.fsum(values) / len(values)
        moved = [(v - mean) * factor + mean for v in values]
        out[..., channel] = np.reshape(moved, image.shape[:2])
    return to_bytes(out)


def pixelate(image, share):
    """Shrinks and enlarges uint8 [H, W, C] by means over boxes, to 8 bits after each direction."""
    height, width = image.shape[:2]
    for columns, rows in ((int(width * share), int(height * share)), (width, height)):
        image = box_means(image.transpose(1, 0, 2), columns).transpose(1, 0, 2)
        image = box_means(image, rows)
    return image


def box_means(image, new_size):
    """Resizes the first axis; a pixel belongs to a box if its centre does."""
    size = len(image)
    half = max(1.0, size / new_size) / 2
    out = np.empty((new_size, *image.shape[1:]), np.uint8)
    for new in range(new_size):
        centre = (new + 0.5) * size / new_size
        inside = [old for old in range(size) if centre - half < old + 0.5 <= centre + half]
        out[new] = np.floor(image[inside].mean(axis=0) + 0.5)
    return out


def motion_blur(image, radius, sigma, angle_degrees):
    """One-sided Gaussian motion blur of uint8 [H, W, C], pixel by pixel and tap by tap."""
    width = 2 * radius + 1
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(width)]
    total = math.fsum(weights)
    angle = math.radians(angle_degrees)
    height, row_length = image.shape[:2]
    out = np.empty_like(image)
    for row, column in np.ndindex(height, row_length):
        values = np.zeros(image.shape[2])
        for i, weight in enumerate(weights):
            y = row + math.ceil(i * math.sin(angle) - 0.5)
            x = column + math.ceil(i * math.cos(angle) - 0.5)
            y, x = min(max(y, 0), height - 1), min(max(x, 0), row_length - 1)
            values += weight / total * 257.0 * image[y, x]
        out[row, column] = np.floor(np.floor(values + 0.5) / 257)
    return out


def glass_shuffle(image, reach, passes, shifts):
    """Copies pixels in the original's scan; `shifts` are (right, down), one a step."""
    image = image.copy()
    height, width = image.shape[:2]
    steps = iter(shifts.tolist())
    for _ in range(passes):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                right, down = next(steps)
                image[row, column] = image[row + down, column + right]
    assert next(steps, None) is None
    return image


def zoom(plane, factor):
    """Centre of [H, W], `factor` times as large, by scipy's own zoom."""
    height, width = plane.shape
    for axis, side in enumerate((height, width)):
        crop = math.ceil(side / factor)
        first = (side - crop) // 2
        plane = np.take(plane, range(first, first + crop), axis=axis)
    zoomed = ndimage.zoom(plane, factor, order=1)
    top, left = (zoomed.shape[0] - height) // 2, (zoomed.shape[1] - width) // 2
    return zoomed[top : top + height, left : left + width]


def fractal(draw, side, decay):
    """Diamond-square, point by point, on a grid that repeats."""
    grid = np.zeros((side, side))
    numbers = iter(draw.tolist())
    step, roughness = side, 100.0

    def around(*places):
        return sum(grid[y % side, x % side] for y, x in places) / 4

    def wobble():
        return roughness * (2 * next(numbers) - 1) * roughness

    while step > 1:
        half = step // 2
        starts = range(0, side, step)
        for y in starts:
            for x in starts:
                corners = ((y, x), (y + step, x), (y, x + step), (y + step, x + step))
                grid[y + half, x + half] = around(*corners) + wobble()
        for dy, dx in ((0, half), (half, 0)):
            for y in starts:
                for x in starts:
                    v, u = y + dy, x + dx
                    sides = ((v - half, u), (v + half, u), (v, u - half), (v, u + half))
                    grid[v, u] = around(*sides) + wobble()
        step, roughness = half, roughness / decay
    grid -= grid.min()
    return grid / grid.max()


def resample(image, reads):
    """Reads uint8 [H, W, C] at `reads(x, y)` -> pixel coordinates, bilinear; float, black outside.

    Pixel k lies at k. Neighbours outside the image are black.
    """
    height, width = image.shape[:2]
    out = np.zeros(image.shape)
    for row, column in np.ndindex(height, width):
        x, y = reads(column, row)
        left, top = math.floor(x), math.floor(y)
        for v, row_share in ((top, top + 1 - y), (top + 1, y - top)):
            for u, column_share in ((left, left + 1 - x), (left + 1, x - left)):
                if 0 <= v < height and 0 <= u < width:
                    out[row, column] += row_share * column_share * image[v, u]
    return out
