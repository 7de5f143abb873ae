//! Patches: the pixels of one window of several images side by side, for sums in `f64`.

use std::ops::Range;

use crate::cpu::tile::Pixel;
use crate::simd::{Isa, Kernel, Vector, prefetch};

/// Independent sums; patches are padded to a multiple of it.
const BLOCK: usize = 8;

/// Runs up to this length are copied as if they were this long; the next run overwrites the excess.
const SHORT_RUN: usize = 4;

/// Gathered pixels of some images, `[image][channel, pixel of the window]`, padded with blank ones.
#[derive(Debug)]
pub(crate) struct Patches<P> {
    pixels: Vec<P>,
    /// What is taken off every pixel.
    centre: f32,
    /// Pixels of a patch, all channels, and the same with padding.
    len: usize,
    padded: usize,
}

impl<P: Pixel> Default for Patches<P> {
    fn default() -> Self {
        Self { pixels: Vec::new(), centre: 0.0, len: 0, padded: 0 }
    }
}

impl<P: Pixel> Patches<P> {
    /// Removes all patches; the next ones have `len` pixels of this centre.
    pub(crate) fn start(&mut self, len: usize, centre: f32) {
        self.pixels.clear();
        (self.len, self.padded, self.centre) = (len, len.next_multiple_of(BLOCK), centre);
    }

    /// Removes all patches.
    pub(crate) fn clear(&mut self) {
        self.pixels.clear();
    }

    /// Prefetches the pixels on `runs` of an image that will be pushed soon.
    pub(crate) fn prefetch(image: &[P], plane: usize, runs: &[Range<usize>]) {
        for channel in (0..image.len()).step_by(plane) {
            for run in runs {
                prefetch(&image[channel + run.start]);
            }
        }
    }

    /// Adds the pixels on `runs` of an image of `plane` pixels per channel.
    pub(crate) fn push(&mut self, image: &[P], plane: usize, runs: &[Range<usize>]) {
        let start = self.pixels.len();
        self.pixels.resize(start + self.padded, P::BLANK);
        let patch = &mut self.pixels[start..];
        let mut done = 0;
        for channel in (0..image.len()).step_by(plane) {
            for run in runs {
                let (from, to) = (&image[channel + run.start..], &mut patch[done..]);
                match (from.first_chunk::<SHORT_RUN>(), to.first_chunk_mut::<SHORT_RUN>()) {
                    (Some(from), Some(to)) if run.len() <= SHORT_RUN => *to = *from,
                    _ => to[..run.len()].copy_from_slice(&from[..run.len()]),
                }
                done += run.len();
            }
        }
        patch[done..].fill(P::BLANK);
    }

    /// Patches that are held.
    pub(crate) fn count(&self) -> usize {
        self.pixels.len() / self.padded
    }

    /// Appends the squared distance of z, a patch itself, to every patch.
    pub(crate) fn distances(&self, isa: Isa, z: &[f64], distances: &mut Vec<f64>) {
        let start = distances.len();
        distances.resize(start + self.count(), 0.0);
        isa.run(Distances { z, patches: &self.pixels, centre: self.centre, out: &mut distances[start..] });
    }

    /// Values of a patch.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends the inner product with `values`, a patch itself whose padding is zero, to every patch.
    pub(crate) fn products(&self, isa: Isa, values: &[f64], products: &mut Vec<f64>) {
        let start = products.len();
        products.resize(start + self.count(), 0.0);
        isa.run(Products { values, patches: &self.pixels, centre: self.centre, out: &mut products[start..] });
    }

    /// Adds every patch's squared differences from `means`, a patch itself, times its weight to `sums`, another.
    pub(crate) fn add_squares(&self, isa: Isa, weights: &[f64], means: &[f64], sums: &mut [f64]) {
        isa.run(WeightedSquares { weights, patches: &self.pixels, centre: self.centre, means, sums });
    }

    /// Adds every patch times its weight to `sums`, a patch itself.
    pub(crate) fn add_weighted(&self, isa: Isa, weights: &[f64], sums: &mut [f64]) {
        isa.run(WeightedSum { weights, patches: &self.pixels, centre: self.centre, sums });
    }

    /// The values of an image, `[channel][pixel]`, on `runs`, as a patch; its padding is at distance zero from that of
    /// images.
    pub(crate) fn gather(&self, image: &[f64], plane: usize, runs: &[Range<usize>], patch: &mut Vec<f64>) {
        patch.clear();
        for channel in image.chunks_exact(plane) {
            for run in runs {
                patch.extend_from_slice(&channel[run.clone()]);
            }
        }
        patch.resize(self.padded, P::BLANK.number(self.centre));
    }

    /// Adds a patch to the pixels of an image on `runs`.
    pub(crate) fn scatter_add(&self, patch: &[f64], image: &mut [f64], plane: usize, runs: &[Range<usize>]) {
        let mut patch = &patch[..self.len];
        for channel in image.chunks_exact_mut(plane) {
            for run in runs {
                let (values, rest) = patch.split_at(run.len());
                channel[run.clone()].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                patch = rest;
            }
        }
    }
}

