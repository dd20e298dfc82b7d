"""Shows how far the compiled trunk is from an f64 reference, beside how far PyTorch's own f32 is, for every network.

    python scripts/check_error.py [--models resnet18,resnet50]          (timm 1.0.31, PyTorch 2.15, Pillow, safetensors)

Weights come from the golden references' formula; running statistics come from a pass in train mode over other photos of the
same kind, so that activations stay of order one through the deepest network. Photos are seeded noise on several scales,
224×224 (CIFAR 32×32), as PNGs that need no resize. PyTorch gets the f32 input that torchvision's transform makes of them,
which `finetune` equals to the last bit; the f64 reference gets those very values, so that nobody answers for the input's
rounding.

An error is the largest difference of any pooled feature of any photo, as a fraction of the largest feature. The program's
plan depends on how many photos there are: `batch` is for eight of them, `single` for one at a time, `low` for eight with
`--low-memory`. The ratio is the worst of the three over PyTorch's error. Exits with 1 if a ratio is above `--bar`.
"""
import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "golden"))
import timm_networks  # noqa: E402
from golden_cifar import CifarResNet  # noqa: E402
from golden_models import fill  # noqa: E402

FINETUNE = ROOT / "target/release/finetune"
CIFAR = {f"resnet{layers}_cifar": (layers - 2) // 6 for layers in (20, 32, 44, 56, 110)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CALIBRATION = 8
SHOWN = 4
PLANS = {"batch": (8, []), "single": (1, []), "low": (8, ["--low-memory"])}


def photo(seed, side):
    """Noise on scales from the whole photo to a pixel; (3, side, side), bytes."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.zeros(1, 3, side, side)
    for cells in (2, 7, side // 8, side // 2, side):
        noise = torch.randn(1, 3, cells, cells, generator=generator)
        pixels += F.interpolate(noise, size=side, mode="bicubic", align_corners=False)
    return (128 + 30 * pixels[0]).clamp(0, 255).byte()


def normalised(photos):
    """As torchvision's ToTensor and Normalize: f32."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (photos.float() / 255 - mean) / std


def network(name):
    model = CifarResNet(CIFAR[name]) if name in CIFAR else timm_networks.create(name)
    return fill(model)[0]


def calibrate(model, images):
    """Makes the running statistics those of `images`."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    model.eval()


def features(model, images):
    with torch.inference_mode():
        if isinstance(model, CifarResNet):
            return model.features(images)
        return model.forward_head(model.forward_features(images), pre_logits=True)


def ours(name, weights, photos, side, count, options):
    """Features that the program makes of the photos, `count` of them in a call."""
    calls = [photos * (count // len(photos))] if count > 1 else [[photo] for photo in photos]
    return torch.cat([embed(name, weights, call, side, options) for call in calls])[:len(photos)]


def embed(name, weights, photos, side, options):
    out = weights.with_name("features.safetensors")
    command = [FINETUNE, "embed", *photos, "--model", name, "--weights", weights, "--out", out, "--overwrite", "--strict"]
    command += ["--input-size", side, "--resize", side, *options]
    command += ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return load_file(out)["features"]


def error(values, reference):
    return ((values.double() - reference).abs().max() / reference.abs().max()).item()


def errors(name, folder):
    """PyTorch's error, and ours under each plan."""
    side = 32 if name in CIFAR else 224
    shown = torch.stack([photo(seed, side) for seed in range(SHOWN)])
    others = torch.stack([photo(seed, side) for seed in range(SHOWN, SHOWN + CALIBRATION)])
    paths = [folder / f"{index}.png" for index in range(SHOWN)]
    for path, pixels in zip(paths, shown):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    model, images, weights = network(name), normalised(shown), folder / "weights.safetensors"
    calibrate(model, normalised(others))
    save_file(model.state_dict(), weights)
    theirs = features(model, images)
    reference = features(model.double(), images.double())
    del model
    run = {plan: ours(name, weights, paths, side, *settings) for plan, settings in PLANS.items()}
    return error(theirs, reference), {plan: error(values, reference) for plan, values in run.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everything = timm_networks.names() + list(CIFAR)
    parser.add_argument("--models", default=everything, type=lambda text: text.split(","))
    parser.add_argument("--bar", default=5.0, type=float)
    arguments = parser.parse_args()
    print("| network | PyTorch | " + " | ".join(PLANS) + " | ratio |")
    print("| --- |" + " ---: |" * (len(PLANS) + 2))
    ratios = {}
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            theirs, own = errors(name, Path(folder))
        ratios[name] = max(own.values()) / theirs
        cells = " | ".join(f"{each:.1e}" for each in (theirs, *own.values()))
        print(f"| {name} | {cells} | {ratios[name]:.2f} |", flush=True)
    above = [name for name, ratio in ratios.items() if ratio > arguments.bar]
    print(f"\nmedian ratio {statistics.median(ratios.values()):.2f}; above {arguments.bar}: {', '.join(above) or 'none'}")
    sys.exit(bool(above))


if __name__ == "__main__":
    main()
