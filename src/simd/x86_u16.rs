//! Integers of sixteen bits in registers of x86-64: AVX2 as two, AVX-512 as one.
//!
//! # Safety
//!
//! As in [`super::x86`]: values are only made in kernels compiled for a level whose features were detected.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_adds_epi16, _mm256_adds_epu16, _mm256_cmpeq_epi16, _mm256_load_si256,
    _mm256_movemask_epi8, _mm256_mulhrs_epi16, _mm256_or_si256, _mm256_packs_epi16, _mm256_permute4x64_epi64,
    _mm256_set1_epi16, _mm256_setzero_si256, _mm256_store_si256, _mm256_subs_epi16, _mm256_subs_epu16,
    _mm256_testz_si256, _mm512_adds_epi16, _mm512_adds_epu16, _mm512_cmplt_epu16_mask, _mm512_load_si512,
    _mm512_mulhrs_epi16, _mm512_set1_epi16, _mm512_store_si512, _mm512_subs_epi16,
};

use super::{U16x32, VectorU16};

/// Numbers in two AVX2 registers.
#[derive(Clone, Copy)]
pub(super) struct Avx2U16(__m256i, __m256i);

/// Numbers in one AVX-512 register.
#[derive(Clone, Copy)]
pub(super) struct Avx512U16(__m512i);

impl Avx2U16 {
    /// How far each number is below `bound`'s, or zero.
    #[inline(always)]
    fn distance_below(self, bound: Self) -> (__m256i, __m256i) {
        // SAFETY: AVX2 was detected (module header).
        unsafe { (_mm256_subs_epu16(bound.0, self.0), _mm256_subs_epu16(bound.1, self.1)) }
    }
}

impl VectorU16 for Avx2U16 {
    #[inline(always)]
    fn load(lanes: &U16x32) -> Self {
        let at = lanes.0.as_ptr();
        // SAFETY: AVX2 was detected (module header); `U16x32` is 64 bytes, aligned to 64.
        unsafe { Self(_mm256_load_si256(at.cast()), _mm256_load_si256(at.add(16).cast())) }
    }

    #[inline(always)]
    fn store(self, lanes: &mut U16x32) {
        let at = lanes.0.as_mut_ptr();
        // SAFETY: AVX2 was detected (module header); `U16x32` is 64 bytes, aligned to 64.
        unsafe {
            _mm256_store_si256(at.cast(), self.0);
            _mm256_store_si256(at.add(16).cast(), self.1);
        }
    }

    #[inline(always)]
    fn splat(value: u16) -> Self {
        // SAFETY: AVX2 was detected (module header).
        let one = unsafe { _mm256_set1_epi16(value.cast_signed()) };
        Self(one, one)
    }

    #[inline(always)]
    fn difference(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_subs_epi16(self.0, other.0), _mm256_subs_epi16(self.1, other.1)) }
    }

    #[inline(always)]
    fn twice(self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_adds_epi16(self.0, self.0), _mm256_adds_epi16(self.1, self.1)) }
    }

    #[inline(always)]
    fn square(self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_mulhrs_epi16(self.0, self.0), _mm256_mulhrs_epi16(self.1, self.1)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_adds_epu16(self.0, other.0), _mm256_adds_epu16(self.1, other.1)) }
    }

    #[inline(always)]
    fn below(self, bound: Self) -> u32 {
        // SAFETY: AVX2 was detected (module header).
        unsafe {
            let (low, high) = self.distance_below(bound);
            let (low, high) =
                (_mm256_cmpeq_epi16(low, _mm256_setzero_si256()), _mm256_cmpeq_epi16(high, _mm256_setzero_si256()));
            // Packing works on halves of registers, so the order of quarters has to be restored.
            let not_below = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
            !_mm256_movemask_epi8(not_below).cast_unsigned()
        }
    }

    #[inline(always)]
    fn any_below(self, bound: Self) -> bool {
        let (low, high) = self.distance_below(bound);
        // SAFETY: AVX2 was detected (module header).
        unsafe {
            let distance = _mm256_or_si256(low, high);
            _mm256_testz_si256(distance, distance) == 0
        }
    }
}

impl VectorU16 for Avx512U16 {
    #[inline(always)]
    fn load(lanes: &U16x32) -> Self {
        // SAFETY: AVX-512 was detected (module header); `U16x32` is 64 bytes, aligned to 64.
        unsafe { Self(_mm512_load_si512(lanes.0.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store(self, lanes: &mut U16x32) {
        // SAFETY: AVX-512 was detected (module header); `U16x32` is 64 bytes, aligned to 64.
        unsafe { _mm512_store_si512(lanes.0.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn splat(value: u16) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_set1_epi16(value.cast_signed())) }
    }

    #[inline(always)]
    fn difference(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_subs_epi16(self.0, other.0)) }
    }

    #[inline(always)]
    fn twice(self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_adds_epi16(self.0, self.0)) }
    }

    #[inline(always)]
    fn square(self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_mulhrs_epi16(self.0, self.0)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_adds_epu16(self.0, other.0)) }
    }

    #[inline(always)]
    fn below(self, bound: Self) -> u32 {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { _mm512_cmplt_epu16_mask(self.0, bound.0) }
    }
}
