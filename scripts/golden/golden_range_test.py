"""Writes what fastai's `Learner.lr_find` makes of given losses, one case a line.

    python scripts/golden/golden_range_test.py candle-finetune/tests/golden/range_test.jsonl
"""
import json
import math
import random
import sys
import tempfile

import torch
from fastai.callback.schedule import SuggestionMethod
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import SGD
from torch.utils.data import DataLoader

BATCHES = 7


class Prescribed:
    """A loss that is the next of a list whatever the model puts out."""

    def __init__(self, losses):
        self.losses = iter(losses)

    def __call__(self, logits, labels):
        return logits.sum() * 0 + next(self.losses)


def range_test(lowest, highest, steps, losses):
    batches = [(torch.zeros(1, 1), torch.zeros(1))] * BATCHES
    loader = DataLoader(batches, batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        loaders = DataLoaders(loader, loader, path=folder, device=torch.device("cpu"))
        learner = Learner(loaders, torch.nn.Linear(1, 1), loss_func=Prescribed(losses), opt_func=SGD, path=folder)
        methods = (SuggestionMethod.Valley, SuggestionMethod.Steep)
        with learner.no_bar():
            valley, steep = learner.lr_find(lowest, highest, steps, show_plot=False, suggest_funcs=methods)
        recorder = learner.recorder
        smoothed = [round(loss.item(), 6) for loss in recorder.losses]
    found = dict(rates=recorder.lrs, smoothed=smoothed, valley=valley, steep=steep)
    return dict(lowest=lowest, highest=highest, steps=steps, losses=losses, **found)


def descent(steps, start, fall, rise, noise, seed):
    """Losses that stay, fall and rise as those of a range test do."""
    draws = random.Random(seed)
    places = [step / steps for step in range(steps)]
    smooth = [start - fall / (1 + math.exp(-20 * (place - 0.55))) + math.exp(rise * (place - 0.8)) for place in places]
    return [round(loss + noise * draws.uniform(-1, 1), 4) for loss in smooth]


def cases():
    yield range_test(1e-7, 10, 100, descent(100, 3.0, 2.0, 40, 0.0, 0))
    yield range_test(1e-7, 10, 100, descent(100, 3.0, 2.0, 40, 0.4, 1))
    yield range_test(1e-6, 1, 300, descent(300, 1.5, 1.2, 20, 0.8, 2))
    yield range_test(1e-5, 10, 57, descent(57, 2.0, 1.0, 10, 0.2, 3))
    yield range_test(1e-7, 10, 100, descent(100, 3.0, 2.0, 200, 0.3, 4))


if __name__ == "__main__":
    with open(sys.argv[1], "w") as file:
        for case in cases():
            file.write(json.dumps(case) + "\n")
