//! How a call of the engine runs: without the GIL, with signals checked and progress reported.

use pyo3::prelude::*;

use crate::Error;
use crate::monitor::Monitor;

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
