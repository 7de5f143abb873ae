//! Rows of bytes to columns on x86-64.

use std::arch::x86_64::{
    _mm_loadu_si128, _mm_setzero_si128, _mm_storeu_si128, _mm_unpackhi_epi8, _mm_unpacklo_epi8,
    _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_unpackhi_epi8, _mm512_unpacklo_epi8,
};

use super::{LANES, WIDE};

/// One of the four rounds that make columns of rows of sixteen bytes, in every quarter of the registers: rows that lie eight apart are
/// interleaved. Spelled out, as the compiler copies the array of a loop through memory.
macro_rules! interleave {
    ($rows:ident, $low:ident, $high:ident) => {
        interleave!($rows, $low, $high, 0 8, 1 9, 2 10, 3 11, 4 12, 5 13, 6 14, 7 15)
    };
    ($rows:ident, $low:ident, $high:ident, $($first:literal $second:literal),*) => {
        [$($low($rows[$first], $rows[$second]), $high($rows[$first], $rows[$second])),*]
    };
}

/// Rows to columns of a 16 x 16 block of bytes.
#[inline(always)]
pub(crate) fn transpose_bytes(rows: &[&[u8; LANES]; LANES], columns: &mut [[u8; LANES]; LANES]) {
    // SAFETY: SSE2 is part of x86-64; 16 unaligned reads and writes of 16 bytes each.
    unsafe {
        let mut block = [_mm_setzero_si128(); LANES];
        for i in 0..LANES {
            block[i] = _mm_loadu_si128(rows[i].as_ptr().cast());
        }
        let block = interleave!(block, _mm_unpacklo_epi8, _mm_unpackhi_epi8);
        let block = interleave!(block, _mm_unpacklo_epi8, _mm_unpackhi_epi8);
        let block = interleave!(block, _mm_unpacklo_epi8, _mm_unpackhi_epi8);
        let block = interleave!(block, _mm_unpacklo_epi8, _mm_unpackhi_epi8);
        for (column, bytes) in columns.iter_mut().zip(block) {
            _mm_storeu_si128(column.as_mut_ptr().cast(), bytes);
        }
    }
}

/// The same of four blocks side by side, one after the other.
#[inline(always)]
pub(super) fn transpose_wide(rows: &[&[u8; WIDE]; LANES], columns: &mut [[u8; LANES]; WIDE]) {
    let mut block = [&[0; LANES]; LANES];
    for (first, columns) in columns.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        for (row, wide) in block.iter_mut().zip(rows) {
            *row = &wide.as_chunks().0[first];
        }
        transpose_bytes(&block, columns);
    }
}

/// The same with AVX-512: all four at once, one in each quarter of the registers.
///
/// # Safety
///
/// The CPU has AVX-512.
#[inline(always)]
pub(super) unsafe fn transpose_wide_avx512(rows: &[&[u8; WIDE]; LANES], columns: &mut [[u8; LANES]; WIDE]) {
    // SAFETY: AVX-512 was detected by the caller; 16 unaligned reads of 64 bytes, and 64 writes of 16 bytes.
    unsafe {
        let mut block = [_mm512_setzero_si512(); LANES];
        for i in 0..LANES {
            block[i] = _mm512_loadu_si512(rows[i].as_ptr().cast());
        }
        let block = interleave!(block, _mm512_unpacklo_epi8, _mm512_unpackhi_epi8);
        let block = interleave!(block, _mm512_unpacklo_epi8, _mm512_unpackhi_epi8);
        let block = interleave!(block, _mm512_unpacklo_epi8, _mm512_unpackhi_epi8);
        let block = interleave!(block, _mm512_unpacklo_epi8, _mm512_unpackhi_epi8);
        for i in 0..LANES {
            let [a, b, c, d] = [i, LANES + i, 2 * LANES + i, 3 * LANES + i];
            _mm_storeu_si128(columns[a].as_mut_ptr().cast(), _mm512_extracti32x4_epi32::<0>(block[i]));
            _mm_storeu_si128(columns[b].as_mut_ptr().cast(), _mm512_extracti32x4_epi32::<1>(block[i]));
            _mm_storeu_si128(columns[c].as_mut_ptr().cast(), _mm512_extracti32x4_epi32::<2>(block[i]));
            _mm_storeu_si128(columns[d].as_mut_ptr().cast(), _mm512_extracti32x4_epi32::<3>(block[i]));
        }
    }
}
