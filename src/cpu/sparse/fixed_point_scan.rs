//! The scan of bytes in fixed point: energies on short square windows in sixteen bits, thirty-two images at once.
//!
//! The scan only has to tell which images *may* carry weight; those are weighed exactly later. So residuals of pixels
//! are formed in units of 1/128 (or less, after doubling) and their squares in units of a scale in which the energies
//! that matter fit; each is rounded, and sums that do not fit saturate. An energy E is computed within `offset + root
//! sqrt(E)`, where
//!
//! - `offset = n (scale / 2 + d^2)` for n values per window: squares are rounded to the scale, z by at most d = 1/256;
//! - `root = 2 d sqrt(n)`, by Cauchy and Schwarz from `(a - z)^2` against `(a - z - d)^2`,
//!
//! as long as it is below the square of the largest residual. The scan makes sure of that
//! ([`ErrorBound::saturated_from`]).

use super::candidates::ErrorBound;
use crate::components::Components;
use crate::cpu::chunks::exact_chunks;
use crate::cpu::dense::residuals::ImageShape;
use crate::cpu::probe::Probe;
use crate::cpu::tile::transpose;
use crate::regime::MAX_SHORT_SIDE;
use crate::simd::{Isa, Kernel, LANES, U16_LANES, U16x32, Vector, VectorU16};

/// Sums below this did not saturate, neither at a residual nor at a square.
const SATURATED_FROM: f32 = 32_766.0;

/// Units of a residual of one, before doubling.
const STEPS: f64 = 128.0;

/// The energy of one unit, by how often residuals are doubled.
const SCALES: [f32; 3] = [2.0, 0.5, 0.125];

/// The largest rounding of a value of z.
const Z_ROUNDING: f64 = 0.5 / STEPS;

/// A probe in fixed point.
#[derive(Debug)]
pub(crate) struct FixedPointProbe {
    /// 128 z as signed integers, `[channel][row][column]`.
    values: Vec<u16>,
    /// How often residuals are doubled before they are squared.
    doublings: usize,
    /// How far energies may be off.
    pub(crate) error_bound: ErrorBound,
}

impl FixedPointProbe {
    /// For windows of `pixels` values, where images within `margin` of the best matter. None if a value of z does not fit
    /// sixteen bits.
    #[must_use]
    pub(crate) fn new(probe: &Probe, pixels: usize, margin: f32) -> Option<Self> {
        const FINE_ENOUGH: f64 = 16.0;
        let largest = f64::from(i16::MAX);
        let values: Option<Vec<u16>> = probe
            .z
            .iter()
            .map(|z| (STEPS * z).round())
            .map(|value| (value.abs() <= largest).then_some((value as i16).cast_unsigned()))
            .collect();
        let pixels = pixels as f64;
        let is_fine = |scale: &f32| FINE_ENOUGH * pixels * f64::from(*scale) <= f64::from(margin);
        let doublings = SCALES.iter().position(is_fine).unwrap_or(SCALES.len() - 1);
        let error_bound = ErrorBound {
            scale: SCALES[doublings],
            offset: (pixels * (0.5 * f64::from(SCALES[doublings]) + Z_ROUNDING.powi(2))) as f32,
            root: (2.0 * Z_ROUNDING * pixels.sqrt()) as f32,
            slack: ErrorBound::SLACK,
            saturated_from: SATURATED_FROM * SCALES[doublings],
        };
        Some(Self { values: values?, doublings, error_bound })
    }
}

/// Images in fixed point, and the energies on them.
#[derive(Debug, Default)]
pub(crate) struct FixedPointTile {
    /// 128 times the centred pixels, `[channel][row][column]`.
    pixels: Vec<U16x32>,
    /// Images in the tile.
    valid: usize,
    /// Those of them that do not count for the next probe.
    left_out: Vec<usize>,
    /// The last rows of squared residuals; the next one takes the place of the oldest.
    ring: Vec<U16x32>,
    /// Energies of a row of windows.
    energies: Vec<U16x32>,
}

impl FixedPointTile {
    /// Transposes up to [`U16_LANES`] images of `image_len` bytes.
    pub(crate) fn load(&mut self, isa: Isa, images: &[&[u8]], image_len: usize) {
        const CENTRE: f32 = 127.5;
        self.pixels.resize(image_len, U16x32::ZERO);
        self.valid = 0;
        for images in images.chunks(LANES) {
            transpose(isa, images, CENTRE, self.valid, &mut self.pixels);
            self.valid += images.len();
        }
    }

