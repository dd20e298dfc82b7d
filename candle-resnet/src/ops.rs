//! Operations on tensors that candle lacks or does not differentiate, with their gradients; on the CPU.
//!
//! Knows no network.

mod max_pool;

pub(crate) use max_pool::MaxPool;
