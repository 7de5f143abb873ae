//! Powers of two in float64, for all lanes at once.

use crate::simd::{F64x16, LANES};

/// What is added to a number of small magnitude to round it to an integer, which then fills the last digits.
const ROUNDING: f64 = 6_755_399_441_055_744.0;

/// Smaller exponents give zero.
const LEAST: f64 = -1000.0;

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

/// `2^x` of exponents up to zero, or slightly above, within a few units of the last place; zero below -1000.
#[inline(always)]
pub(super) fn exp2(x: &F64x16) -> F64x16 {
    let mut out = F64x16::ZERO;
    for lane in 0..LANES {
        let exponent = x.0[lane].max(LEAST);
        let rounded = exponent + ROUNDING;
        let fraction = exponent - (rounded - ROUNDING);
        let mut power = COEFFICIENTS[COEFFICIENTS.len() - 1];
        let mut i = COEFFICIENTS.len() - 1;
        while i > 0 {
            i -= 1;
            power = power * fraction + COEFFICIENTS[i];
        }
        let scaled = f64::from_bits(power.to_bits().wrapping_add(rounded.to_bits() << 52));
        out.0[lane] = if x.0[lane] < LEAST { 0.0 } else { scaled };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_exact_to_the_last_digits() {
        for i in 0..20_000 {
            let x = -f64::from(i) * 0.049_97;
            let found = exp2(&F64x16([x; LANES])).0[3];
            assert!((found / x.exp2() - 1.0).abs() < 4e-15, "2^{x} is not {found}");
        }
        assert_eq!(exp2(&F64x16([0.0; LANES])).0, [1.0; LANES]);
        assert_eq!(exp2(&F64x16([-1e300; LANES])).0, [0.0; LANES]);
    }
}
