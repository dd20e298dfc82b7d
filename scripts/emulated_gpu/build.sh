#!/usr/bin/env bash
# Builds libraries that stand in for CUDA's driver, cuDNN, cuBLAS and cuRAND on a machine without a GPU, into target/emulated-gpu:
#   scripts/with_cuda.sh --cudnn scripts/emulated_gpu/build.sh
# Kernels are this project's and candle's own .cu files, compiled by g++ for the processor that is there.
set -euo pipefail
cd "$(dirname "$0")/../.."

sources=scripts/emulated_gpu
out=$PWD/target/emulated-gpu
# CUDA reads memory as other types than it was written as, which C++ lets not.
flags=(-std=c++20 -O2 -fno-strict-aliasing -march=native -fopenmp -fPIC -I "$sources" -isystem "$CUDA_HOME/include" -isystem "$CUDA_HOME/include/cccl")

# A library that stands in for NAME.so.VERSION, from files.
library() {
    local name=$1 version=$2
    shift 2
    echo "lib$name.so.$version { global: *; };" > "$out/$name.map" # what programs ask NVIDIA's for
    g++ "${flags[@]}" -O3 -Wall -Wextra -Werror -shared -Wl,-soname,"lib$name.so.$version" -Wl,--version-script="$out/$name.map" \
        -o "$out/lib$name.so.$version" "$@"
}

# A library NAME of the kernels of a .cu file.
kernels() {
    local name=$1 file=$2 text=$out/kernels/$1.cpp names
    # Dynamic shared memory is declared without a size, which no other storage can be.
    sed -E 's/extern __shared__ ([a-z_]+) ([a-z_]+)\[\];/\1 *\2 = static_cast<\1 *>(emulated::dynamic_shared());/' "$file" > "$text"
    local compile=(g++ "${flags[@]}" -w -include before_kernels.h -I "$(dirname "$file")")
    # What before_kernels.h makes of `__global__`, and the name behind it.
    names=$("${compile[@]}" -E -P "$text" | grep -oP '__attribute__\(\(used, noinline\)\)\s+void\s+\K\w+(?=\s*\()' | sort -u)
    {
        echo "#define KERNELS $(sed 's/.*/KERNEL(&)/' <<< "$names" | tr '\n' ' ')"
        echo '#include "behind_kernels.h"'
    } >> "$text"
    "${compile[@]}" -shared -o "$out/kernels/$name.so" "$text" -L "$out" -l:libcuda.so.1
}

candle_kernels=$(cargo metadata --quiet --format-version 1 --locked --features cudnn --filter-platform x86_64-unknown-linux-gnu | python3 -c '
import json, pathlib, sys
packages = json.load(sys.stdin)["packages"]
print(next(pathlib.Path(package["manifest_path"]).parent for package in packages if package["name"] == "candle-kernels"))')

rm -rf "$out"
mkdir -p "$out/kernels"
library cuda 1 "$sources"/{device,memory,modules,streams,threads}.cpp
library cudnn 9 "$sources/cudnn.cpp" -L "$out" -l:libcuda.so.1
library cublas 13 "$sources/cublas.cpp" -L "$out" -l:libcuda.so.1
library curand 10 "$sources/curand.cpp" -L "$out" -l:libcuda.so.1
kernels maps candle-resnet/src/backprop/cuda/maps.cu
kernels norms candle-resnet/src/backprop/cuda/norms.cu
kernels weights candle-resnet/src/backprop/cuda/weights.cu
kernels unfold candle-resnet/src/cudnn/unfold.cu
kernels elementwise candle-finetune/src/train/elementwise/kernels.cu
for file in affine binary cast conv fill indexing reduce sort ternary unary; do
    kernels "candle_$file" "$candle_kernels/src/$file.cu"
done
