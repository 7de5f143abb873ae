//! `Panel`: some pixels of a few images as floats, image by image, for the full window, where lanes are pixels: the dot
//! products and weighted means of many probes then read each pixel from the first cache levels, as a matrix product does.

use std::ops::Range;

use super::isa::{Isa, dispatched};
use super::simd::{LANES, Lanes, Vector};
use super::tile::Pixel;

/// Images a panel: enough to read a probe seldom, few enough to stay in the second-level cache.
pub const IMAGES: usize = 32;

/// Rows of images are one vector further apart than they are long, lest all of them compete for the same cache lines.
const STRIDE: usize = Panel::VECTORS + 1;

/// Probes whose energies are computed together on [`TWO`] images: with two registers each, twelve sums in flight.
const THREE: usize = 3;
const TWO: usize = 2;

/// Probes whose means are computed together; a lone probe takes [`FOUR`] images, or vectors, at once.
const SIX: usize = 6;
const FOUR: usize = 4;

/// Pixels of up to [`IMAGES`] images, less the centre of their range, `[image][vector]`; what lies beyond an image is zero.
#[derive(Debug)]
pub struct Panel {
    pixels: Vec<Lanes>,
    /// Squares of every image's pixels, summed up lane by lane, once [`Panel::square`] was asked for them.
    squares: Vec<Lanes>,
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
        Self { pixels: vec![Lanes::ZERO; IMAGES * STRIDE], squares: vec![Lanes::ZERO; IMAGES], vectors: 0..0 }
    }
}

impl Panel {
    /// Vectors of sixteen pixels a panel has of each image. Sums run over one panel before they are added up, so that
    /// rounding grows with the root of this length and not of the image's; those of three probes fit the first-level
    /// cache.
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

