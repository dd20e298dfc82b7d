"""Writes Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) of the last stage of networks with formula weights, in f64 by autograd,
one JSON object a line.

    python scripts/golden/golden_gradcam.py candle-finetune/tests/golden/gradcam.jsonl          (PyTorch 2.15, timm 1.0.31)

The gradient of a class's logit is averaged over the pixels of each channel; the sum of the maps with these weights is cut at zero and
divided by its largest value.
"""
import json
import sys
from pathlib import Path

import timm
import torch

sys.path.insert(0, str(Path(__file__).parent))
from formula import image_batch  # noqa: E402
from golden_cifar import CifarResNet  # noqa: E402
from golden_models import fill  # noqa: E402

CLASSES = 10
# Name, size of the images, options; every global pool is there, and a map that is no square.
ROWS = [
    ("resnet18", (64, 64), {}), ("resnet50", (96, 160), {}), ("resnet20_cifar", (32, 32), {}),
    ("seresnet18", (64, 64), {"output_stride": 8}), ("resnet26d", (97, 97), {"global_pool": "max"}),
    ("resnet18d", (64, 96), {"global_pool": "avgmax"}), ("resnet18", (96, 96), {"global_pool": "catavgmax"}),
]


def create(name, options):
    if name.endswith("_cifar"):
        return CifarResNet((int(name.removeprefix("resnet").removesuffix("_cifar")) - 2) // 6)
    return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)


def grad_cam(model, last_stage, images, classes):
    seen = []
    hook = last_stage.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = model(images)
    hook.remove()
    spoken = logits[torch.arange(len(classes)), torch.tensor(classes)].sum()
    gradient, = torch.autograd.grad(spoken, seen[0])
    cam = torch.relu((gradient.mean((2, 3), keepdim=True) * seen[0].detach()).sum(1))  # (N, H, W)
    return cam / cam.amax((1, 2), keepdim=True).clamp(min=1e-300)


def row(name, size, options):
    model, _ = fill(create(name, options))
    model.double()
    images = torch.from_numpy(image_batch("input", (2, 3, *size))).double()
    last_stage = model.layer3 if name.endswith("_cifar") else model.layer4
    classes = range(CLASSES)
    cams = [grad_cam(model, last_stage, images, [c, c]) for c in classes]
    # Of each image the class whose map has the most values between none and the largest, so that mistakes show.
    between = lambda cam: int(((cam > 0) & (cam < 1)).sum())  # noqa: E731
    picked = [max(classes, key=lambda c: between(cams[c][image])) for image in range(2)]
    maps = [cams[c][image] for image, c in enumerate(picked)]
    return {
        "model": name, "input": list(images.shape), **options, "classes": picked,
        "height": maps[0].shape[0], "width": maps[0].shape[1], "maps": [[round(v, 9) for v in m.flatten().tolist()] for m in maps],
    }


if __name__ == "__main__":
    with open(sys.argv[1], "w") as out:
        for arguments in ROWS:
            out.write(json.dumps(row(*arguments)) + "\n")
