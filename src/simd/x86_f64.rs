//! Sixteen values of float64 in the registers of x86-64: four of AVX2, two of AVX-512.
//!
//! # Safety
//!
//! As in [`x86`](super::x86): these types are private to [`crate::simd`], and only [`Isa::run`](super::Isa::run) hands them
//! to kernels, for a level whose features were detected. Memory is accessed through references of exactly the size that is
//! read or written.

use std::arch::x86_64::{
    __m256d, __m512d, _CMP_LE_OQ, _mm_add_pd, _mm_add_sd, _mm_cvtsd_f64, _mm_min_pd, _mm_unpackhi_pd, _mm256_add_epi64,
    _mm256_add_pd, _mm256_and_pd, _mm256_castpd_si256, _mm256_castpd256_pd128, _mm256_castsi256_pd, _mm256_cmp_pd,
    _mm256_extractf128_pd, _mm256_fmadd_pd, _mm256_load_pd, _mm256_max_pd, _mm256_min_pd, _mm256_mul_pd,
    _mm256_set1_pd, _mm256_slli_epi64, _mm256_store_pd, _mm256_sub_pd, _mm512_add_epi64, _mm512_add_pd,
    _mm512_castpd_si512, _mm512_castpd512_pd256, _mm512_castsi512_pd, _mm512_cmp_pd_mask, _mm512_extractf64x4_pd,
    _mm512_fmadd_pd, _mm512_load_pd, _mm512_maskz_mov_pd, _mm512_max_pd, _mm512_min_pd, _mm512_mul_pd, _mm512_set1_pd,
    _mm512_slli_epi64, _mm512_store_pd, _mm512_sub_pd,
};

use super::{F64x16, VectorF64};

/// Sixteen values in four AVX2 registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2F64([__m256d; 4]);

/// Sixteen values in two AVX-512 registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx512F64([__m512d; 2]);

/// The sum of four values as a tree.
#[inline(always)]
fn sum_of_4(v: __m256d) -> f64 {
    // SAFETY: AVX2 was detected (module header).
    unsafe {
        let pair = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
        _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)))
    }
}

/// The smallest of four values.
#[inline(always)]
fn least_of_4(v: __m256d) -> f64 {
    // SAFETY: AVX2 was detected (module header).
    unsafe {
        let pair = _mm_min_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
        _mm_cvtsd_f64(_mm_min_pd(pair, _mm_unpackhi_pd(pair, pair)))
    }
}

/// Implements what is the same for both, register by register.
macro_rules! vector_f64 {
    ($name:ident, $count:literal, $len:literal, $load:ident, $store:ident, $splat:ident,
     $add:ident, $sub:ident, $mul:ident, $fmadd:ident, $max:ident) => {
        impl VectorF64 for $name {
            #[inline(always)]
            fn load(lanes: &F64x16) -> Self {
                let mut out = Self::splat(0.0);
                for i in 0..$count {
                    // SAFETY: the features were detected (module header); sixteen doubles, aligned to 64 bytes.
                    out.0[i] = unsafe { $load(lanes.0.as_ptr().add($len * i)) };
                }
                out
            }

            #[inline(always)]
            fn store(self, lanes: &mut F64x16) {
                for i in 0..$count {
                    // SAFETY: as for `load`.
                    unsafe { $store(lanes.0.as_mut_ptr().add($len * i), self.0[i]) };
                }
            }

            #[inline(always)]
            fn splat(value: f64) -> Self {
                // SAFETY: the features were detected (module header).
                Self([unsafe { $splat(value) }; $count])
            }

            #[inline(always)]
            fn add(mut self, other: Self) -> Self {
                for i in 0..$count {
                    // SAFETY: the features were detected (module header).
                    self.0[i] = unsafe { $add(self.0[i], other.0[i]) };
                }
                self
            }

            #[inline(always)]
            fn sub(mut self, other: Self) -> Self {
                for i in 0..$count {
                    // SAFETY: the features were detected (module header).
                    self.0[i] = unsafe { $sub(self.0[i], other.0[i]) };
                }
                self
            }

            #[inline(always)]
            fn mul(mut self, other: Self) -> Self {
                for i in 0..$count {
                    // SAFETY: the features were detected (module header).
                    self.0[i] = unsafe { $mul(self.0[i], other.0[i]) };
                }
                self
            }

            #[inline(always)]
            fn mul_add(mut self, factor: Self, term: Self) -> Self {
                for i in 0..$count {
                    // SAFETY: the features were detected (module header).
                    self.0[i] = unsafe { $fmadd(self.0[i], factor.0[i], term.0[i]) };
                }
                self
            }

            #[inline(always)]
            fn max(mut self, other: Self) -> Self {
                for i in 0..$count {
                    // SAFETY: the features were detected (module header).
                    self.0[i] = unsafe { $max(self.0[i], other.0[i]) };
                }
                self
            }

            #[inline(always)]
            fn least(self) -> f64 {
                self.least_lane()
            }

            #[inline(always)]
            fn sum(self) -> f64 {
                self.sum_of_lanes()
            }

            #[inline(always)]
            fn where_from(mut self, value: Self, bound: Self) -> Self {
                for i in 0..$count {
                    self.0[i] = Self::kept(self.0[i], value.0[i], bound.0[i]);
                }
                self
            }

            #[inline(always)]
            fn scaled(mut self, rounded: Self) -> Self {
                for i in 0..$count {
                    self.0[i] = Self::scaled_one(self.0[i], rounded.0[i]);
                }
                self
            }
        }
    };
}

