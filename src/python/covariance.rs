//! Mean and covariance of images of bytes.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray4};
use pyo3::prelude::*;

use super::calls::monitored;
use crate::covariance::{Combinations, of_bytes};

/// Means `[k]` and biased covariances `[k, k]` over images `[n, channels, height, width]` of `u[left] + u[right]`, or of the
/// differences.
#[pyfunction]
#[pyo3(signature = (images, left, right, is_difference, progress=None))]
#[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
#[allow(clippy::type_complexity, reason = "a tuple is what Python gets")]
pub(super) fn covariance_of_bytes<'py>(
    py: Python<'py>,
    images: PyReadonlyArray4<'py, u8>,
    left: PyReadonlyArray1<'py, u32>,
    right: PyReadonlyArray1<'py, u32>,
    is_difference: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyArray1<f64>>, Bound<'py, PyArray2<f64>>)> {
    let (images, left, right) = (images.as_array(), left.as_array().to_vec(), right.as_array().to_vec());
    let combinations = Combinations { left: &left, right: &right, is_difference };
    let (means, covariances) = monitored(py, progress, |monitor| of_bytes(images, combinations, monitor))?;
    Ok((means.into_pyarray(py), covariances.into_pyarray(py)))
}
