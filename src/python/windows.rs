//! `Windows`: the windows of one composite.

use numpy::PyReadonlyArray3;
use pyo3::prelude::*;

use crate::windows::Windows as EngineWindows;

/// The windows of one composite, for images of one size.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct Windows(pub(super) EngineWindows);

#[pymethods]
impl Windows {
    /// The whole image as the only window.
    #[staticmethod]
    fn full(height: usize, width: usize) -> PyResult<Self> {
        Ok(Self(EngineWindows::full(height, width)?))
    }

    /// All `side` x `side` windows that fit.
    #[staticmethod]
    fn square(height: usize, width: usize, side: usize) -> PyResult<Self> {
        Ok(Self(EngineWindows::square(height, width, side)?))
    }

    /// One window per mask of `[components, height, width]`.
    #[staticmethod]
    fn masks(py: Python<'_>, masks: PyReadonlyArray3<'_, bool>) -> PyResult<Self> {
        let view = masks.as_array();
        Ok(Self(py.detach(|| EngineWindows::masks(view))?))
    }
}
