//! `CudaBank`: the images on a GPU; torch tensors by address, numpy arrays by copy.

use std::path::PathBuf;

use numpy::{PyArray4, ToPyArray};
use pyo3::prelude::*;

use super::bank::Bank;
use super::call::{Queries, monitored};
use super::windows::Windows;
use crate::cuda::sources::{KernelSource, PixelKind, compile_options};
use crate::cuda::{CudaEngine, DeviceQueries, HostPixels, HostQueries};

/// The images of a `Bank` on GPU `device`; compiled kernels are kept in the folder `cache`.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct CudaBank {
    bank: Py<Bank>,
    engine: CudaEngine,
}

#[pymethods]
impl CudaBank {
    #[new]
    fn new(py: Python<'_>, bank: Py<Bank>, device: usize, cache: Option<PathBuf>) -> PyResult<Self> {
        let engine = {
            let images = bank.get().borrow(py)?;
            let view = bank.get().view(&images)?;
            py.detach(|| CudaEngine::new(device, cache, &view))?
        };
        Ok(Self { bank, engine })
    }

    /// Whether all images stay on the device.
    #[getter]
    fn resident(&self) -> bool {
        self.engine.is_resident()
    }

    /// Like the function `composite`, on the GPU.
    #[pyo3(signature = (windows, z, sigma, flips, progress=None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn composite<'py>(
        &self,
        py: Python<'py>,
        windows: &Windows,
        z: Queries<'py>,
        sigma: Vec<f64>,
        flips: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray4<f32>>> {
        let images = self.bank.get().borrow(py)?;
        let bank = self.bank.get().view(&images)?;
        let z = match &z {
            Queries::F32(z) => HostPixels::F32(z.as_array()),
            Queries::F64(z) => HostPixels::F64(z.as_array()),
        };
        let (model, queries) = (windows.model(&bank, flips), HostQueries { z, sigma: &sigma });
        let denoised = monitored(py, progress, |monitor| self.engine.denoise(&model, &queries, monitor));
        Ok(denoised?.to_pyarray(py))
    }

    /// Denoises contiguous queries at address `z` of the device into `out`, on the stream with handle `stream`; `z_wide`
    /// and `out_wide` say which of the two hold float64 numbers instead of float32 ones.
    #[pyo3(signature = (windows, z, z_wide, sigma, flips, out, out_wide, stream, progress=None))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn composite_at(
        &self,
        py: Python<'_>,
        windows: &Windows,
        z: u64,
        z_wide: bool,
        sigma: Vec<f64>,
        flips: bool,
        out: u64,
        out_wide: bool,
        stream: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let images = self.bank.get().borrow(py)?;
        let bank = self.bank.get().view(&images)?;
        let model = windows.model(&bank, flips);
        let queries = DeviceQueries { z, z_is_f64: z_wide, out, out_is_f64: out_wide, sigma: &sigma };
        monitored(py, progress, |monitor| {
            // SAFETY: the caller vouches for the addresses: the package takes them from torch tensors, which it holds, on
            // this device and on torch's current stream.
            unsafe { self.engine.denoise_on_device(&model, queries, stream, monitor) }
        })
    }
}

/// `(number, name, compute capability)` of every GPU; an error says why there is none.
#[pyfunction]
pub(super) fn cuda_devices(py: Python<'_>) -> PyResult<Vec<(usize, String, i32)>> {
    let devices = py.detach(crate::cuda::devices)?;
    Ok(devices.into_iter().map(|info| (info.ordinal, info.name, info.capability)).collect())
}

/// What there is of CUDA on this machine, in one line.
#[pyfunction]
pub(super) fn cuda_state(py: Python<'_>) -> String {
    py.detach(crate::cuda::state)
}

/// `(name, text, options)` of everything NVRTC may have to compile for an architecture, so that it can be looked at.
#[pyfunction]
pub(super) fn cuda_sources(architecture: i32) -> Vec<(String, String, Vec<String>)> {
    let kinds = [(PixelKind::U8, "u8"), (PixelKind::F32, "f32")];
    let every = KernelSource::ALL.into_iter().flat_map(|source| kinds.map(|(pixels, kind)| (source, pixels, kind)));
    every
        .map(|(source, pixels, kind)| {
            (format!("{}_{kind}", source.name()), source.text(pixels), compile_options(architecture))
        })
        .collect()
}
