//! The CUDA driver: whether it can be used, which devices it has, and its errors as ours.
//!
//! cudarc loads the driver at run time and panics where there is none, so no room calls it before [`probe`] succeeded.

use std::sync::OnceLock;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use crate::error::{Error, Result};

/// The oldest driver, as the CUDA version it supports: 12.0 brought what the kernels are compiled for.
const MIN_VERSION: i32 = 12_000;

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Its compute capability, 90 for 9.0.
    pub capability: i32,
    /// Bytes of shared memory a block may have.
    pub shared_bytes_per_block: usize,
}

/// The CUDA version the driver supports, `(12, 4)`, once there is a driver that can be used.
pub(super) fn probe() -> Result<(i32, i32)> {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: loads the system's CUDA driver, which is what the caller asked for, and runs its initialisers.
    let present = *PRESENT.get_or_init(|| unsafe { sys::is_culib_present() });
    if !present {
        let reason = "there is no NVIDIA driver (no libcuda was found); install the driver of your GPU".to_owned();
        return Err(Error::CudaUnavailable { reason });
    }
    let mut version = 0;
    // SAFETY: the driver is loaded, and `version` is a valid place for one number.
    let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) }.result();
    asked.and_then(|()| result::init()).map_err(|error| Error::CudaUnavailable {
        reason: format!("the NVIDIA driver does not start: {}; nvidia-smi may say more", explain(error)),
    })?;
    let version = (version / 1000, version % 1000 / 10);
    if version.0 * 1000 + version.1 * 10 < MIN_VERSION {
        let reason = format!(
            "the NVIDIA driver supports CUDA {}.{}, at least {}.0 is needed; install a newer driver",
            version.0,
            version.1,
            MIN_VERSION / 1000
        );
        return Err(Error::CudaUnavailable { reason });
    }
    Ok(version)
}

/// Every device of this machine.
pub(super) fn devices() -> Result<Vec<DeviceInfo>> {
    probe()?;
    let count = result::device::get_count().map_err(|error| Error::CudaUnavailable { reason: explain(error) })?;
    (0..count as usize).map(device_info).collect()
}

fn device_info(ordinal: usize) -> Result<DeviceInfo> {
    use sys::CUdevice_attribute_enum as Attribute;
    let failed = |error| failure(&"asking for the device", ordinal, error);
    let device = result::device::get(ordinal as i32).map_err(failed)?;
    // SAFETY: the driver has just returned this device.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(failed);
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    let name = result::device::get_name(device).map_err(failed)?;
    Ok(DeviceInfo { ordinal, name, capability: 10 * major + minor, shared_bytes_per_block: shared as usize })
}

/// The error of a driver call; `what` was being done on a device.
pub(super) fn failure(what: &dyn std::fmt::Display, device: usize, error: DriverError) -> Error {
    Error::Cuda { what: what.to_string(), device, reason: explain(error) }
}

/// Name and text of a driver's error; only called where there is a driver.
fn explain(error: DriverError) -> String {
    let text = |found: std::result::Result<&std::ffi::CStr, DriverError>| {
        found.map_or_else(|_| format!("error {}", error.0 as u32), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({})", text(error.error_name()), text(error.error_string()))
}
