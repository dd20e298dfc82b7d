"""Writes PyTorch's unfreezing of torchvision's networks in f64, as `golden_train.py` does it in f32.

In f32 a rounding decides here and there whether a ReLU lets a value pass, and batch norms over a few pixels make much of it: with
oneDNN and without, PyTorch's own running means differ by 1e-3 after four steps. In f64 two right programs agree to 1e-9.

    python scripts/golden/golden_unfreezing.py candle-finetune/tests/golden/unfreezing_f64.jsonl
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

sys.path.insert(0, str(Path(__file__).parent))
from formula import image_batch, tensor, unit  # noqa: E402

STEPS, BATCH, SIZE, CLASSES = 4, 4, 64, 1000
SGD = "sgd lr=0.01 momentum=0.9 weight_decay=1e-4"
ADAMW = "adamw lr=1e-4 weight_decay=0.05"
CASES = [
    ("resnet18", "layer4", True, SGD), ("resnet18", "layer2", True, SGD), ("resnet18", "stem", False, SGD),
    ("resnet18", "stem", True, SGD), ("resnet50", "layer3", True, ADAMW),
]
PARTS = ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]
TENSORS = [
    "conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight", "layer4.1.bn2.weight", "layer4.1.bn2.running_mean",
    "layer4.1.bn2.running_var", "fc.weight", "fc.bias",
]


def part(name):
    module = name.split(".")[0]
    return PARTS.index(module) if module in PARTS else 0


def double(array):
    return torch.from_numpy(np.ascontiguousarray(array)).double()


def network(arch, first, batch_norms_train):
    model = getattr(torchvision.models, arch)(weights=None).double().eval()
    state = model.state_dict()
    model.load_state_dict({k: double(tensor(k, v.shape)).reshape(v.shape) if v.is_floating_point() else v for k, v in state.items()})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part(name) >= first)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train(batch_norms_train and part(name) >= first)
    return model


def optimizer(parameters, description):
    if description == SGD:
        return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)
    return torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.05)


def case(arch, stage, batch_norms_train, description):
    model = network(arch, PARTS.index(stage), batch_norms_train)
    steps = optimizer([p for p in model.parameters() if p.requires_grad], description)
    images = double(image_batch("train.images", (STEPS, BATCH, 3, SIZE, SIZE)))
    labels = torch.from_numpy((unit("train.labels", STEPS * BATCH) * CLASSES).astype(np.int64)).reshape(STEPS, BATCH)
    losses = []
    for x, y in zip(images, labels):
        loss = F.cross_entropy(model(x), y)
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    state = model.state_dict()
    return dict(arch=arch, from_stage=stage, batchnorm="train" if batch_norms_train else "frozen", optimizer=description,
                image_size=SIZE, batch=BATCH, losses=losses, l2={name: state[name].norm().item() for name in TENSORS})


if __name__ == "__main__":
    with open(sys.argv[1], "w") as file:
        for row in CASES:
            file.write(json.dumps(case(*row)) + "\n")
