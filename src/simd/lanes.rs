//! Values in memory, one image per lane: what kernels load and store.

/// Images side by side in a tile.
pub(crate) const LANES: usize = 16;

/// Sixteen values in memory, one per image.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct F32x16(pub(crate) [f32; LANES]);

impl F32x16 {
    /// Zero in every lane.
    pub(crate) const ZERO: Self = Self::splat(0.0);

    /// The same value in every lane.
    #[must_use]
    pub(crate) const fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    /// The values of a slice of vectors, one after the other.
    #[must_use]
    pub(crate) fn flat(lanes: &[Self]) -> &[f32] {
        // SAFETY: `F32x16` is sixteen floats and no padding, so that a slice of them is a slice of floats.
        unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
    }
}

/// Sixteen values in float64 in memory, one per image. They have no [`Vector`](super::Vector): where float64 is needed,
/// plain loops over the lanes are fast enough.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct F64x16(pub(crate) [f64; LANES]);

impl F64x16 {
    /// Zero in every lane.
    pub(crate) const ZERO: Self = Self([0.0; LANES]);

    /// The smallest of all lanes; lanes that are NaN do not count.
    #[inline(always)]
    pub(crate) fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Sixteen integers in memory, one per image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct I32x16(pub(crate) [i32; LANES]);

impl I32x16 {
    /// Zero in every lane.
    pub(crate) const ZERO: Self = Self([0; LANES]);
}

/// Lanes of integers of sixteen bits: two tiles of images.
pub(crate) const U16_LANES: usize = 2 * LANES;

/// Integers of sixteen bits in memory, signed or unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct U16x32(pub(crate) [u16; U16_LANES]);

impl U16x32 {
    /// Zero in every lane.
    pub(crate) const ZERO: Self = Self([0; U16_LANES]);
}

/// Sums of sixteen values, lanes i and i + 8 together.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(crate) struct F32x8(pub(crate) [f32; LANES / 2]);

impl F32x8 {
    /// Zero in every lane.
    pub(crate) const ZERO: Self = Self([0.0; LANES / 2]);

    /// The sum of all lanes, added as a fixed tree.
    #[must_use]
    pub(crate) fn sum(&self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// Sixteen values of at most eight significant bits in memory, as the upper halves of their floats (bfloat16): lane i in
/// the low half of element i, lane i + 8 in the high half. Loading them takes a shift and a mask, where bytes would take a
/// widening, a conversion and the subtraction of the centre.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(crate) struct Bf16x16(pub(crate) [u32; LANES / 2]);

impl Bf16x16 {
    /// Zero in every lane.
    pub(crate) const ZERO: Self = Self([0; LANES / 2]);

    /// Sets one lane to a value of at most eight significant bits.
    pub(crate) fn set(&mut self, lane: usize, value: f32) {
        let bits = value.to_bits() >> 16;
        let word = &mut self.0[lane % (LANES / 2)];
        *word = if lane < LANES / 2 { *word & 0xffff_0000 | bits } else { *word & 0xffff | bits << 16 };
    }
}

/// 128 times the bytes less the centre of their range, with sign; plain arithmetic, which compilers vectorise.
#[inline(always)]
#[must_use]
pub(crate) fn centred_i16(bytes: &[u8; LANES]) -> [u16; LANES] {
    const CENTRE: u16 = 16_320;
    let mut centred = [0; LANES];
    for i in 0..LANES {
        centred[i] = (u16::from(bytes[i]) << 7).wrapping_sub(CENTRE);
    }
    centred
}
