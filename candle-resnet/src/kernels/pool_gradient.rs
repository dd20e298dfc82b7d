//! The gradient of a pool over maps.

use std::ops::Range;

use super::lanes::{LANES, Lanes};
use super::map::{Extent, Writable};
use super::pool::{Window, neighbours};

/// What a pool was given and the gradient of what it put out → the gradient of what it was given, for some planes.
pub(crate) struct PoolGradient<'a> {
    pub(crate) window: Window,
    pub(crate) stride: usize,
    pub(crate) input: Extent,
    pub(crate) output: Extent,
    /// What the pool was given, read for [`Window::Max`] alone; (planes, pixels, 16).
    pub(crate) from: &'a [f32],
    /// (planes, output pixels, 16).
    pub(crate) gradient: &'a [f32],
    /// Planes that this call computes.
    pub(crate) planes: Range<usize>,
    /// (planes, pixels, 16).
    pub(crate) to: Writable<'a>,
}

/// # Safety
/// The processor has `V`'s instruction set; slices are as large as their fields say; nobody else writes the same planes.
#[inline(always)]
pub(super) unsafe fn pool_gradient<V: Lanes>(call: &PoolGradient) {
    for plane in call.planes.clone() {
        // SAFETY: the plane is within all buffers.
        unsafe {
            let to = call.to.at(plane * call.input.values(1));
            to.write_bytes(0, call.input.values(1));
            let gradient = call.gradient.as_ptr().add(plane * call.output.values(1));
            for row in 0..call.output.height {
                for column in 0..call.output.width {
                    let centre = (row * call.stride, column * call.stride);
                    let gradient = gradient.add((row * call.output.width + column) * LANES);
                    match call.window {
                        Window::Max => {
                            let from = call.from.as_ptr().add(plane * call.input.values(1));
                            to_the_largest(from, call.input, centre, gradient, to)
                        }
                        Window::Mean { zeros } => {
                            spread_evenly(V::load(gradient), call.input, centre, zeros, to);
                        }
                        Window::Blur => spread_as_blurred(V::load(gradient), call.input, centre, to),
                    }
                }
            }
        }
    }
}

/// Of equal pixels the first gets the gradient, and a NaN wins over every number: as PyTorch has it.
#[inline(always)]
unsafe fn to_the_largest(from: *const f32, extent: Extent, (y, x): (usize, usize), gradient: *const f32, to: *mut f32) {
    let (rows, columns) =
        (y.saturating_sub(1)..(y + 2).min(extent.height), x.saturating_sub(1)..(x + 2).min(extent.width));
    let places = rows.flat_map(|row| columns.clone().map(move |column| (row * extent.width + column) * LANES));
    // SAFETY: places are clipped to the map.
    unsafe {
        let at = |place: usize| from.add(place).cast::<[f32; LANES]>().read_unaligned();
        let gradient = gradient.cast::<[f32; LANES]>().read_unaligned();
        let (mut largest, mut winner) = ([f32::NEG_INFINITY; LANES], [u32::MAX; LANES]);
        for (index, place) in places.clone().enumerate() {
            let values = at(place);
            for lane in 0..LANES {
                let wins = values[lane] > largest[lane] || winner[lane] == u32::MAX || values[lane].is_nan();
                largest[lane] = if wins { values[lane] } else { largest[lane] };
                winner[lane] = if wins { index as u32 } else { winner[lane] };
            }
        }
        for (index, place) in places.enumerate() {
            let to = to.add(place).cast::<[f32; LANES]>();
            let mut sums = to.read_unaligned();
            for lane in 0..LANES {
                sums[lane] += if winner[lane] == index as u32 { gradient[lane] } else { 0.0 };
            }
            to.write_unaligned(sums);
        }
    }
}

#[inline(always)]
unsafe fn spread_evenly<V: Lanes>(gradient: V, extent: Extent, (y, x): (usize, usize), zeros: bool, to: *mut f32) {
    let (bottom, right) = ((y + 2).min(extent.height), (x + 2).min(extent.width));
    let count = if zeros { 4 } else { (bottom - y) * (right - x) };
    // SAFETY: rows and columns are clipped to the map.
    unsafe {
        let part = gradient.mul(V::splat(1.0 / count as f32));
        for row in y..bottom {
            for column in x..right {
                let to = to.add((row * extent.width + column) * LANES);
                V::load(to).add(part).store(to);
            }
        }
    }
}

#[inline(always)]
unsafe fn spread_as_blurred<V: Lanes>(gradient: V, extent: Extent, (y, x): (usize, usize), to: *mut f32) {
    let (rows, columns) = (neighbours(y, extent.height), neighbours(x, extent.width));
    // SAFETY: reflected rows and columns lie within the map.
    unsafe {
        for i in 0..3 {
            for j in 0..3 {
                let weight = [0.25, 0.5, 0.25][i] * [0.25, 0.5, 0.25][j];
                let to = to.add((rows[i] * extent.width + columns[j]) * LANES);
                gradient.mul_add(V::splat(weight), V::load(to)).store(to);
            }
        }
    }
}
