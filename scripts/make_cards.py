"""Writes models/cards.json, mirrors.json, aliases.tsv, imagenet1k.tsv and imagenet12k.tsv from the timm and torchvision packages.

    python scripts/make_cards.py          (timm 1.0.31, torchvision 0.29.2)

One card for every published tag of timm's ResNets, torchvision's weights among them. Sizes, crop and interpolation are
those that the weights are *evaluated* with: timm's test_input_size and test_crop_pct where they are given. Parameters and
multiply-adds (of convolutions and dense layers, for one image at the evaluation size) are counted on timm's network.

Reported top-1 is torchvision's for its own weights. For the others it comes from models/top1.tsv: the rows of
results/results-imagenet.csv in the repository huggingface/pytorch-image-models at commit
7479d451a6dfd8af27f941b8e82a7402461fae80 that were measured with the card's size, crop and interpolation.

No card has a revision: commits of the Hub's repositories are in neither package.
"""
import csv
import functools
import json
from pathlib import Path

import timm
import torch
import torchvision
from timm.data import ImageNetInfo
from timm.models import get_deprecated_models
from timm.models.resnet import default_cfgs
from torchvision.models import get_model_weights

import timm_networks

# torchvision's first, in its order, then timm's by name: the order in which `finetune models` lists them.
TORCHVISION = """resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d
wide_resnet50_2 wide_resnet101_2""".split()
ARCHITECTURES = TORCHVISION + [name for name in timm_networks.names() if name not in TORCHVISION]
LABELS = {1000: "imagenet1k", 11821: "imagenet12k", 0: None}
TORCHVISION_TAGS = {"tv_in1k": "IMAGENET1K_V1", "tv2_in1k": "IMAGENET1K_V2"}
TORCHVISION_SOURCE = f"torchvision {torchvision.__version__.split('+')[0]}"
TIMM_SOURCE = "timm results-imagenet.csv, commit 7479d451"
# One repository with a file for each network, which candle's example loads; candle's export_models.py writes torchvision's
# first weights.
CANDLE = "lmz/candle-resnet"
CANDLE_NETWORKS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
# Repositories in transformers' layout.
MICROSOFT = [f"microsoft/resnet-{layers}" for layers in (18, 26, 34, 50, 101, 152)]
MODELS = Path(__file__).resolve().parent.parent / "models"


def published():
    """Every tag of a network that has a repository: name → timm's configuration."""
    tags = {}
    for architecture in ARCHITECTURES:
        for tag, config in default_cfgs[architecture].cfgs.items():
            if tag and config.hf_hub_id:
                tags[f"{architecture}.{tag}"] = config
    return tags


def default_tag(architecture):
    """What the bare name means: torchvision's first weights, else the tag that timm takes."""
    tags = [tag for tag, config in default_cfgs[architecture].cfgs.items() if tag and config.hf_hub_id]
    return "tv_in1k" if "tv_in1k" in tags else default_cfgs[architecture].default.tag or tags[0]


def by_architecture(item):
    """By architecture, its default first."""
    architecture, tag = item[0].split(".", 1)
    return ARCHITECTURES.index(architecture), tag != default_tag(architecture)


@functools.cache
def network(architecture, classes):
    with torch.device("meta"):
        return timm_networks.create(architecture, num_classes=classes).eval()


def parameters(architecture, classes):
    return sum(parameter.numel() for parameter in network(architecture, classes).parameters())


