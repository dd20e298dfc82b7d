//! Convolutions of stride 1 with fewer multiplications: Winograd's F(m×m, r×r), after Lavin & Gray 2015 (1509.09308).
//!
//! A tile of `m + r - 1` points a side is transformed, multiplied by transformed weights (one matrix product per point,
//! over all tiles), and transformed back into m×m outputs. The points are 0, ±5/8, ±3/2, ∞ for six of them and 0, ±1, ∞ for four.

mod matrices;
mod plain;

use std::ops::Range;

use matrices::{INNER, OUTER};
pub(super) use plain::{multiply_plain, transform_weights};

use super::convolution::input_blocks;
use super::lanes::{LANES, Lanes};
use super::map::{Extent, Writable, blocks_of};
use super::product::{Finish, Product, is_heavy, product};
use super::stored::{Stored, filled_up};

/// Points of a tile's side, at most.
pub(super) const MAX_POINTS: usize = 6;

/// A tile's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// F(2×2, 3×3): 16 multiplications in the place of 36.
    TwoByTwo,
    /// F(4×4, 3×3): 36 in the place of 144.
    FourByFour,
    /// F(3×3, 4×4): 36 in the place of 144.
    ThreeByThreeOfFour,
}

impl Scheme {
    /// m: outputs of a tile's side.
    pub(crate) fn tile(self) -> usize {
        match self {
            Scheme::TwoByTwo => 2,
            Scheme::FourByFour => 4,
            Scheme::ThreeByThreeOfFour => 3,
        }
    }

    /// r: taps of the kernel's side.
    pub(crate) fn kernel(self) -> usize {
        match self {
            Scheme::TwoByTwo | Scheme::FourByFour => 3,
            Scheme::ThreeByThreeOfFour => 4,
        }
    }

    /// m + r - 1: points of a tile's side.
    pub(crate) fn points(self) -> usize {
        self.tile() + self.kernel() - 1
    }

    /// Points of a tile: matrix products.
    pub(crate) fn products(self) -> usize {
        self.points() * self.points()
    }

    /// Tiles that cover a map.
    pub(crate) fn tiles(self, output: Extent) -> usize {
        output.height.div_ceil(self.tile()) * output.width.div_ceil(self.tile())
    }
}

/// A convolution's tiles in the transformed domain, for tiles `tiles` of a batch (image by image, row by row).
#[derive(Clone)]
pub(crate) struct Tiles {
    pub(crate) scheme: Scheme,
    /// Of the map that goes in and, as padding keeps it, of the one that comes out.
    pub(crate) extent: Extent,
    /// Zeros before the first row and column.
    pub(crate) padding: usize,
    pub(crate) tiles: Range<usize>,
}

impl Tiles {
    fn count(&self) -> usize {
        self.tiles.len()
    }

    /// Values from one point to the next in transformed inputs of `blocks` channel blocks; off a power of two.
    fn input_stride(&self, blocks: usize) -> usize {
        blocks * self.count() * LANES + LANES
    }

    /// Floats from one point to the next in products.
    fn output_stride(&self) -> usize {
        self.count() * LANES + LANES
    }

    /// Values that [`transform_inputs`] writes.
    pub(crate) fn transformed_inputs(&self, blocks: usize) -> usize {
        self.scheme.products() * self.input_stride(blocks)
    }

    /// Weights that [`multiply_plain`] needs room for beside its output, for columns of `column_blocks`.
    pub(crate) fn transformed_weights(&self, column_blocks: usize) -> usize {
        self.scheme.products() * plain::point_stride(self.scheme, column_blocks)
    }

    /// Floats that [`multiply`] writes for `blocks` channel blocks of the output.
    pub(crate) fn transformed_outputs(&self, blocks: usize) -> usize {
        blocks * self.scheme.products() * self.output_stride()
    }

    /// Image, first row and first column of the outputs of tile `index`.
    #[inline(always)]
    fn place(&self, index: usize) -> (usize, usize, usize) {
        let side = self.scheme.tile();
        let across = self.extent.width.div_ceil(side);
        let each = across * self.extent.height.div_ceil(side);
        let (image, within) = (index / each, index % each);
        (image, within / across * side, within % across * side)
    }
}

/// Maps → transformed tiles, for a range of channel blocks.
pub(crate) struct TransformInputs<'a, S> {
    pub(crate) tiles: &'a Tiles,
    /// (images, blocks, pixels, 16).
    pub(crate) input: &'a [S],
    /// Channel blocks of the input.
    pub(crate) blocks: usize,
    /// Those that this call transforms.
    pub(crate) range: Range<usize>,
    /// (points, blocks, tiles, 16), padded.
    pub(crate) transformed: Writable<'a, S>,
}

