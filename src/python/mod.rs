//! The Python module `pspc_rs._core`: thin wrappers, no logic. Signatures are mirrored in `_core.pyi`.

mod bank;
mod call;
#[cfg(feature = "cuda")]
mod cuda;
mod errors;
mod windows;

use pyo3::prelude::*;

/// The compiled engine of `pspc_rs`; use it through the package's public names.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::bank::Bank;
    #[pymodule_export]
    use super::call::composite;
    #[cfg(feature = "cuda")]
    #[pymodule_export]
    use super::cuda::{CudaBank, cuda_devices, cuda_sources, cuda_state};
    #[pymodule_export]
    use super::windows::Windows;
    #[pymodule_export]
    use super::{build_info, num_threads, set_num_threads, vector_rate};
}

/// Number of threads the engine uses.
#[pyfunction]
fn num_threads() -> PyResult<usize> {
    Ok(crate::threads::num_threads()?)
}

/// Uses `threads` threads from the next call on.
#[pyfunction]
fn set_num_threads(threads: usize) -> PyResult<()> {
    Ok(crate::threads::set_num_threads(threads)?)
}

/// Fused multiply-adds a second that all threads can do, counted value by value; measured in a tenth of a second.
#[pyfunction]
fn vector_rate() -> PyResult<f64> {
    Ok(crate::cpu::rate::vector_rate()?)
}

/// `(key, value)` pairs about this build and this processor.
#[pyfunction]
fn build_info() -> PyResult<Vec<(&'static str, String)>> {
    use crate::cpu::isa::Isa;
    let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("profile", profile.to_owned()),
        ("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)),
        ("isa", Isa::best()?.name().to_owned()),
        ("isa_available", names.join(", ")),
        ("cuda", if cfg!(feature = "cuda") { "part of this build" } else { "not part of this build" }.to_owned()),
    ])
}
