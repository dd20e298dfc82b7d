"""Times the frozen network, or whole training steps, on an NVIDIA GPU beside PyTorch's, interleaved, in one run.

    scripts/build_cuda.sh --cudnn
    python scripts/bench_gpu.py [--program target/cuda/release/finetune] [--cases resnet18:256,resnet50:256] [--rounds 3]
    python scripts/bench_gpu.py --train --cases resnet50:128

Both compute in bf16, at 224×224, weights drawn at random: from images on the device to features, or, with --train, forward, backward
and SGD with momentum over all parameters, which are f32. PyTorch runs in channels_last, as it is and through torch.compile, with
cuDNN's benchmark on, and trains under autocast with its fused SGD. Milliseconds a batch are medians of 20 calls, those printed the
medians over rounds; the share of the chip's peak counts two operations for each multiply-add, six where trained, of --peak TFLOP/s.
"""
import argparse
import json
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIGA_MULTIPLY_ADDS = {"resnet18": 1.814, "resnet34": 3.664, "resnet50": 4.089, "resnet101": 7.801, "resnet152": 11.514}


def ours(program, model, batch, train):
    command = [program, "bench", "--model", model, "--no-pretrained", "--device", "cuda", "--precision", "bf16"]
    command += ["--batch", str(batch), "--repeat", "20", "--json"]
    command += ["--train-from", "all"] if train else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["median_ms_per_image"] * batch


class PyTorch:
    """A network that is compiled once, for all rounds."""

    def __init__(self, model, batch, compiled, train):
        import torch
        import torchvision

        self.torch = torch
        torch.backends.cudnn.benchmark = True
        network = getattr(torchvision.models, model)().cuda().to(memory_format=torch.channels_last)
        images = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
        self.step = self.training(network, images, compiled) if train else self.frozen(network, images, compiled)

    def frozen(self, network, images, compiled):
        torch = self.torch
        network.fc = torch.nn.Identity()
        network = network.eval().bfloat16()
        network = torch.compile(network) if compiled else network
        images = images.bfloat16()

        def step():
            with torch.no_grad():
                network(images)

        return step

    def training(self, network, images, compiled):
        torch = self.torch
        labels = torch.zeros(len(images), dtype=torch.long, device="cuda")
        settings = {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "fused": True}
        optimizer = torch.optim.SGD(network.parameters(), **settings)
        network = torch.compile(network) if compiled else network

        def step():
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()

        return step

    def milliseconds(self):
        torch = self.torch
        times = []
        for call in range(25):
            start, end = torch.cuda.Event(True), torch.cuda.Event(True)
            start.record()
            self.step()
            end.record()
            torch.cuda.synchronize()
            if call >= 5:
                times.append(start.elapsed_time(end))
        return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=ROOT / "target/cuda/release/finetune")
    parser.add_argument("--cases", default="resnet18:256,resnet50:256")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out, which takes a minute")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s in dense bf16; an H100's and H200's if left out")
    arguments = parser.parse_args()

    import torch

    versions = f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True)
    print(f"{torch.cuda.get_device_name()}, driver {driver.stdout.strip()}, {versions}")
    print("network  batch   finetune  PyTorch  compiled   times as fast as the best   images/s   of the peak")
    for case in arguments.cases.split(","):
        model, batch = case.split(":")
        batch = int(batch)
        forms = (False,) if arguments.eager else (False, True)
        peers = [PyTorch(model, batch, compiled, arguments.train) for compiled in forms]
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append([ours(arguments.program, model, batch, arguments.train), *(peer.milliseconds() for peer in peers)])
        mine, *theirs = (statistics.median(column) for column in zip(*rounds))
        eager, compiled = theirs[0], theirs[-1]
        ratio, rate = min(theirs) / mine, batch / mine * 1000
        share = (6e9 if arguments.train else 2e9) * GIGA_MULTIPLY_ADDS[model] * rate / (arguments.peak * 1e12) if model in GIGA_MULTIPLY_ADDS else 0.0
        print(f"{model:>8} {batch:5} {mine:7.2f} ms {eager:5.2f} ms {compiled:6.2f} ms {ratio:24.2f} {rate:13.0f} {share:12.1%}", flush=True)


if __name__ == "__main__":
    main()
