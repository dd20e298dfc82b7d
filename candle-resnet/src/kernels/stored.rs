//! How maps and weights are stored: in f32, or in bf16 with sums in f32.
//!
//! What differs between the two is here; the kernels are written once over both.

use half::bf16;

use super::dispatch::{Kernels, KernelsOf};
use super::lanes::{LANES, Lanes};

/// A value of a map or a weight.
pub(crate) trait Stored: Copy + Default + std::fmt::Debug + Send + Sync + 'static {
    /// Values of a row that one multiplication takes. They lie side by side, in rows as in weights.
    const DEPTH: usize;
    /// What a multiplication takes for each of sixteen lanes.
    type Factor<V: Lanes>: Copy;

    /// Rounded to the nearest.
    fn of(value: f32) -> Self;
    fn value(self) -> f32;
    /// The kernels for maps of this kind.
    fn kernels(kernels: &Kernels) -> &KernelsOf<Self>;
    /// Where sums wait between the passes of a product, and the distance from block to block: in the output, if that does not
    /// round them, or in `apart`, (blocks, rows, 16).
    fn sums(output: (*mut Self, usize), apart: (*mut f32, usize)) -> (*mut f32, usize);
    /// Floats of `apart` for so many rows and blocks.
    fn sums_apart(rows: usize, blocks: usize) -> usize;

    /// Reads sixteen values.
    ///
    /// # Safety
    /// As for all of [`Lanes`], here and below.
    unsafe fn load<V: Lanes>(from: *const Self) -> V;
    /// Writes sixteen values, rounded to the nearest.
    unsafe fn store<V: Lanes>(vector: V, to: *mut Self);
    /// Reads sixteen columns of weights, [`DEPTH`](Stored::DEPTH) of each.
    unsafe fn columns<V: Lanes>(from: *const Self) -> Self::Factor<V>;
    /// Reads [`DEPTH`](Stored::DEPTH) values of a row, for all lanes.
    unsafe fn spread<V: Lanes>(from: *const Self) -> Self::Factor<V>;
    /// `row * columns + sum`, in f32.
    unsafe fn mul_add<V: Lanes>(row: Self::Factor<V>, columns: Self::Factor<V>, sum: V) -> V;
}

impl Stored for f32 {
    const DEPTH: usize = 1;
    type Factor<V: Lanes> = V;

    fn of(value: f32) -> f32 {
        value
    }

    fn value(self) -> f32 {
        self
    }

    fn kernels(kernels: &Kernels) -> &KernelsOf<f32> {
        &kernels.single
    }

    fn sums(output: (*mut f32, usize), _: (*mut f32, usize)) -> (*mut f32, usize) {
        output
    }

    fn sums_apart(_: usize, _: usize) -> usize {
        0
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const f32) -> V {
        // SAFETY: passed on.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn store<V: Lanes>(vector: V, to: *mut f32) {
        // SAFETY: passed on.
        unsafe { vector.store(to) }
    }

    #[inline(always)]
    unsafe fn columns<V: Lanes>(from: *const f32) -> V {
        // SAFETY: passed on.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn spread<V: Lanes>(from: *const f32) -> V {
        // SAFETY: passed on.
        unsafe { V::splat(*from) }
    }

    #[inline(always)]
    unsafe fn mul_add<V: Lanes>(row: V, columns: V, sum: V) -> V {
        // SAFETY: passed on.
        unsafe { row.mul_add(columns, sum) }
    }
}

impl Stored for bf16 {
    const DEPTH: usize = 2;
    type Factor<V: Lanes> = V::Pairs;

    fn of(value: f32) -> bf16 {
        bf16::from_f32(value)
    }

    fn value(self) -> f32 {
        self.to_f32()
    }

    fn kernels(kernels: &Kernels) -> &KernelsOf<bf16> {
        &kernels.half
    }

    fn sums(_: (*mut bf16, usize), apart: (*mut f32, usize)) -> (*mut f32, usize) {
        apart
    }

    fn sums_apart(rows: usize, blocks: usize) -> usize {
        rows * blocks * LANES
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const bf16) -> V {
        // SAFETY: passed on.
        unsafe { V::load_half(from) }
    }

    #[inline(always)]
    unsafe fn store<V: Lanes>(vector: V, to: *mut bf16) {
        // SAFETY: passed on.
        unsafe { vector.store_half(to) }
    }

    #[inline(always)]
    unsafe fn columns<V: Lanes>(from: *const bf16) -> V::Pairs {
        // SAFETY: passed on.
        unsafe { V::load_pairs(from) }
    }

    #[inline(always)]
    unsafe fn spread<V: Lanes>(from: *const bf16) -> V::Pairs {
        // SAFETY: passed on.
        unsafe { V::splat_pair(from) }
    }

    #[inline(always)]
    unsafe fn mul_add<V: Lanes>(row: V::Pairs, columns: V::Pairs, sum: V) -> V {
        // SAFETY: passed on.
        unsafe { V::mul_add_pairs(row, columns, sum) }
    }
}

/// `length` values of a row, filled up so that multiplications take whole ones.
pub(super) fn filled_up<S: Stored>(length: usize) -> usize {
    length.next_multiple_of(S::DEPTH)
}
