//! Two 256-bit registers, with FMA.

use std::arch::x86_64::*;

use half::bf16;

use super::Lanes;

#[derive(Clone, Copy)]
pub(in super::super) struct Avx2([__m256; 2]);

/// 12 of 16 registers hold sums.
impl Lanes for Avx2 {
    type Pairs = [__m256i; 2];

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
    unsafe fn where_positive(self, other: Self) -> Self {
        let (Self(a), Self(b)) = (self, other);
        // SAFETY: the trait's contract.
        unsafe {
            let zero = _mm256_setzero_ps();
            let positive = |b: __m256| _mm256_cmp_ps::<_CMP_GT_OQ>(b, zero);
            Self([_mm256_and_ps(a[0], positive(b[0])), _mm256_and_ps(a[1], positive(b[1]))])
        }
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
        let (Self(a), Self(b), Self(c)) = (self, factor, addend);
        // SAFETY: the trait's contract.
        unsafe { Self([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]) }
    }

    #[inline(always)]
    unsafe fn exchange<const J: usize>(self) -> Self {
        let Self([a, b]) = self;
        // SAFETY: the trait's contract.
        unsafe {
            Self(match J {
                0 => [a, b],
                1 => [_mm256_permute_ps::<0b10_11_00_01>(a), _mm256_permute_ps::<0b10_11_00_01>(b)],
                2 => [_mm256_permute_ps::<0b01_00_11_10>(a), _mm256_permute_ps::<0b01_00_11_10>(b)],
                _ => [_mm256_permute_ps::<0b00_01_10_11>(a), _mm256_permute_ps::<0b00_01_10_11>(b)],
            })
        }
    }

    #[inline(always)]
    unsafe fn exchange_quarters<const J: usize>(self) -> Self {
        let Self([a, b]) = self;
        let [a, b] = if J & 2 == 0 { [a, b] } else { [b, a] };
        if J & 1 == 0 {
            return Self([a, b]);
        }
        // SAFETY: the trait's contract.
        unsafe { Self([_mm256_permute2f128_ps::<1>(a, a), _mm256_permute2f128_ps::<1>(b, b)]) }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const bf16) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let half = |from: *const bf16| first_of_pairs(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())));
            Self([half(from), half(from.add(8))])
        }
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut bf16) {
        let Self([a, b]) = self;
        // SAFETY: the trait's contract.
        unsafe {
            // Packed within each 128 bits: of the four quarters, the inner two change places.
            let packed = _mm256_packus_epi32(round(a), round(b));
            _mm256_storeu_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const bf16) -> [__m256i; 2] {
        // SAFETY: the trait's contract.
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(16).cast())] }
    }

    #[inline(always)]
    unsafe fn splat_pair(from: *const bf16) -> [__m256i; 2] {
        // SAFETY: the trait's contract.
        unsafe { [_mm256_set1_epi32(from.cast::<i32>().read_unaligned()); 2] }
    }

    #[inline(always)]
    unsafe fn mul_add_pairs(a: [__m256i; 2], b: [__m256i; 2], sum: Self) -> Self {
        let mul_add = |a: __m256i, b: __m256i, sum: __m256| {
            // SAFETY: the trait's contract.
            unsafe {
                let firsts = _mm256_fmadd_ps(first_of_pairs(a), first_of_pairs(b), sum);
                _mm256_fmadd_ps(second_of_pairs(a), second_of_pairs(b), firsts)
            }
        };
        Self([mul_add(a[0], b[0], sum.0[0]), mul_add(a[1], b[1], sum.0[1])])
    }
}

/// bf16 is the upper half of an f32.
#[inline(always)]
unsafe fn first_of_pairs(pairs: __m256i) -> __m256 {
    // SAFETY: called where the instruction set is at hand.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)) }
}

#[inline(always)]
unsafe fn second_of_pairs(pairs: __m256i) -> __m256 {
    // SAFETY: as above.
    unsafe { _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32))) }
}

/// To the nearest, or the even one of two; in the lower half of each lane.
#[inline(always)]
unsafe fn round(values: __m256) -> __m256i {
    // SAFETY: as above.
    unsafe {
        let bits = _mm256_castps_si256(values);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        _mm256_srli_epi32::<16>(rounded)
    }
}
