"""Writes logits and features of torchvision ResNets with formula weights at sizes that do not halve evenly.

    python scripts/golden/golden_odd_sizes.py candle-resnet/tests/golden/torchvision_odd_sizes.jsonl

(PyTorch 2.15, torchvision 0.29.2)
"""
import json
import sys
from pathlib import Path

import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parent))
from formula import image_batch  # noqa: E402
from golden_models import fill  # noqa: E402
from outputs import row  # noqa: E402

INPUTS = [
    ("resnet18", (1, 3, 97, 97)),
    ("resnet18", (3, 3, 32, 45)),
    ("resnet50", (1, 3, 75, 120)),
    ("resnext50_32x4d", (1, 3, 225, 225)),
]


def odd_size(name, shape):
    model, shapes = fill(getattr(torchvision.models, name)(weights=None))
    seen = []
    model.fc.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.from_numpy(image_batch("input", shape))
    with torch.inference_mode():
        logits = model(images)
    return row("torchvision", name, model, shapes, images, logits, seen[0])


if __name__ == "__main__":
    with open(sys.argv[1], "w") as out:
        for name, shape in INPUTS:
            out.write(json.dumps(odd_size(name, shape)) + "\n")
