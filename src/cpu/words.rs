//! Energies in whole numbers of sixteen bits: the scan of bytes for images near the best, on short square windows.
//!
//! The scan only has to tell which images *may* carry weight; those are weighed exactly later. So errors of pixels are
//! formed in units of 1/128 (or less, after doubling), their squares in the unit that leaves room for the energies that
//! matter, each rounded; sums that do not fit end at the largest number. An energy E is read within
//! `offset + root sqrt(E)`, where
//!
//! - `offset = n (unit / 2 + d^2)` for n values a window: squares are rounded to the unit, z by at most d = 1/256;
//! - `root = 2 d sqrt(n)`, by Cauchy and Schwarz from `(a - z)^2` against `(a - z - d)^2`,
//!
//! as long as it is below the square of the largest error. Whoever scans makes sure of that ([`Reading::faithful`]).

use super::candidates::Reading;
use super::errors::Shape;
use super::isa::{Isa, dispatched};
use super::parts::parts;
use super::probe::Probe;
use super::simd::{LANES, Vector, WORDS, Word, WordLanes};
use super::slide::LONGEST_SHORT;
use super::tile::load;
use crate::windows::{Kind, Windows};

/// Numbers below this are what they seem: no error behind them, and no sum, ended at the largest.
const FAITHFUL: f32 = 32_766.0;

/// Units of errors before doubling.
const STEPS: f64 = 128.0;

/// What a squared error of one means, by how often errors are doubled.
const UNITS: [f32; 3] = [2.0, 0.5, 0.125];

/// The largest rounding of a value of z.
const ROUNDING: f64 = 0.5 / STEPS;

/// The side of windows whose energies fit sixteen bits.
#[must_use]
pub fn side(windows: &Windows) -> Option<usize> {
    match windows.kind() {
        Kind::Square { side } if *side <= LONGEST_SHORT => Some(*side),
        Kind::Square { .. } | Kind::Masks(_) | Kind::Full => None,
    }
}

/// A probe in whole numbers.
#[derive(Debug)]
pub struct WordProbe {
    /// 128 z with sign, `[channel][row][column]`.
    values: Vec<u16>,
    /// How often errors are doubled before they are squared.
    doublings: usize,
    /// What the numbers mean.
    pub reading: Reading,
}

impl WordProbe {
    /// For windows of `pixels` values, where images within `margin` of the best matter. There is none where z lies so far
    /// from all images that its errors do not fit.
    #[must_use]
    pub fn new(probe: &Probe, pixels: usize, margin: f32) -> Option<Self> {
        const FINE: f64 = 16.0;
        let largest = f64::from(i16::MAX);
        let values: Option<Vec<u16>> = probe
            .z
            .iter()
            .map(|z| (STEPS * z).round())
            .map(|value| (value.abs() <= largest).then_some((value as i16).cast_unsigned()))
            .collect();
        let pixels = pixels as f64;
        let fine = |unit: &f32| FINE * pixels * f64::from(*unit) <= f64::from(margin);
        let doublings = UNITS.iter().position(fine).unwrap_or(UNITS.len() - 1);
        let reading = Reading {
            unit: UNITS[doublings],
            offset: (pixels * (0.5 * f64::from(UNITS[doublings]) + ROUNDING.powi(2))) as f32,
            root: (2.0 * ROUNDING * pixels.sqrt()) as f32,
            faithful: FAITHFUL * UNITS[doublings],
        };
        Some(Self { values: values?, doublings, reading })
    }
}

/// Images as whole numbers, and the energies in work on them.
#[derive(Debug, Default)]
pub struct WordTile {
    /// 128 times the centred pixels, `[channel][row][column]`.
    pixels: Vec<WordLanes>,
    /// Images in the tile.
    valid: usize,
    /// The last rows of errors; the next one takes the place of the oldest.
    ring: Vec<WordLanes>,
    /// Energies of a row of windows.
    energies: Vec<WordLanes>,
}

impl WordTile {
    /// Transposes up to [`WORDS`] images of `image_len` bytes that lie one after the other.
    pub fn load(&mut self, isa: Isa, images: &[u8], image_len: usize) {
        self.pixels.resize(image_len, WordLanes::ZERO);
        self.valid = 0;
        for images in images.chunks(LANES * image_len) {
            self.valid += load(isa, images, self.valid, &mut self.pixels);
        }
    }

