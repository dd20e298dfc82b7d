//! The matrix product that every convolution comes down to: rows of pixels × weights → blocks of output channels.
//!
//! The one hot loop. A tile of rows × channel blocks is held in registers while the reduction runs; the weights of a pass
//! stay in the first-level cache while all rows go by. After Goto & van de Geijn 2008, without a copy of the rows: both
//! a [`Map`](super::Map) and a packed panel have the layout that is read here.

use super::lanes::{LANES, Lanes};
use super::stored::Stored;

/// Bytes of weights that one pass over the rows keeps in the first-level cache.
const PASS_BYTES: usize = 32 << 10;
/// Bytes of weights that a second-level cache cannot be expected to hold.
const HEAVY_BYTES: usize = 512 << 10;
/// Bytes of a cache line.
const LINE: usize = 64;

/// One product. Row `r`, segment `s`, value `k` of the input lie at `s * segment_stride + r * 16 + k`.
#[derive(Clone, Copy)]
pub(super) struct Product<I, O> {
    pub(super) input: *const I,
    pub(super) rows: usize,
    /// Runs of the reduction: a block of channels each, at one tap of the kernel.
    pub(super) segments: usize,
    pub(super) segment_stride: usize,
    /// Values of each segment that are read, 1 to 16; a multiple of [`Stored::DEPTH`].
    pub(super) length: usize,
    /// (segments, length / depth, blocks, 16, depth).
    pub(super) weights: *const I,
    /// Channel block `b` of row `r` is written at `b * block_stride + r * 16`.
    pub(super) output: *mut O,
    pub(super) block_stride: usize,
    /// Where sums wait between passes, laid out as the output, and their own distance from block to block.
    pub(super) sums: (*mut f32, usize),
    /// Channel blocks, 1 or 2; at most [`Lanes::BLOCKS`].
    pub(super) blocks: usize,
    /// Whether all weights of the layer are more than the second-level cache holds.
    pub(super) heavy: bool,
    /// Whether the result is added to `sums`.
    pub(super) accumulate: bool,
    pub(super) finish: Finish<O>,
}

/// What happens to sums before they are written.
#[derive(Clone, Copy)]
pub(super) struct Finish<O> {
    /// (blocks, 16), or null.
    pub(super) bias: *const f32,
    /// Added after the bias; laid out as the output, or null.
    pub(super) residual: *const O,
    pub(super) relu: bool,
}

/// Whether a layer's weights come from beyond the second-level cache, whatever was computed before.
pub(super) fn is_heavy<S>(weights: &[S]) -> bool {
    size_of_val(weights) > HEAVY_BYTES
}

impl<O> Finish<O> {
    pub(super) const NOTHING: Finish<O> = Finish { bias: std::ptr::null(), residual: std::ptr::null(), relu: false };
}

/// A part of the reduction.
#[derive(Clone, Copy)]
struct Pass {
    first: usize,
    end: usize,
    /// Cache lines to bring near with each segment: weights of the next pass, or of whatever is stored behind these.
    ahead: usize,
    /// Number of the tile.
    tile: usize,
}

/// Computes a product.
///
/// # Safety
/// The processor has `V`'s instruction set; all that the fields describe lies within allocations, and nobody else
/// touches the output meanwhile.
#[inline(always)]
pub(super) unsafe fn product<V: Lanes, I: Stored, O: Stored>(product: &Product<I, O>) {
    // SAFETY: passed on.
    unsafe {
        if V::BLOCKS == 2 && product.blocks == 2 {
            passes::<V, I, O, 2>(product)
        } else {
            passes::<V, I, O, 1>(product)
        }
    }
}

#[inline(always)]
unsafe fn passes<V: Lanes, I: Stored, O: Stored, const B: usize>(product: &Product<I, O>) {
    let segment_bytes = product.length * B * LANES * size_of::<I>();
    let count = (product.segments * segment_bytes).div_ceil(PASS_BYTES + PASS_BYTES / 2).max(1);
    let bound = |part: usize| product.segments * part / count;
    // Each tile of rows brings an equal part.
    let tiles = product.rows.div_ceil(V::ROWS);
    let ahead = if product.heavy { (segment_bytes / LINE).div_ceil(tiles) } else { 0 };
    for part in 0..count {
        // SAFETY: passed on.
        unsafe { rows::<V, I, O, B>(product, Pass { first: bound(part), end: bound(part + 1), ahead, tile: 0 }) };
    }
}

