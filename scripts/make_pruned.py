"""Writes models/pruned/NAME.tsv: the channels that each convolution of timm's pruned networks puts out.

    python scripts/make_pruned.py          (timm 1.0.31)
"""
from pathlib import Path

import timm

PRUNED = ["ecaresnet50d_pruned", "ecaresnet101d_pruned"]
FOLDER = Path(__file__).resolve().parent.parent / "models" / "pruned"


def main():
    FOLDER.mkdir(exist_ok=True)
    for name in PRUNED:
        state = timm.create_model(name, pretrained=False).state_dict()
        convolutions = {key.removesuffix(".weight"): value.shape[0] for key, value in state.items() if value.dim() == 4}
        rows = [f"{conv}\t{channels}\n" for conv, channels in convolutions.items()]
        (FOLDER / f"{name}.tsv").write_text("".join(rows))
        print(f"{name}: {len(rows)} convolutions")


if __name__ == "__main__":
    main()
