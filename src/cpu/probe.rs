//! `Probe`: one query, or its mirror image, prepared for the kernels, in centred stored units of the bank (bytes: u -
//! 127.5).

use std::sync::Arc;

use ndarray::ArrayView3;

use crate::bank::Bank;
use crate::components::{Components, Kind};
use crate::regime::{FAR_FROM, MAX_MASK_FIXED_POINT_ERROR, Regime, fixed_point_side};
use crate::sources::Sources;

use super::dense::residuals::{DIRECT, EXPANDED, Terms};
use super::precision::{Rounding, heaviest_window};

/// The reach of the data is taken to be at least this, so that values in units of the fixed-point scale stay within `f32`.
const MIN_REACH: f64 = 1e-18;

/// One query, or its mirror image, prepared for the kernels.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// Centred z, `[channel][row][column]`.
    pub(crate) z: Vec<f64>,
    /// What the kernels read: z in the direct form, -2 z in the expanded one, there divided by the fixed-point scale if
    /// there is one.
    pub(crate) values: Vec<f32>,
    /// The fixed-point scale of the products -2 z a, where windows are summed in fixed point, or of all terms on masks.
    pub(crate) fixed_point_scale: Option<f32>,
    /// How energies are summed, and whether a scan first lists the images that carry weight.
    pub(crate) regime: Regime,
    /// How energies round in float32.
    pub(crate) rounding: Rounding,
    /// Whether float32 cannot serve, whatever the images are.
    pub(crate) needs_double: bool,
    /// From this magnitude on, a pixel of z is far from all data.
    pub(crate) far_from: f64,
    /// In float64, once [`Probe::into_double`] has made them: two values `p` and `q` per entry of z by which the energy of an
    /// image is the sum of `(a - p) (a - q)`. They are z twice, or, where z is far, zero and 2 z, which leaves out z^2, the
    /// same for all images.
    pub(crate) factors: Vec<[f64; 2]>,
    /// log2(e) / (2 sigma^2) in stored units: energies times this are base-2 logits, sign reversed.
    pub(crate) logit_scale: f64,
    /// Which query of the call this is.
    pub(crate) query: usize,
    /// Whether the query was mirrored left to right.
    pub(crate) flipped: bool,
    /// Positions of the images that do not count for the query, in increasing order.
    pub(crate) left_out: Arc<[u32]>,
}

impl Probe {
    /// Prepares z `[channels, height, width]` of query number `query` at noise level `sigma`.
    pub(crate) fn new(
        bank: &Bank<'_>,
        components: &Components,
        z: ArrayView3<'_, f64>,
        sigma: f64,
        query: usize,
        flipped: bool,
    ) -> Self {
        let channels = z.dim().0;
        let step = if flipped { -1 } else { 1 };
        let (z, reach, regime) = in_stored_units(bank, z.slice(ndarray::s![.., .., ..;step]), sigma);
        let rounding = Rounding::new(components, channels, &z, reach);
        let (logit_scale, is_masks) = (logit_scale(bank, sigma), matches!(components.kind(), Kind::Masks(_)));
        let scale = regime.is_expanded().then(|| scale_of(components, channels, &z, reach)).flatten();
        // Masks can be summed as floats instead, other windows in float64 only.
        let serves = |scale: f32| rounding.fixed_point_error(scale, logit_scale) <= MAX_MASK_FIXED_POINT_ERROR;
        let scale = scale.filter(|&scale| !is_masks || serves(scale));
        let needs_double = rounding.is_hopeless(logit_scale, scale.filter(|_| !is_masks));
        let rounding = if scale.is_some() { rounding.in_fixed_point() } else { rounding };
        Self { needs_double, flipped, ..Self::prepared(bank, z, (sigma, regime), query, scale, rounding) }
    }

    /// Prepares z for energies that are weighted sums over values; `rounding` tells how they round, given centred z and the reach
    /// of the data.
    pub(crate) fn for_sums(
        bank: &Bank<'_>,
        z: ArrayView3<'_, f64>,
        sigma: f64,
        query: usize,
        rounding: impl FnOnce(&[f64], f64) -> Rounding,
    ) -> Self {
        let (z, reach, regime) = in_stored_units(bank, z, sigma);
        let rounding = rounding(&z, reach);
        Self::prepared(bank, z, (sigma, regime), query, None, rounding)
    }

