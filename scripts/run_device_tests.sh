#!/usr/bin/env bash
# Runs what scripts/pack_device_tests.sh packed, on a machine with a GPU: scripts/run_device_tests.sh [PROGRAM…]
# FINETUNE_TEST_DEVICE is the device, cuda if left out. All that was said goes to the file DEVICE_TESTS_LOG, target/device-tests.log
# if left out.
set -uo pipefail
cd "$(dirname "$0")/.."

packed=$PWD/target/device-tests
log=${DEVICE_TESTS_LOG:-$PWD/target/device-tests.log}
export FINETUNE_TEST_DEVICE=${FINETUNE_TEST_DEVICE:-cuda}
export CARGO_BIN_EXE_finetune=$packed/finetune
export NVIDIA_TF32_OVERRIDE=0 # f32 is f32

# CUDA's libraries, where the system does not know them: those of an installation, else those that PyTorch brought.
of_pytorch() {
    python3 -c 'import glob, nvidia; print(":".join(glob.glob(nvidia.__path__[0] + "/*/lib")))' 2> /dev/null
}
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64
pytorch=$(of_pytorch) && LD_LIBRARY_PATH+=:$pytorch

# Threads of one program would share the device; tests of the command line start processes, each with its own.
threads_of() {
    case $1 in training | using | unfreezing | find_lr | program) echo 4 ;; *) echo 1 ;; esac
}

# Of the libraries' own tests, those that compute on a device.
filter_of() {
    case $1 in candle_resnet) echo backprop:: cudnn:: device_memory:: ;; candle_finetune) echo train:: staging:: ;; esac
}

run() {
    local name=$1 started=$SECONDS outcome=ok said
    # shellcheck disable=SC2046 # no filter is no argument
    said=$(timeout 400 "$packed/$name" $(filter_of "$name") --test-threads "$(threads_of "$name")" --nocapture 2>&1) || outcome="FAILED ($?)"
    printf '%s\n' "=== $name" "$said" >> "$log"
    echo "$name: $outcome, $((SECONDS - started)) s; $(grep '^test result' <<< "$said")"
    [ "$outcome" = ok ] || { failed=1; grep -E 'FAILED|panicked|[Ee]rror' -A 2 <<< "$said" | head -n 40; }
}

tar --extract --directory target --file "$packed.tar.xz" || exit
# shellcheck disable=SC2046 # names of programs have no spaces
[ $# -gt 0 ] || set -- $(ls "$packed" | grep -vx finetune)
failed=0
for program in "$@"; do
    run "$program"
done
exit "$failed"
