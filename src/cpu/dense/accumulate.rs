//! The composite itself: coefficients times images, accumulated over the images of a group of tiles.

use crate::cpu::chunks::exact_chunks_mut;
use crate::cpu::tile::{Pixel, Tile};
use crate::simd::{F32x16, Kernel, Vector};

/// A tile and the coefficients of its images on a run of pixels.
pub(crate) type Term<'a, P> = (&'a Tile<P>, &'a [F32x16]);

/// Adds to `sums` `[channel][pixel]`, whose channels have `plane` pixels, every term's coefficient times centred pixel,
/// over all lanes and terms. The first coefficient belongs to pixel `first`.
pub(crate) struct Accumulate<'a, P: Pixel> {
    pub(crate) terms: &'a [Term<'a, P>],
    pub(crate) first: usize,
    pub(crate) plane: usize,
    pub(crate) sums: &'a mut [f32],
}

impl<P: Pixel> Kernel for Accumulate<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { terms, first, plane, sums } = self;
        let (pairs, rest) = terms.as_chunks::<2>();
        for pair in pairs {
            accumulate_terms::<V, P, 2>(pair, first, plane, sums);
        }
        for term in rest {
            accumulate_terms::<V, P, 1>(std::array::from_ref(term), first, plane, sums);
        }
    }
}

/// Adds sums to their totals in float64, and starts them over.
pub(crate) struct Flush<'a> {
    pub(crate) sums: &'a mut [f32],
    pub(crate) totals: &'a mut [f64],
}

impl Kernel for Flush<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for (sum, total) in self.sums.iter_mut().zip(self.totals) {
            *total += f64::from(*sum);
            *sum = 0.0;
        }
    }
}

#[inline(always)]
fn accumulate_terms<V: Vector, P: Pixel, const T: usize>(
    terms: &[Term<'_, P>; T],
    first: usize,
    plane: usize,
    sums: &mut [f32],
) {
    let count = terms[0].1.len();
    for (channel, sums) in exact_chunks_mut(sums, plane).enumerate() {
        let sums = &mut sums[first..first + count];
        let start = channel * plane + first;
        let pixels: [&[P::Packed]; T] = std::array::from_fn(|t| &terms[t].0.pixels[start..start + count]);
        let coefficients: [&[F32x16]; T] = std::array::from_fn(|t| &terms[t].1[..count]);
        // Four sums across lanes share most of their shuffles.
        let (fours, rest) = sums.as_chunks_mut::<4>();
        let done = 4 * fours.len();
        for (i, four) in fours.iter_mut().enumerate() {
            let mut lanes = [V::splat(0.0); 4];
            for t in 0..T {
                let (pixels, coefficients) = (&pixels[t][4 * i..4 * i + 4], &coefficients[t][4 * i..4 * i + 4]);
                for j in 0..4 {
                    lanes[j] = P::centred::<V>(&pixels[j]).mul_add(V::load(&coefficients[j]), lanes[j]);
                }
            }
            let totals = V::sums(lanes);
            for j in 0..4 {
                four[j] += totals[j];
            }
        }
        for (i, sum) in rest.iter_mut().enumerate() {
            let mut lanes = V::splat(0.0);
            for t in 0..T {
                let p = done + i;
                lanes = P::centred::<V>(&pixels[t][p]).mul_add(V::load(&coefficients[t][p]), lanes);
            }
            *sum += lanes.sum();
        }
    }
}
