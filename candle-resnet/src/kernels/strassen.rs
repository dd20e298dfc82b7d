//! 1×1 convolutions with seven products in the place of eight, after Strassen 1969 (Numerische Mathematik 13).
//!
//! Pixels are split into even and odd ones, input channels into halves, output channels into pairs of columns. Seven sums or
//! differences of the four parts of the input are multiplied by seven of the weights, which are made beforehand; sums of the products
//! are the four parts of the output. Which pixels are added to each other depends on nothing but where they are in the map. Seven
//! eighths of the multiplications are paid for with additions, and with larger rounding errors: for f32 only.

use std::ops::Range;

use super::convolution::{ConvolutionShape, panel_stride};
use super::lanes::{LANES, Lanes};
use super::map::{Writable, blocks_of};
use super::product::{Finish, Product, finish, is_heavy, product};
use super::stored::Stored;

/// Products that a pair of pixels and a pair of columns take.
pub(super) const PRODUCTS: usize = 7;

/// What parts of the weights each product takes: \[first or second half of the input]\[first or second column of the pair].
pub(super) const WEIGHTS: [[[f64; 2]; 2]; PRODUCTS] = [
    [[1.0, 0.0], [0.0, 1.0]],
    [[1.0, 0.0], [0.0, 0.0]],
    [[0.0, 1.0], [0.0, -1.0]],
    [[-1.0, 0.0], [1.0, 0.0]],
    [[0.0, 0.0], [0.0, 1.0]],
    [[1.0, 1.0], [0.0, 0.0]],
    [[0.0, 0.0], [1.0, 1.0]],
];

/// A part of a 1×1 convolution of one image, of any stride.
pub(crate) struct Strassen<'a, S> {
    pub(crate) shape: &'a ConvolutionShape,
    /// (blocks, pixels, 16); an even number of blocks.
    pub(crate) input: &'a [S],
    /// (pairs of columns, 7, input blocks / 2, 16 / depth, blocks of a column, 16, depth).
    pub(crate) weights: &'a [S],
    /// Channel blocks of the output that are computed together, 1 or 2: a column.
    pub(crate) column_blocks: usize,
    /// (blocks, 16).
    pub(crate) bias: &'a [f32],
    /// Added before the ReLU; (blocks, pixels, 16).
    pub(crate) residual: Option<&'a [S]>,
    pub(crate) relu: bool,
    /// Output pixels that this call computes; the first of them is even.
    pub(crate) pixels: Range<usize>,
    /// Pairs of columns that this call computes.
    pub(crate) range: Range<usize>,
    /// [`split_values`] of them.
    pub(crate) split: &'a mut [S],
    /// [`products_floats`] of them.
    pub(crate) products: &'a mut [f32],
    /// Values before the image in `output`.
    pub(crate) image: usize,
    /// (images, blocks, pixels, 16).
    pub(crate) output: Writable<'a, S>,
}

/// Values of the seven sums of input for so many pairs of pixels.
pub(super) fn split_values<S>(in_channels: usize, pairs: usize) -> usize {
    PRODUCTS * (blocks_of(in_channels) / 2) * panel_stride::<S>(pairs)
}

