//! `Rounding`: what rounding in float32 does to the energies of the kernels, and for which queries it serves.
//!
//! The CPU's twin is `cpu/precision.rs`. The kernels add in another order, so the longest chain of additions is another one.
//! They have no fixed point, and form weights relative to the least energy instead of an integer shift, so no query is
//! hopeless from the start.

use super::layout::ErrorBound;
use crate::components::{Components, Kind};
use crate::regime::{MAX_FLOAT_BITS, rounding_bound, rounding_growth};

/// Values per lane that the full window adds to one sum, `PIXELS_PER_SUM` of `kernels/full.cu`.
const VALUES_PER_SUM: usize = 64;

/// Lanes of a warp.
const LANES: usize = 32;

/// Additions of forming a residual and its square, of the lanes of a warp, and of the two terms of the expanded form.
const FEW: usize = 8;

/// How energies on the windows of a composite round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounding {
    /// The most additions, one after the other, that a term of an energy passes through.
    chain: usize,
    /// Values of the largest window.
    values: usize,
    /// The most powers of two by which priors change a logit.
    prior_bits: f64,
}

impl Rounding {
    /// For images of so many channels.
    pub(super) fn new(components: &Components, channels: usize) -> Self {
        let plane = components.height() * components.width();
        let (additions, pixels) = match components.kind() {
            Kind::Full => (VALUES_PER_SUM + (channels * plane).div_ceil(VALUES_PER_SUM * LANES), plane),
            // Down a column by blocks, then across by doubling.
            Kind::Square { side } => (channels + side + 2 * (side.ilog2() as usize + 1), side * side),
            Kind::Masks(runs) => {
                let most = |of: &dyn Fn(usize) -> usize| (0..runs.count()).map(of).max().unwrap_or(0);
                let pieces = most(&|k| runs.pieces(k).len());
                (channels + runs.levels() + pieces, most(&|k| components.pixels(k)))
            }
        };
        Self { chain: additions + FEW, values: pixels * channels, prior_bits: 0.0 }
    }

    /// The same where a number is added to every energy for the prior of its image, of up to so many powers of two in the
    /// logit.
    pub(super) fn with_priors(self, bits: f64) -> Self {
        Self { chain: self.chain + 1, prior_bits: bits, ..self }
    }

    /// Energies of the expanded form are at most this times `reach + 2 |z|`, for z of the largest magnitude, where priors may
    /// cancel more than float32 has digits for: an image that carries weight has no larger prior than that. Zero where they
    /// cannot.
    pub(super) fn hidden_per_reach(self, reach: f64) -> f64 {
        if self.prior_bits > self.float_bits() { self.values as f64 * reach } else { 0.0 }
    }

    /// Float32 serves for logits of the best images of up to so many powers of two.
    pub(super) fn float_bits(self) -> f64 {
        MAX_FLOAT_BITS / rounding_growth(self.chain)
    }

    /// How far an energy of the direct form may be off, for centred z of magnitudes up to `far_from`. The first two terms
    /// come from the rounding of z, by Cauchy and Schwarz from `(a - z)^2` against `(a - z - d)^2`, the last from the sum.
    pub(super) fn error_bound(self, far_from: f64) -> ErrorBound {
        /// For the rounding of bounds that are computed from this one.
        const OF_BOUNDS: f64 = 1e-6;
        let (values, of_z) = (self.values as f64, far_from * f64::from(f32::EPSILON) / 2.0);
        ErrorBound {
            offset: (values * of_z.powi(2)) as f32,
            root: (2.0 * of_z * values.sqrt()) as f32,
            slack: (rounding_bound(self.chain) + OF_BOUNDS) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use proptest::prelude::*;

    #[test]
    fn constants_are_those_of_the_kernels() {
        assert!(include_str!("kernels/full.cu").contains(&format!("#define PIXELS_PER_SUM {VALUES_PER_SUM}\n")));
        assert!(include_str!("kernels/common.cu").contains(&format!("#define LANES {LANES}\n")));
    }

    #[test]
    fn longer_sums_leave_fewer_bits_to_float32() {
        let bits = |components: Components, channels| Rounding::new(&components, channels).float_bits();
        let square = |side| bits(Components::square(40, 40, side).unwrap(), 3);
        assert!(square(1) > square(5) && square(5) > square(31));
        // The published windows at large sigma stay in float32: logits of z = x + sigma n are 0.72 bits per value.
        assert!(square(3) > 0.73 * 27.0 && square(5) > 0.73 * 75.0);
        assert!(bits(Components::square(8, 8, 1).unwrap(), 4096) < square(1));
        // A run of eight pixels is one piece; every other pixel of sixteen are eight, and the rest of the image is one mask more.
        let masks = |inside: fn(usize) -> bool| {
            Components::masks(Array3::from_shape_fn((2, 1, 16), |(k, _, x)| (k == 0) == inside(x)).view()).unwrap()
        };
        assert!(bits(masks(|x| x < 8), 1) > bits(masks(|x| x % 2 == 0), 1));
    }

    #[test]
    fn only_large_priors_may_hide_energies_from_float32() {
        let rounding = Rounding::new(&Components::square(8, 8, 2).unwrap(), 3);
        assert_eq!(rounding.hidden_per_reach(128.0), 0.0);
        assert_eq!(rounding.with_priors(100.0).hidden_per_reach(128.0), 0.0);
        assert_eq!(rounding.with_priors(1000.0).hidden_per_reach(128.0), 12.0 * 128.0);
        assert!(rounding.with_priors(1.0).float_bits() < rounding.float_bits());
    }

    proptest! {
        #[test]
        fn candidates_within_the_margin_are_below_the_bound(
            z in proptest::collection::vec(-4.0_f64..4.0, 27), scale in 1e-3_f64..1e3,
        ) {
            let rounding = Rounding::new(&Components::square(3, 3, 3).unwrap(), 3);
            let error = rounding.error_bound(4.0 * scale);
            let (mut exact, mut computed) = (0.0, 0.0_f32);
            for z in z.iter().map(|z| z * scale) {
                exact += z * z;
                computed = (z as f32).mul_add(z as f32, computed);
            }
            let most = f64::from(error.offset) + f64::from(error.root) * exact.sqrt() + f64::from(error.slack) * exact;
            prop_assert!((f64::from(computed) - exact).abs() <= most);
        }
    }
}
