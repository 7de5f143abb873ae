//! NVRTC, CUDA's run-time compiler: source text in, a CUBIN for one architecture out.

use std::ffi::{CString, c_char};

use cudarc::nvrtc::result;
use cudarc::nvrtc::sys;

use crate::error::{Error, Result};

/// NVRTC's version, `(13, 0)`, once it is loaded.
pub(super) fn version() -> Result<(i32, i32)> {
    // SAFETY: loads NVRTC, which is what the caller asked for, and runs its initialisers.
    if !unsafe { sys::is_culib_present() } {
        let reason = "NVRTC, its run-time compiler, was not found: pip install \"pspc-rs[cuda]\"".to_owned();
        return Err(Error::CudaCompilerMissing { reason });
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: NVRTC is loaded, and both pointers are valid.
    let asked = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    asked.result().map_err(|error| Error::CudaCompilerMissing { reason: format!("NVRTC does not work: {error}") })?;
    Ok((major, minor))
}

/// The best architecture that NVRTC knows and a device of `capability` runs: its own, or an older one of its generation.
pub(super) fn architecture(capability: i32) -> Result<i32> {
    let (major, minor) = version()?;
    let known = architectures();
    let runs = |arch: &i32| arch / 10 == capability / 10 && *arch <= capability;
    known.into_iter().filter(runs).max().ok_or_else(|| Error::CudaUnavailable {
        reason: format!(
            "NVRTC {major}.{minor} does not compile for this GPU of compute capability {}.{}",
            capability / 10,
            capability % 10
        ),
    })
}

fn architectures() -> Vec<i32> {
    let mut count = 0;
    // SAFETY: NVRTC is loaded, as its version is known; the pointer is valid.
    let counted = unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) };
    let mut known = vec![0; count.max(0) as usize];
    // SAFETY: there is room for as many numbers as NVRTC said.
    let listed = unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) };
    if counted.result().is_ok() && listed.result().is_ok() { known } else { Vec::new() }
}

/// A program of NVRTC.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created in `compile` and destroyed only here.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Compiles `source`, which messages call `name`; the error is NVRTC's log.
pub(super) fn compile(source: &str, name: &str, options: &[String]) -> std::result::Result<Vec<u8>, String> {
    let text = CString::new(source).map_err(|error| error.to_string())?;
    let title = CString::new(name).map_err(|error| error.to_string())?;
    let program = Program(result::create_program(&text, Some(&title)).map_err(|error| error.to_string())?);
    // SAFETY: the program lives, and the options, which this crate makes, hold no NUL.
    if let Err(error) = unsafe { result::compile_program(program.0, options) } {
        // SAFETY: the program lives.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|&c| c != 0).collect();
        return Err(format!("{error}\n{}", String::from_utf8_lossy(&log)));
    }
    let mut len = 0;
    // SAFETY: the program lives and has been compiled; the pointer is valid.
    let sized = unsafe { sys::nvrtcGetCUBINSize(program.0, &raw mut len) };
    sized.result().map_err(|error| error.to_string())?;
    let mut cubin = vec![0_u8; len];
    // SAFETY: there is room for as many bytes as NVRTC said.
    let copied = unsafe { sys::nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast::<c_char>()) };
    copied.result().map_err(|error| error.to_string())?;
    Ok(cubin)
}
