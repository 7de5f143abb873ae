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

/// The moments of a query as numbers that are summed over the ranks: the second ones, summed over the windows at a pixel,
/// `[channel][pixel]`; then the first ones `[window][pixel of the window][channel]`; then the second ones of middle pixels
/// `[window][channel]`.
pub(crate) struct MomentLayout<'a> {
    components: &'a Components,
    channels: usize,
}

impl<'a> MomentLayout<'a> {
    pub(crate) fn new(components: &'a Components, channels: usize) -> Self {
        Self { components, channels }
    }

    fn plane(&self) -> usize {
        self.components.height() * self.components.width()
    }

    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        let first: usize = (0..self.components.count()).map(|k| self.components.pixels(k)).sum();
        self.channels * (self.plane() + first + self.components.count())
    }

    /// Variances in squares of stored units: per pixel the mean over the windows at it `[channel][pixel]`, and those of the middle
    /// pixels `[window][channel]`.
    pub(crate) fn variances(&self, moments: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (plane, channels) = (self.plane(), self.channels);
        let (second, rest) = moments.split_at(channels * plane);
        let (mut first, middles) = rest.split_at(rest.len() - self.components.count() * channels);
        let (mut pixels, mut of_middles) = (second.to_vec(), middles.to_vec());
        for (k, of_middle) in of_middles.chunks_exact_mut(channels).enumerate() {
            let middle = self.components.middle(k);
            for p in self.components.runs(k).flatten() {
                let (of_pixel, further) = first.split_at(channels);
                first = further;
                for (c, value) in of_pixel.iter().enumerate() {
                    pixels[c * plane + p] -= value.powi(2);
                    if p == middle {
                        of_middle[c] = (of_middle[c] - value.powi(2)).max(0.0);
                    }
                }
            }
        }
        let cover = self.components.cover();
        for (i, value) in pixels.iter_mut().enumerate() {
            *value = (*value / f64::from(cover[i % plane])).max(0.0);
        }
        (pixels, of_middles)
    }
}
