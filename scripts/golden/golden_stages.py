"""Writes what timm's ResNets with formula weights compute behind their stem and behind each stage, and the rate at which each
block's branch is left out in training, one JSON object a line.

    python scripts/golden/golden_stages.py candle-resnet/tests/golden/timm_stages.jsonl

(PyTorch 2.15, timm 1.0.31). What is behind the stem is what `layer1` is given; what is behind a stage is what `features_only`
gives. Of each map there are its shape, the first 16 channels' means and the L2 norm of each image.
"""
import json
import sys
from pathlib import Path

import timm
import torch

sys.path.insert(0, str(Path(__file__).parent))
from formula import image_batch  # noqa: E402
from golden_models import fill  # noqa: E402

# Name, size of the images, options.
ROWS = [
    ("resnet18", (64, 64), {}), ("resnet26d", (97, 97), {}), ("resnetblur18", (64, 96), {}), ("resnet50_gn", (64, 64), {}),
    ("seresnet18", (64, 64), {}), ("resnetrs50", (64, 64), {}), ("ecaresnet50d_pruned", (64, 64), {}),
    ("test_resnet", (64, 64), {"output_stride": 8}), ("resnet10t", (64, 64), {"in_chans": 4}),
]
DROP_PATH_RATE = 0.3


def maps(name, images, options):
    """The stem's map by a hook, the stages' by `features_only`."""
    seen = []
    whole, _ = fill(timm.create_model(name, pretrained=False, **options))
    whole.layer1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    # The wrapper shares nothing with `whole`; under torchvision's names its formula weights are the same.
    stages, _ = fill(timm.create_model(name, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4), **options))
    with torch.inference_mode():
        whole(images)
        return {"stem": seen[0]} | {f"layer{stage}": x for stage, x in enumerate(stages(images), 1)}


def described(x):
    return {
        "shape": list(x.shape), "means_head": [r[:16].tolist() for r in x.mean((2, 3))],
        "l2": [float(r.double().norm()) for r in x],
    }


def drop_rates(name, options):
    model = timm.create_model(name, pretrained=False, drop_path_rate=DROP_PATH_RATE, **options)
    blocks = [block for stage in (model.layer1, model.layer2, model.layer3, model.layer4) for block in stage]
    return [0.0 if block.drop_path is None else block.drop_path.drop_prob for block in blocks]


def row(name, size, options):
    images = torch.from_numpy(image_batch("input", (2, options.get("in_chans", 3), *size)))
    return {
        "model": name, "input": list(images.shape), **options,
        "stages": {stage: described(x) for stage, x in maps(name, images, options).items()},
        "drop_path_rate": DROP_PATH_RATE, "drop_path": drop_rates(name, options),
    }


if __name__ == "__main__":
    with open(sys.argv[1], "w") as out:
        for arguments in ROWS:
            out.write(json.dumps(row(*arguments)) + "\n")
