//! Vectors of x86-64: AVX2 with FMA as two registers, AVX-512 as one.
//!
//! # Safety
//!
//! Methods of [`Avx2`] and [`Avx512`] run instructions that the CPU may lack. These types are private to
//! [`crate::simd`], and only [`Isa::run`](super::Isa::run) hands them to kernels, for a level whose features were
//! detected. Memory is accessed through references of exactly the size that is read or written.

use std::arch::x86_64::{
    __m128, __m256, __m256i, __m512, __m512i, _CMP_LT_OQ, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadl_epi64,
    _mm_loadu_si128, _mm_movehl_ps, _mm_shuffle_ps, _mm_storeu_ps, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256,
    _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_cvtps_epi32, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_load_ps,
    _mm256_load_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_ps, _mm256_min_ps, _mm256_movemask_ps,
    _mm256_mul_ps, _mm256_or_ps, _mm256_or_si256, _mm256_permutevar8x32_epi32, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_shuffle_ps, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_store_ps, _mm256_store_si256, _mm256_sub_epi32,
    _mm256_sub_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_broadcast_i64x4,
    _mm512_castps_si512, _mm512_castps512_ps256, _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtps_epi32, _mm512_extractf32x8_ps, _mm512_fmadd_ps,
    _mm512_load_ps, _mm512_load_si512, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_max_ps, _mm512_min_ps,
    _mm512_mul_ps, _mm512_permutexvar_epi16, _mm512_permutexvar_epi32, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_shuffle_epi8, _mm512_slli_epi32, _mm512_store_ps, _mm512_store_si512, _mm512_sub_epi32, _mm512_sub_ps,
};

use super::x86_f64::{Avx2F64, Avx512F64};
use super::x86_transpose::{transpose_wide, transpose_wide_avx512};
use super::x86_u16::{Avx2U16, Avx512U16};
use super::{Bf16x16, F32x8, F32x16, I32x16, LANES, Vector, VectorI32, WIDE};

/// Sixteen values in two AVX2 registers.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

/// Sixteen values in one AVX-512 register.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

/// Sixteen integers in two AVX2 registers.
#[derive(Clone, Copy)]
pub(super) struct Avx2I32(__m256i, __m256i);

/// Sixteen integers in one AVX-512 register.
#[derive(Clone, Copy)]
pub(super) struct Avx512I32(__m512i);

// Closures handed to library functions such as `array::map` are not compiled for the kernel's features: intrinsics in
// them become calls. So everything here is spelled out.

impl Avx2 {
    /// The sum of its two halves.
    #[inline(always)]
    fn sum_of_halves(self) -> __m256 {
        // SAFETY: AVX2 was detected (module header).
        unsafe { _mm256_add_ps(self.0, self.1) }
    }
}

impl Avx512 {
    /// The sum of its two halves.
    #[inline(always)]
    fn sum_of_halves(self) -> __m256 {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)) }
    }
}

#[inline(always)]
fn sum_of_halves_256(v: __m256) -> __m128 {
    // SAFETY: AVX2 was detected (module header).
    unsafe { _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)) }
}

#[inline(always)]
fn sum_of_256(v: __m256) -> f32 {
    // SAFETY: AVX2 was detected (module header).
    unsafe {
        let half = sum_of_halves_256(v);
        let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
    }
}

/// The sums of four vectors of eight, as a transposition that adds while it shuffles.
#[inline(always)]
fn sums_of_256(four: [__m256; 4]) -> [f32; 4] {
    // SAFETY: AVX2 was detected (module header); the array is four floats.
    unsafe {
        let [a, b, c, d] = four;
        let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        // Pairs of 32-bit values as pairs of doubles: first those of ab and cd, then the second ones.
        let first = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
        let second = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
        let mut sums = [0.0; 4];
        _mm_storeu_ps(sums.as_mut_ptr(), sum_of_halves_256(_mm256_add_ps(first, second)));
        sums
    }
}

/// Lanes 0 to 7 and lanes 8 to 15 of sixteen values, see [`Bf16x16`].
#[inline(always)]
fn load_bf16(packed: &Bf16x16) -> (__m256, __m256) {
    // SAFETY: AVX2 was detected (module header); `Bf16x16` is 32 bytes, aligned to 32.
    unsafe {
        let pairs = _mm256_load_si256(packed.0.as_ptr().cast());
        let high = _mm256_and_si256(pairs, _mm256_set1_epi32(HIGH));
        (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(high))
    }
}

