//! The room of the CUDA driver: the only place that calls it. Around its handles lie types that free what they hold.
//!
//! cudarc loads the driver at run time and panics where there is none, so nothing here is called before [`probe`].

use std::ffi::{CString, c_void};
use std::sync::{Arc, OnceLock};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::arguments::Lent;
use crate::error::{Error, Result};

/// The oldest driver, as the CUDA version it supports: 12.0 brought what the kernels are compiled for.
const OLDEST: i32 = 12_000;

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
    pub shared: usize,
}

/// The CUDA version the driver supports, `(12, 4)`, once there is a driver that can be used.
pub(super) fn probe() -> Result<(i32, i32)> {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: (1) loads the system's CUDA driver, which is what the caller asked for, and runs its initialisers.
    let present = *PRESENT.get_or_init(|| unsafe { sys::is_culib_present() });
    if !present {
        let reason = "there is no NVIDIA driver (no libcuda was found); install the driver of your GPU".to_owned();
        return Err(Error::CudaUnavailable { reason });
    }
    let mut version = 0;
    // SAFETY: (2) the driver is loaded, and `version` is a valid place for one number.
    let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) }.result();
    asked.and_then(|()| result::init()).map_err(|error| Error::CudaUnavailable {
        reason: format!("the NVIDIA driver does not start: {}; nvidia-smi may say more", explain(error)),
    })?;
    let version = (version / 1000, version % 1000 / 10);
    if version.0 * 1000 + version.1 * 10 < OLDEST {
        let reason = format!(
            "the NVIDIA driver supports CUDA {}.{}, at least {}.0 is needed; install a newer driver",
            version.0,
            version.1,
            OLDEST / 1000
        );
        return Err(Error::CudaUnavailable { reason });
    }
    Ok(version)
}

/// Every device of this machine.
pub(super) fn devices() -> Result<Vec<DeviceInfo>> {
    probe()?;
    let count = result::device::get_count().map_err(|error| Error::CudaUnavailable { reason: explain(error) })?;
    (0..count as usize).map(info).collect()
}

fn info(ordinal: usize) -> Result<DeviceInfo> {
    use sys::CUdevice_attribute_enum as Attribute;
    let failed = |error| failure(&"asking for the device", ordinal, error);
    let device = result::device::get(ordinal as i32).map_err(failed)?;
    // SAFETY: (3) the device was just given out by the driver.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(failed);
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize;
    let name = result::device::get_name(device).map_err(failed)?;
    Ok(DeviceInfo { ordinal, name, capability: 10 * major + minor, shared })
}

/// A device's primary context, the one that torch uses too. It is never released: other libraries share it.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) info: DeviceInfo,
    handle: sys::CUcontext,
    /// Whether memory can be had in the order of a stream.
    pooled: bool,
}

// SAFETY: (4) the driver's context handles may be used from every thread.
unsafe impl Send for Context {}
// SAFETY: (5) as above.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn new(ordinal: usize) -> Result<Arc<Self>> {
        let devices = devices()?;
        let Some(info) = devices.get(ordinal).cloned() else {
            let reason = format!("there is no GPU {ordinal}, this machine has {}", devices.len());
            return Err(Error::CudaUnavailable { reason });
        };
        let failed = |error| failure(&"starting the device", ordinal, error);
        let device = result::device::get(ordinal as i32).map_err(failed)?;
        // SAFETY: (6) the device exists; what is retained is kept until the process ends.
        let handle = unsafe { result::primary_ctx::retain(device) }.map_err(failed)?;
        let pools = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
        // SAFETY: (7) the device exists.
        let pooled = unsafe { result::device::get_attribute(device, pools) }.map_err(failed)? > 0;
        Ok(Arc::new(Self { info, handle, pooled }))
    }

    /// Makes this the context of the calling thread, until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Entered> {
        let failed = |error| self.failure(&"switching to the device", error);
        let before = result::ctx::get_current().map_err(failed)?;
        // SAFETY: (8) the context was retained and is never released.
        unsafe { result::ctx::set_current(self.handle) }.map_err(failed)?;
        Ok(Entered { before: before.unwrap_or(std::ptr::null_mut()) })
    }

    /// Bytes of memory that are free.
    pub(super) fn free_memory(&self) -> Result<usize> {
        let _entered = self.enter()?;
        result::mem_get_info().map(|(free, _)| free).map_err(|error| self.failure(&"asking for free memory", error))
    }

    pub(super) fn failure(&self, what: &dyn std::fmt::Display, error: DriverError) -> Error {
        failure(what, self.info.ordinal, error)
    }
}

/// While this lives, a context is the one of the calling thread; then the former one is again.
pub(super) struct Entered {
    before: sys::CUcontext,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // SAFETY: (9) this was the thread's context before, or none.
        let _ = unsafe { result::ctx::set_current(self.before) };
    }
}

/// A stream of a context: work queued on it runs in order. It belongs to whoever made it; null is the default stream.
#[derive(Clone)]
pub(super) struct Stream {
    pub(super) context: Arc<Context>,
    handle: sys::CUstream,
}

