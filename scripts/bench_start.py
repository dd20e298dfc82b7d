"""Times one prediction from process start to exit beside PyTorch and ONNX Runtime, interleaved, in one run.

    cargo build --release
    python scripts/bench_start.py PHOTO [--rounds 9] [--old PROGRAM]      (torch, torchvision, onnx, onnxruntime, Pillow)

ResNet18, one photo, the five likeliest of 1000 classes. Weights are drawn at random once and lie where each program would have
fetched them (the Hub's cache, a state dict, an ONNX file), in the page cache. `--old` times another build of `finetune` too. Figures are
medians of whole processes: seconds, and the peak of resident memory.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FINETUNE = ROOT / "target/release/finetune"
COMMIT = "0" * 40

PYTORCH = """
import sys, torch, torchvision
from PIL import Image
model = torchvision.models.resnet18()
model.load_state_dict(torch.load(sys.argv[1], weights_only=True))
preprocess = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
with torch.inference_mode():
    probabilities = model.eval()(preprocess(Image.open(sys.argv[2]).convert("RGB"))[None]).softmax(1)[0]
print(probabilities.topk(5))
"""

ONNX_RUNTIME = """
import sys, numpy, onnxruntime
from PIL import Image
photo = Image.open(sys.argv[2]).convert("RGB")
scale = 256 / min(photo.size)
photo = photo.resize([int(side * scale) for side in photo.size], Image.BILINEAR)
left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
pixels = numpy.asarray(photo.crop((left, top, left + 224, top + 224)), numpy.float32) / 255
pixels = (pixels - numpy.float32([0.485, 0.456, 0.406])) / numpy.float32([0.229, 0.224, 0.225])
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
logits = session.run(None, {"x": pixels.transpose(2, 0, 1)[None]})[0][0]
print(numpy.argsort(-logits)[:5])
"""


def prepare(folder):
    """Writes the same weights as each program wants them."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    torch.save(model.state_dict(), folder / "resnet18.pth")
    torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), folder / "resnet18.onnx", input_names=["x"], dynamo=False)
    repository = folder / "hub" / "models--timm--resnet18.tv_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, snapshot / "model.safetensors")


def measure(command, environment):
    """Seconds and peak megabytes of a whole process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"failed: {command}\n{errors}")
    return time.perf_counter() - start, usage.ru_maxrss / 1e3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("photo", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--old", type=Path)
    parser.add_argument("--prepare", type=Path, help="only write the weights into this folder")
    arguments = parser.parse_args()
    if arguments.prepare:
        return prepare(arguments.prepare)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak begins with what its parent holds.
        subprocess.run([sys.executable, "-W", "ignore", __file__, arguments.photo, "--prepare", folder], check=True)
        environment = {**os.environ, "HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
        predict = ["predict", arguments.photo, "--model", "resnet18"]
        commands = {
            "finetune": [FINETUNE, *predict],
            "finetune --low-memory": [FINETUNE, *predict, "--low-memory"],
            "PyTorch": [sys.executable, "-c", PYTORCH, folder / "resnet18.pth", arguments.photo],
            "ONNX Runtime": [sys.executable, "-c", ONNX_RUNTIME, folder / "resnet18.onnx", arguments.photo],
        }
        if arguments.old:
            commands["finetune, old"] = [arguments.old, *predict]
        runs = {program: [] for program in commands}
        for round_ in range(arguments.rounds + 1):
            for program, command in commands.items():
                run = measure(command, environment)
                if round_ > 0:  # the first fills the page cache
                    runs[program].append(run)
    medians = {program: [statistics.median(column) for column in zip(*each)] for program, each in runs.items()}
    print(f"one photo, resnet18, from process start to exit, medians of {arguments.rounds} rounds")
    for program, (seconds, megabytes) in medians.items():
        print(f"{program:>22} {seconds:7.3f} s {megabytes:7.0f} MB   {seconds / medians['finetune'][0]:5.1f} × the time")


if __name__ == "__main__":
    main()
