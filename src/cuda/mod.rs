//! The composite on an NVIDIA GPU: the same passes as on the CPU, by kernels that are compiled when they are first needed.
//!
//! | room | subject |
//! |---|---|
//! | `driver`, `nvrtc` | the only places that call CUDA, which is found at run time; everything unsafe is there or says why |
//! | [`device`], `cache` | a GPU, its kernels compiled for it, in memory and on disk |
//! | [`bank`], [`windows`] | images and windows on the device |
//! | `batch`, `windowed`, `full` | queries on the device, and the launches of their passes |
//! | `space`, `arguments`, `pace` | working space, what kernels are given, progress and Ctrl-C |
//! | [`call`] | the entry: batches that fit |
//!
//! `docs/cuda.md` is the design: kernels and their CPU counterparts, memory, what is proven and how.

#![allow(clippy::cast_possible_wrap, reason = "kernels count in i32, and a bank that does not is refused")]

mod arguments;
pub mod bank;
mod batch;
mod cache;
pub mod call;
pub mod device;
mod driver;
mod full;
mod nvrtc;
mod pace;
mod space;
mod windowed;
pub mod windows;

pub use bank::DeviceBank;
pub use call::{Queries, composite, composite_on_device};
pub use device::{Device, PixelKind, Source};
pub use driver::DeviceInfo;
pub use windows::DeviceWindows;

use crate::error::Result;

/// The GPUs of this machine; an error says why there is none.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    driver::devices()
}

/// What there is of CUDA, in one line.
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
        // Without a driver, nobody wants a compiler.
        (Err(error), Err(_)) => error.to_string(),
        (driver, compiler) => format!("{}; {}", text(driver), text(compiler)),
    }
}
