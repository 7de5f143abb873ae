//! `Regime`: every switch point, cut-off and candidate bound of the algorithm, defined once for CPU and GPU.
//!
//! The energy of an image is a sum over pixels, with `a` the centred pixel, in one of two forms.
//! - *Direct*, for small sigma: `(a - z)^2`.
//! - *Expanded*, for large sigma: `a^2 - 2 z a`, which is the squared distance less the constant `z^2`. That constant
//!   would take up the digits in which images differ; and `a^2` is the same for all queries.

use crate::components::{Components, Kind};

/// From this sigma on, relative to the reach of the data ([`PixelRange`](crate::bank::PixelRange)), the expanded form has the smaller error
/// (docs/accuracy.md).
const EXPANDED_FROM: f64 = 0.5;

/// Below this sigma, relative to the reach of the data, few images carry weight, and they are few enough to be
/// weighed in `f64`.
const SPARSE_BELOW: f64 = 0.1;

/// Up to this side of square windows, adding values one by one costs no more than the block method or running sums.
pub const MAX_SHORT_SIDE: usize = 4;

/// Windows of more values than this are summed as floats, as the fixed-point scale would be too coarse for a single value.
const MAX_FIXED_POINT_VALUES: usize = 1 << 15;

/// Most candidates kept per query of few windows.
const MAX_CANDIDATES: usize = 1 << 18;

/// Candidates per window that are kept on average, where there are many windows.
const CANDIDATES_PER_WINDOW: usize = 8;

/// Candidates of a window below `2^-TAIL_BITS` of its best weight, all together, are left out in the end.
pub const TAIL_BITS: f64 = 24.0;

/// The energies of float32 serve where the logit of the best image, in powers of two and times the growth of rounding
/// ([`rounding_growth`]), is at most this, on every window. Its standard error is then about 2e-5 nats, and that of a
/// posterior mean smaller by the standard deviation of the pixels under it, and by the windows that hold a pixel: 2e-6 at
/// most on real images (docs/accuracy.md).
pub const MAX_FLOAT_BITS: f64 = 768.0;

/// Logits that may exceed this many powers of two are computed in float64 from the start, so that shifts of float32 are
/// always integers, exactly.
pub const MAX_SHIFT_BITS: f64 = 4_194_304.0;

/// The largest standard error of a logit, in nats, that the rounding of values to the fixed-point scale may bring.
pub const MAX_FIXED_POINT_ERROR: f64 = 4e-6;

/// The same on masks, which are summed as floats where it is larger: well below what the sums of floats may bring.
pub const MAX_MASK_FIXED_POINT_ERROR: f64 = 1e-5;

/// Noisy images with a pixel further than this from the centre of the data, relative to their reach, are not listed but
/// weighed densely: images all lie in one direction from them, and the list would be long. In float64 their energies
/// have the expanded form, which lacks the digits of the common distance.
pub const FAR_FROM: f64 = 4.0;

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

    /// The regime of a noise level, for data of the given reach.
    #[must_use]
    pub fn at(sigma: f64, reach: f64) -> Self {
        let form = if sigma >= EXPANDED_FROM * reach { EnergyForm::Expanded } else { EnergyForm::Direct };
        Self { form, sparse: sigma < SPARSE_BELOW * reach }
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

/// How far below the best so far, in powers of two, an image may be passed over in pass 1 of a shard of `images` images. The
/// shift is at most one power of two from the best, so that all images passed over are together at the very worst `2^-21`
/// of the sum.
#[must_use]
pub fn negligible_bits(images: usize) -> f64 {
    22.0 + (images as f64).log2()
}

/// How much larger the rounding of a sum is than that of one number, where values pass through up to `chain` additions one
/// after the other: rounding errors add up like a random walk, on partial sums that grow.
#[must_use]
pub fn rounding_growth(chain: usize) -> f64 {
    (1.0 + chain as f64 / 3.0).sqrt()
}

/// A bound on the relative rounding of a sum of float32 numbers of one sign, which pass through up to `chain` roundings
/// each: what no order of errors can exceed.
#[must_use]
pub fn rounding_bound(chain: usize) -> f64 {
    let unit = f64::from(f32::EPSILON) / 2.0;
    let sum = chain as f64 * unit;
    sum / (1.0 - sum).max(0.5)
}

/// Weights below `2^-cutoff_bits` of a window's sum are left out, for a data set of `images` images, with or without flips.
/// All of them together are at the very worst `2^-20` of the sum; usually below `2^-30`, because few images lie just below
/// the cut-off. Of small sets as little is left out, since a single image may lie there.
#[must_use]
pub fn cutoff_bits(images: usize) -> f64 {
    const FEW: usize = 1 << 13;
    20.0 + (2.0 * images.max(FEW) as f64).log2()
}

/// Most candidates kept per query of `windows` windows: bounds the memory of all lists in flight.
#[must_use]
pub fn max_candidates(windows: usize) -> usize {
    MAX_CANDIDATES.max(CANDIDATES_PER_WINDOW * windows)
}

/// The same for a pass over all images, where the weights that are left out lack in the sum of all weights: at the very worst
/// `2^-21`.
#[must_use]
pub fn dense_cutoff_bits(images: usize) -> f64 {
    cutoff_bits(images) + 1.0
}

/// The number of listed pixels above which weighing a list in `f64` costs more than a dense pass over `images` images of
/// `plane` pixels. A list that takes a few milliseconds always pays, one that takes a tenth of a second never does.
#[must_use]
pub fn max_listed_pixels(images: usize, plane: usize) -> usize {
    const ALWAYS_PAYS: usize = 1 << 22;
    const NEVER_PAYS: usize = 1 << 24;
    // Of large images even the shortest lists are long.
    const SHORT: usize = 64;
    (images * plane / 6).clamp(ALWAYS_PAYS, NEVER_PAYS).max((SHORT * plane).min(images * plane / 6))
}

/// The largest number of candidates worth listing per query, for `windows` windows of `window_pixels` pixels and `images`
/// images: longer lists cost more than the dense passes of a GPU.
#[must_use]
pub fn max_listed_on_gpu(window_pixels: usize, windows: usize, images: usize) -> usize {
    const PIXELS: usize = 1 << 24;
    const FEWEST: usize = 1 << 10;
    let of_few_windows = (PIXELS / window_pixels).clamp(FEWEST, MAX_CANDIDATES);
    of_few_windows.max(CANDIDATES_PER_WINDOW * windows).min(images.saturating_mul(windows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_noise_level_has_one_of_the_regimes() {
        for reach in [0.0, 1e-20, 0.3, 1.0, 1e6] {
            for sigma in [1e-6, 0.0999, 0.1, 0.4999, 0.5, 1.0, 1e9] {
                assert!(Regime::ALL.contains(&Regime::at(sigma, reach)), "{sigma} against {reach}");
            }
        }
        assert!(Regime::at(0.0999, 1.0).sparse && !Regime::at(0.1, 1.0).sparse);
        assert!(Regime::at(0.5, 1.0).is_expanded() && !Regime::at(0.4999, 1.0).is_expanded());
    }

    #[test]
    fn the_cutoff_leaves_out_a_part_in_a_million_at_worst() {
        for images in [1, 8192, 50_000, 1_000_000] {
            let left_out = 2.0 * images as f64 * (-cutoff_bits(images)).exp2();
            let worst = 2.0_f64.powi(-20) * (images as f64 / 8192.0).min(1.0);
            assert!((left_out / worst - 1.0).abs() < 1e-9);
        }
    }
}
