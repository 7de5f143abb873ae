//! Gather: the composite itself, coefficients times images summed over the images of a group of tiles.

use super::isa::dispatched;
use super::lanes::Lanes;
use super::tile::{Pixel, PixelLanes};

/// A tile's pixels `[channel][pixel]` and the coefficients `[pixel]` of its images.
pub type Term<'a, P> = (&'a [PixelLanes<P>], &'a [Lanes]);

dispatched! {
    /// Adds to `sums` `[channel][pixel]` every term's coefficient times (pixel - `centre`), over all lanes and terms.
    pub fn gather<P: Pixel>(terms: &[Term<'_, P>], centre: f32, sums: &mut [f32]) = gather_body
}

#[inline(always)]
fn gather_body<const FMA: bool, P: Pixel>(terms: &[Term<'_, P>], centre: f32, sums: &mut [f32]) {
    let Some((_, first)) = terms.first() else { return };
    for plane in sums.chunks_exact_mut(first.len()).enumerate() {
        let (channel, sums) = plane;
        let start = channel * sums.len();
        for (p, sum) in sums.iter_mut().enumerate() {
            let mut lanes = Lanes::ZERO;
            for (pixels, coefficients) in terms {
                let centred = pixels[start + p].values() - Lanes::splat(centre);
                lanes = centred.mul_add::<FMA>(coefficients[p], lanes);
            }
            *sum += lanes.sum();
        }
    }
}