/// The inverse of [`load_bf16`].
#[inline(always)]
fn store_bf16(low: __m256, high: __m256, packed: &mut Bf16x16) {
    // SAFETY: AVX2 was detected (module header); `Bf16x16` is 32 bytes, aligned to 32.
    unsafe {
        let low = _mm256_srli_epi32::<16>(_mm256_castps_si256(low));
        let high = _mm256_and_si256(_mm256_castps_si256(high), _mm256_set1_epi32(HIGH));
        _mm256_store_si256(packed.0.as_mut_ptr().cast(), _mm256_or_si256(low, high));
    }
}

#[inline(always)]
fn add_to(values: __m256, sums: &mut F32x8) {
    let at = sums.0.as_mut_ptr();
    // SAFETY: AVX2 was detected (module header); `F32x8` is 8 floats, aligned to 32 bytes.
    unsafe { _mm256_store_ps(at, _mm256_add_ps(_mm256_load_ps(at), values)) }
}

/// The byte shuffle that unpacks [`Bf16x16`], per 128 bits: two quarters take the lower halves of their elements, two the
/// upper halves. The highest bit stands for a zero byte.
const UNPACK_BF16: [u8; 64] = {
    let mut bytes = [0x80; 64];
    let mut word = 0;
    while word < 16 {
        let from = (4 * (word % 4) + if word < 8 { 0 } else { 2 }) as u8;
        (bytes[4 * word + 2], bytes[4 * word + 3]) = (from, from + 1);
        word += 1;
    }
    bytes
};

/// The shuffle of sixteen bits that packs floats to [`Bf16x16`]: upper halves of two floats that lie eight apart.
const PACK_BF16: [u16; 32] = {
    let mut words = [0; 32];
    let mut i = 0;
    while i < 8 {
        (words[2 * i], words[2 * i + 1]) = (2 * i as u16 + 1, 2 * (i + 8) as u16 + 1);
        i += 1;
    }
    words
};

/// The upper half of 32 bits.
const HIGH: i32 = 0xffff_0000_u32.cast_signed();

/// Vectors with a table of eighths of powers of two in a register.
trait Powers: Vector {
    /// `2^(n / 8)` where the vector holds the integer n in its low mantissa bits.
    fn powers(self) -> Self;

    /// As [`Vector::exp2`], with a table for the eighths, so that the fraction in [-1/16, 1/16] needs the third degree
    /// only: relative error of the polynomial 2.7e-8, of the table 3.2e-8.
    #[inline(always)]
    fn exp2_by_table(self) -> Self {
        // Adding 1.5 * 2^20 leaves the nearest number of eighths in the low mantissa bits.
        const ROUND: f32 = 1_572_864.0;
        let shifted = self.add(Self::splat(ROUND));
        let f = self.add(Self::splat(ROUND).sub(shifted));
        let power = shifted.powers();
        let slope = f.mul_add(Self::splat(SLOPE[2]), Self::splat(SLOPE[1])).mul_add(f, Self::splat(SLOPE[0]));
        slope.mul_add(f.mul(power), power)
    }
}

/// Minimax coefficients of `(2^f - 1) / f` on [-1/16, 1/16], constant term first.
const SLOPE: [f32; 3] = [0.693_147_24, 0.240_257_64, 0.055_496_223];

/// The floats `2^(i / 8)` as bits, less i in the exponent's lowest bits and above, where n of `2^(n / 8)` is added.
const EIGHTHS: [i32; 8] =
    [0x3f80_0000, 0x3f7b_95c2, 0x3f78_37f0, 0x3f75_fed7, 0x3f75_04f3, 0x3f75_672a, 0x3f77_44fd, 0x3f7a_c0c7];

impl Powers for Avx2 {
    #[inline(always)]
    fn powers(self) -> Self {
        // SAFETY: AVX2 was detected (module header); `EIGHTHS` is 32 bytes.
        unsafe {
            let table = _mm256_loadu_si256(EIGHTHS.as_ptr().cast());
            Self(powers_of_256(table, self.0), powers_of_256(table, self.1))
        }
    }
}

#[inline(always)]
fn powers_of_256(table: __m256i, shifted: __m256) -> __m256 {
    // SAFETY: AVX2 was detected (module header).
    unsafe {
        let n = _mm256_castps_si256(shifted);
        let power = _mm256_permutevar8x32_epi32(table, n);
        _mm256_castsi256_ps(_mm256_add_epi32(power, _mm256_slli_epi32::<20>(n)))
    }
}

