//! The GPUs of this machine, and the sources of their kernels.

use pyo3::prelude::*;

use crate::cuda::sources::{KernelSource, PixelKind, compile_options};

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

/// `(name, text, options)` of everything NVRTC may have to compile for an architecture.
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
