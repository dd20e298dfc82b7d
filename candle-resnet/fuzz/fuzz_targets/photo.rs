//! Any bytes → `preprocess::decode_bytes`, which must neither panic nor take unbounded memory or time.
//!
//! From `candle-resnet/`: `cargo +nightly fuzz run photo fuzz/corpus/photo tests/data/photos`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = candle_resnet::preprocess::decode_bytes(bytes, "photo".as_ref());
});
