//! What passes find for a query, whatever device runs them.

use ndarray::{Array3, ArrayViewMut3, s};

use crate::bank::Bank;

/// Sums over windows and images of centred stored pixels, or of what is summed in their place, `[channel, row, column]`, of a
/// query and of its mirror image.
pub(crate) type MirrorSums = [Array3<f64>; 2];

/// The sums of both halves, as the query sees them.
pub(crate) fn merged([sums, flipped]: &MirrorSums) -> Array3<f64> {
    sums + &flipped.slice(s![.., .., ..;-1])
}

/// Adds the mirrored half, divides by the cover and returns to the units of the images.
pub(crate) fn finish(bank: &Bank<'_>, cover: &[u32], sums: &MirrorSums, mut out: ArrayViewMut3<'_, f32>) {
    let (sums, unit, centre) = (merged(sums), bank.unit(), bank.range().centre);
    let width = sums.dim().2;
    for (((_, y, x), sum), value) in sums.indexed_iter().zip(&mut out) {
        *value = (sum / (f64::from(cover[y * width + x]) * unit) + centre) as f32;
    }
}

/// The sums of the composite, and those of every direction.
pub(crate) struct QueryDerivative {
    pub(crate) composite: MirrorSums,
    pub(crate) directions: Vec<MirrorSums>,
}

/// Variances, in squares of stored units.
pub(crate) struct QueryVariance {
    /// Per pixel the sum over the windows at it, of the query and of its mirror image.
    pub(crate) sums: MirrorSums,
    /// `[window][channel]`, of the middle pixels.
    pub(crate) middle: Vec<f64>,
}
