"""Shows that a bundle for grey photos gives in timm the probabilities that it gives here, photos included.

    python scripts/check_grey.py PHOTOS_DIR          (timm 1.0.31, PyTorch 2.15, Pillow 13.0)

PHOTOS_DIR holds one folder of photos per class, best as PNG: decoders of JPEG differ. `finetune train --in-chans 1` adapts formula
weights and writes a bundle; timm loads it, and its own transforms prepare the photos after `convert("L")`.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from check_timm import FINETUNE, formula_weights

TRAINING = ["--in-chans", "1", "--epochs", "2", "--no-refit", "--no-standardise"]


def difference(model, transform, photo, bundle):
    """The largest difference of a photo's probabilities."""
    with torch.inference_mode():
        theirs = model(transform(Image.open(photo).convert("L"))[None]).softmax(1)[0]
    ran = subprocess.run([FINETUNE, "predict", photo, "--model", bundle, "--json"], check=True, capture_output=True)
    ours = json.loads(ran.stdout)["predictions"]
    return max(abs(theirs[one["index"]].item() - one["probability"]) for one in ours)


def check(architecture, photos, folder):
    bundle, weights = folder / architecture, folder / "formula.safetensors"
    formula_weights(architecture, weights)
    train = [FINETUNE, "train", photos, "--model", architecture, "--weights", weights, "--out", bundle, *TRAINING]
    subprocess.run(train, check=True, capture_output=True)
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    shown = sorted(Path(photos).glob("*/*"))[:10]
    return max(difference(model, transform, photo, bundle) for photo in shown)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        differences = {name: check(name, sys.argv[1], Path(folder)) for name in ("resnet18", "resnet18d")}
    print(differences)
    sys.exit(max(differences.values()) > 1e-5)
