//! The normal numbers that torch's CPU generator gives for a seed, without torch.
//!
//! [`TorchNormals`] is `torch.randn(n, generator=torch.Generator().manual_seed(seed))` of float32: a Mersenne twister (Matsumoto
//! & Nishimura 1998), from whose numbers the transform of Box & Muller (1958) makes pairs of normal ones. Fewer than sixteen are
//! made one by one in float64; sixteen and more in blocks of sixteen, with logarithm, sine and cosine as polynomials of float32
//! (Moshier's Cephes library, 1989). Every rounding is that of torch's builds for Linux on x86-64 with AVX2, where multiplication
//! and addition are fused wherever one follows the other, so all bits agree; its builds for other systems differ in the last bits.

use crate::error::Result;
use crate::simd::{Isa, Kernel, Vector};

/// Numbers of a block.
const BLOCK: usize = 16;

/// The numbers of the first half become radii, those of the second angles.
const HALF: usize = BLOCK / 2;

/// A stream of standard normal numbers.
#[derive(Debug, Clone)]
pub struct TorchNormals {
    twister: Twister,
    /// The second of a pair of numbers that were made one by one, until it is asked for.
    second: Option<f64>,
}

impl TorchNormals {
    /// The stream of a seed, of which torch takes the lower 32 bits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { twister: Twister::new(seed as u32), second: None }
    }

    /// Writes the next numbers, as one call of `torch.randn` does: how many are asked for at once decides what they are.
    pub fn fill(&mut self, numbers: &mut [f32]) -> Result<()> {
        let isa = Isa::best()?;
        if numbers.len() < BLOCK {
            numbers.fill_with(|| self.next_alone() as f32);
            return Ok(());
        }
        self.twister.fill(numbers);
        let (blocks, rest) = numbers.as_chunks_mut::<BLOCK>();
        isa.run(BoxMuller { blocks });
        if !rest.is_empty()
            && let Some(last) = numbers.last_chunk_mut::<BLOCK>()
        {
            // The last sixteen are drawn anew, those among them that were made already too.
            self.twister.fill(last);
            isa.run(BoxMuller { blocks: std::slice::from_mut(last) });
        }
        Ok(())
    }

    fn next_alone(&mut self) -> f64 {
        if let Some(second) = self.second.take() {
            return second;
        }
        let (turn, share) = (self.twister.uniform_f64(), self.twister.uniform_f64());
        let radius = (-2.0 * (-share).ln_1p()).sqrt();
        let angle = 2.0 * std::f64::consts::PI * turn;
        self.second = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// The generator MT19937.
#[derive(Debug, Clone)]
struct Twister {
    state: [u32; Self::LEN],
    next: usize,
}

impl Twister {
    const LEN: usize = 624;
    const SHIFT: usize = 397;

    fn new(seed: u32) -> Self {
        let mut state = [seed; Self::LEN];
        for i in 1..Self::LEN {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: Self::LEN }
    }

    fn twist(&mut self) {
        let mixed = |high: u32, low: u32| {
            let odd = if low & 1 == 1 { 0x9908_b0df } else { 0 };
            (((high & 0x8000_0000) | (low & 0x7fff_ffff)) >> 1) ^ odd
        };
        let (state, rest) = (&mut self.state, Self::LEN - Self::SHIFT);
        // Three loops without a remainder of the index, which would be slower than all else.
        for i in 0..rest {
            state[i] = state[i + Self::SHIFT] ^ mixed(state[i], state[i + 1]);
        }
        for i in rest..Self::LEN - 1 {
            state[i] = state[i - rest] ^ mixed(state[i], state[i + 1]);
        }
        state[Self::LEN - 1] = state[Self::SHIFT - 1] ^ mixed(state[Self::LEN - 1], state[0]);
        self.next = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == Self::LEN {
            self.twist();
        }
        self.next += 1;
        tempered(self.state[self.next - 1])
    }

    /// Multiples of 2^-24 from 0 to below 1.
    fn fill(&mut self, mut numbers: &mut [f32]) {
        while !numbers.is_empty() {
            if self.next == Self::LEN {
                self.twist();
            }
            let states = &self.state[self.next..];
            let (now, later) = numbers.split_at_mut(states.len().min(numbers.len()));
            for (number, &state) in now.iter_mut().zip(states) {
                *number = (tempered(state) & ((1 << 24) - 1)) as f32 * (1.0 / (1 << 24) as f32);
            }
            self.next += now.len();
            numbers = later;
        }
    }

    /// A multiple of 2^-53 from 0 to below 1.
    fn uniform_f64(&mut self) -> f64 {
        let bits = (u64::from(self.next_u32()) << 32) | u64::from(self.next_u32());
        (bits & ((1 << 53) - 1)) as f64 * (1.0 / (1_u64 << 53) as f64)
    }
}

/// The bits that the generator gives for an entry of its state.
fn tempered(mut bits: u32) -> u32 {
    bits ^= bits >> 11;
    bits ^= (bits << 7) & 0x9d2c_5680;
    bits ^= (bits << 15) & 0xefc6_0000;
    bits ^ (bits >> 18)
}

/// Turns uniform numbers in blocks into normal ones. The instruction set decides the speed alone: a fused multiplication and
/// addition is the same in all of them.
struct BoxMuller<'a> {
    blocks: &'a mut [[f32; BLOCK]],
}

impl Kernel for BoxMuller<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for block in self.blocks {
            let (first, second) = block.split_at_mut(HALF);
            for (share, turn) in first.iter_mut().zip(second) {
                let radius = (-2.0 * logarithm(1.0 - *share)).sqrt();
                let (sine, cosine) = sine_and_cosine(std::f32::consts::TAU * *turn);
                (*share, *turn) = (radius * cosine, radius * sine);
            }
        }
    }
}

