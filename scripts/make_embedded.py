"""Writes models/resnet20_cifar.embedded.safetensors and its card, models/embedded.json, from a bundle.

    python scripts/make_embedded.py BUNDLE TEST "finetune train …"

BUNDLE is what that command wrote: resnet20_cifar with CIFAR-10's ten classes. TEST is a folder of CIFAR-10's test images, a folder
for each class, on which target/release/finetune measures it.
"""
import argparse
import json
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
NAME = "resnet20_cifar.embedded"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("command")
    return parser.parse_args()


def check(bundle):
    """Refuses a bundle that the card would describe wrongly."""
    config = json.loads((bundle / "config.json").read_text())
    assert config["architecture"] == "resnet20_cifar", config["architecture"]
    labels = (MODELS / "cifar10.txt").read_text().split()
    assert config["label_names"] == labels, config["label_names"]


def measure(bundle, test):
    program = ROOT / "target" / "release" / "finetune"
    run = subprocess.run([program, "eval", test, "--model", bundle, "--json"], check=True, capture_output=True)
    metrics = json.loads(run.stdout)
    assert (metrics["images"], metrics["skipped"]) == (10_000, 0), metrics
    return metrics["top1"]


def card(top1, command):
    return {
        "name": NAME,
        "architecture": "resnet20_cifar",
        "file": f"{NAME}.safetensors",
        "classes": 10,
        "labels": "cifar10",
        "first_conv": "conv1",
        "classifier": "fc",
        "input_size": 32,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "parameters": 269_722,
        "macs": 40_551_040,
        "license": "mit or apache-2.0",
        "origin_url": "https://www.cs.toronto.edu/~kriz/cifar.html",
        "top1": top1,
        "top1_source": "finetune eval, CIFAR-10's 10,000 test images",
        "training": f"from scratch on CIFAR-10's 50,000 training images (Krizhevsky 2009): {command}",
    }


def main():
    given = arguments()
    check(given.bundle)
    top1 = measure(given.bundle, given.test)
    shutil.copyfile(given.bundle / "model.safetensors", MODELS / f"{NAME}.safetensors")
    (MODELS / "embedded.json").write_text(f"[\n{json.dumps(card(top1, given.command))}\n]\n")
    print(f"{NAME}: top-1 {100 * top1:.2f} %")


if __name__ == "__main__":
    main()