    /// Computes the energies of a probe and hands them to `take` row by row, with the row's first window. Lanes without an
    /// image get the largest number.
    pub fn energies(
        &mut self,
        isa: Isa,
        windows: &Windows,
        side: usize,
        probe: &WordProbe,
        mut take: impl FnMut(usize, &[WordLanes]),
    ) {
        let ((_, columns), width) = (windows.grid(), windows.width());
        let channels = self.pixels.len() / (windows.height() * width);
        let shape = Shape { channels, height: windows.height(), width };
        self.ring.resize(side * width, WordLanes::ZERO);
        self.energies.resize(columns, WordLanes::ZERO);
        let mut slot = 0;
        for y in 0..windows.height() {
            errors(isa, &self.pixels, probe, shape, y, &mut self.ring[slot * width..][..width]);
            slot = if slot + 1 == side { 0 } else { slot + 1 };
            let Some(row) = (y + 1).checked_sub(side) else { continue };
            sums(isa, &self.ring, side, &mut self.energies);
            for energy in if self.valid < WORDS { &mut self.energies[..] } else { &mut [] } {
                energy.0[self.valid..].fill(u16::MAX);
            }
            take(row * columns, &self.energies);
        }
    }
}

dispatched! {
    /// The squared errors on row `y`, summed over channels.
    fn errors(pixels: &[WordLanes], probe: &WordProbe, shape: Shape, y: usize, out: &mut [WordLanes]) = errors_body
}

dispatched! {
    /// The sums of windows of `side` columns over rows of errors.
    fn sums(ring: &[WordLanes], side: usize, out: &mut [WordLanes]) = sums_body
}

#[inline(always)]
fn errors_body<V: Vector>(pixels: &[WordLanes], probe: &WordProbe, shape: Shape, y: usize, out: &mut [WordLanes]) {
    match probe.doublings {
        0 => errors_of::<V, 0>(pixels, &probe.values, shape, y, out),
        1 => errors_of::<V, 1>(pixels, &probe.values, shape, y, out),
        _ => errors_of::<V, { UNITS.len() - 1 }>(pixels, &probe.values, shape, y, out),
    }
}

#[inline(always)]
fn errors_of<V: Vector, const DOUBLINGS: usize>(
    pixels: &[WordLanes],
    values: &[u16],
    shape: Shape,
    y: usize,
    out: &mut [WordLanes],
) {
    let from = |c: usize| (c * shape.height + y) * shape.width;
    // Three channels at a time as long as there are so many, then one.
    let threes = shape.channels / 3;
    for c in (0..3 * threes).step_by(3) {
        add_errors::<V, DOUBLINGS, 3>(pixels, values, [from(c), from(c + 1), from(c + 2)], c == 0, out);
    }
    for c in 3 * threes..shape.channels {
        add_errors::<V, DOUBLINGS, 1>(pixels, values, [from(c)], c == 0, out);
    }
}

/// Adds to `out`, or writes there if they are the `first`, the squared errors on the rows of `C` channels that start at
/// `from`.
#[inline(always)]
fn add_errors<V: Vector, const DOUBLINGS: usize, const C: usize>(
    pixels: &[WordLanes],
    values: &[u16],
    from: [usize; C],
    first: bool,
    out: &mut [WordLanes],
) {
    let width = out.len();
    let values: [&[u16]; C] = std::array::from_fn(|c| &values[from[c]..][..width]);
    let pixels: [&[WordLanes]; C] = std::array::from_fn(|c| &pixels[from[c]..][..width]);
    for x in 0..width {
        let mut sum = V::Word::splat(0);
        if !first {
            sum = V::Word::load(&out[x]);
        }
        for c in 0..C {
            let mut error = V::Word::splat(values[c][x]).difference(V::Word::load(&pixels[c][x]));
            for _ in 0..DOUBLINGS {
                error = error.twice();
            }
            sum = if first && c == 0 { error.square() } else { sum.add(error.square()) };
        }
        sum.store(&mut out[x]);
    }
}

#[inline(always)]
fn sums_body<V: Vector>(ring: &[WordLanes], side: usize, out: &mut [WordLanes]) {
    match side {
        1 => sums_of::<V, 1>(ring, out),
        2 => sums_of::<V, 2>(ring, out),
        3 => sums_of::<V, 3>(ring, out),
        _ => sums_of::<V, LONGEST_SHORT>(ring, out),
    }
}

