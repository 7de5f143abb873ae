//! `Windows`: the windows of one composite.

use numpy::PyReadonlyArray3;
use pyo3::prelude::*;

use crate::windows::Windows as EngineWindows;

/// The windows of one composite, for images of one size.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct Windows {
    pub(super) engine: EngineWindows,
    /// Tells these windows from others, for the copies that devices hold of them.
    #[cfg(feature = "cuda")]
    identity: std::sync::Arc<()>,
}

#[cfg(feature = "cuda")]
impl Windows {
    /// What a GPU denoises with.
    pub(super) fn model<'a>(&'a self, bank: &'a crate::Bank<'a>, flips: bool) -> crate::cuda::Model<'a> {
        crate::cuda::Model { bank, components: &self.engine, identity: &self.identity, flips }
    }
}

impl From<EngineWindows> for Windows {
    fn from(engine: EngineWindows) -> Self {
        Self {
            engine,
            #[cfg(feature = "cuda")]
            identity: std::sync::Arc::default(),
        }
    }
}

#[pymethods]
impl Windows {
    /// The whole image as the only window.
    #[staticmethod]
    fn full(height: usize, width: usize) -> PyResult<Self> {
        Ok(EngineWindows::full(height, width)?.into())
    }

    /// All `side` x `side` windows that fit.
    #[staticmethod]
    fn square(height: usize, width: usize, side: usize) -> PyResult<Self> {
        Ok(EngineWindows::square(height, width, side)?.into())
    }

    /// One window per mask of `[components, height, width]`.
    #[staticmethod]
    fn masks(py: Python<'_>, masks: PyReadonlyArray3<'_, bool>) -> PyResult<Self> {
        let view = masks.as_array();
        Ok(py.detach(|| EngineWindows::masks(view))?.into())
    }
}
