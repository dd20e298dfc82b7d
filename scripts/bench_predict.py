"""Times `finetune predict` over a list of photos beside its parts, interleaved, in one run.

    cargo build --release
    python scripts/bench_predict.py SHARED [--photos 1000] [--rounds 5] [--model resnet18]

The photos are those of SHARED/data/imagenet-samples.tar, again and again. The run is the whole process, from start to exit; the trunk
alone is `finetune bench` with the same batch; decoding alone is the same list through the smallest network, `test_resnet`, less what
`finetune bench` says of that one. Weights are drawn. Figures are medians.
"""
import argparse
import itertools
import json
import os
import statistics
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

FINETUNE = Path(__file__).resolve().parent.parent / "target/release/finetune"
SMALLEST = "test_resnet"
BATCH = 8


def finetune(*arguments, **options):
    command = [str(argument) for argument in (FINETUNE, *arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def bundle(name, folder):
    """A bundle with drawn weights; the pictures that it is trained on do not matter."""
    out = folder / name
    finetune("train", folder / "classes", "--model", name, "--no-pretrained", "--epochs", 1, "--input-size", 224, "--resize", 256,
             "--out", out)
    return out


def predict(model, listed, out):
    """Milliseconds an image of a whole run."""
    start = time.perf_counter()
    finetune("predict", "-", "--model", model, "--output", out, "--overwrite", input="\n".join(map(str, listed)))
    return 1e3 * (time.perf_counter() - start) / len(listed)


def trunk(name, repeat):
    found = finetune("bench", "--model", name, "--no-pretrained", "--size", 224, "--batch", BATCH, "--repeat", repeat, "--json")
    return json.loads(found)["median_ms_per_image"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="resnet18")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with tarfile.open(arguments.shared / "data/imagenet-samples.tar") as tar:
            tar.extractall(folder / "photos", filter="data")
        photos = sorted(path for path in (folder / "photos").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        for index, photo in enumerate(photos[:8]):
            place = folder / "classes" / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            os.symlink(photo, place / photo.name)
        listed = list(itertools.islice(itertools.cycle(photos), arguments.photos))
        models = {model: bundle(model, folder) for model in (arguments.model, SMALLEST)}
        rounds = []
        for _ in range(arguments.rounds):
            run = predict(models[arguments.model], listed, folder / "rows.csv")
            alone, smallest = trunk(arguments.model, 40), trunk(SMALLEST, 40)
            decoding = predict(models[SMALLEST], listed, folder / "rows.csv") - smallest
            slower = max(alone, decoding)
            rounds.append((run, alone, decoding, run / slower))
            print("run {:.2f}  trunk {:.2f}  decoding {:.2f} ms an image  run / slower {:.3f}".format(*rounds[-1]), flush=True)
    run, alone, decoding, ratio = (statistics.median(column) for column in zip(*rounds))
    print(f"{len(listed)} photos ({len(photos)} files), {arguments.model}, medians of {arguments.rounds} rounds")
    print(f"run {1e3 / run:.1f} images/s, trunk alone {1e3 / alone:.1f}, decoding alone {1e3 / decoding:.1f}; run / slower {ratio:.3f}")


if __name__ == "__main__":
    main()
