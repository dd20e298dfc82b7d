#!/usr/bin/env bash
# Decoding beside zune-jpeg, resizing beside fast_image_resize, on a folder of JPEGs:
#
#     scripts/bench_pixels.sh FOLDER
set -euo pipefail
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/bench_pixels"
CARGO_TARGET_DIR=../../target/bench-pixels cargo run --release --quiet -- "$folder"
