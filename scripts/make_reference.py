"""Writes what timm makes of a photo with trained weights, for `finetune verify --reference`.

    python scripts/make_reference.py resnet50.tv2_in1k cat.jpg --out cat.safetensors
    python scripts/make_reference.py photos-resnet18 cat.jpg --out cat.safetensors
    finetune verify --model resnet50.tv2_in1k --reference cat.safetensors

The model is a tag as timm names it, which is fetched from the Hub, or a folder in timm's format, such as a bundle. The file
holds the photo's bytes, its pixels after resize and crop, the normalised input, pooled features and logits. Photos are read
as `finetune` reads them: rotated as their EXIF says, as RGB. torchvision evaluates `resnext101_64x4d.tv_in1k` with
`--crop-pct 0.965`, where timm's configuration says 0.875. (timm 1.0.31, PyTorch 2.15)
"""
import argparse
import io
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config


def load(name):
    if Path(name).is_dir():
        return timm.create_model(f"local-dir:{name}", pretrained=True).eval()
    if "." not in name:
        raise SystemExit(f"error: `{name}` is no tag; timm and this program mean different weights by a bare name")
    return timm.create_model(name, pretrained=True).eval()


def transform(model, crop_pct):
    """timm's evaluation transform, in its two parts: up to the crop, and from there to the tensor."""
    config = resolve_model_data_config(model, use_test_size=True)
    if crop_pct:
        config["crop_pct"] = crop_pct
    steps = create_transform(**config, is_training=False).transforms
    crop = next(i for i, step in enumerate(steps) if "Crop" in type(step).__name__) + 1
    apply = lambda steps, value: value if not steps else apply(steps[1:], steps[0](value))  # noqa: E731
    return (lambda image: apply(steps[:crop], image)), (lambda cut: apply(steps[crop:], cut))


def reference(model, photo, crop_pct):
    cut, normalise = transform(model, crop_pct)
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(photo))).convert("RGB")
    pixels = cut(image)
    images = normalise(pixels)[None]
    with torch.inference_mode():
        maps = model.forward_features(images)
        features, logits = model.forward_head(maps, pre_logits=True), model.forward_head(maps)
    tensors = {
        "photo": torch.frombuffer(bytearray(photo), dtype=torch.uint8),
        "pixels": torch.from_numpy(np.array(pixels)),
        "input": images,
        "features": features,
    }
    return tensors | ({"logits": logits} if model.num_classes else {})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a tag as timm names it, or a folder in timm's format")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--crop-pct", type=float, help="crop over resize; the model's own if left out")
    arguments = parser.parse_args()
    tensors = reference(load(arguments.model), arguments.photo.read_bytes(), arguments.crop_pct)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
