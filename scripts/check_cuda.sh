#!/usr/bin/env bash
# Runs the tests that a GPU can run where there is none: scripts/check_cuda.sh [--early] [PROGRAM…]
# Libraries of scripts/emulated_gpu stand in for CUDA's driver, cuDNN, cuBLAS and cuRAND, and run the kernels on the processor: once
# everything as soon as it is asked for, and, without --early, once as late as CUDA allows. What a GPU, cuDNN and the compiler of its kernels
# do is not seen so, nor how fast they are. PROGRAMs are those of scripts/pack_device_tests.sh; all, if left out.
set -euo pipefail
cd "$(dirname "$0")/.."

orders=(early late)
if [ "${1:-}" = --early ]; then
    orders=(early)
    shift
fi
scripts/with_cuda.sh --cudnn scripts/emulated_gpu/build.sh
scripts/pack_device_tests.sh "$@"
export LD_LIBRARY_PATH=$PWD/target/emulated-gpu:$PWD/target/cuda-toolkit/nvidia/cu13/lib
export OMP_WAIT_POLICY=passive # a thread that has nothing to do does not keep another from its core
for order in "${orders[@]}"; do
    echo "what is asked for happens $order"
    EMULATED_GPU_ORDER=$order scripts/run_device_tests.sh "$@"
done
