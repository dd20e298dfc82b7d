#!/usr/bin/env bash
# Checks on any Unix machine that what is for Metal compiles for Apple's processors: scripts/check_metal.sh
# Needs rustup, which fetches the target's standard library. Nothing is linked, and C parts of dependencies are not compiled: in the place
# of their compiler stands one that leaves empty objects.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-apple-darwin
folder=$PWD/target/metal-stand-ins

rustup target add "$target"
mkdir -p "$folder"
cat > "$folder/cc" <<'STANDIN'
#!/bin/sh
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && : > "$2"
    shift
done
STANDIN
chmod +x "$folder/cc"

export CC_aarch64_apple_darwin=$folder/cc CXX_aarch64_apple_darwin=$folder/cc AR_aarch64_apple_darwin=true
export SDKROOT=$folder # asked for, and not read
cargo clippy --release --workspace --locked --features metal --target "$target" -- -D warnings
