#!/usr/bin/env bash
# The tests of the kernels and of how photos are read, built for 64-bit ARM and run by an emulator: scripts/check_arm.sh
#
# It tells whether results are right there, not how fast they come. Needs rustup, which fetches the target's standard library, and QEMU's
# emulator of single programs: as it is installed, or unpacked into `target` from the packages that apt downloads, for which nobody needs to be
# root. Nothing is compiled in C, and rustc's own linker links, so that there is no need of a compiler for ARM.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-musl
folder=$PWD/target/arm-emulator

# apt's own lists of packages may be missing or out of date, and only root may renew them.
user_apt() {
    apt-get -qq -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" -o APT::Sandbox::User= "$@"
}

# Which of the two packages holds the program, and which a link to it, depends on the release.
unpack_emulator() (
    command -v apt-get > /dev/null || return
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    cd "$folder"
    user_apt update
    user_apt download qemu-user qemu-user-static || return
    for package in *.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar --extract --wildcards './usr/bin/qemu-aarch64*' || return
    done
    rm -r lists cache ./*.deb
)

# Says where the emulator is.
emulator() {
    command -v qemu-aarch64-static || command -v qemu-aarch64 && return
    [ -x "$folder/usr/bin/qemu-aarch64-static" ] || unpack_emulator >&2 || return
    echo "$folder/usr/bin/qemu-aarch64-static"
}

if ! emulator=$(emulator); then
    echo "no emulator of ARM's processors: skipped the tests there"
    exit
fi

rustup target add "$target"

export CARGO_TARGET_DIR=$PWD/target/arm
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER=$emulator
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="-Clinker=rust-lld -Clink-self-contained=yes"
cargo test --release --locked --target "$target" --tests --manifest-path scripts/kernels_alone/Cargo.toml
