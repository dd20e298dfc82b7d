//! Weights `(out, in / groups, k, k)` → the order in which the kernels read them.

use rayon::prelude::*;

use super::buffer::Buffer;
use super::convolution::{ConvolutionShape, input_blocks};
use super::lanes::LANES;
use super::map::{Writable, blocks_of};
use super::stored::{Stored, filled_up};
use super::strassen::{PRODUCTS, WEIGHTS};
use super::winograd::{MAX_FACTORS, Scheme};

/// Weights of a convolution, and what is folded into them.
pub(crate) struct Weights<'a> {
    /// (out, in / groups, kernel, kernel).
    pub(crate) values: &'a [f32],
    /// (out): multiplied in, in f64.
    pub(crate) scale: &'a [f64],
    pub(crate) out_channels: usize,
    /// Of each group.
    pub(crate) in_channels: usize,
    pub(crate) kernel: usize,
    pub(crate) groups: usize,
}

impl Weights<'_> {
    /// The kernel from input channel `channel` (of all) to `out`, and its scale; `None` where they are of different groups,
    /// or beyond.
    fn kernel(&self, out: usize, channel: usize) -> Option<(&[f32], f64)> {
        let area = self.kernel * self.kernel;
        let group = out / (self.out_channels / self.groups);
        let within = channel.checked_sub(group * self.in_channels).filter(|&within| within < self.in_channels)?;
        let first = (out * self.in_channels + within) * area;
        (out < self.out_channels).then(|| (&self.values[first..first + area], self.scale[out]))
    }
}

/// Weights of a convolution without groups, whose input blocks are full, as they are or as its input's gradient sees them.
#[derive(Clone, Copy)]
pub(crate) struct DenseWeights<'a> {
    /// (out, in, kernel, kernel).
    pub(crate) values: &'a [f32],
    pub(crate) channels: (usize, usize),
    pub(crate) kernel: usize,
    /// Whether channels in and out change places, and kernels are turned by half a circle.
    pub(crate) backward: bool,
}

impl DenseWeights<'_> {
    fn in_channels(&self) -> usize {
        if self.backward { self.channels.1 } else { self.channels.0 }
    }

    pub(crate) fn out_channels(&self) -> usize {
        if self.backward { self.channels.0 } else { self.channels.1 }
    }

    /// Values of a packed column.
    pub(crate) fn of_column(&self, column_blocks: usize) -> usize {
        blocks_of(self.in_channels()) * self.kernel * self.kernel * LANES * column_blocks * LANES
    }
}

/// One column of (columns, input blocks, kernel, kernel, 16, blocks of a column, 16).
pub(crate) fn pack_column(weights: &DenseWeights, index: usize, column_blocks: usize, to: &mut [f32]) {
    let (area, column) = (weights.kernel * weights.kernel, column_blocks * LANES);
    let (inputs, outputs) = (weights.in_channels(), weights.out_channels());
    // How far apart values of neighbouring channels lie.
    let (of_input, of_output) =
        if weights.backward { (weights.channels.0 * area, area) } else { (area, inputs * area) };
    let present = column.min(outputs - index * column);
    for (block, to) in to.chunks_exact_mut(area * LANES * column).enumerate() {
        for (tap, to) in to.chunks_exact_mut(LANES * column).enumerate() {
            let tap = if weights.backward { area - 1 - tap } else { tap };
            for (lane, to) in to.chunks_exact_mut(column).enumerate() {
                let input = block * LANES + lane;
                if input >= inputs {
                    to.fill(0.0);
                    continue;
                }
                let (to, beyond) = to.split_at_mut(present);
                let first = index * column * of_output + input * of_input + tap;
                let from = weights.values[first..].iter().step_by(of_output);
                to.iter_mut().zip(from).for_each(|(to, &value)| *to = value);
                beyond.fill(0.0);
            }
        }
    }
}

/// Place of a weight among those of a tap: (length / depth, blocks of a column × 16, depth).
fn place<S: Stored>(lane: usize, column: usize, out: usize) -> usize {
    (lane / S::DEPTH * column + out) * S::DEPTH + lane % S::DEPTH
}

