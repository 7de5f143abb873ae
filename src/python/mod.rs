//! The Python module `pspc_rs._core`: thin wrappers, no logic. Signatures are mirrored in `_core.pyi`.

mod bank;
mod calls;
mod components;
mod covariance;
#[cfg(feature = "cuda")]
mod cuda;
mod engine;
mod errors;
mod filter;
mod noise;
mod posteriors;
mod rank_evidence;
mod reading;

use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: crate::reserve::Reserve = crate::reserve::Reserve;

/// The compiled engine of `pspc_rs`; use it through the package's public names.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::bank::Bank;
    #[pymodule_export]
    use super::components::Components;
    #[pymodule_export]
    use super::covariance::covariance_of_bytes;
    #[cfg(feature = "cuda")]
    #[pymodule_export]
    use super::cuda::{cuda_devices, cuda_sources, cuda_state};
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::filter::{Filter, Weights};
    #[pymodule_export]
    use super::noise::TorchNormals;
    #[pymodule_export]
    use super::posteriors::Posteriors;
    #[pymodule_export]
    use super::rank_evidence::RankEvidence;
    #[pymodule_export]
    use super::reading::{PlainZip, decode_png_files};
    #[pymodule_export]
    use super::{build_info, check_sigma, num_threads, set_num_threads, vector_rate};

    #[pymodule_export]
    const MIN_SIGMA: f64 = crate::query::MIN_SIGMA;
    #[pymodule_export]
    const MAX_SIGMA: f64 = crate::query::MAX_SIGMA;
    #[pymodule_export]
    const MAX_Z: f64 = crate::query::MAX_Z;
    #[pymodule_export]
    const MAX_PIXEL: f64 = crate::bank::MAX_PIXEL;
}

/// Refuses noise levels outside `MIN_SIGMA` .. `MAX_SIGMA`.
#[pyfunction]
fn check_sigma(sigma: PyReadonlyArray1<'_, f64>) -> PyResult<()> {
    let sigma = sigma.as_array();
    let levels = sigma.to_vec();
    Ok(crate::query::check_sigma(&levels, levels.len())?)
}

/// Number of threads the engine uses.
#[pyfunction]
fn num_threads() -> PyResult<usize> {
    Ok(crate::threads::num_threads()?)
}

/// Sets the number of threads of later calls.
#[pyfunction]
fn set_num_threads(threads: usize) -> PyResult<()> {
    Ok(crate::threads::set_num_threads(threads)?)
}

/// Fused multiply-adds per second of all threads, counted value by value; measured in a fifth of a second.
#[pyfunction]
fn vector_rate() -> PyResult<f64> {
    Ok(crate::info::vector_rate()?)
}

/// `(key, value)` pairs about this build and this CPU.
#[pyfunction]
fn build_info() -> PyResult<Vec<(&'static str, String)>> {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("profile", profile.to_owned()),
        ("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)),
        ("isa", crate::info::instruction_set()?.to_owned()),
        ("isa_available", crate::info::instruction_sets().join(", ")),
        ("cuda", if cfg!(feature = "cuda") { "part of this build" } else { "not part of this build" }.to_owned()),
    ])
}
