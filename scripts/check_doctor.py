#!/usr/bin/env python3
"""Plants faults in CIFAR-10's test images and measures what `finetune doctor` finds of them.

    scripts/check_doctor.py SHARED [--fifty-thousand]

SHARED/data holds cifar10-test.tar and cifar10-resnet/resnet20-12fca82f.th. Builds nothing: target/release/finetune must be there.
Needs Pillow and NumPy. Fails where a figure is below what is asked for. Works below target/doctor-check.

1. Copies: the images in two halves, train and test; 100 of train also in test, 200 more changed: JPEG of quality 60, resized
   by 0.8 and back, mirrored, 10 % brighter, 10 % darker. Counted are images in findings of copies (CIFAR-10 has copies of its own).
2. Labels: 500 of 10,000 moved to another class at random; the ranking is by the label's probability in --list.
3. Bad files: one of each kind.
4. Time and memory, on two threads; with --fifty-thousand also of five slightly changed copies of everything, below 2 GB of memory.
"""

import argparse
import csv
import json
import random
import resource
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/finetune"
WORK = ROOT / "target/doctor-check"

CHANGES = {
    "jpeg": None,  # encoded, not changed
    "resized": lambda image: image.resize((26, 26), Image.Resampling.BICUBIC).resize((32, 32), Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
}


def originals(shared):
    """Every image of CIFAR-10's test part, in an order of chance that is the same each time."""
    folder = WORK / "cifar10-test"
    if not folder.is_dir():
        WORK.mkdir(parents=True, exist_ok=True)
        with tarfile.open(shared / "data/cifar10-test.tar") as archive:
            archive.extractall(WORK, filter="data")
    files = sorted(folder.rglob("*.png"))
    random.Random(0).shuffle(files)
    return files


def put(file, folder, label=None, prefix=""):
    """Copies an image below a folder; gives its new place."""
    target = folder / (label or file.parent.name) / f"{prefix}{file.name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
    return target


def put_changed(file, folder, change):
    """Writes a changed copy of an image below a folder; gives its place."""
    target = folder / file.parent.name / f"{change}-{file.stem}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(file).convert("RGB")
    if CHANGES[change] is None:
        target = target.with_suffix(".jpg")
        image.save(target, quality=60)
    else:
        CHANGES[change](image).save(target)
    return target


def doctor(folder, *further):
    """Findings, seconds and the largest memory of any run so far in bytes."""
    start = time.monotonic()
    command = [PROGRAM, "doctor", folder, "--json", "--threads", "2", *further]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    assert ran.returncode in (0, 1), ran
    seconds = time.monotonic() - start
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return [json.loads(line) for line in ran.stdout.splitlines()], seconds, memory


def fresh(name):
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def paths(finding):
    return {Path(file["path"]) for file in finding["files"]}


def check_copies(files):
    folder = fresh("copies")
    half = len(files) // 2
    for index, file in enumerate(files):
        put(file, folder / ("train" if index < half else "test"))
    placed = lambda file: folder / "train" / file.parent.name / file.name
    exact = [(placed(file), put(file, folder / "test", prefix="exact-")) for file in files[:100]]
    kinds = list(CHANGES)
    near = [(placed(f), put_changed(f, folder / "test", kinds[i % len(kinds)])) for i, f in enumerate(files[100:300])]

    findings, seconds, _ = doctor(folder)
    leaks = [paths(finding) for finding in findings if finding["kind"] == "leak"]
    found = lambda pairs: sum(any({a, b} <= leak for leak in leaks) for a, b in pairs)
    copies = [paths(f) for f in findings if f["kind"] in ("leak", "two-labels", "exact-copies", "near-copies")]
    planted = {path for pair in exact + near for path in pair}
    others = len(set().union(*copies) - planted) / (len(files) - 300)
    print(f"copies    exact {found(exact)} of 100, near {found(near)} of 200, others flagged {100 * others:.2f} %, {seconds:.1f} s")
    for kind in kinds:
        pairs = [pair for pair in near if pair[1].name.startswith(kind)]
        print(f"          {kind}: {found(pairs)} of {len(pairs)}")
    return found(exact) == 100 and found(near) >= 190 and others <= 0.01


def area_under_roc(scores, positive):
    """Of pairs of a positive and another, the part where the positive one scores higher; ties count half."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    for value in np.unique(scores):
        ranks[scores == value] = ranks[scores == value].mean()
    count = positive.sum()
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count))


def check_labels(files, network):
    folder = fresh("labels")
    classes = sorted({file.parent.name for file in files})
    chance = random.Random(1)
    flipped = set(chance.sample(range(len(files)), 500))
    for index, file in enumerate(files):
        other = chance.choice([label for label in classes if label != file.parent.name])
        put(file, folder, label=other if index in flipped else None, prefix="flipped-" if index in flipped else "")
    table = WORK / "labels.csv"
    findings, seconds, memory = doctor(folder, *network, "--list", table, "--overwrite")
    rows = list(csv.DictReader(table.open()))
    positive = np.array([Path(row["path"]).name.startswith("flipped-") for row in rows])
    area = area_under_roc(-np.array([float(row["label-probability"]) for row in rows]), positive)
    told = [finding for finding in findings if finding["kind"] == "mislabelled"]
    right = sum(next(iter(paths(finding))).name.startswith("flipped-") for finding in told)
    print(f"labels    area under the ROC curve {area:.4f}; {len(told)} named, {right} of them flipped")
    print(f"          10,000 images in {seconds:.1f} s, {memory / 1e6:.0f} MB at most")
    return area >= 0.95 and seconds <= 60


def check_bad_files(files):
    folder = fresh("bad")
    for file in files[:200]:
        put(file, folder)
    place = sorted(folder.iterdir())[0]
    whole = files[0].read_bytes()
    image = Image.open(files[0]).convert("RGB")
    turned = image.getexif()
    turned[0x0112] = 6
    image.save(place / "turned.jpg", exif=turned)
    (place / "empty.png").write_bytes(b"")
    (place / "cut.png").write_bytes(whole[: len(whole) // 2])
    (place / "text.jpg").write_text("a letter\n")
    (place / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    image.save(place / "lies.png", format="JPEG")
    image.convert("L").save(place / "grey.png")
    image.save(place / "moving.gif", save_all=True, append_images=[ImageOps.mirror(image)])
    (folder / "New Folder").mkdir()
    put(files[300], folder, label="New Folder")
    findings, *_ = doctor(folder)
    expected = {
        "empty-file": "empty.png", "unreadable": "cut.png text.jpg page.jpg", "wrong-extension": "lies.png",
        "turned": "turned.jpg", "first-frame": "moving.gif", "grey": "grey.png",
    }
    ok = any(finding["kind"] == "stray-class" for finding in findings)
    for kind, names in expected.items():
        named = {path.name for finding in findings if finding["kind"] == kind for path in paths(finding)}
        missing = set(names.split()) - named
        ok &= not missing
        print(f"files     {kind}: {'missing ' + ', '.join(missing) if missing else names}")
    return ok


def check_fifty_thousand(files, network):
    folder = fresh("many")
    for file in files:
        put(file, folder / "train")
        for change in ("jpeg", "resized", "mirrored", "darker"):
            put_changed(file, folder / "train", change)
    findings, seconds, memory = doctor(folder, *network)
    groups = sum(finding["kind"] == "near-copies" for finding in findings)
    print(f"many      50,000 images in {seconds:.1f} s, {memory / 1e6:.0f} MB at most, {groups} groups of copies")
    return memory < 2e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--fifty-thousand", action="store_true")
    arguments = parser.parse_args()
    files = originals(arguments.shared)
    weights = arguments.shared.resolve() / "data/cifar10-resnet/resnet20-12fca82f.th"
    network = ["--model", "resnet20_cifar", "--weights", weights]
    checks = [check_copies(files), check_labels(files, network), check_bad_files(files)]
    if arguments.fifty_thousand:
        checks.append(check_fifty_thousand(files, network))
    raise SystemExit(0 if all(checks) else 1)


if __name__ == "__main__":
    main()
