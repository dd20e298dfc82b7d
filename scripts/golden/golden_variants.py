"""Writes logits and features of timm's ResNets with formula weights at sizes that do not halve evenly, dilated, and with
other global pools.

    python scripts/golden/golden_variants.py candle-resnet/tests/golden/timm_variants.jsonl

(PyTorch 2.15, timm 1.0.31)
"""
import json
import sys
from pathlib import Path

import timm
import torch

sys.path.insert(0, str(Path(__file__).parent))
from formula import image_batch  # noqa: E402
from golden_models import fill  # noqa: E402
from outputs import of_timm, row  # noqa: E402

SMALL, ODD, WIDE = (97, 97), (225, 225), (240, 320)
# One architecture of each kind. An average in the place of a stride drops an odd last row that the shortcut keeps, so those
# networks take sizes only whose stages are even, in timm as here.
SIZES = [
    ("test_resnet", SMALL), ("test_resnet", ODD), ("test_resnet", WIDE),
    ("resnet10t", SMALL), ("resnet18d", ODD), ("resnet26d", WIDE), ("resnet50c", SMALL),
    ("resnext50d_32x4d", SMALL), ("seresnet18", WIDE), ("seresnext26t_32x4d", ODD),
    ("ecaresnet26t", SMALL), ("ecaresnetlight", ODD), ("ecaresnet50d_pruned", WIDE), ("resnet50_gn", SMALL),
    ("resnetblur18", ODD), ("resnetblur50d", SMALL), ("resnetaa34d", SMALL), ("resnetaa50", ODD), ("resnetrs50", ODD),
    ("senet154", SMALL),
]
OPTIONS = [
    ("test_resnet", {"output_stride": 8}), ("test_resnet", {"output_stride": 16}),
    ("resnet26", {"output_stride": 8}), ("resnet26t", {"output_stride": 16}), ("senet154", {"output_stride": 8}),
    ("resnetblur18", {"output_stride": 8}), ("resnetaa34d", {"output_stride": 16}),
    ("test_resnet", {"global_pool": "max"}), ("resnet18d", {"global_pool": "avgmax"}),
    ("resnet26d", {"global_pool": "catavgmax", "output_stride": 16}),
]


def variant(name, size, options):
    model, shapes = fill(timm.create_model(name, pretrained=False, **options))
    images = torch.from_numpy(image_batch("input", (1, 3, *size)))
    return row("timm", name, model, shapes, images, *of_timm(model, images), **options)


if __name__ == "__main__":
    with open(sys.argv[1], "w") as out:
        for name, size in SIZES:
            out.write(json.dumps(variant(name, size, {})) + "\n")
        for name, options in OPTIONS:
            out.write(json.dumps(variant(name, SMALL, options)) + "\n")
