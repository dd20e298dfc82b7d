"""Shows that timm loads what this program writes, strictly, and computes the same logits, for every network timm knows.

    python scripts/check_timm.py PHOTOS_DIR [OPTION…]          (timm 1.0.31, PyTorch 2.15, safetensors)

For each architecture: `finetune train PHOTOS_DIR --weights FILE OPTION…` writes a bundle, with all that lies beside the
model; timm loads it and computes logits and pooled features of a fixed input; `finetune verify` compares them. PHOTOS_DIR
holds one folder of photos per class. FILE holds the golden references' formula weights: with freshly drawn ones a network of
200 layers amplifies rounding until PyTorch's own f32 and f64 disagree.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "golden"))
from golden_models import fill  # noqa: E402

FINETUNE = ROOT / "target/release/finetune"
ARCHITECTURES = timm.list_models(module="resnet")
# Small inputs: what is checked is the file, not the photos. Formula weights make features that hardly differ between photos;
# a head on standardised ones would magnify their rounding.
TRAINING = ["--epochs", "2", "--input-size", "64", "--no-refit", "--no-standardise"]


def formula_weights(architecture, path):
    model, _ = fill(timm.create_model(architecture, pretrained=False))
    save_file(model.state_dict(), path)


def reference(bundle):
    """What timm makes of the bundle: input, features and logits."""
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 4 - 2
    with torch.inference_mode():
        maps = model.forward_features(images)
        return {
            "input": images,
            "features": model.forward_head(maps, pre_logits=True),
            "logits": model.forward_head(maps),
        }


def check(architecture, photos, folder):
    bundle, golden = folder / architecture, folder / f"{architecture}.safetensors"
    weights = folder / "formula.safetensors"
    formula_weights(architecture, weights)
    train = [FINETUNE, "train", photos, "--model", architecture, "--weights", weights, "--out", bundle, *TRAINING, *sys.argv[2:]]
    result = subprocess.run(train, capture_output=True, text=True)
    if result.returncode != 0:
        print(architecture, result.stderr.strip(), flush=True)
        return False
    save_file(reference(bundle), golden)
    verify = [FINETUNE, "verify", "--model", bundle, "--reference", golden]
    result = subprocess.run(verify, capture_output=True, text=True)
    print(architecture, result.stdout.strip().replace("\n", "; "), result.stderr.strip(), flush=True)
    return result.returncode == 0


def main():
    passed = []
    for architecture in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            passed.append(check(architecture, sys.argv[1], Path(folder)))
    print(f"{sum(passed)} of {len(passed)} networks equal in timm {timm.__version__}")
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
