//! One number per channel out of a map, and one number per channel into it: what global pools, attention and group norms
//! are made of.

use std::ops::Range;

use super::lanes::{LANES, Lanes};
use super::map::{Extent, Writable};
use super::stored::Stored;

/// What a channel's pixels become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// The mean.
    Mean,
    /// The largest.
    Max,
    /// The mean of squared distances from a centre.
    Spread,
}

/// Planes (channel blocks of images) → sixteen numbers each.
pub(crate) struct Reduce<'a, S> {
    pub(crate) reduction: Reduction,
    pub(crate) extent: Extent,
    /// (planes, pixels, 16).
    pub(crate) from: &'a [S],
    /// (planes, 16); read for [`Reduction::Spread`] alone.
    pub(crate) centres: &'a [f32],
    /// Planes that this call reduces.
    pub(crate) planes: Range<usize>,
    /// (planes, 16).
    pub(crate) to: Writable<'a>,
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say; nobody else writes the same planes.
#[inline(always)]
pub(super) unsafe fn reduce<V: Lanes, S: Stored>(call: &Reduce<S>) {
    for plane in call.planes.clone() {
        // SAFETY: the plane is within the buffers.
        unsafe {
            let from = call.from.as_ptr().add(plane * call.extent.pixels() * LANES);
            let value = match call.reduction {
                Reduction::Mean => mean::<V, S, false>(from, call.extent, V::splat(0.0)),
                Reduction::Spread => {
                    mean::<V, S, true>(from, call.extent, V::load(call.centres.as_ptr().add(plane * LANES)))
                }
                Reduction::Max => largest::<V, S>(from, call.extent.pixels()),
            };
            value.store(call.to.at(plane * LANES));
        }
    }
}

/// Sums rows first, so that rounding grows with a side and not with the area.
#[inline(always)]
unsafe fn mean<V: Lanes, S: Stored, const SQUARED: bool>(from: *const S, extent: Extent, centre: V) -> V {
    // SAFETY: the plane has that many pixels.
    unsafe {
        let mut sum = V::splat(0.0);
        for row in 0..extent.height {
            let mut of_row = V::splat(0.0);
            for column in 0..extent.width {
                let value: V = S::load(from.add((row * extent.width + column) * LANES));
                if SQUARED {
                    let distance = value.sub(centre);
                    of_row = distance.mul_add(distance, of_row);
                } else {
                    of_row = of_row.add(value);
                }
            }
            sum = sum.add(of_row);
        }
        sum.mul(V::splat(1.0 / extent.pixels() as f32))
    }
}

#[inline(always)]
unsafe fn largest<V: Lanes, S: Stored>(from: *const S, pixels: usize) -> V {
    // SAFETY: the plane has that many pixels, at least one.
    unsafe {
        let mut value: V = S::load(from);
        for pixel in 1..pixels {
            value = value.max(S::load(from.add(pixel * LANES)));
        }
        value
    }
}

/// `x * scale + shift`, plus a residual, then perhaps a ReLU.
pub(crate) struct Affine<'a, S> {
    pub(crate) extent: Extent,
    /// (planes, pixels, 16).
    pub(crate) from: &'a [S],
    /// (planes, 16).
    pub(crate) scale: &'a [f32],
    /// (planes, 16).
    pub(crate) shift: &'a [f32],
    /// (planes, pixels, 16).
    pub(crate) residual: Option<&'a [S]>,
    pub(crate) relu: bool,
    /// Planes that this call computes.
    pub(crate) planes: Range<usize>,
    /// (planes, pixels, 16).
    pub(crate) to: Writable<'a, S>,
}

/// # Safety
/// As [`reduce`].
#[inline(always)]
pub(super) unsafe fn affine<V: Lanes, S: Stored>(call: &Affine<S>) {
    for plane in call.planes.clone() {
        // SAFETY: the plane is within the buffers.
        unsafe {
            let first = plane * call.extent.pixels() * LANES;
            let scale: V = V::load(call.scale.as_ptr().add(plane * LANES));
            let shift: V = V::load(call.shift.as_ptr().add(plane * LANES));
            for pixel in 0..call.extent.pixels() {
                let at = first + pixel * LANES;
                let from: V = S::load(call.from.as_ptr().add(at));
                let mut value = from.mul_add(scale, shift);
                if let Some(residual) = call.residual {
                    value = value.add(S::load(residual.as_ptr().add(at)));
                }
                if call.relu {
                    value = V::splat(0.0).max(value);
                }
                S::store(value, call.to.at(at));
            }
        }
    }
}
