//! Vectors as plain arrays: the baseline of every CPU, and NEON, which is the baseline of 64-bit ARM.

use super::doubles::PortableF64;
use super::{Bf16x16, F32x8, F32x16, I32x16, LANES, U16_LANES, U16x32, Vector, VectorI32, VectorU16, WIDE};

/// Sixteen values as an array; `FMA` says whether the target has a fused multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct Portable<const FMA: bool>([f32; LANES]);

/// Sixteen integers as an array.
#[derive(Clone, Copy)]
pub(crate) struct PortableI32([i32; LANES]);

impl PortableI32 {
    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(i32, i32) -> i32) -> Self {
        let mut out = self.0;
        for (o, b) in out.iter_mut().zip(other.0) {
            *o = op(*o, b);
        }
        Self(out)
    }
}

impl VectorI32 for PortableI32 {
    #[inline(always)]
    fn load(lanes: &I32x16) -> Self {
        Self(lanes.0)
    }

    #[inline(always)]
    fn store(self, lanes: &mut I32x16) {
        lanes.0 = self.0;
    }

    #[inline(always)]
    fn splat(value: i32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_add)
    }

    #[inline(always)]
    fn sum_of_products(self, other: Self) -> Self {
        let product = |a: i32, b: i32| i32::from(a as i16) * i32::from(b as i16);
        self.zip(other, |a, b| product(a, b).wrapping_add(product(a >> 16, b >> 16)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_sub)
    }
}

/// Integers of sixteen bits as an array.
#[derive(Clone, Copy)]
pub(crate) struct PortableU16([u16; U16_LANES]);

impl PortableU16 {
    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(u16, u16) -> u16) -> Self {
        let mut out = self.0;
        for (o, b) in out.iter_mut().zip(other.0) {
            *o = op(*o, b);
        }
        Self(out)
    }

    /// The same for numbers with sign.
    #[inline(always)]
    fn zip_signed(self, other: Self, op: impl Fn(i16, i16) -> i16) -> Self {
        self.zip(other, |a, b| op(a.cast_signed(), b.cast_signed()).cast_unsigned())
    }
}

impl VectorU16 for PortableU16 {
    #[inline(always)]
    fn load(lanes: &U16x32) -> Self {
        Self(lanes.0)
    }

    #[inline(always)]
    fn store(self, lanes: &mut U16x32) {
        lanes.0 = self.0;
    }

    #[inline(always)]
    fn splat(value: u16) -> Self {
        Self([value; U16_LANES])
    }

    #[inline(always)]
    fn difference(self, other: Self) -> Self {
        self.zip_signed(other, i16::saturating_sub)
    }

    #[inline(always)]
    fn twice(self) -> Self {
        self.zip_signed(self, i16::saturating_add)
    }

    #[inline(always)]
    fn square(self) -> Self {
        let square = |a: i16| ((i32::from(a) * i32::from(a) + (1 << 14)) >> 15) as u16;
        self.zip(self, |a, _| square(a.cast_signed()))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, u16::saturating_add)
    }

    #[inline(always)]
    fn below(self, bound: Self) -> u32 {
        let mut below = 0;
        for lane in 0..U16_LANES {
            below |= u32::from(self.0[lane] < bound.0[lane]) << lane;
        }
        below
    }
}

/// The nearest integer, ties to even. Where the CPU has no instruction for it, [`f32::round_ties_even`] is a library call;
/// adding and subtracting 2^23 is none, and floats of that size and more are integers.
#[inline(always)]
fn round(value: f32) -> i32 {
    const INTEGERS_FROM: f32 = 8_388_608.0;
    let size = value.abs();
    let rounded = if size < INTEGERS_FROM { (size + INTEGERS_FROM) - INTEGERS_FROM } else { size };
    rounded.copysign(value) as i32
}

impl<const FMA: bool> Portable<FMA> {
    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (o, b) in out.iter_mut().zip(other.0) {
            *o = op(*o, b);
        }
        Self(out)
    }
}

impl<const FMA: bool> Vector for Portable<FMA> {
    type U16 = PortableU16;
    type I32 = PortableI32;
    type F64 = PortableF64<FMA>;