// SAFETY: (10) the driver's stream handles may be used from every thread.
unsafe impl Send for Stream {}
// SAFETY: (10) as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// The stream behind a handle, which must live as long as this and belong to the context; 0 is the default stream.
    pub(super) unsafe fn from_handle(context: &Arc<Context>, handle: usize) -> Self {
        Self { context: Arc::clone(context), handle: handle as sys::CUstream }
    }

    /// The default stream.
    pub(super) fn default_of(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), handle: std::ptr::null_mut() }
    }

    /// Waits until everything queued is done.
    pub(super) fn synchronize(&self, what: &dyn std::fmt::Display) -> Result<()> {
        let _entered = self.context.enter()?;
        // SAFETY: (11) the stream lives, by the promise of `from_handle`.
        unsafe { result::stream::synchronize(self.handle) }.map_err(|error| self.context.failure(what, error))
    }

    /// Marks the point that the queue has reached.
    pub(super) fn mark(&self) -> Result<Mark> {
        let _entered = self.context.enter()?;
        let failed = |error| self.context.failure(&"marking a point of the stream", error);
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let mark = Mark { context: Arc::clone(&self.context), handle: result::event::create(flags).map_err(failed)? };
        // SAFETY: (12) both handles live and belong to the same context.
        unsafe { result::event::record(mark.handle, self.handle) }.map_err(failed)?;
        Ok(mark)
    }
}

/// A point of a stream's queue.
pub(super) struct Mark {
    context: Arc<Context>,
    handle: sys::CUevent,
}

impl Mark {
    /// Whether everything before it is done; `what` names that in errors.
    pub(super) fn reached(&self, what: &dyn std::fmt::Display) -> Result<bool> {
        let _entered = self.context.enter()?;
        // SAFETY: (13) the event lives as long as this.
        match unsafe { result::event::query(self.handle) } {
            Ok(()) => Ok(true),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(self.context.failure(what, error)),
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Ok(_entered) = self.context.enter() {
            // SAFETY: (14) made in `mark` and destroyed only here.
            let _ = unsafe { result::event::destroy(self.handle) };
        }
    }
}

/// Memory of a device. It may be used on the stream it was made for only, and is given back when that has got there.
pub(super) struct Memory {
    stream: Stream,
    address: u64,
    bytes: usize,
    /// Whether it was got, and is given back, in the order of the stream.
    pooled: bool,
}

impl Memory {
    /// `bytes` bytes that hold anything.
    pub(super) fn new(stream: &Stream, bytes: usize, what: &str) -> Result<Self> {
        Self::of_kind(stream, bytes, what, stream.context.pooled)
    }

    /// Memory for longer than a call: it may outlive the stream, and giving it back waits for the device.
    pub(super) fn lasting(stream: &Stream, bytes: usize, what: &str) -> Result<Self> {
        Self::of_kind(&Stream::default_of(&stream.context), bytes, what, false)
    }

    fn of_kind(stream: &Stream, bytes: usize, what: &str, pooled: bool) -> Result<Self> {
        let context = &stream.context;
        let _entered = context.enter()?;
        let bytes = bytes.max(16);
        let memory = if pooled {
            // SAFETY: (15) the stream lives; what is in the memory is not read before it is written.
            unsafe { result::malloc_async(stream.handle, bytes) }
        } else {
            // SAFETY: (16) what is in the memory is not read before it is written.
            unsafe { result::malloc_sync(bytes) }
        };
        let address =
            memory.map_err(|error| context.failure(&format!("getting {bytes} bytes of memory for {what}"), error))?;
        Ok(Self { stream: stream.clone(), address, bytes, pooled })
    }

    /// Zeros.
    pub(super) fn zeros(stream: &Stream, bytes: usize, what: &str) -> Result<Self> {
        let memory = Self::new(stream, bytes, what)?;
        memory.fill(0, what)?;
        Ok(memory)
    }

    /// Sets every byte.
    pub(super) fn fill(&self, byte: u8, what: &str) -> Result<()> {
        let _entered = self.stream.context.enter()?;
        // SAFETY: (17) the memory is this one's, and used on its stream.
        unsafe { result::memset_d8_async(self.address, byte, self.bytes, self.stream.handle) }
            .map_err(|error| self.stream.context.failure(&format!("filling {what}"), error))
    }

    /// A copy of numbers of the host.
    pub(super) fn copy_of<T: Plain>(stream: &Stream, values: &[T], what: &str) -> Result<Self> {
        let memory = Self::new(stream, size_of_val(values), what)?;
        memory.write(values, what)?;
        Ok(memory)
    }

    /// Copies numbers of the host to the beginning of the memory.
    pub(super) fn write<T: Plain>(&self, values: &[T], what: &str) -> Result<()> {
        assert!(size_of_val(values) <= self.bytes, "{what}: more values than memory");
        let _entered = self.stream.context.enter()?;
        // SAFETY: (18) the values fit, as was just checked; pageable memory has been read when the call returns.
        unsafe { result::memcpy_htod_async(self.address, values, self.stream.handle) }
            .map_err(|error| self.stream.context.failure(&format!("copying {what} to the device"), error))
    }

