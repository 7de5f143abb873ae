//! `Lanes`: one value of sixteen images at once. Plain loops over the array become vector instructions of whatever
//! width the body is compiled for, so that there is one source for every instruction set.

use std::ops::{Add, AddAssign, Mul, Sub};

/// Images side by side in a tile.
pub const LANES: usize = 16;

/// Sixteen values, one an image.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; LANES]);

impl Lanes {
    /// Zero in every lane.
    pub const ZERO: Self = Self([0.0; LANES]);

    /// The same value in every lane.
    #[inline(always)]
    pub fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self;
        for (o, b) in out.0.iter_mut().zip(other.0) {
            *o = op(*o, b);
        }
        out
    }

    /// `self * factor + term`, fused where the instruction set has it; a libm call there would be thirty times slower.
    #[inline(always)]
    pub fn mul_add<const FMA: bool>(self, factor: Self, term: Self) -> Self {
        let mut out = self;
        for ((o, b), c) in out.0.iter_mut().zip(factor.0).zip(term.0) {
            *o = if FMA { o.mul_add(b, c) } else { *o * b + c };
        }
        out
    }

    /// The smaller value of each lane.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    /// The larger value of each lane.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    /// Whether any lane is below `bound`'s.
    #[inline(always)]
    pub fn any_below(self, bound: Self) -> bool {
        let mut below = 0_u32;
        for (a, b) in self.0.iter().zip(bound.0) {
            below |= u32::from(*a < b);
        }
        below != 0
    }

    /// The sum of all lanes, added as a fixed tree.
    #[inline(always)]
    pub fn sum(self) -> f32 {
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

    /// The smallest of all lanes.
    #[inline(always)]
    pub fn least(self) -> f32 {
        self.0.iter().copied().fold(f32::MAX, |a, b| if a < b { a } else { b })
    }

    /// `2^self` for lanes <= 0; below -100 the result is zero, so that no product with it is subnormal.
    ///
    /// Splits into integer and fraction in [-1/2, 1/2]; a sixth-degree minimax polynomial gives the fraction's power
    /// with a relative error below 3e-9, so that rounding dominates (within 1.5e-7 in all).
    #[inline(always)]
    pub fn exp2<const FMA: bool>(self) -> Self {
        // Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits.
        const ROUND: f32 = 12_582_912.0;
        let shifted = self + Self::splat(ROUND);
        let fraction = self - (shifted - Self::splat(ROUND));
        let mut power = Self::splat(EXP2[6]);
        for &coefficient in EXP2[..6].iter().rev() {
            power = power.mul_add::<FMA>(fraction, Self::splat(coefficient));
        }
        for ((p, s), t) in power.0.iter_mut().zip(shifted.0).zip(self.0) {
            let scaled = f32::from_bits(p.to_bits().wrapping_add(s.to_bits() << 23));
            *p = if t < -100.0 { 0.0 } else { scaled };
        }
        power
    }
}

/// Minimax coefficients of 2^f on [-1/2, 1/2], constant term first.
const EXP2: [f32; 7] = [1.0, 0.69314724, 0.24022652, 0.055503104, 0.009617693, 0.0013406643, 0.00015594676];

impl Add for Lanes {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl AddAssign for Lanes {
    #[inline(always)]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Lanes {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul for Lanes {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp2_is_accurate(t in -100.0_f32..=0.0) {
            let exact = f64::from(t).exp2();
            for value in [Lanes::splat(t).exp2::<false>(), Lanes::splat(t).exp2::<true>()] {
                prop_assert!((f64::from(value.0[3]) / exact - 1.0).abs() < 1.5e-7);
            }
        }

        #[test]
        fn sum_adds_every_lane(values in proptest::array::uniform16(-1.0_f32..1.0)) {
            let exact: f64 = values.iter().map(|&v| f64::from(v)).sum();
            prop_assert!((f64::from(Lanes(values).sum()) - exact).abs() < 1e-5);
        }
    }

    #[test]
    fn exp2_of_huge_negative_numbers_is_zero_and_of_zero_is_one() {
        assert_eq!(Lanes::splat(0.0).exp2::<false>().0, [1.0; LANES]);
        for t in [-100.5, -1e9, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(Lanes::splat(t).exp2::<true>().0[0], 0.0);
        }
    }

    #[test]
    fn one_lane_below_is_enough() {
        let mut values = [1.0; LANES];
        assert!(!Lanes(values).any_below(Lanes::splat(1.0)));
        values[15] = 0.5;
        assert!(Lanes(values).any_below(Lanes::splat(1.0)));
    }
}