    #[inline(always)]
    fn round(self) -> Self::I32 {
        let mut out = [0; LANES];
        for (o, value) in out.iter_mut().zip(self.0) {
            *o = round(value);
        }
        PortableI32(out)
    }

    #[inline(always)]
    fn from_i32(integers: Self::I32) -> Self {
        let mut out = [0.0; LANES];
        for (o, value) in out.iter_mut().zip(integers.0) {
            *o = value as f32;
        }
        Self(out)
    }

    #[inline(always)]
    fn load(lanes: &F32x16) -> Self {
        Self(lanes.0)
    }

    #[inline(always)]
    fn load_bytes(bytes: &[u8; LANES]) -> Self {
        Self(bytes.map(f32::from))
    }

    #[inline(always)]
    fn load_bf16(packed: &Bf16x16) -> Self {
        let mut out = [0.0; LANES];
        for (i, word) in packed.0.into_iter().enumerate() {
            out[i] = f32::from_bits(word << 16);
            out[i + LANES / 2] = f32::from_bits(word & 0xffff_0000);
        }
        Self(out)
    }

    #[inline(always)]
    fn store_bf16(self, packed: &mut Bf16x16) {
        for (i, word) in packed.0.iter_mut().enumerate() {
            *word = self.0[i].to_bits() >> 16 | self.0[i + LANES / 2].to_bits() & 0xffff_0000;
        }
    }

    #[inline(always)]
    fn transpose_wide(rows: &[&[u8; WIDE]; LANES], columns: &mut [[u8; LANES]; WIDE]) {
        for (i, column) in columns.iter_mut().enumerate() {
            for (byte, row) in column.iter_mut().zip(rows) {
                *byte = row[i];
            }
        }
    }

    #[inline(always)]
    fn store(self, lanes: &mut F32x16) {
        lanes.0 = self.0;
    }

    #[inline(always)]
    fn add_to(self, sums: &mut F32x8) {
        for (i, sum) in sums.0.iter_mut().enumerate() {
            *sum += self.0[i] + self.0[i + LANES / 2];
        }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        if !FMA {
            return self.mul(factor).add(term);
        }
        let mut out = self.0;
        for ((o, b), c) in out.iter_mut().zip(factor.0).zip(term.0) {
            *o = o.mul_add(b, c);
        }
        Self(out)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn below(self, bound: Self) -> u32 {
        let mut below = 0;
        for lane in 0..LANES {
            below |= u32::from(self.0[lane] < bound.0[lane]) << lane;
        }
        below
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let mut fold = self.0;
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                fold[i] += fold[i + half];
            }
            half /= 2;
        }
        fold[0]
    }

    /// Splits into integer and fraction in [-1/2, 1/2]; a sixth-degree minimax polynomial gives the fraction's power
    /// with a relative error below 3e-9, so that rounding dominates. Its terms are paired (Estrin), because the loops
    /// that use it wait for each result.
    #[inline(always)]
    fn exp2(self) -> Self {
        // Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits.
        const ROUND: f32 = 12_582_912.0;
        let shifted = self.add(Self::splat(ROUND));
        let f = self.add(Self::splat(ROUND).sub(shifted));
        let pair = |i: usize| f.mul_add(Self::splat(EXP2[i + 1]), Self::splat(EXP2[i]));
        let square = f.mul(f);
        let (low, middle, high) = (pair(0), pair(2), square.mul_add(Self::splat(EXP2[6]), pair(4)));
        let power = high.mul_add(square, middle).mul_add(square, low);
        power.zip(shifted, |power, shifted| f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23)))
    }
}

/// Minimax coefficients of 2^f on [-1/2, 1/2], constant term first.
const EXP2: [f32; 7] =
    [1.0, 0.693_147_24, 0.240_226_52, 0.055_503_104, 0.009_617_693, 0.001_340_664_3, 0.000_155_946_76];

/// Rows to columns of a 16 x 16 block of bytes.
#[cfg(any(not(target_arch = "x86_64"), miri))]
#[inline(always)]
pub(crate) fn transpose_bytes(rows: &[&[u8; LANES]; LANES], columns: &mut [[u8; LANES]; LANES]) {
    for (i, column) in columns.iter_mut().enumerate() {
        for (byte, row) in column.iter_mut().zip(rows) {
            *byte = row[i];
        }
    }
}