// No fused multiply-adds here: `f64` has digits to spare, and without them all instruction sets agree bit for bit.

struct Distances<'a, P: Pixel> {
    z: &'a [f64],
    patches: &'a [P],
    centre: f32,
    out: &'a mut [f64],
}

impl<P: Pixel> Kernel for Distances<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { z, patches, centre, out } = self;
        let (z, _) = z.as_chunks::<BLOCK>();
        let (patches, _) = patches.as_chunks::<BLOCK>();
        for (patch, distance) in patches.chunks_exact(z.len()).zip(out) {
            let mut sums = [0.0; BLOCK];
            for (z, pixels) in z.iter().zip(patch) {
                for i in 0..BLOCK {
                    let residual = z[i] - pixels[i].number(centre);
                    sums[i] += residual * residual;
                }
            }
            let [a, b, c, d, e, f, g, h] = sums;
            *distance = ((a + e) + (c + g)) + ((b + f) + (d + h));
        }
    }
}

struct Products<'a, P: Pixel> {
    values: &'a [f64],
    patches: &'a [P],
    centre: f32,
    out: &'a mut [f64],
}

impl<P: Pixel> Kernel for Products<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { values, patches, centre, out } = self;
        let (values, _) = values.as_chunks::<BLOCK>();
        let (patches, _) = patches.as_chunks::<BLOCK>();
        for (patch, out) in patches.chunks_exact(values.len()).zip(out) {
            let mut sums = [0.0; BLOCK];
            for (values, pixels) in values.iter().zip(patch) {
                for i in 0..BLOCK {
                    sums[i] += values[i] * pixels[i].number(centre);
                }
            }
            *out = sums.iter().sum();
        }
    }
}

struct WeightedSquares<'a, P: Pixel> {
    weights: &'a [f64],
    patches: &'a [P],
    centre: f32,
    means: &'a [f64],
    sums: &'a mut [f64],
}

impl<P: Pixel> Kernel for WeightedSquares<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { weights, patches, centre, means, sums } = self;
        for (patch, weight) in patches.chunks_exact(sums.len()).zip(weights) {
            for ((sum, pixel), mean) in sums.iter_mut().zip(patch).zip(means) {
                let difference = pixel.number(centre) - mean;
                *sum += weight * difference * difference;
            }
        }
    }
}

struct WeightedSum<'a, P: Pixel> {
    weights: &'a [f64],
    patches: &'a [P],
    centre: f32,
    sums: &'a mut [f64],
}

impl<P: Pixel> Kernel for WeightedSum<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { weights, patches, centre, sums } = self;
        let (sums, _) = sums.as_chunks_mut::<BLOCK>();
        let (patches, _) = patches.as_chunks::<BLOCK>();
        for (patch, weight) in patches.chunks_exact(sums.len()).zip(weights) {
            for (sums, pixels) in sums.iter_mut().zip(patch) {
                for i in 0..BLOCK {
                    sums[i] += weight * pixels[i].number(centre);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn patches_are_the_pixels_of_the_runs(
            bytes in proptest::collection::vec(any::<u8>(), 2 * 3 * 24), len in 1_usize..9, step in 0_usize..4,
        ) {
            // Two images of three channels of 24 pixels; up to three runs with gaps between them, the last at the end.
            let last = 24 - len;
            let before = (0..last).step_by(len + step).take(2).filter(|start| start + len <= last);
            let runs: Vec<_> = before.chain([last]).map(|start| start..start + len).collect();
            let z: Vec<f64> = (0..72).map(|i| f64::from(i) - 30.25).collect();
            let mut patches = Patches::default();
            patches.start(3 * len * runs.len(), 127.5);
            bytes.chunks_exact(72).for_each(|image| patches.push(image, 24, &runs));
            let mut z_patch = Vec::new();
            patches.gather(&z, 24, &runs, &mut z_patch);
            for isa in Isa::available() {
                let mut distances = Vec::new();
                patches.distances(isa, &z_patch, &mut distances);
                let mut sums = vec![0.0; z_patch.len()];
                patches.add_weighted(isa, &[0.25, 0.75], &mut sums);
                let mut mean = vec![0.0; 72];
                patches.scatter_add(&sums, &mut mean, 24, &runs);
                let inside = |p: usize| runs.iter().any(|run| run.contains(&(p % 24)));
                for (image, distance) in bytes.chunks_exact(72).zip(distances) {
                    let square = |p: usize| (z[p] - image[p].number(127.5)).powi(2);
                    let expected: f64 = (0..72).filter(|&p| inside(p)).map(square).sum();
                    prop_assert!((distance - expected).abs() < 1e-9 * expected.max(1.0));
                }
                for p in 0..72 {
                    let value = 0.25 * bytes[p].number(127.5) + 0.75 * bytes[72 + p].number(127.5);
                    let expected = if inside(p) { value } else { 0.0 };
                    prop_assert!((mean[p] - expected).abs() < 1e-9);
                }
            }
        }
    }
}
