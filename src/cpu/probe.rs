//! `Probe`: one query made ready for the distance kernels, in the stored units of the bank.
//!
//! A squared distance is computed per pixel as `a * t` with `a = u - near`, `t = a - far`, in one of two forms.
//! - *Direct*, for small sigma: `near` is z rounded to a stored unit and `far` the rest of z, and `t * t` is summed.
//!   For bytes `u - near` is exact, so the rounding of z costs nothing where the logit divides by a tiny 2 sigma^2.
//! - *Expanded*, for large sigma: `near` is the centre of the pixel range and `far = 2 (z - centre)`, and `a * t` is
//!   summed: |z - x|^2 less the constant |z|^2, which would only eat the digits in which images differ.

use ndarray::ArrayView3;

use crate::bank::{Bank, Pixels};

/// From this sigma (in [-1, 1] units) on the expanded form has the smaller error; docs/accuracy.md has the measurements.
pub const EXPANDED_FROM: f64 = 0.5;

/// One query, or its mirror image, ready for the distance kernels.
#[derive(Debug, Clone)]
pub struct Probe {
    /// First subtrahend of every pixel, `[channel][row][column]`.
    pub near: Vec<f32>,
    /// Second subtrahend.
    pub far: Vec<f32>,
    /// Whether the expanded form is summed.
    pub expanded: bool,
    /// log2(e) / (2 sigma^2) in stored units: energies times this are base-2 logits, sign reversed.
    pub rate: f32,
    /// Whether the query was mirrored left to right.
    pub flipped: bool,
}

impl Probe {
    /// Prepares z `[channels, height, width]` at noise level `sigma`.
    #[must_use]
    pub fn new<T: Copy + Into<f64>>(bank: &Bank<'_>, z: ArrayView3<'_, T>, sigma: f64, flipped: bool) -> Self {
        let (centre, unit) = bank.scale();
        let expanded = sigma >= EXPANDED_FROM;
        let split = |z: T| -> (f32, f32) {
            let z: f64 = z.into();
            if expanded {
                return (centre as f32, (2.0 * z * unit) as f32);
            }
            let stored = z * unit + centre;
            let near = match bank.pixels() {
                Pixels::U8(_) => stored.round() as f32,
                Pixels::F32(_) => stored as f32,
            };
            (near, (stored - f64::from(near)) as f32)
        };
        let step = if flipped { -1 } else { 1 };
        let (near, far) = z.slice(ndarray::s![.., .., ..;step]).iter().map(|&z| split(z)).unzip();
        let rate = (std::f64::consts::LOG2_E / (2.0 * (sigma * unit).powi(2))) as f32;
        Self { near, far, expanded, rate, flipped }
    }
}
