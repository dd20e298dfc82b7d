//! Operations on tensors that candle lacks or does not differentiate, with their gradients: kernels on the CPU, tensor operations
//! elsewhere.
//!
//! Knows no network.

mod max_pool;
mod window_max;

pub(crate) use max_pool::MaxPool;
pub(crate) use window_max::max_pool;
