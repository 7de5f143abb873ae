//! `composite`: the engine's entry, with the GIL released, signals checked and progress reported.

use numpy::{PyArray4, PyReadonlyArray4, ToPyArray};
use pyo3::prelude::*;

use super::bank::Bank;
use super::windows::Windows;
use crate::Error;
use crate::composite::Monitor;

/// Queries in either precision; float64 is rounded only once, in stored units.
#[derive(FromPyObject)]
pub(super) enum Queries<'py> {
    #[pyo3(transparent)]
    F32(PyReadonlyArray4<'py, f32>),
    #[pyo3(transparent)]
    F64(PyReadonlyArray4<'py, f64>),
}

/// Denoises `z` `[batch, channels, height, width]` at one sigma a query; `progress(done, total)` is called about ten
/// times a second.
#[pyfunction]
#[pyo3(signature = (bank, windows, z, sigma, flips, progress=None))]
#[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
pub(super) fn composite<'py>(
    py: Python<'py>,
    bank: &Bank,
    windows: &Windows,
    z: Queries<'py>,
    sigma: Vec<f64>,
    flips: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let images = bank.borrow(py)?;
    let bank = bank.view(&images)?;
    let windows = &windows.engine;
    let denoised = match &z {
        Queries::F32(z) => {
            let z = z.as_array();
            monitored(py, progress, |monitor| crate::composite(&bank, windows, z, &sigma, flips, monitor))
        }
        Queries::F64(z) => {
            let z = z.as_array();
            monitored(py, progress, |monitor| crate::composite(&bank, windows, z, &sigma, flips, monitor))
        }
    };
    Ok(denoised?.to_pyarray(py))
}

/// Runs `work` without the GIL, with a monitor that takes it to check for signals and to call `progress`.
pub(super) fn monitored<R: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&mut Monitor<'_>) -> crate::Result<R> + Send,
) -> PyResult<R> {
    let mut raised = None;
    let mut monitor = |done: u64, total: u64| {
        let asked = Python::attach(|py| -> PyResult<()> {
            py.check_signals()?;
            if let Some(progress) = &progress {
                progress.call1(py, (done, total))?;
            }
            Ok(())
        });
        asked.map_err(|error| {
            raised = Some(error);
            Error::Stopped
        })
    };
    let done = py.detach(|| work(&mut monitor));
    match (done, raised) {
        (Ok(done), _) => Ok(done),
        (Err(_), Some(raised)) => Err(raised),
        (Err(error), None) => Err(error.into()),
    }
}
