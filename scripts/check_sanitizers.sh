#!/usr/bin/env bash
# The tests of the kernels and of how photos are read under AddressSanitizer, with debug assertions: it sees whatever lies beyond
# either end of an allocation.
#
#     scripts/check_sanitizers.sh [whole]
#
# They know nothing of the rest, so they are built as a crate of their own, in minutes; `whole` builds the library and all that it
# depends on, in a quarter of an hour, and runs the tests of its plans too. The sanitizer is an option for nightly compilers,
# which RUSTC_BOOTSTRAP opens in a stable one.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
if ! compgen -G "$(rustc --print sysroot)/lib/rustlib/$target/lib/librustc-*_rt.asan.*" >/dev/null; then
    echo "no AddressSanitizer comes with this toolchain for $target: skipped the check of memory accesses"
    exit
fi

export CARGO_TARGET_DIR=$PWD/target/sanitizers RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
# Given a target, cargo builds build scripts and macros without the sanitizer.
cargo test --release --locked --target "$target" --lib --manifest-path scripts/kernels_alone/Cargo.toml

if [ "${1:-}" = whole ]; then
    CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
        cargo test --release --locked --target "$target" --lib -p candle-resnet -- kernels:: plan::
fi
