//! Convolutions of groups that lie within a block of sixteen channels, without the multiplications between groups.
//!
//! A product over whole blocks multiplies each of sixteen channels with each, most of them by zero where groups are small. Here,
//! for every `j` below the group's size, lane `l` of the input is multiplied by its weight for lane `l ^ j` of the output. The
//! sums over all taps of one `j` are kept apart; lanes are exchanged in the end.

use std::ops::Range;

use super::convolution::ConvolutionShape;
use super::lanes::{LANES, Lanes};
use super::map::Writable;
use super::product::{Finish, finish};
use super::stored::Stored;

/// Planes (channel blocks of images) of a grouped convolution.
pub(crate) struct ConvolveGroups<'a, S> {
    pub(crate) shape: &'a ConvolutionShape,
    /// (images, blocks, pixels, 16).
    pub(crate) input: &'a [S],
    /// (blocks, kernel, kernel, channels of a group, 16).
    pub(crate) weights: &'a [S],
    /// (blocks, 16).
    pub(crate) bias: &'a [f32],
    /// Added before the ReLU; (images, blocks, pixels, 16).
    pub(crate) residual: Option<&'a [S]>,
    pub(crate) relu: bool,
    /// Channel blocks of an image.
    pub(crate) blocks: usize,
    /// Planes that this call computes.
    pub(crate) planes: Range<usize>,
    /// (images, blocks, pixels, 16).
    pub(crate) output: Writable<'a, S>,
}

