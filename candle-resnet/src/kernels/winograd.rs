//! Convolutions with fewer multiplications: Winograd's F(m×m, r×r), after Lavin & Gray 2015 (1509.09308).
//!
//! A tile of `m + r - 1` points a side is transformed, multiplied by transformed weights (one matrix product per point,
//! over all tiles), and transformed back into m×m outputs. The points are 0, ±5/8, ±3/2, ∞ for six of them and 0, ±1, ∞ for four.
//!
//! Of a kernel of three taps and stride 2, the outer taps see one pixel in two and the middle tap the others: along a side it is the sum of
//! an F(4, 2), at ±1/2, ±5/4, ∞, and of products with the middle tap. Points that have the middle tap in common are rows of
//! one matrix product.

mod matrices;
mod plain;

use std::ops::Range;

use matrices::{INNER, OUTER, STRIDED_INNER, STRIDED_OUTER};
pub(super) use plain::{multiply_plain, transform_weights};

use super::convolution::input_blocks;
use super::lanes::{LANES, Lanes};
use super::map::{Extent, Writable, blocks_of};
use super::product::{Finish, Product, is_heavy, product};
use super::stored::{Stored, filled_up};

/// Points of a tile's side, at most.
const MAX_POINTS: usize = 9;
/// Points of a side that have weights of their own, at most.
pub(super) const MAX_FACTORS: usize = 6;
/// Points of a strided tile's side that the outer taps make; those behind them see the middle tap.
const OUTER_TAPS_POINTS: usize = 5;

/// A tile's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// F(2×2, 3×3): 16 multiplications in the place of 36.
    TwoByTwo,
    /// F(4×4, 3×3): 36 in the place of 144.
    FourByFour,
    /// F(3×3, 4×4): 36 in the place of 144.
    ThreeByThreeOfFour,
    /// 4×4 outputs of a 3×3 kernel of stride 2: 81 in the place of 144.
    FourByFourStrided,
}

impl Scheme {
    /// m: outputs of a tile's side.
    pub(crate) fn tile(self) -> usize {
        match self {
            Scheme::TwoByTwo => 2,
            Scheme::FourByFour | Scheme::FourByFourStrided => 4,
            Scheme::ThreeByThreeOfFour => 3,
        }
    }

    /// r: taps of the kernel's side.
    pub(crate) fn kernel(self) -> usize {
        match self {
            Scheme::TwoByTwo | Scheme::FourByFour | Scheme::FourByFourStrided => 3,
            Scheme::ThreeByThreeOfFour => 4,
        }
    }

    /// Pixels of the input from one output to the next.
    pub(crate) fn stride(self) -> usize {
        if self == Scheme::FourByFourStrided { 2 } else { 1 }
    }

    /// Whether weights may be transformed on the way.
    pub(crate) fn takes_plain_weights(self) -> bool {
        matches!(self, Scheme::TwoByTwo | Scheme::FourByFour)
    }

    /// Pixels that a tile's side sees, and points that are made of them.
    pub(crate) fn points(self) -> usize {
        (self.tile() - 1) * self.stride() + self.kernel()
    }

    /// Points of a side that have weights of their own.
    fn factors(self) -> usize {
        if self == Scheme::FourByFourStrided { OUTER_TAPS_POINTS + 1 } else { self.points() }
    }

    /// Matrix products of a tile.
    pub(crate) fn products(self) -> usize {
        self.factors() * self.factors()
    }

    /// The product that a point is a row of, and which row.
    #[inline(always)]
    fn product_of(self, (row, column): (usize, usize)) -> (usize, usize) {
        let last = self.factors() - 1;
        let (factors, beyond) =
            ((row.min(last), column.min(last)), (row.saturating_sub(last), column.saturating_sub(last)));
        (factors.0 * self.factors() + factors.1, beyond.0 * self.copies(factors.1) + beyond.1)
    }

    /// Points of a side that share the weights of `factor`.
    #[inline(always)]
    fn copies(self, factor: usize) -> usize {
        if factor + 1 == self.factors() { self.points() - factor } else { 1 }
    }

    /// Points that share the weights of a product, in the order of products.
    #[inline(always)]
    fn rows_of(self, product: usize) -> Range<usize> {
        let (row, column) = (product / self.factors(), product % self.factors());
        let copies = self.copies(row);
        let first = row * self.points() + column * copies;
        first..first + copies * self.copies(column)
    }

    /// Tiles that cover a map.
    pub(crate) fn tiles(self, output: Extent) -> usize {
        output.height.div_ceil(self.tile()) * output.width.div_ceil(self.tile())
    }
}

/// Where each point of the first tile lies.
type Places = [[usize; MAX_POINTS]; MAX_POINTS];

