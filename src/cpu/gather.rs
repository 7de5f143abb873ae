//! Gather: the composite itself, coefficients times images summed over the images of a group of tiles.

use super::isa::dispatched;
use super::simd::{Lanes, Vector};
use super::tile::{Pixel, Tile};

/// A tile and the coefficients `[pixel]` of its images.
pub type Term<'a, P> = (&'a Tile<P>, &'a [Lanes]);

dispatched! {
    /// Adds to `sums` `[channel][pixel]` every term's coefficient times (pixel - `centre`), over all lanes and terms.
    pub fn gather<P: Pixel>(terms: &[Term<'_, P>], centre: f32, sums: &mut [f32]) = gather_body
}

#[inline(always)]
fn gather_body<V: Vector, P: Pixel>(terms: &[Term<'_, P>], centre: f32, sums: &mut [f32]) {
    let Some((_, first)) = terms.first() else { return };
    let plane = first.len();
    for (at, sum) in sums.iter_mut().enumerate() {
        let mut lanes = V::splat(0.0);
        for (tile, coefficients) in terms {
            let centred = P::load::<V>(&tile.pixels[at]).sub(V::splat(centre));
            lanes = centred.mul_add(V::load(&coefficients[at % plane]), lanes);
        }
        *sum += lanes.sum();
    }
}
