"""Writes logits and features of timm's ResNets for images of other than three channels, whose first convolutions timm has
adapted from formula weights, one JSON object a line.

    python scripts/golden/golden_channels.py candle-resnet/tests/golden/timm_channels.jsonl

(PyTorch 2.15, timm 1.0.31)
"""
import json
import sys
import tempfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from formula import image_batch  # noqa: E402
from golden_models import fill  # noqa: E402
from outputs import of_timm, row  # noqa: E402

# Name, channels of the weights, channels of the images.
ROWS = [
    ("resnet18", 3, 1), ("resnet18", 3, 2), ("resnet18", 3, 4), ("resnet18", 3, 6), ("resnet18", 1, 3),
    ("resnet26d", 3, 1), ("resnet26d", 3, 4), ("resnet10t", 3, 6), ("test_resnet", 3, 5), ("ecaresnet50d_pruned", 3, 1),
]


def adapted(name, source, channels):
    """timm's own adaptation, on the way of a pretrained file."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        model, shapes = fill(timm.create_model(name, pretrained=False, in_chans=source))
        save_file(model.state_dict(), path)
        overlay = {"file": path, "input_size": (source, 64, 64)}
        return timm.create_model(name, pretrained=True, in_chans=channels, pretrained_cfg_overlay=overlay).eval(), shapes


def adapted_row(name, source, channels):
    model, shapes = adapted(name, source, channels)
    images = torch.from_numpy(image_batch("input", (2, channels, 64, 64)))
    return row("timm", name, model, shapes, images, *of_timm(model, images), weights_channels=source)


if __name__ == "__main__":
    with open(sys.argv[1], "w") as out:
        for arguments in ROWS:
            out.write(json.dumps(adapted_row(*arguments)) + "\n")
