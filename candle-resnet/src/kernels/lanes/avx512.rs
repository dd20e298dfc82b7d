//! One 512-bit register.

use std::arch::x86_64::*;
use std::mem::transmute;

use half::bf16;

use super::Lanes;

/// With or without instructions for bf16.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512<const BF16: bool>(__m512);

/// 28 of 32 registers hold sums.
impl<const BF16: bool> Lanes for Avx512<BF16> {
    type Pairs = __m512i;

    const ROWS: usize = 14;
    const BLOCKS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn where_positive(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(other.0, _mm512_setzero_ps()), self.0)) }
    }

    #[inline(always)]
    unsafe fn prefetch_second(address: *const f32) {
        // SAFETY: a hint; it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch_first(address: *const f32) {
        // SAFETY: a hint; it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
    }

    #[inline(always)]
    unsafe fn exchange<const J: usize>(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            Self(match J {
                0 => self.0,
                1 => _mm512_permute_ps::<0b10_11_00_01>(self.0),
                2 => _mm512_permute_ps::<0b01_00_11_10>(self.0),
                _ => _mm512_permute_ps::<0b00_01_10_11>(self.0),
            })
        }
    }

    #[inline(always)]
    unsafe fn exchange_quarters<const J: usize>(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            Self(match J {
                0 => self.0,
                1 => _mm512_shuffle_f32x4::<0b10_11_00_01>(self.0, self.0),
                2 => _mm512_shuffle_f32x4::<0b01_00_11_10>(self.0, self.0),
                _ => _mm512_shuffle_f32x4::<0b00_01_10_11>(self.0, self.0),
            })
        }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const bf16) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(first_of_pairs(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut bf16) {
        // SAFETY: the trait's contract; both types are 256 bits.
        unsafe {
            let rounded = if BF16 { transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0)) } else { round(self.0) };
            _mm256_storeu_si256(to.cast(), rounded);
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const bf16) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_pair(from: *const bf16) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn mul_add_pairs(a: __m512i, b: __m512i, sum: Self) -> Self {
        // SAFETY: the trait's contract; all of these types are 512 bits.
        unsafe {
            if BF16 {
                let [a, b] = [a, b].map(|pairs| transmute::<__m512i, __m512bh>(pairs));
                return Self(_mm512_dpbf16_ps(sum.0, a, b));
            }
            let firsts = _mm512_fmadd_ps(first_of_pairs(a), first_of_pairs(b), sum.0);
            Self(_mm512_fmadd_ps(second_of_pairs(a), second_of_pairs(b), firsts))
        }
    }
}

/// bf16 is the upper half of an f32.
#[inline(always)]
unsafe fn first_of_pairs(pairs: __m512i) -> __m512 {
    // SAFETY: called where the instruction set is at hand.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)) }
}

#[inline(always)]
unsafe fn second_of_pairs(pairs: __m512i) -> __m512 {
    // SAFETY: as above.
    unsafe { _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32))) }
}

/// To the nearest, or the even one of two.
#[inline(always)]
unsafe fn round(values: __m512) -> __m256i {
    // SAFETY: as above.
    unsafe {
        let bits = _mm512_castps_si512(values);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded))
    }
}