/// All rows, in tiles of as equal height as there can be.
#[inline(always)]
unsafe fn rows<V: Lanes, I: Stored, O: Stored, const B: usize>(product: &Product<I, O>, pass: Pass) {
    let tiles = product.rows.div_ceil(V::ROWS);
    let bound = |tile: usize| product.rows * tile / tiles;
    for index in 0..tiles {
        let (row, end) = (bound(index), bound(index + 1));
        let pass = Pass { tile: index, ..pass };
        // SAFETY: passed on.
        unsafe {
            match end - row {
                1 => tile::<V, I, O, 1, B>(product, pass, row),
                2 => tile::<V, I, O, 2, B>(product, pass, row),
                3 => tile::<V, I, O, 3, B>(product, pass, row),
                4 => tile::<V, I, O, 4, B>(product, pass, row),
                5 => tile::<V, I, O, 5, B>(product, pass, row),
                6 => tile::<V, I, O, 6, B>(product, pass, row),
                7 => tile::<V, I, O, 7, B>(product, pass, row),
                8 => tile::<V, I, O, 8, B>(product, pass, row),
                9 => tile::<V, I, O, 9, B>(product, pass, row),
                10 => tile::<V, I, O, 10, B>(product, pass, row),
                11 => tile::<V, I, O, 11, B>(product, pass, row),
                12 => tile::<V, I, O, 12, B>(product, pass, row),
                13 => tile::<V, I, O, 13, B>(product, pass, row),
                _ => tile::<V, I, O, 14, B>(product, pass, row),
            }
        }
    }
}

#[inline(always)]
unsafe fn tile<V: Lanes, I: Stored, O: Stored, const R: usize, const B: usize>(
    product: &Product<I, O>,
    pass: Pass,
    row: usize,
) {
    if R > V::ROWS {
        return; // Never asked for; spares the code.
    }
    // SAFETY: rows `row..row + R` and segments of the pass are within the product.
    unsafe {
        let (waiting, waiting_stride) = (product.sums.0.add(row * LANES), product.sums.1);
        let mut sums = [[V::splat(0.0); B]; R];
        if pass.first > 0 || product.accumulate {
            for r in 0..R {
                for b in 0..B {
                    sums[r][b] = V::load(waiting.add(b * waiting_stride + r * LANES));
                }
            }
        }
        if pass.end == product.segments {
            prefetch_finish::<V, I, O, R, B>(product, row);
        }
        let mut weights = product.weights.add(pass.first * product.length * B * LANES);
        let segments = pass.end - pass.first;
        let line = LINE / size_of::<I>();
        let behind = segments * product.length * B * LANES + pass.tile * pass.ahead * segments * line;
        let mut ahead = weights.wrapping_add(behind);
        for segment in pass.first..pass.end {
            for _ in 0..pass.ahead {
                V::prefetch_second(ahead.cast());
                ahead = ahead.wrapping_add(line);
            }
            let mut input = product.input.add(segment * product.segment_stride + row * LANES);
            for _ in 0..product.length / I::DEPTH {
                let mut columns = [I::columns::<V>(weights); B];
                for b in 1..B {
                    columns[b] = I::columns::<V>(weights.add(b * LANES * I::DEPTH));
                }
                for r in 0..R {
                    let value = I::spread::<V>(input.add(r * LANES));
                    for b in 0..B {
                        sums[r][b] = I::mul_add(value, columns[b], sums[r][b]);
                    }
                }
                weights = weights.add(B * LANES * I::DEPTH);
                input = input.add(I::DEPTH);
            }
        }
        if pass.end < product.segments {
            for r in 0..R {
                for b in 0..B {
                    sums[r][b].store(waiting.add(b * waiting_stride + r * LANES));
                }
            }
            return;
        }
        finish::<V, O, R, B>(product.finish, row * LANES, product.block_stride, &mut sums);
        let output = product.output.add(row * LANES);
        for r in 0..R {
            for b in 0..B {
                O::store(sums[r][b], output.add(b * product.block_stride + r * LANES));
            }
        }
    }
}

/// Has what a tile is added to, and where it goes, brought near while it is computed. What has no bias is written to scratch, which is near.
#[inline(always)]
unsafe fn prefetch_finish<V: Lanes, I: Stored, O: Stored, const R: usize, const B: usize>(
    product: &Product<I, O>,
    row: usize,
) {
    if product.finish.bias.is_null() {
        return;
    }
    for b in 0..B {
        for r in 0..R {
            let at = b * product.block_stride + (row + r) * LANES;
            // SAFETY: any address will do; the instruction set is the caller's.
            unsafe {
                V::prefetch_first(product.output.wrapping_add(at).cast());
                if !product.finish.residual.is_null() {
                    V::prefetch_first(product.finish.residual.wrapping_add(at).cast());
                }
            }
        }
    }
}

/// Bias, residual and ReLU for rows of which the first lies at `first` in each block of the output.
///
/// # Safety
/// As [`product`].
#[inline(always)]
pub(super) unsafe fn finish<V: Lanes, O: Stored, const R: usize, const B: usize>(
    Finish { bias, residual, relu }: Finish<O>,
    first: usize,
    block_stride: usize,
    sums: &mut [[V; B]; R],
) {
    // SAFETY: bias and residual are as large as the output's channels and the output.
    unsafe {
        if !bias.is_null() {
            for b in 0..B {
                let bias = V::load(bias.add(b * LANES));
                for r in 0..R {
                    sums[r][b] = sums[r][b].add(bias);
                }
            }
        }
        if !residual.is_null() {
            for r in 0..R {
                for b in 0..B {
                    let other = O::load(residual.add(b * block_stride + first + r * LANES));
                    sums[r][b] = sums[r][b].add(other);
                }
            }
        }
        if relu {
            for r in 0..R {
                for b in 0..B {
                    sums[r][b] = V::splat(0.0).max(sums[r][b]);
                }
            }
        }
    }
}