/// A convolution's tiles in the transformed domain, for tiles `tiles` of a batch (image by image, row by row).
#[derive(Clone)]
pub(crate) struct Tiles {
    pub(crate) scheme: Scheme,
    /// Of the map that goes in.
    pub(crate) input: Extent,
    /// Of the one that comes out.
    pub(crate) output: Extent,
    /// Zeros before the first row and column.
    pub(crate) padding: usize,
    pub(crate) tiles: Range<usize>,
}

impl Tiles {
    fn count(&self) -> usize {
        self.tiles.len()
    }

    /// Values of all tiles at a point in a channel block.
    fn row(&self) -> usize {
        self.count() * LANES
    }

    /// Where in transformed inputs of `blocks` channel blocks a product's begin; off a power of two from one to the next.
    fn inputs_of(&self, blocks: usize, product: usize) -> usize {
        self.scheme.rows_of(product).start * blocks * self.row() + product * LANES
    }

    /// Where in products of a channel block one begins.
    fn outputs_of(&self, product: usize) -> usize {
        self.scheme.rows_of(product).start * self.row() + product * LANES
    }

    /// Floats from one channel block to the next in products.
    fn output_stride(&self) -> usize {
        self.scheme.points().pow(2) * self.row() + self.scheme.products() * LANES
    }

    /// Where each point of a channel block goes in transformed inputs of `blocks`.
    fn input_places(&self, blocks: usize, block: usize) -> Places {
        self.places(|product, row| {
            let rows = self.scheme.rows_of(product).len();
            self.inputs_of(blocks, product) + (block * rows + row) * self.row()
        })
    }

    /// Where each point is found in products of a channel block.
    fn output_places(&self) -> Places {
        self.places(|product, row| self.outputs_of(product) + row * self.row())
    }

    fn places(&self, place: impl Fn(usize, usize) -> usize) -> Places {
        let points = self.scheme.points();
        let mut places = [[0; MAX_POINTS]; MAX_POINTS];
        for (i, places) in places[..points].iter_mut().enumerate() {
            for (j, to) in places[..points].iter_mut().enumerate() {
                let (product, row) = self.scheme.product_of((i, j));
                *to = place(product, row);
            }
        }
        places
    }

    /// Values that [`transform_inputs`] writes.
    pub(crate) fn transformed_inputs(&self, blocks: usize) -> usize {
        self.scheme.points().pow(2) * blocks * self.row() + self.scheme.products() * LANES
    }

    /// Weights that [`multiply_plain`] needs room for beside its output, for columns of `column_blocks`.
    pub(crate) fn transformed_weights(&self, column_blocks: usize) -> usize {
        self.scheme.products() * plain::point_stride(self.scheme, column_blocks)
    }

    /// Floats that [`multiply`] writes for `blocks` channel blocks of the output.
    pub(crate) fn transformed_outputs(&self, blocks: usize) -> usize {
        blocks * self.output_stride()
    }

    /// Image, first row and first column of the outputs of tile `index`.
    #[inline(always)]
    fn place(&self, index: usize) -> (usize, usize, usize) {
        let side = self.scheme.tile();
        let across = self.output.width.div_ceil(side);
        let each = across * self.output.height.div_ceil(side);
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
    /// (products, blocks, points of a product, tiles, 16), padded.
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
    /// (products, columns, input blocks of a column, length / depth, blocks of a column, 16, depth).
    pub(crate) weights: &'a [S],
    /// Channel blocks of the output that are computed together, 1 or 2: a column.
    pub(crate) column_blocks: usize,
    /// Columns of the output.
    pub(crate) columns: usize,
    /// Those that this call computes.
    pub(crate) range: Range<usize>,
    /// (blocks of the range, products, points of a product, tiles, 16), padded.
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
    /// (blocks of the range, products, points of a product, tiles, 16), padded.
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
            6 => inputs::<V, S, 6>(call),
            _ => inputs::<V, S, 9>(call),
        }
    }
}

