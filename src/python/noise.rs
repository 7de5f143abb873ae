//! Normal numbers of torch's generator.

use std::sync::{Mutex, PoisonError};

use numpy::PyReadwriteArray1;
use pyo3::prelude::*;

use crate::Error;
use crate::noise::TorchNormals as Stream;

/// The stream of a seed of torch's CPU generator: standard normal numbers of float32.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct TorchNormals {
    stream: Mutex<Stream>,
}

#[pymethods]
impl TorchNormals {
    #[new]
    fn new(seed: u64) -> Self {
        Self { stream: Mutex::new(Stream::new(seed)) }
    }

    /// Writes the next numbers to an array, those of one call of `torch.randn`.
    fn fill(&self, py: Python<'_>, mut numbers: PyReadwriteArray1<'_, f32>) -> PyResult<()> {
        let Ok(slice) = numbers.as_slice_mut() else {
            let found = vec![numbers.as_array().len()];
            return Err(Error::Shape { what: "numbers", found, expected: "a contiguous array".to_owned() }.into());
        };
        Ok(py.detach(|| self.stream.lock().unwrap_or_else(PoisonError::into_inner).fill(slice))?)
    }
}
