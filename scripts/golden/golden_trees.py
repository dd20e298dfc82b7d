"""Writes the SHA-256 of what `print(model)` shows for every ResNet of timm that torchvision lacks, and one tree in full.

    python scripts/golden/golden_trees.py candle-resnet/tests          (timm 1.0.31, PyTorch 2.15)
"""
import hashlib
import sys
from pathlib import Path

import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import timm_networks  # noqa: E402

SHOWN = "test_resnet"


def main(tests):
    own = set(torchvision.models.list_models())
    rows = []
    for name in timm_networks.names():
        if name in own:
            continue
        tree = f"{timm_networks.create(name)}\n"
        rows.append(f"{name}\t{hashlib.sha256(tree.encode()).hexdigest()}\n")
        if name == SHOWN:
            (tests / "data" / f"{name}_tree.txt").write_text(tree)
    (tests / "golden" / "timm_trees.tsv").write_text("".join(rows))
    print(f"{len(rows)} trees")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
