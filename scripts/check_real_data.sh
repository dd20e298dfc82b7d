#!/usr/bin/env bash
# Checks on real photos and weights, where they are at hand:
#
#     scripts/check_real_data.sh SHARED
#
# SHARED/data holds the tar files and weights that candle-finetune/tests/real_data.rs names, SHARED/golden the reference
# values. Everything is unpacked below target/. Where PYTHON (python3) has Pillow, it decodes the photos a second time.
set -euo pipefail
shared=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

data=$PWD/target/real-data
mkdir -p "$data/photos"
for set in cifar10-test cifar100-20 hymenoptera; do
    [ -d "$data/$set" ] || tar -xf "$shared/data/$set.tar" -C "$data"
done
tar -xf "$shared/data/imagenet-samples.tar" -C "$data/photos"
cp "$shared/golden/preprocess.jsonl" "$data/photos/"

rm -rf "$data/photos/png"
python=${PYTHON:-python3}
if "$python" -c 'import PIL' 2>/dev/null; then
    "$python" scripts/photos_as_pillow_decodes.py "$data/photos" "$data/photos/png"
else
    echo "no Python with Pillow: skipped the comparison of photos that Pillow decoded (PYTHON names another)"
fi

# The references that the tests carry are still those of the source.
cmp "$shared/golden/torchvision.jsonl" models/references/torchvision.jsonl
cmp "$shared/golden/timm.jsonl" models/references/timm.jsonl
cmp "$shared/golden/training.jsonl" candle-finetune/tests/golden/training.jsonl

REAL_DATA=$data REAL_WEIGHTS=$shared/data/cifar10-resnet PREPROCESS_GOLDEN=$data/photos \
    cargo test --release --workspace --locked --test real_data --test preprocess_golden --test golden_networks -- --ignored --nocapture
