//! Four 128-bit registers.

use std::arch::aarch64::*;

use half::bf16;

use super::Lanes;

#[derive(Clone, Copy)]
pub(in super::super) struct Neon([float32x4_t; 4]);

/// 24 of 32 registers hold sums.
impl Lanes for Neon {
    type Pairs = [uint32x4_t; 4];

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
    unsafe fn where_positive(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe {
            let kept = |a: float32x4_t, b: float32x4_t| {
                vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vcgtzq_f32(b)))
            };
            Self([kept(a[0], b[0]), kept(a[1], b[1]), kept(a[2], b[2]), kept(a[3], b[3])])
        }
    }

    #[inline(always)]
    unsafe fn prefetch_first(_: *const f32) {}

    #[inline(always)]
    unsafe fn prefetch_second(_: *const f32) {}

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

    #[inline(always)]
    unsafe fn exchange<const J: usize>(self) -> Self {
        // SAFETY: the trait's contract.
        Self(self.0.map(|quarter| unsafe {
            match J {
                0 => quarter,
                1 => vrev64q_f32(quarter),
                2 => vextq_f32::<2>(quarter, quarter),
                _ => vrev64q_f32(vextq_f32::<2>(quarter, quarter)),
            }
        }))
    }

    #[inline(always)]
    unsafe fn exchange_quarters<const J: usize>(self) -> Self {
        Self([self.0[J], self.0[1 ^ J], self.0[2 ^ J], self.0[3 ^ J]])
    }

    #[inline(always)]
    unsafe fn load_half(from: *const bf16) -> Self {
        // SAFETY: the trait's contract.
        Self([0, 4, 8, 12].map(|at| unsafe { first_of_pairs(vmovl_u16(vld1_u16(from.add(at).cast()))) }))
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut bf16) {
        for (part, values) in self.0.into_iter().enumerate() {
            // SAFETY: the trait's contract.
            unsafe { vst1_u16(to.add(4 * part).cast(), round(values)) }
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const bf16) -> Self::Pairs {
        // SAFETY: the trait's contract; four pairs are four times 32 bits.
        [0, 8, 16, 24].map(|at| unsafe { vreinterpretq_u32_u16(vld1q_u16(from.add(at).cast())) })
    }

    #[inline(always)]
    unsafe fn splat_pair(from: *const bf16) -> Self::Pairs {
        // SAFETY: the trait's contract.
        unsafe { [vdupq_n_u32(from.cast::<u32>().read_unaligned()); 4] }
    }

    #[inline(always)]
    unsafe fn mul_add_pairs(a: Self::Pairs, b: Self::Pairs, sum: Self) -> Self {
        // SAFETY: the trait's contract.
        Self([0, 1, 2, 3].map(|part| unsafe {
            let firsts = vfmaq_f32(sum.0[part], first_of_pairs(a[part]), first_of_pairs(b[part]));
            vfmaq_f32(firsts, second_of_pairs(a[part]), second_of_pairs(b[part]))
        }))
    }
}

/// bf16 is the upper half of an f32.
#[inline(always)]
unsafe fn first_of_pairs(pairs: uint32x4_t) -> float32x4_t {
    // SAFETY: called where the instruction set is at hand.
    unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)) }
}

#[inline(always)]
unsafe fn second_of_pairs(pairs: uint32x4_t) -> float32x4_t {
    // SAFETY: as above.
    unsafe { vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff_0000))) }
}

/// To the nearest, or the even one of two.
#[inline(always)]
unsafe fn round(values: float32x4_t) -> uint16x4_t {
    // SAFETY: as above.
    unsafe {
        let bits = vreinterpretq_u32_f32(values);
        let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
        vshrn_n_u32::<16>(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff))))
    }
}