    /// Chooses the images that do not count for the probes from now on.
    pub(crate) fn leave_out(&mut self, lanes: impl Iterator<Item = usize>) {
        self.left_out.clear();
        self.left_out.extend(lanes);
    }

    /// Computes the energies of a probe and hands them to `consume` row by row, with the first window of the row. Lanes
    /// without an image that counts get the largest number.
    pub(crate) fn energies(
        &mut self,
        isa: Isa,
        components: &Components,
        side: usize,
        probe: &FixedPointProbe,
        mut consume: impl FnMut(usize, &[U16x32]),
    ) {
        let ((_, columns), width) = (components.grid(), components.width());
        let channels = self.pixels.len() / (components.height() * width);
        let shape = ImageShape { channels, height: components.height(), width };
        self.ring.resize(side * width, U16x32::ZERO);
        self.energies.resize(columns, U16x32::ZERO);
        let mut slot = 0;
        for y in 0..components.height() {
            let out = &mut self.ring[slot * width..][..width];
            isa.run(ResidualRow { pixels: &self.pixels, probe, shape, y, out });
            slot = if slot + 1 == side { 0 } else { slot + 1 };
            let Some(row) = (y + 1).checked_sub(side) else { continue };
            isa.run(WindowSums { ring: &self.ring, side, out: &mut self.energies });
            for energy in if self.valid < U16_LANES { &mut self.energies[..] } else { &mut [] } {
                energy.0[self.valid..].fill(u16::MAX);
            }
            for &lane in &self.left_out {
                self.energies.iter_mut().for_each(|energy| energy.0[lane] = u16::MAX);
            }
            consume(row * columns, &self.energies);
        }
    }
}

/// The squared residuals on row `y`, summed over channels.
struct ResidualRow<'a> {
    pixels: &'a [U16x32],
    probe: &'a FixedPointProbe,
    shape: ImageShape,
    y: usize,
    out: &'a mut [U16x32],
}

impl Kernel for ResidualRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { pixels, probe, shape, y, out } = self;
        match probe.doublings {
            0 => residuals_of::<V, 0>(pixels, &probe.values, shape, y, out),
            1 => residuals_of::<V, 1>(pixels, &probe.values, shape, y, out),
            _ => residuals_of::<V, { SCALES.len() - 1 }>(pixels, &probe.values, shape, y, out),
        }
    }
}

/// The sums of windows of `side` columns over rows of squared residuals.
struct WindowSums<'a> {
    ring: &'a [U16x32],
    side: usize,
    out: &'a mut [U16x32],
}

impl Kernel for WindowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { ring, side, out } = self;
        match side {
            1 => sums_of::<V, 1>(ring, out),
            2 => sums_of::<V, 2>(ring, out),
            3 => sums_of::<V, 3>(ring, out),
            _ => sums_of::<V, MAX_SHORT_SIDE>(ring, out),
        }
    }
}

#[inline(always)]
fn residuals_of<V: Vector, const DOUBLINGS: usize>(
    pixels: &[U16x32],
    values: &[u16],
    shape: ImageShape,
    y: usize,
    out: &mut [U16x32],
) {
    let from = |c: usize| (c * shape.height + y) * shape.width;
    // Three channels at a time, then the rest one by one.
    let threes = shape.channels / 3;
    for c in (0..3 * threes).step_by(3) {
        add_residuals::<V, DOUBLINGS, 3>(pixels, values, [from(c), from(c + 1), from(c + 2)], c == 0, out);
    }
    for c in 3 * threes..shape.channels {
        add_residuals::<V, DOUBLINGS, 1>(pixels, values, [from(c)], c == 0, out);
    }
}

/// Adds to `out`, or writes there if they are the `first`, the squared residuals on the rows of `C` channels that start at
/// `from`.
#[inline(always)]
fn add_residuals<V: Vector, const DOUBLINGS: usize, const C: usize>(
    pixels: &[U16x32],
    values: &[u16],
    from: [usize; C],
    first: bool,
    out: &mut [U16x32],
) {
    let width = out.len();
    let values: [&[u16]; C] = std::array::from_fn(|c| &values[from[c]..][..width]);
    let pixels: [&[U16x32]; C] = std::array::from_fn(|c| &pixels[from[c]..][..width]);
    for x in 0..width {
        let mut sum = V::U16::splat(0);
        if !first {
            sum = V::U16::load(&out[x]);
        }
        for c in 0..C {
            let mut residual = V::U16::splat(values[c][x]).difference(V::U16::load(&pixels[c][x]));
            for _ in 0..DOUBLINGS {
                residual = residual.twice();
            }
            sum = if first && c == 0 { residual.square() } else { sum.add(residual.square()) };
        }
        sum.store(&mut out[x]);
    }
}

