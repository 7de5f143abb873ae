//! What passes find for a query, whatever device runs them.

use ndarray::{Array3, ArrayViewMut3, s};

use crate::bank::Bank;
use crate::components::Components;

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

/// Derivatives of a query under tilted weights, and what these sum to on the windows at every pixel, which would be zero but for
/// rounding.
pub(crate) struct TiltedSums {
    pub(crate) found: QueryDerivative,
    /// `[direction][pixel]`.
    pub(crate) residuals: Vec<Vec<f64>>,
}

impl TiltedSums {
    pub(crate) fn new(composite: MirrorSums) -> Self {
        Self { found: QueryDerivative { composite, directions: Vec::new() }, residuals: Vec::new() }
    }

    /// Adds the sums along the next direction.
    pub(crate) fn push(&mut self, sums: MirrorSums, residuals: Vec<f64>) {
        self.found.directions.push(sums);
        self.residuals.push(residuals);
    }

    /// The derivatives, less the residuals times the composite.
    pub(crate) fn without_residuals(mut self, components: &Components) -> QueryDerivative {
        let (cover, width) = (components.cover(), components.width());
        let composite = merged(&self.found.composite);
        for (sums, residuals) in self.found.directions.iter_mut().zip(&self.residuals) {
            for (((_, y, x), total), sum) in composite.indexed_iter().zip(&mut sums[0]) {
                let p = y * width + x;
                *sum -= residuals[p] * total / f64::from(cover[p]);
            }
        }
        self.found
    }
}

/// Variances, in squares of stored units.
pub(crate) struct QueryVariance {
    /// Per pixel the sum over the windows at it, of the query and of its mirror image.
    pub(crate) sums: MirrorSums,
    /// `[window][channel]`, of the middle pixels.
    pub(crate) middle: Vec<f64>,
}
