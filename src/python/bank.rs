//! `Bank`: keeps a numpy array alive and lends its memory to the engine, without a copy.

use numpy::{PyArray4, PyArrayMethods, PyReadonlyArray4, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

use super::errors::DTypeError;
use crate::bank::{Bank as EngineBank, PixelRange};

/// The images of a data set as the engine reads them: uint8 or float32 `[n, channels, height, width]`, C-contiguous; and the
/// log prior of every image, `[n]`, if there is one.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct Bank {
    images: Py<PyAny>,
    range: PixelRange,
    log_prior: Option<Vec<f64>>,
}

/// A borrowed array; keeps numpy's read lock while the engine works.
pub(super) enum Images<'py> {
    U8(PyReadonlyArray4<'py, u8>),
    F32(PyReadonlyArray4<'py, f32>),
}

#[pymethods]
impl Bank {
    #[new]
    #[pyo3(signature = (images, log_prior=None, pixel_range=None))]
    fn new(
        py: Python<'_>,
        images: Bound<'_, PyAny>,
        log_prior: Option<Vec<f64>>,
        pixel_range: Option<(f32, f32)>,
    ) -> PyResult<Self> {
        let range = match borrow(&images)? {
            Images::U8(array) => EngineBank::from_u8(array.as_array())?.range(),
            Images::F32(array) => {
                let view = array.as_array();
                let own = py.detach(|| EngineBank::from_f32(view).map(|bank| bank.range()))?;
                pixel_range.map_or(own, |(least, most)| PixelRange::of_floats(least, most))
            }
        };
        let bank = Self { images: images.unbind(), range, log_prior };
        let images = bank.borrow(py)?;
        bank.view(&images)?;
        drop(images);
        Ok(bank)
    }
}

impl Bank {
    /// Borrows the array for a call.
    pub(super) fn borrow<'py>(&self, py: Python<'py>) -> PyResult<Images<'py>> {
        borrow(self.images.bind(py))
    }

    /// The engine's view of the borrowed array.
    pub(super) fn view<'a>(&'a self, images: &'a Images<'_>) -> crate::Result<EngineBank<'a>> {
        let bank = match images {
            Images::U8(array) => EngineBank::from_u8(array.as_array()),
            Images::F32(array) => EngineBank::from_checked_f32(array.as_array(), self.range),
        }?;
        match &self.log_prior {
            Some(log_prior) => bank.with_log_prior(log_prior),
            None => Ok(bank),
        }
    }
}

fn borrow<'py>(images: &Bound<'py, PyAny>) -> PyResult<Images<'py>> {
    check_aligned(images)?;
    if let Ok(array) = images.cast::<PyArray4<u8>>() {
        return Ok(Images::U8(array.readonly()));
    }
    if let Ok(array) = images.cast::<PyArray4<f32>>() {
        return Ok(Images::F32(array.readonly()));
    }
    let found = match images.cast::<PyUntypedArray>() {
        Ok(array) => format!("{} with {} axes", array.dtype(), array.ndim()),
        Err(_) => images.get_type().name()?.to_string(),
    };
    Err(DTypeError::new_err(format!("images are {found}, expected a numpy array of uint8 or float32 with 4 axes")))
}

/// Refuses an array whose elements do not begin at multiples of their size: numpy reads it, Rust may not.
pub(super) fn check_aligned(array: &Bound<'_, PyAny>) -> PyResult<()> {
    let is_aligned = |flags: Bound<'_, PyAny>| flags.getattr("aligned")?.extract();
    if array.getattr("flags").map_or(Ok(true), is_aligned)? {
        return Ok(());
    }
    Err(DTypeError::new_err("the array is not aligned in memory; copy it first (np.array(array))"))
}