vector_f64!(
    Avx2F64,
    4,
    4,
    _mm256_load_pd,
    _mm256_store_pd,
    _mm256_set1_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_fmadd_pd,
    _mm256_max_pd
);
vector_f64!(
    Avx512F64,
    2,
    8,
    _mm512_load_pd,
    _mm512_store_pd,
    _mm512_set1_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    _mm512_fmadd_pd,
    _mm512_max_pd
);

impl Avx2F64 {
    #[inline(always)]
    fn least_lane(self) -> f64 {
        let [a, b, c, d] = self.0;
        // SAFETY: AVX2 was detected (module header).
        least_of_4(unsafe { _mm256_min_pd(_mm256_min_pd(a, b), _mm256_min_pd(c, d)) })
    }

    #[inline(always)]
    fn sum_of_lanes(self) -> f64 {
        let [a, b, c, d] = self.0;
        // SAFETY: AVX2 was detected (module header).
        sum_of_4(unsafe { _mm256_add_pd(_mm256_add_pd(a, c), _mm256_add_pd(b, d)) })
    }

    #[inline(always)]
    fn kept(kept: __m256d, value: __m256d, bound: __m256d) -> __m256d {
        // SAFETY: AVX2 was detected (module header).
        unsafe { _mm256_and_pd(kept, _mm256_cmp_pd::<_CMP_LE_OQ>(bound, value)) }
    }

    #[inline(always)]
    fn scaled_one(value: __m256d, rounded: __m256d) -> __m256d {
        // SAFETY: AVX2 was detected (module header).
        unsafe {
            let shifted = _mm256_slli_epi64::<52>(_mm256_castpd_si256(rounded));
            _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(value), shifted))
        }
    }
}

impl Avx512F64 {
    #[inline(always)]
    fn least_lane(self) -> f64 {
        let [a, b] = self.0;
        // SAFETY: AVX-512 was detected (module header).
        least_of_4(unsafe {
            let eight = _mm512_min_pd(a, b);
            _mm256_min_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd::<1>(eight))
        })
    }

    #[inline(always)]
    fn sum_of_lanes(self) -> f64 {
        let [a, b] = self.0;
        // SAFETY: AVX-512 was detected (module header).
        sum_of_4(unsafe {
            let eight = _mm512_add_pd(a, b);
            _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd::<1>(eight))
        })
    }

    #[inline(always)]
    fn kept(kept: __m512d, value: __m512d, bound: __m512d) -> __m512d {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_LE_OQ>(bound, value), kept) }
    }

    #[inline(always)]
    fn scaled_one(value: __m512d, rounded: __m512d) -> __m512d {
        // SAFETY: AVX-512 was detected (module header).
        unsafe {
            let shifted = _mm512_slli_epi64::<52>(_mm512_castpd_si512(rounded));
            _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(value), shifted))
        }
    }
}
