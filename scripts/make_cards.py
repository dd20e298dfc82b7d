"""Writes models/cards.json, models/imagenet1k.tsv and models/imagenet12k.tsv from the timm and torchvision packages.

    python scripts/make_cards.py          (timm 1.0.31, torchvision 0.29.2)

One card for every published tag of timm's ResNets, torchvision's weights among them. Sizes, crop and interpolation are
those that the weights are *evaluated* with: timm's test_input_size and test_crop_pct where they are given.
"""
import json
from pathlib import Path

import timm
import torchvision
from timm.data import ImageNetInfo
from timm.models import generate_default_cfgs  # noqa: F401  (fails early where timm is too old)
from timm.models._registry import _model_pretrained_cfgs as CONFIGS
from torchvision.models import get_model_weights

# torchvision's first, in its order, then timm's by name: the order in which `finetune models` lists them.
TORCHVISION = """resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d
wide_resnet50_2 wide_resnet101_2""".split()
ARCHITECTURES = TORCHVISION + [name for name in timm.list_models(module="resnet") if name not in TORCHVISION]
LABELS = {1000: "imagenet1k", 11821: "imagenet12k", 0: None}
TORCHVISION_TAGS = {"tv_in1k": "IMAGENET1K_V1", "tv2_in1k": "IMAGENET1K_V2"}
MODELS = Path(__file__).resolve().parent.parent / "models"


def torchvision_top1(architecture, tag):
    if tag not in TORCHVISION_TAGS:
        return None
    weights = get_model_weights(architecture)[TORCHVISION_TAGS[tag]]
    return round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5)


def card(name, config):
    architecture, tag = name.split(".", 1)
    top1 = torchvision_top1(architecture, tag)
    size = (config.test_input_size or config.input_size)[-1]
    result = {
        "name": name,
        "architecture": architecture,
        "repository": config.hf_hub_id,
        "file": "model.safetensors",
        "classes": config.num_classes,
        "labels": LABELS[config.num_classes],
        "first_conv": config.first_conv,
        "classifier": config.classifier,
        "input_size": size,
        "crop_pct": config.test_crop_pct or config.crop_pct,
        "interpolation": config.interpolation,
        "mean": config.mean,
        "std": config.std,
        "license": config.license,
        "origin_url": config.origin_url,
        "top1": top1,
        "top1_source": f"torchvision {torchvision.__version__.split('+')[0]}" if top1 else None,
    }
    # torchvision evaluates these weights after a resize to 232, where timm's config keeps its default crop.
    if name == "resnext101_64x4d.tv_in1k":
        result["crop_pct"] = 0.965
    return {key: value for key, value in result.items() if value is not None}


def default_first(item):
    """By architecture, its default first: torchvision's first weights, else the tag that timm takes."""
    name, _ = item
    architecture, tag = name.split(".", 1)
    default = timm.get_pretrained_cfg(architecture).tag
    return ARCHITECTURES.index(architecture), tag != "tv_in1k", tag != default


def write_labels(name, rows):
    lines = [f"{synset}\t{label}\n" for synset, label in rows]
    (MODELS / f"{name}.tsv").write_text("".join(lines))
    return len(lines)


def main():
    tagged = {name: config for name, config in CONFIGS.items() if "." in name and name.split(".")[0] in ARCHITECTURES}
    published = {name: config for name, config in tagged.items() if config.hf_hub_id}
    cards = [card(name, config) for name, config in sorted(published.items(), key=default_first)]
    lines = ",\n".join(json.dumps(entry) for entry in cards)
    (MODELS / "cards.json").write_text(f"[\n{lines}\n]\n")

    names = get_model_weights("resnet18")["IMAGENET1K_V1"].meta["categories"]
    synsets = ImageNetInfo("imagenet-1k").label_names()
    small = write_labels("imagenet1k", zip(synsets, names, strict=True))
    info = ImageNetInfo("imagenet-12k")
    large = write_labels("imagenet12k", ((info.index_to_label_name(i), info.index_to_description(i)) for i in range(info.num_classes())))
    print(f"{len(cards)} cards, {small} and {large} labels, timm {timm.__version__}, torchvision {torchvision.__version__}")


if __name__ == "__main__":
    main()