@functools.cache
def multiply_adds(architecture, classes, size):
    """Multiply-adds of the convolutions and dense layers for one image of this size."""
    counts = []

    def count(module, inputs, output):
        outputs = output[0].numel()  # of the one image
        counts.append(outputs * module.weight[0].numel())

    model = network(architecture, classes)
    kinds = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Linear)
    hooks = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, kinds)]
    model(torch.empty(1, 3, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def torchvision_top1(architecture, tag):
    weights = get_model_weights(architecture)[TORCHVISION_TAGS[tag]]
    return round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5)


@functools.cache
def timm_results():
    with open(MODELS / "top1.tsv", newline="") as rows:
        return {row["name"]: row for row in csv.DictReader(rows, delimiter="\t")}


def timm_top1(name, size, crop_pct, interpolation):
    """What timm reports for these weights, if it measured them as the card evaluates them."""
    row = timm_results().get(name)
    if row is None:
        return None
    measured = int(row["input_size"]), float(row["crop_pct"]), row["interpolation"]
    assert measured == (size, crop_pct, interpolation), f"{name}: top1.tsv says {measured}"
    return round(float(row["top1"]) / 100, 5)


def card(name, config):
    architecture, tag = name.split(".", 1)
    size = (config.test_input_size or config.input_size)[-1]
    crop_pct = config.test_crop_pct or config.crop_pct
    # torchvision evaluates these weights after a resize to 232, where timm's config keeps its default crop.
    if name == "resnext101_64x4d.tv_in1k":
        crop_pct = 0.965
    if tag in TORCHVISION_TAGS:
        top1, source = torchvision_top1(architecture, tag), TORCHVISION_SOURCE
    else:
        top1, source = timm_top1(name, size, crop_pct, config.interpolation), TIMM_SOURCE
    result = {
        "name": name,
        "architecture": architecture,
        "repository": f"timm/{name}" if config.hf_hub_id == "timm/" else config.hf_hub_id,
        "file": "model.safetensors",
        "classes": config.num_classes,
        "labels": LABELS[config.num_classes],
        "first_conv": config.first_conv,
        "classifier": config.classifier,
        "input_size": size,
        "crop_pct": crop_pct,
        "interpolation": config.interpolation,
        "mean": config.mean,
        "std": config.std,
        "parameters": parameters(architecture, config.num_classes),
        "macs": multiply_adds(architecture, config.num_classes, size),
        "license": config.license,
        "origin_url": config.origin_url,
        "top1": top1,
        "top1_source": source if top1 else None,
    }
    return {key: value for key, value in result.items() if value is not None}


def mirror(first):
    """candle's file of torchvision's first weights; nobody reports its accuracy."""
    architecture = first["architecture"]
    place = {"name": f"{CANDLE}/{architecture}", "repository": CANDLE, "file": f"{architecture}.safetensors"}
    return {key: value for key, value in (first | place).items() if key not in ("top1", "top1_source")}


def aliases():
    """Other name → what it stands for."""
    names = {}
    for architecture in TORCHVISION:
        weights = get_model_weights(architecture)
        tags = {value: tag for tag, value in TORCHVISION_TAGS.items()}
        for spelling, member in weights.__members__.items():
            names[f"{weights.__name__}.{spelling}"] = f"{architecture}.{tags[member.name]}"
    names |= {old: new for old, new in get_deprecated_models("resnet").items()}
    # timm sends all widths to the narrowest.
    names |= {f"ig_resnext101_32x{width}d": f"resnext101_32x{width}d.fb_wsl_ig1b_ft_in1k" for width in (8, 16, 32, 48)}
    names |= {repository: f"hf-hub:{repository}" for repository in MICROSOFT}
    return names | {CANDLE: f"{CANDLE}/{CANDLE_NETWORKS[0]}"}


def write_cards(file, cards):
    lines = ",\n".join(json.dumps(entry) for entry in cards)
    (MODELS / file).write_text(f"[\n{lines}\n]\n")


def write_rows(file, rows):
    lines = [f"{left}\t{right}\n" for left, right in rows]
    (MODELS / file).write_text("".join(lines))
    return len(lines)


def write_labels():
    names = get_model_weights("resnet18")["IMAGENET1K_V1"].meta["categories"]
    small = write_rows("imagenet1k.tsv", zip(ImageNetInfo("imagenet-1k").label_names(), names, strict=True))
    info = ImageNetInfo("imagenet-12k")
    synsets = range(info.num_classes())
    large = write_rows("imagenet12k.tsv", ((info.index_to_label_name(i), info.index_to_description(i)) for i in synsets))
    return small, large


def main():
    cards = [card(name, config) for name, config in sorted(published().items(), key=by_architecture)]
    write_cards("cards.json", cards)
    firsts = {entry["architecture"]: entry for entry in cards if entry["name"].endswith(".tv_in1k")}
    write_cards("mirrors.json", [mirror(firsts[architecture]) for architecture in CANDLE_NETWORKS])
    unused = timm_results().keys() - {entry["name"] for entry in cards}
    assert not unused, unused
    reported = sum("top1" in entry for entry in cards)
    print(f"{len(cards)} cards, {reported} with top-1, {write_rows('aliases.tsv', aliases().items())} aliases,",
          f"{write_labels()} labels, timm {timm.__version__}, {TORCHVISION_SOURCE}")


if __name__ == "__main__":
    main()
