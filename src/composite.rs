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
    check_z_shape(bank, &z, sigma)?;
    check_window_shape(bank, windows.height(), windows.width())?;
    check_sigma(sigma)?;
    check_z(&z)?;
    let denoised = cpu::composite(bank, windows, z, sigma, flips, monitor)?;
    if denoised.iter().all(|v| v.is_finite()) { Ok(denoised) } else { Err(Error::NotFinite) }
}

/// Refuses z of another shape than the images, and a number of noise levels that is not that of the queries.
pub(crate) fn check_z_shape<T>(bank: &Bank<'_>, z: &ArrayView4<'_, T>, sigma: &[f64]) -> Result<()> {
    let [channels, height, width] = bank.image_shape();
    if z.shape()[1..] != [channels, height, width] {
        let expected = format!("[batch, {channels}, {height}, {width}], as the images of the data set");
        return Err(Error::Shape { what: "z", found: z.shape().to_vec(), expected });
    }
    if sigma.len() != z.shape()[0] {
        let expected = format!("[{}], one sigma a query", z.shape()[0]);
        return Err(Error::Shape { what: "sigma", found: vec![sigma.len()], expected });
    }
    Ok(())
}

/// Refuses windows of images of another size.
pub(crate) fn check_window_shape(bank: &Bank<'_>, rows: usize, columns: usize) -> Result<()> {
    let [_, height, width] = bank.image_shape();
    if (rows, columns) == (height, width) {
        return Ok(());
    }
    let expected = format!("[{height}, {width}]");
    Err(Error::Shape { what: "the windows' image", found: vec![rows, columns], expected })
}

/// Refuses noise levels out of range.
pub(crate) fn check_sigma(sigma: &[f64]) -> Result<()> {
    let (min, max) = SIGMA_RANGE;
    match sigma.iter().find(|s| !(min..=max).contains(*s)) {
        Some(&value) => Err(Error::Sigma { value, min, max }),
        None => Ok(()),
    }
}

/// Refuses noisy pixels that are not finite or too large.
pub(crate) fn check_z<T: Copy + Into<f64>>(z: &ArrayView4<'_, T>) -> Result<()> {
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