    fn prepared(
        bank: &Bank<'_>,
        z: Vec<f64>,
        (sigma, regime): (f64, Regime),
        query: usize,
        scale: Option<f32>,
        rounding: Rounding,
    ) -> Self {
        let factor = if regime.is_expanded() { -2.0 / scale.map_or(1.0, f64::from) } else { 1.0 };
        let logit_scale = logit_scale(bank, sigma);
        Self {
            values: z.iter().map(|z| (factor * z) as f32).collect(),
            z,
            fixed_point_scale: scale,
            regime,
            rounding,
            needs_double: rounding.is_hopeless(logit_scale, scale),
            far_from: far_from(bank),
            factors: Vec::new(),
            logit_scale,
            query,
            flipped: false,
            left_out: Arc::default(),
        }
    }

    /// The same probe without the images at the positions `left_out`, among `sources`.
    pub(crate) fn among(mut self, sources: &Sources<'_>, left_out: &Arc<[u32]>) -> Self {
        self.left_out = Arc::clone(left_out);
        if sources.has_prior() {
            self.rounding = self.rounding.with_priors(sources.prior_span * std::f64::consts::LOG2_E);
        }
        self
    }

    /// What energies in float32 are sums of.
    pub(crate) fn terms(&self) -> Terms<'_> {
        Terms {
            form: if self.regime.is_expanded() { EXPANDED } else { DIRECT },
            values: &self.values,
            fixed_point_scale: self.fixed_point_scale,
        }
    }

    /// Per entry of z, `[channel][pixel]`, what energies leave out of the squared distance: z^2 in the expanded form, and in
    /// float64 where z is far. It is the same for all images.
    pub(crate) fn energy_left_out(&self, in_double: bool) -> impl Iterator<Item = f64> {
        let is_left_out = move |z: f64| if in_double { z.abs() > self.far_from } else { self.regime.is_expanded() };
        self.z.iter().map(move |&z| if is_left_out(z) { z * z } else { 0.0 })
    }

    /// The same probe, prepared for energies in float64.
    pub(crate) fn into_double(mut self) -> Self {
        let is_far = |z: f64| z.abs() > self.far_from;
        self.factors = self.z.iter().map(|&z| if is_far(z) { [0.0, 2.0 * z] } else { [z, z] }).collect();
        self
    }
}

/// z in centred stored units, the reach of the data in them, and the regime.
fn in_stored_units(bank: &Bank<'_>, z: ArrayView3<'_, f64>, sigma: f64) -> (Vec<f64>, f64, Regime) {
    let (unit, centre) = (bank.unit(), bank.range().centre);
    let z: Vec<f64> = z.iter().map(|z| (z - centre) * unit).collect();
    let mut regime = Regime::at(sigma, bank.reach());
    regime.sparse &= z.iter().all(|z| z.abs() <= far_from(bank));
    (z, reach(bank), regime)
}

fn logit_scale(bank: &Bank<'_>, sigma: f64) -> f64 {
    std::f64::consts::LOG2_E / (2.0 * (sigma * bank.unit()).powi(2))
}

/// The fixed-point scale of the expanded energies of z, where they are summed in fixed point: of the products alone for squares,
/// whose squares of pixels are summed once for all probes, and of both for masks.
fn scale_of(components: &Components, channels: usize, z: &[f64], reach: f64) -> Option<f32> {
    let of_squares = match components.kind() {
        Kind::Masks(_) => reach,
        _ => fixed_point_side(components, channels).map(|_| 0.0)?,
    };
    let plane = components.height() * components.width();
    let magnitude = |p: usize| z[p..].iter().step_by(plane).map(|z| reach * (2.0 * z.abs() + of_squares)).sum();
    Some(fixed_point_scale(heaviest_window(components, &(0..plane).map(magnitude).collect::<Vec<f64>>())))
}

fn reach(bank: &Bank<'_>) -> f64 {
    (bank.reach() * bank.unit()).max(MIN_REACH)
}

/// The magnitude from which on a pixel of z is far from all data.
fn far_from(bank: &Bank<'_>) -> f64 {
    FAR_FROM * reach(bank)
}

/// The scale of fixed-point sums of magnitude up to `bound`: the smallest power of two of which `bound` is less than 2^31
/// units.
pub(crate) fn fixed_point_scale(bound: f64) -> f32 {
    // A part in a thousand is left for the rounding of values; energies far below the smallest scale do not matter.
    const MAX_UNITS: f64 = 2_147_483_648.0 / 1.001;
    const SMALLEST: i32 = -100;
    2.0_f64.powi(((bound / MAX_UNITS).log2().ceil() as i32).max(SMALLEST)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_point_scales_leave_room_for_the_bound() {
        for bound in [1e-3, 1.0, 3.5e6, 2.0_f64.powi(31), 1e18] {
            let units = bound / f64::from(fixed_point_scale(bound));
            assert!((1.07e9..2.1455e9).contains(&units), "{bound}: {units}");
        }
        assert_eq!(fixed_point_scale(0.0), 2.0_f32.powi(-100));
    }
}