/// One row of one plane of the output.
struct Row<S> {
    /// The plane's pixels, of the input.
    input: *const S,
    /// (kernel, kernel, channels of a group, 16).
    weights: *const S,
    output: *mut S,
    finish: Finish<S>,
    /// Of the output.
    row: usize,
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say; nobody else writes the same planes.
#[inline(always)]
pub(super) unsafe fn convolve_groups<V: Lanes, S: Stored>(call: &ConvolveGroups<S>) {
    // SAFETY: passed on.
    unsafe {
        let of_group = call.shape.in_channels / call.shape.groups;
        match (of_group, V::BLOCKS) {
            (1, _) => planes::<V, S, 1>(call),
            (2.., 1) | (2, _) => planes::<V, S, 2>(call),
            _ => planes::<V, S, 4>(call),
        }
    }
}

/// `J` lanes of a group at a time.
#[inline(always)]
unsafe fn planes<V: Lanes, S: Stored, const J: usize>(call: &ConvolveGroups<S>) {
    let shape = call.shape;
    let (input, output) = (shape.input.pixels() * LANES, shape.output.pixels() * LANES);
    for plane in call.planes.clone() {
        let block = plane % call.blocks;
        let of_block = shape.kernel * shape.kernel * (shape.in_channels / shape.groups) * LANES;
        for row in 0..shape.output.height {
            let first = plane * output + row * shape.output.width * LANES;
            // SAFETY: plane, block and row are the output's.
            unsafe {
                let row = Row {
                    input: call.input.as_ptr().add(plane * input),
                    weights: call.weights.as_ptr().add(block * of_block),
                    output: call.output.at(first),
                    finish: Finish {
                        bias: call.bias.as_ptr().add(block * LANES),
                        residual: call.residual.map_or(std::ptr::null(), |residual| residual.as_ptr().add(first)),
                        relu: call.relu,
                    },
                    row,
                };
                columns::<V, S, J>(shape, &row);
            }
        }
    }
}

/// Columns of the output that see the kernel's column `tap` within the map.
fn seeing(shape: &ConvolutionShape, tap: usize) -> Range<usize> {
    let shift = tap * shape.dilation;
    let first = shape.padding.saturating_sub(shift).div_ceil(shape.stride);
    let end = (shape.input.width + shape.padding).saturating_sub(shift).div_ceil(shape.stride);
    first.min(shape.output.width)..end.min(shape.output.width)
}

/// All columns of a row: those that see the whole kernel in tiles, the others one by one.
#[inline(always)]
unsafe fn columns<V: Lanes, S: Stored, const J: usize>(shape: &ConvolutionShape, row: &Row<S>) {
    let start = seeing(shape, 0).start;
    let end = seeing(shape, shape.kernel - 1).end.max(start);
    // SAFETY: passed on; a column sees those taps that it is said to see.
    unsafe {
        for column in (0..start).chain(end..shape.output.width) {
            let sees = |&tap: &usize| seeing(shape, tap).contains(&column);
            let first = (0..shape.kernel).find(sees).unwrap_or(shape.kernel);
            let count = (first..shape.kernel).take_while(sees).count();
            tile::<V, S, J, 1>(shape, row, column, first..first + count);
        }
        let taps = 0..shape.kernel;
        let tiles = (end - start).div_ceil(rows_at_once::<V, J>());
        for index in 0..tiles {
            let bound = |tile: usize| start + (end - start) * tile / tiles;
            let (column, taps) = (bound(index), taps.clone());
            match bound(index + 1) - column {
                1 => tile::<V, S, J, 1>(shape, row, column, taps),
                2 => tile::<V, S, J, 2>(shape, row, column, taps),
                3 => tile::<V, S, J, 3>(shape, row, column, taps),
                4 => tile::<V, S, J, 4>(shape, row, column, taps),
                5 => tile::<V, S, J, 5>(shape, row, column, taps),
                6 => tile::<V, S, J, 6>(shape, row, column, taps),
                _ => tile::<V, S, J, 7>(shape, row, column, taps),
            }
        }
    }
}

/// Pixels of a tile: so many that all sums are in registers.
const fn rows_at_once<V: Lanes, const J: usize>() -> usize {
    let rows = V::ROWS * V::BLOCKS / J;
    if rows > 7 { 7 } else { rows }
}

/// `R` pixels of a row, of which all see the columns `taps` of the kernel.
#[inline(always)]
unsafe fn tile<V: Lanes, S: Stored, const J: usize, const R: usize>(
    shape: &ConvolutionShape,
    row: &Row<S>,
    column: usize,
    taps: Range<usize>,
) {
    if R > rows_at_once::<V, J>() && R > 1 {
        return; // Never asked for; spares the code.
    }
    let of_group = shape.in_channels / shape.groups;
    // SAFETY: passed on.
    unsafe {
        let mut sums = [[V::splat(0.0); 1]; R];
        let of_tile = (shape, row, column, &taps);
        pass::<V, S, J, R, 0, false>(of_tile, &mut sums);
        if J == 2 && of_group > 2 {
            pass::<V, S, J, R, 0, true>(of_tile, &mut sums);
        }
        if of_group > 4 {
            pass::<V, S, J, R, 1, false>(of_tile, &mut sums);
            if J == 2 {
                pass::<V, S, J, R, 1, true>(of_tile, &mut sums);
            }
        }
        if of_group > 8 {
            pass::<V, S, J, R, 2, false>(of_tile, &mut sums);
            pass::<V, S, J, R, 3, false>(of_tile, &mut sums);
            if J == 2 {
                pass::<V, S, J, R, 2, true>(of_tile, &mut sums);
                pass::<V, S, J, R, 3, true>(of_tile, &mut sums);
            }
        }
        finish::<V, S, R, 1>(row.finish, column * LANES, 0, &mut sums);
        for r in 0..R {
            S::store(sums[r][0], row.output.add((column + r) * LANES));
        }
    }
}

/// The products of `J` lanes: those of quarter `Q`, or its upper half.
#[inline(always)]
unsafe fn pass<V: Lanes, S: Stored, const J: usize, const R: usize, const Q: usize, const UPPER: bool>(
    (shape, row, column, taps): (&ConvolutionShape, &Row<S>, usize, &Range<usize>),
    sums: &mut [[V; 1]; R],
) {
    let (of_group, first) = (shape.in_channels / shape.groups, 4 * Q + if UPPER { 2 } else { 0 });
    // SAFETY: rows beyond the map are left out, columns are the caller's.
    unsafe {
        let mut apart = [[V::splat(0.0); J]; R];
        for tap_row in 0..shape.kernel {
            let y = (row.row * shape.stride + tap_row * shape.dilation).wrapping_sub(shape.padding);
            if y >= shape.input.height {
                continue;
            }
            for tap in taps.clone() {
                let x = column * shape.stride + tap * shape.dilation - shape.padding;
                let from = row.input.add((y * shape.input.width + x) * LANES);
                let weights = row.weights.add(((tap_row * shape.kernel + tap) * of_group + first) * LANES);
                add_tap::<V, S, J, R>(from, shape.stride * LANES, weights, &mut apart);
            }
        }
        for r in 0..R {
            let exchanged = together::<V, J, UPPER>(apart[r]).exchange_quarters::<Q>();
            sums[r][0] = sums[r][0].add(exchanged);
        }
    }
}

/// The sum of what is meant for other lanes of the same quarter.
#[inline(always)]
unsafe fn together<V: Lanes, const J: usize, const UPPER: bool>(apart: [V; J]) -> V {
    // SAFETY: the caller's.
    unsafe {
        match J {
            1 => apart[0],
            2 if UPPER => apart[0].exchange::<2>().add(apart[1].exchange::<3>()),
            2 => apart[0].add(apart[1].exchange::<1>()),
            _ => {
                let upper = apart[2].exchange::<2>().add(apart[3].exchange::<3>());
                apart[0].add(apart[1].exchange::<1>()).add(upper)
            }
        }
    }
}

/// Adds what `R` pixels, `stride` values from each other, give at one tap.
#[inline(always)]
unsafe fn add_tap<V: Lanes, S: Stored, const J: usize, const R: usize>(
    from: *const S,
    stride: usize,
    weights: *const S,
    sums: &mut [[V; J]; R],
) {
    // SAFETY: the caller's.
    unsafe {
        let mut columns = [V::splat(0.0); J];
        for j in 0..J {
            columns[j] = S::load(weights.add(j * LANES));
        }
        for r in 0..R {
            let pixel: V = S::load(from.add(r * stride));
            for j in 0..J {
                sums[r][j] = pixel.mul_add(columns[j], sums[r][j]);
            }
        }
    }
}
