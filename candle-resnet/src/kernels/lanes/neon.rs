//! Four 128-bit registers.

use std::arch::aarch64::*;

use super::Lanes;

#[derive(Clone, Copy)]
pub(in super::super) struct Neon([float32x4_t; 4]);

/// 24 of 32 registers hold sums.
impl Lanes for Neon {
    const ROWS: usize = 6;
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self([vdupq_n_f32(value); 4]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        let Self([a, b, c, d]) = self;
        // SAFETY: the trait's contract.
        unsafe {
            vst1q_f32(to, a);
            vst1q_f32(to.add(4), b);
            vst1q_f32(to.add(8), c);
            vst1q_f32(to.add(12), d);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe { Self([vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1]), vaddq_f32(a[2], b[2]), vaddq_f32(a[3], b[3])]) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe { Self([vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1]), vsubq_f32(a[2], b[2]), vsubq_f32(a[3], b[3])]) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe { Self([vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1]), vmulq_f32(a[2], b[2]), vmulq_f32(a[3], b[3])]) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe { Self([vmaxq_f32(a[0], b[0]), vmaxq_f32(a[1], b[1]), vmaxq_f32(a[2], b[2]), vmaxq_f32(a[3], b[3])]) }
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let (Self(a), Self(b), Self(c)) = (self, factor, addend);
        // SAFETY: the trait's contract.
        unsafe {
            Self([
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ])
        }
    }
}
