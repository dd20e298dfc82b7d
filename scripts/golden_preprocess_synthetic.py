"""Writes candle-resnet/tests/data/preprocess_synthetic.jsonl: torchvision's evaluation transforms on images drawn by formula.

Per case the SHA-256 of the crop (uint8, height × width × 3) and of the normalised tensor (float32, little-endian,
3 × height × width), and a few pixels to look at when a hash differs. `candle-resnet/tests/preprocess_golden.rs` draws
the same images and compares. The first line names the versions.

    python scripts/golden_preprocess_synthetic.py candle-resnet/tests/data/preprocess_synthetic.jsonl
"""
import hashlib
import json
import sys

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize, ToTensor

# (width, height, resize, crop): shrunk, enlarged, kept, padded, one side kept, extreme shapes, odd offsets,
# taller than 1:2 (Pillow 13 swaps the passes).
SHAPES = [
    (500, 375, 256, 224), (375, 500, 232, 224), (640, 427, 235, 224), (97, 131, 64, 56), (131, 97, 64, 57),
    (32, 32, 32, 32), (32, 32, 256, 224), (33, 31, 48, 40), (1, 1, 16, 12), (1, 1, 256, 224), (2, 3, 7, 7),
    (1, 300, 20, 16), (300, 1, 20, 16), (1, 5000, 24, 24), (3, 2, 64, 64), (20, 10, 10, 24), (10, 21, 10, 13),
    (19, 23, 19, 33), (64, 48, 48, 31), (257, 255, 128, 127), (1000, 37, 32, 32), (37, 1000, 32, 29),
    (300, 700, 256, 224), (200, 401, 96, 96), (200, 400, 96, 96), (5, 700, 4, 31), (101, 101, 100, 99),
]
NORMALISE = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def draw(kind, width, height):
    """`noise` makes the bicubic filter overshoot both ends; `waves` is smooth with sharp folds. Arithmetic modulo 2**32."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in (height, width, 3)), indexing="ij")
    if kind == "noise":
        v = x * np.uint32(0x9E3779B1) + y * np.uint32(0x85EBCA77) + c * np.uint32(0xC2B2AE3D)
        v = (v ^ (v >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        return (v >> np.uint32(24)).astype(np.uint8)
    return ((x * x * (c + np.uint32(1)) + y * y * np.uint32(3) + x * y) >> np.uint32(5)).astype(np.uint8)


def case(kind, shape, name):
    width, height, resize, crop = shape
    image = CenterCrop(crop)(Resize(resize, InterpolationMode(name))(Image.fromarray(draw(kind, width, height))))
    pixels = np.asarray(image)
    tensor = NORMALISE(ToTensor()(image)).contiguous().numpy().astype("<f4")
    grid = np.linspace(0, crop - 1, 3).round().astype(int)
    return dict(
        kind=kind, width=width, height=height, resize=resize, crop=crop, interpolation=name,
        pixels_sha256=hashlib.sha256(pixels.tobytes()).hexdigest(), tensor_sha256=hashlib.sha256(tensor.tobytes()).hexdigest(),
        grid=grid.tolist(), pixels=pixels[np.ix_(grid, grid)].reshape(-1).tolist(),
    )


with open(sys.argv[1], "w") as out:
    versions = dict(pillow=PIL.__version__, torchvision=torchvision.__version__.split("+")[0], torch=torch.__version__.split("+")[0])
    print(json.dumps(versions), file=out)
    for kind in ("noise", "waves"):
        for shape in SHAPES:
            for name in ("bilinear", "bicubic"):
                print(json.dumps(case(kind, shape, name)), file=out)
