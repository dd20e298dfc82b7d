"""Writes logits and features of the CIFAR ResNets of the 2015 paper with formula weights, one JSON object a line.

    python scripts/golden/golden_cifar.py models/references/cifar.jsonl          (PyTorch 2.15)

The shortcut is the paper's option A: every second pixel, and zeros on both sides of the channels.
"""
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from golden_models import fill  # noqa: E402
from formula import image_batch  # noqa: E402


class Block(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.padding = stride, (width - inputs) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding)))


class CifarResNet(nn.Module):
    def __init__(self, depth, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, width in enumerate((16, 32, 64), 1):
            blocks = [Block(inputs if i == 0 else width, width, 2 if i == 0 and stage > 1 else 1) for i in range(depth)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            inputs = width
        self.fc = nn.Linear(64, classes)

    def features(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return x.mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


def row(layers, size):
    model, shapes = fill(CifarResNet((layers - 2) // 6))
    x = torch.from_numpy(image_batch("input", (2, 3, size, size)))
    with torch.inference_mode():
        features, logits = model.features(x), model(x)
    return {
        "source": "paper", "model": f"resnet{layers}_cifar", "input": [2, 3, size, size],
        "parameters": sum(p.numel() for p in model.parameters()), "tensors": len(shapes), "classes": 10, "feature_dim": 64,
        "logits_head": [r[:16].tolist() for r in logits], "logits_l2": [float(r.double().norm()) for r in logits],
        "argmax": logits.argmax(1).tolist(),
        "features_head": [r[:16].tolist() for r in features], "features_l2": [float(r.double().norm()) for r in features],
    }


if __name__ == "__main__":
    with open(sys.argv[1], "w") as out:
        for layers in (20, 32, 44, 56, 110):
            for size in (32, 45):
                out.write(json.dumps(row(layers, size)) + "\n")
