//! Gather: the composite itself, coefficients times images summed over the images of a group of tiles.

use super::isa::dispatched;
use super::simd::{Lanes, Vector};
use super::tile::{Pixel, Tile};

/// A tile and the coefficients `[pixel]` of its images.
pub type Term<'a, P> = (&'a Tile<P>, &'a [Lanes]);

dispatched! {
    /// Adds to `sums` `[channel][pixel]` every term's coefficient times centred pixel, over all lanes and terms.
    pub fn gather<P: Pixel>(terms: &[Term<'_, P>], sums: &mut [f32]) = gather_body
}

#[inline(always)]
fn gather_body<V: Vector, P: Pixel>(terms: &[Term<'_, P>], sums: &mut [f32]) {
    let Some((_, first)) = terms.first() else { return };
    for (channel, sums) in sums.chunks_exact_mut(first.len()).enumerate() {
        let start = channel * sums.len();
        // Four sums across lanes share most of their shuffles.
        let (fours, rest) = sums.as_chunks_mut::<4>();
        let done = 4 * fours.len();
        for (i, four) in fours.iter_mut().enumerate() {
            let p = 4 * i;
            let totals = V::sums([
                lanes_at(terms, start, p),
                lanes_at(terms, start, p + 1),
                lanes_at(terms, start, p + 2),
                lanes_at(terms, start, p + 3),
            ]);
            four.iter_mut().zip(totals).for_each(|(sum, total)| *sum += total);
        }
        for (i, sum) in rest.iter_mut().enumerate() {
            *sum += lanes_at::<V, P>(terms, start, done + i).sum();
        }
    }
}

/// The sum over terms at pixel `p` of the channel that starts at `start`, lane by lane.
#[inline(always)]
fn lanes_at<V: Vector, P: Pixel>(terms: &[Term<'_, P>], start: usize, p: usize) -> V {
    let mut lanes = V::splat(0.0);
    for (tile, coefficients) in terms {
        lanes = P::centred::<V>(&tile.pixels[start + p]).mul_add(V::load(&coefficients[p]), lanes);
    }
    lanes
}
