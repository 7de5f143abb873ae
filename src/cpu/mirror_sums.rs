//! `MirrorSums`: sums over images of pixels, of a query and of its mirror image, and the composite they make.

use ndarray::{Array3, ArrayViewMut3, s};

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
