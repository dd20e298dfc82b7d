//! Convolutions with fewer multiplications: Winograd's F(m×m, r×r), after Lavin & Gray 2015 (1509.09308).
//!
//! A tile of `m + r - 1` points a side is transformed, multiplied by transformed weights (one matrix product per point,
//! over all tiles), and transformed back into m×m outputs. The points are ±5/8, ±3/2, 0, ∞ for six of them and 0, ±1, ∞ for four.
//!
//! Of a kernel of three taps and stride 2, the outer taps see one pixel in two and the middle tap the others: along a side it is the sum of
//! an F(4, 2), at ±1/2, ±5/4, ∞, or an F(2, 2), at ±1, ∞, and of products with the middle tap. Points that have the middle tap in common are rows of
//! one matrix product.
//!
//! Tiles that reach beyond the map are [cut](side) at its edge, to as many outputs and points as they need.

mod lines;
mod matrices;
mod plain;
mod side;
mod tiles;

use std::ops::Range;

use lines::{input_line, output_line, side_input_line, side_output_line};
pub(super) use plain::{multiply_plain, transform_weights};
pub(crate) use tiles::{MAX_TILES, Tiles};
use tiles::{Placed, Places};

use super::convolution::input_blocks;
use super::lanes::{LANES, Lanes};
use super::map::{Extent, Writable, blocks_of};
use super::product::{Finish, Product, is_heavy, product};
use super::stored::{Stored, filled_up};

/// Points of a tile's side, at most.
const MAX_POINTS: usize = 9;
/// Outputs of a tile's side, at most.
const MAX_OUTPUTS: usize = 4;
/// Points of a side that have weights of their own, at most.
pub(super) const MAX_FACTORS: usize = 6;

/// A tile's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// F(2×2, 3×3): 16 multiplications in the place of 36.
    TwoByTwo,
    /// F(4×4, 3×3): 36 in the place of 144.
    FourByFour,
    /// F(3×3, 4×4): 36 in the place of 144.
    ThreeByThreeOfFour,
    /// 2×2 outputs of a 3×3 kernel of stride 2: 25 in the place of 36.
    TwoByTwoStrided,
    /// 4×4 outputs of a 3×3 kernel of stride 2: 81 in the place of 144.
    FourByFourStrided,
}

impl Scheme {
    /// m: outputs of a tile's side.
    pub(crate) const fn tile(self) -> usize {
        match self {
            Scheme::TwoByTwo | Scheme::TwoByTwoStrided => 2,
            Scheme::FourByFour | Scheme::FourByFourStrided => 4,
            Scheme::ThreeByThreeOfFour => 3,
        }
    }

    /// The one of so many points and outputs of a side.
    const fn of(points: usize, tile: usize) -> Scheme {
        match (points, tile) {
            (4, _) => Scheme::TwoByTwo,
            (5, _) => Scheme::TwoByTwoStrided,
            (6, 3) => Scheme::ThreeByThreeOfFour,
            (6, _) => Scheme::FourByFour,
            _ => Scheme::FourByFourStrided,
        }
    }

    /// r: taps of the kernel's side.
    pub(crate) const fn kernel(self) -> usize {
        match self {
            Scheme::ThreeByThreeOfFour => 4,
            _ => 3,
        }
    }

    /// Pixels of the input from one output to the next.
    pub(crate) const fn stride(self) -> usize {
        if matches!(self, Scheme::TwoByTwoStrided | Scheme::FourByFourStrided) { 2 } else { 1 }
    }

    /// Whether weights may be transformed on the way.
    pub(crate) fn takes_plain_weights(self) -> bool {
        matches!(self, Scheme::TwoByTwo | Scheme::FourByFour)
    }

    /// Taps of the kernel's side that finite points and ∞ are for.
    const fn outer_taps(self) -> usize {
        self.kernel() - self.middle_taps()
    }

    /// Taps between those, whose products are as they are.
    const fn middle_taps(self) -> usize {
        self.stride() - 1
    }

    /// Pixels that a side of so many outputs sees.
    const fn pixels(self, outputs: usize) -> usize {
        (outputs - 1) * self.stride() + self.kernel()
    }

    /// Pixels that a tile's side sees, and points that are made of them: finite ones, ∞, and one for each output and middle tap.
    pub(crate) fn points(self) -> usize {
        self.pixels(self.tile())
    }

    /// Points of a side that have weights of their own.
    fn factors(self) -> usize {
        self.finite_points().len() + 1 + self.middle_taps()
    }

