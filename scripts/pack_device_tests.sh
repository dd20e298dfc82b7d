#!/usr/bin/env bash
# Packs the program and the tests that a GPU can run into target/device-tests.tar.xz, for a machine that has a GPU and no cargo:
#   scripts/pack_device_tests.sh [PROGRAM…]
# Carry the repository and this file there, and run scripts/run_device_tests.sh. PROGRAMs are candle_resnet, candle_finetune (the libraries'
# own tests), and files of tests; all, if left out.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- candle_resnet candle_finetune golden_networks stages precision find_lr unfreezing_golden train_golden recipe_golden \
    training using unfreezing program
packed=target/device-tests

# What cargo calls a program: libraries' tests come together.
of_libraries= targets=()
for program in "$@"; do
    case $program in candle_*) of_libraries=--lib ;; *) targets+=("--test=$program") ;; esac
done

# `NAME PATH` of every program that cargo built.
built() {
    python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["executable"]:
        print(message["target"]["name"], message["executable"])'
}

rm -rf "$packed"
mkdir -p "$packed"
scripts/with_cuda.sh --cudnn cargo test --release --workspace --locked --features cudnn --no-run --message-format json \
    ${of_libraries:+$of_libraries} "${targets[@]}" | built | while read -r name path; do
    strip -o "$packed/$name" "$path"
done
# All programs hold the same kernels: a window that is wider than one of them stores those once.
tar --create --directory target --use-compress-program 'xz --threads=1 --lzma2=preset=1,dict=256MiB' \
    --file "$packed.tar.xz" device-tests
du -h "$packed.tar.xz"
