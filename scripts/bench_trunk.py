"""Times the frozen forward pass beside PyTorch, ONNX Runtime and OpenVINO, interleaved in one run.

    python scripts/bench_trunk.py [--models resnet18,resnet50] [--batches 1,8,32] [--threads 1,2] [--rounds 7] [--candle] [--bf16]

Needs torch, timm, onnx, onnxruntime and openvino, and the program built in target/release. Each round runs every engine once
for about `--seconds`; an engine's figure is the median over all calls of all rounds, in ms per image, f32. PyTorch computes in
channels_last. With --candle, the trainable form (candle's own operations) is timed too; with --bf16, whoever can compute in it
does so as well. Machines are shared: compare the ratios.
"""
import argparse
import copy
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy
import onnxruntime
import openvino
import timm
import torch

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target" / "release" / "finetune"


def export(name, batch, folder):
    """The network without its classifier, as an ONNX file; and the module itself."""
    network = timm.create_model(name, num_classes=0).eval()
    path = Path(folder) / f"{name}-{batch}.onnx"
    torch.onnx.export(network, (torch.zeros(batch, 3, 224, 224),), path, input_names=["x"], dynamo=False)
    return network, path


def pytorch(network, images, dtype=torch.float32):
    network = copy.deepcopy(network).to(dtype, memory_format=torch.channels_last)
    images = torch.from_numpy(images).to(dtype).contiguous(memory_format=torch.channels_last)

    def call():
        with torch.inference_mode():
            network(images)

    return call


def onnx_runtime(path, images, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": images})


def open_vino(path, images, threads, precision="f32"):
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: images})


def timed(call, seconds):
    """ms of each call, for about that long, after one that is not counted."""
    call()
    times, started = [], time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - before))
    return times


def ours(name, batch, threads, repeat, *options):
    command = [PROGRAM, "bench", "--model", name, "--no-pretrained", "--size", "224", "--json", "--repeat", repeat]
    command += ["--batch", batch, "--threads", threads, *options]
    environment = {**os.environ, "CANDLE_NUM_THREADS": str(threads)}  # the program leaves candle one thread, if nothing is said
    output = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, env=environment).stdout
    return json.loads(output)["median_ms_per_image"]


def compare(name, batch, threads, arguments):
    """Median ms per image of each engine."""
    torch.set_num_threads(threads)
    images = numpy.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=numpy.float32)
    with tempfile.TemporaryDirectory() as folder:
        network, path = export(name, batch, folder)
        peers = {
            "PyTorch": pytorch(network, images),
            "ONNX Runtime": onnx_runtime(path, images, threads),
            "OpenVINO": open_vino(path, images, threads),
        }
        if arguments.bf16:
            peers["PyTorch bf16"] = pytorch(network, images, torch.bfloat16)
            peers["OpenVINO bf16"] = open_vino(path, images, threads, "bf16")
        times = {engine: [] for engine in columns(arguments)}
        repeat = max(3, min(40, int(arguments.seconds / (0.01 * batch))))
        for _ in range(arguments.rounds):
            times["finetune"].append(ours(name, batch, threads, repeat))
            for engine, call in peers.items():
                times[engine] += [each / batch for each in timed(call, arguments.seconds)]
            if arguments.candle:
                times["candle"].append(ours(name, batch, threads, 3, "--trainable"))
            if arguments.bf16:
                times["finetune bf16"].append(ours(name, batch, threads, repeat, "--precision", "bf16"))
    return {engine: statistics.median(each) for engine, each in times.items()}


def columns(arguments):
    engines = ["finetune", "PyTorch", "ONNX Runtime", "OpenVINO", *(["candle"] if arguments.candle else [])]
    return engines + (["finetune bf16", "PyTorch bf16", "OpenVINO bf16"] if arguments.bf16 else [])


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", default="resnet18,resnet50", type=lambda text: text.split(","))
    parser.add_argument("--batches", default="1,8,32", type=numbers)
    parser.add_argument("--threads", default="1,2", type=numbers)
    parser.add_argument("--rounds", default=7, type=int)
    parser.add_argument("--seconds", default=0.5, type=float)
    parser.add_argument("--candle", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}"
    print(f"ms per image, 224×224, medians of {arguments.rounds} interleaved rounds; {versions}\n")
    engines = columns(arguments)
    print("| network | threads | batch | " + " | ".join(engines) + " | best peer / finetune, f32 |")
    print("| --- | ---: | ---: | " + " | ".join("---:" for _ in engines) + " | ---: |")
    for name in arguments.models:
        for threads in arguments.threads:
            for batch in arguments.batches:
                medians = compare(name, batch, threads, arguments)
                ratio = min(medians["ONNX Runtime"], medians["OpenVINO"]) / medians["finetune"]
                cells = " | ".join(f"{medians[engine]:.2f}" for engine in engines)
                print(f"| {name} | {threads} | {batch} | {cells} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    sys.exit(main())
