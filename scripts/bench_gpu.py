"""Times a part of fine-tuning on an NVIDIA GPU beside PyTorch, interleaved, in one run.

    scripts/build_cuda.sh --cudnn
    python scripts/bench_gpu.py frozen  [--cases resnet18:256,resnet50:256]    images on the device to features
    python scripts/bench_gpu.py train   [--cases resnet18:128,resnet50:128]    steps that train all of a network
    python scripts/bench_gpu.py loading [--photos DIR]                         files to images on the device, no network
    python scripts/bench_gpu.py files   [--photos DIR] [--cases resnet50:128]  epochs that train all of a network from files
    python scripts/bench_gpu.py head    [--photos DIR] [--cases resnet18:128]  a new head on a frozen network, from files
                                                              (PyTorch 2.11, torchvision 0.26; --program, --rounds, --peak, --alone)

All compute in bf16 (or --precision f16), at 224×224, with weights drawn at random. PyTorch runs in channels_last, as it is and through
torch.compile, with cuDNN's benchmark on; it trains under autocast with its fused SGD, and reads by as many worker processes as there are
cores into pinned memory. Milliseconds a batch are medians of 20 calls, figures medians over rounds; the share of the chip's peak counts
two operations for each multiply-add, six where trained, of --peak TFLOP/s.

--photos is a folder with one folder for each class; without it, 4,096 JPEG files of 500×375 pixels are drawn. Epochs are timed from the
second on: a tenth of the photos is held out and measured after each. For `head` the figure is the whole run: --epochs epochs, in which this
program sends every photo through the frozen network once, and PyTorch in every epoch. With --alone PyTorch is neither measured nor needed.

Where there is no GPU, --emulated MICROSECONDS shows what the program takes on the host: scripts/with_cuda.sh --cudnn
scripts/emulated_gpu/build.sh makes a device that computes nothing, and is as good as busy for so long with each thing that it is asked for.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from multiprocessing import Pool
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIGA_MULTIPLY_ADDS = {"resnet18": 1.814, "resnet34": 3.664, "resnet50": 4.089, "resnet101": 7.801, "resnet152": 11.514}
PHOTOS, CLASSES, HELD_OUT = 4096, 4, 0.1
CASES = {"frozen": "resnet18:256,resnet50:256", "train": "resnet18:128,resnet50:128", "files": "resnet50:128", "head": "resnet18:128"}


def environment(arguments):
    """That a process of ours runs in."""
    if arguments.emulated is None:
        return os.environ
    target = ROOT / "target"
    libraries = f"{target / 'emulated-gpu'}:{target / 'cuda-toolkit/nvidia/cu13/lib'}"
    emulated = {"EMULATED_GPU_ORDER": "never", "EMULATED_GPU_MICROSECONDS": str(arguments.emulated)}
    return {**os.environ, "LD_LIBRARY_PATH": libraries, **emulated}


def finetune(arguments, *words):
    command = [str(word) for word in (arguments.program, *words, "--device", "cuda", "--precision", arguments.precision)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(arguments))
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done


# Images that are on the device already.


def ours(arguments, model, batch):
    words = ["bench", "--model", model, "--no-pretrained", "--batch", batch, "--repeat", 20, "--json"]
    words += ["--train-from", "all"] if arguments.what == "train" else []
    return json.loads(finetune(arguments, *words).stdout)["median_ms_per_image"] * batch


class PyTorch:
    """A network that is compiled once, for all rounds."""

    def __init__(self, arguments, model, batch, compiled):
        import torch
        import torchvision

        self.torch, self.dtype = torch, getattr(torch, {"bf16": "bfloat16", "f16": "float16"}[arguments.precision])
        torch.backends.cudnn.benchmark = True
        network = getattr(torchvision.models, model)().cuda().to(memory_format=torch.channels_last)
        images = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
        prepare = self.training if arguments.what == "train" else self.frozen
        self.step = prepare(network, images, compiled)

    def frozen(self, network, images, compiled):
        torch = self.torch
        network.fc = torch.nn.Identity()
        network = network.eval().to(self.dtype)
        network = torch.compile(network) if compiled else network
        images = images.to(self.dtype)

        def step():
            with torch.no_grad():
                network(images)

        return step

    def training(self, network, images, compiled):
        labels = self.torch.zeros(len(images), dtype=self.torch.long, device="cuda")
        step = training_step(network, network.parameters(), self.dtype, compiled)
        return lambda: step(images, labels)

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


def training_step(network, parameters, dtype, compiled):
    import torch

    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    network = torch.compile(network) if compiled else network

    def step(images, labels):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return step


def bench_on_device(arguments):
    operations = 6e9 if arguments.what == "train" else 2e9
    for model, batch in arguments.cases:
        forms = [] if arguments.alone else [False] if arguments.eager else [False, True]
        peers = [PyTorch(arguments, model, batch, compiled) for compiled in forms]
        rounds = [[ours(arguments, model, batch), *(peer.milliseconds() for peer in peers)] for _ in range(arguments.rounds)]
        mine, *theirs = (statistics.median(column) for column in zip(*rounds))
        rate = batch / mine * 1000
        share = operations * GIGA_MULTIPLY_ADDS[model] * rate / (arguments.peak * 1e12) if model in GIGA_MULTIPLY_ADDS else 0.0
        of_peak = f", {share:.1%} of the peak" if arguments.emulated is None else ""
        print(f"{model}, batch {batch}: finetune {mine:.2f} ms, {rate:.0f} images/s{of_peak}", flush=True)
        for name, milliseconds in zip(("PyTorch", "through torch.compile"), theirs):
            print(f"    {name} {milliseconds:.2f} ms: {milliseconds / mine:.2f} times as fast as that", flush=True)


# Images that come from files.


def draw_photo(path_and_seed):
    """As many details as a photo has, about: smooth at large, noise in the small."""
    import numpy
    from PIL import Image

    path, seed = path_and_seed
    random = numpy.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), numpy.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    fine = numpy.asarray(coarse, numpy.int16) + random.integers(-12, 13, (375, 500, 3))
    Image.fromarray(fine.clip(0, 255).astype(numpy.uint8)).save(path, quality=85)


def draw_photos(folder):
    for index in range(CLASSES):
        (folder / f"class{index}").mkdir(parents=True)
    with Pool() as pool:
        pool.map(draw_photo, [(folder / f"class{index % CLASSES}" / f"{index:05}.jpg", index) for index in range(PHOTOS)], chunksize=16)


class Files:
    """PyTorch's way from files to images on the device."""

    def __init__(self, folder, batch):
        import torch
        import torchvision
        from torchvision import transforms as T

        self.torch = torch
        normalise = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        transform = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), normalise])
        data = torchvision.datasets.ImageFolder(folder, transform)
        held_out = int(HELD_OUT * len(data))
        train, val = torch.utils.data.random_split(data, [len(data) - held_out, held_out])
        workers = {"batch_size": batch, "num_workers": os.cpu_count(), "pin_memory": True, "persistent_workers": True}
        self.train = torch.utils.data.DataLoader(train, shuffle=True, **workers)
        self.val = torch.utils.data.DataLoader(val, **workers)
        self.count, self.classes = len(data), len(data.classes)

    def each(self, loader):
        for images, labels in loader:
            images = images.cuda(non_blocking=True).to(memory_format=self.torch.channels_last)
            yield images, labels.cuda(non_blocking=True)

    def loading(self):
        """Images a second."""
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            for loader in (self.train, self.val):
                for _ in self.each(loader):
                    pass
            self.torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return self.count / min(seconds[1:])  # workers start in the first

    def training(self, model, head_only, epochs, dtype):
        """Seconds of each epoch."""
        import torchvision

        torch = self.torch
        torch.backends.cudnn.benchmark = True
        network = getattr(torchvision.models, model)()
        network.requires_grad_(not head_only)
        network.fc = torch.nn.Linear(network.fc.in_features, self.classes)
        network = network.cuda().to(memory_format=torch.channels_last)
        step = training_step(network, [p for p in network.parameters() if p.requires_grad], dtype, False)
        seconds = []
        for _ in range(epochs):
            start = time.perf_counter()
            network.train(not head_only)
            for images, labels in self.each(self.train):
                step(images, labels)
            network.eval()
            with torch.no_grad(), torch.autocast("cuda", dtype):
                hits = sum((network(images).argmax(1) == labels).sum() for images, labels in self.each(self.val))
            hits.item()
            seconds.append(time.perf_counter() - start)
        return seconds