impl Powers for Avx512 {
    #[inline(always)]
    fn powers(self) -> Self {
        // SAFETY: AVX-512 was detected (module header); `EIGHTHS` is 32 bytes.
        unsafe {
            let table = _mm512_broadcast_i64x4(_mm256_loadu_si256(EIGHTHS.as_ptr().cast()));
            let n = _mm512_castps_si512(self.0);
            let power = _mm512_permutexvar_epi32(n, table);
            Self(_mm512_castsi512_ps(_mm512_add_epi32(power, _mm512_slli_epi32::<20>(n))))
        }
    }
}

impl VectorI32 for Avx2I32 {
    #[inline(always)]
    fn load(lanes: &I32x16) -> Self {
        let at = lanes.0.as_ptr();
        // SAFETY: AVX2 was detected (module header); `I32x16` is 64 bytes, aligned to 64 bytes.
        unsafe { Self(_mm256_load_si256(at.cast()), _mm256_load_si256(at.add(8).cast())) }
    }

    #[inline(always)]
    fn store(self, lanes: &mut I32x16) {
        let at = lanes.0.as_mut_ptr();
        // SAFETY: AVX2 was detected (module header); `I32x16` is 64 bytes, aligned to 64 bytes.
        unsafe {
            _mm256_store_si256(at.cast(), self.0);
            _mm256_store_si256(at.add(8).cast(), self.1);
        }
    }

    #[inline(always)]
    fn splat(value: i32) -> Self {
        // SAFETY: AVX2 was detected (module header).
        let half = unsafe { _mm256_set1_epi32(value) };
        Self(half, half)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_add_epi32(self.0, other.0), _mm256_add_epi32(self.1, other.1)) }
    }

    #[inline(always)]
    fn sum_of_products(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_madd_epi16(self.0, other.0), _mm256_madd_epi16(self.1, other.1)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_sub_epi32(self.0, other.0), _mm256_sub_epi32(self.1, other.1)) }
    }
}

impl VectorI32 for Avx512I32 {
    #[inline(always)]
    fn load(lanes: &I32x16) -> Self {
        // SAFETY: AVX-512 was detected (module header); `I32x16` is 64 bytes, aligned to 64 bytes.
        unsafe { Self(_mm512_load_si512(lanes.0.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store(self, lanes: &mut I32x16) {
        // SAFETY: AVX-512 was detected (module header); `I32x16` is 64 bytes, aligned to 64 bytes.
        unsafe { _mm512_store_si512(lanes.0.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn splat(value: i32) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_set1_epi32(value)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_add_epi32(self.0, other.0)) }
    }

    #[inline(always)]
    fn sum_of_products(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_madd_epi16(self.0, other.0)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_sub_epi32(self.0, other.0)) }
    }
}

impl Vector for Avx2 {
    type U16 = Avx2U16;
    type I32 = Avx2I32;
    type F64 = Avx2F64;

    #[inline(always)]
    fn round(self) -> Self::I32 {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Avx2I32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1)) }
    }

    #[inline(always)]
    fn from_i32(integers: Self::I32) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_cvtepi32_ps(integers.0), _mm256_cvtepi32_ps(integers.1)) }
    }

    #[inline(always)]
    fn load(lanes: &F32x16) -> Self {
        let at = lanes.0.as_ptr();
        // SAFETY: AVX2 was detected (module header); `F32x16` is 16 floats, aligned to 64 bytes.
        unsafe { Self(_mm256_load_ps(at), _mm256_load_ps(at.add(8))) }
    }

    #[inline(always)]
    fn load_bytes(bytes: &[u8; LANES]) -> Self {
        let at = bytes.as_ptr();
        // SAFETY: AVX2 was detected (module header); two unaligned reads of 8 of the 16 bytes.
        unsafe {
            let (low, high) = (_mm_loadl_epi64(at.cast()), _mm_loadl_epi64(at.add(8).cast()));
            Self(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(low)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(high)))
        }
    }

    #[inline(always)]
    fn load_bf16(packed: &Bf16x16) -> Self {
        let (low, high) = load_bf16(packed);
        Self(low, high)
    }

    #[inline(always)]
    fn store_bf16(self, packed: &mut Bf16x16) {
        store_bf16(self.0, self.1, packed);
    }

    #[inline(always)]
    fn transpose_wide(rows: &[&[u8; WIDE]; LANES], columns: &mut [[u8; LANES]; WIDE]) {
        transpose_wide(rows, columns);
    }

    #[inline(always)]
    fn store(self, lanes: &mut F32x16) {
        let at = lanes.0.as_mut_ptr();
        // SAFETY: AVX2 was detected (module header); `F32x16` is 16 floats, aligned to 64 bytes.
        unsafe {
            _mm256_store_ps(at, self.0);
            _mm256_store_ps(at.add(8), self.1);
        }
    }

    #[inline(always)]
    fn add_to(self, sums: &mut F32x8) {
        add_to(self.sum_of_halves(), sums);
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: AVX2 and FMA were detected (module header).
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, term.0), _mm256_fmadd_ps(self.1, factor.1, term.1)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX2 was detected (module header).
        unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn below(self, bound: Self) -> u32 {
        // SAFETY: AVX2 was detected (module header).
        unsafe {
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(self.1, bound.1));
            low.cast_unsigned() | high.cast_unsigned() << 8
        }
    }

    #[inline(always)]
    fn any_below(self, bound: Self) -> bool {
        // SAFETY: AVX2 was detected (module header).
        unsafe {
            let low = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0);
            let high = _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, bound.1);
            _mm256_movemask_ps(_mm256_or_ps(low, high)) != 0
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        sum_of_256(self.sum_of_halves())
    }

    #[inline(always)]
    fn sums(four: [Self; 4]) -> [f32; 4] {
        sums_of_256([
            four[0].sum_of_halves(),
            four[1].sum_of_halves(),
            four[2].sum_of_halves(),
            four[3].sum_of_halves(),
        ])
    }

    #[inline(always)]
    fn exp2(self) -> Self {
        self.exp2_by_table()
    }
}

