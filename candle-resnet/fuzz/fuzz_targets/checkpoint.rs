//! Any bytes → `checkpoint::read_bytes`, which must neither panic nor take unbounded memory or time.
//!
//! From `candle-resnet/`: `cargo +nightly fuzz run checkpoint fuzz/corpus/checkpoint tests/data/checkpoints`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = candle_resnet::checkpoint::read_bytes(bytes);
});