#[inline(always)]
fn sums_of<V: Vector, const SIDE: usize>(ring: &[U16x32], out: &mut [U16x32]) {
    let columns = out.len();
    let mut rows = exact_chunks(ring, columns + SIDE - 1);
    let rows: [&[U16x32]; SIDE] = std::array::from_fn(|_| rows.next().unwrap_or_default());
    // The sums down the last columns. A new one overwrites the one that leaves: shifting them along would go through
    // memory.
    let mut last = [V::U16::splat(0); SIDE];
    for x in 0..SIDE - 1 {
        last[x] = down::<V, SIDE>(&rows, x);
    }
    let mut ends: [&[U16x32]; SIDE] = [&[]; SIDE];
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
fn down<V: Vector, const SIDE: usize>(rows: &[&[U16x32]; SIDE], x: usize) -> V::U16 {
    let mut sum = V::U16::load(&rows[0][x]);
    for i in 1..SIDE {
        sum = sum.add(V::U16::load(&rows[i][x]));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use crate::cpu::images::Images;
    use ndarray::{Array3, Array4};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn energies_are_within_the_error_bound(
            channels in 1_usize..=5, height in MAX_SHORT_SIDE..MAX_SHORT_SIDE + 4,
            width in MAX_SHORT_SIDE..MAX_SHORT_SIDE + 4, count in 1_usize..=U16_LANES,
            side in 1..=MAX_SHORT_SIDE, margin in prop_oneof![Just(1.0_f32), Just(200.0), Just(1e5)], far in 1.0_f64..2.0,
        ) {
            let image_len = channels * height * width;
            let bytes: Vec<u8> = (0..count * image_len).map(|i| (i * 7919 % 256) as u8).collect();
            let images = Array4::from_shape_vec((count, channels, height, width), bytes.clone()).unwrap();
            let bank = Bank::from_u8(images.view()).unwrap();
            let components = Components::square(height, width, side).unwrap();
            // Near the first image in places, at other values and out of range in others.
            let z = Array3::from_shape_fn((channels, height, width), |(c, y, x)| {
                let near = f64::from(images[[0, c, y, x]]) / 127.5 - 1.0;
                if (y + x) % 3 == 0 { far * near } else { near + 0.01 * (x as f64 - 1.3) }
            });
            let probe = Probe::new(&bank, &components, z.view(), 0.01, 0, false);
            let pixels = side * side * channels;
            let fixed = FixedPointProbe::new(&probe, pixels, margin).unwrap();
            let ErrorBound { scale, offset, root, saturated_from, .. } = fixed.error_bound;
            let (_, columns) = components.grid();
            for isa in Isa::available() {
                let mut tile = FixedPointTile::default();
                tile.load(isa, &Images::side_by_side(&bytes, image_len), image_len);
                let mut seen = 0;
                tile.energies(isa, &components, side, &fixed, |first, energies| {
                    for n in 0..U16_LANES {
                        for k in 0..columns {
                            let sum = energies[k].0[n];
                            if n >= count {
                                assert_eq!(sum, u16::MAX);
                                continue;
                            }
                            let (row, column) = ((first + k) / columns, k);
                            let exact: f64 = ndarray::indices((channels, side, side)).into_iter().map(|(c, i, j)| {
                                let at = [c, row + i, column + j];
                                (f64::from(images[[n, at[0], at[1], at[2]]]) - 127.5 - 127.5 * z[at]).powi(2)
                            }).sum();
                            let energy = f64::from(sum) * f64::from(scale);
                            let bound = f64::from(offset) + f64::from(root) * exact.sqrt() + 1e-3;
                            if energy < f64::from(saturated_from) {
                                assert!((energy - exact).abs() <= bound, "{energy} against {exact} within {bound}");
                            } else {
                                assert!(exact > f64::from(saturated_from) - bound);
                            }
                            seen += 1;
                        }
                    }
                });
                prop_assert_eq!(seen, count * components.count());
            }
        }
    }

    #[test]
    fn probes_with_large_values_do_not_fit() {
        let images = Array4::<u8>::zeros((1, 1, 2, 2));
        let bank = Bank::from_u8(images.view()).unwrap();
        let components = Components::square(2, 2, 1).unwrap();
        for (z, some) in [(1.9, true), (-2.0, true), (2.1, false), (-3.0, false)] {
            let z = Array3::from_elem((1, 2, 2), z);
            let probe = Probe::new(&bank, &components, z.view(), 0.01, 0, false);
            assert_eq!(FixedPointProbe::new(&probe, 1, 1.0).is_some(), some);
        }
    }
}
