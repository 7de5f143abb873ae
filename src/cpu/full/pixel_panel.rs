//! `PixelPanel`: some pixels of a few images as floats, image by image, for the weighted means of many probes on the full
//! window. Lanes are pixels, and every pixel is read from the caches near the core, as in a matrix product.

use std::ops::Range;

use crate::cpu::tile::Pixel;
use crate::simd::{F32x16, Isa, Kernel, LANES, Vector};

/// Images per panel: enough that the sums of a probe are seldom read and written, few enough to stay in the second-level
/// cache.
pub(crate) const IMAGES: usize = 32;

/// Rows of images are one vector further apart than they are long, so that they do not fall on the same cache lines.
const STRIDE: usize = PixelPanel::VECTORS + 1;

/// Probes whose means are computed together.
const PROBES_AT_ONCE: usize = 6;

/// Vectors of a single probe's mean that are computed together.
const VECTORS_AT_ONCE: usize = 4;

/// Pixels of up to [`IMAGES`] images, less the centre of their range, `[image][vector]`; what lies beyond an image is zero.
#[derive(Debug)]
pub(crate) struct PixelPanel {
    pixels: Vec<F32x16>,
    /// Vectors in use.
    vectors: Range<usize>,
}

/// Number of vectors that an image takes.
#[must_use]
pub(crate) fn vectors(image_len: usize) -> usize {
    image_len.div_ceil(LANES)
}

/// Fewer than sixteen pixels, less their centre, padded with zeros.
pub(crate) fn padded<P: Pixel>(pixels: &[P], centre: f32) -> F32x16 {
    let mut lanes = F32x16::ZERO;
    for (lane, pixel) in lanes.0.iter_mut().zip(pixels) {
        *lane = pixel.number(centre) as f32;
    }
    lanes
}

impl Default for PixelPanel {
    fn default() -> Self {
        Self { pixels: vec![F32x16::ZERO; IMAGES * STRIDE], vectors: 0..0 }
    }
}

impl PixelPanel {
    /// Vectors of sixteen pixels a part of an image has. Energies are summed over a part before they are added up, so that
    /// rounding grows with the root of this length and not of the image's; the values of 128 probes for a part fit the
    /// second-level cache.
    pub(crate) const VECTORS: usize = 32;

    /// The parts of an image that fit a panel, as ranges of vectors.
    pub(crate) fn parts(image_len: usize) -> impl Iterator<Item = Range<usize>> {
        let count = vectors(image_len);
        (0..count).step_by(Self::VECTORS).map(move |start| start..count.min(start + Self::VECTORS))
    }

    /// Fills the panel with `vectors` of images, whose pixels have this centre. Rows without an
    /// image keep what they held.
    pub(crate) fn load<P: Pixel>(
        &mut self,
        isa: Isa,
        images: &[&[P]],
        centre: f32,
        image_len: usize,
        vectors: Range<usize>,
    ) {
        self.vectors = vectors;
        isa.run(Pack { images, centre, image_len, panel: self });
    }
}

struct Pack<'a, P: Pixel> {
    images: &'a [&'a [P]],
    centre: f32,
    image_len: usize,
    panel: &'a mut PixelPanel,
}

impl<P: Pixel> Kernel for Pack<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { images, centre, image_len, panel } = self;
        let (start, end) = (panel.vectors.start * LANES, image_len.min(panel.vectors.end * LANES));
        for (image, row) in images.iter().zip(panel.pixels.chunks_exact_mut(STRIDE)) {
            let (whole, rest) = image[start..end].as_chunks::<LANES>();
            for (pixels, out) in whole.iter().zip(&mut *row) {
                P::centred_row::<V>(pixels, centre).store(out);
            }
            if !rest.is_empty() {
                row[whole.len()] = padded(rest, centre);
            }
        }
    }
}

/// Adds the images of a panel, times their weights `[probe][image]`, to `sums` `[probe][vector]`; with `fresh` it
/// overwrites the sums. Rows without an image have the weight zero.
pub(crate) struct AddMeans<'a> {
    pub(crate) panel: &'a PixelPanel,
    pub(crate) weights: &'a [[f32; IMAGES]],
    pub(crate) fresh: bool,
    pub(crate) sums: &'a mut [Vec<F32x16>],
}

impl Kernel for AddMeans<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { panel, weights, fresh, sums } = self;
        let (sixes, singles) = weights.as_chunks::<PROBES_AT_ONCE>();
        let (six_sums, single_sums) = sums.as_chunks_mut::<PROBES_AT_ONCE>();
        for (six, sums) in sixes.iter().zip(six_sums) {
            // The weights of one image for six probes, side by side.
            let mut weights = [[0.0; PROBES_AT_ONCE]; IMAGES];
            for n in 0..IMAGES {
                for q in 0..PROBES_AT_ONCE {
                    weights[n][q] = six[q][n];
                }
            }
            for v in 0..panel.vectors.len() {
                let mut lanes = [V::splat(0.0); PROBES_AT_ONCE];
                for (row, weights) in panel.pixels.chunks_exact(STRIDE).zip(&weights) {
                    let a = V::load(&row[v]);
                    for q in 0..PROBES_AT_ONCE {
                        lanes[q] = a.mul_add(V::splat(weights[q]), lanes[q]);
                    }
                }
                for q in 0..PROBES_AT_ONCE {
                    add_to::<V>(lanes[q], fresh, &mut sums[q][panel.vectors.start + v]);
                }
            }
        }
        for (weights, sums) in singles.iter().zip(single_sums) {
            let sums = &mut sums[panel.vectors.clone()];
            for v in (0..panel.vectors.len()).step_by(VECTORS_AT_ONCE) {
                let mut lanes = [V::splat(0.0); VECTORS_AT_ONCE];
                for (row, &weight) in panel.pixels.chunks_exact(STRIDE).zip(weights) {
                    let (weight, row) = (V::splat(weight), &row[v..v + VECTORS_AT_ONCE]);
                    for i in 0..VECTORS_AT_ONCE {
                        lanes[i] = V::load(&row[i]).mul_add(weight, lanes[i]);
                    }
                }
                for (sum, lanes) in sums[v..].iter_mut().zip(lanes) {
                    add_to::<V>(lanes, fresh, sum);
                }
            }
        }
    }
}

#[inline(always)]
fn add_to<V: Vector>(lanes: V, fresh: bool, sum: &mut F32x16) {
    let before = if fresh { V::splat(0.0) } else { V::load(sum) };
    before.add(lanes).store(sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::images::Images;
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
                // What fresh sums hold does not matter.
                let mut sums = vec![vec![F32x16::splat(7.0); vectors(image_len)]; probes];
                let mut single_sums = [vec![F32x16::ZERO; vectors(image_len)]];
                let mut panel = PixelPanel::default();
                for part in PixelPanel::parts(image_len) {
                    panel.load(isa, &Images::side_by_side(&bytes, image_len), 127.5, image_len, part);
                    isa.run(AddMeans { panel: &panel, weights: &weights, fresh: true, sums: &mut sums });
                    let (weights, sums) = (&weights[..1], &mut single_sums[..]);
                    isa.run(AddMeans { panel: &panel, weights, fresh: false, sums });
                }
                prop_assert_eq!(&sums[0], &single_sums[0]);
                let pixel = |n: usize, p: usize| bytes[n * image_len + p].number(127.5);
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
