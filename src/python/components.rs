//! `Components`: the windows of one composite.

use numpy::{PyArray3, PyReadonlyArray3};
use pyo3::prelude::*;

use crate::components::{Components as EngineComponents, Kind};

/// The windows of one composite, for images of one size.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct Components {
    pub(super) engine: EngineComponents,
}

impl From<EngineComponents> for Components {
    fn from(engine: EngineComponents) -> Self {
        Self { engine }
    }
}

#[pymethods]
impl Components {
    /// The whole image as the only window.
    #[staticmethod]
    fn full(height: usize, width: usize) -> PyResult<Self> {
        Ok(EngineComponents::full(height, width)?.into())
    }

    /// All `side` x `side` windows that fit.
    #[staticmethod]
    fn square(height: usize, width: usize, side: usize) -> PyResult<Self> {
        Ok(EngineComponents::square(height, width, side)?.into())
    }

    /// One window per mask of `[components, height, width]`.
    #[staticmethod]
    fn masks(py: Python<'_>, masks: Bound<'_, PyArray3<bool>>) -> PyResult<Self> {
        // Memory of other origin may hold bytes besides 0 and 1, which Rust's `bool` must not.
        let bytes: PyReadonlyArray3<'_, u8> = masks.call_method1("view", ("uint8",))?.extract()?;
        let masks = bytes.as_array().mapv(|byte| byte != 0);
        Ok(py.detach(|| EngineComponents::masks(masks.view()))?.into())
    }

    fn __repr__(&self) -> String {
        let (count, height, width) = (self.engine.count(), self.engine.height(), self.engine.width());
        match self.engine.kind() {
            Kind::Full => format!("<Components: the full image of {height} x {width}>"),
            Kind::Square { side } => format!("<Components: {count} windows of {side} x {side} in {height} x {width}>"),
            Kind::Masks(_) => format!("<Components: {count} masks in {height} x {width}>"),
        }
    }
}
