//! `Probe`: one query, or its mirror image, prepared for the kernels, in centred stored units of the bank (bytes: u -
//! 127.5).

use ndarray::ArrayView3;

use crate::bank::Bank;
use crate::components::Components;
use crate::regime::{Regime, fixed_point_side};

/// The largest magnitude of a pixel is taken to be at least this, so that values in units of the fixed-point scale stay
/// within `f32`.
const MIN_MAX_ABS: f64 = 1e-18;

/// One query, or its mirror image, prepared for the kernels.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// Centred z, `[channel][row][column]`.
    pub(crate) z: Vec<f64>,
    /// What the kernels read: z in the direct form, -2 z in the expanded one, there divided by the fixed-point scale if
    /// there is one.
    pub(crate) values: Vec<f32>,
    /// The fixed-point scale of the products -2 z a, where windows are summed in fixed point.
    pub(crate) fixed_point_scale: Option<f32>,
    /// How energies are summed, and whether a scan first lists the images that carry weight.
    pub(crate) regime: Regime,
    /// log2(e) / (2 sigma^2) in stored units: energies times this are base-2 logits, sign reversed.
    pub(crate) logit_scale: f64,
    /// Which query of the call this is.
    pub(crate) query: usize,
    /// Whether the query was mirrored left to right.
    pub(crate) flipped: bool,
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
        let (_, unit) = bank.scale();
        let step = if flipped { -1 } else { 1 };
        let z: Vec<f64> = z.slice(ndarray::s![.., .., ..;step]).iter().map(|z| z * unit).collect();
        let regime = Regime::at(sigma, bank.max_abs());
        let side = fixed_point_side(components, bank.image_shape()[0]).filter(|_| regime.is_expanded());
        let max_abs = (bank.max_abs() * unit).max(MIN_MAX_ABS);
        let scale = side.map(|side| fixed_point_scale(2.0 * max_abs * heaviest_window(&z, components, side)));
        let factor = if regime.is_expanded() { -2.0 / scale.map_or(1.0, f64::from) } else { 1.0 };
        Self {
            values: z.iter().map(|z| (factor * z) as f32).collect(),
            z,
            fixed_point_scale: scale,
            regime,
            logit_scale: std::f64::consts::LOG2_E / (2.0 * (sigma * unit).powi(2)),
            query,
            flipped,
        }
    }
}

/// The scale of fixed-point sums of magnitude up to `bound`: the smallest power of two of which `bound` is less than 2^31
/// units.
pub(crate) fn fixed_point_scale(bound: f64) -> f32 {
    // A part in a thousand is left for the rounding of values; energies far below the smallest scale do not matter.
    const MAX_UNITS: f64 = 2_147_483_648.0 / 1.001;
    const SMALLEST: i32 = -100;
    2.0_f64.powi(((bound / MAX_UNITS).log2().ceil() as i32).max(SMALLEST)) as f32
}

/// The largest sum of magnitudes of z `[channel][row][column]` on a window.
fn heaviest_window(z: &[f64], components: &Components, side: usize) -> f64 {
    let (height, width) = (components.height(), components.width());
    // Sums over all rows above and columns before.
    let mut sums = ndarray::Array2::<f64>::zeros((height + 1, width + 1));
    for (y, x) in ndarray::indices((height, width)) {
        let here: f64 = z.iter().skip(y * width + x).step_by(height * width).map(|z| z.abs()).sum();
        sums[[y + 1, x + 1]] = here + sums[[y, x + 1]] + sums[[y + 1, x]] - sums[[y, x]];
    }
    let (rows, columns) = components.grid();
    let window =
        |(y, x): (usize, usize)| sums[[y + side, x + side]] + sums[[y, x]] - sums[[y, x + side]] - sums[[y + side, x]];
    ndarray::indices((rows, columns)).into_iter().map(window).fold(0.0, f64::max)
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
