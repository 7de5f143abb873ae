//! Gather: the composite itself, coefficients times images summed over the images of a group of tiles.

use super::isa::dispatched;
use super::parts::parts_mut;
use super::simd::{Lanes, Vector};
use super::tile::{Pixel, Tile};

/// A tile and the coefficients of its images on a run of pixels.
pub type Term<'a, P> = (&'a Tile<P>, &'a [Lanes]);

dispatched! {
    /// Adds to `sums` `[channel][pixel]`, whose channels have `plane` pixels, every term's coefficient times centred pixel,
    /// over all lanes and terms. The coefficients belong to the pixels from `first` on.
    pub fn gather<P: Pixel>(terms: &[Term<'_, P>], first: usize, plane: usize, sums: &mut [f32]) = gather_body
}

#[inline(always)]
fn gather_body<V: Vector, P: Pixel>(terms: &[Term<'_, P>], first: usize, plane: usize, sums: &mut [f32]) {
    let (twos, rest) = terms.as_chunks::<2>();
    for two in twos {
        gather_of::<V, P, 2>(two, first, plane, sums);
    }
    for one in rest {
        gather_of::<V, P, 1>(std::array::from_ref(one), first, plane, sums);
    }
}

#[inline(always)]
fn gather_of<V: Vector, P: Pixel, const T: usize>(
    terms: &[Term<'_, P>; T],
    first: usize,
    plane: usize,
    sums: &mut [f32],
) {
    let count = terms[0].1.len();
    for (channel, sums) in parts_mut(sums, plane).enumerate() {
        let sums = &mut sums[first..first + count];
        let start = channel * plane + first;
        let pixels: [&[P::Lanes]; T] = std::array::from_fn(|t| &terms[t].0.pixels[start..start + count]);
        let coefficients: [&[Lanes]; T] = std::array::from_fn(|t| &terms[t].1[..count]);
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
