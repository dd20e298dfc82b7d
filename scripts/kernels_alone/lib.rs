//! What of candle-resnet is unsafe or compiled for one instruction set or another, and knows nothing of candle.

#[path = "../../candle-resnet/src/kernels/mod.rs"]
mod kernels;
#[path = "../../candle-resnet/src/preprocess/mod.rs"]
pub mod preprocess;
