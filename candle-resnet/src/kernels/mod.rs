//! CPU kernels: convolutions, pools, what attention and norms are made of, and the way back through them.
//!
//! They take slices and dimensions and know nothing of tensors, weights files and networks; [`plan`](crate::plan) puts them in
//! order for the frozen form, [`backprop`](crate::backprop) for training. One source over the trait [`Lanes`](lanes::Lanes), compiled for AVX-512, AVX2 with FMA, NEON and for anything else.
//! Unsafe code of this crate is here, in `preprocess::vector` and in `cudnn`; [`layers`] is the safe face.

// Rows, blocks and points are indices of arrays of constant size, as in the formulas; the loops unroll.
#![allow(clippy::needless_range_loop)]

mod buffer;
mod channelwise;
mod convolution;
mod crew;
mod dispatch;
mod grouped;
#[cfg(test)]
mod guarded;
mod lanes;
mod layers;
mod map;
mod norm;
mod pack;
mod pool;
mod pool_gradient;
mod product;
mod rearrange;
mod stored;
mod strassen;
#[cfg(test)]
mod tests;
mod training;
mod weight_gradient;
mod winograd;

pub(crate) use buffer::Buffer;
pub(crate) use channelwise::Reduction;
pub(crate) use convolution::ConvolutionShape;
pub use dispatch::InstructionSet;
pub(crate) use dispatch::Kernels;
pub(crate) use lanes::LANES;
pub(crate) use layers::{Change, Layer, Scratch, Team, WinogradShape};
pub(crate) use map::{Extent, blocks_of};
pub(crate) use pack::{DenseWeights, Weights, for_convolution, for_groups, for_strassen, for_winograd};
pub(crate) use pool::Window;
pub(crate) use rearrange::{Unfolding, add_shifted_back, padded, refold, shift_channels};
pub(crate) use stored::Stored;
pub(crate) use training::NormInput;
pub(crate) use winograd::Scheme;
