"""Writes what PyTorch and timm make of the parts of a training recipe, one case a line; tensors come from the formula.

    python scripts/golden/golden_recipe.py candle-finetune/tests/golden/recipe.jsonl
"""
import json
import sys
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.utils import ModelEmaV3
from torch.optim import lr_scheduler

sys.path.insert(0, str(Path(__file__).parent))
from formula import image_batch  # noqa: E402


def formula(name, *shape):
    return torch.from_numpy(image_batch(name, shape))


def clip(max_norm):
    """`clip_grad_norm_` over two gradients: the norm before, and all values after."""
    parameters = [torch.zeros(3, 4), torch.zeros(5)]
    for parameter, name in zip(parameters, ["clip.a", "clip.b"]):
        parameter.grad = formula(name, *parameter.shape)
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    values = torch.cat([parameter.grad.flatten() for parameter in parameters])
    return dict(case="clip", max_norm=max_norm, norm=norm.item(), values=values.tolist())


def schedule(shape, steps, steps_per_epoch, warmup, scheduler, per_epoch=False):
    """Learning rates of all steps at a peak of 0.4."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4, momentum=0.9)
    scheduler, rates = scheduler(optimizer), []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not per_epoch or (step + 1) % steps_per_epoch == 0:
            scheduler.step()
    return dict(case="schedule", shape=shape, peak=0.4, steps=steps, steps_per_epoch=steps_per_epoch, warmup=warmup, rates=rates)


def one_cycle(steps, warmup):
    return lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=steps, pct_start=warmup / steps)


def schedules():
    yield schedule("one-cycle", 40, 4, 12, one_cycle(40, 12))
    yield schedule("one-cycle", 25, 5, 5, one_cycle(25, 5))
    yield schedule("one-cycle", 9, 3, 0, one_cycle(9, 0))
    yield schedule("linear", 10, 5, 0, lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=10))
    yield schedule("cosine", 10, 5, 0, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10))
    yield schedule("step=2:0.3", 30, 3, 0, lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.3), per_epoch=True)


class Norm(torch.nn.Module):
    """A parameter, a running mean and a counter, all set by the formula."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, 4))
        self.register_buffer("running_mean", torch.zeros(5))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def set(self, step):
        self.weight.data = formula(f"ema.weight.{step}", 3, 4)
        self.running_mean = formula(f"ema.running_mean.{step}", 5)


def ema(decay, warmup, updates=6):
    """timm's average after `updates` updates, called as its train.py does: after each step, with the steps so far."""
    model = Norm()
    model.set(0)
    average = ModelEmaV3(model, decay=decay, use_warmup=warmup)
    for step in range(1, updates + 1):
        model.set(step)
        average.update(model, step=step)
    tensors = {name: tensor.flatten().tolist() for name, tensor in average.module.state_dict().items() if tensor.is_floating_point()}
    return dict(case="ema", decay=decay, warmup=warmup, updates=updates, tensors=tensors)


def mix(cut, drawn, centre=(0, 0)):
    """timm's batch and loss where NumPy draws this share and this centre."""
    mixup = Mixup(mixup_alpha=0.0 if cut else 1.0, cutmix_alpha=1.0 if cut else 0.0, label_smoothing=0.1, num_classes=3)
    images, labels, logits = formula("mix.images", 4, 2, 6, 5), [0, 2, 1, 2], formula("mix.logits", 4, 3)
    with mock.patch("numpy.random.beta", return_value=drawn), mock.patch("numpy.random.randint", side_effect=centre):
        images, targets = mixup(images, torch.tensor(labels))
    loss = SoftTargetCrossEntropy()(logits, targets).item()
    return dict(case="mix", cut=cut, drawn=drawn, centre=centre, labels=labels, smoothing=0.1, loss=loss, images=images.flatten().tolist())


def soft_loss(smoothing, weights):
    """`cross_entropy` of probabilities."""
    logits, targets = formula("soft.logits", 4, 3), formula("soft.targets", 4, 3).softmax(1)
    weight = None if weights is None else torch.tensor(weights)
    loss = F.cross_entropy(logits, targets, weight=weight, label_smoothing=smoothing).item()
    return dict(case="soft_loss", smoothing=smoothing, weights=weights, targets=targets.tolist(), loss=loss)


def cases():
    yield from (clip(max_norm) for max_norm in [0.5, 100.0])
    yield from schedules()
    yield from (ema(*case) for case in [(0.9998, False), (0.9, True), (0.3, False)])
    yield mix(False, 0.3)
    yield from (mix(True, *case) for case in [(0.6, (1, 4)), (0.2, (3, 2)), (0.98, (3, 2))])
    yield from (soft_loss(*case) for case in [(0.0, None), (0.1, None), (0.2, [1.0, 2.0, 0.5])])


if __name__ == "__main__":
    with open(sys.argv[1], "w") as file:
        for case in cases():
            file.write(json.dumps(case) + "\n")
