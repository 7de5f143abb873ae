//! Sixteen values at once. Kernels are written once over [`Vector`]; this room has one implementation for each
//! instruction set, and all unsafe code of the CPU engine.
//!
//! Explicit vectors instead of plain loops over arrays: LLVM's loop vectoriser sees a loop over columns of unrolled
//! lanes, vectorises across columns instead, and fills the loop with shuffles (AVX-512: three times slower than AVX2).

mod portable;
#[cfg(target_arch = "x86_64")]
mod words;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use portable::Portable;
#[cfg(not(target_arch = "x86_64"))]
pub use portable::transpose_bytes;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, transpose_bytes};

/// Images side by side in a tile.
pub const LANES: usize = 16;

/// Sixteen values in memory, one an image.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; LANES]);

impl Lanes {
    /// Zero in every lane.
    pub const ZERO: Self = Self::splat(0.0);

    /// The same value in every lane.
    #[must_use]
    pub const fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    /// The values of some, one after the other.
    #[must_use]
    pub fn flat(lanes: &[Self]) -> &[f32] {
        // SAFETY: `Lanes` is sixteen floats and no padding, so that a slice of them is a slice of floats.
        unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
    }
}

/// Sixteen whole numbers in memory, one an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct WholeLanes(pub [i32; LANES]);

impl WholeLanes {
    /// Zero in every lane.
    pub const ZERO: Self = Self([0; LANES]);
}

/// Lanes of whole numbers of sixteen bits: two tiles of images.
pub const WORDS: usize = 2 * LANES;

/// Whole numbers of sixteen bits in memory, with or without sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct WordLanes(pub [u16; WORDS]);

impl WordLanes {
    /// Zero in every lane.
    pub const ZERO: Self = Self([0; WORDS]);
}

/// Sums of sixteen values, lanes i and i + 8 together.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub struct HalfLanes(pub [f32; LANES / 2]);

impl HalfLanes {
    /// Zero in every lane.
    pub const ZERO: Self = Self([0.0; LANES / 2]);

