//! Values in registers: the operations of [`Vector`], over which kernels are written, with one implementation for each
//! instruction set.

use super::{Bf16x16, F32x8, F32x16, I32x16, LANES, U16x32, VectorF64};

/// Bytes of a row that [`Vector::transpose_wide`] takes.
pub(crate) const WIDE: usize = 4 * LANES;

/// Sixteen values in registers, with the operations the kernels need.
pub(crate) trait Vector: Copy {
    /// Integers of sixteen bits of the same instruction set.
    type U16: VectorU16;
    /// Integers of the same instruction set.
    type I32: VectorI32;
    /// Values of float64 of the same instruction set.
    type F64: VectorF64;
    /// The nearest integers, ties to even, of values of magnitude below 2^31.
    fn round(self) -> Self::I32;
    /// The nearest floats.
    fn from_i32(integers: Self::I32) -> Self;
    /// From memory.
    fn load(lanes: &F32x16) -> Self;
    /// From sixteen bytes, as numbers.
    fn load_bytes(bytes: &[u8; LANES]) -> Self;
    /// From memory, see [`Bf16x16`].
    fn load_bf16(packed: &Bf16x16) -> Self;
    /// To memory; the values have at most eight significant bits.
    fn store_bf16(self, packed: &mut Bf16x16);
    /// To memory.
    fn store(self, lanes: &mut F32x16);
    /// Rows to columns of four blocks of 16 x 16 bytes side by side.
    fn transpose_wide(rows: &[&[u8; WIDE]; LANES], columns: &mut [[u8; LANES]; WIDE]);
    /// Adds lanes i and i + 8 to sum i.
    fn add_to(self, sums: &mut F32x8);
    /// The same value in every lane.
    fn splat(value: f32) -> Self;
    /// Lane by lane sum.
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// Lane by lane difference.
    #[must_use]
    fn sub(self, other: Self) -> Self;
    /// Lane by lane product.
    #[must_use]
    fn mul(self, other: Self) -> Self;
    /// `self * factor + term`, fused where the instruction set has it; a libm call there would be thirty times slower.
    #[must_use]
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The smaller value of each lane.
    #[must_use]
    fn min(self, other: Self) -> Self;
    /// The larger value of each lane.
    #[must_use]
    fn max(self, other: Self) -> Self;
    /// One bit per lane, the first lane lowest: whether it is below `bound`'s.
    fn below(self, bound: Self) -> u32;
    /// Whether any lane is below `bound`'s.
    #[inline(always)]
    fn any_below(self, bound: Self) -> bool {
        self.below(bound) != 0
    }
    /// The smallest of all lanes.
    #[inline(always)]
    fn least(self) -> f32 {
        let mut fold = F32x16::ZERO;
        self.store(&mut fold);
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                fold.0[i] = if fold.0[i + half] < fold.0[i] { fold.0[i + half] } else { fold.0[i] };
            }
            half /= 2;
        }
        fold.0[0]
    }
    /// The sum of all lanes, added as a fixed tree.
    fn sum(self) -> f32;
    /// The sums of four vectors, each as [`Vector::sum`] but for the order of its tree.
    #[inline(always)]
    fn sums(four: [Self; 4]) -> [f32; 4] {
        four.map(Self::sum)
    }
    /// `2^self` for lanes from -125 to 125, with a relative error below 1.5e-7.
    #[must_use]
    fn exp2(self) -> Self;
}

/// Sixteen integers in registers. Sums wrap around, so neither their order matters nor how large parts of them grow.
pub(crate) trait VectorI32: Copy {
    /// From memory.
    fn load(lanes: &I32x16) -> Self;
    /// To memory.
    fn store(self, lanes: &mut I32x16);
    /// The same number in every lane.
    fn splat(value: i32) -> Self;
    /// Lane by lane sum.
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// Lanes of both hold two numbers of sixteen bits with sign each: the sum of the product of the lower and that of the upper
    /// ones.
    #[must_use]
    fn sum_of_products(self, other: Self) -> Self;
    /// Lane by lane difference.
    #[must_use]
    fn sub(self, other: Self) -> Self;
}

