//! `MirrorSums`: sums over images of pixels, of a query and of its mirror image, and the composite they make.

use ndarray::{Array3, ArrayViewMut3};

use super::job::Job;
use super::tile::Pixel;
use crate::bank::Bank;

/// The weighted sums of centred stored pixels, `[channel, row, column]`, of a query and of its mirror image.
pub(crate) type MirrorSums = [Array3<f64>; 2];

/// The sums of queries' probes, followed by those of their flipped probes if there are any, as pairs.
pub(crate) fn pair_up<P: Pixel>(job: &Job<'_, P>, mut sums: Vec<Array3<f64>>) -> Vec<MirrorSums> {
    let mut flipped = sums.split_off(job.queries()).into_iter();
    let zero = || Array3::zeros(job.bank.image_shape());
    sums.into_iter().map(|sums| [sums, flipped.next().unwrap_or_else(zero)]).collect()
}

/// Adds the mirrored half, divides by the cover and returns to the units of the images.
pub(crate) fn finish(bank: &Bank<'_>, cover: &[u32], [sums, flipped]: &MirrorSums, mut out: ArrayViewMut3<'_, f32>) {
    let (unit, centre, width) = (bank.unit(), bank.range().centre, sums.dim().2);
    for ((c, y, x), value) in out.indexed_iter_mut() {
        let sum = sums[[c, y, x]] + flipped[[c, y, width - 1 - x]];
        *value = (sum / (f64::from(cover[y * width + x]) * unit) + centre) as f32;
    }
}
