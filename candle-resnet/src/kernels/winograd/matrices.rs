//! G g Gᵀ: weights in the transformed domain, in f64.

use super::{MAX_POINTS, Scheme};

/// The inner and outer pair of six points: 0, ±5/8, ±3/2, ∞. Of points whose products are exact they lose the least: in f32 less than half
/// of what 0, ±1, ±2, ∞ do, whose powers and distances lie further apart.
pub(super) const INNER: f32 = 0.625;
pub(super) const OUTER: f32 = 1.5;

/// Taps of a kernel's side, at most.
const MAX_TAPS: usize = 4;

/// G, a row for each point: powers of the point, over the product of its distances to the others; for ∞ the last tap alone.
pub(in super::super) struct Matrix {
    rows: [[f64; MAX_TAPS]; MAX_POINTS],
    points: usize,
    taps: usize,
}

impl Scheme {
    /// G.
    pub(in super::super) fn matrix(self) -> Matrix {
        let (points, taps) = (self.points(), self.kernel());
        let (inner, outer) = (f64::from(INNER), f64::from(OUTER));
        let finite: &[f64] = if points == 4 { &[0.0, 1.0, -1.0] } else { &[0.0, inner, -inner, outer, -outer] };
        let mut rows = [[0.0; MAX_TAPS]; MAX_POINTS];
        for (i, &point) in finite.iter().enumerate() {
            let others = finite.iter().enumerate().filter(|&(j, _)| j != i);
            let scale: f64 = others.map(|(_, other)| point - other).product();
            for (power, value) in rows[i][..taps].iter_mut().enumerate() {
                *value = point.powi(power as i32) / scale;
            }
        }
        rows[points - 1][taps - 1] = 1.0;
        if points == 4 {
            rows[0][0] = 1.0; // The sign stands in the input's transform, as is customary.
        }
        Matrix { rows, points, taps }
    }
}

impl Matrix {
    /// One kernel (r, r), times `scale` → its values at every point, (points, points).
    pub(in super::super) fn transform(&self, kernel: &[f32], scale: f64, to: &mut [f64]) {
        let &Matrix { ref rows, points, taps } = self;
        let mut half = [[0.0; MAX_TAPS]; MAX_POINTS];
        for i in 0..points {
            for x in 0..taps {
                half[i][x] = (0..taps).map(|y| rows[i][y] * scale * f64::from(kernel[y * taps + x])).sum();
            }
        }
        for i in 0..points {
            for j in 0..points {
                to[i * points + j] = (0..taps).map(|x| half[i][x] * rows[j][x]).sum();
            }
        }
    }
}