    /// Copies the beginning of the memory to the host, when the stream has got there.
    pub(super) fn read<T: Plain>(&self, values: &mut [T], what: &str) -> Result<()> {
        assert!(size_of_val(values) <= self.bytes, "{what}: more values than memory");
        let entered = self.stream.context.enter()?;
        // SAFETY: (19) the values fit, as was just checked, and are not touched before the stream has been waited for.
        unsafe { result::memcpy_dtoh_async(values, self.address, self.stream.handle) }
            .map_err(|error| self.stream.context.failure(&format!("copying {what} from the device"), error))?;
        drop(entered);
        self.stream.synchronize(&what)
    }

    /// Its address on the device.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// Where its address is, as an argument of a kernel.
    pub(super) fn at(&self) -> &u64 {
        &self.address
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Ok(_entered) = self.stream.context.enter() {
            let _ = if self.pooled {
                // SAFETY: (20) got in `of_kind` and freed only here, on the stream that used it.
                unsafe { result::free_async(self.address, self.stream.handle) }
            } else {
                // SAFETY: (21) as above; the driver waits until the device no longer uses it.
                unsafe { result::free_sync(self.address) }
            };
        }
    }
}

/// Numbers without padding and without meaning beyond their bytes.
pub(super) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for f32 {}
impl Plain for f64 {}

/// A loaded module; it stays loaded until the process ends.
#[derive(Debug)]
pub(super) struct Module {
    context: Arc<Context>,
    handle: sys::CUmodule,
}

// SAFETY: (22) the driver's module handles may be used from every thread.
unsafe impl Send for Module {}
// SAFETY: (23) as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a CUBIN for the device's architecture.
    pub(super) fn load(context: &Arc<Context>, cubin: &[u8], what: &str) -> Result<Self> {
        let _entered = context.enter()?;
        // SAFETY: (24) the driver reads a CUBIN's length from its header; the text was made by NVRTC, or read from a file
        // with the right checksum.
        let handle = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|error| context.failure(&format!("loading the kernels of {what}"), error))?;
        Ok(Self { context: Arc::clone(context), handle })
    }

    /// A kernel by name, with leave to use all the shared memory a block may have.
    pub(super) fn kernel(&self, name: String) -> Result<Kernel> {
        let _entered = self.context.enter()?;
        let failed = |error| self.context.failure(&format!("looking for kernel {name}"), error);
        let symbol = CString::new(name.clone()).unwrap_or_default();
        // SAFETY: (25) the module is loaded and stays so.
        let handle = unsafe { result::module::get_function(self.handle, symbol) }.map_err(failed)?;
        Ok(Kernel { name, handle })
    }

    /// Lets a kernel have `bytes` of dynamic shared memory.
    pub(super) fn allow_shared(&self, kernel: &Kernel, bytes: usize) -> Result<()> {
        let _entered = self.context.enter()?;
        let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: (26) the function belongs to a module that stays loaded.
        unsafe { result::function::set_function_attribute(kernel.handle, most, bytes as i32) }.map_err(|error| {
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

// SAFETY: (27) the driver's function handles may be used from every thread.
unsafe impl Send for Kernel {}
// SAFETY: (28) as above.
unsafe impl Sync for Kernel {}

/// How many blocks of how many threads with how much dynamic shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) blocks: [u32; 3],
    pub(super) threads: u32,
    pub(super) shared: usize,
}

impl Grid {
    /// One thread for each of `count` things.
    pub(super) fn over(count: usize) -> Self {
        let threads = count.next_multiple_of(32).clamp(32, 256);
        Self { blocks: [count.div_ceil(threads) as u32, 1, 1], threads: threads as u32, shared: 0 }
    }
}

/// Queues a kernel on a stream. An error that the kernel meets while it runs shows when the stream is waited for.
///
/// # Safety
/// The arguments point to values of the types of the kernel's parameters, in order, and what those refer to on the
/// device is large enough for the grid and alive until the stream has got there.
pub(super) unsafe fn launch(kernel: &Kernel, grid: Grid, stream: &Stream, arguments: &[Lent<'_>]) -> Result<()> {
    let _entered = stream.context.enter()?;
    let mut arguments: Vec<*mut c_void> = arguments.iter().map(|argument| argument.place()).collect();
    let [x, y, z] = grid.blocks;
    // SAFETY: (29) by the caller's promise; the driver copies the arguments before it returns.
    unsafe {
        result::launch_kernel(
            kernel.handle,
            (x, y, z),
            (grid.threads, 1, 1),
            grid.shared as u32,
            stream.handle,
            &mut arguments,
        )
    }
    .map_err(|error| stream.context.failure(&format!("launching kernel {}", kernel.name), error))
}

fn failure(what: &dyn std::fmt::Display, device: usize, error: DriverError) -> Error {
    Error::Cuda { what: what.to_string(), device, reason: explain(error) }
}

/// Name and text of a driver's error; only called where there is a driver.
fn explain(error: DriverError) -> String {
    let text = |found: std::result::Result<&std::ffi::CStr, DriverError>| {
        found.map_or_else(|_| format!("error {}", error.0 as u32), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({})", text(error.error_name()), text(error.error_string()))
}
