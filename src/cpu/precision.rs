//! What rounding in float32 may do to the energies of a probe, and which probes are computed in float64 because of it.
//!
//! Every image's energy on a window is a sum; a logit is an energy times the logit scale. Rounding moves logits apart that
//! ought to be the same, and posterior means by as much times the spread of the pixels. There are three causes:
//!
//! - the sum itself: its rounding is relative to the energy, so it grows with the logit, and with the length of the sum
//!   ([`rounding_growth`]). It is known once pass 1 has found the energies of the best images;
//! - the rounding of values to the fixed-point scale, which the heaviest window of z fixes: a single pixel may make it too
//!   coarse for all others;
//! - the rounding of z to float32. It is the same for all images, which it moves apart by no more than their distance.
//!
//! In float64 all three are smaller by a factor of 2^29.

use crate::components::{Components, Kind};
use crate::regime::{MAX_FIXED_POINT_ERROR, MAX_FLOAT_BITS, MAX_SHIFT_BITS, rounding_bound, rounding_growth};

use super::full::pixel_panel::PixelPanel;
use crate::simd::LANES;

/// Additions of the sixteen lanes' sums, of the tree at the end of a part, and of forming a residual and its square.
const FEW: usize = 8;

/// The energies of one probe and how they round in float32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rounding {
    /// The most additions, one after the other, that a term of an energy passes through.
    chain: usize,
    /// How many of them round: sums of integers do not.
    rounded: usize,
    /// Values of the largest window.
    values: usize,
    /// The largest error of a value of z in float32.
    of_z: f64,
    /// The largest squared distance on a window that an image may have.
    farthest: f64,
    /// The most powers of two by which priors change a logit.
    prior_bits: f64,
}

impl Rounding {
    /// For centred z `[channel][pixel]` on these components, and data of this reach.
    pub(crate) fn new(components: &Components, channels: usize, z: &[f64], reach: f64) -> Self {
        let plane = components.height() * components.width();
        let (chain, pixels) = match components.kind() {
            Kind::Full => (PixelPanel::VECTORS + z.len() / (PixelPanel::VECTORS * LANES), plane),
            Kind::Square { side } => (channels + 2 * side, side * side),
            Kind::Masks(runs) => {
                let pieces = (0..runs.count()).map(|k| runs.pieces(k).len()).max().unwrap_or(0);
                let pixels = (0..runs.count()).map(|k| components.pixels(k)).max().unwrap_or(0);
                (channels + runs.levels() + pieces / 2, pixels)
            }
        };
        let square = |p: usize| z[p..].iter().step_by(plane).map(|z| (z.abs() + reach).powi(2)).sum();
        let farthest = heaviest_window(components, &(0..plane).map(square).collect::<Vec<f64>>());
        let chain = chain + FEW;
        Self { chain, rounded: chain, values: pixels * channels, of_z: of_z(z), farthest, prior_bits: 0.0 }
    }

    /// For sums of up to so many `values`, none of a weight above one, that pass through up to `chain` additions; `farthest` is
    /// the largest sum of squared distances that an image may have.
    pub(crate) fn of_sums(chain: usize, values: usize, z: &[f64], farthest: f64) -> Self {
        let chain = chain + FEW;
        Self { chain, rounded: chain, values, of_z: of_z(z), farthest, prior_bits: 0.0 }
    }

    /// The same where windows are summed in fixed point: of sums of integers only the result rounds.
    pub(crate) fn in_fixed_point(self) -> Self {
        Self { rounded: 0, ..self }
    }

    /// The same where a number is added to every energy for the prior of its image, of up to so many powers of two in the
    /// logit. For images that carry weight it is no larger than the largest energy, which the image with the largest prior
    /// may have.
    pub(crate) fn with_priors(self, bits: f64) -> Self {
        Self {
            chain: self.chain + 1,
            rounded: self.rounded + 1,
            farthest: 2.0 * self.farthest,
            prior_bits: bits,
            ..self
        }
    }

    /// Whether float32 serves for logits of up to so many powers of two at a logit scale.
    pub(crate) fn allows(&self, bits: f64, logit_scale: f64) -> bool {
        // A prior may cancel against an energy of the expanded form.
        let hidden = self.prior_bits.min(self.farthest * logit_scale);
        bits.max(hidden) * rounding_growth(self.rounded) <= MAX_FLOAT_BITS
    }

    /// How far an energy E of the direct form may be off at most, as `(offset, root, slack)`: `offset + root sqrt(E) + slack
    /// E`. The first two come from z, by Cauchy and Schwarz from `(a - z)^2` against `(a - z - d)^2`, the last from the sum.
    pub(crate) fn bound(&self) -> (f64, f64, f64) {
        let values = self.values as f64;
        (values * self.of_z.powi(2), 2.0 * self.of_z * values.sqrt(), rounding_bound(self.chain))
    }

    /// Energies of the direct form within `margin` of the exact least one are computed below this, where the least one computed
    /// is `least`.
    pub(crate) fn near(&self, least: f64, margin: f64) -> f64 {
        let (offset, root, slack) = self.bound();
        // The largest energy that may be computed as `least`, then the largest value of the largest energy that counts.
        let least = ((least * (1.0 + 2.0 * slack) + offset + 0.25 * root * root).sqrt() + 0.5 * root).powi(2);
        let most = least + margin;
        most + offset + root * most.sqrt() + slack * most
    }

