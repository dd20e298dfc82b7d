//! G g Gᵀ: weights in the transformed domain, in f64.

use super::{MAX_FACTORS, Scheme};

/// The inner and outer pair of six points: ±5/8, ±3/2, 0, ∞. Of points whose products are exact they lose the least: in f32 less than half
/// of what 0, ±1, ±2, ∞ do, whose powers and distances lie further apart.
pub(super) const INNER: f32 = 0.625;
pub(super) const OUTER: f32 = 1.5;

/// The inner and outer pair for the outer taps of a strided kernel, whose fifth point is ∞: of simple ones they lose the least.
pub(super) const STRIDED_INNER: f32 = 0.5;
pub(super) const STRIDED_OUTER: f32 = 1.25;

const FOUR: [f64; 3] = [0.0, 1.0, -1.0];
const SMALL_STRIDED: [f64; 2] = [1.0, -1.0];
/// 0 comes last: of parts of these points those without it lose less.
const SIX: [f64; 5] = [INNER as f64, -INNER as f64, OUTER as f64, -OUTER as f64, 0.0];
const STRIDED: [f64; 4] = [STRIDED_INNER as f64, -STRIDED_INNER as f64, STRIDED_OUTER as f64, -STRIDED_OUTER as f64];

/// Taps of a kernel's side, at most.
const MAX_TAPS: usize = 4;

/// G, a row for each point: powers of the point, over the product of its distances to the others; for ∞ the last tap alone.
pub(in super::super) struct Matrix {
    rows: [[f64; MAX_TAPS]; MAX_FACTORS],
    factors: usize,
    taps: usize,
}

impl Scheme {
    /// The points of a tile's side but for ∞; a side that is cut has the first of them.
    pub(super) const fn finite_points(self) -> &'static [f64] {
        match self {
            Scheme::TwoByTwo => &FOUR,
            Scheme::TwoByTwoStrided => &SMALL_STRIDED,
            Scheme::FourByFour | Scheme::ThreeByThreeOfFour => &SIX,
            Scheme::FourByFourStrided => &STRIDED,
        }
    }

    /// G.
    pub(in super::super) fn matrix(self) -> Matrix {
        let (factors, taps) = (self.factors(), self.kernel());
        let mut rows = [[0.0; MAX_TAPS]; MAX_FACTORS];
        if self.middle_taps() > 0 {
            at_points(self.finite_points(), &[0, 2], &mut rows);
            rows[factors - 1][1] = 1.0;
        } else {
            at_points(self.finite_points(), &[0, 1, 2, 3][..taps], &mut rows);
        }
        Matrix { rows, factors, taps }
    }
}

/// Rows for finite points, and behind them the one for ∞, of a kernel that consists of some taps.
fn at_points(finite: &[f64], taps: &[usize], rows: &mut [[f64; MAX_TAPS]; MAX_FACTORS]) {
    for (i, &point) in finite.iter().enumerate() {
        let others = finite.iter().enumerate().filter(|&(j, _)| j != i);
        let scale: f64 = others.map(|(_, other)| point - other).product();
        for (power, &tap) in taps.iter().enumerate() {
            rows[i][tap] = point.powi(power as i32) / scale;
        }
    }
    rows[finite.len()][taps[taps.len() - 1]] = 1.0;
}

impl Matrix {
    /// One kernel (r, r), times `scale` → its values at every point that has its own, (factors, factors).
    pub(in super::super) fn transform(&self, kernel: &[f32], scale: f64, to: &mut [f64]) {
        let &Matrix { ref rows, factors, taps } = self;
        let mut half = [[0.0; MAX_TAPS]; MAX_FACTORS];
        for i in 0..factors {
            for x in 0..taps {
                half[i][x] = (0..taps).map(|y| rows[i][y] * scale * f64::from(kernel[y * taps + x])).sum();
            }
        }
        for i in 0..factors {
            for j in 0..factors {
                to[i * factors + j] = (0..taps).map(|x| half[i][x] * rows[j][x]).sum();
            }
        }
    }
}