def our_loading(arguments):
    """Images a second."""
    found = finetune(arguments, "bench", "--model", "resnet18", "--no-pretrained", "--photos", arguments.photos, "--repeat", 2, "--json")
    return 1e3 / json.loads(found.stdout)["min_ms_per_image"]


def our_training(arguments, model, batch, head_only, epochs):
    """Seconds of each epoch, and of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", arguments.photos, "--model", model, "--no-pretrained", "--batch-size", batch, "--epochs", epochs, "--no-report"]
        words += ["--out", Path(folder) / "bundle", "--val-fraction", HELD_OUT, "--log-format", "json"]
        words += ["--train-from", "head"] if head_only else ["--train-from", "all"]
        start = time.perf_counter()
        events = [json.loads(line) for line in finetune(arguments, *words).stdout.splitlines()]
        whole = time.perf_counter() - start
    return [event["seconds"] for event in events if event["event"] == "epoch"], whole


def our_epoch(arguments, model, batch):
    """Seconds."""
    seconds, _ = our_training(arguments, model, batch, False, arguments.epochs)
    return statistics.median(seconds[1:])


def dtype_of(arguments):
    import torch

    return {"bf16": torch.bfloat16, "f16": torch.float16}[arguments.precision]


def bench_loading(arguments):
    mine = statistics.median(our_loading(arguments) for _ in range(arguments.rounds))
    print(f"loading alone: finetune {mine:.0f} images/s", flush=True)
    if not arguments.alone:
        files = Files(arguments.photos, 128)
        theirs = statistics.median(files.loading() for _ in range(arguments.rounds))
        print(f"    PyTorch {theirs:.0f}: {mine / theirs:.2f} times as fast as that", flush=True)


def bench_files(arguments):
    photos = count(arguments.photos)
    for model, batch in arguments.cases:
        rounds = [(our_loading(arguments), photos / our_epoch(arguments, model, batch)) for _ in range(arguments.rounds)]
        alone, mine = (statistics.median(column) for column in zip(*rounds))
        share = statistics.median(training / loading for loading, training in rounds)
        print(f"{model}, all of it, batch {batch}: finetune {mine:.0f} images/s; loading alone {alone:.0f}, {share:.2f} of it", flush=True)
        if not arguments.alone:
            files = Files(arguments.photos, batch)
            runs = [files.training(model, False, arguments.epochs, dtype_of(arguments)) for _ in range(arguments.rounds)]
            theirs = photos / statistics.median(second for epochs in runs for second in epochs[1:])
            print(f"    PyTorch {theirs:.0f}: {mine / theirs:.2f} times as fast as that", flush=True)


def bench_head(arguments):
    for model, batch in arguments.cases:
        mine = statistics.median(our_training(arguments, model, batch, True, arguments.epochs)[1] for _ in range(arguments.rounds))
        print(f"{model}, a head, {arguments.epochs} epochs: finetune {mine:.1f} s, the whole process", flush=True)
        if not arguments.alone:
            files = Files(arguments.photos, batch)
            runs = [files.training(model, True, arguments.epochs, dtype_of(arguments)) for _ in range(arguments.rounds)]
            theirs = statistics.median(sum(epochs) for epochs in runs)
            print(f"    PyTorch {theirs:.1f} s, without starting: {theirs / mine:.2f} times as fast as that", flush=True)


def count(folder):
    return sum(1 for path in folder.rglob("*") if path.is_file())


def versions(arguments):
    if arguments.emulated is not None:
        return f"no GPU: one that computes nothing, {arguments.emulated} µs for each thing that it is asked for"
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    if arguments.alone:
        return found
    import torch

    return f"{found}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["frozen", "train", "loading", "files", "head"])
    parser.add_argument("--program", default=ROOT / "target/cuda/release/finetune")
    parser.add_argument("--cases", help="NETWORK:BATCH,…")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", choices=["bf16", "f16"], default="bf16")
    parser.add_argument("--alone", action="store_true", help="leave PyTorch out")
    parser.add_argument("--emulated", type=int, metavar="MICROSECONDS", help="no GPU, nothing is computed; with --alone")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out, which takes a minute")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s in dense bf16; an H100's and H200's if left out")
    arguments = parser.parse_args()
    if arguments.emulated is not None and not arguments.alone:
        parser.error("--emulated goes with --alone: PyTorch has no device there")
    cases = (arguments.cases or CASES.get(arguments.what, "")).split(",")
    arguments.cases = [(model, int(batch)) for model, batch in (case.split(":") for case in cases if case)]

    print(f"{versions(arguments)}, {arguments.precision}, {os.cpu_count()} cores", flush=True)
    bench = {"loading": bench_loading, "files": bench_files, "head": bench_head}.get(arguments.what)
    if bench is None:
        bench_on_device(arguments)
        return
    drawn = None
    if arguments.photos is None:
        drawn = Path(tempfile.mkdtemp())
        arguments.photos = drawn / "photos"
        draw_photos(arguments.photos)
    print(f"{count(arguments.photos)} photos", flush=True)
    try:
        bench(arguments)
    finally:
        if drawn:
            shutil.rmtree(drawn)


if __name__ == "__main__":
    main()
