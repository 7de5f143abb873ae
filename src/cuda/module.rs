//! Loaded kernels and their launch.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::result;
use cudarc::driver::sys;

use super::context::{Context, Stream};
use super::layout::KernelArg;
use crate::error::Result;

/// A loaded module of kernels; it stays loaded until the process ends.
#[derive(Debug)]
pub(super) struct Module {
    context: Arc<Context>,
    handle: sys::CUmodule,
}

// SAFETY: the driver's module handles may be used from every thread.
unsafe impl Send for Module {}
// SAFETY: the driver's module handles may be used from several threads at once.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a CUBIN for the device's architecture; `what` names it in errors.
    pub(super) fn load(context: &Arc<Context>, cubin: &[u8], what: &str) -> Result<Self> {
        let _current = context.enter()?;
        // SAFETY: the driver reads a CUBIN's length from its header; NVRTC made this one, or a file held it with the
        // right checksum.
        let handle = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|error| context.failure(&format!("loading the kernels of {what}"), error))?;
        Ok(Self { context: Arc::clone(context), handle })
    }

    /// A kernel by name.
    pub(super) fn kernel(&self, name: String) -> Result<Kernel> {
        let _current = self.context.enter()?;
        let failed = |error| self.context.failure(&format!("looking for kernel {name}"), error);
        let symbol = CString::new(name.clone()).unwrap_or_default();
        // SAFETY: the module stays loaded.
        let handle = unsafe { result::module::get_function(self.handle, symbol) }.map_err(failed)?;
        Ok(Kernel { name, handle })
    }

    /// Lets launches of a kernel have up to `bytes` of dynamic shared memory.
    pub(super) fn allow_shared(&self, kernel: &Kernel, bytes: usize) -> Result<()> {
        let _current = self.context.enter()?;
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to a module that stays loaded.
        unsafe { result::function::set_function_attribute(kernel.handle, attribute, bytes as i32) }.map_err(|error| {
            self.context.failure(&format!("giving {bytes} bytes of shared memory to kernel {}", kernel.name), error)
        })
    }
}

/// A kernel of a module that stays loaded.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) name: String,
    handle: sys::CUfunction,
}

// SAFETY: the driver's function handles may be used from every thread.
unsafe impl Send for Kernel {}
// SAFETY: the driver's function handles may be used from several threads at once.
unsafe impl Sync for Kernel {}

/// The size of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) blocks: [u32; 3],
    /// Threads per block.
    pub(super) threads: u32,
    /// Bytes of dynamic shared memory per block.
    pub(super) shared_bytes: usize,
}

impl Grid {
    /// One thread for each of `count` items.
    pub(super) fn over(count: usize) -> Self {
        let threads = count.next_multiple_of(32).clamp(32, 256);
        Self { blocks: [count.div_ceil(threads) as u32, 1, 1], threads: threads as u32, shared_bytes: 0 }
    }
}

/// Queues a kernel on a stream. An error that the kernel meets while it runs shows when the stream is waited for.
///
/// # Safety
/// The arguments point to values of the types of the kernel's parameters, in order. The device memory they refer to is
/// large enough for the grid and stays allocated until the kernel has run.
pub(super) unsafe fn launch(kernel: &Kernel, grid: Grid, stream: &Stream, args: &[KernelArg<'_>]) -> Result<()> {
    let _current = stream.context.enter()?;
    let mut args: Vec<*mut c_void> = args.iter().map(|arg| arg.as_ptr()).collect();
    let [x, y, z] = grid.blocks;
    // SAFETY: by the caller's promise; the driver copies the arguments before it returns.
    unsafe {
        result::launch_kernel(
            kernel.handle,
            (x, y, z),
            (grid.threads, 1, 1),
            grid.shared_bytes as u32,
            stream.handle,
            &mut args,
        )
    }
    .map_err(|error| stream.context.failure(&format!("launching kernel {}", kernel.name), error))
}
