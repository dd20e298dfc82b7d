"""Writes what torchvision's augmentations make of images drawn by formula, on Pillow's images.

    python scripts/golden/golden_augment.py candle-finetune/tests/golden/augment.tsv

(PyTorch 2.15, torchvision 0.29.2, Pillow 13.0.0)

Tab-separated lines of four kinds:

    pixels      kind of image, width×height, operation, its numbers, the first 16 digits of the SHA-256 of height×width×3 bytes
    magnitudes  class, width×height, operation, first digits of the SHA-256 of the bins' magnitudes (little-endian f32), the last
    crop        width×height, scale and ratio, histograms of 200,000 draws: area, logarithm of the ratio, left, top; draws of the
                whole image do not count
    erase       the same of RandomErasing
"""
import hashlib
import math
import sys

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment, RandomErasing, RandomResizedCrop, TrivialAugmentWide
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

IMAGES = [("noise", 57, 41), ("waves", 40, 64), ("flat", 9, 9), ("noise", 2, 3), ("waves", 64, 64)]
DRAWS = 200_000
BINS = 10
OPERATIONS = {
    "Identity": [0.0], "AutoContrast": [0.0], "Equalize": [0.0], "Posterize": [1, 3, 4, 8], "Solarize": [0.0, 100.5, 255.0],
    "ShearX": [0.0, 0.09, -0.99], "ShearY": [0.0, -0.09, 0.3], "TranslateX": [7.9, -32.0, 0.0], "TranslateY": [-7.9, 70.0, 1.0],
    "Rotate": [0.0, 9.0, -9.0, 45.0, 90.0, -90.0, 135.0, -180.0], "Brightness": [-0.9, 0.27, 0.9], "Color": [-0.99, -0.27, 0.9],
    "Contrast": [-0.99, 0.27, 0.9], "Sharpness": [-0.99, -0.27, 0.9],
}
CROPS = [(0, 0, 57, 41, 32), (3, 5, 20, 30, 32), (50, 38, 7, 3, 16), (10, 1, 1, 40, 9), (0, 20, 57, 21, 57)]
PADDED = [(4, 0, 0), (4, 8, 8), (4, 3, 6), (70, 1, 139), (70, 69, 72)]  # of an image of side 64


def draw(kind, width, height):
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in (height, width, 3)), indexing="ij")
    if kind == "noise":
        v = x * np.uint32(0x9E3779B1) + y * np.uint32(0x85EBCA77) + c * np.uint32(0xC2B2AE3D)
        v = (v ^ (v >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        pixels = v >> np.uint32(24)
    elif kind == "waves":  # levels from 40 to 167, so that there is contrast to gain
        pixels = np.uint32(40) + ((x * x * (c + np.uint32(1)) + y * y * np.uint32(3) + x * y) >> np.uint32(5)) % np.uint32(128)
    else:
        pixels = np.uint32(77) + c * np.uint32(20) + x * np.uint32(0)
    return Image.fromarray(pixels.astype(np.uint8))


def digest(image):
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]


def pixels():
    for kind, width, height in IMAGES:
        image = draw(kind, width, height)
        line = lambda operation, numbers, result: ("pixels", kind, f"{width}×{height}", operation, numbers, digest(result))
        for operation, magnitudes in OPERATIONS.items():
            for magnitude in magnitudes:
                yield line(operation, repr(magnitude), _apply_op(image, operation, magnitude, InterpolationMode.NEAREST, None))
        for factor in (-0.5, -0.1, -0.003, 0.0, 0.1, 0.25, 0.5):
            yield line("Hue", repr(factor), F.adjust_hue(image, factor))
        yield line("Flip", "0", F.hflip(image))
        yield line("VFlip", "0", F.vflip(image))
    # Every 7th of all colours.
    colours = np.arange(0, 1 << 24, 7, dtype=np.uint32)[: 1500 * 1500].reshape(1500, 1500)
    image = Image.fromarray(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1).astype(np.uint8))
    for factor in (0.0, 0.1, -0.37):
        yield "pixels", "colours", "1500×1500", "Hue", repr(factor), digest(F.adjust_hue(image, factor))
    yield "pixels", "colours", "1500×1500", "Color", "-0.5", digest(_apply_op(image, "Color", -0.5, InterpolationMode.NEAREST, None))
    for left, top, width, height, side in CROPS:
        for name in ("bilinear", "bicubic"):
            result = F.resized_crop(draw("noise", 57, 41), top, left, height, width, [side, side], InterpolationMode(name))
            yield "pixels", "noise", "57×41", f"Crop {name}", f"{left} {top} {width} {height} {side}", digest(result)
    for padding, left, top in PADDED:
        result = F.crop(F.pad(draw("waves", 64, 64), padding), top, left, 64, 64)
        yield "pixels", "waves", "64×64", "PadCrop", f"{padding} {left} {top}", digest(result)


def magnitudes():
    def lines(name, size, space):
        for operation, (values, _) in space.items():
            values = values.reshape(-1).numpy().astype("<f4")
            yield "magnitudes", name, size, operation, hashlib.sha256(values.tobytes()).hexdigest()[:16], repr(float(values[-1]))

    for width, height in ((224, 224), (32, 50)):
        yield from lines("RandAugment", f"{width}×{height}", RandAugment()._augmentation_space(31, (height, width)))
    yield from lines("TrivialAugmentWide", "-", TrivialAugmentWide()._augmentation_space(31))


def histogram(values, low, high):
    counts, _ = np.histogram(values, BINS, (low, high))
    return " ".join(f"{count / DRAWS:.5f}" for count in counts)


def distribution(what, get, width, height, scale, ratio):
    torch.manual_seed(0)
    blank = torch.zeros(1, height, width)
    boxes = [get(blank, scale, ratio) for _ in range(DRAWS)]
    top, left, h, w = np.array([box[:4] for box in boxes if box[2:4] != (height, width)], dtype=np.float64).T
    area, aspect = w * h / (width * height), np.log(np.maximum(w, 1) / np.maximum(h, 1))
    limit = max(abs(math.log(bound)) for bound in ratio) + 0.2
    return (
        what, f"{width}×{height}", " ".join(repr(x) for x in (*scale, *ratio)), histogram(area, 0, 1),
        histogram(aspect, -limit, limit + 0.01), histogram(left, 0, width), histogram(top, 0, height),
    )


def distributions():
    erase = lambda image, scale, ratio: RandomErasing.get_params(image, scale, ratio, [0.0])
    for width, height in ((500, 375), (90, 300), (32, 32)):
        yield distribution("crop", RandomResizedCrop.get_params, width, height, (0.08, 1.0), (0.75, 4 / 3))
        yield distribution("erase", erase, width, height, (0.02, 0.33), (0.3, 3.3))
    yield distribution("crop", RandomResizedCrop.get_params, 500, 375, (0.5, 0.6), (1.0, 2.0))
    yield distribution("erase", erase, 500, 375, (0.1, 0.2), (1.0, 3.0))


with open(sys.argv[1], "w") as out:
    for lines in (pixels(), magnitudes(), distributions()):
        for line in lines:
            print(*line, sep="\t", file=out)
