//! The one entry of the engine: checked arguments in, denoised images out, whatever runs the passes.

use ndarray::{Array4, ArrayView4};

use crate::bank::Bank;
use crate::cpu;
use crate::error::{Error, Result};
use crate::windows::Windows;

/// Smallest and largest noise level: within them no intermediate number leaves the range of `f32`.
pub const SIGMA_RANGE: (f64, f64) = (1e-6, 1e9);

/// Largest magnitude of a noisy pixel.
pub const MAX_Z: f64 = 1e9;

/// Called between steps of 0.05 to 0.2 seconds with the work done and the whole work; an error stops the call.
pub type Monitor<'m> = dyn FnMut(u64, u64) -> Result<()> + 'm;

/// Denoises `z` `[batch, channels, height, width]`, in [-1, 1] units for byte banks, at one `sigma` a query:
/// with `w_kn` the softmax over images of `-|z - x_n|^2 / (2 sigma^2)` on window `k`,
/// `D(z)(p) = sum over windows k at p of sum_n w_kn x_n(p), divided by the number of windows at p`.
///
/// With `flips` every image also counts flipped left to right. The result is `[batch, channels, height, width]` in the
/// units of the bank's images; its bits depend neither on the number of threads nor on the other queries of the batch.
pub fn composite<T: Copy + Into<f64> + Send + Sync>(
    bank: &Bank<'_>,
    windows: &Windows,
    z: ArrayView4<'_, T>,
    sigma: &[f64],
    flips: bool,
    monitor: &mut Monitor<'_>,
) -> Result<Array4<f32>> {
    check_shapes(bank, windows, &z, sigma)?;
    check_values(&z, sigma)?;
    let denoised = cpu::composite(bank, windows, z, sigma, flips, monitor)?;
    if denoised.iter().all(|v| v.is_finite()) { Ok(denoised) } else { Err(Error::NotFinite) }
}

fn check_shapes<T>(bank: &Bank<'_>, windows: &Windows, z: &ArrayView4<'_, T>, sigma: &[f64]) -> Result<()> {
    let [channels, height, width] = bank.image_shape();
    if z.shape()[1..] != [channels, height, width] {
        let expected = format!("[batch, {channels}, {height}, {width}], as the images of the data set");
        return Err(Error::Shape { what: "z", found: z.shape().to_vec(), expected });
    }
    if (windows.height(), windows.width()) != (height, width) {
        let found = vec![windows.height(), windows.width()];
        return Err(Error::Shape { what: "the windows' image", found, expected: format!("[{height}, {width}]") });
    }
    if sigma.len() != z.shape()[0] {
        let expected = format!("[{}], one sigma a query", z.shape()[0]);
        return Err(Error::Shape { what: "sigma", found: vec![sigma.len()], expected });
    }
    Ok(())
}

fn check_values<T: Copy + Into<f64>>(z: &ArrayView4<'_, T>, sigma: &[f64]) -> Result<()> {
    let (min, max) = SIGMA_RANGE;
    if let Some(&value) = sigma.iter().find(|s| !(min..=max).contains(*s)) {
        return Err(Error::Sigma { value, min, max });
    }
    let wrong = |&v: &T| {
        let v: f64 = v.into();
        !v.is_finite() || v.abs() > MAX_Z
    };
    match z.iter().position(wrong) {
        None => Ok(()),
        Some(index) => {
            let value = z.iter().nth(index).map_or(f64::NAN, |&v| v.into());
            Err(Error::Pixel { what: "z", value, index, limit: MAX_Z })
        }
    }
}