    /// How far an energy of either form may be off at most, whatever it is.
    pub(crate) fn worst(&self) -> f64 {
        // The terms of both forms are at most a squared distance; rounding z moves none by more than twice the distance.
        let (offset, root, slack) = self.bound();
        offset + root * self.farthest.sqrt() + slack * self.farthest
    }

    /// The standard error of a logit, in nats, that rounding values to this fixed-point scale brings.
    pub(crate) fn fixed_point_error(&self, scale: f32, logit_scale: f64) -> f64 {
        // Rounding to integers is off by the root of a twelfth.
        (self.values as f64 / 12.0).sqrt() * f64::from(scale) * logit_scale * std::f64::consts::LN_2
    }

    /// Whether the probe is computed in float64 from the start: where shifts would not be integers exactly, or the
    /// fixed-point scale is too coarse.
    pub(crate) fn is_hopeless(&self, logit_scale: f64, scale: Option<f32>) -> bool {
        self.farthest * logit_scale > MAX_SHIFT_BITS
            || scale.is_some_and(|scale| self.fixed_point_error(scale, logit_scale) > MAX_FIXED_POINT_ERROR)
    }
}

/// The largest error of a value of z in float32.
fn of_z(z: &[f64]) -> f64 {
    z.iter().map(|&z| (z - f64::from(z as f32)).abs()).fold(0.0, f64::max)
}

/// The largest sum of `values` `[pixel]`, none of them negative, on a window.
pub(crate) fn heaviest_window(components: &Components, values: &[f64]) -> f64 {
    match components.kind() {
        Kind::Full => values.iter().sum(),
        Kind::Masks(_) => {
            let sum = |k: usize| components.runs(k).flat_map(|run| &values[run]).sum();
            (0..components.count()).map(sum).fold(0.0, f64::max)
        }
        Kind::Square { side } => heaviest_square(components, *side, values),
    }
}

fn heaviest_square(components: &Components, side: usize, values: &[f64]) -> f64 {
    let (height, width) = (components.height(), components.width());
    // Sums over all rows above and columns before.
    let mut sums = ndarray::Array2::<f64>::zeros((height + 1, width + 1));
    for (y, x) in ndarray::indices((height, width)) {
        sums[[y + 1, x + 1]] = values[y * width + x] + sums[[y, x + 1]] + sums[[y + 1, x]] - sums[[y, x]];
    }
    let window =
        |(y, x): (usize, usize)| sums[[y + side, x + side]] + sums[[y, x]] - sums[[y, x + side]] - sums[[y + side, x]];
    ndarray::indices(components.grid()).into_iter().map(window).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn the_heaviest_window_is_found_among_squares_masks_and_the_full_image() {
        let values: Vec<f64> = (0..30).map(|i| f64::from(i * 7 % 11)).collect();
        let squares = Components::square(5, 6, 2).unwrap();
        let (rows, columns) = squares.grid();
        let mask = |k: usize, y: usize, x: usize| {
            (k / columns..k / columns + 2).contains(&y) && (k % columns..k % columns + 2).contains(&x)
        };
        let masks = Array3::from_shape_fn((rows * columns, 5, 6), |(k, y, x)| mask(k, y, x));
        let masks = Components::masks(masks.view()).unwrap();
        let of_square = |y: usize, x: usize| [0, 1, 6, 7].map(|step| values[y * 6 + x + step]).iter().sum::<f64>();
        let exact = (0..4).flat_map(|y| (0..5).map(move |x| of_square(y, x))).fold(0.0, f64::max);
        assert_eq!(heaviest_window(&squares, &values), exact);
        assert_eq!(heaviest_window(&masks, &values), exact);
        assert_eq!(heaviest_window(&Components::full(5, 6).unwrap(), &values), values.iter().sum::<f64>());
    }

    #[test]
    fn float32_serves_small_logits_and_short_sums() {
        let z = vec![0.1; 3 * 64];
        let short = Rounding::new(&Components::square(8, 8, 2).unwrap(), 3, &z, 0.9);
        let long = Rounding::new(&Components::square(8, 8, 7).unwrap(), 3, &z, 0.9);
        assert!(short.allows(300.0, 1.0) && !short.allows(769.0, 1.0));
        let biased = short.with_priors(1000.0);
        assert!(biased.allows(300.0, 1.0) && !biased.allows(300.0, 100.0));
        assert!((0..769).all(|bits| short.allows(f64::from(bits), 1.0) || !long.allows(f64::from(bits), 1.0)));
        let (offset, root, slack) = short.bound();
        assert!(offset > 0.0 && root > 0.0 && slack > 8.0 * 2.0_f64.powi(-24));
        // Twelve values, each of a squared distance of up to one.
        assert!(short.is_hopeless(1e6, None) && !short.is_hopeless(1e5, None));
        assert!(short.is_hopeless(1.0, Some(1e-3)) && !short.is_hopeless(1.0, Some(1e-6)));
    }
}
