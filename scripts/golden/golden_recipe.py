"""Writes what PyTorch and timm make of the parts of a training recipe, one case a line; tensors come from the formula.

    python scripts/golden/golden_recipe.py candle-finetune/tests/golden/recipe.jsonl
"""
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from formula import image_batch  # noqa: E402


def formula(name, *shape):
    return torch.from_numpy(image_batch(name, shape))


def clip(max_norm):
    """`clip_grad_norm_` over two gradients: the norm before, and all values after."""
    parameters = [torch.zeros(3, 4), torch.zeros(5)]
    for parameter, name in zip(parameters, ["clip.a", "clip.b"]):
        parameter.grad = formula(name, *parameter.shape)
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    values = torch.cat([parameter.grad.flatten() for parameter in parameters])
    return dict(case="clip", max_norm=max_norm, norm=norm.item(), values=values.tolist())


def cases():
    yield from (clip(max_norm) for max_norm in [0.5, 100.0])


if __name__ == "__main__":
    with open(sys.argv[1], "w") as file:
        for case in cases():
            file.write(json.dumps(case) + "\n")