/// Transformed tiles × transformed weights, for a range of columns of the output.
pub(crate) struct Multiply<'a, S> {
    pub(crate) tiles: &'a Tiles,
    /// What [`transform_inputs`] wrote.
    pub(crate) transformed: &'a [S],
    /// Channels in and out.
    pub(crate) channels: (usize, usize),
    pub(crate) groups: usize,
    /// (points, columns, input blocks of a column, length / depth, blocks of a column, 16, depth).
    pub(crate) weights: &'a [S],
    /// Channel blocks of the output that are computed together, 1 or 2: a column.
    pub(crate) column_blocks: usize,
    /// Columns of the output.
    pub(crate) columns: usize,
    /// Those that this call computes.
    pub(crate) range: Range<usize>,
    /// (blocks of the range, points, tiles, 16), padded.
    pub(crate) products: Writable<'a>,
}

/// As [`Multiply`], with weights that are transformed on the way: more arithmetic, less to read from memory.
pub(crate) struct MultiplyPlain<'a, S> {
    pub(crate) tiles: &'a Tiles,
    /// What [`transform_inputs`] wrote.
    pub(crate) transformed: &'a [S],
    /// Channel blocks of the input.
    pub(crate) blocks: usize,
    /// (columns, input blocks, 3, 3, 16 / depth, blocks of a column, 16, depth): as for a convolution without groups.
    pub(crate) weights: &'a [S],
    /// Channel blocks of the output that are computed together, 1 or 2: a column.
    pub(crate) column_blocks: usize,
    /// Columns that this call computes.
    pub(crate) range: Range<usize>,
    /// Transformed weights of some input blocks; [`Tiles::transformed_weights`] of them.
    pub(crate) scratch: &'a mut [S],
    /// (blocks of the range, points, tiles, 16), padded.
    pub(crate) products: Writable<'a>,
}

/// Weights as for a convolution without groups → those that [`multiply`] reads, for a range of columns of the output.
pub(crate) struct TransformWeights<'a> {
    pub(crate) scheme: Scheme,
    /// (columns, input blocks, 3, 3, 16, blocks of a column, 16).
    pub(crate) weights: &'a [f32],
    /// Channel blocks of the input.
    pub(crate) blocks: usize,
    /// Channel blocks of the output that are computed together, 1 or 2: a column.
    pub(crate) column_blocks: usize,
    /// Columns of the output.
    pub(crate) columns: usize,
    /// Those that this call transforms.
    pub(crate) range: Range<usize>,
    /// (points, columns, input blocks, 16, blocks of a column, 16).
    pub(crate) transformed: Writable<'a>,
}

/// Products → outputs, for a range of channel blocks.
pub(crate) struct TransformOutputs<'a, S> {
    pub(crate) tiles: &'a Tiles,
    /// What [`multiply`] wrote for these blocks.
    pub(crate) products: &'a [f32],
    /// Channel blocks of the whole output.
    pub(crate) blocks: usize,
    /// Those that this call writes.
    pub(crate) range: Range<usize>,
    /// (blocks, 16).
    pub(crate) bias: &'a [f32],
    /// Added before the ReLU; (images, blocks, pixels, 16).
    pub(crate) residual: Option<&'a [S]>,
    pub(crate) relu: bool,
    /// (images, blocks, pixels, 16).
    pub(crate) output: Writable<'a, S>,
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say; nobody else writes to the same blocks.
#[inline(always)]
pub(super) unsafe fn transform_inputs<V: Lanes, S: Stored>(call: &TransformInputs<S>) {
    // SAFETY: passed on.
    unsafe {
        match call.tiles.scheme.points() {
            4 => inputs::<V, S, 4>(call),
            _ => inputs::<V, S, 6>(call),
        }
    }
}

#[inline(always)]
unsafe fn inputs<V: Lanes, S: Stored, const P: usize>(call: &TransformInputs<S>) {
    let Tiles { extent, padding, ref tiles, .. } = *call.tiles;
    let stride = call.tiles.input_stride(call.blocks);
    let mut bordered = [S::default(); MAX_POINTS * MAX_POINTS * LANES];
    for block in call.range.clone() {
        for (position, index) in tiles.clone().enumerate() {
            let (image, row, column) = call.tiles.place(index);
            let plane = (image * call.blocks + block) * extent.pixels() * LANES;
            let inside = row >= padding
                && column >= padding
                && row - padding + P <= extent.height
                && column - padding + P <= extent.width;
            // SAFETY: the tile lies within the plane, or a copy of it in `bordered` does.
            unsafe {
                let plane = call.input.as_ptr().add(plane);
                let to = call.transformed.at((block * tiles.len() + position) * LANES);
                if inside {
                    let first = ((row - padding) * extent.width + column - padding) * LANES;
                    input_tile::<V, S, P>(plane.add(first), extent.width * LANES, to, stride);
                } else {
                    copy_bordered::<S, P>(plane, extent, (row, column), padding, &mut bordered);
                    input_tile::<V, S, P>(bordered.as_ptr(), P * LANES, to, stride);
                }
            }
        }
    }
}

