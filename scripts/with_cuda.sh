#!/usr/bin/env bash
# Runs a command with CUDA's compiler and libraries at hand, on a machine that has neither CUDA nor a GPU:
#   scripts/with_cuda.sh [--cudnn] cargo clippy --release --workspace --features cuda
# Needs Linux on x86-64, Python's pip, and gcc. NVIDIA's packages come from PyPI, under NVIDIA's licences, into target/cuda-toolkit
# (1.2 GB) and, with --cudnn, target/cudnn (0.8 GB); a second call fetches nothing.
# CUDA_COMPUTE_CAP is the GPU to build for. The default, 80, is Ampere: kernels for it run on everything newer, too; those for 90 and
# more run there alone.
set -euo pipefail
cd "$(dirname "$0")/.."

toolkit=$PWD/target/cuda-toolkit
cuda=$toolkit/nvidia/cu13
cudnn=$PWD/target/cudnn

# What fits together: CUDA 13.0, for drivers from 580 on, and the newest cuDNN that cudarc knows.
cuda_packages=(
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88 nvidia-cublas==13.0.2.14 nvidia-curand==10.4.0.35
)
cudnn_packages=(nvidia-cudnn-cu13==9.21.1.3)

# Unpacks packages into a folder, unless they are there already.
unpack() {
    local folder=$1
    shift
    if [ "$(cat "$folder/unpacked" 2>/dev/null)" != "$*" ]; then
        rm -rf "$folder"
        python3 -m pip install --quiet --root-user-action=ignore --no-deps --no-compile --target "$folder" "$@"
        echo "$*" > "$folder/unpacked"
    fi
}

# The linker looks for libcublas.so where a package holds libcublas.so.13 alone.
link_unversioned() {
    local library
    for library in "$@"; do
        ln -sf "$(basename "$cuda/lib/lib$library".so.*)" "$cuda/lib/lib$library.so"
    done
}

# The driver comes with the GPU's system and in no package. What is linked against this stub is bound, by its soname, to the
# driver of the machine that it runs on. Without one, the stub answers every call as NVIDIA's own does: CUDA_ERROR_STUB_LIBRARY.
make_driver_stub() {
    local stubs=$cuda/lib/stubs
    if [ ! -e "$stubs/libcuda.so" ]; then
        mkdir -p "$stubs"
        gcc -E -P "$cuda/include/cuda.h" | grep -oE '\bcu[A-Z][A-Za-z0-9_]*\(' | tr -d '(' | sort -u \
            | sed 's/.*/int &(void) { return 34; }/' > "$stubs/cuda.c"
        gcc -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stubs/libcuda.so.1" "$stubs/cuda.c"
        ln -s libcuda.so.1 "$stubs/libcuda.so"
    fi
}

unpack "$toolkit" "${cuda_packages[@]}"
link_unversioned cublas cublasLt cudart curand nvrtc
make_driver_stub
if [ "${1:-}" = --cudnn ]; then
    shift
    unpack "$cudnn" "${cudnn_packages[@]}"
    ln -sf "$cudnn"/nvidia/cudnn/lib/*.so.* "$cuda/lib/"
    ln -sf "$cudnn"/nvidia/cudnn/include/*.h "$cuda/include/"
    link_unversioned cudnn
fi

export CUDA_HOME=$cuda CUDA_PATH=$cuda PATH=$cuda/bin:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}
export CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-$(nproc)} # candle's kernels would take half of the cores
export CARGO_TARGET_DIR=$PWD/target/cuda # apart: candle's kernels take minutes to compile
exec "$@"
