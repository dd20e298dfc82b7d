//! Pools over maps, sixteen channels at a time.

use std::ops::Range;

use super::lanes::{LANES, Lanes};
use super::map::{Extent, Writable};
use super::stored::Stored;

/// What a window becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Window {
    /// The largest of 3×3 pixels around the centre; pixels beyond the map are left out.
    Max,
    /// The mean of 2×2 pixels, the centre first.
    Mean {
        /// Whether pixels beyond the map count, as zeros.
        zeros: bool,
    },
    /// 3×3 pixels around the centre, weighted (1, 2, 1) / 4 in both directions; the map is reflected at its edges.
    Blur,
}

/// A pool of some planes: channel blocks of images.
pub(crate) struct PoolPlanes<'a, S> {
    pub(crate) window: Window,
    pub(crate) stride: usize,
    pub(crate) input: Extent,
    pub(crate) output: Extent,
    /// (planes, pixels, 16).
    pub(crate) from: &'a [S],
    /// Planes that this call computes.
    pub(crate) planes: Range<usize>,
    /// (planes, pixels, 16).
    pub(crate) to: Writable<'a, S>,
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say; nobody else writes the same planes.
#[inline(always)]
pub(super) unsafe fn pool<V: Lanes, S: Stored>(call: &PoolPlanes<S>) {
    for plane in call.planes.clone() {
        // SAFETY: the plane is within both buffers.
        unsafe {
            let from = call.from.as_ptr().add(plane * call.input.pixels() * LANES);
            let to = call.to.at(plane * call.output.pixels() * LANES);
            for row in 0..call.output.height {
                for column in 0..call.output.width {
                    let centre = (row * call.stride, column * call.stride);
                    let value = match call.window {
                        Window::Max => largest::<V, S>(from, call.input, centre),
                        Window::Mean { zeros } => mean::<V, S>(from, call.input, centre, zeros),
                        Window::Blur => blurred::<V, S>(from, call.input, centre),
                    };
                    S::store(value, to.add((row * call.output.width + column) * LANES));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn largest<V: Lanes, S: Stored>(from: *const S, extent: Extent, (y, x): (usize, usize)) -> V {
    // SAFETY: rows and columns are clipped to the map.
    unsafe {
        let mut value: V = S::load(from.add((y * extent.width + x) * LANES));
        for row in y.saturating_sub(1)..(y + 2).min(extent.height) {
            for column in x.saturating_sub(1)..(x + 2).min(extent.width) {
                value = value.max(S::load(from.add((row * extent.width + column) * LANES)));
            }
        }
        value
    }
}

#[inline(always)]
unsafe fn mean<V: Lanes, S: Stored>(from: *const S, extent: Extent, (y, x): (usize, usize), zeros: bool) -> V {
    let (bottom, right) = ((y + 2).min(extent.height), (x + 2).min(extent.width));
    let count = if zeros { 4 } else { (bottom - y) * (right - x) };
    // SAFETY: rows and columns are clipped to the map.
    unsafe {
        let mut sum = V::splat(0.0);
        for row in y..bottom {
            for column in x..right {
                sum = sum.add(S::load(from.add((row * extent.width + column) * LANES)));
            }
        }
        sum.mul(V::splat(1.0 / count as f32))
    }
}

#[inline(always)]
unsafe fn blurred<V: Lanes, S: Stored>(from: *const S, extent: Extent, (y, x): (usize, usize)) -> V {
    let (rows, columns) = (neighbours(y, extent.height), neighbours(x, extent.width));
    // SAFETY: reflected rows and columns lie within the map.
    unsafe {
        let mut sum = V::splat(0.0);
        for i in 0..3 {
            for j in 0..3 {
                let weight = [0.25, 0.5, 0.25][i] * [0.25, 0.5, 0.25][j];
                let value: V = S::load(from.add((rows[i] * extent.width + columns[j]) * LANES));
                sum = value.mul_add(V::splat(weight), sum);
            }
        }
        sum
    }
}

/// The positions before, at and after `centre` on a side of at least 2, reflected.
#[inline(always)]
pub(super) fn neighbours(centre: usize, size: usize) -> [usize; 3] {
    [centre.abs_diff(1), centre, if centre + 1 < size { centre + 1 } else { size - 2 }]
}