    /// The sum of all lanes, added as a fixed tree.
    #[must_use]
    pub fn sum(&self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// Sixteen values of at most eight significant bits in memory, as the upper halves of their floats (bfloat16): lane i in
/// the low half of word i, lane i + 8 in the high half. Reading them takes a shift and a mask, where bytes would take a
/// widening, a conversion and the subtraction of the centre.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub struct Halves(pub [u32; LANES / 2]);

impl Halves {
    /// Zero in every lane.
    pub const ZERO: Self = Self([0; LANES / 2]);

    /// Sets one lane to a value of at most eight significant bits.
    pub fn set(&mut self, lane: usize, value: f32) {
        let bits = value.to_bits() >> 16;
        let word = &mut self.0[lane % (LANES / 2)];
        *word = if lane < LANES / 2 { *word & 0xffff_0000 | bits } else { *word & 0xffff | bits << 16 };
    }
}

/// Sixteen whole numbers in registers. Sums wrap around, so that their order never matters, nor what their parts grow to.
pub trait Whole: Copy {
    /// From memory.
    fn load(lanes: &WholeLanes) -> Self;
    /// To memory.
    fn store(self, lanes: &mut WholeLanes);
    /// Lane by lane sum.
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// Lane by lane difference.
    #[must_use]
    fn sub(self, other: Self) -> Self;
}

/// Whole numbers of sixteen bits in registers. Results that do not fit end at the last number that does.
pub trait Word: Copy {
    /// From memory.
    fn load(lanes: &WordLanes) -> Self;
    /// To memory.
    fn store(self, lanes: &mut WordLanes);
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
    /// One bit a lane, the first lane lowest: whether it is below `bound`'s, without sign.
    fn below(self, bound: Self) -> u32;
    /// Whether any lane is below `bound`'s.
    #[inline(always)]
    fn any_below(self, bound: Self) -> bool {
        self.below(bound) != 0
    }
    /// The smallest of all lanes, without sign.
    #[inline(always)]
    fn least(self) -> u16 {
        let mut lanes = WordLanes::ZERO;
        self.store(&mut lanes);
        lanes.0.into_iter().fold(u16::MAX, u16::min)
    }
}

/// 128 times what bytes are above the centre of their range, with sign; plain arithmetic that compilers see through.
#[inline(always)]
#[must_use]
pub fn centred_words(bytes: &[u8; LANES]) -> [u16; LANES] {
    const CENTRE: u16 = 16_320;
    let mut words = [0; LANES];
    for i in 0..LANES {
        words[i] = (u16::from(bytes[i]) << 7).wrapping_sub(CENTRE);
    }
    words
}

/// Sixteen values in registers, with the operations the kernels need.
pub trait Vector: Copy {
    /// Whole numbers of sixteen bits of the same instruction set.
    type Word: Word;
    /// Whole numbers of the same instruction set.
    type Whole: Whole;
    /// The nearest whole numbers, ties to even, of values of magnitude below 2^31.
    fn round(self) -> Self::Whole;
    /// The nearest floats.
    fn of_whole(whole: Self::Whole) -> Self;
    /// From memory.
    fn load(lanes: &Lanes) -> Self;
    /// From sixteen bytes, as numbers.
    fn load_bytes(bytes: &[u8; LANES]) -> Self;
    /// From memory, see [`Halves`].
    fn load_halves(halves: &Halves) -> Self;
    /// To memory; the values have at most eight significant bits.
    fn store_halves(self, halves: &mut Halves);
    /// To memory.
    fn store(self, lanes: &mut Lanes);
    /// Adds lanes i and i + 8 to sum i.
    fn add_to(self, sums: &mut HalfLanes);
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
    /// One bit a lane, the first lane lowest: whether it is below `bound`'s.
    fn below(self, bound: Self) -> u32;
    /// Whether any lane is below `bound`'s.
    #[inline(always)]
    fn any_below(self, bound: Self) -> bool {
        self.below(bound) != 0
    }
    /// The smallest of all lanes.
    #[inline(always)]
    fn least(self) -> f32 {
        let mut fold = Lanes::ZERO;
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

/// Asks for a value that is read soon, where that is possible.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64; nothing is read or written.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, dispatched};
    use proptest::prelude::*;

    dispatched! {
        fn exp2_of(t: &Lanes) -> Lanes = exp2_body
    }

    fn exp2_body<V: Vector>(t: &Lanes) -> Lanes {
        let mut out = Lanes::ZERO;
        V::load(t).exp2().store(&mut out);
        out
    }

    dispatched! {
        fn every_operation(a: &Lanes, b: &Lanes, bytes: &[u8; LANES]) -> (Vec<Lanes>, [f32; 6], u32) = every_operation_body
    }

    fn every_operation_body<V: Vector>(a: &Lanes, b: &Lanes, bytes: &[u8; LANES]) -> (Vec<Lanes>, [f32; 6], u32) {
        let (x, y) = (V::load(a), V::load(b));
        let mut halves = Halves::ZERO;
        V::load_bytes(bytes).sub(V::splat(127.5)).store_halves(&mut halves);
        let from_halves = V::load_halves(&halves);
        let all =
            [x.add(y), x.sub(y), x.mul(y), x.min(y), x.max(y), V::load_bytes(bytes), from_halves, V::splat(a.0[3])];
        let stored = all.iter().map(|v| {
            let mut out = Lanes::ZERO;
            v.store(&mut out);
            out
        });
        let [s, t, u, v] = V::sums([x, y, x.add(x), x.add(y)]);
        (stored.collect(), [x.sum(), s, t, u, v, x.least()], x.below(y))
    }

    dispatched! {
        fn every_word(a: &WordLanes, b: &WordLanes) -> (Vec<WordLanes>, u32, bool, u16) = every_word_body
    }

    fn every_word_body<V: Vector>(a: &WordLanes, b: &WordLanes) -> (Vec<WordLanes>, u32, bool, u16) {
        let (x, y) = (V::Word::load(a), V::Word::load(b));
        let all = [x.difference(y), x.twice(), x.square(), x.add(y), V::Word::splat(a.0[3])];
        let stored = all.iter().map(|v| {
            let mut out = WordLanes::ZERO;
            v.store(&mut out);
            out
        });
        (stored.collect(), x.below(y), x.any_below(y), x.least())
    }

    dispatched! {
        fn whole_sums(values: &Lanes, other: &WholeLanes) -> (WholeLanes, Lanes) = whole_sums_body
    }

    fn whole_sums_body<V: Vector>(values: &Lanes, other: &WholeLanes) -> (WholeLanes, Lanes) {
        let (mut whole, mut floats) = (WholeLanes([0; LANES]), Lanes::ZERO);
        let other = V::Whole::load(other);
        let sum = V::load(values).round().add(other);
        sum.store(&mut whole);
        V::of_whole(sum.sub(other)).store(&mut floats);
        (whole, floats)
    }

    proptest! {
        #[test]
        fn words_end_at_the_last_number_that_fits(
            a in proptest::array::uniform32(prop_oneof![any::<i16>(), Just(i16::MIN), Just(i16::MAX), -3_i16..3]),
            b in proptest::array::uniform32(prop_oneof![any::<i16>(), Just(i16::MIN), Just(i16::MAX), -3_i16..3]),
        ) {
            let words = |op: fn(i32, i32) -> i32| {
                WordLanes(std::array::from_fn(|i| op(i32::from(a[i]), i32::from(b[i])) as u16))
            };
            let bare = |op: fn(u16, u16) -> u16| {
                WordLanes(std::array::from_fn(|i| op(a[i].cast_unsigned(), b[i].cast_unsigned())))
            };
            let expected = vec![
                words(|a, b| (a - b).clamp(-32_768, 32_767)),
                words(|a, _| (2 * a).clamp(-32_768, 32_767)),
                words(|a, _| (f64::from(a).powi(2) / 32_768.0 + 0.5).floor() as i32),
                bare(u16::saturating_add),
                WordLanes([a[3].cast_unsigned(); WORDS]),
            ];
            let (a, b) = (a.map(i16::cast_unsigned), b.map(i16::cast_unsigned));
            let below = (0..WORDS).map(|i| u32::from(a[i] < b[i]) << i).sum();
            let least = *a.iter().min().unwrap();
            for isa in Isa::available() {
                let found = every_word(isa, &WordLanes(a), &WordLanes(b));
                prop_assert_eq!(found, (expected.clone(), below, below != 0, least));
            }
        }

        #[test]
        fn whole_numbers_round_and_wrap(
            values in proptest::array::uniform16(prop_oneof![-9.0_f32..9.0, -2.1e9_f32..2.1e9]),
            halves in proptest::array::uniform16(-20_i8..20),
            other in proptest::array::uniform16(any::<i32>()),
        ) {
            for values in [values, halves.map(|half| f32::from(half) / 2.0)] {
                let rounded = values.map(|v| v.round_ties_even() as i32);
                let sums = std::array::from_fn(|i| rounded[i].wrapping_add(other[i]));
                for isa in Isa::available() {
                    let (whole, floats) = whole_sums(isa, &Lanes(values), &WholeLanes(other));
                    prop_assert_eq!(whole, WholeLanes(sums));
                    prop_assert_eq!(floats, Lanes(rounded.map(|v| v as f32)));
                }
            }
        }

        #[test]
        fn exp2_is_accurate(t in -125.0_f32..=125.0) {
            let exact = f64::from(t).exp2();
            for isa in Isa::available() {
                prop_assert!((f64::from(exp2_of(isa, &Lanes::splat(t)).0[3]) / exact - 1.0).abs() < 1.5e-7);
            }
        }

        #[test]
        fn instruction_sets_agree(
            a in proptest::array::uniform16(-9.0_f32..9.0),
            b in proptest::array::uniform16(-9.0_f32..9.0),
            bytes in proptest::array::uniform16(any::<u8>()),
        ) {
            let lanes = |op: fn(f32, f32) -> f32| Lanes(std::array::from_fn(|i| op(a[i], b[i])));
            let expected = vec![
                lanes(|a, b| a + b), lanes(|a, b| a - b), lanes(|a, b| a * b), lanes(f32::min), lanes(f32::max),
                Lanes(bytes.map(f32::from)), Lanes(bytes.map(|b| f32::from(b) - 127.5)), Lanes::splat(a[3]),
            ];
            let [x, y] = [a, b].map(|v| v.iter().map(|&v| f64::from(v)).sum::<f64>());
            for isa in Isa::available() {
                let (stored, sums, below) = every_operation(isa, &Lanes(a), &Lanes(b), &bytes);
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
            assert_eq!(exp2_of(isa, &Lanes::ZERO).0, [1.0; LANES]);
        }
    }

    #[test]
    fn halves_are_set_lane_by_lane() {
        let mut halves = Halves([!0; LANES / 2]);
        (0..LANES).for_each(|lane| halves.set(lane, lane as f32 - 7.5));
        let mut out = Lanes::ZERO;
        Portable::<false>::load_halves(&halves).store(&mut out);
        assert_eq!(out.0, std::array::from_fn(|lane| lane as f32 - 7.5));
    }

    #[test]
    fn one_lane_below_is_enough() {
        let (mut values, ones) = ([1.0; LANES], Lanes::splat(1.0));
        for isa in Isa::available() {
            assert_eq!(every_operation(isa, &ones, &ones, &[0; LANES]).2, 0);
        }
        values[15] = 0.5;
        for isa in Isa::available() {
            assert_eq!(every_operation(isa, &Lanes(values), &ones, &[0; LANES]).2, 1 << 15);
        }
    }
}
