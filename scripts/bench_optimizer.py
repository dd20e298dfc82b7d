"""Times a step of SGD with momentum and of AdamW over resnet18's parameters beside PyTorch's, interleaved in one run.

    cargo build --release --workspace --examples
    python scripts/bench_optimizer.py [--threads 2] [--rounds 7] [--steps 10] [--also PROGRAM]

Needs torch and torchvision. A figure is the median in ms over all steps of all rounds but each round's first; --also times another
build of the example. Machines are shared: compare the ratios.
"""
import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch
import torchvision

PROGRAM = Path(__file__).resolve().parent.parent / "target" / "release" / "examples" / "bench_optimizer"
SETTINGS = {
    "sgd": (torch.optim.SGD, dict(lr=1e-3, momentum=0.9, weight_decay=1e-4)),
    "adamw": (torch.optim.AdamW, dict(lr=1e-3, weight_decay=1e-4)),
}


def pytorch(optimizer, implementation):
    """A step of PyTorch's, in one of its implementations: foreach or fused."""
    parameters = list(torchvision.models.resnet18(weights=None).parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    kind, settings = SETTINGS[optimizer]
    return kind(parameters, **settings, **{implementation: True}).step


def timed(step, steps):
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - started))
    return times


def ours(program, optimizer, threads, steps):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    command = [str(program), optimizer, str(steps)]
    return [float(line) for line in subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", default=2, type=int)
    parser.add_argument("--rounds", default=7, type=int)
    parser.add_argument("--steps", default=10, type=int)
    parser.add_argument("--also", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    programs = {"finetune": PROGRAM, **({"also": arguments.also} if arguments.also else {})}
    print(f"ms per step, {arguments.threads} threads, PyTorch {torch.__version__}")
    for optimizer in SETTINGS:
        peers = {f"PyTorch {name}": pytorch(optimizer, name) for name in ["foreach", "fused"]}
        times = {engine: [] for engine in [*programs, *peers]}
        for _ in range(arguments.rounds):
            for engine, program in programs.items():
                times[engine] += ours(program, optimizer, arguments.threads, arguments.steps)[1:]
            for engine, step in peers.items():
                times[engine] += timed(step, arguments.steps)[1:]
        print(optimizer, *(f"{engine} {statistics.median(each):.1f}" for engine, each in times.items()), sep="   ")


if __name__ == "__main__":
    main()
