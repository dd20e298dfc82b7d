"""Shows that probabilities and `--max-error` mean what they say, on photos that nothing was fitted on.

    cargo build --release
    python scripts/check_answers.py SHARED [--splits 20] [--max-error 0.05]

SHARED/data holds cifar10-test.tar and cifar10-resnet/resnet20-12fca82f.th, whose weights are taken as they are. CIFAR-10's 10,000 test
images are split in two at random: `finetune eval --calibrate` fits on one half; `eval` measures the calibration error on the other,
`predict --max-error` the errors among its answers there, with Wilson's 95 % interval. Exits with 1 if the mean calibration error is
above 0.015. (Of 5,000 images whose labels are drawn from the probabilities themselves it is 0.0087 on average and now and then above 0.015.)
"""
import argparse
import csv
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FINETUNE = ROOT / "target/release/finetune"
BAR = 0.015


def images(shared):
    """The test images by class, unpacked below target/."""
    folder = ROOT / "target/real-data/cifar10-test"
    if not folder.exists():
        with tarfile.open(shared / "data/cifar10-test.tar") as tar:
            tar.extractall(folder.parent, filter="data")
    return sorted(folder.glob("*/*.png"))


def bundle(shared, classes, folder):
    folder.mkdir()
    shutil.copy(shared / "data/cifar10-resnet/resnet20-12fca82f.th", folder / "pytorch_model.bin")
    config = {"architecture": "resnet20_cifar", "num_classes": len(classes), "label_names": classes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def linked(images, folder):
    for image in images:
        place = folder / image.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / image.name).symlink_to(image)
    return folder


def finetune(*arguments):
    command = [str(argument) for argument in (FINETUNE, *arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def answers(half, model, max_error, folder):
    """Answers among the photos of a half, and how many of them are wrong."""
    labels, rows = folder / "labels.csv", folder / "rows.csv"
    photos = sorted(half.glob("*/*.png"))
    labels.write_text("path,label\n" + "".join(f"{photo},{photo.parent.name}\n" for photo in photos))
    finetune("predict", half, "--model", model, "--max-error", max_error, "--labels", labels, "--output", rows)
    with rows.open() as file:
        answered = [row for row in csv.DictReader(file) if row["sure"] == "true"]
    return len(answered), sum(row["right"] == "false" for row in answered), len(photos)


def wilson(wrong, answered, z=1.959964):
    rate, weight = wrong / answered, z * z / answered
    middle = (rate + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(rate * (1 - rate) / answered + weight / answered / 4)
    return middle - half, middle + half


def measure(seed, photos, model, max_error):
    random.Random(seed).shuffle(photos)
    with tempfile.TemporaryDirectory() as name:
        folder, middle = Path(name), len(photos) // 2
        fitted, other = linked(photos[:middle], folder / "fitted"), linked(photos[middle:], folder / "other")
        finetune("eval", fitted, "--model", model, "--calibrate")
        evaluation = json.loads(finetune("eval", other, "--model", model, "--json"))
        answered, wrong, images = answers(other, model, max_error, folder)
    low, high = wilson(wrong, answered)
    return {
        "before": evaluation["calibration_error"],
        "after": evaluation["calibrated"]["calibration_error"],
        "temperature": evaluation["calibrated"]["temperature"],
        "error": wrong / answered,
        "coverage": answered / images,
        "contains": low <= max_error <= high,
        "not refuted": low <= max_error,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--max-error", type=float, default=0.05)
    arguments = parser.parse_args()
    photos, found = images(arguments.shared), []
    with tempfile.TemporaryDirectory() as folder:
        model = bundle(arguments.shared, sorted({photo.parent.name for photo in photos}), Path(folder) / "bundle")
        for seed in range(arguments.splits):
            found.append(measure(seed, list(photos), model, arguments.max_error))
            shown = found[-1]
            print(f"split {seed:2}  temperature {shown['temperature']:.3f}  calibration error {shown['before']:.4f} → "
                  f"{shown['after']:.4f}  answered {shown['coverage']:.3f}  wrong {shown['error']:.4f}", flush=True)
    columns = {name: [one[name] for one in found] for name in found[0]}
    before, after, error, coverage = (columns[name] for name in ("before", "after", "error", "coverage"))
    print(f"calibration error  mean {statistics.mean(before):.4f} → {statistics.mean(after):.4f}, "
          f"largest {max(before):.4f} → {max(after):.4f}, above {BAR} in {sum(one > BAR for one in after)} of {len(found)} splits")
    print(f"--max-error {arguments.max_error}: mean error {statistics.mean(error):.4f}, mean coverage {statistics.mean(coverage):.4f}; "
          f"the 95 % interval contains it in {sum(columns['contains'])} of {len(found)} splits, "
          f"is not wholly above it in {sum(columns['not refuted'])}")
    sys.exit(statistics.mean(after) > BAR)


if __name__ == "__main__":
    main()
