//! An array, which the compiler puts into whatever registers there are.

use half::bf16;

use super::{LANES, Lanes};

#[derive(Clone, Copy)]
pub(in super::super) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, operation: impl Fn(f32, f32) -> f32) -> Self {
        let mut result = self.0;
        for (a, b) in result.iter_mut().zip(other.0) {
            *a = operation(*a, b);
        }
        Self(result)
    }
}

/// Eight of sixteen 128-bit registers hold sums where there are no more.
impl Lanes for Portable {
    type Pairs = [[bf16; 2]; LANES];

    const ROWS: usize = 2;
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's contract.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn where_positive(self, other: Self) -> Self {
        self.zip(other, |a, b| if b > 0.0 { a } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn prefetch_first(_: *const f32) {}

    #[inline(always)]
    unsafe fn prefetch_second(_: *const f32) {}

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: these need no instruction set.
        unsafe { self.mul(factor).add(addend) }
    }

    #[inline(always)]
    unsafe fn exchange<const J: usize>(self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane ^ J]))
    }

    #[inline(always)]
    unsafe fn exchange_quarters<const J: usize>(self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane ^ (LANES / 4 * J)]))
    }

    #[inline(always)]
    unsafe fn load_half(from: *const bf16) -> Self {
        // SAFETY: the trait's contract.
        Self(unsafe { from.cast::<[bf16; LANES]>().read_unaligned() }.map(widened))
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut bf16) {
        // SAFETY: the trait's contract.
        unsafe { to.cast::<[bf16; LANES]>().write_unaligned(self.0.map(rounded)) }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const bf16) -> Self::Pairs {
        // SAFETY: the trait's contract.
        unsafe { from.cast::<Self::Pairs>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat_pair(from: *const bf16) -> Self::Pairs {
        // SAFETY: the trait's contract.
        [unsafe { from.cast::<[bf16; 2]>().read_unaligned() }; LANES]
    }

    #[inline(always)]
    unsafe fn mul_add_pairs(a: Self::Pairs, b: Self::Pairs, sum: Self) -> Self {
        let mut sums = sum.0;
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(&b)) {
            *sum += widened(a[0]) * widened(b[0]) + widened(a[1]) * widened(b[1]);
        }
        Self(sums)
    }
}

/// bf16 is the upper half of an f32.
#[inline(always)]
fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// To the nearest, or the even one of two.
#[inline(always)]
fn rounded(value: f32) -> bf16 {
    let bits = value.to_bits();
    bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
}
