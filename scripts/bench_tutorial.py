"""Times `finetune train` beside PyTorch's transfer-learning tutorial on the same photos, interleaved, in one run.

    cargo build --release
    python scripts/bench_tutorial.py PHOTOS_DIR [--rounds 3] [--epochs 25] [--train-from head|layer4]
                                                                    (PyTorch 2.15, torchvision 0.29.2, psutil)

Both take ResNet18 with everything but `fc`, or but layer4 and `fc`, frozen, train on PHOTOS_DIR/train and validate on
PHOTOS_DIR/val after every epoch, batch 32, from one file of weights, drawn at random (the time is the same). The tutorial augments anew in
every epoch, so it sends every photo through the network in every epoch; this program sends it once and trains on its
features, or on maps that it keeps in an empty folder. Both learn at 0.001: weights drawn at random diverge above it. PyTorch runs in channels_last, which is faster there; it is given its
time without starting and importing too, this program always the time of the whole process.
"""
import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FINETUNE = ROOT / "target/release/finetune"


def draw_weights(path):
    import torch
    import torchvision

    torch.manual_seed(0)  # of some other draws layer4 diverges
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)


def tutorial(photos, weights, epochs, train_from):
    """The tutorial's loop: https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html, CPU, two workers' worth
    of threads in the network and decoding in the main process, which is faster here than worker processes."""
    import torch
    import torchvision
    from torchvision import transforms as T

    normalise = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    transforms = {
        "train": T.Compose([T.RandomResizedCrop(224), T.RandomHorizontalFlip(), T.ToTensor(), normalise]),
        "val": T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), normalise]),
    }
    sets = {split: torchvision.datasets.ImageFolder(f"{photos}/{split}", transforms[split]) for split in transforms}
    loaders = {split: torch.utils.data.DataLoader(data, batch_size=32, shuffle=True) for split, data in sets.items()}
    start = time.perf_counter()
    model = torchvision.models.resnet18(weights=None)
    model.load_state_dict(torch.load(weights))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = train_from == "layer4" and name.startswith("layer4")
    model.fc = torch.nn.Linear(512, len(sets["train"].classes))
    model = model.to(memory_format=torch.channels_last)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    criterion = torch.nn.CrossEntropyLoss()
    for _ in range(epochs):
        for split, loader in loaders.items():
            model.train(split == "train")
            for images, labels in loader:
                images = images.to(memory_format=torch.channels_last)
                optimizer.zero_grad()
                with torch.set_grad_enabled(split == "train"):
                    loss = criterion(model(images), labels)
                if split == "train":
                    loss.backward()
                    optimizer.step()
        scheduler.step()
    print(time.perf_counter() - start)


def watch(process, peak):
    """Keeps the largest resident memory of a process and its children, in MB."""
    import psutil

    try:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            family = [parent, *parent.children(recursive=True)]
            peak[0] = max(peak[0], sum(member.memory_info().rss for member in family) / 1e6)
            time.sleep(0.05)
    except psutil.NoSuchProcess:
        pass


def measure(command):
    """Seconds and peak megabytes of a whole process, and what it printed."""
    peak = [0.0]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    printed, _ = process.communicate()
    if process.returncode != 0:
        sys.exit(f"failed: {command}")
    seconds = time.perf_counter() - start
    watcher.join()
    return seconds, peak[0], printed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--train-from", choices=["head", "layer4"], default="head")
    parser.add_argument("--tutorial", metavar="WEIGHTS", help="run the tutorial itself and nothing else")
    arguments = parser.parse_args()
    if arguments.tutorial:
        return tutorial(arguments.photos, arguments.tutorial, arguments.epochs, arguments.train_from)

    photos, epochs, train_from = arguments.photos, str(arguments.epochs), arguments.train_from
    common = ["--epochs", epochs, "--train-from", train_from]
    ours, theirs = [], []
    for round_ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            weights = f"{folder}/resnet18.pth"
            draw_weights(weights)
            train = [FINETUNE, "train", photos, "--model", "resnet18", "--weights", weights, *common]
            options = ["--batch-size", "32", "--lr", "0.001", "--out", f"{folder}/bundle", "--map-cache", f"{folder}/maps"]
            ours.append(measure([*train, *options])[:2])
            seconds, megabytes, printed = measure([sys.executable, __file__, photos, *common, "--tutorial", weights])
        theirs.append((seconds, megabytes, float(printed)))
        print(f"round {round_ + 1}: finetune {ours[-1][0]:.1f} s, PyTorch {seconds:.1f} s, {float(printed):.1f} s of it training")
        sys.stdout.flush()
    medians = [[statistics.median(column) for column in zip(*runs)] for runs in (ours, theirs)]
    print(f"{epochs} epochs, medians of {arguments.rounds} rounds")
    (ours_s, ours_mb), (theirs_s, theirs_mb, training_s) = medians
    print(f" finetune {ours_s:7.1f} s {ours_mb:7.0f} MB")
    print(f"  PyTorch {theirs_s:7.1f} s {theirs_mb:7.0f} MB, {training_s:.1f} s of it training")
    print(f"    ratio {theirs_s / ours_s:7.1f}   {theirs_mb / ours_mb:7.1f}   of training {training_s / ours_s:.1f}")


if __name__ == "__main__":
    main()
