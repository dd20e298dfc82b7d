"""Writes what transformers' ResNets with formula weights compute, beside their configs and the names of their tensors, one
JSON object a line.

    python scripts/golden/golden_transformers.py candle-resnet/tests/golden/transformers.jsonl

(transformers 5.24, PyTorch 2.15). The formula takes transformers' own names of the tensors.
"""
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification, ResNetModel

sys.path.insert(0, str(Path(__file__).parent))
from formula import image_batch, tensor  # noqa: E402

BASIC = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
BOTTLENECK = {"layer_type": "bottleneck", "depths": [2, 2, 2, 2], "hidden_sizes": [256, 512, 1024, 2048]}
ROWS = [
    ("resnet18", ResNetForImageClassification, BASIC),
    ("resnet18", ResNetForImageClassification, BASIC | {"downsample_in_bottleneck": True}),
    ("resnet18", ResNetForImageClassification, BASIC | {"num_channels": 4}),
    ("resnet18", ResNetModel, BASIC),
    ("resnet26", ResNetForImageClassification, BOTTLENECK),
]
LABELS = {0: "ant", 1: "bee", 2: "wasp"}


def fill(model):
    state = model.state_dict()
    filled = {
        name: torch.from_numpy(np.ascontiguousarray(tensor(name, value.shape))) if value.is_floating_point() else value
        for name, value in state.items()
    }
    model.load_state_dict(filled)
    return model.eval()


def saved(model, name):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return json.loads((Path(folder) / name).read_text())


def row(name, model_class, options):
    labels = {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}}
    model = fill(model_class(ResNetConfig(**options, **labels)))
    processor = ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.9)
    images = torch.from_numpy(image_batch("input", (2, model.config.num_channels, 64, 64)))
    with torch.inference_mode():
        trunk = model if model_class is ResNetModel else model.resnet
        features = trunk(images).pooler_output.flatten(1)
        logits = features.new_zeros(2, 0) if model_class is ResNetModel else model(images).logits
    return {
        "model": name, "input": list(images.shape),
        "config": saved(model, "config.json"), "preprocessor": saved(processor, "preprocessor_config.json"),
        "names": {name: list(value.shape) for name, value in model.state_dict().items()},
        "logits": logits.tolist(),
        "features_head": [r[:16].tolist() for r in features], "features_l2": [float(r.double().norm()) for r in features],
    }


if __name__ == "__main__":
    with open(sys.argv[1], "w") as out:
        for arguments in ROWS:
            out.write(json.dumps(row(*arguments)) + "\n")
