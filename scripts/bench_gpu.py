"""Times the frozen network on an NVIDIA GPU beside PyTorch's, interleaved, in one run.

    scripts/build_cuda.sh --cudnn
    python scripts/bench_gpu.py [--program target/cuda/release/finetune] [--cases resnet18:256,resnet50:256] [--rounds 3]

Both compute in bf16, at 224×224, weights drawn at random, from images on the device to features. PyTorch runs in channels_last,
as it is and through torch.compile, with cuDNN's benchmark on. Milliseconds a batch are medians of 20 calls, those printed the
medians over rounds; the share of the chip's peak counts two operations for each multiply-add, of --peak TFLOP/s.
"""
import argparse
import json
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIGA_MULTIPLY_ADDS = {"resnet18": 1.814, "resnet34": 3.664, "resnet50": 4.089, "resnet101": 7.801, "resnet152": 11.514}


def ours(program, model, batch):
    command = [program, "bench", "--model", model, "--no-pretrained", "--device", "cuda", "--precision", "bf16"]
    command += ["--batch", str(batch), "--repeat", "20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["median_ms_per_image"] * batch


class PyTorch:
    """A network that is compiled once, for all rounds."""

    def __init__(self, model, batch, compiled):
        import torch
        import torchvision

        torch.backends.cudnn.benchmark = True
        network = getattr(torchvision.models, model)()
        network.fc = torch.nn.Identity()
        network = network.cuda().eval().bfloat16().to(memory_format=torch.channels_last)
        images = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
        self.images = images.to(memory_format=torch.channels_last)
        self.network = torch.compile(network) if compiled else network
        self.torch = torch

    def milliseconds(self):
        torch = self.torch
        times = []
        with torch.no_grad():
            for call in range(25):
                start, end = torch.cuda.Event(True), torch.cuda.Event(True)
                start.record()
                self.network(self.images)
                end.record()
                torch.cuda.synchronize()
                if call >= 5:
                    times.append(start.elapsed_time(end))
        return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=ROOT / "target/cuda/release/finetune")
    parser.add_argument("--cases", default="resnet18:256,resnet50:256")
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
        peers = [PyTorch(model, batch, compiled) for compiled in (False, True)]
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append([ours(arguments.program, model, batch), *(peer.milliseconds() for peer in peers)])
        mine, eager, compiled = (statistics.median(column) for column in zip(*rounds))
        ratio, rate = min(eager, compiled) / mine, batch / mine * 1000
        share = 2e9 * GIGA_MULTIPLY_ADDS[model] * rate / (arguments.peak * 1e12) if model in GIGA_MULTIPLY_ADDS else 0.0
        print(f"{model:>8} {batch:5} {mine:7.2f} ms {eager:5.2f} ms {compiled:6.2f} ms {ratio:24.2f} {rate:13.0f} {share:12.1%}", flush=True)


if __name__ == "__main__":
    main()