impl Vector for Avx512 {
    type U16 = Avx512U16;
    type I32 = Avx512I32;
    type F64 = Avx512F64;

    #[inline(always)]
    fn round(self) -> Self::I32 {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Avx512I32(_mm512_cvtps_epi32(self.0)) }
    }

    #[inline(always)]
    fn from_i32(integers: Self::I32) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_cvtepi32_ps(integers.0)) }
    }

    #[inline(always)]
    fn load(lanes: &F32x16) -> Self {
        // SAFETY: AVX-512 was detected (module header); `F32x16` is 16 floats, aligned to 64 bytes.
        unsafe { Self(_mm512_load_ps(lanes.0.as_ptr())) }
    }

    #[inline(always)]
    fn load_bytes(bytes: &[u8; LANES]) -> Self {
        // SAFETY: AVX-512 was detected (module header); one unaligned read of the 16 bytes.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())))) }
    }

    #[inline(always)]
    fn load_bf16(packed: &Bf16x16) -> Self {
        // SAFETY: AVX-512 was detected (module header); `Bf16x16` is 32 bytes, aligned to 32, `UNPACK_BF16` 64 bytes.
        unsafe {
            let pairs = _mm512_broadcast_i64x4(_mm256_load_si256(packed.0.as_ptr().cast()));
            let unpack = _mm512_loadu_si512(UNPACK_BF16.as_ptr().cast());
            Self(_mm512_castsi512_ps(_mm512_shuffle_epi8(pairs, unpack)))
        }
    }

    #[inline(always)]
    fn store_bf16(self, packed: &mut Bf16x16) {
        // SAFETY: AVX-512 was detected (module header); `PACK_BF16` is 64 bytes, `Bf16x16` 32, aligned to 32.
        unsafe {
            let pack = _mm512_loadu_si512(PACK_BF16.as_ptr().cast());
            let halves = _mm512_permutexvar_epi16(pack, _mm512_castps_si512(self.0));
            _mm256_store_si256(packed.0.as_mut_ptr().cast(), _mm512_castsi512_si256(halves));
        }
    }

    #[inline(always)]
    fn transpose_wide(rows: &[&[u8; WIDE]; LANES], columns: &mut [[u8; LANES]; WIDE]) {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { transpose_wide_avx512(rows, columns) }
    }

    #[inline(always)]
    fn store(self, lanes: &mut F32x16) {
        // SAFETY: AVX-512 was detected (module header); `F32x16` is 16 floats, aligned to 64 bytes.
        unsafe { _mm512_store_ps(lanes.0.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add_to(self, sums: &mut F32x8) {
        add_to(self.sum_of_halves(), sums);
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, term.0)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_min_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn below(self, bound: Self) -> u32 {
        // SAFETY: AVX-512 was detected (module header).
        unsafe { u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, bound.0)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        sum_of_256(self.sum_of_halves())
    }

    #[inline(always)]
    fn sums(four: [Self; 4]) -> [f32; 4] {
        sums_of_256([
            four[0].sum_of_halves(),
            four[1].sum_of_halves(),
            four[2].sum_of_halves(),
            four[3].sum_of_halves(),
        ])
    }

    #[inline(always)]
    fn exp2(self) -> Self {
        self.exp2_by_table()
    }
}
