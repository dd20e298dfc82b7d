//! Where a convolution's tiles lie in its maps, and in the transformed domain.

use std::ops::Range;

use super::super::lanes::LANES;
use super::super::map::Extent;
use super::side::Side;
use super::{MAX_FACTORS, MAX_POINTS, Scheme, plain};

/// Tiles that are computed at once, at most.
pub(crate) const MAX_TILES: usize = 56;

/// A number for each point of a tile.
pub(super) type Places = [[usize; MAX_POINTS]; MAX_POINTS];

/// A convolution's tiles in the transformed domain, for some tiles of a batch (image by image, row by row).
///
/// At each point the tiles that have it are rows one after another: whole ones, those cut below, those cut on the right, those cut on both.
#[derive(Clone)]
pub(crate) struct Tiles {
    pub(super) scheme: Scheme,
    /// Of the map that goes in.
    pub(super) input: Extent,
    /// Of the one that comes out.
    pub(super) output: Extent,
    /// Zeros before the first row and column.
    pub(super) padding: usize,
    /// Height and width of a tile: \[within the map, at its edge].
    sides: [[&'static Side; 2]; 2],
    count: usize,
    placed: [Placed; MAX_TILES],
    /// Tiles: \[cut below]\[cut on the right].
    counts: [[usize; 2]; 2],
    /// Rows of the matrix products before each.
    firsts: [usize; MAX_FACTORS * MAX_FACTORS + 1],
    /// Where in its product a point's rows begin.
    within: Places,
}

/// A tile's place.
#[derive(Clone, Copy, Default)]
pub(super) struct Placed {
    pub(super) image: usize,
    /// First row and column of its outputs.
    pub(super) row: usize,
    pub(super) column: usize,
    /// Whether its height and its width are cut.
    pub(super) cut: [bool; 2],
    /// Its row at points that tiles cut below have too, and at those that they lack.
    pub(super) rows: [usize; 2],
}

impl Tiles {
    /// # Panics
    /// If there are more than [`MAX_TILES`].
    pub(crate) fn new(scheme: Scheme, input: Extent, output: Extent, padding: usize, tiles: Range<usize>) -> Tiles {
        let side = |size: usize| {
            let rest = size % scheme.tile();
            [scheme.side(scheme.tile()), scheme.side(if rest > 0 { rest } else { scheme.tile() })]
        };
        let mut new = Tiles {
            scheme,
            input,
            output,
            padding,
            sides: [side(output.height), side(output.width)],
            count: tiles.len(),
            placed: [Placed::default(); MAX_TILES],
            counts: [[0; 2]; 2],
            firsts: [0; MAX_FACTORS * MAX_FACTORS + 1],
            within: [[0; MAX_POINTS]; MAX_POINTS],
        };
        for (placed, index) in new.placed[..tiles.len()].iter_mut().zip(tiles) {
            *placed = placed_at(scheme.tile(), output, index);
            new.counts[usize::from(placed.cut[0])][usize::from(placed.cut[1])] += 1;
        }
        new.give_rows();
        new.lay_out();
        new
    }

    /// Gives each tile its rows among the others.
    fn give_rows(&mut self) {
        let [[whole, right], [below, _]] = self.counts;
        let mut next = [[[0; 2], [whole + below, whole]], [[whole; 2], [whole + below + right; 2]]];
        for placed in &mut self.placed[..self.count] {
            let next = &mut next[usize::from(placed.cut[0])][usize::from(placed.cut[1])];
            placed.rows = *next;
            *next = next.map(|row| row + 1);
        }
    }

    /// Gives each point of each product its rows.
    fn lay_out(&mut self) {
        let factors = self.scheme.factors();
        let mut rows = 0;
        for product in 0..factors * factors {
            self.firsts[product] = rows;
            for i in self.scheme.points_of(product / factors) {
                for j in self.scheme.points_of(product % factors) {
                    self.within[i][j] = rows - self.firsts[product];
                    rows += self.tiles_at(i, j);
                }
            }
        }
        self.firsts[factors * factors] = rows;
    }

    /// Tiles that have a point.
    fn tiles_at(&self, i: usize, j: usize) -> usize {
        let [[whole, right], [below, both]] = self.counts;
        let (has_below, has_right) = (self.sides[0][1].has(i), self.sides[1][1].has(j));
        let tiles = |count: usize, has: bool| if has { count } else { 0 };
        whole + tiles(below, has_below) + tiles(right, has_right) + tiles(both, has_below && has_right)
    }

    /// All of them, in order.
    #[inline(always)]
    pub(super) fn placed(&self) -> &[Placed] {
        &self.placed[..self.count]
    }

    /// The height and the width of a tile.
    #[inline(always)]
    pub(super) fn sides_of(&self, tile: &Placed) -> [&'static Side; 2] {
        [self.sides[0][usize::from(tile.cut[0])], self.sides[1][usize::from(tile.cut[1])]]
    }

    /// The row of a tile at points of row `i`.
    #[inline(always)]
    pub(super) fn row_at(&self, tile: &Placed, i: usize) -> usize {
        tile.rows[usize::from(!self.sides[0][1].has(i))]
    }

    /// Rows of a product.
    #[inline(always)]
    pub(super) fn rows_of(&self, product: usize) -> usize {
        self.firsts[product + 1] - self.firsts[product]
    }

    /// Rows of all products.
    fn rows(&self) -> usize {
        self.firsts[self.scheme.products()]
    }

    /// Where in transformed inputs of `blocks` channel blocks a product's begin; off a power of two from one to the next.
    #[inline(always)]
    pub(super) fn inputs_of(&self, blocks: usize, product: usize) -> usize {
        (self.firsts[product] * blocks + product) * LANES
    }

    /// Where in products of a channel block one begins.
    #[inline(always)]
    pub(super) fn outputs_of(&self, product: usize) -> usize {
        (self.firsts[product] + product) * LANES
    }

    /// Floats from one channel block to the next in products.
    pub(super) fn output_stride(&self) -> usize {
        (self.rows() + self.scheme.products()) * LANES
    }

    /// Where each point of a channel block goes in transformed inputs of `blocks`.
    pub(super) fn input_places(&self, blocks: usize, block: usize) -> Places {
        self.places(|product| self.inputs_of(blocks, product) + block * self.rows_of(product) * LANES)
    }

    /// Where each point is found in products of a channel block.
    pub(super) fn output_places(&self) -> Places {
        self.places(|product| self.outputs_of(product))
    }

    fn places(&self, place: impl Fn(usize) -> usize) -> Places {
        let factors = self.scheme.factors();
        let mut places = self.within;
        for product in 0..factors * factors {
            let first = place(product);
            for i in self.scheme.points_of(product / factors) {
                for j in self.scheme.points_of(product % factors) {
                    places[i][j] = first + self.within[i][j] * LANES;
                }
            }
        }
        places
    }

    /// Values that [`transform_inputs`](super::transform_inputs) writes.
    pub(crate) fn transformed_inputs(&self, blocks: usize) -> usize {
        (self.rows() * blocks + self.scheme.products()) * LANES
    }

    /// Weights that [`multiply_plain`](super::multiply_plain) needs room for beside its output, for columns of `column_blocks`.
    pub(crate) fn transformed_weights(&self, column_blocks: usize) -> usize {
        self.scheme.products() * plain::point_stride(self.scheme, column_blocks)
    }

    /// Floats that [`multiply`](super::multiply) writes for `blocks` channel blocks of the output.
    pub(crate) fn transformed_outputs(&self, blocks: usize) -> usize {
        blocks * self.output_stride()
    }
}

/// A tile of a batch, but for its rows.
fn placed_at(side: usize, output: Extent, index: usize) -> Placed {
    let across = output.width.div_ceil(side);
    let each = across * output.height.div_ceil(side);
    let (image, within) = (index / each, index % each);
    let (row, column) = (within / across * side, within % across * side);
    let cut = [row + side > output.height, column + side > output.width];
    Placed { image, row, column, cut, rows: [0; 2] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_at_the_edge_are_multiplied_at_the_points_that_their_outputs_take() {
        for (scheme, (height, width), expected) in [
            (Scheme::TwoByTwo, (8, 8), 16 * 16),
            (Scheme::TwoByTwo, (7, 8), (3 * 4 + 3) * 16),
            (Scheme::FourByFour, (14, 14), (3 * 6 + 4) * (3 * 6 + 4)),
            (Scheme::FourByFour, (7, 9), (6 + 5) * (2 * 6 + 3)),
            (Scheme::FourByFour, (1, 1), 3 * 3),
            (Scheme::ThreeByThreeOfFour, (112, 8), (37 * 6 + 4) * (2 * 6 + 5)),
            (Scheme::TwoByTwoStrided, (7, 7), (3 * 5 + 3) * (3 * 5 + 3)),
            (Scheme::FourByFourStrided, (14, 7), (3 * 9 + 5) * (9 + 7)),
        ] {
            let output = Extent { height, width };
            let tiles = scheme.tiles(output);
            let rows = (0..tiles)
                .step_by(MAX_TILES)
                .map(|first| Tiles::new(scheme, output, output, 1, first..tiles.min(first + MAX_TILES)).rows());
            assert_eq!(rows.sum::<usize>(), expected, "{scheme:?} {output:?}");
        }
    }
}
