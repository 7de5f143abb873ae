//! Sixteen values of float64 in registers: the operations of [`VectorF64`], and their plain implementation.

use super::{F64x16, LANES};

/// What is added to a number of small magnitude to round it to an integer, which then fills the last digits.
pub(super) const ROUNDING: f64 = 6_755_399_441_055_744.0;

/// Powers of two below this are zero.
pub(super) const LEAST_POWER: f64 = -1000.0;

/// The coefficients of `2^f` as a polynomial of f, from the constant on: the powers of ln 2 divided by factorials.
const COEFFICIENTS: [f64; 14] = coefficients();

const fn coefficients() -> [f64; 14] {
    let mut all = [1.0; 14];
    let mut i = 1;
    while i < all.len() {
        all[i] = all[i - 1] * std::f64::consts::LN_2 / i as f64;
        i += 1;
    }
    all
}

/// Sixteen values of float64 in registers.
pub(crate) trait VectorF64: Copy {
    /// From memory.
    fn load(lanes: &F64x16) -> Self;
    /// To memory.
    fn store(self, lanes: &mut F64x16);
    /// The same value in every lane.
    fn splat(value: f64) -> Self;
    /// Lane by lane sum.
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// Lane by lane difference.
    #[must_use]
    fn sub(self, other: Self) -> Self;
    /// Lane by lane product.
    #[must_use]
    fn mul(self, other: Self) -> Self;
    /// `self * factor + term`, fused where the instruction set has it.
    #[must_use]
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger value of each lane.
    #[must_use]
    fn max(self, other: Self) -> Self;
    /// The smallest of all lanes.
    fn least(self) -> f64;
    /// The sum of all lanes, added as a fixed tree: lanes i and i + 8, then i and i + 4, and so on.
    fn sum(self) -> f64;
    /// The values of lanes where `bound` is at most `value`, zero elsewhere.
    #[must_use]
    fn where_from(self, value: Self, bound: Self) -> Self;
    /// The values times two to the integers in the last digits of `rounded`, see [`ROUNDING`].
    #[must_use]
    fn scaled(self, rounded: Self) -> Self;
    /// `2^self` for exponents up to zero, or slightly above, within a few units of the last place; zero below -1000.
    #[must_use]
    #[inline(always)]
    fn exp2(self) -> Self {
        let (least, rounding) = (Self::splat(LEAST_POWER), Self::splat(ROUNDING));
        let exponent = self.max(least);
        let rounded = exponent.add(rounding);
        let fraction = exponent.sub(rounded.sub(rounding));
        let mut power = Self::splat(COEFFICIENTS[COEFFICIENTS.len() - 1]);
        let mut i = COEFFICIENTS.len() - 1;
        while i > 0 {
            i -= 1;
            power = power.mul_add(fraction, Self::splat(COEFFICIENTS[i]));
        }
        power.scaled(rounded).where_from(self, least)
    }
}

/// Sixteen values of float64 as an array; `FMA` says whether the target has a fused multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct PortableF64<const FMA: bool>([f64; LANES]);

impl<const FMA: bool> PortableF64<FMA> {
    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(f64, f64) -> f64) -> Self {
        let mut out = self.0;
        for (o, b) in out.iter_mut().zip(other.0) {
            *o = op(*o, b);
        }
        Self(out)
    }
}

impl<const FMA: bool> VectorF64 for PortableF64<FMA> {
    #[inline(always)]
    fn load(lanes: &F64x16) -> Self {
        Self(lanes.0)
    }

    #[inline(always)]
    fn store(self, lanes: &mut F64x16) {
        lanes.0 = self.0;
    }

    #[inline(always)]
    fn splat(value: f64) -> Self {
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
        let mut out = self.0;
        for (o, (b, c)) in out.iter_mut().zip(factor.0.into_iter().zip(term.0)) {
            *o = if FMA { o.mul_add(b, c) } else { *o * b + c };
        }
        Self(out)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn least(self) -> f64 {
        self.0.into_iter().fold(f64::INFINITY, |least, value| if value < least { value } else { least })
    }

    #[inline(always)]
    fn sum(self) -> f64 {
        let mut sums = self.0;
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
            half /= 2;
        }
        sums[0]
    }

    #[inline(always)]
    fn where_from(self, value: Self, bound: Self) -> Self {
        let mut out = self.0;
        for (o, (value, bound)) in out.iter_mut().zip(value.0.into_iter().zip(bound.0)) {
            *o = if bound <= value { *o } else { 0.0 };
        }
        Self(out)
    }

    #[inline(always)]
    fn scaled(self, rounded: Self) -> Self {
        self.zip(rounded, |value, rounded| f64::from_bits(value.to_bits().wrapping_add(rounded.to_bits() << 52)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, Kernel, Vector};
    use super::*;

    /// Every operation on the same numbers.
    struct Everything {
        a: F64x16,
        b: F64x16,
    }

    impl Kernel for Everything {
        type Output = (Vec<F64x16>, [f64; 2]);

        #[inline(always)]
        fn run<V: Vector>(self) -> Self::Output {
            let (a, b) = (V::F64::load(&self.a), V::F64::load(&self.b));
            let all = [a.add(b), a.sub(b), a.mul(b), a.mul_add(b, a), a.max(b), a.where_from(a, b), a.mul(b).exp2()];
            let stored = |value: V::F64| {
                let mut out = F64x16::ZERO;
                value.store(&mut out);
                out
            };
            (all.map(stored).to_vec(), [a.least(), a.sum()])
        }
    }

    #[test]
    fn every_instruction_set_agrees() {
        let a = F64x16(std::array::from_fn(|i| (i as f64 * 1.7 - 9.3) * 1.1));
        let b = F64x16(std::array::from_fn(|i| (i as f64 - 7.6) * -0.37));
        let (expected, [least, sum]) = Isa::available()[0].run(Everything { a, b });
        for isa in Isa::available() {
            let (found, [found_least, found_sum]) = isa.run(Everything { a, b });
            let close = |x: f64, y: f64| (x - y).abs() <= 4e-15 * y.abs();
            for (found, expected) in found.iter().zip(&expected) {
                assert!(found.0.iter().zip(&expected.0).all(|(&x, &y)| close(x, y)), "{}", isa.name());
            }
            assert!(found_least == least && close(found_sum, sum), "{}", isa.name());
        }
    }

    /// `2^x` in one lane.
    struct Power(f64);

    impl Kernel for Power {
        type Output = f64;

        #[inline(always)]
        fn run<V: Vector>(self) -> f64 {
            let mut out = F64x16::ZERO;
            V::F64::splat(self.0).exp2().store(&mut out);
            out.0[3]
        }
    }

    #[test]
    fn powers_are_exact_to_the_last_digits() {
        for isa in Isa::available() {
            for i in 0..20_000 {
                let x = -f64::from(i) * 0.049_97;
                let found = isa.run(Power(x));
                assert!((found / x.exp2() - 1.0).abs() < 4e-15, "2^{x} is not {found}");
            }
            assert_eq!((isa.run(Power(0.0)), isa.run(Power(-1e300))), (1.0, 0.0));
        }
    }
}
