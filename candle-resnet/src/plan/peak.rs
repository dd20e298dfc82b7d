//! What the processor could do at best, measured: multiplications and additions of one thread with everything in registers and the
//! first-level cache.

use std::time::Instant;

use candle_core::{Result, bail};
use half::bf16;

use super::{NO_F16, Precision};
use crate::kernels::{
    Buffer, ConvolutionShape, Extent, InstructionSet, Kernels, Layer, Scratch, Stored, Team, blocks_of,
};

/// Floating-point operations per second of one thread: the best of some small products whose data stay in the cache.
///
/// # Errors
/// For f16, which has no kernels.
pub fn peak_flops(set: InstructionSet, precision: Precision) -> Result<f64> {
    match precision {
        Precision::F32 => Ok(peak_of::<f32>(set)),
        Precision::Bf16 => Ok(peak_of::<bf16>(set)),
        Precision::F16 => bail!("{NO_F16}"),
    }
}

fn peak_of<S: Stored>(set: InstructionSet) -> f64 {
    let extent = Extent { height: 1, width: 42 };
    let shape = ConvolutionShape {
        in_channels: 128,
        out_channels: 32,
        kernel: 1,
        stride: 1,
        dilation: 1,
        padding: 0,
        input: extent,
        output: extent,
        groups: 1,
    };
    let team = Team::alone(Kernels::of(set));
    let (input, weights) = (Buffer::<S>::zeros(extent.values(blocks_of(128))), Buffer::<S>::zeros(128 * 32));
    let (bias, mut output) = (Buffer::zeros(32), Buffer::zeros(extent.values(blocks_of(32))));
    let mut scratch = Scratch::default();
    let operations = 2.0 * (128 * 32 * extent.pixels()) as f64;
    let mut best: f64 = 0.0;
    for _ in 0..50 {
        let started = Instant::now();
        for _ in 0..20 {
            let layer = Layer {
                images: 1,
                input: input.as_slice(),
                weights: weights.as_slice(),
                column_blocks: team.kernels.blocks,
                bias: bias.as_slice(),
                residual: None,
                relu: false,
                output: output.as_mut_slice(),
            };
            team.convolve(&shape, layer, &mut scratch);
        }
        best = best.max(20.0 * operations / started.elapsed().as_secs_f64());
    }
    best
}
