//! Batch norms in training: what a batch's channels are like, and the gradient through them.
//!
//! In f32 over planes (channel blocks of images); what planes have in common is put together in f64 by whoever calls.

use std::ops::Range;

use super::lanes::{LANES, Lanes};
use super::map::{Extent, Writable};

/// Planes → mean and squared distances from it, of each channel.
pub(crate) struct Moments<'a> {
    pub(crate) extent: Extent,
    /// (planes, pixels, 16).
    pub(crate) from: &'a [f32],
    /// Planes that this call looks at.
    pub(crate) planes: Range<usize>,
    /// (planes, 2, 16): means, and means of squared distances.
    pub(crate) to: Writable<'a>,
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say; nobody else writes the same planes.
#[inline(always)]
pub(super) unsafe fn moments<V: Lanes>(call: &Moments) {
    let scale = 1.0 / call.extent.pixels() as f32;
    for plane in call.planes.clone() {
        // SAFETY: the plane is within the buffers.
        unsafe {
            let from = call.from.as_ptr().add(plane * call.extent.values(1));
            let [mean] = sums::<V, 1>(call.extent, |at| [V::load(from.add(at))]);
            let mean = mean.mul(V::splat(scale));
            let [spread] = sums::<V, 1>(call.extent, |at| {
                let distance = V::load(from.add(at)).sub(mean);
                [distance.mul(distance)]
            });
            mean.store(call.to.at(2 * plane * LANES));
            spread.mul(V::splat(scale)).store(call.to.at((2 * plane + 1) * LANES));
        }
    }
}

/// Sums over a plane, rows first, so that rounding grows with a side and not with the area.
#[inline(always)]
unsafe fn sums<V: Lanes, const N: usize>(extent: Extent, mut values: impl FnMut(usize) -> [V; N]) -> [V; N] {
    // SAFETY: arithmetic alone.
    unsafe {
        let mut sums = [V::splat(0.0); N];
        for row in 0..extent.height {
            let mut of_row = [V::splat(0.0); N];
            for column in 0..extent.width {
                let values = values((row * extent.width + column) * LANES);
                for n in 0..N {
                    of_row[n] = of_row[n].add(values[n]);
                }
            }
            for n in 0..N {
                sums[n] = sums[n].add(of_row[n]);
            }
        }
        sums
    }
}

/// The gradient behind a ReLU → the gradient before it, and what a batch norm's own parameters get.
pub(crate) struct NormSums<'a> {
    pub(crate) extent: Extent,
    /// What came out of the ReLU; `None` without one. (planes, pixels, 16).
    pub(crate) output: Option<&'a [f32]>,
    /// What went into the norm; (planes, pixels, 16).
    pub(crate) input: &'a [f32],
    /// The mean that the norm takes away; (channel blocks, 16).
    pub(crate) centres: &'a [f32],
    /// Planes that this call looks at.
    pub(crate) planes: Range<usize>,
    /// Becomes 0 where the ReLU put out 0; (planes, pixels, 16).
    pub(crate) gradient: Writable<'a>,
    /// (planes, 2, 16): sums of the gradient, and of the gradient times the distance from the centre.
    pub(crate) to: Writable<'a>,
}

/// # Safety
/// As [`moments`].
#[inline(always)]
pub(super) unsafe fn norm_sums<V: Lanes>(call: &NormSums) {
    let blocks = call.centres.len() / LANES;
    for plane in call.planes.clone() {
        let first = plane * call.extent.values(1);
        // SAFETY: the plane is within the buffers.
        unsafe {
            let gradient = call.gradient.at(first);
            let input = call.input.as_ptr().add(first);
            let centre = V::load(call.centres.as_ptr().add(plane % blocks * LANES));
            let output = call.output.map_or(std::ptr::null(), |output| output.as_ptr().add(first));
            let found = sums::<V, 2>(call.extent, |at| {
                let mut value = V::load(gradient.add(at));
                if !output.is_null() {
                    value = value.where_positive(V::load(output.add(at)));
                    value.store(gradient.add(at));
                }
                [value, value.mul(V::load(input.add(at)).sub(centre))]
            });
            found[0].store(call.to.at(2 * plane * LANES));
            found[1].store(call.to.at((2 * plane + 1) * LANES));
        }
    }
}

/// The gradient behind a norm → the gradient before it: `gradient * factor + input * slope + shift`.
pub(crate) struct NormGradient<'a> {
    pub(crate) extent: Extent,
    /// (planes, pixels, 16).
    pub(crate) gradient: &'a [f32],
    /// What went into the norm; (planes, pixels, 16).
    pub(crate) input: &'a [f32],
    /// (planes, 3, 16): factor, slope and shift of each channel.
    pub(crate) coefficients: &'a [f32],
    /// Planes that this call computes.
    pub(crate) planes: Range<usize>,
    /// (planes, pixels, 16).
    pub(crate) to: Writable<'a>,
}

/// # Safety
/// As [`moments`].
#[inline(always)]
pub(super) unsafe fn norm_gradient<V: Lanes>(call: &NormGradient) {
    for plane in call.planes.clone() {
        let first = plane * call.extent.values(1);
        // SAFETY: the plane is within the buffers.
        unsafe {
            let coefficients = call.coefficients.as_ptr().add(3 * plane * LANES);
            let (factor, slope) = (V::load(coefficients), V::load(coefficients.add(LANES)));
            let shift = V::load(coefficients.add(2 * LANES));
            for pixel in 0..call.extent.pixels() {
                let at = first + pixel * LANES;
                let input = V::load(call.input.as_ptr().add(at)).mul_add(slope, shift);
                let gradient = V::load(call.gradient.as_ptr().add(at));
                gradient.mul_add(factor, input).store(call.to.at(at));
            }
        }
    }
}
