"""Affine maps with Pillow and perspective with OpenCV; pixels outside the image are black."""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

from augmix_tf.corruptions.arrays import Floats, Images


def inverse_affine(
    width: int,
    height: int,
    angle_degrees: float = 0.0,
    shift_pixels: float = 0.0,
    scale: float = 1.0,
    shear_degrees: float = 0.0,
) -> tuple[float, ...]:
    """Returns (a, b, c, d, e, f): output (x, y) samples input (a x + b y + c, d x + e y + f).

    Rotation is clockwise, the shift to the right. As in torchvision 0.2, which made the benchmark,
    the fixed point is (W / 2 + 1/2, H / 2 + 1/2), where pixel k covers [k, k + 1): half a pixel off
    the centre; and shear also stretches y by 1 / cos.
    """
    angle, shear = math.radians(angle_degrees), math.radians(shear_degrees)
    centre_x, centre_y = width * 0.5 + 0.5, height * 0.5 + 0.5
    cos_sheared, sin_sheared = math.cos(angle + shear), math.sin(angle + shear)
    determinant = cos_sheared * math.cos(angle) + sin_sheared * math.sin(angle)
    factor = 1.0 / scale / determinant
    a, b = factor * cos_sheared, factor * sin_sheared
    d, e = factor * -math.sin(angle), factor * math.cos(angle)
    from_x, from_y = -centre_x - shift_pixels, -centre_y
    return a, b, a * from_x + b * from_y + centre_x, d, e, d * from_x + e * from_y + centre_y


def affine(images: Images, matrix: tuple[float, ...], nearest: bool = False) -> Images:
    """Returns uint8 [N, H, W, 3] images resampled by Pillow, bilinear unless `nearest`."""
    size = images.shape[2], images.shape[1]
    filter_ = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    moved = (
        Image.fromarray(image).transform(size, Image.Transform.AFFINE, matrix, filter_)
        for image in images
    )
    return np.stack([np.asarray(image) for image in moved])


def tilt_matrix(width: int, height: int, angle_degrees: float) -> Floats:
    """Returns the perspective of an image turned about its x and y axes, float64 [3, 3].

    It maps input pixels to output pixels. The distance of the camera is the image diagonal f. The
    original gives the image itself depth 1, so its depth is f + 1 and it shrinks by f / (f + 1)
    even at 0 degrees.
    """
    focal = math.sqrt(width**2 + height**2)
    cos, sin = math.cos(math.radians(angle_degrees)), math.sin(math.radians(angle_degrees))
    centred = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1], [0, 0, 1]])
    about_x = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
    about_y = np.array([[cos, 0, -sin, 0], [0, 1, 0, 0], [sin, 0, cos, 0], [0, 0, 0, 1]])
    away = np.eye(4)
    away[2, 3] = focal
    camera = np.array([[focal, 0, width / 2, 0], [0, focal, height / 2, 0], [0, 0, 1, 0]])
    return camera @ (away @ (about_x @ (about_y @ centred)))


def tilt(images: Images, angle_degrees: float) -> Images:
    """Returns uint8 [N, H, W, 3] images in perspective, bilinear.

    OpenCV 5 interpolates in floating point, 4.x at 1/32 pixels: they differ by up to 7 levels.
    """
    size = images.shape[2], images.shape[1]
    matrix = tilt_matrix(*size, angle_degrees)
    return np.stack([cv2.warpPerspective(i, matrix, size, flags=cv2.INTER_LINEAR) for i in images])
