//! The side of a tile, which may be cut at the map's edge.
//!
//! Fewer outputs take fewer points. Those of a whole tile that come first, and ∞, do: for a part of the points weights are the same up to a
//! factor of each, which the input's transform takes over. So cut tiles are rows of the same matrix products as whole ones, and are left out of
//! those whose points they lack.

use super::{MAX_OUTPUTS, MAX_POINTS, Scheme};

/// A side of so many outputs, at most its scheme's.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub(super) outputs: usize,
    /// Pixels of the input that it sees.
    pub(super) pixels: usize,
    /// The points of a whole tile that it has: the first `count`.
    points: [usize; MAX_POINTS],
    pub(super) count: usize,
    /// Bᵀ: (points, pixels).
    pub(super) input: [[f32; MAX_POINTS]; MAX_POINTS],
    /// Aᵀ: (outputs, points).
    pub(super) output: [[f32; MAX_POINTS]; MAX_OUTPUTS],
}

/// Sides of one, two, … outputs of a scheme; all beyond are whole.
const fn sides(scheme: Scheme) -> [Side; MAX_OUTPUTS] {
    let mut sides = [Side::new(scheme, scheme.tile()); MAX_OUTPUTS];
    let mut outputs = 1;
    while outputs < scheme.tile() {
        sides[outputs - 1] = Side::new(scheme, outputs);
        outputs += 1;
    }
    sides
}

static TWO_BY_TWO: [Side; MAX_OUTPUTS] = sides(Scheme::TwoByTwo);
static FOUR_BY_FOUR: [Side; MAX_OUTPUTS] = sides(Scheme::FourByFour);
static THREE_BY_THREE_OF_FOUR: [Side; MAX_OUTPUTS] = sides(Scheme::ThreeByThreeOfFour);
static TWO_BY_TWO_STRIDED: [Side; MAX_OUTPUTS] = sides(Scheme::TwoByTwoStrided);
static FOUR_BY_FOUR_STRIDED: [Side; MAX_OUTPUTS] = sides(Scheme::FourByFourStrided);

impl Scheme {
    /// A tile's side of so many outputs.
    pub(super) fn side(self, outputs: usize) -> &'static Side {
        let sides = match self {
            Scheme::TwoByTwo => &TWO_BY_TWO,
            Scheme::FourByFour => &FOUR_BY_FOUR,
            Scheme::ThreeByThreeOfFour => &THREE_BY_THREE_OF_FOUR,
            Scheme::TwoByTwoStrided => &TWO_BY_TWO_STRIDED,
            Scheme::FourByFourStrided => &FOUR_BY_FOUR_STRIDED,
        };
        &sides[outputs - 1]
    }
}

impl Side {
    pub(super) const fn new(scheme: Scheme, outputs: usize) -> Side {
        let finite = scheme.finite_points();
        let (kept, dropped) = finite.split_at(outputs + scheme.outer_taps() - 2);
        let mut side = Side {
            outputs,
            pixels: scheme.pixels(outputs),
            points: [0; MAX_POINTS],
            count: 0,
            input: [[0.0; MAX_POINTS]; MAX_POINTS],
            output: [[0.0; MAX_POINTS]; MAX_OUTPUTS],
        };
        let mut index = 0;
        while index < kept.len() {
            let pixels = polynomial(kept, Some(index));
            side.push(index, scheme.stride(), &pixels, distances(kept[index], dropped));
            let mut power = 1.0;
            let mut output = 0;
            while output < outputs {
                side.output[output][index] = power as f32;
                power *= kept[index];
                output += 1;
            }
            index += 1;
        }
        side.output[outputs - 1][side.count] = 1.0;
        side.push(finite.len(), scheme.stride(), &polynomial(kept, None), 1.0);
        let mut middle = 0;
        while middle < scheme.middle_taps() * outputs {
            side.output[middle][side.count] = 1.0;
            side.input[side.count][2 * middle + 1] = 1.0;
            side.points[side.count] = finite.len() + 1 + middle;
            side.count += 1;
            middle += 1;
        }
        side
    }

    /// Adds a point, made of pixels that lie `step` apart.
    const fn push(&mut self, point: usize, step: usize, pixels: &[f64; MAX_POINTS], scale: f64) {
        let mut index = 0;
        while index * step < MAX_POINTS {
            self.input[self.count][index * step] = (pixels[index] * scale) as f32;
            index += 1;
        }
        self.points[self.count] = point;
        self.count += 1;
    }

    /// Points of a whole tile that it has, in the order of the matrices.
    #[inline(always)]
    pub(super) const fn points(&self) -> &[usize] {
        self.points.split_at(self.count).0
    }

    /// Whether it has a point of a whole tile.
    pub(super) fn has(&self, point: usize) -> bool {
        self.points().contains(&point)
    }
}

/// Coefficients, the constant one first, of the product of `x - root` over all roots but one.
const fn polynomial(roots: &[f64], left_out: Option<usize>) -> [f64; MAX_POINTS] {
    let mut coefficients = [0.0; MAX_POINTS];
    coefficients[0] = 1.0;
    let mut index = 0;
    while index < roots.len() {
        if !matches!(left_out, Some(out) if out == index) {
            let mut power = MAX_POINTS - 1;
            while power > 0 {
                coefficients[power] = coefficients[power - 1] - roots[index] * coefficients[power];
                power -= 1;
            }
            coefficients[0] *= -roots[index];
        }
        index += 1;
    }
    coefficients
}

/// The product of a point's distances to others.
const fn distances(point: f64, others: &[f64]) -> f64 {
    let mut product = 1.0;
    let mut index = 0;
    while index < others.len() {
        product *= point - others[index];
        index += 1;
    }
    product
}
