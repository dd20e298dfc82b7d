#!/usr/bin/env bash
# Runs the tests that a GPU can run where there is none: scripts/check_cuda.sh [PROGRAM[:ORDER]…]
# Libraries of scripts/emulated_gpu stand in for CUDA's driver, cuDNN, cuBLAS and cuRAND, and run the kernels on the processor: once
# everything as soon as it is asked for, and once as late as CUDA allows; with an ORDER, early or late, so alone. What a GPU, cuDNN and the
# compiler of its kernels do is not seen so, nor how fast they are. PROGRAMs are those of scripts/pack_device_tests.sh; all, if left out.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in "$@"; do
    case $program in
        *:early | *:late) ;;
        *:*) echo "error: unknown order in \`$program\`, expected early or late" >&2; exit 2 ;;
    esac
done
scripts/with_cuda.sh --cudnn scripts/emulated_gpu/build.sh
scripts/pack_device_tests.sh "${@%:*}"
export LD_LIBRARY_PATH=$PWD/target/emulated-gpu:$PWD/target/cuda-toolkit/nvidia/cu13/lib
export OMP_WAIT_POLICY=passive # a thread that has nothing to do does not keep another from its core

run() {
    echo "what is asked for happens $1"
    EMULATED_GPU_ORDER=$1 scripts/run_device_tests.sh "${@:2}"
}

for order in early late; do
    programs=()
    for program in "$@"; do
        case $program in *:"$order") programs+=("${program%:*}") ;; *:*) ;; *) programs+=("$program") ;; esac
    done
    # None is all, if none was named.
    [ ${#programs[@]} -eq 0 ] && [ $# -gt 0 ] || run "$order" ${programs[@]+"${programs[@]}"}
done