/// Integers of sixteen bits in registers; results that do not fit saturate.
pub(crate) trait VectorU16: Copy {
    /// From memory.
    fn load(lanes: &U16x32) -> Self;
    /// To memory.
    fn store(self, lanes: &mut U16x32);
    /// The same number in every lane.
    fn splat(value: u16) -> Self;
    /// Lane by lane difference of numbers with sign.
    #[must_use]
    fn difference(self, other: Self) -> Self;
    /// Twice numbers with sign.
    #[must_use]
    fn twice(self) -> Self;
    /// From numbers with sign the nearest to their squares divided by 2^15, halves up, without sign.
    #[must_use]
    fn square(self) -> Self;
    /// Lane by lane sum of numbers without sign.
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// One bit per lane, the first lane lowest: whether it is below `bound`'s, without sign.
    fn below(self, bound: Self) -> u32;
    /// Whether any lane is below `bound`'s.
    #[inline(always)]
    fn any_below(self, bound: Self) -> bool {
        self.below(bound) != 0
    }
    /// The smallest of all lanes, without sign.
    #[inline(always)]
    fn least(self) -> u16 {
        let mut lanes = U16x32::ZERO;
        self.store(&mut lanes);
        lanes.0.into_iter().fold(u16::MAX, u16::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Kernel, Portable, U16_LANES};
    use proptest::prelude::*;

    struct Exp2<'a> {
        t: &'a F32x16,
    }

    impl Kernel for Exp2<'_> {
        type Output = F32x16;

