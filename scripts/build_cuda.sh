#!/usr/bin/env bash
# Builds the program for NVIDIA GPUs on a machine that needs neither CUDA nor a GPU: scripts/build_cuda.sh [--cudnn]
# See scripts/with_cuda.sh for what it needs and fetches. The first call takes a quarter of an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
    --cudnn) scripts/with_cuda.sh --cudnn cargo build --release --workspace --locked --features cudnn ;;
    '') scripts/with_cuda.sh cargo build --release --workspace --locked --features cuda ;;
    *) echo "error: unknown option \`$1\`, expected --cudnn or nothing" >&2; exit 2 ;;
esac
echo target/cuda/release/finetune