/// For [`convolve`](super::convolution): (columns, input blocks, kernel, kernel, length / depth, blocks of a column, 16, depth).
pub(crate) fn for_convolution<S: Stored>(
    weights: &Weights,
    shape: &ConvolutionShape,
    column_blocks: usize,
) -> Buffer<S> {
    let (length, area, column) = (shape.length::<S>(), shape.kernel * shape.kernel, column_blocks * LANES);
    let columns = blocks_of(shape.out_channels) / column_blocks;
    let of_column = shape.segments(0) * length * column;
    let mut packed = Buffer::zeros(columns * of_column);
    packed.as_mut_slice().par_chunks_mut(of_column).enumerate().for_each(|(index, packed)| {
        for out in 0..column {
            for (position, block) in shape.input_blocks(index * column_blocks).enumerate() {
                for lane in 0..length {
                    let Some((kernel, scale)) = weights.kernel(index * column + out, block * LANES + lane) else {
                        continue;
                    };
                    let first = position * area * length * column + place::<S>(lane, column, out);
                    for (tap, &value) in kernel.iter().enumerate() {
                        packed[first + tap * length * column] = S::of((f64::from(value) * scale) as f32);
                    }
                }
            }
        }
    });
    packed
}

/// For [`strassen`](super::strassen): (pairs of columns, 7, input blocks / 2, 16 / depth, blocks of a column, 16, depth).
pub(crate) fn for_strassen<S: Stored>(weights: &Weights, column_blocks: usize) -> Buffer<S> {
    let (column, half) = (column_blocks * LANES, weights.in_channels / 2);
    let of_product = half * column;
    let of_pair = PRODUCTS * of_product;
    let mut packed = Buffer::<S>::zeros(weights.out_channels / (2 * column) * of_pair);
    let value = |out, channel| weights.kernel(out, channel).map_or(0.0, |(kernel, scale)| f64::from(kernel[0]) * scale);
    packed.as_mut_slice().par_chunks_exact_mut(of_pair).enumerate().for_each(|(pair, packed)| {
        for out in 0..column {
            for channel in 0..half {
                let part =
                    |input: usize, output: usize| value((2 * pair + output) * column + out, input * half + channel);
                let parts = [[part(0, 0), part(0, 1)], [part(1, 0), part(1, 1)]];
                let at = channel / LANES * LANES * column + place::<S>(channel % LANES, column, out);
                for (to, signs) in packed.chunks_exact_mut(of_product).zip(&WEIGHTS) {
                    let signed = parts.as_flattened().iter().zip(signs.as_flattened());
                    to[at] = S::of(signed.map(|(part, sign)| part * sign).sum::<f64>() as f32);
                }
            }
        }
    });
    packed
}

/// For [`convolve_groups`](super::grouped): (blocks, kernel, kernel, channels of a group, 16).
pub(crate) fn for_groups<S: Stored>(weights: &Weights) -> Buffer<S> {
    let (area, of_group) = (weights.kernel * weights.kernel, weights.in_channels);
    let of_block = area * of_group * LANES;
    let mut packed = Buffer::<S>::zeros(blocks_of(weights.out_channels) * of_block);
    for (block, packed) in packed.as_mut_slice().chunks_exact_mut(of_block).enumerate() {
        for lane in 0..LANES {
            for other in 0..of_group {
                let channel = block * LANES + lane;
                let Some((kernel, scale)) = weights.kernel(channel ^ other, channel) else { continue };
                for (tap, &value) in kernel.iter().enumerate() {
                    packed[(tap * of_group + other) * LANES + lane] = S::of((f64::from(value) * scale) as f32);
                }
            }
        }
    }
    packed
}

/// For [`multiply`](super::winograd): (products, columns, input blocks of a column, length / depth, blocks of a column, 16, depth).
pub(crate) fn for_winograd<S: Stored>(weights: &Weights, scheme: Scheme, column_blocks: usize) -> Buffer<S> {
    let in_channels = weights.in_channels * weights.groups;
    let (length, column) = (filled_up::<S>(in_channels.min(LANES)), column_blocks * LANES);
    let columns = blocks_of(weights.out_channels) / column_blocks;
    let seen =
        |column: usize| input_blocks((in_channels, weights.out_channels), weights.groups, column * column_blocks);
    let of_column = seen(0).len() * length * column;
    let (products, matrix) = (scheme.products(), scheme.matrix());
    let mut packed = Buffer::<S>::zeros(products * columns * of_column);
    let whole = Writable::new(packed.as_mut_slice());
    (0..columns).into_par_iter().for_each(|index| {
        let mut transformed = [0.0; MAX_FACTORS * MAX_FACTORS];
        for (position, block) in seen(index).enumerate() {
            for lane in 0..length {
                for out in 0..column {
                    let Some((kernel, scale)) = weights.kernel(index * column + out, block * LANES + lane) else {
                        continue;
                    };
                    matrix.transform(kernel, scale, &mut transformed);
                    let within = position * length * column + place::<S>(lane, column, out);
                    for (product, &value) in transformed[..products].iter().enumerate() {
                        let at = (product * columns + index) * of_column + within;
                        // SAFETY: within the buffer; each column's part is written by one thread.
                        unsafe { whole.at(at).write(S::of(value as f32)) };
                    }
                }
            }
        }
    });
    packed
}