/// Floats of the seven products for so many pairs of pixels.
pub(super) fn products_floats(column_blocks: usize, pairs: usize) -> usize {
    PRODUCTS * column_blocks * pairs * LANES
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say; nobody else writes the same part.
#[inline(always)]
pub(super) unsafe fn strassen<V: Lanes, S: Stored>(call: &mut Strassen<S>) {
    // SAFETY: passed on.
    unsafe {
        split::<V, S>(call);
        for columns in call.range.clone() {
            multiply::<V, S>(call, columns);
            put_together::<V, S>(call, columns);
        }
    }
}

/// Writes the seven sums of input: (7, blocks / 2, pairs, 16).
#[inline(always)]
unsafe fn split<V: Lanes, S: Stored>(call: &mut Strassen<S>) {
    let (plane, half) = (call.shape.input.pixels() * LANES, blocks_of(call.shape.in_channels) / 2);
    let stride = panel_stride::<S>(call.pixels.len().div_ceil(2));
    for block in 0..half {
        for (pair, pixel) in call.pixels.clone().step_by(2).enumerate() {
            // SAFETY: both blocks are the input's, and an odd pixel is read only where there is one.
            unsafe {
                let even = call.input.as_ptr().add(block * plane + seen(call.shape, pixel) * LANES);
                let (a, b): (V, V) = (S::load(even), S::load(even.add(half * plane)));
                let (mut c, mut d) = (V::splat(0.0), V::splat(0.0));
                if pixel + 1 < call.pixels.end {
                    let odd = call.input.as_ptr().add(block * plane + seen(call.shape, pixel + 1) * LANES);
                    (c, d) = (S::load(odd), S::load(odd.add(half * plane)));
                }
                let to = call.split.as_mut_ptr().add(block * stride + pair * LANES);
                let sums = [a.add(d), c.add(d), a, d, a.add(b), c.sub(a), b.sub(d)];
                for (index, sum) in sums.into_iter().enumerate() {
                    S::store(sum, to.add(index * half * stride));
                }
            }
        }
    }
}

/// The pixel of the input that an output pixel is made of.
#[inline(always)]
fn seen(shape: &ConvolutionShape, pixel: usize) -> usize {
    if shape.stride == 1 {
        return pixel;
    }
    let (row, column) = (pixel / shape.output.width, pixel % shape.output.width);
    (row * shape.input.width + column) * shape.stride
}

/// The seven products for a pair of columns: (7, blocks of a column, pairs, 16).
#[inline(always)]
unsafe fn multiply<V: Lanes, S: Stored>(call: &mut Strassen<S>, columns: usize) {
    let (rows, half) = (call.pixels.len().div_ceil(2), blocks_of(call.shape.in_channels) / 2);
    let segment_stride = panel_stride::<S>(rows);
    for index in 0..PRODUCTS {
        let first = (columns * PRODUCTS + index) * half * LANES * call.column_blocks * LANES;
        // SAFETY: sums, weights and products have a part for each.
        unsafe {
            let output = call.products.as_mut_ptr().add(index * call.column_blocks * rows * LANES);
            product::<V, S, f32>(&Product {
                input: call.split.as_ptr().add(index * half * segment_stride),
                rows,
                segments: half,
                segment_stride,
                length: LANES,
                weights: call.weights.as_ptr().add(first),
                output,
                block_stride: rows * LANES,
                sums: (output, rows * LANES),
                blocks: call.column_blocks,
                heavy: is_heavy(call.weights),
                accumulate: false,
                finish: Finish::NOTHING,
            });
        }
    }
}

/// Sums of products → a pair of columns of the output.
#[inline(always)]
unsafe fn put_together<V: Lanes, S: Stored>(call: &Strassen<S>, columns: usize) {
    let rows = call.pixels.len().div_ceil(2);
    for within in 0..call.column_blocks {
        let blocks = [0, 1].map(|column| (2 * columns + column) * call.column_blocks + within);
        for (pair, pixel) in call.pixels.clone().step_by(2).enumerate() {
            // SAFETY: blocks and pixels are the output's; an odd pixel is written only where there is one.
            unsafe {
                let mut m = [V::splat(0.0); PRODUCTS];
                for index in 0..PRODUCTS {
                    m[index] = V::load(
                        call.products.as_ptr().add(((index * call.column_blocks + within) * rows + pair) * LANES),
                    );
                }
                let even = [m[0].add(m[3]).add(m[6].sub(m[4])), m[2].add(m[4])];
                let odd = [m[1].add(m[3]), m[0].sub(m[1]).add(m[2].add(m[5]))];
                for column in 0..2 {
                    if pixel + 1 < call.pixels.end {
                        write::<V, S, 2>(call, blocks[column], pixel, [[even[column]], [odd[column]]]);
                    } else {
                        write::<V, S, 1>(call, blocks[column], pixel, [[even[column]]]);
                    }
                }
            }
        }
    }
}

/// Bias, residual and ReLU for `R` pixels of a channel block.
#[inline(always)]
unsafe fn write<V: Lanes, S: Stored, const R: usize>(
    call: &Strassen<S>,
    block: usize,
    pixel: usize,
    mut sums: [[V; 1]; R],
) {
    let first = (block * call.shape.output.pixels() + pixel) * LANES;
    // SAFETY: the caller's.
    unsafe {
        let (bias, residual) = (call.bias.as_ptr().add(block * LANES), call.residual);
        let residual = residual.map_or(std::ptr::null(), |residual| residual.as_ptr());
        finish::<V, S, R, 1>(Finish { bias, residual, relu: call.relu }, first, 0, &mut sums);
        let output = call.output.at(call.image + first);
        for r in 0..R {
            S::store(sums[r][0], output.add(r * LANES));
        }
    }
}