/// A polynomial, the coefficient of the highest power first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    coefficients.into_iter().skip(1).fold(coefficients[0], |sum, coefficient| sum.mul_add(x, coefficient))
}

/// The natural logarithm of a number from 2^-24 to 1.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "the coefficients as they were published")]
fn logarithm(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_629_2e-2,
        -1.151_461_031_0e-1,
        1.167_699_874_0e-1,
        -1.242_014_084_6e-1,
        1.424_932_278_7e-1,
        -1.666_805_766_5e-1,
        2.000_071_476_5e-1,
        -2.499_999_399_3e-1,
        3.333_333_117_4e-1,
    ];
    /// ln 2 in two parts, of which the first has few digits.
    const LN_2: (f32, f32) = (0.693_359_375, -2.121_944_40e-4);
    let exponent = (x.to_bits() >> 23).cast_signed() - 126;
    let mantissa = f32::from_bits((x.to_bits() & 0x007f_ffff) | 0x3f00_0000);
    // Between sqrt(1/2) and sqrt(2), less 1.
    let is_low = mantissa < std::f32::consts::FRAC_1_SQRT_2;
    let x = (mantissa - 1.0) + if is_low { mantissa } else { 0.0 };
    let exponent = (exponent - i32::from(is_low)) as f32;
    let square = x * x;
    let tail = (polynomial(x, COEFFICIENTS) * x).mul_add(square, exponent * LN_2.1);
    exponent.mul_add(LN_2.0, x + square.mul_add(-0.5, tail))
}

/// Sine and cosine of an angle from 0 to 2 pi.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "the coefficients as they were published")]
fn sine_and_cosine(angle: f32) -> (f32, f32) {
    const COSINE: [f32; 3] = [2.443_315_711_809_948e-5, -1.388_731_625_493_765e-3, 4.166_664_568_298_827e-2];
    const SINE: [f32; 3] = [-1.951_529_589_1e-4, 8.332_160_873_6e-3, -1.666_665_461_1e-1];
    /// -pi / 4 in three parts, of which the first two have few digits.
    const EIGHTH: [f32; 3] = [-0.785_156_25, -2.418_756_484_985_351_562_5e-4, -3.774_894_977_445_941_08e-8];
    // The nearest even number of eighths of a turn.
    let eighths = ((angle * (4.0 / std::f32::consts::PI)) as i32 + 1) & !1;
    let x = EIGHTH.into_iter().fold(angle, |rest, part| (eighths as f32).mul_add(part, rest));
    let square = x * x;
    let cosine = (polynomial(square, COSINE) * square).mul_add(square, -0.5 * square) + 1.0;
    let sine = (polynomial(square, SINE) * square).mul_add(x, x);
    let (sine, cosine) = if eighths & 2 == 0 { (sine, cosine) } else { (cosine, sine) };
    let is_sine_negative = eighths & 4 != 0;
    let is_cosine_negative = (eighths - 2) & 4 == 0;
    (if is_sine_negative { -sine } else { sine }, if is_cosine_negative { -cosine } else { cosine })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: [f32; 3] = [1.540_996_1, -0.293_428_9, -2.178_789_4];
    const MANY: [f32; 16] = [
        -0.820_134_5,
        0.395_631_16,
        0.898_908_5,
        -1.388_403_9,
        -0.166_996_02,
        0.285_149_96,
        -0.641_091_5,
        -0.893_655_4,
        0.926_543,
        -0.535_512_2,
        -1.159_720_3,
        -0.460_157_16,
        0.708_539_07,
        1.012_755_4,
        0.230_396_87,
        1.090_165_1,
    ];

    fn numbers(seed: u64, len: usize) -> Vec<f32> {
        let mut numbers = vec![0.0; len];
        TorchNormals::new(seed).fill(&mut numbers).unwrap();
        numbers
    }

    #[test]
    fn the_twister_is_that_of_the_paper() {
        // The ten thousandth number of the seed 5489, which the C++ standard names (rand.predef).
        let mut twister = Twister::new(5489);
        assert_eq!((0..10_000).map(|_| twister.next_u32()).last(), Some(4_123_659_995));
    }

    #[test]
    fn numbers_are_those_that_torch_printed() {
        assert_eq!(numbers(0, 3), FEW);
        assert_eq!(numbers(7, 16), MANY);
    }

    #[test]
    fn instruction_sets_agree() {
        let mut uniform = [[0.0; BLOCK]; 64];
        let mut twister = Twister::new(1);
        twister.fill(uniform.as_flattened_mut());
        let of = |isa: Isa| {
            let mut blocks = uniform;
            isa.run(BoxMuller { blocks: &mut blocks });
            blocks
        };
        for isa in Isa::available() {
            assert_eq!(of(isa), of(Isa::available()[0]), "{isa:?}");
        }
    }

    #[test]
    fn numbers_are_normal_and_near_those_of_exact_functions() {
        let mut uniform = [0.0; BLOCK];
        let mut twister = Twister::new(3);
        for _ in 0..2000 {
            twister.fill(&mut uniform);
            let mut block = [uniform];
            BoxMuller { blocks: &mut block }.run::<crate::simd::Portable<true>>();
            for i in 0..HALF {
                let radius = (-2.0 * (1.0 - f64::from(uniform[i])).ln()).sqrt();
                let angle = std::f64::consts::TAU * f64::from(uniform[i + HALF]);
                assert!((f64::from(block[0][i]) - radius * angle.cos()).abs() < 2e-6);
                assert!((f64::from(block[0][i + HALF]) - radius * angle.sin()).abs() < 2e-6);
            }
        }
    }
}
