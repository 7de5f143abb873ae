//! `Regime`: every switch point, cut-off and candidate bound of the algorithm, defined once for CPU and GPU.
//!
//! The energy of an image is a sum over pixels, with `a` the centred pixel, in one of two forms.
//! - *Direct*, for small sigma: `(a - z)^2`.
//! - *Expanded*, for large sigma: `a^2 - 2 z a`, which is the squared distance less the constant `z^2`. That constant
//!   would take up the digits in which images differ; and `a^2` is the same for all queries.

use crate::components::{Components, Kind};

/// From this sigma on, relative to the data's largest magnitude, the expanded form has the smaller error
/// (docs/accuracy.md).
const EXPANDED_FROM: f64 = 0.5;

/// Below this sigma, relative to the data's largest magnitude, few images carry weight, and they are few enough to be
/// weighed in `f64`.
const SPARSE_BELOW: f64 = 0.1;

/// Up to this side of square windows, adding values one by one costs no more than the block method or running sums.
pub const MAX_SHORT_SIDE: usize = 4;

/// Windows of more values than this are summed as floats, as the fixed-point scale would be too coarse for a single value.
const MAX_FIXED_POINT_VALUES: usize = 1 << 15;

/// Most candidates kept per query: bounds the memory of all lists in flight.
pub const MAX_CANDIDATES: usize = 1 << 18;

/// Candidates of a window below `2^-TAIL_BITS` of its best weight, all together, are left out in the end.
pub const TAIL_BITS: f64 = 24.0;

/// Beyond this many powers of two below the best so far, an image cannot change a float32 sum that is at least 1.
pub const NEGLIGIBLE_BITS: f32 = 25.0;

/// How energies are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnergyForm {
    /// Squared differences.
    Direct,
    /// Squares of pixels less twice the products.
    Expanded,
}

/// How a noise level is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Regime {
    /// How its energies are summed.
    pub form: EnergyForm,
    /// Whether a scan first lists the few images that carry weight (the sparse route).
    pub sparse: bool,
}

impl Regime {
    /// Every regime there is.
    pub const ALL: [Self; 3] = [
        Self { form: EnergyForm::Expanded, sparse: false },
        Self { form: EnergyForm::Direct, sparse: false },
        Self { form: EnergyForm::Direct, sparse: true },
    ];

    /// The regime of a noise level, for data whose largest magnitude of a pixel is `max_abs`.
    #[must_use]
    pub fn at(sigma: f64, max_abs: f64) -> Self {
        let form = if sigma >= EXPANDED_FROM * max_abs { EnergyForm::Expanded } else { EnergyForm::Direct };
        Self { form, sparse: sigma < SPARSE_BELOW * max_abs }
    }

    /// Whether the expanded form is summed.
    #[must_use]
    pub fn is_expanded(self) -> bool {
        self.form == EnergyForm::Expanded
    }
}

/// The side of square windows whose expanded energies are summed in fixed point.
#[must_use]
pub fn fixed_point_side(components: &Components, channels: usize) -> Option<usize> {
    match components.kind() {
        Kind::Square { side } if *side > MAX_SHORT_SIDE && side * side * channels <= MAX_FIXED_POINT_VALUES => {
            Some(*side)
        }
        Kind::Square { .. } | Kind::Masks(_) | Kind::Full => None,
    }
}

/// The side of square windows whose energies fit the sixteen bits of the fixed-point scan.
#[must_use]
pub fn fixed_point_scan_side(components: &Components) -> Option<usize> {
    match components.kind() {
        Kind::Square { side } if *side <= MAX_SHORT_SIDE => Some(*side),
        Kind::Square { .. } | Kind::Masks(_) | Kind::Full => None,
    }
}

/// Weights below `2^-cutoff_bits` of a window's sum are left out, for a data set of `images` images, with or without flips.
/// All of them together are at the very worst `2^-20` of the sum; usually below `2^-30`, because few images lie just below
/// the cut-off.
#[must_use]
pub fn cutoff_bits(images: usize) -> f64 {
    20.0 + (2.0 * images as f64).log2()
}

/// The number of listed pixels above which weighing a list in `f64` costs more than a dense pass over `images` images of
/// `plane` pixels. A list that takes a few milliseconds always pays, one that takes a tenth of a second never does.
#[must_use]
pub fn max_listed_pixels(images: usize, plane: usize) -> usize {
    const ALWAYS_PAYS: usize = 1 << 22;
    const NEVER_PAYS: usize = 1 << 24;
    (images * plane / 6).clamp(ALWAYS_PAYS, NEVER_PAYS)
}

/// The largest number of candidates worth listing per query, for windows of `window_pixels` pixels and `pairs` pairs of
/// image and window: longer lists cost more than the dense passes of a GPU.
#[must_use]
pub fn max_listed_on_gpu(window_pixels: usize, pairs: usize) -> usize {
    const PIXELS: usize = 1 << 24;
    const FEWEST: usize = 1 << 10;
    (PIXELS / window_pixels).clamp(FEWEST, MAX_CANDIDATES).min(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_noise_level_has_one_of_the_regimes() {
        for max_abs in [0.0, 1e-20, 0.3, 1.0, 1e6] {
            for sigma in [1e-6, 0.0999, 0.1, 0.4999, 0.5, 1.0, 1e9] {
                assert!(Regime::ALL.contains(&Regime::at(sigma, max_abs)), "{sigma} against {max_abs}");
            }
        }
        assert!(Regime::at(0.0999, 1.0).sparse && !Regime::at(0.1, 1.0).sparse);
        assert!(Regime::at(0.5, 1.0).is_expanded() && !Regime::at(0.4999, 1.0).is_expanded());
    }

    #[test]
    fn the_cutoff_leaves_out_a_part_in_a_million_at_worst() {
        for images in [1, 50_000, 1_000_000] {
            let left_out = 2.0 * images as f64 * (-cutoff_bits(images)).exp2();
            assert!((left_out / 2.0_f64.powi(-20) - 1.0).abs() < 1e-9);
        }
    }
}