#[inline(always)]
unsafe fn inputs<V: Lanes, S: Stored, const P: usize>(call: &TransformInputs<S>) {
    let Tiles { scheme, input: extent, padding, ref tiles, .. } = *call.tiles;
    let mut bordered = [S::default(); MAX_POINTS * MAX_POINTS * LANES];
    for block in call.range.clone() {
        let places = call.tiles.input_places(call.blocks, block);
        for (position, index) in tiles.clone().enumerate() {
            let (image, row, column) = call.tiles.place(index);
            let (row, column) = (row * scheme.stride(), column * scheme.stride());
            let plane = (image * call.blocks + block) * extent.pixels() * LANES;
            let inside = row >= padding
                && column >= padding
                && row - padding + P <= extent.height
                && column - padding + P <= extent.width;
            // SAFETY: the tile lies within the plane, or a copy of it in `bordered` does.
            unsafe {
                let plane = call.input.as_ptr().add(plane);
                let to = call.transformed.at(position * LANES);
                if inside {
                    let first = ((row - padding) * extent.width + column - padding) * LANES;
                    input_tile::<V, S, P>(plane.add(first), extent.width * LANES, to, &places);
                } else {
                    copy_bordered::<S, P>(plane, extent, (row, column), padding, &mut bordered);
                    input_tile::<V, S, P>(bordered.as_ptr(), P * LANES, to, &places);
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
unsafe fn input_tile<V: Lanes, S: Stored, const P: usize>(from: *const S, row: usize, to: *mut S, places: &Places) {
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
                S::store(line[j], to.add(places[i][j]));
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
        } else if P == 9 {
            let (inner, outer) = (STRIDED_INNER * STRIDED_INNER, STRIDED_OUTER * STRIDED_OUTER);
            let (even, odd) = (d[4].sub(d[0].mul(V::splat(outer))), d[6].sub(d[2].mul(V::splat(outer))));
            t[0] = even.mul_add(V::splat(STRIDED_INNER), odd);
            t[1] = even.mul_add(V::splat(-STRIDED_INNER), odd);
            let (even, odd) = (d[4].sub(d[0].mul(V::splat(inner))), d[6].sub(d[2].mul(V::splat(inner))));
            t[2] = even.mul_add(V::splat(STRIDED_OUTER), odd);
            t[3] = even.mul_add(V::splat(-STRIDED_OUTER), odd);
            t[4] = d[0].mul_add(V::splat(inner * outer), d[4].mul_add(V::splat(-(inner + outer)), d[8]));
            [t[5], t[6], t[7], t[8]] = [d[1], d[3], d[5], d[7]];
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
    let Tiles { scheme, .. } = *call.tiles;
    let blocks = blocks_of(call.channels.0);
    let output_stride = call.tiles.output_stride();
    let length = filled_up::<S>(call.channels.0.min(LANES));
    for index in 0..scheme.products() {
        let rows = scheme.rows_of(index).len() * call.tiles.count();
        for column in call.range.clone() {
            let block = (column - call.range.start) * call.column_blocks;
            let seen = input_blocks(call.channels, call.groups, column * call.column_blocks);
            let of_column = seen.len() * length * call.column_blocks * LANES;
            // SAFETY: passed on.
            unsafe {
                let input = call.tiles.inputs_of(blocks, index) + seen.start * rows * LANES;
                let output = call.products.at(block * output_stride + call.tiles.outputs_of(index));
                product::<V, S, f32>(&Product {
                    input: call.transformed.as_ptr().add(input),
                    rows,
                    segments: seen.len(),
                    segment_stride: rows * LANES,
                    length,
                    weights: call.weights.as_ptr().add((index * call.columns + column) * of_column),
                    output,
                    block_stride: output_stride,
                    sums: (output, output_stride),
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
            Scheme::FourByFourStrided => outputs::<V, S, 9, 4>(call),
        }
    }
}

#[inline(always)]
unsafe fn outputs<V: Lanes, S: Stored, const P: usize, const M: usize>(call: &TransformOutputs<S>) {
    let Tiles { output: extent, ref tiles, .. } = *call.tiles;
    let (stride, places) = (call.tiles.output_stride(), call.tiles.output_places());
    for block in call.range.clone() {
        for (position, index) in tiles.clone().enumerate() {
            let (image, row, column) = call.tiles.place(index);
            let first = ((image * call.blocks + block) * extent.pixels() + row * extent.width + column) * LANES;
            let local = (block - call.range.start) * stride + position * LANES;
            // SAFETY: the outputs that are written lie within the map.
            unsafe {
                let tile = OutputTile {
                    products: call.products.as_ptr().add(local),
                    places: &places,
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

struct OutputTile<'a, V, S> {
    products: *const f32,
    places: &'a Places,
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
                line[i] = V::load(tile.products.add(tile.places[i][j]));
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
        if P == 9 {
            return strided_output_line(m);
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

/// Aᵀ times a column of a strided tile.
#[inline(always)]
unsafe fn strided_output_line<V: Lanes, const P: usize, const M: usize>(m: [V; P]) -> [V; M] {
    // SAFETY: the caller's.
    unsafe {
        let (sum, difference) = (m[0].add(m[1]), m[0].sub(m[1]));
        let (outer_sum, outer_difference) = (m[2].add(m[3]), m[2].sub(m[3]));
        let powers = [1, 2, 3].map(|power| (V::splat(STRIDED_INNER.powi(power)), V::splat(STRIDED_OUTER.powi(power))));
        let mut y = [V::splat(0.0); M];
        y[0] = m[5].add(sum).add(outer_sum);
        y[1] = outer_difference.mul_add(powers[0].1, difference.mul_add(powers[0].0, m[6]));
        y[2] = outer_sum.mul_add(powers[1].1, sum.mul_add(powers[1].0, m[7]));
        y[3] = outer_difference.mul_add(powers[2].1, difference.mul_add(powers[2].0, m[4].add(m[8])));
        y
    }
}