/// Copies a tile of which a part lies beyond the map; that part becomes zero.
#[inline(always)]
unsafe fn copy_bordered<S: Stored, const P: usize>(
    plane: *const S,
    extent: Extent,
    (row, column): (usize, usize),
    padding: usize,
    to: &mut [S; MAX_POINTS * MAX_POINTS * LANES],
) {
    for i in 0..P {
        for j in 0..P {
            let (y, x) = ((row + i).wrapping_sub(padding), (column + j).wrapping_sub(padding));
            // SAFETY: read only where the pixel is one of the map's.
            unsafe {
                let value = if y < extent.height && x < extent.width {
                    plane.add((y * extent.width + x) * LANES).cast::<[S; LANES]>().read_unaligned()
                } else {
                    [S::default(); LANES]
                };
                to.as_mut_ptr().add((i * P + j) * LANES).cast::<[S; LANES]>().write_unaligned(value);
            }
        }
    }
}

/// Bᵀ d B.
#[inline(always)]
unsafe fn input_tile<V: Lanes, S: Stored, const P: usize>(from: *const S, row: usize, to: *mut S, stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        let mut half = [[V::splat(0.0); P]; P];
        for j in 0..P {
            let mut line = [V::splat(0.0); P];
            for i in 0..P {
                line[i] = S::load(from.add(i * row + j * LANES));
            }
            let line = input_line::<V, P>(line);
            for i in 0..P {
                half[i][j] = line[i];
            }
        }
        for i in 0..P {
            let line = input_line::<V, P>(half[i]);
            for j in 0..P {
                S::store(line[j], to.add((i * P + j) * stride));
            }
        }
    }
}

/// Bᵀ times a column.
#[inline(always)]
unsafe fn input_line<V: Lanes, const P: usize>(d: [V; P]) -> [V; P] {
    let mut t = d;
    // SAFETY: the caller's.
    unsafe {
        if P == 4 {
            t[0] = d[0].sub(d[2]);
            t[1] = d[1].add(d[2]);
            t[2] = d[2].sub(d[1]);
            t[3] = d[1].sub(d[3]);
        } else {
            let (inner, outer) = (INNER * INNER, OUTER * OUTER);
            let (product, sum) = (V::splat(inner * outer), V::splat(-(inner + outer)));
            let (inner, outer) = (V::splat(-inner), V::splat(-outer));
            t[0] = d[0].mul_add(product, d[2].mul_add(sum, d[4]));
            let (even, odd) = (d[2].mul_add(outer, d[4]), d[1].mul_add(outer, d[3]));
            t[1] = odd.mul_add(V::splat(INNER), even);
            t[2] = odd.mul_add(V::splat(-INNER), even);
            let (even, odd) = (d[2].mul_add(inner, d[4]), d[1].mul_add(inner, d[3]));
            t[3] = odd.mul_add(V::splat(OUTER), even);
            t[4] = odd.mul_add(V::splat(-OUTER), even);
            t[5] = d[1].mul_add(product, d[3].mul_add(sum, d[5]));
        }
    }
    t
}

/// # Safety
/// As [`transform_inputs`].
#[inline(always)]
pub(super) unsafe fn multiply<V: Lanes, S: Stored>(call: &Multiply<S>) {
    let points = call.tiles.scheme.products();
    let blocks = blocks_of(call.channels.0);
    let (input_stride, output_stride) = (call.tiles.input_stride(blocks), call.tiles.output_stride());
    let segment_stride = call.tiles.count() * LANES;
    let length = filled_up::<S>(call.channels.0.min(LANES));
    for point in 0..points {
        for column in call.range.clone() {
            let block = (column - call.range.start) * call.column_blocks;
            let seen = input_blocks(call.channels, call.groups, column * call.column_blocks);
            let of_column = seen.len() * length * call.column_blocks * LANES;
            // SAFETY: passed on.
            unsafe {
                let output = call.products.at((block * points + point) * output_stride);
                product::<V, S, f32>(&Product {
                    input: call.transformed.as_ptr().add(point * input_stride + seen.start * segment_stride),
                    rows: call.tiles.count(),
                    segments: seen.len(),
                    segment_stride,
                    length,
                    weights: call.weights.as_ptr().add((point * call.columns + column) * of_column),
                    output,
                    block_stride: points * output_stride,
                    sums: (output, points * output_stride),
                    blocks: call.column_blocks,
                    heavy: is_heavy(call.weights),
                    accumulate: false,
                    finish: Finish::NOTHING,
                });
            }
        }
    }
}