    /// Points of a side that share the weights of `factor`.
    #[inline(always)]
    fn points_of(self, factor: usize) -> Range<usize> {
        factor..if factor + 1 == self.factors() { self.points() } else { factor + 1 }
    }

    /// Matrix products of a tile.
    pub(crate) fn products(self) -> usize {
        self.factors() * self.factors()
    }

    /// Tiles that cover a map.
    pub(crate) fn tiles(self, output: Extent) -> usize {
        output.height.div_ceil(self.tile()) * output.width.div_ceil(self.tile())
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
    /// (products, blocks, rows of the product, 16), padded; its rows are the tiles at each of its points that have it.
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
    /// (blocks of the range, products, rows of the product, 16), padded.
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
    /// (blocks of the range, products, rows of the product, 16), padded.
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
        match call.tiles.scheme {
            Scheme::TwoByTwo => inputs::<V, S, 4, 2>(call),
            Scheme::TwoByTwoStrided => inputs::<V, S, 5, 2>(call),
            Scheme::FourByFour => inputs::<V, S, 6, 4>(call),
            Scheme::ThreeByThreeOfFour => inputs::<V, S, 6, 3>(call),
            Scheme::FourByFourStrided => inputs::<V, S, 9, 4>(call),
        }
    }
}

#[inline(always)]
unsafe fn inputs<V: Lanes, S: Stored, const P: usize, const M: usize>(call: &TransformInputs<S>) {
    let Tiles { scheme, input: extent, padding, .. } = *call.tiles;
    let mut bordered = [S::default(); MAX_POINTS * MAX_POINTS * LANES];
    for block in call.range.clone() {
        let places = call.tiles.input_places(call.blocks, block);
        for tile in call.tiles.placed() {
            let (row, column) = (tile.row * scheme.stride(), tile.column * scheme.stride());
            let plane = (tile.image * call.blocks + block) * extent.pixels() * LANES;
            let inside = row >= padding
                && column >= padding
                && row - padding + P <= extent.height
                && column - padding + P <= extent.width;
            // SAFETY: the tile lies within the plane, or a copy of it in `bordered` does; `transformed` has a row for every point of a tile.
            unsafe {
                let plane = call.input.as_ptr().add(plane);
                let to = call.transformed.at(0);
                let (from, stride) = if inside {
                    let first = ((row - padding) * extent.width + column - padding) * LANES;
                    (plane.add(first), extent.width * LANES)
                } else {
                    copy_bordered::<S, P>(plane, extent, (row, column), padding, &mut bordered);
                    (bordered.as_ptr(), P * LANES)
                };
                if tile.cut == [false; 2] {
                    input_tile::<V, S, P, M>(from, stride, to.add(tile.rows[0] * LANES), &places);
                } else {
                    cut_input_tile::<V, S, P, M>(call.tiles, tile, from, stride, to, &places);
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
unsafe fn input_tile<V: Lanes, S: Stored, const P: usize, const M: usize>(
    from: *const S,
    row: usize,
    to: *mut S,
    places: &Places,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut half = [[V::splat(0.0); P]; P];
        for j in 0..P {
            let mut line = [V::splat(0.0); P];
            for i in 0..P {
                line[i] = S::load(from.add(i * row + j * LANES));
            }
            let line = input_line::<V, P, M>(line);
            for i in 0..P {
                half[i][j] = line[i];
            }
        }
        for i in 0..P {
            let line = input_line::<V, P, M>(half[i]);
            for j in 0..P {
                S::store(line[j], to.add(places[i][j]));
            }
        }
    }
}

/// Bᵀ d B of a tile that is cut.
#[inline(always)]
unsafe fn cut_input_tile<V: Lanes, S: Stored, const P: usize, const M: usize>(
    tiles: &Tiles,
    tile: &Placed,
    from: *const S,
    row: usize,
    to: *mut S,
    places: &Places,
) {
    let [height, width] = tiles.sides_of(tile);
    // SAFETY: the caller's.
    unsafe {
        let mut half = [[V::splat(0.0); P]; P];
        for j in 0..width.pixels {
            let mut line = [V::splat(0.0); P];
            for i in 0..height.pixels {
                line[i] = S::load(from.add(i * row + j * LANES));
            }
            let line = side_input_line::<V, P, M>(height.outputs, line);
            for i in 0..P {
                half[i][j] = line[i];
            }
        }
        for &i in height.points() {
            let to = to.add(tiles.row_at(tile, i) * LANES);
            let line = side_input_line::<V, P, M>(width.outputs, half[i]);
            for &j in width.points() {
                S::store(line[j], to.add(places[i][j]));
            }
        }
    }
}

/// # Safety
/// As [`transform_inputs`].
#[inline(always)]
pub(super) unsafe fn multiply<V: Lanes, S: Stored>(call: &Multiply<S>) {
    let blocks = blocks_of(call.channels.0);
    let output_stride = call.tiles.output_stride();
    let length = filled_up::<S>(call.channels.0.min(LANES));
    for index in 0..call.tiles.scheme.products() {
        let rows = call.tiles.rows_of(index);
        if rows == 0 {
            continue; // Every tile is cut, and lacks the point.
        }
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
            Scheme::TwoByTwoStrided => outputs::<V, S, 5, 2>(call),
            Scheme::FourByFour => outputs::<V, S, 6, 4>(call),
            Scheme::ThreeByThreeOfFour => outputs::<V, S, 6, 3>(call),
            Scheme::FourByFourStrided => outputs::<V, S, 9, 4>(call),
        }
    }
}

#[inline(always)]
unsafe fn outputs<V: Lanes, S: Stored, const P: usize, const M: usize>(call: &TransformOutputs<S>) {
    let extent = call.tiles.output;
    let (stride, places) = (call.tiles.output_stride(), call.tiles.output_places());
    for block in call.range.clone() {
        for tile in call.tiles.placed() {
            let plane = (tile.image * call.blocks + block) * extent.pixels();
            let first = (plane + tile.row * extent.width + tile.column) * LANES;
            // SAFETY: the outputs that are written lie within the map.
            unsafe {
                let output = OutputTile {
                    products: call.products.as_ptr().add((block - call.range.start) * stride),
                    places: &places,
                    bias: V::load(call.bias.as_ptr().add(block * LANES)),
                    residual: call.residual.map_or(std::ptr::null(), |residual| residual.as_ptr().add(first)),
                    relu: call.relu,
                    to: call.output.at(first),
                    row: extent.width * LANES,
                };
                if tile.cut == [false; 2] {
                    output_tile::<V, S, P, M>(&output, tile.rows[0]);
                } else {
                    cut_output_tile::<V, S, P, M>(&output, call.tiles, tile);
                }
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
}

/// Aᵀ m A, and what is left of the layer.
#[inline(always)]
unsafe fn output_tile<V: Lanes, S: Stored, const P: usize, const M: usize>(tile: &OutputTile<V, S>, row: usize) {
    // SAFETY: the caller's.
    unsafe {
        let products = tile.products.add(row * LANES);
        let mut half = [[V::splat(0.0); P]; M];
        for j in 0..P {
            let mut line = [V::splat(0.0); P];
            for i in 0..P {
                line[i] = V::load(products.add(tile.places[i][j]));
            }
            let line = output_line::<V, P, M>(line);
            for i in 0..M {
                half[i][j] = line[i];
            }
        }
        for i in 0..M {
            let line = output_line::<V, P, M>(half[i]);
            for j in 0..M {
                finish_output(tile, line[j], i * tile.row + j * LANES);
            }
        }
    }
}

/// Aᵀ m A of a tile that is cut, and what is left of the layer.
#[inline(always)]
unsafe fn cut_output_tile<V: Lanes, S: Stored, const P: usize, const M: usize>(
    output: &OutputTile<V, S>,
    tiles: &Tiles,
    tile: &Placed,
) {
    let [height, width] = tiles.sides_of(tile);
    // SAFETY: the caller's.
    unsafe {
        let mut half = [[V::splat(0.0); P]; M];
        for &j in width.points() {
            let mut line = [V::splat(0.0); P];
            for &i in height.points() {
                let row = tiles.row_at(tile, i) * LANES;
                line[i] = V::load(output.products.add(row + output.places[i][j]));
            }
            let line = side_output_line::<V, P, M>(height.outputs, line);
            for i in 0..M {
                half[i][j] = line[i];
            }
        }
        for i in 0..height.outputs {
            let line = side_output_line::<V, P, M>(width.outputs, half[i]);
            for j in 0..width.outputs {
                finish_output(output, line[j], i * output.row + j * LANES);
            }
        }
    }
}

/// Bias, residual and ReLU for an output.
#[inline(always)]
unsafe fn finish_output<V: Lanes, S: Stored>(tile: &OutputTile<V, S>, sum: V, offset: usize) {
    // SAFETY: the caller's.
    unsafe {
        let mut value = sum.add(tile.bias);
        if !tile.residual.is_null() {
            value = value.add(S::load(tile.residual.add(offset)));
        }
        if tile.relu {
            value = V::splat(0.0).max(value);
        }
        S::store(value, tile.to.add(offset));
    }
}