    /// Sums up the squares of the pixels, which the expanded form of the energies shares among all probes.
    pub fn square(&mut self, isa: Isa) {
        square(isa, self);
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
    fn square(panel: &mut Panel) = square_body
}

#[inline(always)]
fn square_body<V: Vector>(panel: &mut Panel) {
    let Panel { pixels, squares, vectors } = panel;
    for (row, square) in pixels.chunks_exact(STRIDE).zip(squares) {
        let mut sum = V::splat(0.0);
        for pixels in &row[..vectors.len()] {
            let a = V::load(pixels);
            sum = a.mul_add(a, sum);
        }
        sum.store(square);
    }
}

dispatched! {
    /// Adds to `energies` `[probe][image]` the energies of a panel's part of all images, for probes `[probe][vector]` of
    /// one form. A pair's bits do not depend on its neighbours.
    pub fn add_energies(panel: &Panel, probes: &[Vec<Lanes>], expanded: bool, energies: &mut [[f32; IMAGES]]) =
        add_energies_body
}

#[inline(always)]
fn add_energies_body<V: Vector>(panel: &Panel, probes: &[Vec<Lanes>], expanded: bool, energies: &mut [[f32; IMAGES]]) {
    if expanded {
        add_energies_of::<V, true>(panel, probes, energies);
    } else {
        add_energies_of::<V, false>(panel, probes, energies);
    }
}

#[inline(always)]
fn add_energies_of<V: Vector, const EXPANDED: bool>(
    panel: &Panel,
    probes: &[Vec<Lanes>],
    energies: &mut [[f32; IMAGES]],
) {
    let (threes, ones) = probes.as_chunks::<THREE>();
    let (energies_of_threes, energies_of_ones) = energies.split_at_mut(threes.len() * THREE);
    for (three, energies) in threes.iter().zip(energies_of_threes.as_chunks_mut::<THREE>().0) {
        add_block::<V, EXPANDED, TWO, THREE>(panel, three, energies);
    }
    for (one, energies) in ones.iter().zip(energies_of_ones) {
        add_block::<V, EXPANDED, FOUR, 1>(panel, std::array::from_ref(one), std::array::from_mut(energies));
    }
}

#[inline(always)]
fn add_block<V: Vector, const EXPANDED: bool, const I: usize, const Q: usize>(
    panel: &Panel,
    probes: &[Vec<Lanes>; Q],
    energies: &mut [[f32; IMAGES]; Q],
) {
    let len = panel.vectors.len();
    let mut values: [&[Lanes]; Q] = [&[]; Q];
    for q in 0..Q {
        values[q] = &probes[q][panel.vectors.start..][..len];
    }
    for first in (0..IMAGES).step_by(I) {
        let mut rows: [&[Lanes]; I] = [&[]; I];
        let mut sums = [[V::splat(0.0); Q]; I];
        for i in 0..I {
            rows[i] = &panel.pixels[(first + i) * STRIDE..][..len];
        }
        for v in 0..len {
            for i in 0..I {
                let a = V::load(&rows[i][v]);
                for q in 0..Q {
                    let z = V::load(&values[q][v]);
                    let (factor, other) = if EXPANDED { (a, z) } else { (a.sub(z), a.sub(z)) };
                    sums[i][q] = factor.mul_add(other, sums[i][q]);
                }
            }
        }
        for i in 0..I {
            for q in 0..Q {
                let squares = if EXPANDED { V::load(&panel.squares[first + i]) } else { V::splat(0.0) };
                energies[q][first + i] += sums[i][q].add(squares).sum();
            }
        }
    }
}

dispatched! {
    /// Adds to `sums` `[vector][probe]` a panel's images times their weights `[probe][image]`; what has no image has a
    /// weight of zero.
    pub fn add_means(panel: &Panel, weights: &[[f32; IMAGES]], sums: &mut [Lanes]) = add_means_body
}

#[inline(always)]
fn add_means_body<V: Vector>(panel: &Panel, weights: &[[f32; IMAGES]], sums: &mut [Lanes]) {
    let probes = weights.len();
    let (sixes, ones) = weights.as_chunks::<SIX>();
    let sums = &mut sums[panel.vectors.start * probes..panel.vectors.end * probes];
    for (block, six) in sixes.iter().enumerate() {
        // One image's weights side by side.
        let mut weights = [[0.0; SIX]; IMAGES];
        for n in 0..IMAGES {
            for q in 0..SIX {
                weights[n][q] = six[q][n];
            }
        }
        for (v, sums) in sums.chunks_exact_mut(probes).enumerate() {
            let mut lanes = [V::splat(0.0); SIX];
            for (row, weights) in panel.pixels.chunks_exact(STRIDE).zip(&weights) {
                let a = V::load(&row[v]);
                for q in 0..SIX {
                    lanes[q] = a.mul_add(V::splat(weights[q]), lanes[q]);
                }
            }
            let sums = &mut sums[block * SIX..][..SIX];
            for q in 0..SIX {
                V::load(&sums[q]).add(lanes[q]).store(&mut sums[q]);
            }
        }
    }
    for (one, weights) in ones.iter().enumerate() {
        let probe = sixes.len() * SIX + one;
        for v in (0..panel.vectors.len()).step_by(FOUR) {
            let mut lanes = [V::splat(0.0); FOUR];
            for (row, &weight) in panel.pixels.chunks_exact(STRIDE).zip(weights) {
                let (weight, row) = (V::splat(weight), &row[v..v + FOUR]);
                for i in 0..FOUR {
                    lanes[i] = V::load(&row[i]).mul_add(weight, lanes[i]);
                }
            }
            for (i, lanes) in lanes.into_iter().enumerate().take(panel.vectors.len() - v) {
                let sum = &mut sums[(v + i) * probes + probe];
                V::load(sum).add(lanes).store(sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Images, and per probe values or weights as plain numbers.
    fn numbers(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| (i * step % 1009) as f32 / 7.0 - 70.0).collect()
    }

    fn in_vectors(values: &[f32]) -> Vec<Lanes> {
        let lanes = |part: &[f32]| Lanes(std::array::from_fn(|i| part.get(i).copied().unwrap_or(0.0)));
        values.chunks(LANES).map(lanes).collect()
    }

    proptest! {
        #[test]
        fn sums_are_exact_and_pairs_independent(
            image_len in 1_usize..2200, images in 1_usize..=IMAGES, probes in 1_usize..15, expanded: bool,
        ) {
            let bytes: Vec<u8> = (0..images * image_len).map(|i| (i * 37 % 251) as u8).collect();
            let values: Vec<Vec<f32>> = (0..probes).map(|q| numbers(image_len, 31 + q)).collect();
            let lanes: Vec<Vec<Lanes>> = values.iter().map(|v| in_vectors(v)).collect();
            let weight = |q: usize, n: usize| if n < images { ((q * 13 + n * 7) % 11) as f32 } else { 0.0 };
            let weights: Vec<[f32; IMAGES]> = (0..probes).map(|q| std::array::from_fn(|n| weight(q, n))).collect();
            for isa in Isa::available() {
                let mut energies = vec![[0.0; IMAGES]; probes];
                let mut alone = [[0.0; IMAGES]];
                let mut sums = vec![Lanes::ZERO; vectors(image_len) * probes];
                let mut lone_sums = vec![Lanes::ZERO; vectors(image_len)];
                let mut panel = Panel::default();
                for part in Panel::parts(image_len) {
                    panel.load(isa, &bytes, image_len, part);
                    panel.square(isa);
                    add_energies(isa, &panel, &lanes, expanded, &mut energies);
                    add_energies(isa, &panel, &lanes[..1], expanded, &mut alone);
                    add_means(isa, &panel, &weights, &mut sums);
                    add_means(isa, &panel, &weights[..1], &mut lone_sums);
                }
                prop_assert_eq!(&alone[0][..images], &energies[0][..images]);
                prop_assert!(sums.iter().step_by(probes).eq(&lone_sums));
                let pixel = |n: usize, p: usize| bytes[n * image_len + p].number();
                for (q, energies) in energies.iter().enumerate() {
                    for n in 0..images {
                        let term = |p: usize| {
                            let (a, z) = (pixel(n, p), f64::from(values[q][p]));
                            if expanded { a * a + a * z } else { (a - z).powi(2) }
                        };
                        let exact: f64 = (0..image_len).map(term).sum();
                        let size: f64 = (0..image_len).map(|p| term(p).abs()).sum();
                        prop_assert!((f64::from(energies[n]) - exact).abs() <= 1e-6 * size);
                    }
                    for p in 0..image_len {
                        let term = |n: usize| f64::from(weights[q][n]) * pixel(n, p);
                        let exact: f64 = (0..images).map(term).sum();
                        let size: f64 = (0..images).map(|n| term(n).abs()).sum();
                        let sum = f64::from(sums[p / LANES * probes + q].0[p % LANES]);
                        prop_assert!((sum - exact).abs() <= 1e-6 * size);
                    }
                }
            }
        }
    }
}
