"""Times whole training steps (forward, backward, SGD) beside PyTorch, interleaved in one run, and their peak memory.

    python scripts/bench_training.py [--cases resnet18:8:224,resnet20_cifar:128:32] [--threads 2] [--rounds 5] [--also OLD_BUILD]

Needs torch and torchvision, for networks that torchvision has not timm, and the program built in target/release. A case is network:batch:side. Every round runs each program
once as a process of its own; a figure is the median over the rounds of a run's median step, in ms per image, f32, and memory is the
largest resident size of any of these processes. PyTorch trains in channels_last with its fused SGD. Machines are shared: compare the ratios.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "finetune"


def peer(name, batch, side, threads, steps):
    """Trains in this process and prints what `finetune bench --json` does."""
    import torch
    import torchvision

    sys.path.insert(0, str(ROOT / "scripts" / "golden"))
    from golden_cifar import CifarResNet

    torch.set_num_threads(threads)
    if name == "resnet20_cifar":
        network = CifarResNet(3)
    elif name in torchvision.models.list_models():
        network = torchvision.models.get_model(name)
    else:
        import timm

        network = timm.create_model(name)
    network = network.to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.long)
    settings = {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "fused": True}
    optimizer = torch.optim.SGD(network.parameters(), **settings)
    times = []
    for _ in range(steps + 2):
        started = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        times.append(1e3 * (time.perf_counter() - started) / batch)
    print(json.dumps({"median_ms_per_image": statistics.median(times[2:])}))


def run(command):
    """ms per image, and the largest resident size in MB."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    return json.loads(output)["median_ms_per_image"], usage.ru_maxrss / 1024


def commands(name, batch, side, threads, steps, also):
    options = ["--model", name, "--no-pretrained", "--train-from", "all", "--json"]
    options += ["--batch", batch, "--size", side, "--threads", threads, "--repeat", steps]
    this = [sys.executable, __file__, "--peer", f"{name}:{batch}:{side}", "--threads", threads, "--steps", steps]
    engines = {"finetune": [PROGRAM, "bench", *options], "PyTorch": this}
    return engines | ({"before": [also, "bench", *options]} if also else {})


def case(text):
    name, batch, side = text.split(":")
    return name, int(batch), int(side)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = "resnet18:8:224,resnet50:8:224,resnet20_cifar:128:32"
    parser.add_argument("--cases", default=default, type=lambda text: [case(each) for each in text.split(",")])
    parser.add_argument("--threads", default=2, type=int)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--steps", default=6, type=int)
    parser.add_argument("--also", type=Path, help="an older build of the program")
    parser.add_argument("--peer", type=case, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return peer(*arguments.peer, arguments.threads, arguments.steps)
    print("| network | batch | side | engine | ms per image | of finetune | peak MB |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for name, batch, side in arguments.cases:
        engines = commands(name, batch, side, arguments.threads, arguments.steps, arguments.also)
        found = {engine: [] for engine in engines}
        for _ in range(arguments.rounds):
            for engine, command in engines.items():
                found[engine].append(run(command))
        ours = statistics.median(each for each, _ in found["finetune"])
        for engine, figures in found.items():
            median, memory = statistics.median(each for each, _ in figures), max(each for _, each in figures)
            print(f"| {name} | {batch} | {side} | {engine} | {median:.2f} | {median / ours:.2f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
