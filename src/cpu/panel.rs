//! `Panel`: some pixels of a few images as floats, image by image, for the full window, where lanes are pixels: the weighted
//! means of many probes then read each pixel from the first cache levels, as a matrix product does.

use std::ops::Range;

use super::isa::{Isa, dispatched};
use super::simd::{LANES, Lanes, Vector};
use super::tile::Pixel;

/// Images a panel: enough to read a probe seldom, few enough to stay in the second-level cache.
pub const IMAGES: usize = 32;

/// Rows of images are one vector further apart than they are long, lest all of them compete for the same cache lines.
const STRIDE: usize = Panel::VECTORS + 1;

/// Probes whose means are computed together; a lone probe takes [`FOUR`] vectors at once.
const SIX: usize = 6;
const FOUR: usize = 4;

/// Pixels of up to [`IMAGES`] images, less the centre of their range, `[image][vector]`; what lies beyond an image is zero.
#[derive(Debug)]
pub struct Panel {
    pixels: Vec<Lanes>,
    /// Vectors in use.
    vectors: Range<usize>,
}

/// Values of probes, or sums, as many vectors as an image needs, `[vector]`.
#[must_use]
pub fn vectors(image_len: usize) -> usize {
    image_len.div_ceil(LANES)
}

/// Less than sixteen pixels, less the centre of their range, and zeros.
pub(super) fn padded<P: Pixel>(pixels: &[P]) -> Lanes {
    let mut lanes = Lanes::ZERO;
    for (lane, pixel) in lanes.0.iter_mut().zip(pixels) {
        *lane = pixel.number() as f32;
    }
    lanes
}

impl Default for Panel {
    fn default() -> Self {
        Self { pixels: vec![Lanes::ZERO; IMAGES * STRIDE], vectors: 0..0 }
    }
}

impl Panel {
    /// Vectors of sixteen pixels a part of an image has. Energies are summed over a part before they are added up, so that
    /// rounding grows with the root of this length and not of the image's; the values of 128 probes for a part fit the
    /// second-level cache.
    pub const VECTORS: usize = 32;

    /// The parts of an image that fit a panel, as ranges of vectors.
    pub fn parts(image_len: usize) -> impl Iterator<Item = Range<usize>> {
        let count = vectors(image_len);
        (0..count).step_by(Self::VECTORS).map(move |start| start..count.min(start + Self::VECTORS))
    }

    /// Fills the panel with `vectors` of images laid one after the other. Rows without an image keep what they held.
    pub fn load<P: Pixel>(&mut self, isa: Isa, images: &[P], image_len: usize, vectors: Range<usize>) {
        self.vectors = vectors;
        pack(isa, images, image_len, self);
    }
}

dispatched! {
    fn pack<P: Pixel>(images: &[P], image_len: usize, panel: &mut Panel) = pack_body
}

#[inline(always)]
fn pack_body<V: Vector, P: Pixel>(images: &[P], image_len: usize, panel: &mut Panel) {
    let (start, end) = (panel.vectors.start * LANES, image_len.min(panel.vectors.end * LANES));
    for (image, row) in images.chunks_exact(image_len).zip(panel.pixels.chunks_exact_mut(STRIDE)) {
        let (whole, rest) = image[start..end].as_chunks::<LANES>();
        for (pixels, out) in whole.iter().zip(&mut *row) {
            P::centred_row::<V>(pixels).store(out);
        }
        if !rest.is_empty() {
            row[whole.len()] = padded(rest);
        }
    }
}

dispatched! {
    /// Adds to `sums` `[probe][vector]`, or writes there if they are `fresh`, a panel's images times their weights
    /// `[probe][image]`; what has no image has a weight of zero.
    pub fn add_means(panel: &Panel, weights: &[[f32; IMAGES]], fresh: bool, sums: &mut [Vec<Lanes>]) = add_means_body
}

#[inline(always)]
fn add_means_body<V: Vector>(panel: &Panel, weights: &[[f32; IMAGES]], fresh: bool, sums: &mut [Vec<Lanes>]) {
    let (sixes, ones) = weights.as_chunks::<SIX>();
    let (six_sums, one_sums) = sums.as_chunks_mut::<SIX>();
    for (six, sums) in sixes.iter().zip(six_sums) {
        // One image's weights side by side.
        let mut weights = [[0.0; SIX]; IMAGES];
        for n in 0..IMAGES {
            for q in 0..SIX {
                weights[n][q] = six[q][n];
            }
        }
        for v in 0..panel.vectors.len() {
            let mut lanes = [V::splat(0.0); SIX];
            for (row, weights) in panel.pixels.chunks_exact(STRIDE).zip(&weights) {
                let a = V::load(&row[v]);
                for q in 0..SIX {
                    lanes[q] = a.mul_add(V::splat(weights[q]), lanes[q]);
                }
            }
            for q in 0..SIX {
                add_to::<V>(lanes[q], fresh, &mut sums[q][panel.vectors.start + v]);
            }
        }
    }
    for (weights, sums) in ones.iter().zip(one_sums) {
        let sums = &mut sums[panel.vectors.clone()];
        for v in (0..panel.vectors.len()).step_by(FOUR) {
            let mut lanes = [V::splat(0.0); FOUR];
            for (row, &weight) in panel.pixels.chunks_exact(STRIDE).zip(weights) {
                let (weight, row) = (V::splat(weight), &row[v..v + FOUR]);
                for i in 0..FOUR {
                    lanes[i] = V::load(&row[i]).mul_add(weight, lanes[i]);
                }
            }
            for (sum, lanes) in sums[v..].iter_mut().zip(lanes) {
                add_to::<V>(lanes, fresh, sum);
            }
        }
    }
}

#[inline(always)]
fn add_to<V: Vector>(lanes: V, fresh: bool, sum: &mut Lanes) {
    let before = if fresh { V::splat(0.0) } else { V::load(sum) };
    before.add(lanes).store(sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_exact_and_pairs_independent(
            image_len in 1_usize..2200, images in 1_usize..=IMAGES, probes in 1_usize..15,
        ) {
            let bytes: Vec<u8> = (0..images * image_len).map(|i| (i * 37 % 251) as u8).collect();
            let weight = |q: usize, n: usize| if n < images { ((q * 13 + n * 7) % 11) as f32 } else { 0.0 };
            let weights: Vec<[f32; IMAGES]> = (0..probes).map(|q| std::array::from_fn(|n| weight(q, n))).collect();
            for isa in Isa::available() {
                // What fresh sums hold is of no account.
                let mut sums = vec![vec![Lanes::splat(7.0); vectors(image_len)]; probes];
                let mut lone_sums = vec![vec![Lanes::ZERO; vectors(image_len)]];
                let mut panel = Panel::default();
                for part in Panel::parts(image_len) {
                    panel.load(isa, &bytes, image_len, part);
                    add_means(isa, &panel, &weights, true, &mut sums);
                    add_means(isa, &panel, &weights[..1], false, &mut lone_sums);
                }
                prop_assert_eq!(&sums[0], &lone_sums[0]);
                let pixel = |n: usize, p: usize| bytes[n * image_len + p].number();
                for (q, weights) in weights.iter().enumerate() {
                    for p in 0..image_len {
                        let term = |n: usize| f64::from(weights[n]) * pixel(n, p);
                        let exact: f64 = (0..images).map(term).sum();
                        let size: f64 = (0..images).map(|n| term(n).abs()).sum();
                        let sum = f64::from(sums[q][p / LANES].0[p % LANES]);
                        prop_assert!((sum - exact).abs() <= 1e-6 * size);
                    }
                }
            }
        }
    }
}
