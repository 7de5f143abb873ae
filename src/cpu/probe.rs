//! `Probe`: one query made ready for the kernels, in centred stored units of the bank (bytes: u - 127.5).
//!
//! The energy of an image is a sum over pixels, with `a` the centred pixel, in one of two forms.
//! - *Direct*, for small sigma: `(a - z)^2`.
//! - *Expanded*, for large sigma: `a^2 - 2 z a`, which is the squared distance less the constant `z^2`. That constant
//!   would only eat the digits in which images differ; and `a^2` is shared by all probes.

use ndarray::ArrayView3;

use super::whole;
use crate::bank::Bank;
use crate::windows::Windows;

/// From this sigma on, in units of the data's reach, the expanded form has the smaller error (docs/accuracy.md).
const EXPANDED_FROM: f64 = 0.5;

/// Below this sigma, in units of the data's reach, few images carry weight, and their energies are worth `f64`.
const SPARSE_BELOW: f64 = 0.1;

/// Images are taken to reach at least so far, so that values in units of the quantum stay in the range of `f32`.
const SMALLEST_REACH: f64 = 1e-18;

/// One query, or its mirror image, ready for the kernels.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Centred z, `[channel][row][column]`.
    pub z: Vec<f64>,
    /// What the kernels read: z in the direct form, -2 z in the expanded one, there divided by the quantum if there is one.
    pub values: Vec<f32>,
    /// The quantum of the products -2 z a, where they are summed over windows in whole numbers.
    pub quantum: Option<f32>,
    /// Whether the expanded form is summed.
    pub expanded: bool,
    /// Whether to look for the few images that carry weight first.
    pub sparse: bool,
    /// log2(e) / (2 sigma^2) in stored units: energies times this are base-2 logits, sign reversed.
    pub rate: f64,
    /// Which query of the call this is.
    pub query: usize,
    /// Whether the query was mirrored left to right.
    pub flipped: bool,
}

impl Probe {
    /// Prepares z `[channels, height, width]` of query number `query` at noise level `sigma`.
    #[must_use]
    pub fn new<T: Copy + Into<f64>>(
        bank: &Bank<'_>,
        windows: &Windows,
        z: ArrayView3<'_, T>,
        sigma: f64,
        query: usize,
        flipped: bool,
    ) -> Self {
        let (_, unit) = bank.scale();
        let step = if flipped { -1 } else { 1 };
        let z: Vec<f64> = z.slice(ndarray::s![.., .., ..;step]).iter().map(|&z| z.into() * unit).collect();
        let expanded = sigma >= EXPANDED_FROM * bank.reach();
        let side = whole::side(windows, bank.image_shape()[0]).filter(|_| expanded);
        let reach = (bank.reach() * unit).max(SMALLEST_REACH);
        let quantum = side.map(|side| whole::quantum(2.0 * reach * heaviest(&z, windows, side)));
        let factor = if expanded { -2.0 / quantum.map_or(1.0, f64::from) } else { 1.0 };
        Self {
            values: z.iter().map(|z| (factor * z) as f32).collect(),
            z,
            quantum,
            expanded,
            sparse: Self::is_sparse(bank, sigma),
            rate: std::f64::consts::LOG2_E / (2.0 * (sigma * unit).powi(2)),
            query,
            flipped,
        }
    }

    /// Whether a query at `sigma` looks for the few images that carry weight first.
    pub(super) fn is_sparse(bank: &Bank<'_>, sigma: f64) -> bool {
        sigma < SPARSE_BELOW * bank.reach()
    }
}

/// The largest sum of magnitudes of z `[channel][row][column]` on a window.
fn heaviest(z: &[f64], windows: &Windows, side: usize) -> f64 {
    let (height, width) = (windows.height(), windows.width());
    // Sums over all rows above and columns before.
    let mut sums = ndarray::Array2::<f64>::zeros((height + 1, width + 1));
    for (y, x) in ndarray::indices((height, width)) {
        let here: f64 = z.iter().skip(y * width + x).step_by(height * width).map(|z| z.abs()).sum();
        sums[[y + 1, x + 1]] = here + sums[[y, x + 1]] + sums[[y + 1, x]] - sums[[y, x]];
    }
    let (rows, columns) = windows.grid();
    let window =
        |(y, x): (usize, usize)| sums[[y + side, x + side]] + sums[[y, x]] - sums[[y, x + side]] - sums[[y + side, x]];
    ndarray::indices((rows, columns)).into_iter().map(window).fold(0.0, f64::max)
}