/// # Safety
/// As [`transform_inputs`].
#[inline(always)]
pub(super) unsafe fn transform_outputs<V: Lanes, S: Stored>(call: &TransformOutputs<S>) {
    // SAFETY: passed on.
    unsafe {
        match call.tiles.scheme {
            Scheme::TwoByTwo => outputs::<V, S, 4, 2>(call),
            Scheme::FourByFour => outputs::<V, S, 6, 4>(call),
            Scheme::ThreeByThreeOfFour => outputs::<V, S, 6, 3>(call),
        }
    }
}

#[inline(always)]
unsafe fn outputs<V: Lanes, S: Stored, const P: usize, const M: usize>(call: &TransformOutputs<S>) {
    let Tiles { extent, ref tiles, .. } = *call.tiles;
    let stride = call.tiles.output_stride();
    for block in call.range.clone() {
        for (position, index) in tiles.clone().enumerate() {
            let (image, row, column) = call.tiles.place(index);
            let first = ((image * call.blocks + block) * extent.pixels() + row * extent.width + column) * LANES;
            let local = (block - call.range.start) * P * P * stride + position * LANES;
            // SAFETY: the outputs that are written lie within the map.
            unsafe {
                let tile = OutputTile {
                    products: call.products.as_ptr().add(local),
                    stride,
                    bias: V::load(call.bias.as_ptr().add(block * LANES)),
                    residual: call.residual.map_or(std::ptr::null(), |residual| residual.as_ptr().add(first)),
                    relu: call.relu,
                    to: call.output.at(first),
                    row: extent.width * LANES,
                    height: (extent.height - row).min(M),
                    width: (extent.width - column).min(M),
                };
                output_tile::<V, S, P, M>(&tile);
            }
        }
    }
}

struct OutputTile<V, S> {
    products: *const f32,
    stride: usize,
    bias: V,
    residual: *const S,
    relu: bool,
    to: *mut S,
    row: usize,
    /// Rows and columns that lie within the map.
    height: usize,
    width: usize,
}

/// Aᵀ m A, and what is left of the layer.
#[inline(always)]
unsafe fn output_tile<V: Lanes, S: Stored, const P: usize, const M: usize>(tile: &OutputTile<V, S>) {
    // SAFETY: the caller's.
    unsafe {
        let mut half = [[V::splat(0.0); P]; M];
        for j in 0..P {
            let mut line = [V::splat(0.0); P];
            for i in 0..P {
                line[i] = V::load(tile.products.add((i * P + j) * tile.stride));
            }
            let line = output_line::<V, P, M>(line);
            for i in 0..M {
                half[i][j] = line[i];
            }
        }
        for i in 0..M {
            if i >= tile.height {
                break;
            }
            let line = output_line::<V, P, M>(half[i]);
            for j in 0..M {
                if j < tile.width {
                    let offset = i * tile.row + j * LANES;
                    let mut value = line[j].add(tile.bias);
                    if !tile.residual.is_null() {
                        value = value.add(S::load(tile.residual.add(offset)));
                    }
                    if tile.relu {
                        value = V::splat(0.0).max(value);
                    }
                    S::store(value, tile.to.add(offset));
                }
            }
        }
    }
}

/// Aᵀ times a column.
#[inline(always)]
unsafe fn output_line<V: Lanes, const P: usize, const M: usize>(m: [V; P]) -> [V; M] {
    // SAFETY: the caller's.
    unsafe {
        let mut y = [V::splat(0.0); M];
        let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
        if P == 4 {
            y[0] = m[0].add(sum);
            y[1] = difference.sub(m[3]);
            return y;
        }
        let (outer_sum, outer_difference) = (m[3].add(m[4]), m[3].sub(m[4]));
        y[0] = m[0].add(sum).add(outer_sum);
        y[1] = outer_difference.mul_add(V::splat(OUTER), difference.mul(V::splat(INNER)));
        y[2] = outer_sum.mul_add(V::splat(OUTER * OUTER), sum.mul(V::splat(INNER * INNER)));
        if M == 4 {
            let (inner, outer) = (V::splat(INNER * INNER * INNER), V::splat(OUTER * OUTER * OUTER));
            y[3] = outer_difference.mul_add(outer, difference.mul_add(inner, m[5]));
        } else {
            y[2] = y[2].add(m[5]);
        }
        y
    }
}
