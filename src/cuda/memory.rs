//! Memory of a device, freed when it is dropped, and copies to and from it.

use cudarc::driver::result;

use super::context::Stream;
use super::layout::Address;
use crate::error::Result;

/// Memory of a device. It may only be used on the stream it was allocated for.
pub(super) struct Memory {
    stream: Stream,
    address: Address,
    bytes: usize,
    /// Whether it is allocated and freed in the order of the stream.
    from_pool: bool,
}

impl Memory {
    /// `bytes` uninitialised bytes; `what` names them in errors.
    pub(super) fn new(stream: &Stream, bytes: usize, what: &str) -> Result<Self> {
        Self::allocate(stream, bytes, what, stream.context.has_memory_pools)
    }

    /// Uninitialised memory that may outlive the stream; freeing it waits for the device.
    pub(super) fn persistent(stream: &Stream, bytes: usize, what: &str) -> Result<Self> {
        Self::allocate(&Stream::default_of(&stream.context), bytes, what, false)
    }

    fn allocate(stream: &Stream, bytes: usize, what: &str, from_pool: bool) -> Result<Self> {
        let context = &stream.context;
        let _current = context.enter()?;
        // The driver refuses to allocate nothing.
        let bytes = bytes.max(16);
        let address = if from_pool {
            // SAFETY: the stream lives; the memory is written before it is read.
            unsafe { result::malloc_async(stream.handle, bytes) }
        } else {
            // SAFETY: the memory is written before it is read.
            unsafe { result::malloc_sync(bytes) }
        };
        let address =
            address.map_err(|error| context.failure(&format!("getting {bytes} bytes of memory for {what}"), error))?;
        Ok(Self { stream: stream.clone(), address, bytes, from_pool })
    }

    /// Memory filled with zeros.
    pub(super) fn zeros(stream: &Stream, bytes: usize, what: &str) -> Result<Self> {
        let memory = Self::new(stream, bytes, what)?;
        memory.fill(0, what)?;
        Ok(memory)
    }

    /// Sets every byte.
    pub(super) fn fill(&self, byte: u8, what: &str) -> Result<()> {
        let _current = self.stream.context.enter()?;
        // SAFETY: this owns the memory, which is used on its stream.
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
        let _current = self.stream.context.enter()?;
        // SAFETY: the values fit, as was just checked; pageable memory has been read when the call returns.
        unsafe { result::memcpy_htod_async(self.address, values, self.stream.handle) }
            .map_err(|error| self.stream.context.failure(&format!("copying {what} to the device"), error))
    }

    /// Copies the beginning of the memory to the host, after all work queued so far.
    pub(super) fn read<T: Plain>(&self, values: &mut [T], what: &str) -> Result<()> {
        assert!(size_of_val(values) <= self.bytes, "{what}: more values than memory");
        let current = self.stream.context.enter()?;
        // SAFETY: the values fit, as was just checked, and are not used before the stream was waited for.
        unsafe { result::memcpy_dtoh_async(values, self.address, self.stream.handle) }
            .map_err(|error| self.stream.context.failure(&format!("copying {what} from the device"), error))?;
        drop(current);
        self.stream.synchronize(&what)
    }

    /// Its address on the device.
    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// A reference to its address, as the argument of a kernel.
    pub(super) fn address_ref(&self) -> &Address {
        &self.address
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Ok(_current) = self.stream.context.enter() {
            let _ = if self.from_pool {
                // SAFETY: allocated in `allocate` and freed only here, on the stream that used it.
                unsafe { result::free_async(self.address, self.stream.handle) }
            } else {
                // SAFETY: allocated in `allocate` and freed only here; the driver waits until the device no longer uses it.
                unsafe { result::free_sync(self.address) }
            };
        }
    }
}

/// Numbers without padding, of which every bit pattern is one.
pub(super) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for f32 {}
impl Plain for f64 {}
