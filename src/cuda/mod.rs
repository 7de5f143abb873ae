//! The composite on an NVIDIA GPU: the same passes as on the CPU, by kernels that are compiled when they are first needed.
//!
//! | room | subject |
//! |---|---|
//! | `entry` | a data set on a GPU, and the denoising of queries |
//! | `batches` | the queries of a call in batches of one regime, each on its route |
//! | `dense`, `sparse`, `full` | the three routes |
//! | `evidence`, `statistics`, `derivative`, `variance` | what else a posterior is asked |
//! | `far` | values of z far from all data, where energies are counted from the nearest image |
//! | `planes` | energies and weights of all windows in float64, a slice of the images at a time |
//! | `passes`, `posterior` | a pass over windows; what pass 1 leaves for pass 2 |
//! | `batch`, `candidates`, `penalties`, `call` | queries on the device; lists of candidates; images left out, and priors; what a call shares |
//! | `workspace`, `queue` | shared memory and slabs; progress and Ctrl-C |
//! | `bank`, `upload` | the images on the device, all of a data set or those that count, and their way there |
//! | `components`, `mask_tables` | windows on the device |
//! | `rounding` | what float32 does to energies, and where it serves |
//! | `device`, `sources`, `cache` | a GPU with its kernels, as text, in memory and on disk |
//! | `module`, `memory`, `context`, `driver`, `nvrtc` | all calls of CUDA, which is found at run time |
//! | `layout` | the structures that kernels are given |
//!
//! A room imports only rooms below it or in its line. `docs/cuda.md` is the design: kernels and their CPU counterparts,
//! memory, tests.

#![allow(clippy::cast_possible_wrap, reason = "kernels count in i32, and larger banks are refused")]

mod bank;
mod batch;
mod batches;
mod cache;
mod call;
mod candidates;
mod components;
mod context;
mod dense;
mod derivative;
mod device;
mod driver;
mod entry;
mod evidence;
mod far;
mod full;
mod layout;
mod mask_tables;
mod memory;
mod module;
mod nvrtc;
mod passes;
mod penalties;
mod planes;
mod posterior;
mod queue;
mod rounding;
#[cfg_attr(not(feature = "python"), allow(dead_code, reason = "the Python module shows the sources"))]
pub(crate) mod sources;
mod sparse;
mod statistics;
mod upload;
mod variance;
mod workspace;

pub use call::DeviceQueries;
pub use driver::DeviceInfo;
pub use entry::CudaEngine;
pub(crate) use entry::Question;
pub(crate) use evidence::DeviceEvidence;

use crate::error::Result;

/// The GPUs of this machine; an error says why there is none.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    driver::devices()
}

/// The GPUs of this machine and the versions of driver and compiler, or what is missing, in one line.
#[must_use]
pub fn state() -> String {
    let name = |info: &DeviceInfo| format!("{}: {} (sm_{})", info.ordinal, info.name, info.capability);
    let driver = driver::probe().and_then(|(major, minor)| {
        let devices = driver::devices()?;
        let names: Vec<_> = devices.iter().map(name).collect();
        Ok(format!("{}; driver for CUDA {major}.{minor}", names.join(", ")))
    });
    let compiler = nvrtc::version().map(|(major, minor)| format!("NVRTC {major}.{minor}"));
    let text = |state: Result<String>| state.unwrap_or_else(|error| error.to_string());
    match (driver, compiler) {
        // Without a driver, a missing compiler does not matter.
        (Err(error), Err(_)) => error.to_string(),
        (driver, compiler) => format!("{}; {}", text(driver), text(compiler)),
    }
}
