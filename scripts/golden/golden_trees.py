"""Writes the SHA-256 of what `print(model)` shows for every ResNet of timm that torchvision lacks, and one tree in full.

    python scripts/golden/golden_trees.py candle-resnet/tests          (timm 1.0.31, PyTorch 2.15)
"""
import hashlib
import sys
from pathlib import Path

import timm
import torchvision

SHOWN = "test_resnet"


def main(tests):
    own = set(torchvision.models.list_models())
    rows = []
    for name in timm.list_models(module="resnet"):
        if name in own:
            continue
        tree = f"{timm.create_model(name, pretrained=False)}\n"
        rows.append(f"{name}\t{hashlib.sha256(tree.encode()).hexdigest()}\n")
        if name == SHOWN:
            (tests / "data" / f"{name}_tree.txt").write_text(tree)
    (tests / "golden" / "timm_trees.tsv").write_text("".join(rows))
    print(f"{len(rows)} trees")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