#[inline(always)]
fn sums_of<V: Vector, const SIDE: usize>(ring: &[WordLanes], out: &mut [WordLanes]) {
    let columns = out.len();
    let mut rows = parts(ring, columns + SIDE - 1);
    let rows: [&[WordLanes]; SIDE] = std::array::from_fn(|_| rows.next().unwrap_or_default());
    // The sums down the last columns, each in the place of the one that left: copies from place to place would go through
    // memory.
    let mut last = [V::Word::splat(0); SIDE];
    for x in 0..SIDE - 1 {
        last[x] = down::<V, SIDE>(&rows, x);
    }
    let mut ends: [&[WordLanes]; SIDE] = [&[]; SIDE];
    for i in 0..SIDE {
        ends[i] = &rows[i][SIDE - 1..][..columns];
    }
    let mut x = 0;
    while x < columns {
        for j in 0..SIDE {
            if x + j < columns {
                last[(j + SIDE - 1) % SIDE] = down::<V, SIDE>(&ends, x + j);
                let mut sum = last[0];
                for i in 1..SIDE {
                    sum = sum.add(last[i]);
                }
                sum.store(&mut out[x + j]);
            }
        }
        x += SIDE;
    }
}

/// The sum of all rows at column `x`.
#[inline(always)]
fn down<V: Vector, const SIDE: usize>(rows: &[&[WordLanes]; SIDE], x: usize) -> V::Word {
    let mut sum = V::Word::load(&rows[0][x]);
    for i in 1..SIDE {
        sum = sum.add(V::Word::load(&rows[i][x]));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use ndarray::{Array3, Array4};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn energies_are_as_near_as_the_reading_says(
            channels in 1_usize..=5, height in 4_usize..8, width in 4_usize..8, count in 1_usize..=WORDS,
            side in 1_usize..=4, margin in prop_oneof![Just(1.0_f32), Just(200.0), Just(1e5)], far in 1.0_f64..2.0,
        ) {
            let image_len = channels * height * width;
            let bytes: Vec<u8> = (0..count * image_len).map(|i| (i * 7919 % 256) as u8).collect();
            let images = Array4::from_shape_vec((count, channels, height, width), bytes.clone()).unwrap();
            let bank = Bank::from_u8(images.view()).unwrap();
            let windows = Windows::square(height, width, side).unwrap();
            // Near the first image in places, at other values and out of range in others.
            let z = Array3::from_shape_fn((channels, height, width), |(c, y, x)| {
                let near = f64::from(images[[0, c, y, x]]) / 127.5 - 1.0;
                if (y + x) % 3 == 0 { far * near } else { near + 0.01 * (x as f64 - 1.3) }
            });
            let probe = Probe::new(&bank, &windows, z.view(), 0.01, 0, false);
            let pixels = side * side * channels;
            let words = WordProbe::new(&probe, pixels, margin).unwrap();
            let Reading { unit, offset, root, faithful } = words.reading;
            let (_, columns) = windows.grid();
            for isa in Isa::available() {
                let mut tile = WordTile::default();
                tile.load(isa, &bytes, image_len);
                let mut seen = 0;
                tile.energies(isa, &windows, side, &words, |first, energies| {
                    for n in 0..WORDS {
                        for k in 0..columns {
                            let word = energies[k].0[n];
                            if n >= count {
                                assert_eq!(word, u16::MAX);
                                continue;
                            }
                            let (row, column) = ((first + k) / columns, k);
                            let exact: f64 = ndarray::indices((channels, side, side)).into_iter().map(|(c, i, j)| {
                                let at = [c, row + i, column + j];
                                (f64::from(images[[n, at[0], at[1], at[2]]]) - 127.5 - 127.5 * z[at]).powi(2)
                            }).sum();
                            let energy = f64::from(word) * f64::from(unit);
                            let bound = f64::from(offset) + f64::from(root) * exact.sqrt() + 1e-3;
                            if energy < f64::from(faithful) {
                                assert!((energy - exact).abs() <= bound, "{energy} against {exact} within {bound}");
                            } else {
                                assert!(exact > f64::from(faithful) - bound);
                            }
                            seen += 1;
                        }
                    }
                });
                prop_assert_eq!(seen, count * windows.count());
            }
        }
    }

    #[test]
    fn probes_far_from_all_images_have_no_words() {
        let images = Array4::<u8>::zeros((1, 1, 2, 2));
        let bank = Bank::from_u8(images.view()).unwrap();
        let windows = Windows::square(2, 2, 1).unwrap();
        for (z, some) in [(1.9, true), (-2.0, true), (2.1, false), (-3.0, false)] {
            let z = Array3::from_elem((1, 2, 2), z);
            let probe = Probe::new(&bank, &windows, z.view(), 0.01, 0, false);
            assert_eq!(WordProbe::new(&probe, 1, 1.0).is_some(), some);
        }
    }
}
