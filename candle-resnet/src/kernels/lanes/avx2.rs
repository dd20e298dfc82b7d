//! Two 256-bit registers, with FMA.

use std::arch::x86_64::*;

use super::Lanes;

#[derive(Clone, Copy)]
pub(in super::super) struct Avx2([__m256; 2]);

/// 12 of 16 registers hold sums.
impl Lanes for Avx2 {
    const ROWS: usize = 6;
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self([_mm256_set1_ps(value); 2]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        let Self([a, b]) = self;
        // SAFETY: the trait's contract.
        unsafe {
            _mm256_storeu_ps(to, a);
            _mm256_storeu_ps(to.add(8), b);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe { Self([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])]) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe { Self([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])]) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe { Self([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe { Self([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])]) }
    }

    #[inline(always)]
    unsafe fn prefetch(address: *const f32) {
        // SAFETY: a hint; it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let (Self(a), Self(b), Self(c)) = (self, factor, addend);
        // SAFETY: the trait's contract.
        unsafe { Self([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]) }
    }
}
