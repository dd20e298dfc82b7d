"""The ResNets that timm's `resnet.py` describes: its 81 functions, and the network that it has a card of but no function."""
import re

import timm
from timm.models.resnet import Bottleneck, ResNet

WITHOUT_FUNCTION = {
    "resnext101_32x48d": dict(block=Bottleneck, layers=(3, 4, 23, 3), cardinality=32, base_width=48),
}


def natural(name):
    """Orders numbers in names by their value."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def names():
    return sorted(timm.list_models(module="resnet") + list(WITHOUT_FUNCTION), key=natural)


def create(name, **options):
    """The network of this name with fresh weights."""
    if name in WITHOUT_FUNCTION:
        return ResNet(**WITHOUT_FUNCTION[name], **options)
    return timm.create_model(name, pretrained=False, **options)
