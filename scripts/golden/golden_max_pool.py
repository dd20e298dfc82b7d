"""Writes PyTorch's 3x3 max-pools of maps with many ties, and their gradients."""
import json
import sys

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from formula import unit

CASES = [
    ((2, 3, 7, 7), 2, []),
    ((1, 2, 8, 8), 2, []),
    ((2, 1, 5, 8), 2, []),
    ((1, 2, 6, 3), 1, []),
    ((1, 1, 1, 1), 2, []),
    ((1, 1, 2, 1), 1, []),
    ((1, 2, 5, 5), 2, [0, 1, 12, 30]),
]


def levels(name, shape, count):
    """Whole numbers below `count`."""
    return torch.from_numpy(np.floor(unit(name, int(np.prod(shape))) * np.float32(count)).reshape(shape))


def case(shape, stride, nan_at):
    pixels = levels("pool.map", shape, 4)
    pixels.view(-1)[nan_at] = float("nan")
    pixels.requires_grad_()
    pooled = F.max_pool2d(pixels, 3, stride, 1)
    pooled.backward(levels("pool.gradient", pooled.shape, 64))
    values = [None if value != value else value for value in pooled.flatten().tolist()]
    return dict(shape=shape, stride=stride, nan_at=nan_at, pooled=values, gradient=pixels.grad.flatten().tolist())


with open(sys.argv[1], "w") as file:
    for row in CASES:
        file.write(json.dumps(case(*row)) + "\n")
