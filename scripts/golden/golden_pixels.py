"""Writes models/references/photo.png, and what torchvision's evaluation transform makes of it for every card's preprocessing.

    python scripts/golden/golden_pixels.py          (torchvision 0.29.2, Pillow 13.0.0)

pixels.jsonl holds the versions in its first line; then, for each preprocessing, the SHA-256 of all pixels after the crop
(uint8, height × width × 3) and of the normalised tensor (little-endian f32, 3 × height × width), and the pixels at a grid,
row by row, as hexadecimal.
"""
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import PIL
import torchvision
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize, ToTensor

MODELS = Path(__file__).resolve().parent.parent.parent / "models"
REFERENCES = MODELS / "references"
WIDTH, HEIGHT = 400, 300
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# What an architecture takes whose weights say nothing: torchvision's first transform, and CIFAR's size.
DEFAULTS = [(256, 224, "bilinear", *IMAGENET), (32, 32, "bilinear", *IMAGENET)]
GRID = 16


def photo():
    """A zone plate, whose rings get finer towards a corner, beside slopes, sharp edges and noise: what a resize gets wrong."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int64)
    slopes = np.stack([x * 255 // WIDTH, y * 255 // HEIGHT, (x + y) * 255 // (WIDTH + HEIGHT)], -1)
    rings = np.where((x * x + y * y) // 640 % 2 == 0, 32, 224)[..., None]
    stripes = np.where((x // 3 + y // 7) % 2 == 0, 0, 255)[..., None]
    noise = (x * 2654435761 + y * 2246822519 ^ (x * y * 3266489917 >> 7)) % 256
    noise = np.stack([noise, noise // 2 + 64, 255 - noise], -1)
    image = slopes.copy()
    image[: HEIGHT // 2, : WIDTH // 2] = (slopes + rings)[: HEIGHT // 2, : WIDTH // 2] // 2
    image[HEIGHT // 2 :, 250:330] = np.broadcast_to(stripes, image.shape)[HEIGHT // 2 :, 250:330]
    image[100:190, 180:270] = noise[100:190, 180:270]
    image[40:90, 300:360] = (250, 10, 30)
    return Image.fromarray(image.astype(np.uint8))


def of_cards():
    for file in ("cards.json", "mirrors.json"):
        for card in json.loads((MODELS / file).read_text()):
            resize = math.floor(card["input_size"] / card["crop_pct"])
            yield resize, card["input_size"], card["interpolation"], card["mean"], card["std"]


def row(image, resize, crop, interpolation, mean, std):
    cut = CenterCrop(crop)(Resize(resize, InterpolationMode(interpolation))(image))
    pixels = np.asarray(cut)
    tensor = Normalize(mean, std)(ToTensor()(cut)).numpy()
    grid = np.linspace(0, crop - 1, GRID).round().astype(int)
    return {
        "resize": resize, "crop": crop, "interpolation": interpolation, "mean": mean, "std": std,
        "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "input_sha256": hashlib.sha256(tensor.astype("<f4").tobytes()).hexdigest(),
        "grid": grid.tolist(), "pixels": pixels[np.ix_(grid, grid)].tobytes().hex(),
    }


def main():
    REFERENCES.mkdir(exist_ok=True)
    photo().save(REFERENCES / "photo.png", optimize=True)
    image = Image.open(REFERENCES / "photo.png").convert("RGB")
    recipes = {json.dumps(recipe): recipe for recipe in [*DEFAULTS, *of_cards()]}
    versions = f"torchvision {torchvision.__version__.split('+')[0]}, Pillow {PIL.__version__}"
    lines = [{"program": versions}] + [row(image, *recipe) for recipe in recipes.values()]
    (REFERENCES / "pixels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(recipes)} preprocessings, {versions}")


if __name__ == "__main__":
    main()