        #[inline(always)]
        fn run<V: Vector>(self) -> F32x16 {
            let Self { t } = self;
            let mut out = F32x16::ZERO;
            V::load(t).exp2().store(&mut out);
            out
        }
    }

    struct EveryOperation<'a> {
        a: &'a F32x16,
        b: &'a F32x16,
        bytes: &'a [u8; LANES],
    }

    impl Kernel for EveryOperation<'_> {
        type Output = (Vec<F32x16>, [f32; 6], u32);

        #[inline(always)]
        fn run<V: Vector>(self) -> (Vec<F32x16>, [f32; 6], u32) {
            let Self { a, b, bytes } = self;
            let (x, y) = (V::load(a), V::load(b));
            let mut packed = Bf16x16::ZERO;
            V::load_bytes(bytes).sub(V::splat(127.5)).store_bf16(&mut packed);
            let unpacked = V::load_bf16(&packed);
            let all =
                [x.add(y), x.sub(y), x.mul(y), x.min(y), x.max(y), V::load_bytes(bytes), unpacked, V::splat(a.0[3])];
            let stored = all.iter().map(|v| {
                let mut out = F32x16::ZERO;
                v.store(&mut out);
                out
            });
            let [s, t, u, v] = V::sums([x, y, x.add(x), x.add(y)]);
            (stored.collect(), [x.sum(), s, t, u, v, x.least()], x.below(y))
        }
    }

    struct EveryU16<'a> {
        a: &'a U16x32,
        b: &'a U16x32,
    }

    impl Kernel for EveryU16<'_> {
        type Output = (Vec<U16x32>, u32, bool, u16);

        #[inline(always)]
        fn run<V: Vector>(self) -> (Vec<U16x32>, u32, bool, u16) {
            let Self { a, b } = self;
            let (x, y) = (V::U16::load(a), V::U16::load(b));
            let all = [x.difference(y), x.twice(), x.square(), x.add(y), V::U16::splat(a.0[3])];
            let stored = all.iter().map(|v| {
                let mut out = U16x32::ZERO;
                v.store(&mut out);
                out
            });
            (stored.collect(), x.below(y), x.any_below(y), x.least())
        }
    }

    struct Products<'a> {
        a: &'a I32x16,
        b: &'a I32x16,
    }

    impl Kernel for Products<'_> {
        type Output = [I32x16; 2];

        #[inline(always)]
        fn run<V: Vector>(self) -> [I32x16; 2] {
            let (a, b) = (V::I32::load(self.a), V::I32::load(self.b));
            let mut out = [I32x16::ZERO; 2];
            a.sum_of_products(b).store(&mut out[0]);
            V::I32::splat(self.a.0[3]).sum_of_products(b).store(&mut out[1]);
            out
        }
    }

    struct IntegerSums<'a> {
        values: &'a F32x16,
        other: &'a I32x16,
    }

    impl Kernel for IntegerSums<'_> {
        type Output = (I32x16, F32x16);

        #[inline(always)]
        fn run<V: Vector>(self) -> (I32x16, F32x16) {
            let Self { values, other } = self;
            let (mut integers, mut floats) = (I32x16([0; LANES]), F32x16::ZERO);
            let other = V::I32::load(other);
            let sum = V::load(values).round().add(other);
            sum.store(&mut integers);
            V::from_i32(sum.sub(other)).store(&mut floats);
            (integers, floats)
        }
    }

    proptest! {
        #[test]
        fn sums_of_sixteen_bits_saturate(
            a in proptest::array::uniform32(prop_oneof![any::<i16>(), Just(i16::MIN), Just(i16::MAX), -3_i16..3]),
            b in proptest::array::uniform32(prop_oneof![any::<i16>(), Just(i16::MIN), Just(i16::MAX), -3_i16..3]),
        ) {
            let signed = |op: fn(i32, i32) -> i32| {
                U16x32(std::array::from_fn(|i| op(i32::from(a[i]), i32::from(b[i])) as u16))
            };
            let unsigned = |op: fn(u16, u16) -> u16| {
                U16x32(std::array::from_fn(|i| op(a[i].cast_unsigned(), b[i].cast_unsigned())))
            };
            let expected = vec![
                signed(|a, b| (a - b).clamp(-32_768, 32_767)),
                signed(|a, _| (2 * a).clamp(-32_768, 32_767)),
                signed(|a, _| (f64::from(a).powi(2) / 32_768.0 + 0.5).floor() as i32),
                unsigned(u16::saturating_add),
                U16x32([a[3].cast_unsigned(); U16_LANES]),
            ];
            let (a, b) = (a.map(i16::cast_unsigned), b.map(i16::cast_unsigned));
            let below = (0..U16_LANES).map(|i| u32::from(a[i] < b[i]) << i).sum();
            let least = *a.iter().min().unwrap();
            for isa in Isa::available() {
                let found = isa.run(EveryU16 { a: &U16x32(a), b: &U16x32(b) });
                prop_assert_eq!(found, (expected.clone(), below, below != 0, least));
            }
        }

        #[test]
        fn integers_round_and_wrap(
            values in proptest::array::uniform16(prop_oneof![-9.0_f32..9.0, -2.1e9_f32..2.1e9]),
            halves in proptest::array::uniform16(-20_i8..20),
            other in proptest::array::uniform16(any::<i32>()),
        ) {
            for values in [values, halves.map(|half| f32::from(half) / 2.0)] {
                let rounded = values.map(|v| v.round_ties_even() as i32);
                let sums = std::array::from_fn(|i| rounded[i].wrapping_add(other[i]));
                for isa in Isa::available() {
                    let (integers, floats) = isa.run(IntegerSums { values: &F32x16(values), other: &I32x16(other) });
                    prop_assert_eq!(integers, I32x16(sums));
                    prop_assert_eq!(floats, F32x16(rounded.map(|v| v as f32)));
                }
            }
        }

        #[test]
        fn products_of_sixteen_bits_are_exact(
            a in proptest::array::uniform16(any::<[i16; 2]>()),
            b in proptest::array::uniform16(prop_oneof![any::<[i16; 2]>(), Just([i16::MIN; 2]), Just([i16::MIN, i16::MAX])]),
        ) {
            let pack = |pairs: [[i16; 2]; LANES]| {
                I32x16(pairs.map(|[low, high]| (i32::from(high) << 16) | i32::from(low.cast_unsigned())))
            };
            let sum = |[a, b]: [i16; 2], [c, d]: [i16; 2]| {
                (i32::from(a) * i32::from(c)).wrapping_add(i32::from(b) * i32::from(d))
            };
            let expected = [
                I32x16(std::array::from_fn(|i| sum(a[i], b[i]))),
                I32x16(std::array::from_fn(|i| sum(a[3], b[i]))),
            ];
            for isa in Isa::available() {
                prop_assert_eq!(isa.run(Products { a: &pack(a), b: &pack(b) }), expected);
            }
        }

        #[test]
        fn exp2_is_accurate(t in -125.0_f32..=125.0) {
            let exact = f64::from(t).exp2();
            for isa in Isa::available() {
                let power = isa.run(Exp2 { t: &F32x16::splat(t) }).0[3];
                prop_assert!((f64::from(power) / exact - 1.0).abs() < 1.5e-7);
            }
        }

        #[test]
        fn instruction_sets_agree(
            a in proptest::array::uniform16(-9.0_f32..9.0),
            b in proptest::array::uniform16(-9.0_f32..9.0),
            bytes in proptest::array::uniform16(any::<u8>()),
        ) {
            let lanes = |op: fn(f32, f32) -> f32| F32x16(std::array::from_fn(|i| op(a[i], b[i])));
            let expected = vec![
                lanes(|a, b| a + b), lanes(|a, b| a - b), lanes(|a, b| a * b), lanes(f32::min), lanes(f32::max),
                F32x16(bytes.map(f32::from)), F32x16(bytes.map(|b| f32::from(b) - 127.5)), F32x16::splat(a[3]),
            ];
            let [x, y] = [a, b].map(|v| v.iter().map(|&v| f64::from(v)).sum::<f64>());
            for isa in Isa::available() {
                let (stored, sums, below) = isa.run(EveryOperation { a: &F32x16(a), b: &F32x16(b), bytes: &bytes });
                prop_assert_eq!(&stored, &expected);
                let least = a.iter().copied().fold(f32::MAX, f32::min);
                for (sum, exact) in sums.into_iter().zip([x, x, y, x + x, x + y, f64::from(least)]) {
                    prop_assert!((f64::from(sum) - exact).abs() < 1e-4);
                }
                prop_assert_eq!(below, (0..LANES).map(|i| u32::from(a[i] < b[i]) << i).sum::<u32>());
            }
        }
    }

    #[test]
    fn exp2_of_zero_is_one() {
        for isa in Isa::available() {
            assert_eq!(isa.run(Exp2 { t: &F32x16::ZERO }).0, [1.0; LANES]);
        }
    }

    #[test]
    fn bf16_is_set_lane_by_lane() {
        let mut packed = Bf16x16([!0; LANES / 2]);
        (0..LANES).for_each(|lane| packed.set(lane, lane as f32 - 7.5));
        let mut out = F32x16::ZERO;
        Portable::<false>::load_bf16(&packed).store(&mut out);
        assert_eq!(out.0, std::array::from_fn(|lane| lane as f32 - 7.5));
    }

    #[test]
    fn one_lane_below_is_enough() {
        let (mut values, ones) = ([1.0; LANES], F32x16::splat(1.0));
        for isa in Isa::available() {
            assert_eq!(isa.run(EveryOperation { a: &ones, b: &ones, bytes: &[0; LANES] }).2, 0);
        }
        values[15] = 0.5;
        for isa in Isa::available() {
            assert_eq!(isa.run(EveryOperation { a: &F32x16(values), b: &ones, bytes: &[0; LANES] }).2, 1 << 15);
        }
    }
}
